//! `windrow serve`: builds the pipeline, says where it listens, runs it until a signal, drains.
//!
//! Owns signals and what is printed at the start. Exit codes are in `exit`.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::value::RawValue;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::admin::{self, AdminState};
use crate::config::{Config, OutputKind};
use crate::exit;
use crate::input::forward::Tls;
use crate::metrics::Metrics;
use crate::output::document_id;
use crate::pipeline::{BuildError, Pipeline, Store};
use crate::reactor;

/// What a SIGHUP reads again: the level of the log. Certificates are read again as well.
pub type Reload = Box<dyn Fn() + Send>;

/// Serves until a signal. Gives the exit code; a failure has been logged.
pub fn serve(config: Config, reload: Reload) -> u8 {
    raise_file_limit(config.forward.max_connections);
    let runtime = match reactor::runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start");
            return exit::FAILURE;
        }
    };
    match runtime.block_on(run(config, reload)) {
        Ok(()) => exit::OK,
        Err(error) => {
            tracing::error!("{error}");
            exit::FAILURE
        }
    }
}

async fn run(config: Config, reload: Reload) -> Result<(), BuildError> {
    let metrics = Arc::new(Metrics::new(&config.outputs));
    let stop = CancellationToken::new();
    // The admin port answers until everything is drained.
    let admin_stop = CancellationToken::new();
    watch_signals(stop.clone());

    let pipeline = Pipeline::build(config.clone(), Arc::clone(&metrics)).await?;
    watch_reload(reload, pipeline.tls(), Arc::clone(&metrics));
    let status = pipeline.status();
    let mut said = String::new();
    let mut admin_address = None;
    for address in pipeline.addresses() {
        said += &format!("forward listening on {address}\n");
    }
    if let Some(address) = config.admin.listen {
        let failed = |source| BuildError::Admin { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        said += &format!("admin listening on http://{bound}\n");
        admin_address = Some(bound);
        let readiness = status.clone();
        let state = AdminState {
            metrics,
            readiness: Arc::new(move || {
                let now = readiness.readiness();
                admin::Readiness {
                    reasons: now.reasons,
                    notes: now.notes,
                    fatal: now.fatal,
                }
            }),
            store: status
                .store()
                .map(|store| Arc::new(Logs(store)) as Arc<dyn admin::DocumentStore>),
            outputs: config.outputs.clone(),
        };
        tokio::spawn(admin::serve(
            listener,
            admin::router(state, &config.admin),
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
            "continuing where the journal ends"
        );
    }
    announce(&config, &pipeline, &said, admin_address);
    pipeline.run(stop).await?;
    admin_stop.cancel();
    tracing::info!("stopped");
    Ok(())
}

/// Where to connect, on standard output for programs and people; on standard error when documents go to the former.
fn announce(config: &Config, pipeline: &Pipeline, said: &str, admin: Option<SocketAddr>) {
    let mut text = said.to_owned();
    if config.outputs.contains(&OutputKind::Stdout) {
        std::io::stderr().write_all(text.as_bytes()).ok();
        return;
    }
    let mut out = std::io::stdout();
    text += &first_steps(config, pipeline, admin);
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).ok();
}

/// How a newcomer sends a first record and sees it.
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

/// The first SIGTERM or SIGINT stops, a second one ends at once: the journal keeps what was not written.
fn watch_signals(stop: CancellationToken) {
    tokio::spawn(async move {
        let (Ok(mut terminate), Ok(mut interrupt)) =
            (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
        else {
            tracing::error!("signals cannot be watched; only a kill will end this process");
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
        tracing::warn!("second signal: ending at once; what was not written is in the journal");
        std::process::exit(i32::from(exit::SECOND_SIGNAL));
    });
}

/// SIGHUP: certificates and log level are read again. What cannot be read leaves the old one in use.
fn watch_reload(reload: Reload, tls: Option<Arc<Tls>>, metrics: Arc<Metrics>) {
    tokio::spawn(async move {
        let Ok(mut hangup) = signal(SignalKind::hangup()) else {
            return;
        };
        while hangup.recv().await.is_some() {
            reload();
            match tls.as_ref().map(|tls| tls.reload()) {
                Some(Err(error)) => {
                    tracing::error!(%error, "the certificates were not read again; the old ones stay in use");
                }
                Some(Ok(())) => tracing::info!("certificates and log level read again"),
                None => tracing::info!("log level read again"),
            }
            metrics.reloads.inc();
        }
    });
}

/// Each connection is a file; the usual soft limit of 1024 is far below what the machine allows.
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
        tracing::debug!("the limit on open files cannot be raised");
    }
    let now = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    if now < connections.saturating_add(64) {
        tracing::warn!(
            open_files = now,
            max_connections = connections,
            "the system allows fewer open files than connections are configured; raise `ulimit -n`"
        );
    }
}

/// The configured store as the admin port reads it.
struct Logs(Store);

impl admin::DocumentStore for Logs {
    fn recent<'a>(&'a self, trace_id: Option<&'a str>, limit: usize) -> admin::RecentDocuments<'a> {
        Box::pin(async move {
            match &self.0 {
                Store::Elasticsearch(output) => output.recent(trace_id, limit).await,
                Store::Sqlite(reader) => {
                    let reader = Arc::clone(reader);
                    let id = trace_id.map(|id| document_id(id.as_bytes()));
                    let read = tokio::task::spawn_blocking(move || reader.recent(id.as_deref(), limit));
                    let documents = read
                        .await
                        .map_err(|error| error.to_string())?
                        .map_err(|error| error.to_string())?;
                    documents
                        .into_iter()
                        .map(|json| RawValue::from_string(json).map_err(|error| error.to_string()))
                        .collect()
                }
            }
        })
    }
}
