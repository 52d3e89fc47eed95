//! Builder of a logger: every option with its unit, range and default.
//!
//! Owns the options as the application gives them; `check` turns them into validated options.

mod buffer;
mod check;
mod connection;
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
use crate::loss_report::watch;
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
    ///
    /// ```
    /// let builder = fluent_logger::Logger::builder().address("logs.example:24224");
    /// ```
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
    ///
    /// ```
    /// let builder = fluent_logger::Logger::builder()
    ///     .address("logs.example:24224")
    ///     .address("unix:///run/fluent.sock");
    /// ```
    pub fn address(mut self, address: impl Into<String>) -> Self {
        self.addresses.push(address.into());
        self
    }

    /// How one of several addresses is chosen. Default: [`Balance::RoundRobin`].
    ///
    /// ```
    /// let builder = fluent_logger::Logger::builder()
    ///     .address("a")
    ///     .address("b")
    ///     .balance(fluent_logger::Balance::Failover);
    /// ```
    pub fn balance(mut self, balance: Balance) -> Self {
        self.balance = balance;
        self
    }

    /// Put before every tag, with a dot between. Default: none.
    ///
    /// ```
    /// let builder = fluent_logger::Logger::builder().tag_prefix("shop");
    /// ```
    pub fn tag_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.tag_prefix = prefix.into();
        self
    }

    /// How events are put on the wire. Default: [`Mode::Packed`].
    ///
    /// ```
    /// let builder = fluent_logger::Logger::builder().mode(fluent_logger::Mode::Forward);
    /// ```
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// Whether the server must acknowledge each chunk. Default: `true`.
    ///
    /// With acks an event counts as delivered when the server said so, and is sent again until then
    /// (at least once, always with the same chunk id). Without, it counts as delivered when the
    /// operating system took its bytes: what a dying server or network swallows after that is lost.
    ///
    /// ```
    /// let builder = fluent_logger::Logger::builder().request_ack(false);
    /// ```
    pub fn request_ack(mut self, request_ack: bool) -> Self {
        self.request_ack = request_ack;
        self
    }

    /// Whether times carry nanoseconds (EventTime) or are whole seconds. Default: `true`.
    ///
    /// ```
    /// let builder = fluent_logger::Logger::builder().sub_second_precision(false);
    /// ```
    pub fn sub_second_precision(mut self, sub_second: bool) -> Self {
        self.sub_second_precision = sub_second;
        self
    }

    /// Whether the logger has a thread of its own. `false`: it runs as a task on the tokio runtime
    /// from which [`build`](Self::build) is called, if there is one. Such a logger ends with its
    /// runtime: what is not delivered when the runtime shuts down is lost, and on a current-thread
    /// runtime the `blocking_` calls are errors. [`OnFull::Wait`] always has a thread. Default:
    /// `true`.
    ///
    /// ```
    /// let builder = fluent_logger::Logger::builder().own_thread(false);
    /// ```
    pub fn own_thread(mut self, own_thread: bool) -> Self {
        self.own_thread = own_thread;
        self
    }

    /// Called once for each chunk that was acknowledged (or without acks written), dropped or given
    /// up. It runs in the logger's task: it must be quick, and a panic in it is caught and counted.
    ///
    /// ```
    /// let builder = fluent_logger::Logger::builder()
    ///     .on_delivery(|report| eprintln!("{report:?}"));
    /// ```
    pub fn on_delivery(mut self, callback: impl Fn(Report) + Send + Sync + 'static) -> Self {
        self.callbacks.delivery = Some(Arc::new(callback));
        self
    }

    /// Called when a connection cannot be made or breaks. It runs in the logger's task: it must be
    /// quick, and a panic in it is caught and counted. Do not log the error through this logger.
    ///
    /// ```
    /// let builder = fluent_logger::Logger::builder()
    ///     .on_connection_error(|error| eprintln!("logging: {error}"));
    /// ```
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
    /// The logger runs on a thread of its own, or with [`own_thread(false)`](Self::own_thread) on
    /// the tokio runtime from which this is called. When that runtime is shut down before `close`,
    /// `log` returns [`Rejected::Closed`](crate::Rejected::Closed) from then on, and `close`
    /// returns what was not delivered.
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
        watch(&shared);
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
