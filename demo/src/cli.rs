//! The command line: flags, their environment variables and defaults, and the start of the chosen part.
//!
//! Long flags may also be written with one dash (`-target URL`), as programs in Go take them.

use std::{
    ffi::OsString,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use tokio_util::sync::CancellationToken;

use crate::{
    Error, app_log, client,
    forward::Target,
    server, service, showcase,
    sidecar::{self, logs},
    signal, web,
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
    /// Asks an HTTP health page; exit code 0 when it answers with a success: for images without a shell
    Health(HealthArgs),
}

/// Flags of `demo sidecar-logs`.
#[derive(Args, Debug)]
pub struct SidecarLogsArgs {
    /// The log file to follow
    #[arg(long, env = "LOG_PATH", default_value = "/var/log/app/app.log")]
    log_path: PathBuf,
    /// File that keeps the position over restarts
    #[arg(long, env = "STATE_PATH", default_value = "/var/lib/sidecar/position.json")]
    state_path: PathBuf,
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    identity: IdentityArgs,
    /// Tag of the chunks [default: app.SERVICE_NAME]
    #[arg(long, env = "FORWARD_TAG")]
    tag: Option<String>,
    /// Replace the connection after this time, for an even load behind a balancer [default: never]
    #[arg(long, env = "RECONNECT_INTERVAL", value_parser = duration)]
    reconnect_interval: Option<Duration>,
    /// Time between two looks at the file
    #[arg(long, env = "POLL_INTERVAL", default_value = "200ms", value_parser = duration)]
    poll: Duration,
    /// How long a rotated file is still watched after its last growth
    #[arg(long, env = "ROTATE_WAIT", default_value = "30s", value_parser = duration)]
    rotate_wait: Duration,
    /// How long to go on delivering after SIGTERM
    #[arg(long, env = "STOP_GRACE", default_value = "5s", value_parser = duration)]
    stop_grace: Duration,
    /// Port for /health and /metrics of the sidecar itself; 0 takes a free one [default: none]
    #[arg(long, env = "SIDECAR_PORT")]
    port: Option<u16>,
    /// Address for /health and /metrics
    #[arg(long, env = "SIDECAR_HOST", default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED))]
    host: IpAddr,
}

/// Flags of `demo showcase`.
#[derive(Args, Debug)]
pub struct ShowcaseArgs {
    /// The Windrow program
    #[arg(long, value_name = "FILE", default_value = "windrow")]
    windrow: PathBuf,
    #[command(flatten)]
    options: showcase::Options,
}

/// Flags of `demo health`.
#[derive(Args, Debug)]
pub struct HealthArgs {
    /// Address of the page
    url: String,
    /// How long to wait for the answer
    #[arg(long, default_value = "3s", value_parser = duration)]
    timeout: Duration,
}

/// Flags of whoever sends records: the logging sidecar, and a service with --direct.
#[derive(Args)]
pub struct TargetArgs {
    /// Address of Windrow or any Forward server: host:port or tls://host:port; several with commas between
    #[arg(long, env = "WINDROW_ADDR", default_value = "127.0.0.1:24224")]
    windrow_addr: String,
    /// The key that the server shares with its clients; better in the environment, where `ps` does not show it
    #[arg(long, env = "SHARED_KEY", hide_env_values = true)]
    shared_key: Option<String>,
    /// User, where the server asks for one
    #[arg(long, env = "FORWARD_USER", requires = "password")]
    user: Option<String>,
    /// The user's password
    #[arg(long, env = "FORWARD_PASSWORD", hide_env_values = true, requires = "user")]
    password: Option<String>,
    /// With tls://: PEM file of the authorities to trust [default: those of the system]
    #[arg(long, env = "CA_FILE")]
    ca_file: Option<PathBuf>,
    /// With tls://: PEM file of the client's certificate, where the server asks for one
    #[arg(long, env = "CLIENT_CERT", requires = "client_key")]
    client_cert: Option<PathBuf>,
    /// PEM file of the certificate's key
    #[arg(long, env = "CLIENT_KEY", requires = "client_cert")]
    client_key: Option<PathBuf>,
}

impl TargetArgs {
    fn into_target(self, reconnect_interval: Option<Duration>) -> Target {
        Target {
            address: self.windrow_addr,
            reconnect_interval,
            shared_key: self.shared_key,
            user: self.user.zip(self.password),
            ca_file: self.ca_file,
            client_cert: self.client_cert.zip(self.client_key),
        }
    }
}

impl std::fmt::Debug for TargetArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without key and password.
        f.debug_struct("TargetArgs")
            .field("windrow_addr", &self.windrow_addr)
            .finish_non_exhaustive()
    }
}

