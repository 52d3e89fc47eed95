//! The Forward protocol: listeners, connections, acks.
//!
//! * `listener`: accepts, counts and limits connections;
//! * `tls`, `security`: who may send; `penalty`: how long a wrong answer waits;
//! * `heartbeat`: UDP;
//! * `connection`: reads messages, waits for the journal, acknowledges; `room`: how much it reads at a time;
//! * `ack`: the acknowledgement, which can only be built from a journal receipt.
//!
//! The protocol itself (framing, modes, limits) is the crate `forward-protocol`.

mod ack;
mod connection;
mod heartbeat;
mod listener;
mod penalty;
mod room;
mod security;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use forward_protocol::frame::Limits;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::brake::Brake;
use crate::config;
use crate::memory::to_usize;
use crate::metrics::Metrics;
use crate::spares::Spares;
use windrow_journal::Journal;

pub use self::listener::{BindError, Bound, Peers, bind};
pub use self::security::Security;
pub use self::tls::{Tls, TlsError};

/// What kind of journal record intake writes: a run of complete Forward messages, as they came.
pub const FORWARD_MESSAGES: u8 = 1;

/// What every connection shares.
#[derive(Debug)]
pub struct Context {
    /// Where messages become durable.
    pub journal: Journal,
    /// Holds chunks up before they go there.
    pub brake: Arc<Brake>,
    /// Buffers that can be received into again.
    pub spares: Arc<Spares>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Limits of one message.
    pub limits: Limits,
    /// The most bytes that a compressed payload may become.
    pub max_decompressed: usize,
    /// Who may send; `None`: everybody.
    pub security: Option<Security>,
    /// TLS on the TCP listeners.
    pub tls: Option<Arc<Tls>>,
    /// How long a client may take for the TLS and the Forward handshake, each.
    pub handshake_timeout: Duration,
    /// How long a client may take to send the rest of a message that it has begun.
    pub progress_timeout: Duration,
    /// How long a client may take to read an ack.
    pub ack_timeout: Duration,
    /// How long a connection may be silent between messages; `None`: for ever.
    pub idle_timeout: Option<Duration>,
    /// After this time a connection is closed behind an ack, so that clients spread anew; `None`: never.
    pub max_connection_age: Option<Duration>,
    /// Up to this share of the age is taken off at random, so that not all reconnect at once. Percent, 0 to 100.
    pub max_connection_age_jitter: u64,
    /// No connection is accepted and no message begun once this is cancelled.
    pub stop: CancellationToken,
    /// The connections that are still being served.
    pub tasks: TaskTracker,
}

/// Limits of the framer for this configuration.
pub(crate) fn frame_limits(config: &config::Forward) -> Limits {
    let mut limits = Limits::default();
    limits.message = to_usize(config.max_message);
    limits
}
