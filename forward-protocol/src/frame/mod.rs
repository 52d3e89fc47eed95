//! Server side: framing of messages in a growing buffer, and classification of each message.
//!
//! A connection is a plain concatenation of MessagePack values without lengths or delimiters, so
//! the end of a message is only known by walking it. [`Framer`] does that over a growing buffer and
//! never reads a byte twice; the payload of a PackedForward message is skipped in one step. It
//! classifies a message by its head and its options, never by its entries: those belong to
//! [`crate::entries`].
//!
//! A message has one of three outcomes:
//!
//! * **accepted**: [`Outcome::Accepted`];
//! * **poison**: well-formed, but no retry can make it acceptable ([`Poison`]). Count it, put it
//!   into a dead letter queue and acknowledge it, or its sender retries for ever;
//! * **violation**: the framing is lost or a limit is exceeded ([`Violation`]). Close the
//!   connection without an ack; complete messages before it stay accepted.

mod framer;
mod head;
mod limits;
mod message;
mod outcome;
mod stored;

#[cfg(test)]
mod tests;

pub use framer::{Frame, Framer, Run};
pub use limits::Limits;
pub use message::{Compressed, Message, Mode, Options, Payload, Signal};
pub use outcome::{Outcome, Poison, Violation};
pub use stored::{Messages, RejectReason, RejectedMessage, messages};