/// Flags that both sidecars share.
#[derive(Args, Debug)]
pub struct IdentityArgs {
    /// Value of service_name
    #[arg(long, env = "SERVICE_NAME")]
    service_name: String,
    /// Value of environment
    #[arg(long, env = "ENVIRONMENT", default_value = "development")]
    environment: String,
}

/// Flags of `demo sidecar-metrics`.
#[derive(Args, Debug)]
pub struct SidecarMetricsArgs {
    /// The application's metrics page
    #[arg(
        long,
        env = "APP_METRICS_URL",
        default_value = "http://localhost:8080/metrics"
    )]
    app_metrics_url: String,
    #[command(flatten)]
    identity: IdentityArgs,
    /// Port to serve the metrics on; 0 takes a free one
    #[arg(long, env = "METRICS_PORT", default_value_t = 9100)]
    port: u16,
    /// Address to serve the metrics on
    #[arg(long, env = "METRICS_HOST", default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED))]
    host: IpAddr,
    /// Time from one scrape to the next
    #[arg(long, env = "SCRAPE_INTERVAL", default_value = "5s", value_parser = duration)]
    interval: Duration,
    /// Time that a scrape may take; at most the interval
    #[arg(long, env = "SCRAPE_TIMEOUT", default_value = "3s", value_parser = duration)]
    timeout: Duration,
}

impl From<IdentityArgs> for sidecar::Identity {
    fn from(args: IdentityArgs) -> Self {
        Self {
            service_name: args.service_name,
            environment: args.environment,
        }
    }
}

/// Flags of `demo server`.
#[derive(Args, Debug)]
pub struct ServerArgs {
    /// Port to listen on; 0 takes a free one
    #[arg(long, env = "SERVER_PORT", default_value_t = 8080)]
    port: u16,
    /// Address to listen on
    #[arg(long, env = "SERVER_HOST", default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED))]
    host: IpAddr,
    /// File for the JSON log lines
    #[arg(long, env = "SERVER_LOG_PATH", default_value = "/var/log/app/app.log")]
    log_path: PathBuf,
    /// How long requests in flight may take after SIGTERM
    #[arg(long, env = "SERVER_SHUTDOWN_TIMEOUT", default_value = "10s", value_parser = duration)]
    shutdown_timeout: Duration,
}

/// Flags of `demo client`.
#[derive(Args, Debug)]
pub struct ClientArgs {
    /// Address to send the requests to
    #[arg(
        long,
        env = "CLIENT_TARGET_URL",
        default_value = "http://localhost:8080/hello"
    )]
    target: String,
    /// Number of requests; 0 goes on until stopped
    #[arg(long, env = "CLIENT_COUNT", default_value_t = 20)]
    count: u64,
    /// Requests under way at once
    #[arg(long, env = "CLIENT_CONCURRENCY", default_value_t = 3, value_parser = at_least_one)]
    concurrency: usize,
    /// Time from the start of one request to the start of the next
    #[arg(long, env = "CLIENT_INTERVAL", default_value = "300ms", value_parser = duration)]
    interval: Duration,
    /// Time that one attempt may take
    #[arg(long, env = "CLIENT_TIMEOUT", default_value = "3s", value_parser = duration)]
    timeout: Duration,
    /// Further attempts after a network error, 429 or 5xx
    #[arg(long, env = "CLIENT_MAX_RETRIES", default_value_t = 3)]
    retries: u32,
}

