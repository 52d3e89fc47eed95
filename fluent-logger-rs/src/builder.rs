//! Builder of a logger: every option with its unit, range and default.
//!
//! Owns the options as the application gives them; `check` turns them into validated options.

mod check;
mod fields;
#[cfg(feature = "spool")]
mod spool;
#[cfg(feature = "tls")]
mod tls;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::RuntimeFlavor;

use crate::callbacks::Callbacks;
use crate::connect::{Connector, Resolver, system_resolver};
use crate::error::{BuildError, ConnectionError};
use crate::event::Report;
use crate::logger::Logger;
use crate::naming::Naming;
use crate::options::{Balance, Mode, OnFull, Security};
use crate::random::Random;
use crate::shared::Shared;
#[cfg(feature = "spool")]
use crate::spool::Opened;
use crate::suppression::Suppressed;
use crate::worker::Worker;
use fields::StaticKey;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Collects options; [`build`](Builder::build) checks them all at once and starts the logger.
///
/// The names follow the Go logger (`fluent-logger-golang`) where it has the option.
#[derive(Clone)]
#[must_use]
pub struct Builder {
    addresses: Vec<String>,
    balance: Balance,
    tag_prefix: String,
    mode: Mode,
    request_ack: bool,
    sub_second_precision: bool,
    flush_interval: Duration,
    chunk_bytes: usize,
    chunk_events: usize,
    record_limit: usize,
    buffer_events: usize,
    buffer_bytes: usize,
    on_full: OnFull,
    in_flight: Option<usize>,
    retry_wait: Duration,
    max_retry_wait: Duration,
    max_retry: Option<u32>,
    connect_timeout: Duration,
    handshake_timeout: Duration,
    write_timeout: Duration,
    ack_timeout: Duration,
    drop_timeout: Duration,
    reconnect_interval: Option<Duration>,
    reconnect_jitter: f64,
    own_thread: bool,
    naming: Naming,
    numeric_severity: bool,
    static_fields: Vec<(StaticKey, Vec<u8>)>,
    /// Mistakes in fields and in the environment, as text, for `build`.
    early_mistakes: Vec<(String, String)>,
    security: Security,
    #[cfg(feature = "tls")]
    tls: crate::tls::TlsOptions,
    #[cfg(feature = "spool")]
    spool: Option<std::path::PathBuf>,
    #[cfg(feature = "spool")]
    spool_fsync: crate::Fsync,
    lookup: Resolver,
    callbacks: Callbacks,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            balance: Balance::default(),
            tag_prefix: String::new(),
            mode: Mode::default(),
            request_ack: true,
            sub_second_precision: true,
            flush_interval: Duration::from_millis(100),
            chunk_bytes: MIB,
            chunk_events: 16 * 1024,
            record_limit: MIB,
            buffer_events: 64 * 1024,
            buffer_bytes: 32 * MIB,
            on_full: OnFull::default(),
            in_flight: None,
            retry_wait: Duration::from_millis(500),
            max_retry_wait: Duration::from_secs(10),
            max_retry: None,
            connect_timeout: Duration::from_secs(5),
            handshake_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(30),
            ack_timeout: Duration::from_secs(60),
            drop_timeout: Duration::from_secs(5),
            reconnect_interval: None,
            reconnect_jitter: 0.1,
            own_thread: true,
            naming: Naming::default(),
            numeric_severity: false,
            static_fields: Vec::new(),
            early_mistakes: Vec::new(),
            security: Security::default(),
            #[cfg(feature = "tls")]
            tls: crate::tls::TlsOptions::default(),
            #[cfg(feature = "spool")]
            spool: None,
            #[cfg(feature = "spool")]
            spool_fsync: crate::Fsync::default(),
            lookup: system_resolver(),
            callbacks: Callbacks::default(),
        }
    }
}

impl Logger {
    /// Starts the collection of options.
    pub fn builder() -> Builder {
        Builder::default()
    }
}

