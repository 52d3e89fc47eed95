//! Built server that is not running yet: open folders, bound ports, loaded certificates.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::Receiver;

use super::dead_letter_watch::DeadLetterWatch;
use super::error::BuildError;
use super::liveness::Liveness;
use super::outputs::Outputs;
use super::progress::Progress;
use super::status::{Status, StatusSources};
use crate::admission::AdmissionControl;
use crate::clock;
use crate::cluster::{Cluster, SplitSettings};
use crate::config::Config;
use crate::files::{create_private_folder, private_file, refuse_open_folder};
use crate::gather::{Gauges, IdSettings, OpenTracesProbe, QueueProducer, RecordQueue, Settings};
use crate::input::forward::{self, BoundListener, ConnectionLimiter, Tls};
use crate::input::http::{self, BoundHttp, Protocol};
use crate::memory::MemoryShares;
use crate::metrics::Metrics;
use crate::output::dead_letter::{self, DeadLetter, RejectedStore};
use crate::output::{Batch, BatchTap, LineCounters};
use windrow_journal::Journal;

/// The stages of the server, built but not running.
#[derive(Debug)]
pub struct Pipeline {
    pub(super) config: Config,
    pub(super) metrics: Arc<Metrics>,
    pub(super) journal: Journal,
    pub(super) recovery: windrow_journal::Recovery,
    pub(super) queue: Arc<RecordQueue>,
    pub(super) admission: Arc<AdmissionControl>,
    pub(super) dead_letter: Arc<DeadLetter>,
    pub(super) rejected: RejectedStore,
    dead_letter_watch: DeadLetterWatch,
    pub(super) outputs: Outputs,
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) cluster: Option<Arc<Cluster>>,
    pub(super) listeners: Vec<BoundListener>,
    pub(super) http_listeners: Vec<BoundHttp>,
    pub(super) limiter: Arc<ConnectionLimiter>,
    pub(super) account: Arc<LineCounters>,
    pub(super) gauges: Arc<Gauges>,
    pub(super) open_traces: Arc<OpenTracesProbe>,
    pub(super) tap: Arc<BatchTap>,
    tapped: Option<Receiver<Batch>>,
    pub(super) output_bytes: Arc<AtomicUsize>,
    pub(super) liveness: Liveness,
    pub(super) progress: Progress,
}

impl Pipeline {
    /// Opens the folders, locks the journal, binds the addresses.
    ///
    /// # Errors
    ///
    /// [`BuildError`]; nothing is running then, and nothing was changed but what recovery had to
    /// repair.
    pub async fn build(config: Config, metrics: Arc<Metrics>) -> Result<Self, BuildError> {
        make_folder(&config.data_dir)?;
        let shares = MemoryShares::of(config.memory_limit);
        let admission = Arc::new(AdmissionControl::new(shares.admission));
        let queue = RecordQueue::new(shares.record_queue, Arc::clone(&admission));
        let options = windrow_journal::JournalOptions {
            dir: config.journal.dir.clone(),
            segment_bytes: config.journal.segment_bytes,
            limit_bytes: config.journal.limit,
            clock: clock::unix_us,
        };
        let (journal, recovery) = Journal::open(options, Box::new(QueueProducer(Arc::clone(&queue))))?;
        clock::advance_to(recovery.last_received_us);
        if recovery.segments > 0 {
            queue.start_from_journal(recovery.first_lsn, recovery.next_lsn.saturating_sub(1));
        }
        let path = &config.dead_letter.dir;
        let dead_letter =
            DeadLetter::open(path, dead_letter::FILE_BYTES, config.dead_letter.limit).map_err(|source| {
                BuildError::DeadLetter {
                    path: path.clone(),
                    source,
                }
            })?;
        let path = &config.rejected.dir;
        let rejected =
            RejectedStore::open(path, config.rejected.limit).map_err(|source| BuildError::Rejected {
                path: path.clone(),
                source,
            })?;
        let dead_letter = Arc::new(dead_letter);
        let dead_letter_watch = DeadLetterWatch::start(&dead_letter).map_err(BuildError::Thread)?;
        let outputs = Outputs::open(&config)?;
        let tls = config
            .forward
            .tls
            .clone()
            .map(Tls::open)
            .transpose()?
            .map(Arc::new);
        let gathering = Settings::from_config(&config);
        let split = SplitSettings {
            ids: IdSettings::of(&gathering),
            frame: gathering.frame,
            max_part_bytes: gathering.max_part_bytes,
            line_timeout: config.trace.idle_timeout,
        };
        let cluster = Cluster::new(&config, journal.instance(), split, Arc::clone(&metrics))?;
        let mut listeners = Vec::new();
        for listen in &config.forward.listen {
            listeners
                .push(forward::bind(listen, config.forward.unix_mode, config.forward.udp_heartbeat).await?);
        }
        let records = config
            .http
            .listen
            .iter()
            .map(|address| (address, Protocol::Records));
        let otlp = config.otlp.listen.iter().map(|address| (address, Protocol::Otlp));
        let http_listeners = records
            .chain(otlp)
            .map(|(address, protocol)| http::bind(*address, protocol))
            .collect::<Result<_, _>>()?;
        let limiter = ConnectionLimiter::new(
            config.forward.max_connections,
            config.forward.max_connections_per_address,
        );
        let (tap, tapped) = BatchTap::new();
        Ok(Self {
            config,
            metrics,
            journal,
            recovery,
            queue,
            admission,
            dead_letter,
            dead_letter_watch,
            rejected,
            outputs,
            tls,
            cluster,
            listeners,
            http_listeners,
            limiter,
            account: Arc::default(),
            gauges: Arc::default(),
            open_traces: Arc::default(),
            tap,
            tapped: Some(tapped),
            output_bytes: Arc::default(),
            liveness: Liveness::default(),
            progress: Progress::default(),
        })
    }

