//! Command line: parses it and starts the chosen part. The flags are defined in `arguments`.
//!
//! Long flags may also be written with one dash (`-target URL`), as programs in Go take them.

use std::{ffi::OsString, net::SocketAddr, process::ExitCode, sync::Arc, time::Duration};

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use tokio_util::sync::CancellationToken;

use crate::{
    Error, app_log, client, server, service, showcase,
    sidecar::{self, logs},
    signal, web,
};

mod arguments;

use arguments::{
    ClientArgs, HealthArgs, ServerArgs, ServiceArgs, ShowcaseArgs, SidecarLogsArgs, SidecarMetricsArgs,
};

/// The demo application of Windrow: a server and a client, three services, and their sidecars.
#[derive(Debug, Parser)]
#[command(name = "demo", version)]
pub struct Cli {
    /// The part to run.
    #[command(subcommand)]
    pub command: Command,
}

/// The parts.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// HTTP server that writes two JSON lines per request of /hello to a log file
    Server(ServerArgs),
    /// Sends requests, each with a trace id of its own
    Client(ClientArgs),
    /// One of the services user (port 3000), product (3002) and order (3003, calls the other two)
    Service(ServiceArgs),
    /// Serves the metrics of the application beside it with the labels service_name and environment
    SidecarMetrics(SidecarMetricsArgs),
    /// Follows a JSON log file and forwards its lines with service_name and environment added
    SidecarLogs(SidecarLogsArgs),
    /// Runs all of it with a Windrow program: the same as `windrow demo`
    Showcase(ShowcaseArgs),
    /// Asks an HTTP health page; exit code 0 when it answers with a success: for images without a
    /// shell
    Health(HealthArgs),
}

/// Reads the command line; prints help or what is wrong and exits, as clap does.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Cli {
    try_parse(arguments).unwrap_or_else(|error| error.exit())
}

fn try_parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let command = Cli::command();
    let matches = command
        .clone()
        .try_get_matches_from(go_style(&command, arguments))?;
    Cli::from_arg_matches(&matches)
}

/// Runs the chosen part until its end or a stop signal.
///
/// # Errors
/// The error that ended the part.
pub async fn run(cli: Cli) -> Result<ExitCode, Error> {
    let stop = signal::stop_token().map_err(Error::io("signal handlers cannot be installed"))?;
    match cli.command {
        Command::Server(args) => {
            let options = server::Options {
                listen: SocketAddr::new(args.host, args.port),
                log_path: args.log_path,
                shutdown_timeout: args.shutdown_timeout,
            };
            let server = server::Server::bind(&options).await?;
            announce(
                "server",
                server.local_addr(),
                &format!("log file {}", options.log_path.display()),
            );
            server.run(stop).await?;
            println!("server stopped, log flushed");
        }
        Command::Client(args) => {
            let options = client::Options {
                target: args.target,
                count: args.count,
                concurrency: args.concurrency,
                interval: args.interval,
                timeout: args.timeout,
                retries: args.retries,
                backoff: Duration::from_millis(100),
            };
            let summary = client::run(&options, &stop, print_outcome).await?;
            println!("{summary}");
            if summary.succeeded < summary.requests {
                return Ok(ExitCode::FAILURE);
            }
        }
        Command::Service(args) => {
            let Some(port) = args.port.or_else(|| service::default_port(&args.name)) else {
                Cli::command()
                    .error(
                        clap::error::ErrorKind::MissingRequiredArgument,
                        format!(
                            "the service {:?} has no port of its own: give --port or SERVICE_PORT",
                            args.name
                        ),
                    )
                    .exit()
            };
            let (listen, shutdown_timeout) = (SocketAddr::new(args.host, port), args.shutdown_timeout);
            let (name, calls) = (args.name.clone(), args.calls.clone());
            let (log, where_to) = service_log(args);
            let options = service::Options {
                calls: calls.unwrap_or_else(|| service::default_calls(&name)),
                name,
                listen,
                log,
                shutdown_timeout,
            };
            let service = service::Service::bind(&options).await?;
            announce(&options.name, service.local_addr(), &where_to);
            service.run(stop).await?;
            println!("{} stopped, log flushed", options.name);
        }
        Command::SidecarMetrics(args) => {
            let options = sidecar::metrics::Options {
                app_metrics_url: args.app_metrics_url,
                listen: SocketAddr::new(args.host, args.port),
                identity: args.identity.into(),
                interval: args.interval,
                timeout: args.timeout,
            };
            let sidecar = sidecar::metrics::MetricsSidecar::bind(&options).await?;
            if let Ok(address) = sidecar.local_addr() {
                println!(
                    "metrics of {} served on http://{address}/metrics",
                    options.app_metrics_url
                );
            }
            sidecar.run(stop).await?;
        }
        Command::SidecarLogs(args) => run_log_sidecar(args, stop).await?,
        Command::Showcase(args) => {
            let report = showcase::run(&args.windrow, &args.options, &stop).await?;
            if !report.is_kept() {
                return Ok(ExitCode::FAILURE);
            }
        }
        Command::Health(args) => return health(&args).await,
    }
    Ok(ExitCode::SUCCESS)
}

