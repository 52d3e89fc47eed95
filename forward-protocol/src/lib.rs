//! The Fluent Forward protocol without any I/O: bytes in, messages and bytes out, for both ends.
//!
//! This crate owns the wire format. It opens no sockets, reads no clock and makes no random numbers: buffers,
//! nonces and salts are arguments. It does not decide what happens to an event; it says what came, where it stands
//! in the buffer, and whose fault it is when something is wrong.
//!
//! The protocol facts are those of the Forward Protocol Specification v1 and v1.5 and of what Fluent Bit 5.1.1,
//! Fluentd 1.19 and the common loggers really send.
#![forbid(unsafe_code)]

pub mod ack;
pub mod encode;
pub mod entries;
pub mod frame;
pub mod handshake;
#[cfg(feature = "json")]
pub mod json;
pub mod msgpack;

#[cfg(test)]
mod vectors;
