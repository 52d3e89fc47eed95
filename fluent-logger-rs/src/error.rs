//! Error types.
//!
//! Owns the public error types. Every message says what is wrong and, where it helps, what to do.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why a record was not taken. The record was not queued and will not be sent; every refusal is
/// counted in [`Stats::rejected`](crate::Stats::rejected).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rejected {
    /// The buffer is full and the policy is to refuse, or to wait and the wait is over.
    Full {
        /// Events that wait or are in flight.
        events: usize,
        /// Their bytes, encoded.
        bytes: usize,
    },
    /// The logger was closed, or the runtime that it lived on has ended.
    Closed,
    /// One encoded event is larger than `record_limit`.
    TooLarge {
        /// Its size in bytes, encoded.
        bytes: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The record is not a map: Forward records are maps with text keys. Log a struct or a map.
    NotAMap,
    /// A map inside the record has a key that is not text.
    KeyNotText,
    /// Maps and arrays are nested too deep for the servers in use (Fluent Bit 5.1.1 closes the
    /// connection).
    TooDeep {
        /// Containers inside each other that are allowed, the record included.
        limit: usize,
    },
    /// Its `Serialize` implementation failed.
    Unserializable {
        /// What it said.
        reason: String,
    },
    /// The tag with its prefix is longer than 65,531 bytes (`FLB_INPUT_CHUNK_TAG_MAX` of Fluent
    /// Bit).
    TagTooLong {
        /// Its size in bytes, prefix included.
        bytes: usize,
    },
    /// What was given to [`send_chunk`](crate::Logger::send_chunk) is no chunk.
    NoChunk {
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full { events, bytes } => {
                write!(
                    f,
                    "the buffer is full: {events} events, {bytes} bytes not yet delivered"
                )
            }
            Self::Closed => write!(f, "the logger is closed"),
            Self::TooLarge { bytes, limit } => {
                write!(f, "the event has {bytes} bytes, more than the limit of {limit}")
            }
            Self::NotAMap => write!(f, "the record is not a map: log a struct or a map with text keys"),
            Self::KeyNotText => write!(f, "a key in the record is not text"),
            Self::TooDeep { limit } => write!(f, "the record nests deeper than {limit} containers"),
            Self::Unserializable { reason } => write!(f, "the record cannot be serialised: {reason}"),
            Self::TagTooLong { bytes } => write!(f, "the tag has {bytes} bytes, more than 65531"),
            Self::NoChunk { reason } => write!(f, "no chunk: {reason}"),
        }
    }
}

impl std::error::Error for Rejected {}

/// Why [`Logger::send`](crate::Logger::send) cannot say that the event was delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError {
    /// It was never queued.
    Rejected(Rejected),
    /// It was dropped from the full buffer to make room (policy drop-oldest).
    Dropped,
    /// It was given up after `max_retry` failed attempts. A server may have it nevertheless.
    GaveUp {
        /// Failed attempts.
        attempts: u32,
    },
    /// The logger was closed, or its runtime ended, before delivery. `close` returned the event to
    /// its caller, or it is in the spool.
    Closed,
    /// The logger runs on the runtime of this thread, which cannot run while the call blocks.
    /// Nothing was queued. Await [`send`](crate::Logger::send), or give the logger a thread of its
    /// own.
    RuntimeBlocked,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rejected(rejected) => write!(f, "not queued: {rejected}"),
            Self::Dropped => write!(f, "dropped from the full buffer to make room for newer events"),
            Self::GaveUp { attempts } => write!(f, "given up after {attempts} failed attempts"),
            Self::Closed => write!(f, "the logger was closed before delivery"),
            Self::RuntimeBlocked => f.write_str(RUNTIME_BLOCKED),
        }
    }
}

impl std::error::Error for SendError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Rejected(rejected) => Some(rejected),
            _ => None,
        }
    }
}

/// Why [`Logger::flush`](crate::Logger::flush) cannot say that all was delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FlushError {
    /// This many events were dropped or given up while the flush went on.
    Lost {
        /// Events.
        events: u64,
    },
    /// The logger was closed, or its runtime ended, before all was delivered.
    Closed,
    /// The time given to [`Logger::blocking_flush`](crate::Logger::blocking_flush) is over.
    TimedOut,
    /// From `sync`: this many events are not yet delivered and only in memory, because the disk
    /// refused them or because there is no spool.
    NotSpooled {
        /// Events.
        events: usize,
    },
    /// The logger runs on the runtime of this thread, which cannot run while the call blocks. Await
    /// [`flush`](crate::Logger::flush), or give the logger a thread of its own.
    RuntimeBlocked,
}

