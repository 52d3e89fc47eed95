//! Fragments: records that are a part of a longer line, as container runtimes split it, and how
//! they say so.
//!
//! * Docker's log drivers: `partial_message`, `partial_id`, `partial_ordinal`, `partial_last`;
//!   before Docker 19 only `partial_message`, on all parts but the last.
//! * CRI: `logtag` is `P`, and `F` on the last part, perhaps with further tags behind a colon.
//! * Docker's json-file driver: the text has 16 KiB and no line end, which the last part has.

use forward_protocol::entries::{Key, MapPairs, Pair};
use forward_protocol::msgpack::{write_map_len, write_str};
use twox_hash::xxhash3_128;
use windrow_trace::{Token, as_text, read_token};

use super::root_names::RootNames;

/// Bytes after which Docker splits a line.
pub(super) const DOCKER_LINE_BYTES: usize = 16 << 10;

/// What a record says about the line that it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// It is a whole line.
    Whole,
    /// Part `ordinal` of a line with an id.
    Numbered { ordinal: u32, is_last: bool },
    /// A part that is not the last; parts of a stream come in order.
    Open(Format),
    /// A whole line, or the last part of the line that is open in its stream.
    Closing(Format),
}

/// Who splits lines into parts without an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Docker,
    Cri,
    JsonFile,
}

/// Names of the fields that only parts have.
const PART_FIELDS: [&[u8]; 4] = [
    b"partial_message",
    b"partial_id",
    b"partial_ordinal",
    b"partial_last",
];

/// Fields that tell streams of one tag apart, at the top level and in `kubernetes`.
const STREAM_FIELDS: [&[u8]; 17] = [
    b"stream",
    b"source",
    b"container_id",
    b"container_name",
    b"docker_id",
    b"file",
    b"filename",
    b"file_path",
    b"filepath",
    b"path",
    b"pod",
    b"pod_id",
    b"pod_name",
    b"namespace",
    b"namespace_name",
    b"host",
    b"hostname",
];

/// Reads what `record` says about its line.
pub(super) fn mark(names: &RootNames, record: &[u8]) -> Mark {
    let (mut partial, mut logtag, mut id, mut ordinal) = (None, None, None, None);
    let (mut is_last, mut has_stream, mut has_container) = (false, false, false);
    for pair in MapPairs::new(record) {
        let Key::Text(name) = pair.key else { continue };
        match name {
            b"partial_message" => partial = Some(is_true(&pair)),
            b"partial_last" => is_last = is_true(&pair),
            b"partial_id" => id = text(&pair),
            b"partial_ordinal" => ordinal = number(&pair),
            b"logtag" => logtag = text(&pair),
            b"stream" => has_stream = matches!(text(&pair), Some(b"stdout" | b"stderr")),
            b"container_id" => has_container = true,
            _ => {}
        }
    }
    let Some(field) = names.text_field(record) else {
        return Mark::Whole;
    };
    match (partial, id, ordinal, logtag) {
        (Some(true), Some(_), Some(ordinal), _) => Mark::Numbered { ordinal, is_last },
        (Some(true), ..) if is_last => Mark::Closing(Format::Docker),
        (Some(true), ..) => Mark::Open(Format::Docker),
        (_, _, _, Some([b'P'] | [b'P', b':', ..])) => Mark::Open(Format::Cri),
        (_, _, _, Some([b'F'] | [b'F', b':', ..])) => Mark::Closing(Format::Cri),
        _ if has_container => Mark::Closing(Format::Docker),
        _ if has_stream && field.text.len() == DOCKER_LINE_BYTES && !field.text.ends_with(b"\n") => {
            Mark::Open(Format::JsonFile)
        }
        _ if has_stream => Mark::Closing(Format::JsonFile),
        _ => Mark::Whole,
    }
}

/// The line or stream that a record belongs to, as a hash.
pub(super) fn line_key(mark: Mark, tag: &str, record: &[u8]) -> u128 {
    let mut hasher = xxhash3_128::Hasher::new();
    let mut write = |bytes: &[u8]| {
        hasher.write(&(bytes.len() as u64).to_le_bytes());
        hasher.write(bytes);
    };
    write(tag.as_bytes());
    write(match mark {
        Mark::Whole => b"",
        Mark::Numbered { .. } => b"numbered",
        Mark::Open(Format::Docker) | Mark::Closing(Format::Docker) => b"docker",
        Mark::Open(Format::Cri) | Mark::Closing(Format::Cri) => b"cri",
        Mark::Open(Format::JsonFile) | Mark::Closing(Format::JsonFile) => b"file",
    });
    let mut identify = |pair: &Pair<'_>| {
        if let Key::Text(name) = pair.key
            && (STREAM_FIELDS.contains(&name) || name == b"partial_id")
        {
            write(name);
            write(pair.value);
        }
    };
    for pair in MapPairs::new(record) {
        if pair.key == Key::Text(b"kubernetes") {
            MapPairs::new(pair.value).for_each(|pair| identify(&pair));
        } else {
            identify(&pair);
        }
    }
    hasher.finish_128()
}

