//! `windrow serve`: builds the pipeline, prints its addresses, and runs it until a signal.
//!
//! Owns the signals and what is printed at the start. Exit codes are in `exit`.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::value::RawValue;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::fmt::MakeWriter;

use crate::admin::{self, AdminState};
use crate::clock;
use crate::cluster::Cluster;
use crate::config::{Config, OutputKind};
use crate::exit;
use crate::input::forward::Tls;
use crate::logging::{FLUSH_TIMEOUT, LogWriter};
use crate::metrics::Metrics;
use crate::output::dead_letter::{DeadLetterBrowser, Entry};
use crate::output::document_id;
use crate::output::elasticsearch::{Elasticsearch, ElasticsearchSearch};
use crate::output::replay::replay;
use crate::pipeline::{BuildError, Pipeline, Store, search_names};
use crate::runtime;
use crate::search::TraceSearch;
use crate::search::embedded::EmbeddedSearch;

/// Called on SIGHUP to reload the log level; certificates are reloaded beside it.
pub type Reload = Box<dyn Fn() + Send>;

/// Serves until a signal and returns the exit code; a failure has been logged.
pub fn serve(config: Config, log: &LogWriter, reload: Reload) -> u8 {
    let code = serve_until_signal(config, log, reload);
    log.flush(FLUSH_TIMEOUT);
    code
}

fn serve_until_signal(config: Config, log: &LogWriter, reload: Reload) -> u8 {
    raise_file_limit(config.forward.max_connections);
    let runtime = match runtime::build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start");
            return exit::FAILURE;
        }
    };
    match runtime.block_on(run(config, log, reload)) {
        Ok(()) => exit::OK,
        Err(error) => {
            tracing::error!("{error}");
            exit::FAILURE
        }
    }
}

async fn run(config: Config, log: &LogWriter, reload: Reload) -> Result<(), BuildError> {
    let metrics = Arc::new(Metrics::new(&config.outputs));
    let stop = CancellationToken::new();
    // Separate from `stop`: the admin port answers until everything is drained.
    let admin_stop = CancellationToken::new();
    watch_signals(stop.clone(), log.clone());
    let dropped = log.clone();
    metrics.on_scrape(move |metrics| {
        metrics
            .log_lines_dropped
            .inner()
            .store(dropped.dropped(), Ordering::Relaxed);
    });

    let mut pipeline = Pipeline::build(config.clone(), Arc::clone(&metrics)).await?;
    watch_reload(reload, pipeline.tls(), pipeline.cluster(), Arc::clone(&metrics));
    let status = pipeline.status();
    let mut addresses = String::new();
    let mut admin_address = None;
    for address in pipeline.addresses() {
        addresses += &format!("forward listening on {address}\n");
    }
    let scheme = if config.forward.tls.is_some() {
        "https"
    } else {
        "http"
    };
    for (name, address) in pipeline.http_addresses() {
        addresses += &format!("{name} listening on {scheme}://{address}\n");
    }
    if let Some(address) = config.admin.listen {
        let failed = |source| BuildError::Admin { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        addresses += &format!("admin listening on http://{bound}\n");
        admin_address = Some(bound);
        let readiness = status.clone();
        let tail = start_tail(&mut pipeline, &config);
        let state = AdminState {
            metrics,
            readiness: Arc::new(move || {
                let current = readiness.readiness();
                admin::Readiness {
                    reasons: current.reasons,
                    notes: current.notes,
                    fatal: current.fatal,
                }
            }),
            peers: Arc::new({
                let status = status.clone();
                move || status.peers()
            }),
            store: status
                .store()
                .map(|store| Arc::new(LogStore::new(store)) as Arc<dyn admin::DocumentStore>),
            search: status
                .store()
                .and_then(|store| trace_search(&config, store, status.search())),
            names: search_names(&config),
            outputs: config.outputs.clone(),
            forward_address: pipeline.addresses().next().map(str::to_owned),
            open_traces: Some(pipeline.open_traces()),
            dead_letter: Some(dead_letter_access(&config, status.elasticsearch())),
            tail,
        };
        tokio::spawn(admin::serve(
            listener,
            admin::router(state, &config.admin, &admin_stop),
            admin_stop.clone(),
        ));
    }
    let recovery = pipeline.recovery();
    if recovery.unreleased_records > 0 || recovery.torn_bytes > 0 {
        tracing::info!(
            records = recovery.unreleased_records,
            segments = recovery.segments,
            torn_bytes = recovery.torn_bytes,
            took = ?recovery.took,
            "recovered records that are not delivered yet"
        );
    }
    tokio::spawn(clock::watch_steps());
    announce(&config, &pipeline, &addresses, admin_address, log);
    pipeline.run(stop).await?;
    admin_stop.cancel();
    tracing::info!("stopped");
    Ok(())
}

/// Prints the addresses and the first steps on standard output; on standard error, and only the
/// addresses, when documents go to standard output.
fn announce(
    config: &Config,
    pipeline: &Pipeline,
    addresses: &str,
    admin: Option<SocketAddr>,
    log: &LogWriter,
) {
    let mut text = addresses.to_owned();
    if config.outputs.contains(&OutputKind::Stdout) {
        log.make_writer().write_all(text.as_bytes()).ok();
        return;
    }
    let mut out = std::io::stdout();
    text += &first_steps(config, pipeline, admin);
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).ok();
}

