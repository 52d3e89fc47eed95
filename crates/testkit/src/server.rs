//! The real `windrow` binary as a process: start, SIGKILL, SIGTERM, restart on the same data folder
//! and ports, and its admin API.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::check::Stored;
use crate::disk::SmallDisk;
use crate::http::{self, Answer};
use crate::process::Process;
use crate::{ports, sqlite, wait};

/// Time for a start: a debug build on a busy machine that replays a journal.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// How to start a server.
#[derive(Debug)]
pub struct Setup {
    binary: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    data: Option<PathBuf>,
    /// Arguments before the binary on the command line.
    before: Vec<String>,
    /// Address for Forward; `None`: a free one.
    forward: Option<SocketAddr>,
}

impl Setup {
    /// For the binary at `path`: `env!("CARGO_BIN_EXE_windrow")` in tests of the root package.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            binary: path.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            data: None,
            before: Vec::new(),
            forward: None,
        }
    }

    /// A flag without a value.
    #[must_use]
    pub fn flag(mut self, name: &str) -> Self {
        self.arguments.push(name.to_owned());
        self
    }

    /// A flag with its value.
    #[must_use]
    pub fn arg(mut self, name: &str, value: impl Into<String>) -> Self {
        self.arguments.extend([name.to_owned(), value.into()]);
        self
    }

    /// An environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// This port for Forward, which others have to know before the start.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.forward = Some(local(port));
        self
    }

    /// This address for Forward.
    #[must_use]
    pub fn at(mut self, address: SocketAddr) -> Self {
        self.forward = Some(address);
        self
    }

    /// Behind these words on the command line.
    #[must_use]
    pub fn under(mut self, words: &[String]) -> Self {
        self.before = words.to_vec();
        self
    }

    /// A data folder of the caller's instead of a temporary one.
    #[must_use]
    pub fn data(mut self, folder: impl Into<PathBuf>) -> Self {
        self.data = Some(folder.into());
        self
    }

    /// Keeps its data on this disk, which only the server sees.
    #[must_use]
    pub fn on(mut self, disk: &SmallDisk) -> Self {
        self.before = disk.enter().to_vec();
        self.data(disk.inside().join("data"))
    }

    /// SQLite as the output, with short sealing times.
    #[must_use]
    pub fn sqlite(self) -> Self {
        self.arg("--output", "sqlite").arg("--linger", "200ms")
    }

    /// Elasticsearch as the output, with short sealing times; indices are called `PREFIX-2026-11-21` and so on.
    #[must_use]
    pub fn elasticsearch(self, url: &str, prefix: &str) -> Self {
        self.arg("--output", "elasticsearch")
            .arg("--elasticsearch-url", url)
            .arg("--index", format!("{prefix}-%Y-%m-%d"))
            .arg("--linger", "200ms")
    }

    fn command(&self) -> Command {
        let mut words = self
            .before
            .iter()
            .map(OsStr::new)
            .chain([self.binary.as_os_str()]);
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words);
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("WINDROW_") || text.starts_with("ELASTICSEARCH_") {
                command.env_remove(&name);
            }
        }
        command.arg("serve").args(&self.arguments);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Starts it on free ports and waits until it listens.
    ///
    /// # Panics
    /// When it ends before.
    #[track_caller]
    pub fn start(self) -> Server {
        let temporary = self
            .data
            .is_none()
            .then(|| tempfile::tempdir().expect("a temporary folder"));
        let data = match (&self.data, &temporary) {
            (Some(folder), _) => folder.clone(),
            (None, Some(folder)) => folder.path().join("data"),
            (None, None) => unreachable!("one of both is there"),
        };
        let forward = self.forward.unwrap_or_else(|| local(ports::free()));
        let admin = local(ports::free());
        let mut server = Server {
            setup: self,
            data,
            forward,
            admin,
            process: None,
            _temporary: temporary,
        };
        server.start_again();
        server
    }

    /// Runs it with settings that must make it fail; returns its exit status and its output.
    ///
    /// # Panics
    /// When it does not end within a minute.
    #[track_caller]
    pub fn refused(self) -> (ExitStatus, String) {
        let mut command = self.command();
        if let Some(folder) = &self.data {
            command.arg("--data-dir").arg(folder);
        }
        let mut process = Process::start("windrow", &mut command);
        let status = process.wait(START_TIMEOUT);
        let said = process
            .stdout()
            .into_iter()
            .chain(process.stderr())
            .collect::<Vec<_>>()
            .join("\n");
        (status, said)
    }
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// A running server. Dropping it kills it.
#[derive(Debug)]
pub struct Server {
    setup: Setup,
    data: PathBuf,
    forward: SocketAddr,
    admin: SocketAddr,
    process: Option<Process>,
    _temporary: Option<TempDir>,
}

impl Server {
    /// Address for Forward.
    pub fn forward(&self) -> SocketAddr {
        self.forward
    }

    /// `http://127.0.0.1:PORT` of the admin port.
    pub fn admin(&self) -> String {
        format!("http://{}", self.admin)
    }

