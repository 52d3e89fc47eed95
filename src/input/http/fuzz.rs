//! Entry point of the fuzz target `http`, and of property tests: what holds for any body.

use forward_protocol::entries::Entry;
use forward_protocol::frame::{Limits, Payload, messages};

use super::media::Format;
use super::message::MessageBuilder;
use super::records::{self, RecordOptions};
use crate::buffer_pool::BufferPool;

/// The length that a message may reach here, in bytes.
const LIMIT: usize = 1 << 16;

/// Converts a body whose format the first byte chooses. What is taken is one Forward message
/// within the limit, with as many entries as were counted, none of them bad.
pub fn fuzz(data: &[u8]) {
    let Some((first, body)) = data.split_first() else {
        return;
    };
    let formats = [Format::Json, Format::Lines, Format::MessagePack, Format::Form];
    let format = formats[usize::from(first & 3)];
    let options = RecordOptions {
        time_key: (first & 4 != 0).then_some("t"),
        time: (first & 8 != 0).then_some(1_700_000_000_123_456_789),
        depth: Limits::default().depth,
    };
    let mut message = MessageBuilder::new(b"app", 0, &BufferPool::default());
    let limit = message.out.len() + LIMIT;
    if let Ok(count) = records::append(format, body, &options, &mut message, limit) {
        assert!(message.out.len() <= limit, "{} bytes", message.out.len());
        assert_message(message, count);
    }
}

/// Asserts that a message is whole and has `count` entries.
pub(in crate::input) fn assert_message(message: MessageBuilder, count: u64) {
    let limits = Limits::default();
    let bytes = message.finish(count, Some(b"key"));
    let mut found = messages(&bytes, limits);
    let message = found
        .next()
        .expect("a message")
        .expect("a message that is accepted");
    assert_eq!(message.bytes.len(), bytes.len());
    let Payload::Entries(entries) = message.payload(limits.depth) else {
        panic!("the payload looks compressed");
    };
    let entries: Result<Vec<Entry<'_>>, _> = entries.collect();
    assert_eq!(entries.expect("no bad entry").len() as u64, count);
}