    /// The bound Forward addresses; a configured port 0 is replaced by the real port.
    pub fn addresses(&self) -> impl Iterator<Item = &str> {
        self.listeners.iter().map(|listener| listener.address.as_str())
    }

    /// The bound addresses of the HTTP and OTLP inputs, with the name of the input.
    pub fn http_addresses(&self) -> impl Iterator<Item = (&'static str, std::net::SocketAddr)> {
        let listeners = self.http_listeners.iter();
        listeners.map(|listener| (listener.protocol().name(), listener.address))
    }

    /// The tap of sealed batches with their queue, once; `None` afterwards.
    pub fn take_tap(&mut self) -> Option<(Arc<BatchTap>, Receiver<Batch>)> {
        let tapped = self.tapped.take()?;
        Some((Arc::clone(&self.tap), tapped))
    }

    /// Requests for the traces that are being gathered.
    pub fn open_traces(&self) -> Arc<OpenTracesProbe> {
        Arc::clone(&self.open_traces)
    }

    /// The TLS configuration of the Forward port, which a SIGHUP reloads.
    pub fn tls(&self) -> Option<Arc<Tls>> {
        self.tls.clone()
    }

    /// The other instances, whose certificates a SIGHUP reads again.
    pub(crate) fn cluster(&self) -> Option<Arc<Cluster>> {
        self.cluster.clone()
    }

    /// What recovery found in the journal.
    pub fn recovery(&self) -> &windrow_journal::Recovery {
        &self.recovery
    }

    /// The status that the admin port shows; from this call on the gauges of the metrics follow it.
    pub fn status(&self) -> Status {
        let status = Status::new(StatusSources {
            journal: self.journal.clone(),
            queue: Arc::clone(&self.queue),
            gauges: Arc::clone(&self.gauges),
            account: Arc::clone(&self.account),
            output_bytes: Arc::clone(&self.output_bytes),
            dead_letter: Arc::clone(&self.dead_letter),
            rejected: self.rejected.watchdog(),
            dead_letter_watch: self.dead_letter_watch.clone(),
            limiter: Arc::clone(&self.limiter),
            elasticsearch: self.outputs.elasticsearch(),
            store: self.outputs.store(),
            search: self.outputs.search(),
            watchdogs: self.outputs.watchdogs().to_vec(),
            cluster: self.cluster.clone(),
            memory_limit: self.config.memory_limit,
            liveness: self.liveness.clone(),
            progress: self.progress.clone(),
        });
        status.mirror_in(&self.metrics);
        status
    }
}

fn make_folder(path: &Path) -> Result<(), BuildError> {
    let failed = |source| BuildError::Folder {
        path: path.to_owned(),
        source,
    };
    create_private_folder(path).map_err(failed)?;
    refuse_open_folder(path).map_err(failed)?;
    let probe = path.join(".windrow-write-test");
    // Left by a process that was killed.
    match fs::remove_file(&probe) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    private_file()
        .write(true)
        .create_new(true)
        .open(&probe)
        .and_then(|_| fs::remove_file(&probe))
        .map_err(failed)
}
