//! Processes of the scenes, and the documents that their log files lead to.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use rustix::process::Signal;
use serde_json::Value;
use windrow_testkit::{check::Stored, process::Process, server::Setup, wait};

/// Bounds every wait: long enough for a debug build on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(120);

/// Windrow's program, or a visible line why the test does nothing.
pub(crate) fn windrow(what: &str) -> Option<Setup> {
    crate::real::windrow(what).map(Setup::new)
}

/// A part of the demo, as a process.
pub(crate) fn demo(name: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_demo"));
    command.args(arguments).envs(variables.iter().copied());
    Process::start(name, &mut command)
}

/// SIGTERM, and a good end.
#[track_caller]
pub(crate) fn stop(process: &mut Process) {
    process.signal(Signal::TERM);
    let status = process.wait(SOON);
    assert!(status.success(), "{status}\n{}", process.last_words(30));
}

/// An application with an HTTP port, and its log file if it has one.
pub(crate) struct App {
    pub(crate) process: Process,
    /// With a slash at the end.
    pub(crate) url: String,
    pub(crate) log: PathBuf,
}

impl App {
    pub(crate) fn server(folder: &Path) -> Self {
        let log = folder.join("server.log");
        let variables = [
            ("SERVER_PORT", "0"),
            ("SERVER_HOST", "127.0.0.1"),
            ("SERVER_LOG_PATH", log.to_str().unwrap()),
        ];
        Self::announced(demo("server", &["server"], &variables), "server", log)
    }

    /// One of the services with a log file.
    pub(crate) fn service(folder: &Path, name: &str, calls: &[&Self]) -> Self {
        let log = folder.join(format!("{name}.log"));
        let calls: Vec<&str> = calls.iter().map(|app| app.url.as_str()).collect();
        let calls = calls.join(",");
        let mut variables = vec![
            ("SERVICE_NAME", name),
            ("SERVICE_LOG_PATH", log.to_str().unwrap()),
        ];
        if !calls.is_empty() {
            variables.push(("SERVICE_CALLS", &calls));
        }
        let arguments = ["service", "--host", "127.0.0.1", "--port", "0"];
        Self::announced(demo(name, &arguments, &variables), name, log)
    }

    /// A service that logs straight to Windrow.
    pub(crate) fn direct(variables: &[(&str, &str)]) -> Self {
        let arguments = [
            "service",
            "direct",
            "--direct",
            "--host",
            "127.0.0.1",
            "--port",
            "0",
        ];
        Self::announced(demo("direct", &arguments, variables), "direct", PathBuf::new())
    }

    /// Takes the address from the line that says it.
    pub(crate) fn announced(mut process: Process, name: &str, log: PathBuf) -> Self {
        let begin = format!("{name} listening on ");
        let url = process.line("its address", SOON, |line| {
            Some(line.strip_prefix(&begin)?.split(',').next()?.to_owned())
        });
        Self {
            process,
            url: format!("{url}/"),
            log,
        }
    }

    /// As `logrotate` does without `copytruncate`; once per application.
    pub(crate) fn rotate(&self) -> PathBuf {
        let renamed = self.log.with_extension("log.1");
        fs::rename(&self.log, &renamed).unwrap();
        renamed
    }

    /// As `copytruncate`; once per application. Whatever is not yet read is gone from the file:
    /// that is the nature of it, so the caller has to know that all has been delivered.
    pub(crate) fn truncate(&self) -> PathBuf {
        let copy = self.log.with_extension("log.copy");
        fs::copy(&self.log, &copy).unwrap();
        let file = fs::File::options().write(true).open(&self.log).unwrap();
        file.set_len(0).unwrap();
        copy
    }
}

/// `demo client`, its requests never repeated: each that is answered has logged its lines once.
pub(crate) fn client(target: &str, count: usize, more: &[&str]) -> Process {
    let count = count.to_string();
    let mut arguments = vec![
        "client",
        "--target",
        target,
        "--count",
        &count,
        "--timeout",
        "60s",
        "--retries",
        "0",
    ];
    arguments.extend(more);
    demo("client", &arguments, &[])
}

/// The trace ids of the requests that were answered with 200 so far.
pub(crate) fn answered(client: &Process) -> Vec<String> {
    client
        .stdout()
        .iter()
        .filter_map(|line| Some(line.split_once(" 200 in ")?.0.to_owned()))
        .collect()
}

#[track_caller]
pub(crate) fn wait_answered(client: &Process, count: usize) {
    wait::until(&format!("{count} answers"), SOON, || {
        let is = answered(client).len();
        if is >= count {
            Ok(())
        } else {
            Err(client.last_words(5))
        }
    });
}

/// The messages of each trace in order of their text: what log files say, or what documents hold.
pub(crate) type Messages = BTreeMap<String, Vec<String>>;

/// What the applications have logged: all files of the folder, renamed ones and copies too.
pub(crate) fn logged(folder: &Path) -> Messages {
    let mut messages = Messages::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if !path.is_file() || !name.contains(".log") {
            continue;
        }
        for line in fs::read_to_string(&path).unwrap().lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            let text = |field: &str| line[field].as_str().unwrap().to_owned();
            messages.entry(text("traceId")).or_default().push(text("message"));
        }
    }
    messages.values_mut().for_each(|lines| lines.sort());
    messages
}

/// What is stored; a second document of a trace fails.
fn stored(documents: &[Stored]) -> Result<Messages, String> {
    let mut messages = Messages::new();
    for document in documents {
        let text = |field: &str| document.source[field].as_str().unwrap_or_default();
        let mut lines: Vec<String> = text("message").split('\n').map(str::to_owned).collect();
        lines.sort();
        if messages.insert(text("traceId").to_owned(), lines).is_some() {
            return Err(format!("{} is there twice", text("traceId")));
        }
    }
    Ok(messages)
}

/// Waits until each trace is one document with exactly its lines, and nothing else is there.
#[track_caller]
pub(crate) fn assert_stored(expected: &Messages, documents: impl Fn() -> Vec<Stored>) {
    assert!(!expected.is_empty(), "nothing was logged, so nothing is shown");
    let what = format!("{} documents with all their lines", expected.len());
    wait::until(&what, SOON, || {
        let stored = stored(&documents())?;
        if stored == *expected {
            return Ok(());
        }
        let wrong = expected
            .iter()
            .find(|(trace, lines)| stored.get(*trace) != Some(lines));
        let (is, should) = wrong.map_or((None, None), |(trace, lines)| (stored.get(trace), Some(lines)));
        Err(format!(
            "{} documents; one is {is:?}, should be {should:?}",
            stored.len()
        ))
    });
}
