//! Measured servers as child processes: this program as the baseline server or as `serve`, and
//! Fluent Bit where it is installed. Owns their start and their end.

use std::collections::VecDeque;
use std::io::{self, Error};
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::{sleep, timeout};

/// Time for a start: a large journal is read, on a slow disk too.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// How long completed traces wait for stragglers in the measured server, as an argument.
pub(super) const LINGER: &str = "200ms";

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum System {
    /// The baseline server: the same I/O and no decoding.
    Baseline,
    /// `windrow serve` with the Elasticsearch output.
    Windrow,
    /// `windrow serve` with the embedded database.
    Sqlite,
    /// Fluent Bit, which receives and discards.
    FluentBit,
}

/// How a server is started.
#[derive(Debug)]
pub(super) struct Setup<'a> {
    /// Which server.
    pub(super) system: System,
    /// Address of the store.
    pub(super) store: SocketAddr,
    /// The folder for its data.
    pub(super) folder: &'a Path,
    /// Further arguments of `serve`.
    pub(super) arguments: &'a [&'a str],
    /// The program of Fluent Bit.
    pub(super) fluent_bit: Option<&'a Path>,
}

/// A running server.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    /// Process id.
    pub(super) pid: u32,
    /// Address for Forward.
    pub(super) forward: SocketAddr,
    /// Address of the admin port.
    pub(super) admin: Option<SocketAddr>,
    /// From the start of the process until it was ready.
    pub(super) start: Duration,
}

impl Server {
    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// When it cannot start, or is not ready in time; with the end of its log.
    pub(super) async fn start(setup: &Setup<'_>) -> io::Result<Self> {
        let log = setup.folder.join("log");
        let started = Self::try_start(setup, &log).await;
        started.map_err(|error| {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            let mut last: VecDeque<&str> = text.lines().collect();
            last.drain(..last.len().saturating_sub(5));
            let last = Vec::from(last).join("\n");
            Error::new(
                error.kind(),
                format!("the server to be measured did not start: {error}\n{last}"),
            )
        })
    }

