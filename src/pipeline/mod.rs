//! The assembled server: the only file that knows every stage.
//!
//! ```text
//! input ──▶ journal ──▶ feed ──▶ gather ──▶ outputs ──▶ hold.confirm ──▶ journal.release
//!   ▲          │ Receipt
//!   └── ack ◀──┘
//! ```
//!
//! Owns the order of starting and stopping. Everything that can be refused (folders, ports, certificates) is refused in
//! [`Pipeline::build`], before anything runs.

mod outputs;
mod status;
mod vital;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use std::{fs, io};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::outputs::{Store, open_elasticsearch};
pub use self::status::{Readiness, Status};
use crate::brake::Brake;
use crate::config::Config;
use crate::gather::{Aside, Feed, Gatherer, Gauges, Intake, Outlet, Settings, Wiring};
use crate::input::forward::{self, BindError, Bound, Peers, Security, Tls, TlsError};
use crate::memory::{MemoryShares, to_usize};
use crate::metrics::Metrics;
use crate::output::dead_letter::{self, DeadLetter};
use crate::output::{LineCounters, elasticsearch, sqlite};
use crate::spares::Spares;
use windrow_journal::Journal;

use self::outputs::Outputs;
use self::vital::Vital;

/// The server cannot start. Each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The data folder cannot be made or used.
    #[error("data folder {path}: {source} (choose another with --data-dir, or mend its permissions)")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The journal cannot be opened.
    #[error(transparent)]
    Journal(#[from] windrow_journal::OpenError),
    /// The dead letter cannot be opened.
    #[error("dead letter folder {path}: {source}")]
    DeadLetter {
        /// The folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The embedded store cannot be opened.
    #[error(transparent)]
    Sqlite(#[from] sqlite::StoreError),
    /// A setting of the Elasticsearch output cannot be used.
    #[error(transparent)]
    Elasticsearch(#[from] elasticsearch::OpenError),
    /// A certificate file cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// An address cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The admin port cannot be listened on.
    #[error(
        "cannot listen on {address} for the admin port: {source} (choose another with --admin, port 0 for any)"
    )]
    Admin {
        /// The address.
        address: std::net::SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
    /// A thread cannot be started.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

/// Everything that is built and not running yet.
#[derive(Debug)]
pub struct Pipeline {
    config: Config,
    metrics: Arc<Metrics>,
    journal: Journal,
    recovery: windrow_journal::Recovery,
    feed: Arc<Feed>,
    brake: Arc<Brake>,
    dead_letter: Arc<DeadLetter>,
    outputs: Outputs,
    tls: Option<Arc<Tls>>,
    listeners: Vec<Bound>,
    account: Arc<LineCounters>,
    gauges: Arc<Gauges>,
    output_bytes: Arc<AtomicUsize>,
    vital: Vital,
}

impl Pipeline {
    /// Opens the folders, takes the lock, binds the addresses.
    ///
    /// # Errors
    ///
    /// [`BuildError`]; nothing is running then and nothing was changed but what recovery had to mend.
    pub async fn build(config: Config, metrics: Arc<Metrics>) -> Result<Self, BuildError> {
        make_folder(&config.data_dir)?;
        let shares = MemoryShares::of(config.memory_limit);
        let brake = Arc::new(Brake::new(shares.admission));
        let feed = Feed::new(shares.feed, Arc::clone(&brake));
        let options = windrow_journal::Options {
            dir: config.journal.dir.clone(),
            segment_bytes: config.journal.segment_bytes,
            limit_bytes: config.journal.limit,
        };
        let (journal, recovery) = Journal::open(options, Box::new(Intake(Arc::clone(&feed))))?;
        if recovery.segments > 0 {
            feed.start_behind(recovery.first_lsn, recovery.next_lsn.saturating_sub(1));
        }
        let path = &config.dead_letter.dir;
        let dead_letter =
            DeadLetter::open(path, dead_letter::FILE_BYTES, config.dead_letter.limit).map_err(|source| {
                BuildError::DeadLetter {
                    path: path.clone(),
                    source,
                }
            })?;
        let outputs = Outputs::open(&config)?;
        let tls = config
            .forward
            .tls
            .clone()
            .map(Tls::open)
            .transpose()?
            .map(Arc::new);
        let mut listeners = Vec::new();
        for listen in &config.forward.listen {
            listeners
                .push(forward::bind(listen, config.forward.unix_mode, config.forward.udp_heartbeat).await?);
        }
        Ok(Self {
            config,
            metrics,
            journal,
            recovery,
            feed,
            brake,
            dead_letter: Arc::new(dead_letter),
            outputs,
            tls,
            listeners,
            account: Arc::default(),
            gauges: Arc::default(),
            output_bytes: Arc::default(),
            vital: Vital::default(),
        })
    }

    /// The Forward addresses, with the ports that were chosen.
    pub fn addresses(&self) -> impl Iterator<Item = &str> {
        self.listeners.iter().map(|bound| bound.address.as_str())
    }

    /// The certificates, to be read again when someone says so.
    pub fn tls(&self) -> Option<Arc<Tls>> {
        self.tls.clone()
    }

    /// What the journal held when it was opened.
    pub fn recovery(&self) -> &windrow_journal::Recovery {
        &self.recovery
    }

    /// What the admin port shows.
    pub fn status(&self) -> Status {
        let status = Status::new(status::Sources {
            journal: self.journal.clone(),
            feed: Arc::clone(&self.feed),
            gauges: Arc::clone(&self.gauges),
            account: Arc::clone(&self.account),
            output_bytes: Arc::clone(&self.output_bytes),
            dead_letter: Arc::clone(&self.dead_letter),
            elasticsearch: self.outputs.elasticsearch(),
            store: self.outputs.store(),
            memory_limit: self.config.memory_limit,
            vital: self.vital.clone(),
        });
        status.mirror_in(&self.metrics);
        status
    }

    /// Runs until `stop` is cancelled, then drains for at most the configured grace.
    ///
    /// # Errors
    ///
    /// [`BuildError::Thread`] when the system gives no thread.
    pub async fn run(self, stop: CancellationToken) -> Result<(), BuildError> {
        let Self {
            config,
            metrics,
            journal,
            feed,
            brake,
            dead_letter,
            outputs,
            tls,
            listeners,
            account,
            gauges,
            output_bytes,
            vital,
            ..
        } = self;
        let give_up = Arc::new(AtomicBool::new(false));
        let abandon = CancellationToken::new();
        let framing = outputs.framing();
        let (senders, outputs) = outputs
            .start(&metrics, &dead_letter, &give_up, &abandon, &vital)
            .map_err(BuildError::Thread)?;

        let settings = Settings::from_config(&config);
        let spares = Arc::<Spares>::default();
        let wiring = Wiring {
            journal: journal.clone(),
            outputs: senders,
            output_bytes,
            framing,
            account: Arc::clone(&account),
            metrics: Arc::clone(&metrics),
            aside: Aside::new(dead_letter, Arc::clone(&metrics), account, Arc::clone(&give_up)),
            gauges: Arc::clone(&gauges),
            brake: Arc::clone(&brake),
            spares: Arc::clone(&spares),
            stop: Arc::clone(&give_up),
        };
        let outlet = Outlet::new(Arc::clone(&feed), journal.clone());
        let gatherer = Gatherer::new(settings, wiring);
        let guard = vital.guard("gathering");
        let gathering = std::thread::Builder::new()
            .name("gather".into())
            .spawn(move || {
                gatherer.run(outlet);
                guard.done();
            })
            .map_err(BuildError::Thread)?;

        let tasks = TaskTracker::new();
        let context = Arc::new(forward::Context {
            journal: journal.clone(),
            brake,
            spares,
            metrics,
            limits: forward::frame_limits(&config.forward),
            max_decompressed: to_usize(config.forward.max_decompressed),
            security: Security::of(&config),
            tls,
            handshake_timeout: config.forward.handshake_timeout,
            progress_timeout: config.forward.progress_timeout,
            ack_timeout: config.forward.ack_timeout,
            idle_timeout: config.forward.idle_timeout,
            max_connection_age: config.forward.max_connection_age,
            max_connection_age_jitter: config.forward.max_connection_age_jitter,
            stop: stop.clone(),
            tasks: tasks.clone(),
        });
        let peers = Peers::new(
            config.forward.max_connections,
            config.forward.max_connections_per_address,
        );
        for listener in listeners {
            tasks.spawn(listener.serve(Arc::clone(&context), Arc::clone(&peers)));
        }

        stop.cancelled().await;
        let deadline = Instant::now() + config.shutdown_grace;
        tracing::info!(grace = ?config.shutdown_grace, "stopping: no new connections, draining");
        tasks.close();
        if tokio::time::timeout_at(deadline, tasks.wait()).await.is_err() {
            tracing::warn!(
                connections = tasks.len(),
                "connections still open in the middle of a message; they get no ack"
            );
        }
        drain_feed(&feed, &gauges, deadline).await;
        feed.close();
        if !join_by(gathering, deadline).await {
            give_up.store(true, Ordering::Relaxed);
        }
        // Gathering has gone (or gives up), so the outputs' channels are closed: they end when they have confirmed all.
        if !outputs.finish_by(deadline).await {
            tracing::warn!("outputs did not take everything within the grace; the rest stays in the journal");
            give_up.store(true, Ordering::Relaxed);
            abandon.cancel();
            outputs.finish_by(Instant::now() + Duration::from_secs(2)).await;
        }
        journal.close();
        Ok(())
    }
}

/// Waits until everything that is in memory has been gathered. What waits on disk only is left to the next start.
async fn drain_feed(feed: &Feed, gauges: &Gauges, deadline: Instant) {
    while Instant::now() < deadline {
        let (bytes, behind) = feed.waiting();
        if behind || (bytes == 0 && gauges.idle.load(Ordering::Relaxed)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn join_by(thread: JoinHandle<()>, deadline: Instant) -> bool {
    while !thread.is_finished() {
        if Instant::now() >= deadline {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    thread.join().is_ok()
}

fn make_folder(path: &Path) -> Result<(), BuildError> {
    let failed = |source| BuildError::Folder {
        path: path.to_owned(),
        source,
    };
    fs::create_dir_all(path).map_err(failed)?;
    let probe = path.join(".windrow-write-test");
    fs::write(&probe, b"")
        .and_then(|()| fs::remove_file(&probe))
        .map_err(failed)
}
