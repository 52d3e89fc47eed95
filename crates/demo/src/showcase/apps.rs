//! The applications of the showcase, inside this process, each with its log file and its sidecars.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::fluent_bit::FluentBit;
use crate::{
    Error,
    forward::Target,
    server, service,
    sidecar::{
        Identity,
        logs::{self, forward::ForwardDelivery},
        metrics,
    },
};

/// Value of `environment` in records and metrics.
const ENVIRONMENT: &str = "demo";

/// Loopback, on a free port.
const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// How long requests in flight may take at the end.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// One application.
#[derive(Debug)]
pub(super) struct App {
    pub(super) name: &'static str,
    /// Without a slash at the end.
    pub(super) url: String,
    log: PathBuf,
}

/// All of them, and what runs beside them.
#[derive(Debug)]
pub(super) struct Apps {
    pub(super) server: App,
    pub(super) user: App,
    pub(super) product: App,
    pub(super) order: App,
    metrics: Vec<(&'static str, String)>,
    fluent_bits: Vec<FluentBit>,
    tasks: Vec<JoinHandle<()>>,
    stop: CancellationToken,
    sidecars: Vec<JoinHandle<()>>,
    stop_sidecars: CancellationToken,
}

impl Apps {
    /// Starts everything; lines go to the Forward address over Fluent Bit, or over our own sidecar
    /// without one.
    pub(super) async fn start(
        folder: &Path,
        forward: &str,
        fluent_bit: Option<&Path>,
    ) -> Result<Self, Error> {
        let (stop, stop_sidecars) = (CancellationToken::new(), CancellationToken::new());
        let mut tasks = Vec::new();
        let server = start_server(folder, &stop, &mut tasks).await?;
        let user = start_service(folder, "user", Vec::new(), &stop, &mut tasks).await?;
        let product = start_service(folder, "product", Vec::new(), &stop, &mut tasks).await?;
        let calls = vec![user.url.clone(), product.url.clone()];
        let order = start_service(folder, "order", calls, &stop, &mut tasks).await?;
        let (mut sidecars, mut fluent_bits, mut pages) = (Vec::new(), Vec::new(), Vec::new());
        for app in [&server, &user, &product, &order] {
            match fluent_bit {
                Some(program) => {
                    fluent_bits.push(FluentBit::start(
                        program,
                        folder,
                        &app.log,
                        app.name,
                        ENVIRONMENT,
                        forward,
                    )?);
                }
                None => sidecars.push(start_log_sidecar(folder, app, forward, &stop_sidecars)?),
            }
        }
        for app in [&user, &product, &order] {
            let options = metrics::Options {
                app_metrics_url: format!("{}/metrics", app.url),
                listen: ANY_PORT,
                identity: identity(app.name),
                interval: Duration::from_secs(1),
                timeout: Duration::from_secs(1),
            };
            let sidecar = metrics::MetricsSidecar::bind(&options).await?;
            let address = sidecar.local_addr().map_err(Error::io("a metrics sidecar"))?;
            pages.push((app.name, format!("http://{address}/metrics")));
            let stop = stop_sidecars.clone();
            sidecars.push(tokio::spawn(async move { report(sidecar.run(stop).await) }));
        }
        Ok(Self {
            server,
            user,
            product,
            order,
            metrics: pages,
            fluent_bits,
            tasks,
            stop,
            sidecars,
            stop_sidecars,
        })
    }

    /// The pages of the metrics sidecars.
    pub(super) fn metrics(&self) -> &[(&'static str, String)] {
        &self.metrics
    }

    /// First the applications, then their sidecars, which deliver the last lines.
    pub(super) async fn stop(self) {
        self.stop.cancel();
        for task in self.tasks {
            task.await.ok();
        }
        self.stop_sidecars.cancel();
        for task in self.sidecars {
            task.await.ok();
        }
        let stopping: Vec<_> = self
            .fluent_bits
            .into_iter()
            .map(|fluent_bit| tokio::spawn(fluent_bit.stop()))
            .collect();
        for stopped in stopping {
            stopped.await.ok();
        }
    }
}

async fn start_server(
    folder: &Path,
    stop: &CancellationToken,
    tasks: &mut Vec<JoinHandle<()>>,
) -> Result<App, Error> {
    let log = log_path(folder, "server");
    let options = server::Options {
        listen: ANY_PORT,
        log_path: log.clone(),
        shutdown_timeout: STOP_TIMEOUT,
    };
    let server = server::Server::bind(&options).await?;
    let address = server.local_addr().map_err(Error::io("the server"))?;
    let stop = stop.clone();
    tasks.push(tokio::spawn(async move { report(server.run(stop).await) }));
    Ok(App {
        name: "server",
        url: format!("http://{address}"),
        log,
    })
}

async fn start_service(
    folder: &Path,
    name: &'static str,
    calls: Vec<String>,
    stop: &CancellationToken,
    tasks: &mut Vec<JoinHandle<()>>,
) -> Result<App, Error> {
    let log = log_path(folder, name);
    let options = service::Options {
        name: name.to_owned(),
        listen: ANY_PORT,
        log: service::Log::File(log.clone()),
        calls,
        shutdown_timeout: STOP_TIMEOUT,
    };
    let service = service::Service::bind(&options).await?;
    let address = service.local_addr().map_err(Error::io(name))?;
    let stop = stop.clone();
    tasks.push(tokio::spawn(async move { report(service.run(stop).await) }));
    Ok(App {
        name,
        url: format!("http://{address}"),
        log,
    })
}

fn start_log_sidecar(
    folder: &Path,
    app: &App,
    forward: &str,
    stop: &CancellationToken,
) -> Result<JoinHandle<()>, Error> {
    let options = logs::Options {
        log_path: app.log.clone(),
        state_path: folder.join(format!("sidecar-{}/position.json", app.name)),
        tag: format!("app.{}", app.name),
        identity: identity(app.name),
        poll: Duration::from_millis(100),
        rotate_wait: Duration::from_secs(5),
        chunk_bytes: logs::CHUNK_BYTES,
        stop_grace: Duration::from_secs(5),
        backoff: logs::BACKOFF,
    };
    let status = Arc::default();
    let target = Target::plain(forward.to_owned());
    let delivery = ForwardDelivery::start(&target, logs::BACKOFF, Arc::clone(&status))?;
    let sidecar = logs::LogSidecar::open(options, status, delivery)?;
    Ok(tokio::spawn(sidecar.run(stop.clone())))
}

fn log_path(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("logs/{name}/app.log"))
}

fn identity(name: &str) -> Identity {
    Identity {
        service_name: name.to_owned(),
        environment: ENVIRONMENT.to_owned(),
    }
}

fn report(ended: Result<(), Error>) {
    if let Err(error) = ended {
        tracing::error!("{error}");
    }
}
