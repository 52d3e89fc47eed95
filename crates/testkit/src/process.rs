//! Child processes that cannot outlive a test: output kept line by line, signals, and a guard that
//! kills.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Signal, getrlimit, kill_process, setrlimit};

use crate::wait;

/// A running child. Dropping it kills it and waits for its end.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Lines,
    stderr: Lines,
    readers: Vec<JoinHandle<()>>,
}

type Lines = Arc<Mutex<Vec<String>>>;

impl Process {
    /// Starts `command`; keeps its output, and closes its standard input when this value is dropped.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(name: &str, command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        let (stdout, stderr) = (Lines::default(), Lines::default());
        let readers = vec![
            keep(child.stdout.take().expect("piped"), &stdout),
            keep(child.stderr.take().expect("piped"), &stderr),
        ];
        let stdin = child.stdin.take();
        Self {
            name: name.to_owned(),
            child,
            stdin,
            stdout,
            stderr,
            readers,
        }
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All lines of standard output so far.
    pub fn stdout(&self) -> Vec<String> {
        self.stdout.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All lines of standard error so far.
    pub fn stderr(&self) -> Vec<String> {
        self.stderr.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Both outputs, for a panic message: the last `lines` lines of each.
    pub fn last_words(&self, lines: usize) -> String {
        let tail = |all: Vec<String>| all[all.len().saturating_sub(lines)..].join("\n");
        format!(
            "--- stdout of {0}\n{1}\n--- stderr of {0}\n{2}",
            self.name,
            tail(self.stdout()),
            tail(self.stderr())
        )
    }

    /// Waits for a line of standard output for which `pick` returns a value.
    ///
    /// # Panics
    /// When the process ends before, or `limit` passes.
    #[track_caller]
    pub fn line<T>(&mut self, what: &str, limit: Duration, pick: impl Fn(&str) -> Option<T>) -> T {
        let name = self.name.clone();
        wait::until(&format!("{what} of {name}"), limit, || {
            if let Some(found) = self.stdout().iter().find_map(|line| pick(line)) {
                return Ok(found);
            }
            if let Some(status) = self.poll() {
                self.drain();
                if let Some(found) = self.stdout().iter().find_map(|line| pick(line)) {
                    return Ok(found);
                }
                panic!("{name} ended ({status}) before {what}\n{}", self.last_words(30));
            }
            Err(self.last_words(30))
        })
    }

    /// The exit status, when it has ended.
    pub fn poll(&mut self) -> Option<ExitStatus> {
        self.child
            .try_wait()
            .unwrap_or_else(|error| panic!("cannot look at {}: {error}", self.name))
    }

    /// Waits until it ends by itself.
    ///
    /// # Panics
    /// When `limit` passes.
    #[track_caller]
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.poll() {
                self.drain();
                return status;
            }
            assert!(
                began.elapsed() < limit,
                "{} has not ended after {} s\n{}",
                self.name,
                limit.as_secs_f64(),
                self.last_words(30)
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// When it cannot be sent to a process that still runs.
    pub fn signal(&mut self, signal: Signal) {
        if self.poll().is_some() {
            return;
        }
        let pid = Pid::from_raw(i32::try_from(self.pid()).expect("process ids are small")).expect("not zero");
        kill_process(pid, signal).unwrap_or_else(|error| panic!("cannot signal {}: {error}", self.name));
    }

    /// Sends SIGKILL and waits for its end.
    pub fn kill(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        self.child.kill().ok();
        self.child.wait().ok();
        self.drain();
    }

    /// Closes its standard input.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Waits after its end until all of the output has been read.
    fn drain(&mut self) {
        for reader in self.readers.drain(..) {
            reader.join().ok();
        }
    }

    /// Resident memory in bytes, or `None` when it has ended.
    pub fn resident_bytes(&self) -> Option<u64> {
        self.memory("VmRSS:")
    }

    /// Resident memory that no file backs, in bytes, or `None` when it has ended: not the program's
    /// own pages, which stay in the page cache.
    pub fn anonymous_bytes(&self) -> Option<u64> {
        self.memory("RssAnon:")
    }

    /// Peak resident memory in bytes, or `None` when it has ended.
    pub fn peak_resident_bytes(&self) -> Option<u64> {
        self.memory("VmHWM:")
    }

    fn memory(&self, what: &str) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).ok()?;
        let line = status.lines().find(|line| line.starts_with(what))?;
        let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
        Some(kib * 1024)
    }
}

/// Raises the limit of open files of this process, and so of those that it starts, as far as is
/// permitted; gives it.
pub fn raise_file_limit() -> u64 {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        // Refused: what is, is.
        setrlimit(Resource::Nofile, limit).ok();
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stdin = None;
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn keep(from: impl Read + Send + 'static, lines: &Lines) -> JoinHandle<()> {
    let lines = Arc::clone(lines);
    std::thread::spawn(move || {
        for line in BufReader::new(from).split(b'\n') {
            let Ok(line) = line else { return };
            let line = String::from_utf8_lossy(&line).into_owned();
            lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    })
}
