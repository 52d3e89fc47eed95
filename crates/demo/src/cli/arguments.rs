//! Flags of each part with their environment variables and defaults. Starts no part.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    time::Duration,
};

use clap::Args;

use crate::{forward::Target, showcase, sidecar};

/// Flags of `demo sidecar-logs`.
#[derive(Args, Debug)]
pub struct SidecarLogsArgs {
    /// The log file to follow
    #[arg(long, env = "LOG_PATH", default_value = "/var/log/app/app.log")]
    pub(super) log_path: PathBuf,
    /// File that keeps the position over restarts
    #[arg(long, env = "STATE_PATH", default_value = "/var/lib/sidecar/position.json")]
    pub(super) state_path: PathBuf,
    #[command(flatten)]
    pub(super) target: TargetArgs,
    #[command(flatten)]
    pub(super) identity: IdentityArgs,
    /// Tag of the chunks [default: app.SERVICE_NAME]
    #[arg(long, env = "FORWARD_TAG")]
    pub(super) tag: Option<String>,
    /// Replace the connection after this time, for an even load behind a balancer [default: never]
    #[arg(long, env = "RECONNECT_INTERVAL", value_parser = duration)]
    pub(super) reconnect_interval: Option<Duration>,
    /// Time between two polls of the file
    #[arg(long, env = "POLL_INTERVAL", default_value = "200ms", value_parser = duration)]
    pub(super) poll: Duration,
    /// How long a rotated file is still watched after its last growth
    #[arg(long, env = "ROTATE_WAIT", default_value = "30s", value_parser = duration)]
    pub(super) rotate_wait: Duration,
    /// How long to go on delivering after SIGTERM
    #[arg(long, env = "STOP_GRACE", default_value = "5s", value_parser = duration)]
    pub(super) stop_grace: Duration,
    /// Port for /health and /metrics of the sidecar itself; 0 takes a free one [default: none]
    #[arg(long, env = "SIDECAR_PORT")]
    pub(super) port: Option<u16>,
    /// Address for /health and /metrics
    #[arg(long, env = "SIDECAR_HOST", default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED))]
    pub(super) host: IpAddr,
}

/// Flags of `demo showcase`.
#[derive(Args, Debug)]
pub struct ShowcaseArgs {
    /// The Windrow program
    #[arg(long, value_name = "FILE", default_value = "windrow")]
    pub(super) windrow: PathBuf,
    #[command(flatten)]
    pub(super) options: showcase::Options,
}

/// Flags of `demo health`.
#[derive(Args, Debug)]
pub struct HealthArgs {
    /// Address of the page
    pub(super) url: String,
    /// How long to wait for the answer
    #[arg(long, default_value = "3s", value_parser = duration)]
    pub(super) timeout: Duration,
}

/// Flags of parts that send records: the logging sidecar, and a service with --direct.
#[derive(Args)]
pub(super) struct TargetArgs {
    /// Address of Windrow or any Forward server: host:port or tls://host:port; several with commas
    /// between
    #[arg(long, env = "WINDROW_ADDR", default_value = "127.0.0.1:24224")]
    pub(super) windrow_addr: String,
    /// The key that the server shares with its clients; better in the environment, where `ps` does
    /// not show it
    #[arg(long, env = "SHARED_KEY", hide_env_values = true)]
    pub(super) shared_key: Option<String>,
    /// User, where the server asks for one
    #[arg(long, env = "FORWARD_USER", requires = "password")]
    pub(super) user: Option<String>,
    /// The user's password
    #[arg(long, env = "FORWARD_PASSWORD", hide_env_values = true, requires = "user")]
    pub(super) password: Option<String>,
    /// With tls://: PEM file of the authorities to trust [default: those of the system]
    #[arg(long, env = "CA_FILE")]
    pub(super) ca_file: Option<PathBuf>,
    /// With tls://: PEM file of the client's certificate, where the server asks for one
    #[arg(long, env = "CLIENT_CERT", requires = "client_key")]
    pub(super) client_cert: Option<PathBuf>,
    /// PEM file of the certificate's key
    #[arg(long, env = "CLIENT_KEY", requires = "client_cert")]
    pub(super) client_key: Option<PathBuf>,
}

