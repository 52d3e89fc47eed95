//! Validated options, made by [`crate::Builder`].
//!
//! Does not read files and does not touch the network.

#[cfg(feature = "spool")]
use std::path::PathBuf;
use std::time::Duration;

use crate::address::Address;
use crate::naming::Naming;
use crate::record::EntryFormat;

/// How events are put on the wire (Forward Protocol Specification v1, "Event Modes").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Mode {
    /// One message per event: understood by every server, and the most expensive. With acks, one
    /// ack per event.
    Message,
    /// One message per batch, the events as an array.
    Forward,
    /// One message per batch, the events as one binary value that a server can store without
    /// decoding it. The default.
    #[default]
    Packed,
    /// As `Packed`, compressed with gzip (fast level).
    #[cfg(feature = "gzip")]
    PackedGzip,
}

/// What happens to an event when the buffer is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnFull {
    /// The call says [`Rejected::Full`](crate::Rejected::Full) at once. The default.
    #[default]
    Refuse,
    /// `log` waits for room, **blocking its thread**, at most this long, and then says
    /// [`Rejected::Full`](crate::Rejected::Full). `send` waits without blocking a thread and
    /// without a limit.
    ///
    /// With this policy the logger always gets a thread of its own, so that waiting on the only
    /// thread of a runtime cannot keep the logger from making room.
    Wait(Duration),
    /// The oldest events that are not in flight are dropped, counted in
    /// [`Stats::dropped`](crate::Stats::dropped) and reported to the delivery callback.
    DropOldest,
}

/// When a spooled chunk is durable.
#[cfg(feature = "spool")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Fsync {
    /// Each chunk is synced, with its name, before it counts as spooled and before it is sent: it
    /// survives the end of the process and a loss of power. The default.
    #[default]
    Always,
    /// The operating system decides when to write (Linux: within about 30 s): a chunk survives the
    /// end of the process, but not a crash of the system or a loss of power. A chunk truncated by
    /// those is detected and set aside.
    Never,
}

/// How one of several addresses is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Balance {
    /// Each connection goes to the next address; the first is chosen at random. The default.
    #[default]
    RoundRobin,
    /// The first address as long as it answers, then the others in order. A periodic reconnect
    /// ([`reconnect_interval`](crate::Builder::reconnect_interval)) goes back to the
    /// first.
    Failover,
}

/// Credentials for the handshake.
#[derive(Clone, Default)]
pub(crate) struct Security {
    pub(crate) shared_key: Option<String>,
    pub(crate) username: String,
    pub(crate) password: String,
    pub(crate) hostname: String,
}

/// Bounds of the queue.
#[derive(Debug, Clone)]
pub(crate) struct QueueLimits {
    pub(crate) events: usize,
    pub(crate) bytes: usize,
    pub(crate) batch_events: usize,
    /// Of the message made of a batch, before compression.
    pub(crate) batch_bytes: usize,
    pub(crate) linger: Duration,
    /// Every due batch is taken at once, to be spooled; else only half of the bounds may be in
    /// flight.
    pub(crate) spooled: bool,
}

/// Settings of the delivery state machine.
#[derive(Debug, Clone)]
pub(crate) struct DeliveryPolicy {
    pub(crate) request_ack: bool,
    pub(crate) in_flight: usize,
    pub(crate) retry_wait: Duration,
    pub(crate) max_retry_wait: Duration,
    pub(crate) max_retry: Option<u32>,
    pub(crate) ack_timeout: Duration,
    pub(crate) write_timeout: Duration,
    pub(crate) reconnect_interval: Option<Duration>,
    /// Share of the interval by which a reconnect may come earlier or later, 0 to 1.
    pub(crate) reconnect_jitter: f64,
    pub(crate) endpoints: usize,
    pub(crate) failover: bool,
}

/// What the adapters for `log`, `tracing` and `tower` take from the logger.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(
    not(any(feature = "log", feature = "tracing")),
    allow(dead_code, reason = "for the adapters")
)]
pub(crate) struct AdapterSettings {
    pub(crate) naming: Naming,
    /// Records have the number of their level, too.
    pub(crate) numeric_severity: bool,
}

/// All options of a logger.
#[derive(Clone)]
pub(crate) struct Options {
    pub(crate) addresses: Vec<Address>,
    pub(crate) tag_prefix: String,
    pub(crate) mode: Mode,
    pub(crate) entry: EntryFormat,
    #[cfg_attr(
        not(any(feature = "log", feature = "tracing")),
        allow(dead_code, reason = "for the adapters")
    )]
    pub(crate) settings: AdapterSettings,
    pub(crate) on_full: OnFull,
    pub(crate) limits: QueueLimits,
    pub(crate) policy: DeliveryPolicy,
    pub(crate) connect_timeout: Duration,
    pub(crate) handshake_timeout: Duration,
    pub(crate) drop_timeout: Duration,
    pub(crate) security: Security,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<crate::tls::TlsClient>,
    #[cfg(feature = "spool")]
    pub(crate) spool: Option<(PathBuf, Fsync)>,
}