/// The record of a whole line: `last` with the joined texts of `parts`, without the fields that only
/// parts have.
pub(super) fn join(names: &RootNames, last: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let texts: Vec<&[u8]> = parts
        .iter()
        .filter_map(|part| names.text_field(part).map(|field| field.text))
        .collect();
    let place = names.text_field(last).map(|field| field.number);
    let is_kept = |pair: &Pair<'_>| !matches!(pair.key, Key::Text(name) if PART_FIELDS.contains(&name));
    let mut out = Vec::with_capacity(last.len() + texts.iter().map(|text| text.len()).sum::<usize>());
    write_map_len(&mut out, MapPairs::new(last).filter(is_kept).count() as u32);
    for (number, pair) in MapPairs::new(last).enumerate() {
        if !is_kept(&pair) {
            continue;
        }
        match pair.key {
            Key::Text(name) => write_str(&mut out, name),
            Key::Other(key) => out.extend_from_slice(key),
        }
        if Some(number) == place {
            write_str(&mut out, &texts.concat());
        } else {
            out.extend_from_slice(pair.value);
        }
    }
    out
}

fn text<'a>(pair: &Pair<'a>) -> Option<&'a [u8]> {
    as_text(read_token(pair.value, 0)?.0)
}

fn number(pair: &Pair<'_>) -> Option<u32> {
    match read_token(pair.value, 0)?.0 {
        Token::Unsigned(n) => u32::try_from(n).ok(),
        token => std::str::from_utf8(as_text(token)?).ok()?.parse().ok(),
    }
}

fn is_true(pair: &Pair<'_>) -> bool {
    matches!(read_token(pair.value, 0), Some((Token::Bool(true), _)))
        || text(pair).is_some_and(|text| text.eq_ignore_ascii_case(b"true"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use windrow_trace::FieldNames;

    use super::*;

    fn names() -> RootNames {
        RootNames::new(&FieldNames::default())
    }

    fn mark_of(record: &Value) -> Mark {
        mark(&names(), &rmp_serde::to_vec(record).unwrap())
    }

    #[test]
    fn how_runtimes_mark_parts() {
        let long = "x".repeat(DOCKER_LINE_BYTES);
        let numbered = |last| json!({"log": "x", "partial_message": "true", "partial_id": "a", "partial_ordinal": "2", "partial_last": last});
        let (docker, cri, file) = (Format::Docker, Format::Cri, Format::JsonFile);
        for (record, expected) in [
            (
                numbered("false"),
                Mark::Numbered {
                    ordinal: 2,
                    is_last: false,
                },
            ),
            (
                numbered("true"),
                Mark::Numbered {
                    ordinal: 2,
                    is_last: true,
                },
            ),
            (
                json!({"log": "x", "partial_message": true, "partial_id": "a", "partial_ordinal": 3, "partial_last": true}),
                Mark::Numbered {
                    ordinal: 3,
                    is_last: true,
                },
            ),
            (json!({"log": "x", "partial_message": "true"}), Mark::Open(docker)),
            (
                json!({"log": "x", "partial_message": "true", "partial_last": "true"}),
                Mark::Closing(docker),
            ),
            (json!({"log": "x", "partial_message": "false"}), Mark::Whole),
            (json!({"log": "x", "container_id": "c"}), Mark::Closing(docker)),
            (json!({"message": "x", "logtag": "P"}), Mark::Open(cri)),
            (json!({"message": "x", "logtag": "P:tag"}), Mark::Open(cri)),
            (
                json!({"message": "x", "logtag": "F", "stream": "stdout"}),
                Mark::Closing(cri),
            ),
            (json!({"message": "x", "logtag": "other"}), Mark::Whole),
            (json!({"logtag": "P"}), Mark::Whole),
            (json!({"log": long, "stream": "stdout"}), Mark::Open(file)),
            (json!({"log": long}), Mark::Whole),
            (
                json!({"log": format!("{}\n", &long[1..]), "stream": "stderr"}),
                Mark::Closing(file),
            ),
            (json!({"log": "x\n", "stream": "stderr"}), Mark::Closing(file)),
            (json!({"log": "x", "stream": 5}), Mark::Whole),
        ] {
            assert_eq!(mark_of(&record), expected, "{record}");
        }
    }

    #[test]
    fn streams_are_told_apart() {
        let key = |tag, record: Value| {
            let record = rmp_serde::to_vec(&record).unwrap();
            line_key(mark(&names(), &record), tag, &record)
        };
        let part = |pod: &str, stream: &str, text: &str| json!({"log": text, "logtag": "P", "stream": stream, "time": text, "kubernetes": {"pod_name": pod, "labels": {"a": text}}});
        let first = key("kube", part("a", "stdout", "1"));
        let end = json!({"log": "x", "logtag": "F", "stream": "stdout", "kubernetes": {"pod_name": "a"}});
        assert_eq!(first, key("kube", part("a", "stdout", "2")));
        assert_eq!(first, key("kube", end));
        for other in [
            key("other", part("a", "stdout", "1")),
            key("kube", part("b", "stdout", "1")),
            key("kube", part("a", "stderr", "1")),
        ] {
            assert_ne!(first, other);
        }
    }

    #[test]
    fn a_joined_line_has_no_marks() {
        let part = |text: &str, ordinal: u32| {
            rmp_serde::to_vec(
                &json!({"container_id": "c", "partial_message": "true", "log": text, "partial_id": "a",
                "partial_ordinal": ordinal.to_string(), "partial_last": "false", "logtag": "F"}),
            )
            .unwrap()
        };
        let parts = [part("one ", 1), part("two ", 2), part("three", 3)];
        let slices: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        let joined = join(&names(), &parts[2], &slices);
        let joined: Value = rmp_serde::from_slice(&joined).unwrap();
        assert_eq!(
            joined,
            json!({"container_id": "c", "log": "one two three", "logtag": "F"})
        );
    }
}