impl TargetArgs {
    pub(super) fn into_target(self, reconnect_interval: Option<Duration>) -> Target {
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
pub(super) struct IdentityArgs {
    /// Value of service_name
    #[arg(long, env = "SERVICE_NAME")]
    pub(super) service_name: String,
    /// Value of environment
    #[arg(long, env = "ENVIRONMENT", default_value = "development")]
    pub(super) environment: String,
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
    pub(super) app_metrics_url: String,
    #[command(flatten)]
    pub(super) identity: IdentityArgs,
    /// Port to serve the metrics on; 0 takes a free one
    #[arg(long, env = "METRICS_PORT", default_value_t = 9100)]
    pub(super) port: u16,
    /// Address to serve the metrics on
    #[arg(long, env = "METRICS_HOST", default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED))]
    pub(super) host: IpAddr,
    /// Time from one scrape to the next
    #[arg(long, env = "SCRAPE_INTERVAL", default_value = "5s", value_parser = duration)]
    pub(super) interval: Duration,
    /// Time that a scrape may take; at most the interval
    #[arg(long, env = "SCRAPE_TIMEOUT", default_value = "3s", value_parser = duration)]
    pub(super) timeout: Duration,
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
    pub(super) port: u16,
    /// Address to listen on
    #[arg(long, env = "SERVER_HOST", default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED))]
    pub(super) host: IpAddr,
    /// File for the JSON log lines
    #[arg(long, env = "SERVER_LOG_PATH", default_value = "/var/log/app/app.log")]
    pub(super) log_path: PathBuf,
    /// How long requests in flight may take after SIGTERM
    #[arg(long, env = "SERVER_SHUTDOWN_TIMEOUT", default_value = "10s", value_parser = duration)]
    pub(super) shutdown_timeout: Duration,
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
    pub(super) target: String,
    /// Number of requests; 0 goes on until stopped
    #[arg(long, env = "CLIENT_COUNT", default_value_t = 20)]
    pub(super) count: u64,
    /// Requests under way at once
    #[arg(long, env = "CLIENT_CONCURRENCY", default_value_t = 3, value_parser = at_least_one)]
    pub(super) concurrency: usize,
    /// Time from the start of one request to the start of the next
    #[arg(long, env = "CLIENT_INTERVAL", default_value = "300ms", value_parser = duration)]
    pub(super) interval: Duration,
    /// Time that one attempt may take
    #[arg(long, env = "CLIENT_TIMEOUT", default_value = "3s", value_parser = duration)]
    pub(super) timeout: Duration,
    /// Further attempts after a network error, 429 or 5xx
    #[arg(long, env = "CLIENT_MAX_RETRIES", default_value_t = 3)]
    pub(super) retries: u32,
}

/// Flags of `demo service`.
#[derive(Args, Debug)]
pub struct ServiceArgs {
    /// Its name: user, product, order, or any other together with --port
    #[arg(env = "SERVICE_NAME")]
    pub(super) name: String,
    /// Port to listen on; 0 takes a free one [default: 3000, 3002 or 3003 by the name]
    #[arg(long, env = "SERVICE_PORT")]
    pub(super) port: Option<u16>,
    /// Address to listen on
    #[arg(long, env = "SERVICE_HOST", default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED))]
    pub(super) host: IpAddr,
    /// File for the JSON log lines
    #[arg(long, env = "SERVICE_LOG_PATH", default_value = "/var/log/app/app.log")]
    pub(super) log_path: PathBuf,
    /// Services that each request calls with its trace id [default for order: user and product on
    /// this machine]
    #[arg(long, env = "SERVICE_CALLS", value_delimiter = ',', num_args = 0..)]
    pub(super) calls: Option<Vec<String>>,
    /// Log to Windrow directly instead of to a file: asynchronous, acknowledged, reconnecting
    #[arg(long, env = "SERVICE_DIRECT")]
    pub(super) direct: bool,
    #[command(flatten)]
    pub(super) target: TargetArgs,
    /// With --direct: replace the connection after this time, for an even load behind a balancer
    #[arg(long, env = "RECONNECT_INTERVAL", default_value = "10s", value_parser = duration)]
    pub(super) reconnect_interval: Duration,
    /// With --direct: value of environment on each record
    #[arg(long, env = "ENVIRONMENT", default_value = "development")]
    pub(super) environment: String,
    /// How long requests in flight may take after SIGTERM
    #[arg(long, env = "SERVICE_SHUTDOWN_TIMEOUT", default_value = "10s", value_parser = duration)]
    pub(super) shutdown_timeout: Duration,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert!(duration("soon").is_err());
    }
}
