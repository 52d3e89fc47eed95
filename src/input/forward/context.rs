//! Context of all connections: journal, limits and timeouts.

use std::sync::Arc;
use std::time::Duration;

use forward_protocol::frame::Limits;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::decompression::DecompressionPool;
use super::receive_budget::ReceiveBudget;
use super::security::Security;
use super::tls::Tls;
use crate::admission::AdmissionControl;
use crate::buffer_pool::BufferPool;
use crate::cluster::Cluster;
use crate::config;
use crate::logging::WarningLimiter;
use crate::memory::to_usize;
use crate::metrics::Metrics;
use crate::runtime::CpuPool;
use windrow_journal::Journal;

/// Kind of the journal records that intake writes: complete Forward messages, one after the other,
/// as received.
pub const FORWARD_MESSAGES: u8 = 1;

/// Time in which a client must get on while the server stops: with its handshake, with its message,
/// with reading its acks. A client that is dropped sends again.
pub(super) const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// What all connections share.
#[derive(Debug)]
pub struct Context {
    /// Where messages become durable.
    pub journal: Journal,
    /// Other instances, to which records are handed over.
    pub cluster: Option<Arc<Cluster>>,
    /// Limits how many bytes go there.
    pub admission: Arc<AdmissionControl>,
    /// Receive buffers for reuse.
    pub buffer_pool: Arc<BufferPool>,
    /// Limits the bytes of receive buffers.
    pub receive_budget: ReceiveBudget,
    /// Limits repeated warnings about clients.
    pub warnings: WarningLimiter,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Limits of one message.
    pub limits: Limits,
    /// Whether TCP connections begin with a header of the PROXY protocol.
    pub proxy_protocol: bool,
    /// Whether clients may send JSON.
    pub json: bool,
    /// Largest decompressed size of a payload, in bytes.
    pub max_decompressed: usize,
    /// Bounds the checks of that size.
    pub decompression: DecompressionPool,
    /// Other long work of connections: JSON texts, and the checksums of large runs.
    pub cpu_pool: CpuPool,
    /// Who may send; `None`: everyone.
    pub security: Option<Security>,
    /// TLS on the TCP listeners.
    pub tls: Option<Arc<Tls>>,
    /// Time limit of the TLS handshake, and again of the Forward handshake.
    pub handshake_timeout: Duration,
    /// Time in which a client must make progress inside a message.
    pub progress_timeout: Duration,
    /// Time in which a client must read an ack.
    pub ack_timeout: Duration,
    /// Longest silence between two messages; `None`: no limit.
    pub idle_timeout: Option<Duration>,
    /// Age at which a connection is closed after an ack, so that clients are balanced anew; `None`:
    /// never.
    pub max_connection_age: Option<Duration>,
    /// Random part of that age, in percent (0 to 100), so that not all clients reconnect at once.
    pub max_connection_age_jitter: u64,
    /// Once this is cancelled, no connection is accepted and no message begun.
    pub stop: CancellationToken,
    /// The connections that are being served.
    pub tasks: TaskTracker,
}

/// A context with a journal of its own and timeouts of ten seconds.
#[cfg(test)]
pub(super) fn test_context() -> (Arc<Context>, tempfile::TempDir) {
    let (context, dir) = test_context_with(usize::MAX, Box::new(()));
    (Arc::new(context), dir)
}

/// The same, with a limit of admission and with what becomes of the journal's records.
#[cfg(test)]
pub(super) fn test_context_with(
    limit: usize,
    sink: Box<dyn windrow_journal::CommitSink>,
) -> (Context, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let options = windrow_journal::JournalOptions::new(dir.path());
    let (journal, _) = Journal::open(options, sink).unwrap();
    let timeout = Duration::from_secs(10);
    let context = Context {
        journal,
        cluster: None,
        admission: Arc::new(AdmissionControl::new(limit)),
        buffer_pool: Arc::default(),
        receive_budget: ReceiveBudget::new(64 << 20),
        warnings: WarningLimiter::default(),
        metrics: Arc::new(Metrics::new(&[])),
        limits: Limits::default(),
        proxy_protocol: false,
        json: true,
        max_decompressed: 1 << 20,
        decompression: DecompressionPool::default(),
        cpu_pool: CpuPool::default(),
        security: None,
        tls: None,
        handshake_timeout: timeout,
        progress_timeout: timeout,
        ack_timeout: timeout,
        idle_timeout: None,
        max_connection_age: None,
        max_connection_age_jitter: 0,
        stop: CancellationToken::new(),
        tasks: TaskTracker::new(),
    };
    (context, dir)
}

impl Context {
    /// Completes [`STOP_TIMEOUT`] after the server has begun to stop.
    pub(in crate::input) async fn stop_timeout(&self) {
        self.stop.cancelled().await;
        tokio::time::sleep(STOP_TIMEOUT).await;
    }
}

/// Limits of the framer, by the configuration.
pub(crate) fn frame_limits(config: &config::Forward) -> Limits {
    let mut limits = Limits::default();
    limits.message = to_usize(config.max_message);
    limits
}