impl fmt::Display for FlushError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost { events } => write!(f, "{events} events were dropped or given up during the flush"),
            Self::Closed => write!(f, "the logger was closed before all was delivered"),
            Self::TimedOut => write!(f, "not all was delivered in the time given"),
            Self::RuntimeBlocked => f.write_str(RUNTIME_BLOCKED),
            Self::NotSpooled { events } => write!(f, "{events} events are in memory only"),
        }
    }
}

impl std::error::Error for FlushError {}

/// Why [`Logger::blocking_close`](crate::Logger::blocking_close) cannot say what was not delivered.
/// Only possible with [`own_thread(false)`](crate::Builder::own_thread).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseError {
    /// The logger runs on the runtime of this thread, which cannot run while the call blocks. The
    /// logger is still open. Await [`close`](crate::Logger::close), or give the logger a thread of
    /// its own.
    RuntimeBlocked {
        /// Events in memory.
        buffered: usize,
    },
    /// The runtime of the logger did not run until the deadline.
    NoAnswer {
        /// Events in memory.
        buffered: usize,
    },
}

impl fmt::Display for CloseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RuntimeBlocked { buffered } => {
                write!(f, "{RUNTIME_BLOCKED}; {buffered} events are in memory")
            }
            Self::NoAnswer { buffered } => write!(
                f,
                "the runtime of the logger did not run until the deadline; {buffered} events are in memory"
            ),
        }
    }
}

impl std::error::Error for CloseError {}

const RUNTIME_BLOCKED: &str = "the logger runs on the runtime of this thread, which a blocking call stops: \
     await the async call, or leave the logger on a thread of its own";

/// Why a logger cannot be built. Nothing of this depends on the network: a server that is away is
/// no error.
#[derive(Debug)]
#[non_exhaustive]
pub enum BuildError {
    /// The address cannot be read as `[tcp://]host[:port]`, `tls://host[:port]` or `unix:///path`.
    BadAddress {
        /// As it was given.
        address: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A value is outside its range.
    OutOfRange {
        /// The setter's name.
        option: &'static str,
        /// What was given.
        value: String,
        /// What is allowed.
        allowed: &'static str,
    },
    /// A static field cannot be serialised, or an environment variable has a wrong value.
    BadField {
        /// The setter or the variable.
        option: String,
        /// The value, or what is wrong with it.
        value: String,
    },
    /// Several options are wrong.
    Several(Vec<Self>),
    /// Two options contradict each other, or one needs another.
    Conflict {
        /// What is wrong and what to do.
        reason: &'static str,
    },
    /// A certificate or key cannot be read or used.
    Tls {
        /// What was being done.
        what: String,
        /// What went wrong.
        reason: String,
    },
    /// The folder of the spool cannot be made, read or written.
    Spool {
        /// The folder.
        folder: PathBuf,
        /// What the operating system said.
        error: io::Error,
    },
    /// Another logger, of this process or of another one, uses the folder of the spool. Give each
    /// its own.
    SpoolInUse {
        /// The folder.
        folder: PathBuf,
    },
    /// The worker thread could not be started.
    Thread(io::Error),
    /// The operating system gave no random bytes.
    Random(String),
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadAddress { address, reason } => write!(f, "address {address:?}: {reason}"),
            Self::OutOfRange {
                option,
                value,
                allowed,
            } => {
                write!(f, "{option} is {value}; allowed is {allowed}")
            }
            Self::BadField { option, value } => write!(f, "{option} has a wrong value: {value}"),
            Self::Several(errors) => {
                write!(f, "{} options are wrong", errors.len())?;
                errors.iter().try_for_each(|error| write!(f, "; {error}"))
            }
            Self::Conflict { reason } => write!(f, "{reason}"),
            Self::Tls { what, reason } => write!(f, "{what}: {reason}"),
            Self::Spool { folder, error } => write!(f, "the spool {}: {error}", folder.display()),
            Self::SpoolInUse { folder } => write!(
                f,
                "the spool {} is in use by another logger: give each process a folder of its own",
                folder.display()
            ),
            Self::Thread(error) => write!(f, "the worker thread cannot be started: {error}"),
            Self::Random(reason) => write!(f, "no random bytes from the operating system: {reason}"),
        }
    }
}

impl std::error::Error for BuildError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Thread(error) | Self::Spool { error, .. } => Some(error),
            _ => None,
        }
    }
}

