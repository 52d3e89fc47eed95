//! Records without a message: JSON objects line by line, or MessagePack maps, as people send them
//! who take the port for one of JSON lines. Each becomes a message of the tag `windrow.raw`, before
//! it is stored, so that the journal holds messages only.

use bytes::Bytes;
use forward_protocol::frame::{Outcome, Run};
use forward_protocol::msgpack::{write_array_len, write_nil, write_str};

/// The tag of records that come without one.
pub(super) const RAW_TAG: &str = "windrow.raw";

/// Elements of a message in Message mode: tag, time, record.
const MESSAGE_ELEMENTS: u32 = 3;

/// The messages of `run`, whose bytes are `bytes`, with each bare record as a message.
pub(super) fn as_messages(run: &Run, bytes: Bytes) -> Bytes {
    let is_bare = |outcome| matches!(outcome, Outcome::Record);
    if !run.frames.iter().any(|frame| is_bare(frame.outcome)) {
        return bytes;
    }
    let mut out = Vec::with_capacity(bytes.len() + run.frames.len() * (RAW_TAG.len() + 4));
    for frame in &run.frames {
        if is_bare(frame.outcome) {
            write_array_len(&mut out, MESSAGE_ELEMENTS);
            write_str(&mut out, RAW_TAG.as_bytes());
            // No time: that of reception counts.
            write_nil(&mut out);
        }
        out.extend_from_slice(bytes.get(frame.range.clone()).unwrap_or_default());
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use forward_protocol::frame::{Framer, Limits, messages};

    use super::*;

    #[test]
    fn bare_records_become_messages_among_the_others() {
        let bytes = Bytes::from_static(b"\x81\xa1a\x01\x93\xa1t\x05\x80\xc0\x80");
        let run = Framer::new(Limits::default()).scan(&bytes);
        assert_eq!((run.end, run.violation), (bytes.len(), None));
        let stored = as_messages(&run, bytes);
        let found: Vec<_> = messages(&stored, Limits::default())
            .map(|message| message.map(|message| (message.tag, message.body)).unwrap())
            .collect();
        let raw = RAW_TAG.as_bytes();
        assert_eq!(
            found,
            [
                (raw, &b"\xc0\x81\xa1a\x01"[..]),
                (b"t", b"\x05\x80"),
                (raw, b"\xc0\x80")
            ]
        );
    }

    #[test]
    fn other_runs_are_not_copied() {
        let bytes = Bytes::from_static(b"\x93\xa1t\x05\x80");
        let run = Framer::new(Limits::default()).scan(&bytes);
        assert_eq!(as_messages(&run, bytes.clone()).as_ptr(), bytes.as_ptr());
    }
}