    async fn try_start(setup: &Setup<'_>, log: &Path) -> io::Result<Self> {
        // Fluent Bit does not print its port.
        let port = match setup.system {
            System::FluentBit => Some(StdListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port()),
            _ => None,
        };
        let mut command = command(setup, port)?;
        let began = Instant::now();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(log)?)
            .kill_on_drop(true)
            .spawn()?;
        let pid = child.id().ok_or_else(|| Error::other("the process has ended"))?;
        let mut stdout = BufReader::new(child.stdout.take().ok_or_else(|| Error::other("no output"))?);
        let (forward, admin) = match port {
            Some(port) => (SocketAddr::from((Ipv4Addr::LOCALHOST, port)), None),
            None => timeout(START_TIMEOUT, addresses(&mut stdout, setup.system))
                .await
                .map_err(|_| late("did not say where it listens"))??,
        };
        // Reads on, or the server would block on a full pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = line(&mut stdout).await {} });
        let mut server = Self {
            child,
            pid,
            forward,
            admin,
            start: Duration::ZERO,
        };
        server.ready(began).await?;
        server.start = began.elapsed();
        Ok(server)
    }

    async fn ready(&mut self, began: Instant) -> io::Result<()> {
        loop {
            let ready = match self.admin {
                Some(admin) => get(admin, "/ready").await.is_ok_and(|(status, _)| status == 200),
                None => TcpStream::connect(self.forward).await.is_ok(),
            };
            if ready {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                return Err(Error::other(format!("it ended: {status}")));
            }
            if began.elapsed() > START_TIMEOUT {
                return Err(late("was not ready"));
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Records delivered, by the server's own counter.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub(super) async fn delivered(&self) -> io::Result<u64> {
        let admin = self.admin.ok_or_else(|| Error::other("it has no admin port"))?;
        let (_, metrics) = get(admin, "/metrics").await?;
        let value = metrics
            .lines()
            .find_map(|line| line.strip_prefix("windrow_records_delivered_total "));
        let value = value.and_then(|value| value.trim().parse().ok());
        value.ok_or_else(|| Error::other("the metrics have no windrow_records_delivered_total"))
    }

    /// Kills it with SIGKILL.
    ///
    /// # Errors
    /// When that fails.
    pub(super) async fn kill(mut self) -> io::Result<()> {
        self.child.kill().await
    }
}

fn late(what: &str) -> Error {
    Error::new(
        io::ErrorKind::TimedOut,
        format!("it {what} within {} s", START_TIMEOUT.as_secs()),
    )
}

fn command(setup: &Setup<'_>, port: Option<u16>) -> io::Result<Command> {
    let own = || std::env::current_exe().map(Command::new);
    let mut command = match setup.system {
        System::FluentBit => {
            let program = setup.fluent_bit.ok_or_else(|| Error::other("no fluent-bit"))?;
            let mut command = Command::new(program);
            command.args(["-q", "-f", "0.2", "-i", "forward", "-p", "listen=127.0.0.1"]);
            command.args(["-p".to_owned(), format!("port={}", port.unwrap_or(0))]);
            command.args([
                "-p",
                "buffer_chunk_size=1M",
                "-p",
                "buffer_max_size=64M",
                "-p",
                "mem_buf_limit=512M",
            ]);
            command.args(["-o", "null", "-m", "*"]);
            command
        }
        System::Baseline => {
            let mut command = own()?;
            command.args(["bench-floor", "--store", &setup.store.to_string(), "--file"]);
            command.arg(setup.folder.join("baseline"));
            command
        }
        System::Windrow | System::Sqlite => {
            let mut command = own()?;
            command.args([
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--admin",
                "127.0.0.1:0",
                "--linger",
                LINGER,
            ]);
            command.arg("--data-dir").arg(setup.folder.join("data"));
            if setup.system == System::Windrow {
                let url = format!("http://{}", setup.store);
                command.args(["--output", "elasticsearch", "--elasticsearch-url", &url]);
            } else {
                command.args(["--output", "sqlite"]);
            }
            command.args(setup.arguments);
            command
        }
    };
    // A windrow.toml in the current folder is not for the measured server.
    command.current_dir(setup.folder);
    // Nor are the settings of a real Windrow in the environment.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("WINDROW_") || text.starts_with("ELASTICSEARCH_") {
            command.env_remove(&name);
        }
    }
    Ok(command)
}

/// Addresses that a server prints: Forward, and the admin port unless it is the baseline server.
async fn addresses(
    stdout: &mut BufReader<ChildStdout>,
    system: System,
) -> io::Result<(SocketAddr, Option<SocketAddr>)> {
    let (mut forward, mut admin) = (None, None);
    loop {
        let line = line(stdout)
            .await?
            .ok_or_else(|| Error::other("it ended at once"))?;
        if let Some(address) = line.strip_prefix("forward listening on ") {
            forward = Some(address.trim().parse().map_err(Error::other)?);
        }
        if let Some(address) = line.strip_prefix("admin listening on http://") {
            admin = Some(
                address
                    .trim()
                    .trim_end_matches('/')
                    .parse()
                    .map_err(Error::other)?,
            );
        }
        if let Some(forward) = forward
            && (admin.is_some() || system == System::Baseline)
        {
            return Ok((forward, admin));
        }
    }
}

async fn line(stdout: &mut BufReader<ChildStdout>) -> io::Result<Option<String>> {
    let mut line = String::new();
    Ok((stdout.read_line(&mut line).await? > 0).then_some(line))
}

/// Requests `path` from an admin port; returns the status and the whole answer.
pub(super) async fn get(admin: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(admin).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    timeout(Duration::from_secs(10), stream.read_to_string(&mut answer))
        .await
        .map_err(|_| late("did not answer"))??;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| Error::other("the answer of the admin port is not HTTP"))?;
    Ok((status, answer))
}

/// The program of this name: a path, or the first one on PATH.
pub(super) fn find(program: &Path) -> Option<PathBuf> {
    if program.components().count() > 1 {
        return program.is_file().then(|| program.to_owned());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}
