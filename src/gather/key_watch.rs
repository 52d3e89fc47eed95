//! Key watch: says once which of `trace.keys` no record had, when many records came and none has a
//! trace id. A wrong key is the usual reason.

use std::fmt::Write as _;

use forward_protocol::entries::{Key, MapPairs};
use windrow_trace::{KEY_NAMES, RecordView};

/// Records without a trace id after which it speaks.
const RECORDS: u64 = 10_000;
/// Names of fields that it lists as examples, and the longest of them in bytes.
const MAX_EXAMPLES: usize = 12;
const MAX_EXAMPLE_BYTES: usize = 64;

/// Watches until a record has a trace id, or until it has spoken.
#[derive(Debug, Default)]
pub(super) struct KeyWatch {
    stopped: bool,
    records: u64,
    /// Numbers of the keys that were seen, with values that are no ids.
    seen: Vec<usize>,
}

impl KeyWatch {
    /// Whether [`Self::observe`] is of use.
    #[inline]
    pub(super) fn is_watching(&self) -> bool {
        !self.stopped
    }

    /// A record had a trace id.
    #[inline]
    pub(super) fn stop(&mut self) {
        self.stopped = true;
    }

    /// Looks at a record without a trace id.
    #[cold]
    pub(super) fn observe(&mut self, view: &RecordView, record: &[u8]) {
        self.records += 1;
        view.keys_in(record, |number, _| {
            if !self.seen.contains(&number) {
                self.seen.push(number);
            }
        });
        if self.records >= RECORDS {
            self.stopped = true;
            tracing::warn!("{}", self.message(&view.names().keys, record));
        }
    }

    fn message(&self, keys: &[String], record: &[u8]) -> String {
        let mut message = format!("{} records were received and none has a trace id", self.records);
        let (seen, never): (Vec<_>, Vec<_>) = keys
            .iter()
            .enumerate()
            .partition(|(number, _)| self.seen.contains(number));
        let list = |keys: &[(usize, &String)]| {
            let keys: Vec<_> = keys.iter().map(|(_, key)| key.as_str()).collect();
            keys.join(", ")
        };
        if !seen.is_empty() {
            let _ = write!(
                message,
                "; of trace.keys only {} came, with values that are no ids (see trace.ignore)",
                list(&seen)
            );
        }
        if seen.is_empty() && keys.iter().eq(KEY_NAMES) {
            message.push_str("; none of the default trace.keys was seen");
        } else if !never.is_empty() {
            let _ = write!(message, "; never seen: {}", list(&never));
        }
        let names: Vec<_> = MapPairs::new(record)
            .filter_map(|pair| match pair.key {
                Key::Text(name) if name.len() <= MAX_EXAMPLE_BYTES => Some(String::from_utf8_lossy(name)),
                _ => None,
            })
            .take(MAX_EXAMPLES)
            .collect();
        let _ = write!(
            message,
            ". The last record has the fields {names:?}: set trace.keys to the field with the id, or \
             ignore this if there are no traces"
        );
        message
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use windrow_trace::FieldNames;

    use super::*;

    #[test]
    fn it_names_the_keys_that_never_came_and_those_without_an_id() {
        let names = FieldNames {
            keys: ["traceId", "trace.id", "wrong"].map(str::to_owned).to_vec(),
            ..FieldNames::default()
        };
        let view = RecordView::new(names);
        let record =
            rmp_serde::to_vec(&json!({"message": "m", "request": "r", "trace": {"id": "-"}})).unwrap();
        let mut watch = KeyWatch::default();
        for _ in 1..RECORDS {
            watch.observe(&view, &record);
        }
        assert!(watch.is_watching());
        let message = watch.message(&view.names().keys, &record);
        for part in [
            "9999 records were received and none has a trace id",
            "of trace.keys only trace.id came, with values that are no ids",
            "never seen: traceId, wrong",
            r#"["message", "request", "trace"]"#,
        ] {
            assert!(message.contains(part), "{part:?} in {message:?}");
        }
        watch.observe(&view, &record);
        assert!(!watch.is_watching(), "it speaks once");
        let message = KeyWatch::default().message(&FieldNames::default().keys, b"\x80");
        assert!(
            message.contains("none of the default trace.keys was seen"),
            "{message}"
        );
    }
}
