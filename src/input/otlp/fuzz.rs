//! Entry point of the fuzz target `otlp`, and of property tests: what holds for any body.

use forward_protocol::frame::Limits;

use super::super::http::MessageBuilder;
use super::super::http::fuzz::assert_message;
use super::{Encoding, append};
use crate::buffer_pool::BufferPool;

/// The length that a message may reach here, in bytes.
const LIMIT: usize = 1 << 16;

/// Converts a body whose encoding the first byte chooses. What is taken is one Forward message with
/// as many entries as were counted, none of them bad; of a record that is rejected nothing is left.
pub fn fuzz(data: &[u8]) {
    let Some((first, body)) = data.split_first() else {
        return;
    };
    let encoding = if first & 1 == 0 {
        Encoding::Protobuf
    } else {
        Encoding::Json
    };
    let mut message = MessageBuilder::new(b"v1_logs", 0, &BufferPool::default());
    let limit = message.out.len() + LIMIT;
    if let Ok(taken) = append(encoding, body, &mut message, limit, Limits::default().depth) {
        assert_message(message, taken.records);
    }
}