/// Commands that send a first record and show it.
fn first_steps(config: &Config, pipeline: &Pipeline, admin: Option<SocketAddr>) -> String {
    let tcp = pipeline.addresses().find_map(|address| address.rsplit_once(':'));
    let port = tcp.map_or("24224", |(_, port)| port);
    let mut text = String::new();
    if config.forward.tls.is_none() && config.forward.shared_key.is_none() {
        text += &format!(
            "\nSend a first record, from bash:\n\n  \
             echo '[\"app\", 0, {{\"traceId\":\"abc\",\"message\":\"request completed\",\"status\":200}}]' > /dev/tcp/127.0.0.1/{port}\n"
        );
    }
    if let Some(admin) = admin {
        text += &format!("\nSee it two seconds later:\n\n  curl 'http://{admin}/logs?traceId=abc'\n");
    }
    text += &format!(
        "\nFluent Bit: [OUTPUT] Name forward, Host <this host>, Port {port}, Require_ack_response true, Retry_Limit no_limits\n\
         Journal and documents: {}\n\n",
        config.data_dir.display()
    );
    text
}

/// The first SIGTERM or SIGINT drains the server, a second one exits at once: the journal keeps
/// what was not delivered.
fn watch_signals(stop: CancellationToken, log: LogWriter) {
    tokio::spawn(async move {
        let (Ok(mut terminate), Ok(mut interrupt)) =
            (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
        else {
            tracing::error!("cannot watch signals; only SIGKILL will end this process");
            return;
        };
        for first in [true, false] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if first {
                stop.cancel();
            }
        }
        tracing::warn!("second signal: exiting at once; what was not delivered is in the journal");
        log.flush(FLUSH_TIMEOUT);
        std::process::exit(i32::from(exit::SECOND_SIGNAL));
    });
}

/// SIGHUP reloads certificates, secrets from files and log level. What cannot be read stays as it is.
fn watch_reload(reload: Reload, tls: Option<Arc<Tls>>, cluster: Option<Arc<Cluster>>, metrics: Arc<Metrics>) {
    tokio::spawn(async move {
        let Ok(mut hangup) = signal(SignalKind::hangup()) else {
            return;
        };
        while hangup.recv().await.is_some() {
            // Both read files.
            let reloaded = runtime::block_in_place(|| {
                reload();
                let peers = cluster.as_ref().map_or(Ok(()), |cluster| cluster.reload());
                tls.as_ref().map(|tls| tls.reload().and(peers))
            });
            match reloaded {
                Some(Err(error)) => {
                    tracing::error!(%error, "cannot reload the certificates; the old ones stay in use");
                }
                Some(Ok(())) => tracing::info!("certificates, secrets and log level reloaded"),
                None => tracing::info!("secrets and log level reloaded"),
            }
            metrics.reloads.inc();
        }
    });
}

