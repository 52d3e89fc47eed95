//! [`Outcome`], [`Poison`] and [`Violation`]: the classification of what a peer sends.

use crate::msgpack::Kind;

/// How a received message is classified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Store and acknowledge it. Single entries may still be bad.
    Accepted,
    /// It can never be accepted: dead-letter and acknowledge it.
    Poison(Poison),
    /// A bare `nil`, the TCP heartbeat of the specification: ignore it.
    Heartbeat,
    /// A map where a message should be: a record without tag and time, as people send it who take
    /// the port for one of JSON lines. Store it under a tag of the server's, or ignore it.
    Record,
    /// A value other than an array or a map: ignore it.
    Stray(Kind),
}

/// Why a well-formed message can never be accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Poison {
    /// The tag is neither string nor binary.
    #[error("the tag is of type {0:?}")]
    TagType(Kind),
    /// The tag is longer than [`Limits::tag`](super::Limits::tag).
    #[error("the tag has {len} bytes, the limit is {limit}")]
    TagTooLong {
        /// Its length.
        len: usize,
        /// The limit.
        limit: usize,
    },
    /// The second element is of a type that belongs to no mode.
    #[error("the second element is of type {0:?}, which belongs to no carrier mode")]
    NoMode(Kind),
    /// `[tag, time]` without a record.
    #[error("a message with a time but without a record")]
    NoRecord,
    /// `fluent_signal` is not 0, 1 or 2.
    #[error("the option fluent_signal is neither 0 (logs) nor 1 (metrics) nor 2 (traces)")]
    Signal,
}

/// A breach of the protocol after which the connection must be closed. `at` counts from the start
/// of the scanned buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// The bytes are not MessagePack.
    #[error("the peer sent the byte 0xc1, which MessagePack never uses, at byte {at}")]
    Malformed {
        /// Offset of the illegal byte.
        at: usize,
    },
    /// An array with fewer than two elements cannot be a Forward message.
    #[error("the peer sent an array of {elements} at byte {at}; every Forward mode has at least 2 elements")]
    TooShort {
        /// Where the array begins.
        at: usize,
        /// How many elements it has.
        elements: u32,
    },
    /// The message is longer than [`Limits::message`](super::Limits::message), as its headers say.
    /// A retry cannot help: raise the limit.
    #[error("the message at byte {at} has at least {needed} bytes, the limit is {limit}")]
    TooLarge {
        /// Where the message begins.
        at: usize,
        /// The least length that it can have.
        needed: u64,
        /// [`Limits::message`](super::Limits::message).
        limit: usize,
    },
    /// Containers are nested deeper than any sender needs.
    #[error("containers are nested deeper than {limit} at byte {at}")]
    TooDeep {
        /// Offset of the container beyond the limit.
        at: usize,
        /// The limit.
        limit: u32,
    },
    /// The chunk id is longer than [`Limits::chunk`](super::Limits::chunk).
    #[error("the message at byte {at} has a chunk id of {len} bytes, the limit is {limit}")]
    ChunkTooLong {
        /// Where the message begins.
        at: usize,
        /// The length of the id.
        len: usize,
        /// [`Limits::chunk`](super::Limits::chunk).
        limit: usize,
    },
    /// The option map has more pairs than [`Limits::options`](super::Limits::options).
    #[error("the message at byte {at} has {pairs} options, the limit is {limit}")]
    TooManyOptions {
        /// Where the message begins.
        at: usize,
        /// How many pairs it has.
        pairs: u32,
        /// [`Limits::options`](super::Limits::options).
        limit: u32,
    },
    /// More than [`Limits::strays`](super::Limits::strays) values other than arrays and maps.
    #[error("the peer sent {count} values that are not Forward messages; it speaks another protocol")]
    TooManyStrays {
        /// How many came.
        count: u32,
    },
    /// The connection begins like TLS: TLS is enabled in the client and not in the listener.
    #[error("the peer speaks TLS to a listener without TLS")]
    Tls,
    /// The connection begins like an HTTP request.
    #[error("the peer speaks HTTP")]
    Http,
    /// The connection begins with a header of the PROXY protocol, version 1 or 2.
    #[error("the peer, probably a load balancer, sends a header of the PROXY protocol")]
    ProxyProtocol,
}