impl Builder {
    /// Adds a server: `[tcp://]host[:port]`, `tls://host[:port]` (feature `tls`) or `unix:///path`.
    /// The default port is 24224, and without any address the server is `127.0.0.1:24224`. IPv6
    /// addresses with a port stand in brackets. May be called several times; see
    /// [`balance`](Self::balance).
    ///
    /// Host names are resolved again for each connection, and all addresses behind a name take
    /// their turn.
    pub fn address(mut self, address: impl Into<String>) -> Self {
        self.addresses.push(address.into());
        self
    }

    /// How one of several addresses is chosen. Default: [`Balance::RoundRobin`].
    pub fn balance(mut self, balance: Balance) -> Self {
        self.balance = balance;
        self
    }

    /// Put before every tag, with a dot between. Default: none.
    pub fn tag_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.tag_prefix = prefix.into();
        self
    }

    /// How events are put on the wire. Default: [`Mode::Packed`].
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// Whether the server must acknowledge each chunk. Default: `true`.
    ///
    /// With acks an event counts as delivered when the server said so, and is sent again until then
    /// (at least once, always with the same chunk id). Without, it counts as delivered when the
    /// operating system took its bytes: what a dying server or network swallows after that is lost.
    pub fn request_ack(mut self, request_ack: bool) -> Self {
        self.request_ack = request_ack;
        self
    }

    /// Whether times carry nanoseconds (EventTime) or are whole seconds. Default: `true`.
    pub fn sub_second_precision(mut self, sub_second: bool) -> Self {
        self.sub_second_precision = sub_second;
        self
    }

    /// How long an event waits for more events before its batch is sent; `send` does not wait. 0 to
    /// 1 hour. Default: 100 ms.
    pub fn flush_interval(mut self, interval: Duration) -> Self {
        self.flush_interval = interval;
        self
    }

    /// The most bytes that a message has before compression, unless a single event is larger; a
    /// batch is sent before it would exceed them. 1 KiB to 64 MiB, and effectively at most a
    /// quarter of the buffer. Default: 1 MiB. Fluent Bit 5.1.1 refuses messages above 6,144,000
    /// bytes in its default configuration (`buffer_max_size`).
    pub fn chunk_limit_bytes(mut self, bytes: usize) -> Self {
        self.chunk_bytes = bytes;
        self
    }

    /// A batch is sent when it has this many events. 1 to 1,000,000, and effectively at most a
    /// quarter of the buffer. Default: 16,384.
    pub fn chunk_limit_events(mut self, events: usize) -> Self {
        self.chunk_events = events;
        self
    }

    /// Larger events, in bytes encoded, are refused
    /// ([`Rejected::TooLarge`](crate::Rejected::TooLarge)). 64 bytes to 64 MiB. Default: 1 MiB.
    pub fn record_limit(mut self, bytes: usize) -> Self {
        self.record_limit = bytes;
        self
    }

    /// Events that the logger holds at most, waiting and in flight together. 1 to 100,000,000.
    /// Default: 65,536.
    pub fn buffer_limit(mut self, events: usize) -> Self {
        self.buffer_events = events;
        self
    }

    /// Bytes of encoded events that the logger holds at most, waiting and in flight together. 1 KiB
    /// to 16 GiB. Default: 32 MiB. The memory in use can be up to about twice that while buffers
    /// grow.
    pub fn buffer_limit_bytes(mut self, bytes: usize) -> Self {
        self.buffer_bytes = bytes;
        self
    }

    /// What happens to an event when the buffer is full. Default: [`OnFull::Refuse`].
    pub fn on_full(mut self, policy: OnFull) -> Self {
        self.on_full = policy;
        self
    }

    /// Messages that may be unacknowledged on a connection. 1 to 65,536. Default: 8, in Message
    /// mode 256.
    pub fn in_flight(mut self, messages: usize) -> Self {
        self.in_flight = Some(messages);
        self
    }

    /// The first pause after all addresses have failed; it doubles with each further round. The
    /// real pause is drawn between half and all of it. 1 ms to 1 hour. Default: 500 ms.
    pub fn retry_wait(mut self, wait: Duration) -> Self {
        self.retry_wait = wait;
        self
    }

    /// The longest pause between attempts. At least `retry_wait`, at most 1 hour. Default: 10 s.
    pub fn max_retry_wait(mut self, wait: Duration) -> Self {
        self.max_retry_wait = wait;
        self
    }

    /// Gives a chunk up after this many failed attempts, that is connections that could not be made
    /// or broke while it waited. It is then counted ([`Stats::given_up`](crate::Stats::given_up))
    /// and handed to the delivery callback. Default: never, since memory is bounded anyway.
    pub fn max_retry(mut self, attempts: u32) -> Self {
        self.max_retry = Some(attempts);
        self
    }

    /// Time for name resolution, connect and TLS together. 1 ms to 1 hour. Default: 5 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Time for the shared-key handshake. 1 ms to 1 hour. Default: 10 s.
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.handshake_timeout = timeout;
        self
    }

    /// A connection that takes no bytes for this long is dropped. 1 ms to 1 hour. Default: 30 s.
    pub fn write_timeout(mut self, timeout: Duration) -> Self {
        self.write_timeout = timeout;
        self
    }

    /// A chunk that is not acknowledged for this long after its last byte was written is sent again
    /// over a new connection. 1 ms to 1 hour. Default: 60 s.
    pub fn ack_timeout(mut self, timeout: Duration) -> Self {
        self.ack_timeout = timeout;
        self
    }

    /// How long delivery goes on in the background after the last handle was dropped without
    /// `close`. 0 to 30 days. Default: 5 s. Dropping never blocks.
    pub fn drop_timeout(mut self, timeout: Duration) -> Self {
        self.drop_timeout = timeout;
        self
    }

    /// Replaces each connection when it is this old, so that load spreads over servers that were
    /// added: no new chunk is sent over it, the acks that are due are awaited, it is closed, and
    /// the next chunk goes over a new connection, to the next address. Nothing is lost or doubled
    /// by it. 10 ms to 30 days; default: never.
    ///
    /// The Go logger has the option under the name
    /// [`async_reconnect_interval`](Self::async_reconnect_interval).
    pub fn reconnect_interval(mut self, interval: Duration) -> Self {
        self.reconnect_interval = Some(interval);
        self
    }

    /// [`reconnect_interval`](Self::reconnect_interval) under the name that the Go logger gives it.
    pub fn async_reconnect_interval(self, interval: Duration) -> Self {
        self.reconnect_interval(interval)
    }

    /// By which share of itself the reconnect interval varies from connection to connection, so
    /// that clients started together do not move together. 0.0 to 1.0. Default: 0.1.
    pub fn reconnect_jitter(mut self, share: f64) -> Self {
        self.reconnect_jitter = share;
        self
    }

    /// The key that the server shares with its clients (`shared_key` of Fluent Bit and Fluentd).
    /// With it the client expects the handshake of the Forward Protocol Specification v1 and sends
    /// nothing before it has succeeded; the key itself is never sent. At most 4096 bytes; may be
    /// empty. Default: no handshake.
    ///
    /// The handshake proves that both sides know the key; it encrypts nothing. Use `tls://` for
    /// that.
    pub fn shared_key(mut self, key: impl Into<String>) -> Self {
        self.security.shared_key = Some(key.into());
        self
    }

    /// User and password for servers that ask for them besides the shared key, at most 1024 bytes
    /// each. Default: none.
    pub fn user(mut self, name: impl Into<String>, password: impl Into<String>) -> Self {
        self.security.username = name.into();
        self.security.password = password.into();
        self
    }

    /// The name by which this client presents itself in the handshake, at most 255 bytes. Fluentd
    /// refuses a client that has its own name. Default: the host's name, else `fluent-logger-rs`.
    pub fn self_hostname(mut self, name: impl Into<String>) -> Self {
        self.security.hostname = name.into();
        self
    }

    /// Whether the logger has a thread of its own. `false`: it runs as a task on the tokio runtime from
    /// which [`build`](Self::build) is called, if there is one. Such a logger ends with its runtime: what
    /// is not delivered when the runtime shuts down is lost, and on a current-thread runtime the
    /// `blocking_` calls are errors. [`OnFull::Wait`] always has a thread. Default: `true`.
    pub fn own_thread(mut self, own_thread: bool) -> Self {
        self.own_thread = own_thread;
        self
    }

    /// Called once for each chunk that was acknowledged (or without acks written), dropped or given
    /// up. It runs in the logger's task: it must be quick, and a panic in it is caught and counted.
    pub fn on_delivery(mut self, callback: impl Fn(Report) + Send + Sync + 'static) -> Self {
        self.callbacks.delivery = Some(Arc::new(callback));
        self
    }

    /// Called when a connection cannot be made or breaks. It runs in the logger's task: it must be
    /// quick, and a panic in it is caught and counted. Do not log the error through this logger.
    pub fn on_connection_error(
        mut self,
        callback: impl Fn(&ConnectionError) + Send + Sync + 'static,
    ) -> Self {
        self.callbacks.connection_error = Some(Arc::new(callback));
        self
    }

    /// Another resolver of host names.
    #[cfg(test)]
    pub(crate) fn lookup(mut self, lookup: Resolver) -> Self {
        self.lookup = lookup;
        self
    }

    /// Checks the options and starts the logger. Never touches the network: a server that is away
    /// is found out later and waited for. Reads TLS files and the spool.
    ///
    /// The logger runs on a thread of its own, or with [`own_thread(false)`](Self::own_thread) on the
    /// tokio runtime from which this is called. When that runtime is shut down before `close`, `log`
    /// returns [`Rejected::Closed`](crate::Rejected::Closed) from then on, and `close` returns what was
    /// not delivered.
    ///
    /// ```
    /// # fn main() -> Result<(), fluent_logger::BuildError> {
    /// let logger = fluent_logger::Logger::builder()
    ///     .address("logs.example:24224")
    ///     .tag_prefix("shop")
    ///     .build()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`BuildError`] says which options are wrong and what is allowed: all of them at once
    /// ([`BuildError::Several`]).
    pub fn build(self) -> Result<Logger, BuildError> {
        let options = self.check()?;
        let random = Random::new().map_err(|error| BuildError::Random(error.to_string()))?;
        let waits = matches!(options.on_full, OnFull::Wait(_));
        let connector = Connector::new(Arc::new(options.clone()), self.lookup);
        #[cfg(feature = "spool")]
        let opened = match &options.spool {
            Some((folder, fsync)) => Some(Opened::open(folder, *fsync)?),
            None => None,
        };
        let shared = Arc::new(Shared::new(options));
        #[cfg_attr(not(feature = "spool"), expect(unused_mut, reason = "for the spool"))]
        let mut worker = Worker::new(Arc::clone(&shared), self.callbacks, connector, random);
        #[cfg(feature = "spool")]
        if let Some(opened) = opened {
            worker.take_over(opened)?;
        }
        let ambient = tokio::runtime::Handle::try_current()
            .ok()
            .filter(|_| !self.own_thread && !waits);
        match ambient {
            // The handle is not needed: the worker ends by itself.
            Some(runtime) => {
                if runtime.runtime_flavor() == RuntimeFlavor::CurrentThread {
                    shared.set_runtime_thread();
                }
                drop(runtime.spawn(Suppressed::new(worker.run())));
            }
            None => start_thread(worker)?,
        }
        Ok(Logger::new(shared))
    }
}

fn start_thread(worker: Worker) -> Result<(), BuildError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        // For name resolution only.
        .max_blocking_threads(2)
        .build()
        .map_err(BuildError::Thread)?;
    std::thread::Builder::new()
        .name("fluent-logger".to_owned())
        .spawn(move || {
            runtime.block_on(Suppressed::new(worker.run()));
            // A name resolution that hangs must not hold the thread.
            runtime.shutdown_background();
        })
        .map_err(BuildError::Thread)?;
    Ok(())
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the security part: keys and passwords stay out of logs.
        f.debug_struct("Builder")
            .field("addresses", &self.addresses)
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