/// Raises the soft limit of open files to the hard limit: each connection is a file, and the usual
/// soft limit is 1024.
pub fn raise_file_limit(connections: u64) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    )
    .is_err()
    {
        tracing::debug!("cannot raise the limit of open files");
    }
    let open_files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    if open_files < connections.saturating_add(64) {
        tracing::warn!(
            open_files,
            max_connections = connections,
            "the limit of open files is below max_connections; raise `ulimit -n`"
        );
    }
}

/// Starts the live tail; without a thread for it the server goes on.
fn start_tail(pipeline: &mut Pipeline, config: &Config) -> Option<Arc<admin::TailHub>> {
    let (tap, batches) = pipeline.take_tap()?;
    let started = admin::TailHub::start(tap, batches, search_names(config));
    started
        .inspect_err(|error| tracing::warn!(%error, "no live tail: the system gives no thread"))
        .ok()
}

/// The dead letter as the admin port shows it; its documents are sent again by `output`.
fn dead_letter_access(config: &Config, output: Option<Elasticsearch>) -> admin::DeadLetterAccess {
    let folder = config.dead_letter.dir.clone();
    let browser = DeadLetterBrowser::new(&folder);
    let replay = output.map(|output| {
        let start = move || -> admin::Replaying {
            let (folder, output) = (folder.clone(), output.clone());
            Box::pin(async move {
                // Reads and writes files: on a thread that may block.
                let handle = tokio::runtime::Handle::current();
                let replaying = move || {
                    let send = async |entries: &[Entry]| output.replay(entries).await;
                    handle.block_on(replay(&folder, send, |_| ()))
                };
                let replayed = tokio::task::spawn_blocking(replaying).await;
                replayed
                    .map_err(|error| error.to_string())?
                    .map_err(|error| error.to_string())
            })
        };
        Arc::new(start) as Arc<dyn Fn() -> admin::Replaying + Send + Sync>
    });
    admin::DeadLetterAccess::new(browser, replay)
}

/// What the API searches: the store that `/logs` reads.
fn trace_search(
    config: &Config,
    store: Store,
    embedded: Option<EmbeddedSearch>,
) -> Option<Arc<dyn TraceSearch>> {
    match store {
        Store::Sqlite(_) => embedded.map(|search| Arc::new(search) as Arc<dyn TraceSearch>),
        Store::Elasticsearch(output) => {
            Some(Arc::new(ElasticsearchSearch::new(output, search_names(config))))
        }
    }
}

/// The configured store, read by the admin port.
struct LogStore {
    store: Store,
    /// One read of the embedded store at a time, so that slow ones do not fill the thread pool.
    turn: Arc<Semaphore>,
}

impl LogStore {
    fn new(store: Store) -> Self {
        Self {
            store,
            turn: Arc::new(Semaphore::new(1)),
        }
    }
}

impl admin::DocumentStore for LogStore {
    fn recent<'a>(
        &'a self,
        trace_id: Option<&'a str>,
        limit: usize,
        max_bytes: usize,
    ) -> admin::RecentDocuments<'a> {
        Box::pin(async move {
            match &self.store {
                Store::Elasticsearch(output) => Ok(admin::FoundDocuments {
                    documents: output.recent(trace_id, limit).await?,
                    omitted: 0,
                }),
                Store::Sqlite(reader) => {
                    let reader = Arc::clone(reader);
                    let id = trace_id.map(|id| document_id(id.as_bytes()));
                    // Held by the read itself, which goes on when the request is given up.
                    let turn = Arc::clone(&self.turn).acquire_owned().await;
                    let read = tokio::task::spawn_blocking(move || {
                        let _turn = turn;
                        reader.recent(id.as_deref(), limit, max_bytes)
                    });
                    let found = read
                        .await
                        .map_err(|error| error.to_string())?
                        .map_err(|error| error.to_string())?;
                    let documents = found
                        .documents
                        .into_iter()
                        .map(|json| RawValue::from_string(json).map_err(|error| error.to_string()));
                    Ok(admin::FoundDocuments {
                        documents: documents.collect::<Result<_, _>>()?,
                        omitted: found.omitted,
                    })
                }
            }
        })
    }
}
