//! Real Windrow, and the demo's programs, as processes for tests.
//!
//! Windrow is `WINDROW_BIN`, else `windrow` in the folder where cargo has put `demo`. Without
//! either the test says `SKIPPED`.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::{
    env,
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

/// The program, or a visible line why the test does nothing.
pub(crate) fn windrow(what: &str) -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_BIN_EXE_demo")).with_file_name("windrow");
    let found = match env::var_os("WINDROW_BIN").filter(|named| !named.is_empty()) {
        Some(named) => Some(PathBuf::from(named)),
        None => Some(beside).filter(|file| file.is_file()),
    };
    if found.is_none() {
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: {what}: build windrow first, or set WINDROW_BIN"
        );
    }
    found
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// A child that dies with the test.
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn start(program: &Path, arguments: &[&str], variables: &[(&str, &str)], log: &Path) -> Self {
        let log = File::options().create(true).append(true).open(log).unwrap();
        let child = Command::new(program)
            .args(arguments)
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Self(child)
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// SIGTERM; the exit code.
    pub(crate) fn terminate(&mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "it does not stop");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A Windrow with the embedded store that can be killed and started again.
pub(crate) struct Windrow {
    program: PathBuf,
    folder: PathBuf,
    more: Vec<String>,
    pub(crate) forward: String,
    pub(crate) admin: String,
    child: Option<Child>,
}

impl Windrow {
    pub(crate) fn start(program: &Path, folder: &Path, more: &[&str]) -> Self {
        let mut windrow = Self {
            program: program.to_owned(),
            folder: folder.to_owned(),
            more: more.iter().map(|&argument| argument.to_owned()).collect(),
            forward: "127.0.0.1:0".to_owned(),
            admin: "http://127.0.0.1:0".to_owned(),
            child: None,
        };
        windrow.start_again();
        windrow
    }

    pub(crate) fn start_again(&mut self) {
        fs::create_dir_all(&self.folder).unwrap();
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.folder.join("windrow.log"))
            .unwrap();
        let mut child = Command::new(&self.program)
            .args([
                "serve",
                "--listen",
                &self.forward,
                "--admin",
                self.admin.trim_start_matches("http://"),
            ])
            .args(["--data-dir".as_ref(), self.folder.join("data").as_os_str()])
            .args(&self.more)
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut address = |prefix: &str| {
            let line = lines.next().expect("windrow ended before it listened").unwrap();
            line.strip_prefix(prefix)
                .unwrap_or_else(|| panic!("{line}"))
                .to_owned()
        };
        self.forward = address("forward listening on ");
        self.admin = address("admin listening on ");
        self.child = Some(child);
        std::thread::spawn(move || lines.for_each(drop));
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// The documents of a trace.
    pub(crate) fn logs(&self, trace: &str) -> Vec<Value> {
        let body = get(&format!("{}/logs?traceId={trace}&limit=10", self.admin)).unwrap_or_default();
        serde_json::from_str(&body).unwrap_or_default()
    }

    /// Waits until each trace is one document with so many lines; panics with what is there
    /// instead.
    pub(crate) fn wait_for(&self, traces: &[String], lines: usize) -> Vec<Value> {
        let deadline = Instant::now() + Duration::from_secs(120);
        let mut found = Vec::new();
        for trace in traces {
            loop {
                let documents = self.logs(trace);
                let is = documents.iter().map(count_lines).collect::<Vec<_>>();
                if is == [lines] {
                    found.extend(documents);
                    break;
                }
                assert!(
                    Instant::now() < deadline && is.iter().all(|count| *count <= lines),
                    "trace {trace}: documents of {is:?} lines instead of one of {lines}: {documents:?}"
                );
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        found
    }
}

impl Drop for Windrow {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(crate) fn count_lines(document: &Value) -> usize {
    document["message"]
        .as_str()
        .map_or(0, |text| text.split('\n').count())
}

/// GET with a fresh connection, on a thread of its own so that it can be used from any test.
pub(crate) fn get(url: &str) -> Option<String> {
    get_with_trace(url, None)
}

pub(crate) fn get_with_trace(url: &str, trace: Option<&str>) -> Option<String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let client = windrow_demo::client::direct_client(Duration::from_secs(20)).unwrap();
        let mut request = client.get(url);
        if let Some(trace) = trace {
            request = request.header("X-Trace-Id", trace);
        }
        request
            .send()
            .await
            .ok()?
            .error_for_status()
            .ok()?
            .text()
            .await
            .ok()
    })
}

/// Waits until the page answers.
pub(crate) fn wait_until_up(url: &str) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while get(url).is_none() {
        assert!(Instant::now() < deadline, "{url} does not answer");
        std::thread::sleep(Duration::from_millis(20));
    }
}
