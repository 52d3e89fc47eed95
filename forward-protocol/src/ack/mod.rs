//! Acknowledgements: `{"ack": <chunk id>}`, written by the server and read by the client.
//!
//! Owns the format of the ack and matching acks to sent chunks. The server decides when to
//! acknowledge, the client when to time out.

mod client;

#[cfg(test)]
mod tests;

pub use client::{AckMatcher, AckReader, BadReply, Reply};

use bytes::BufMut;

/// Writes the ack of a chunk. `chunk` is the id exactly as it was sent, with its MessagePack
/// header, as [`crate::frame::Frame::chunk`] gives it: clients compare type and bytes.
///
/// Send it in one write: Fluent Bit, Fluentd and Fluency cannot read an ack that arrives in parts.
pub fn write_ack(out: &mut impl BufMut, chunk: &[u8]) {
    out.put_slice(b"\x81\xa3ack");
    out.put_slice(chunk);
}
