//! Real Fluent Bit process in a folder of its own, for tests.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::{
    env,
    fs::{self, File},
    io::Write,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fluent-bit")
}

/// The program, or a visible line why the test does less.
pub(crate) fn fluent_bit(what: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = match env::var_os("FLUENT_BIT").filter(|named| !named.is_empty()) {
        Some(named) => Some(PathBuf::from(named)),
        None => env::split_paths(&path)
            .map(|folder| folder.join("fluent-bit"))
            .find(|file| file.is_file()),
    };
    if found.is_none() {
        // Straight to the terminal: the test harness shows what a passing test prints to no one.
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: {what}: no fluent-bit on the PATH and FLUENT_BIT is not set"
        );
    }
    found
}

/// A folder of its own with a copy of all configurations, so that tests can adapt them, and the
/// environment that they read.
pub(crate) struct Place {
    pub(crate) folder: tempfile::TempDir,
    variables: Vec<(&'static str, String)>,
    port: u16,
}

impl Place {
    /// For a listener on a free port.
    pub(crate) fn new() -> Self {
        Self::towards(free_port())
    }

    /// For a listener on this port.
    pub(crate) fn towards(port: u16) -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path().to_owned();
        copy(&folder(), &root.join("fluent-bit"));
        fs::create_dir_all(root.join("var/log/containers")).unwrap();
        fs::create_dir_all(root.join("state")).unwrap();
        let path = |name: &str| root.join(name).to_str().unwrap().to_owned();
        let variables = vec![
            ("LOG_PATH", path("app.log")),
            ("STATE_DIR", path("state")),
            ("CONTAINER_LOGS", path("var/log/containers")),
            ("WINDROW_HOST", "localhost".to_owned()),
            ("WINDROW_PORT", port.to_string()),
            ("HTTP_PORT", free_port().to_string()),
            ("SERVICE_NAME", "order".to_owned()),
            ("ENVIRONMENT", "demo".to_owned()),
            ("CA_FILE", path("ca.pem")),
            ("SHARED_KEY", "secret".to_owned()),
            ("HOSTNAME", "client".to_owned()),
            ("CLUSTER_NAME", "blue".to_owned()),
            ("NODE_NAME", "node-1".to_owned()),
            ("ELASTICSEARCH_HOST", "localhost".to_owned()),
        ];
        Self {
            folder: temporary,
            variables,
            port,
        }
    }

    /// The same with another value of a variable.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        for variable in &mut self.variables {
            if variable.0 == name {
                variable.1 = value.to_owned();
            }
        }
        self
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn edit(&self, configuration: &str, change: impl FnOnce(String) -> String) {
        let path = self.path("fluent-bit").join(configuration);
        let text = fs::read_to_string(&path).unwrap();
        let changed = change(text.clone());
        assert_ne!(text, changed, "{configuration}: the change did not fit");
        fs::write(path, changed).unwrap();
    }

    /// A Fluent Bit whose output goes to a file of the folder.
    pub(crate) fn start(&self, program: &Path, arguments: &[&str], output: &str) -> Running {
        let file = File::create(self.path(output)).unwrap();
        let child = Command::new(program)
            .args(arguments)
            .envs(self.variables.iter().map(|(name, value)| (*name, value.as_str())))
            .current_dir(self.path("fluent-bit"))
            .stdin(Stdio::null())
            .stderr(file.try_clone().unwrap())
            .stdout(file)
            .spawn()
            .unwrap();
        Running {
            child,
            output: self.path(output),
        }
    }

    /// A Forward listener that prints what arrives, one JSON object per line.
    pub(crate) fn listener(&self, program: &Path, more: &[&str]) -> Running {
        let port = format!("port={}", self.port);
        let mut arguments = vec![
            "-q",
            "-f",
            "0.2",
            "-i",
            "forward",
            "-p",
            "listen=127.0.0.1",
            "-p",
            &port,
        ];
        for property in more {
            arguments.extend(["-p", property]);
        }
        arguments.extend(["-o", "stdout", "-p", "format=json_lines", "-m", "*"]);
        self.start(program, &arguments, "received")
    }
}

pub(crate) struct Running {
    pub(crate) child: Child,
    output: PathBuf,
}

impl Running {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.output).unwrap()).into_owned()
    }

    /// The records printed so far.
    fn records(&self) -> Vec<Value> {
        self.text()
            .lines()
            .filter_map(|line| serde_json::from_str(line.trim()).ok())
            .filter(Value::is_object)
            .collect()
    }

    /// The records, once there are as many.
    pub(crate) fn wait_for(&self, count: usize, sender: Option<&Self>) -> Vec<Value> {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let records = self.records();
            if records.len() >= count {
                return records;
            }
            assert!(
                Instant::now() < deadline,
                "{} of {count} records arrived\nreceiver:\n{}\nsender:\n{}",
                records.len(),
                self.text(),
                sender.map(Self::text).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Running {
    /// SIGTERM, and the end.
    pub(crate) fn terminate(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "it does not stop\n{}", self.text());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}