/// The service's log and a description of it.
fn service_log(args: ServiceArgs) -> (service::Log, String) {
    if !args.direct {
        let where_to = format!("log file {}", args.log_path.display());
        return (service::Log::File(args.log_path), where_to);
    }
    let target = args.target.into_target(Some(args.reconnect_interval));
    let where_to = format!("logging to {}", target.address);
    let options = app_log::DirectOptions {
        target,
        tag: format!("app.{}", args.name),
        identity: sidecar::Identity {
            service_name: args.name,
            environment: args.environment,
        },
    };
    (service::Log::Direct(Box::new(options)), where_to)
}

async fn run_log_sidecar(args: SidecarLogsArgs, stop: CancellationToken) -> Result<(), Error> {
    let identity: sidecar::Identity = args.identity.into();
    let options = logs::Options {
        tag: args
            .tag
            .unwrap_or_else(|| format!("app.{}", identity.service_name)),
        log_path: args.log_path,
        state_path: args.state_path,
        identity,
        poll: args.poll,
        rotate_wait: args.rotate_wait,
        chunk_bytes: logs::CHUNK_BYTES,
        stop_grace: args.stop_grace,
        backoff: logs::BACKOFF,
    };
    let target = args.target.into_target(args.reconnect_interval);
    println!("forwarding {} to {}", options.log_path.display(), target.address);
    let status = Arc::default();
    let delivery = logs::forward::ForwardDelivery::start(&target, options.backoff, Arc::clone(&status))?;
    let sidecar = logs::LogSidecar::open(options, Arc::clone(&status), delivery)?;
    let pages = match args.port {
        Some(port) => {
            let listener = web::bind(SocketAddr::new(args.host, port), "SIDECAR_PORT").await?;
            if let Ok(address) = listener.local_addr() {
                println!("health and metrics on http://{address}");
            }
            let router = logs::status::router(status);
            let grace = Duration::from_secs(1);
            Some(tokio::spawn(web::serve_router(
                listener,
                router,
                stop.clone(),
                grace,
                || 0,
            )))
        }
        None => None,
    };
    sidecar.run(stop).await;
    if let Some(pages) = pages {
        pages.abort();
    }
    Ok(())
}

async fn health(args: &HealthArgs) -> Result<ExitCode, Error> {
    let url = client::parse_url("the health page", &args.url)?;
    let answer = client::direct_client(args.timeout)?.get(url).send().await;
    match answer.and_then(reqwest::Response::error_for_status) {
        Ok(_) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            println!("not healthy: {}", client::chain(&error));
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Prints the address that was opened, once requests are accepted.
fn announce(name: &str, address: std::io::Result<SocketAddr>, log: &str) {
    match address {
        Ok(address) => println!("{name} listening on http://{address}, {log}"),
        Err(error) => eprintln!("demo: the address of {name} is not known: {error}"),
    }
}

fn print_outcome(outcome: &client::Outcome) {
    let tries = if outcome.attempts > 1 {
        format!(", attempt {}", outcome.attempts)
    } else {
        String::new()
    };
    let millis = outcome.took.as_secs_f64() * 1e3;
    match &outcome.result {
        Ok(status) => println!("{} {status} in {millis:.1} ms{tries}", outcome.trace_id),
        Err(error) => println!("{} failed after {millis:.1} ms{tries}: {error}", outcome.trace_id),
    }
}

/// Turns `-target` into `--target` for the long flags of the chosen part; everything else stays as
/// it is.
fn go_style(
    command: &clap::Command,
    arguments: impl IntoIterator<Item = OsString>,
) -> impl Iterator<Item = OsString> {
    let mut flags: Vec<String> = Vec::new();
    let mut ended = false;
    arguments.into_iter().map(move |argument| {
        let Some(text) = argument.to_str() else {
            return argument;
        };
        if flags.is_empty()
            && let Some(chosen) = command.find_subcommand(text)
        {
            flags = chosen
                .get_arguments()
                .filter_map(|arg| arg.get_long().map(str::to_owned))
                .collect();
        }
        ended |= text == "--";
        let name = text
            .strip_prefix('-')
            .map(|rest| rest.split('=').next().unwrap_or(rest));
        match name {
            Some(name) if !ended && flags.iter().any(|flag| flag == name) => format!("-{text}").into(),
            _ => argument,
        }
    })
}

#[cfg(test)]
mod tests;
