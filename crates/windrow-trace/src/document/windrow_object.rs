//! What a document says of its trace as a whole: how it begins, and the `windrow` object with the parts.
//!
//! Owns their form, which `document` and `union` have in common. The lines and fields are theirs.

use super::json::{write_string, write_unsigned};
use super::names::Names;
use super::state::{PartState, Reason, Writer};
use super::time::Rfc3339;
use crate::part::PartInfo;

/// The `windrow` object, apart from its state and metadata.
pub(crate) struct About<'a, T> {
    pub(crate) reason: Reason,
    pub(crate) first: i64,
    pub(crate) last: i64,
    pub(crate) lines: usize,
    pub(crate) tags: &'a [T],
    pub(crate) parts: usize,
    pub(crate) late: u64,
    pub(crate) truncated: u64,
}

/// What a document says of its trace as a whole.
pub(crate) struct Seal<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) parts: &'a [PartInfo],
    pub(crate) tags: &'a [&'a str],
    pub(crate) reason: Reason,
    pub(crate) sealed_at: i64,
}

impl Seal<'_> {
    /// A gatherer seals after it has received; only a clock that was set back makes a line late here.
    pub(crate) fn some_late(&self) -> bool {
        self.parts.iter().any(|part| part.received > self.sealed_at)
    }

    /// Whether the lines of this part are.
    pub(crate) fn is_late(&self, part: u32) -> bool {
        let part = self.parts.get(part as usize);
        part.is_some_and(|part| part.received > self.sealed_at)
    }

    pub(crate) fn write_about(
        &self,
        out: &mut Vec<u8>,
        times: &mut Rfc3339,
        between: (i64, i64),
        lines: usize,
        late: u64,
    ) {
        let total: u64 = self.parts.iter().map(|part| u64::from(part.total)).sum();
        let about = About {
            reason: self.reason,
            first: between.0,
            last: between.1,
            lines,
            tags: self.tags,
            parts: self.parts.len(),
            late,
            truncated: total.saturating_sub(lines as u64),
        };
        write_about(out, times, &about);
    }

    /// Begins the state, with the parts.
    pub(crate) fn begin_state<'w>(
        &self,
        scratch: &'w mut Vec<u8>,
        names: &Names,
        text_name: Option<&str>,
    ) -> Writer<'w> {
        let count = self.parts.len();
        let mut writer = Writer::begin(
            scratch,
            names.key(),
            text_name,
            self.reason,
            self.sealed_at,
            count,
        );
        for part in self.parts {
            writer.part(&PartState {
                id: part.id,
                received: part.received,
                total: part.total,
            });
        }
        writer
    }
}

/// `{"@timestamp":"…","traceId":"…"`; `head`: see [`id_head`].
pub(crate) fn begin(out: &mut Vec<u8>, times: &mut Rfc3339, first: i64, head: &[u8], key: &[u8]) {
    out.extend_from_slice(b"{\"@timestamp\":\"");
    times.write(out, first);
    out.extend_from_slice(head);
    write_string(out, key);
}

/// What stands between the time and the trace id, which has this name: `","traceId":`.
pub(crate) fn id_head(name: &str) -> Vec<u8> {
    let mut head = b"\",".to_vec();
    write_string(&mut head, name.as_bytes());
    head.push(b':');
    head
}

/// `,"windrow":{"reason":"…",…`, left open for metadata and state.
pub(crate) fn write_about<T: AsRef<str>>(out: &mut Vec<u8>, times: &mut Rfc3339, about: &About<'_, T>) {
    let number = |out: &mut Vec<u8>, name: &[u8], value: u64| {
        out.extend_from_slice(name);
        write_unsigned(out, value);
    };
    out.extend_from_slice(b",\"windrow\":{\"reason\":\"");
    out.extend_from_slice(about.reason.as_str().as_bytes());
    out.push(b'"');
    number(out, b",\"lines\":", about.lines as u64);
    out.extend_from_slice(b",\"last\":\"");
    times.write(out, about.last);
    number(
        out,
        b"\",\"durationMs\":",
        (about.last.saturating_sub(about.first) / 1_000_000) as u64,
    );
    out.extend_from_slice(b",\"tags\":[");
    for (i, tag) in about.tags.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write_string(out, tag.as_ref().as_bytes());
    }
    number(out, b"],\"parts\":", about.parts as u64);
    number(out, b",\"late\":", about.late);
    if about.truncated > 0 {
        number(out, b",\"truncated\":", about.truncated);
    }
}