/// Flags of `demo service`.
#[derive(Args, Debug)]
pub struct ServiceArgs {
    /// Its name: user, product, order, or any other together with --port
    #[arg(env = "SERVICE_NAME")]
    name: String,
    /// Port to listen on; 0 takes a free one [default: 3000, 3002 or 3003 by the name]
    #[arg(long, env = "SERVICE_PORT")]
    port: Option<u16>,
    /// Address to listen on
    #[arg(long, env = "SERVICE_HOST", default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED))]
    host: IpAddr,
    /// File for the JSON log lines
    #[arg(long, env = "SERVICE_LOG_PATH", default_value = "/var/log/app/app.log")]
    log_path: PathBuf,
    /// Services that each request calls with its trace id [default for order: user and product on this machine]
    #[arg(long, env = "SERVICE_CALLS", value_delimiter = ',', num_args = 0..)]
    calls: Option<Vec<String>>,
    /// Log to Windrow directly instead of to a file: asynchronous, acknowledged, reconnecting
    #[arg(long, env = "SERVICE_DIRECT")]
    direct: bool,
    #[command(flatten)]
    target: TargetArgs,
    /// With --direct: replace the connection after this time, for an even load behind a balancer
    #[arg(long, env = "RECONNECT_INTERVAL", default_value = "10s", value_parser = duration)]
    reconnect_interval: Duration,
    /// With --direct: value of environment on each record
    #[arg(long, env = "ENVIRONMENT", default_value = "development")]
    environment: String,
    /// How long requests in flight may take after SIGTERM
    #[arg(long, env = "SERVICE_SHUTDOWN_TIMEOUT", default_value = "10s", value_parser = duration)]
    shutdown_timeout: Duration,
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
/// Whatever ends the part before its time.
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

/// Where the service logs to, also in words.
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

/// One line on standard output once requests are taken, with the port that was really opened.
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

/// `10s`, `300ms`, `1m30s`.
fn duration(text: &str) -> Result<Duration, String> {
    let signed: jiff::SignedDuration = text
        .parse()
        .map_err(|_| "give a number with its unit, as 300ms, 10s or 1m30s")?;
    Duration::try_from(signed).map_err(|_| "must not be negative".to_owned())
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err("must be a whole number from 1 up".to_owned()),
    }
}

/// Turns `-target` into `--target` for the long flags of the chosen part; everything else stays as it is.
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
mod tests {
    use super::*;

    fn client(arguments: &[&str]) -> Result<ClientArgs, clap::Error> {
        let all = ["demo", "client"].iter().chain(arguments).map(OsString::from);
        match try_parse(all)?.command {
            Command::Client(args) => Ok(args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_definitions_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn defaults_of_the_scene() {
        let args = client(&[]).unwrap();
        assert_eq!(args.target, "http://localhost:8080/hello");
        assert_eq!((args.count, args.concurrency, args.retries), (20, 3, 3));
        assert_eq!(
            (args.interval, args.timeout),
            (Duration::from_millis(300), Duration::from_secs(3))
        );
    }

    #[test]
    fn one_dash_and_two_dashes_and_equals_signs_mean_the_same() {
        for arguments in [
            ["-target", "http://x/hello", "-count", "7"].as_slice(),
            &["--target", "http://x/hello", "--count", "7"],
            &["-target=http://x/hello", "--count=7"],
        ] {
            let args = client(arguments).unwrap();
            assert_eq!(
                (args.target.as_str(), args.count),
                ("http://x/hello", 7),
                "{arguments:?}"
            );
        }
    }

    #[test]
    fn what_is_wrong_is_refused() {
        assert!(client(&["-concurrency", "0"]).is_err());
        assert!(client(&["-interval", "300"]).is_err());
        assert!(client(&["-interval", "-3s"]).is_err());
        assert!(client(&["-tarket", "x"]).is_err());
    }

    #[test]
    fn durations() {
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert!(duration("soon").is_err());
    }
}
