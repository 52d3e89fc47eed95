//! Records without a message: JSON objects line by line, or MessagePack maps, or lists of them, as
//! people send them who take the port for one of JSON lines. Each becomes a message of the tag
//! `windrow.raw`, before it is stored, so that the journal holds messages only.

use bytes::Bytes;
use forward_protocol::frame::{Outcome, Poison, Run};
use forward_protocol::msgpack::{Kind, write_array_len, write_nil, write_str};

/// The tag of records that come without one.
pub(super) const RAW_TAG: &str = "windrow.raw";

/// Elements of a message in Message mode: tag, time, record.
const MESSAGE_ELEMENTS: u32 = 3;
/// Elements of a message in Forward mode without options: tag, entries.
const FORWARD_ELEMENTS: u32 = 2;

/// Whether a value is a list that begins with a map: a list of records.
pub(super) fn is_list(outcome: Outcome) -> bool {
    outcome == Outcome::Poison(Poison::TagType(Kind::Map))
}

/// The messages of `run`, whose bytes are `bytes`, with each bare record, and each list of them, as a
/// message. A list as long as the longest message stays what it is, and is rejected.
pub(super) fn as_messages(run: &Run, bytes: Bytes, max_message: usize) -> Bytes {
    let max_list = max_message.saturating_sub(RAW_TAG.len() + 2);
    let is_bare = |outcome| matches!(outcome, Outcome::Record) || is_list(outcome);
    if !run.frames.iter().any(|frame| is_bare(frame.outcome)) {
        return bytes;
    }
    let mut out = Vec::with_capacity(bytes.len() + run.frames.len() * (RAW_TAG.len() + 4));
    for frame in &run.frames {
        if frame.outcome == Outcome::Record {
            write_array_len(&mut out, MESSAGE_ELEMENTS);
            write_str(&mut out, RAW_TAG.as_bytes());
            // No time: that of reception counts.
            write_nil(&mut out);
        } else if is_list(frame.outcome) && frame.range.len() <= max_list {
            // Its records stand in the place of entries.
            write_array_len(&mut out, FORWARD_ELEMENTS);
            write_str(&mut out, RAW_TAG.as_bytes());
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
        let stored = as_messages(&run, bytes, 1 << 20);
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
        assert_eq!(as_messages(&run, bytes.clone(), 1 << 20).as_ptr(), bytes.as_ptr());
    }

    #[test]
    fn a_list_of_records_becomes_one_message() {
        // The last record looks like options, and has more pairs than those may have.
        let mut bytes = b"\x94\x81\xa1a\x01\x80\x81\xa1b\x02\xde\x00\x20".to_vec();
        for n in 0..32 {
            bytes.extend_from_slice(&[0xa1, b'a' + n % 26, n]);
        }
        let bytes = Bytes::from(bytes);
        let run = Framer::new(Limits::default()).scan(&bytes);
        assert_eq!((run.end, run.violation), (bytes.len(), None));
        let stored = as_messages(&run, bytes.clone(), bytes.len() + 13);
        let found: Vec<_> = messages(&stored, Limits::default())
            .map(|message| message.map(|message| (message.tag, message.body)).unwrap())
            .collect();
        assert_eq!(found, [(RAW_TAG.as_bytes(), &bytes[1..])]);
        let too_long = as_messages(&run, bytes.clone(), bytes.len() + 12);
        assert_eq!(too_long, bytes);
    }
}
