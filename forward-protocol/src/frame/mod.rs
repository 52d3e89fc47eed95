//! The server's receiving side: where messages end, and what each of them is.
//!
//! A connection is a plain concatenation of MessagePack values without lengths or delimiters, so the end of a message
//! is only known by walking it. [`Framer`] does that over a buffer that grows and never reads a byte twice; the
//! payload of a PackedForward message is passed over in one step. It says what each complete message is by looking
//! at its head and its options, never at its entries: those are the business of [`crate::entries`].
//!
//! Every message has one of three outcomes:
//!
//! * **accepted**: [`Outcome::Accepted`];
//! * **poison**: well-formed, but no retry can ever make it acceptable ([`Poison`]). It is to be counted, kept aside
//!   and acknowledged, or its sender will send it for ever;
//! * **violation**: the framing is lost or the peer abuses it ([`Violation`]). The connection is to be closed without
//!   an ack; complete messages before it stay accepted.

mod framer;
mod message;

#[cfg(test)]
mod tests;

pub use framer::{Frame, Framer, Limits, Outcome, Run, Violation};
pub use message::{
    Compressed, Message, Messages, Mode, Options, Payload, Poison, Refusal, Refused, Signal, messages,
};