    /// Its data folder.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The process.
    ///
    /// # Panics
    /// While it is down.
    #[track_caller]
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the server is down")
    }

    /// Kills it with SIGKILL.
    ///
    /// # Panics
    /// When it had ended by itself before.
    #[track_caller]
    pub fn kill(&mut self) {
        let mut process = self.process.take().expect("the server is down");
        if let Some(status) = process.poll() {
            panic!(
                "the server had ended by itself ({status})\n{}",
                process.last_words(60)
            );
        }
        process.kill();
    }

    /// Sends SIGTERM and waits for its end.
    ///
    /// # Panics
    /// When `limit` passes.
    #[track_caller]
    pub fn terminate(&mut self, limit: Duration) -> ExitStatus {
        let mut process = self.process.take().expect("the server is down");
        process.signal(Signal::TERM);
        process.wait(limit)
    }

    /// Starts it with the same arguments, data folder and ports, and waits until it listens.
    ///
    /// # Panics
    /// When it ends before.
    #[track_caller]
    pub fn start_again(&mut self) {
        assert!(self.process.is_none(), "the server still runs");
        let mut command = self.setup.command();
        command
            .args([
                "--listen",
                &self.forward.to_string(),
                "--admin",
                &self.admin.to_string(),
                "--data-dir",
            ])
            .arg(&self.data);
        let mut process = Process::start("windrow", &mut command);
        let address = |line: &str, what: &str| -> Option<SocketAddr> {
            line.strip_prefix(what)?
                .trim_start_matches("http://")
                .parse()
                .ok()
        };
        self.forward = process.line("its listen line", START_TIMEOUT, |line| {
            address(line, "forward listening on ")
        });
        self.admin = process.line("its admin line", START_TIMEOUT, |line| {
            address(line, "admin listening on ")
        });
        self.process = Some(process);
    }

    /// Kills it with SIGKILL and starts it again.
    #[track_caller]
    pub fn crash(&mut self) {
        self.kill();
        self.start_again();
    }

    /// GET on the admin port.
    ///
    /// # Panics
    /// When no answer comes.
    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        match http::get(&format!("{}{path}", self.admin())) {
            Ok(answer) => answer,
            Err(error) => {
                let words = self
                    .process
                    .as_ref()
                    .map(|process| process.last_words(40))
                    .unwrap_or_default();
                panic!("{error}\n{words}")
            }
        }
    }

    /// Waits until `/ready` answers 200.
    ///
    /// # Panics
    /// After a minute, with the last answer.
    #[track_caller]
    pub fn wait_ready(&self) {
        wait::until("/ready", START_TIMEOUT, || {
            let answer = self.get("/ready");
            if answer.status == 200 {
                Ok(())
            } else {
                Err(format!("{} {}", answer.status, answer.text))
            }
        });
    }

    /// The documents that `/logs?QUERY` lists.
    ///
    /// # Panics
    /// When the answer is no list of JSON objects, as an array or inside an object's `logs` or
    /// `documents`.
    #[track_caller]
    pub fn logs(&self, query: &str) -> Vec<Value> {
        let answer = self.get(&format!("/logs?{query}"));
        assert_eq!(answer.status, 200, "/logs?{query}: {}", answer.text);
        let body = answer.json();
        let list = [&body, &body["logs"], &body["documents"]]
            .into_iter()
            .find_map(Value::as_array);
        list.cloned()
            .unwrap_or_else(|| panic!("/logs?{query} is no list: {}", answer.text))
    }

    /// All documents in the embedded store.
    #[track_caller]
    pub fn stored(&self) -> Vec<Stored> {
        sqlite::documents(&self.data.join("windrow.db"))
    }

    /// All samples of `/metrics`: name with labels as written, value.
    ///
    /// # Panics
    /// When a line is not a sample.
    #[track_caller]
    pub fn metrics(&self) -> BTreeMap<String, f64> {
        samples(&self.get("/metrics").text)
    }

    /// The sum of all samples of one metric over its labels; 0 when there is none.
    #[track_caller]
    pub fn metric(&self, name: &str) -> f64 {
        let labelled = format!("{name}{{");
        // The fold begins with a positive zero; an empty sum() is -0.
        self.metrics()
            .iter()
            .filter(|(sample, _)| *sample == name || sample.starts_with(&labelled))
            .fold(0.0, |sum, (_, value)| sum + value)
    }
}

impl Drop for Server {
    /// Shows the end of the server's log when the test fails.
    fn drop(&mut self) {
        if let Some(process) = self.process.as_mut().filter(|_| std::thread::panicking()) {
            let state = process
                .poll()
                .map_or_else(|| "still ran".to_owned(), |status| format!("had ended: {status}"));
            eprintln!("the server {state}\n{}", process.last_words(40));
        }
    }
}

/// The samples of Prometheus text.
///
/// # Panics
/// When a line is not a sample.
#[track_caller]
pub fn samples(text: &str) -> BTreeMap<String, f64> {
    text.lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let (name, value) = line
                .rsplit_once(' ')
                .unwrap_or_else(|| panic!("no sample: {line}"));
            let value = value
                .parse()
                .unwrap_or_else(|error| panic!("no number in {line}: {error}"));
            (name.to_owned(), value)
        })
        .collect()
}
