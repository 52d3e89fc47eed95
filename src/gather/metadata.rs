//! Metadata of an entry, joined with those of its group of events.
//!
//! The ids that OpenTelemetry gives as bytes become hex, as which everyone searches for them.

use forward_protocol::entries::{Group, Key, MapPairs};
use forward_protocol::msgpack::{write_map_len, write_str};
use windrow_trace::{MadeId, Token, read_token};

/// The map in metadata of which Fluent Bit makes the fields of an OpenTelemetry record.
const OTLP: &[u8] = b"otlp";
/// Its ids.
const IDS: [&[u8]; 3] = [b"trace_id", b"span_id", b"parent_span_id"];
/// The name of an event's own time, if that is outside of `trace.time_window`.
const ORIGINAL_TIME: &[u8] = b"originalTime";

/// The entry's `own` metadata as one MessagePack map, with those of its group under the key
/// `group`.
#[inline]
pub(super) fn merge<'a>(
    own: Option<&'a [u8]>,
    group: Option<Group<'a>>,
    scratch: &'a mut Vec<u8>,
) -> &'a [u8] {
    match (own, group) {
        (None, None) => &[],
        (Some(own), None) if !has_otlp(own) => own,
        (own, group) => with_group(own.unwrap_or_default(), group, scratch),
    }
}

/// Whether there are ids of OpenTelemetry to rewrite.
#[cold]
fn has_otlp(own: &[u8]) -> bool {
    MapPairs::new(own).any(|pair| pair.key == Key::Text(OTLP))
}

/// Writes the pairs of a map, with ids of OpenTelemetry as hex. Returns their number.
fn write_pairs(out: &mut Vec<u8>, map: &[u8]) -> u32 {
    let mut count = 0;
    for pair in MapPairs::new(map) {
        count += 1;
        match pair.key {
            Key::Text(OTLP) if matches!(read_token(pair.value, 0), Some((Token::Map(_), _))) => {
                write_str(out, OTLP);
                write_otlp(out, pair.value);
            }
            Key::Text(name) => {
                write_str(out, name);
                out.extend_from_slice(pair.value);
            }
            Key::Other(key) => {
                out.extend_from_slice(key);
                out.extend_from_slice(pair.value);
            }
        }
    }
    count
}

fn write_otlp(out: &mut Vec<u8>, map: &[u8]) {
    let pairs = MapPairs::new(map);
    write_map_len(out, pairs.remaining());
    for pair in pairs {
        let name = match pair.key {
            Key::Text(name) => {
                write_str(out, name);
                name
            }
            Key::Other(key) => {
                out.extend_from_slice(key);
                &[]
            }
        };
        let id = match read_token(pair.value, 0) {
            Some((Token::Bin(bytes), _)) if IDS.contains(&name) => MadeId::of_bytes(bytes),
            _ => None,
        };
        match id {
            Some(id) => write_str(out, id.bytes()),
            None => out.extend_from_slice(pair.value),
        }
    }
}

/// `metadata` with the time that its event has by its sender.
#[cold]
pub(super) fn with_original_time<'a>(metadata: &[u8], ns: i64, scratch: &'a mut Vec<u8>) -> &'a [u8] {
    scratch.clear();
    write_map_len(scratch, MapPairs::new(metadata).remaining() + 1);
    for pair in MapPairs::new(metadata) {
        match pair.key {
            Key::Text(name) => write_str(scratch, name),
            Key::Other(key) => scratch.extend_from_slice(key),
        }
        scratch.extend_from_slice(pair.value);
    }
    write_str(scratch, ORIGINAL_TIME);
    // MessagePack's timestamp of 12 bytes, which documents have as RFC 3339.
    let (seconds, nanoseconds) = (ns.div_euclid(1_000_000_000), ns.rem_euclid(1_000_000_000));
    scratch.extend_from_slice(&[0xc7, 12, 0xff]);
    scratch.extend_from_slice(&(nanoseconds as u32).to_be_bytes());
    scratch.extend_from_slice(&seconds.to_be_bytes());
    scratch
}

#[inline(never)]
fn with_group<'a>(own: &[u8], group: Option<Group<'_>>, scratch: &'a mut Vec<u8>) -> &'a [u8] {
    scratch.clear();
    let pairs = MapPairs::new(own).remaining();
    write_map_len(scratch, pairs + u32::from(group.is_some()));
    write_pairs(scratch, own);
    let Some(group) = group else { return scratch };
    write_str(scratch, b"group");
    write_map_len(scratch, 2);
    for (name, map) in [
        (&b"metadata"[..], group.metadata),
        (b"attributes", group.attributes),
    ] {
        write_str(scratch, name);
        write_map_len(scratch, MapPairs::new(map).remaining());
        write_pairs(scratch, map);
    }
    scratch
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn decoded(bytes: &[u8]) -> Value {
        let mut json = Vec::new();
        windrow_trace::write_json_value(&mut json, bytes, 0);
        serde_json::from_slice(&json).unwrap()
    }

    #[test]
    fn ids_of_opentelemetry_become_hex() {
        let bytes: Vec<u8> = (1..=16).collect();
        let own = [
            &b"\x82\xa1a\x01\xa4otlp\x83\xa8trace_id\xc4\x10"[..],
            &bytes,
            b"\xa7span_id\xc4\x08abcdefgh\xa8severity\x09",
        ]
        .concat();
        let expected = json!({"a": 1, "otlp": {
            "trace_id": "0102030405060708090a0b0c0d0e0f10", "span_id": "6162636465666768", "severity": 9,
        }});
        assert_eq!(decoded(merge(Some(&own), None, &mut Vec::new())), expected);
        let plain = b"\x81\xa1a\xc4\x08abcdefgh";
        assert_eq!(merge(Some(plain), None, &mut Vec::new()), plain, "left as it is");
        assert_eq!(merge(None, None, &mut Vec::new()), b"");
    }

    #[test]
    fn the_original_time_stands_beside_the_other_metadata() {
        let with = |metadata: &[u8], ns| decoded(with_original_time(metadata, ns, &mut Vec::new()));
        assert_eq!(
            with(b"", 1_000_000_000),
            json!({"originalTime": "1970-01-01T00:00:01.000Z"})
        );
        let expected = json!({"a": 1, "originalTime": "1969-12-31T23:59:59.999999999Z"});
        assert_eq!(with(b"\x81\xa1a\x01", -1), expected);
    }
}