/// What went wrong with the disk spool. Delivery goes on in each case. Reported to
/// `Builder::on_spool_error`.
#[derive(Debug)]
#[non_exhaustive]
pub enum SpoolError {
    /// A file of an earlier process is damaged. It was set aside, as `….damaged`, and its events
    /// are not sent.
    Damaged {
        /// Where it is now.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A chunk could not be written. It is sent from memory; if the process is killed before, it is
    /// lost.
    Write {
        /// The file.
        path: PathBuf,
        /// Events in the chunk.
        events: usize,
        /// What the operating system said.
        error: io::Error,
    },
    /// The file of an acknowledged chunk could not be removed. The next start sends the chunk
    /// again.
    Remove {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        error: io::Error,
    },
}

impl fmt::Display for SpoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged { path, reason } => {
                write!(
                    f,
                    "a spooled chunk is damaged and set aside, {}: {reason}",
                    path.display()
                )
            }
            Self::Write { path, events, error } => write!(
                f,
                "a chunk of {events} events is in memory only, since {} cannot be written: {error}",
                path.display()
            ),
            Self::Remove { path, error } => write!(
                f,
                "an acknowledged chunk will be sent again by the next start, since {} cannot be removed: {error}",
                path.display()
            ),
        }
    }
}

impl std::error::Error for SpoolError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Write { error, .. } | Self::Remove { error, .. } => Some(error),
            Self::Damaged { .. } => None,
        }
    }
}

/// Why a connection could not be made or was given up. Nothing is lost by it: what was not
/// acknowledged is sent again over the next connection. Reported to
/// [`on_connection_error`](crate::Builder::on_connection_error).
#[derive(Debug)]
#[non_exhaustive]
pub enum ConnectionError {
    /// The name did not resolve.
    Resolve(io::Error),
    /// TCP or unix connect failed.
    Connect(io::Error),
    /// Connecting (name, TCP, TLS) took longer than `connect_timeout`.
    ConnectTimeout(Duration),
    /// TLS failed: certificate, name or protocol.
    Tls(io::Error),
    /// The shared-key handshake failed; the text says whether it is the key, the user or the
    /// server.
    Handshake(String),
    /// No HELO or PONG came within `handshake_timeout`: most likely the server does not require a
    /// shared key.
    HandshakeTimeout(Duration),
    /// The server asked for a shared key and none is set.
    SharedKeyRequired,
    /// Reading or writing failed.
    Io(io::Error),
    /// The server closed the connection; this many chunks were not acknowledged.
    ClosedByServer {
        /// Chunks sent and not acknowledged.
        unacknowledged: usize,
    },
    /// An acknowledgement did not come within `ack_timeout`.
    AckTimeout(Duration),
    /// The server took no bytes for `write_timeout`.
    WriteTimeout(Duration),
    /// The server answered with an acknowledgement for something else, or with an empty one.
    AckMismatch,
    /// The server sent bytes that are no acknowledgement.
    Protocol(String),
}

impl fmt::Display for ConnectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resolve(error) => write!(f, "the host name does not resolve: {error}"),
            Self::Connect(error) => write!(f, "cannot connect: {error}"),
            Self::ConnectTimeout(limit) => write!(f, "not connected within {limit:?}"),
            Self::Tls(error) => write!(f, "TLS: {error}"),
            Self::Handshake(reason) => write!(f, "handshake: {reason}"),
            Self::HandshakeTimeout(limit) => {
                write!(
                    f,
                    "no handshake within {limit:?}: does the server require a shared key at all?"
                )
            }
            Self::SharedKeyRequired => write!(f, "the server requires a shared key and none is set"),
            Self::Io(error) => write!(f, "{error}"),
            Self::ClosedByServer { unacknowledged } => {
                write!(
                    f,
                    "the server closed the connection, {unacknowledged} chunks unacknowledged"
                )
            }
            Self::AckTimeout(limit) => write!(f, "no acknowledgement within {limit:?}"),
            Self::WriteTimeout(limit) => write!(f, "the server took no bytes for {limit:?}"),
            Self::AckMismatch => write!(f, "the server acknowledged something that is not in flight"),
            Self::Protocol(reason) => write!(f, "not a Forward server's answer: {reason}"),
        }
    }
}

impl std::error::Error for ConnectionError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Resolve(error) | Self::Connect(error) | Self::Tls(error) | Self::Io(error) => Some(error),
            _ => None,
        }
    }
}
