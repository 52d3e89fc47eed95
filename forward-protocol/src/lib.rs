//! A sans-I/O implementation of the Fluent Forward protocol, for both ends.
//!
//! ```text
//!   bytes received ─▶ frame ─▶ message ─▶ entries ─▶ events          (server)
//!     bytes to send ◀─ ack, handshake ◀─ the server's decision
//!
//!            events ─▶ encode ─▶ bytes to send                       (client)
//!    bytes received ─▶ handshake, ack ─▶ acknowledged chunks
//! ```
//!
//! Owns the wire format. Opens no sockets, reads no clock and generates no random numbers: buffers,
//! nonces and salts are arguments. Does not decide what happens to an event; it reports what was
//! received, where it is in the buffer, and which end is at fault for a defect. Reading copies
//! nothing: messages, entries and values are views on the received bytes.
//!
//! The protocol facts are those of the Forward Protocol Specification v1 and v1.5, and of Fluent
//! Bit 5.1.1, Fluentd 1.19 and the common loggers, which go beyond the specification.
//!
//! # A server
//!
//! ```
//! use forward_protocol::ack::write_ack;
//! use forward_protocol::entries::{Entries, Key, MapPairs, decompress};
//! use forward_protocol::frame::{Framer, Limits, Outcome, Payload};
//!
//! let limits = Limits::default();
//! let mut framer = Framer::new(limits);
//! let mut received: Vec<u8> = Vec::new();
//! let mut acks = Vec::new();
//! let mut keys = Vec::new();
//!
//! // One message in PackedForward mode, arriving in two parts.
//! let parts: [&[u8]; 2] = [
//!     b"\x93\xa3app\xc4\x13\x92\xd7\0\x65\x53\xf1\0\x07\x5b",
//!     b"\xcd\x15\x81\xa3log\xa2hi\x81\xa5chunk\xa2id",
//! ];
//! for part in parts {
//!     received.extend_from_slice(part);
//!     let run = framer.scan(&received);
//!     for frame in &run.frames {
//!         if let Some(message) = frame.message(&received) {
//!             assert_eq!(message.tag, b"app");
//!             let decompressed;
//!             let entries = match message.payload(limits.depth) {
//!                 Payload::Entries(entries) => entries,
//!                 Payload::Compressed { compression, bytes } => {
//!                     decompressed = decompress(compression, bytes, 256 << 20)?;
//!                     Entries::new(&decompressed.bytes, limits.depth)
//!                 }
//!                 Payload::Opaque(_) => continue, // metrics or traces
//!             };
//!             for entry in entries.flatten() {
//!                 for pair in MapPairs::new(entry.record) {
//!                     if let Key::Text(key) = pair.key {
//!                         keys.push(key.to_vec());
//!                     }
//!                 }
//!             }
//!         }
//!         // Only once the message is durable. Poison is acknowledged as well: a retry would fail
//!         // again.
//!         if let (Outcome::Accepted | Outcome::Poison(_), Some(chunk)) = (frame.outcome, frame.chunk(&received)) {
//!             write_ack(&mut acks, chunk);
//!         }
//!     }
//!     assert!(run.violation.is_none(), "else close the connection");
//!     received.drain(..run.end);
//! }
//! assert_eq!(keys, [b"log"]);
//! assert_eq!(acks, b"\x81\xa3ack\xa2id");
//! # Ok::<(), forward_protocol::entries::Oversize>(())
//! ```
//!
//! # A client
//!
//! ```
//! use forward_protocol::ack::{AckMatcher, AckReader, Reply};
//! use forward_protocol::encode::{ChunkId, EntryStream, write_entry, write_packed};
//! use forward_protocol::msgpack::{write_map_len, write_str};
//!
//! let mut record = Vec::new();
//! write_map_len(&mut record, 1);
//! write_str(&mut record, b"message");
//! write_str(&mut record, b"request completed");
//!
//! let mut entries = Vec::new();
//! write_entry(&mut entries, 1_700_000_000_123_456_789, None, &record);
//!
//! let id = ChunkId::from_random([7; 16]); // 16 bytes from the system's random source
//! let mut message = Vec::new();
//! write_packed(&mut message, b"app", EntryStream { bytes: &entries, count: 1 }, Some(&id));
//! let mut waiting = AckMatcher::new();
//! waiting.sent(id, message); // then write it to the socket
//!
//! // The replies, in any fragmentation:
//! let mut reader = AckReader::new();
//! reader.feed(b"\x81\xa3ack\xb8BwcHBwcHBwcHBwcH");
//! reader.feed(b"BwcHBw==");
//! while let Some(reply) = reader.reply()? {
//!     match reply {
//!         Reply::Ack(id) => assert!(waiting.acked(&id).is_some(), "the chunk is durable"),
//!         Reply::Nack => { /* send again after a pause */ }
//!         _ => {}
//!     }
//! }
//! assert!(waiting.is_empty());
//! # Ok::<(), forward_protocol::ack::BadReply>(())
//! ```
//!
//! A connection with a shared key begins with a [`handshake`]. A server that also accepts JSON
//! checks the first byte of a connection and puts a `json::JsonCarrier` before the framer.
//!
//! # Features
//!
//! All are on by default: `gzip` and `zstd` (compressed payloads; without the feature such a
//! payload is reported as damage), `json` (the JSON carrier).
#![cfg_attr(docsrs, feature(doc_cfg))]
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
