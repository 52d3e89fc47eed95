//! The whole suite against a real `windrow serve`, in several configurations.
//!
//! The program is `WINDROW_BIN`, or that of the target folder of this test. Without it the tests
//! print so and pass, since this package does not build it; with `WINDROW_CONFORMANCE=require` they
//! fail.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use proto_tests::{Action, Expectations, Options, Security, Target, Tls};
use windrow_testkit::certificates::Certificates;
use windrow_testkit::fake_elasticsearch::FakeElasticsearch;
use windrow_testkit::load::{Load, Running};
use windrow_testkit::server::{Server, Setup};
use windrow_testkit::wait;

fn program() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("WINDROW_BIN") {
        return Some(path.into());
    }
    let here = std::env::current_exe().ok()?;
    let beside = here.parent()?.parent()?.join("windrow");
    if beside.is_file() {
        return Some(beside);
    }
    assert!(
        std::env::var("WINDROW_CONFORMANCE").as_deref() != Ok("require"),
        "no program at {}; build it first or set WINDROW_BIN",
        beside.display()
    );
    eprintln!(
        "skipped: no windrow at {}; build it first or set WINDROW_BIN",
        beside.display()
    );
    None
}

/// A running server that can be killed and started again on the same data and addresses.
struct Windrow {
    program: PathBuf,
    folder: tempfile::TempDir,
    settings: Vec<(&'static str, String)>,
    forward: String,
    admin: String,
    child: Mutex<Option<Child>>,
}

impl Windrow {
    fn start(program: PathBuf, settings: &[(&'static str, String)]) -> Arc<Self> {
        let (forward, admin) = (free_address(), free_address());
        let folder = tempfile::tempdir().unwrap();
        let windrow = Self {
            program,
            folder,
            settings: settings.to_vec(),
            forward,
            admin,
            child: Mutex::new(None),
        };
        windrow.up().unwrap();
        Arc::new(windrow)
    }

    fn up(&self) -> std::io::Result<()> {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log())?;
        let child = Command::new(&self.program)
            .args([
                "serve",
                "--listen",
                &self.forward,
                "--admin",
                &self.admin,
                "--output",
                "sqlite",
            ])
            .arg("--data-dir")
            .arg(self.folder.path().join("data"))
            // A document appears when its trace ends; the events of the suite are years old.
            .env("WINDROW_IDLE_TIMEOUT", "1s")
            .env("WINDROW_LINGER", "200ms")
            .env("WINDROW_SQLITE_RETENTION_AGE", "0s")
            .envs(self.settings.iter().cloned())
            .stdout(Stdio::from(log.try_clone()?))
            .stderr(Stdio::from(log))
            .spawn()?;
        *self.child.lock().unwrap() = Some(child);
        let deadline = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(&self.forward).is_err() || TcpStream::connect(&self.admin).is_err() {
            if Instant::now() > deadline {
                return Err(std::io::Error::other(format!(
                    "it does not listen\n{}",
                    self.tail()
                )));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn down(&self, signal: &str) -> std::io::Result<()> {
        let Some(mut child) = self.child.lock().unwrap().take() else {
            return Ok(());
        };
        Command::new("kill")
            .args([signal, &child.id().to_string()])
            .status()?;
        child.wait()?;
        Ok(())
    }

    fn pid(&self) -> Option<u32> {
        self.child.lock().unwrap().as_ref().map(Child::id)
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("windrow.log")
    }

    /// The end of its log.
    fn tail(&self) -> String {
        let text = std::fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Windrow {
    fn drop(&mut self) {
        let _ = self.down("-KILL");
    }
}

fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string()
}

/// Runs all cases on a server with these settings; `shape` configures the target for them.
async fn holds(name: &str, settings: &[(&'static str, String)], shape: impl FnOnce(&mut Target)) {
    let filter = std::env::var("WINDROW_CONFORMANCE_FILTER").unwrap_or_default();
    holds_in(&filter, name, settings, shape).await;
}

/// [`holds`] for a filter.
async fn holds_in(
    filter: &str,
    name: &str,
    settings: &[(&'static str, String)],
    shape: impl FnOnce(&mut Target),
) {
    let Some(program) = program() else { return };
    let mut settings = settings.to_vec();
    settings.push(("WINDROW_FORWARD_PROGRESS_TIMEOUT", "3s".into()));
    settings.push(("WINDROW_FORWARD_HANDSHAKE_TIMEOUT", "3s".into()));
    settings.push(("WINDROW_FORWARD_MAX_MESSAGE", "16MiB".into()));
    settings.push(("WINDROW_FORWARD_MAX_DECOMPRESSED", "64MiB".into()));
    // The suite sends an event of 2040.
    settings.push(("WINDROW_TRACE_TIME_WINDOW", "none".into()));
    // Off by default where clients need a key or a password, which a heartbeat does not carry.
    settings.push(("WINDROW_FORWARD_UDP_HEARTBEAT", "true".into()));
    let windrow = Windrow::start(program, &settings);
    let mut target = Target::new(&windrow.forward);
    target.sink = format!("windrow-logs=http://{}", windrow.admin).parse().unwrap();
    target.udp = Some(windrow.forward.clone());
    target.pid = windrow.pid();
    target.declared.dedupe = true;
    target.declared.message_bytes = Some(16 << 20);
    target.declared.decompressed_bytes = Some(64 << 20);
    target.declared.progress_timeout = Some(Duration::from_secs(3));
    target.declared.handshake_timeout = Some(Duration::from_secs(3));
    for (action, signal) in [(Action::KillRestart, "-KILL"), (Action::StopRestart, "-TERM")] {
        let windrow = windrow.clone();
        target.hooks.set(
            action,
            Arc::new(move || windrow.down(signal).and_then(|()| windrow.up())),
        );
    }
    shape(&mut target);
    let options = Options {
        filter: filter.to_owned(),
        slow: filter == IDLE,
        reply_timeout: Duration::from_secs(10),
        sink_timeout: Duration::from_secs(30),
        many_connections: 2000,
        ..Options::default()
    };
    let expectations = Expectations::parse(include_str!("../expectations/windrow.toml")).unwrap();
    let report = proto_tests::run_expecting(&target, &options, &expectations).await;
    println!("{name}\n{}", report.text());
    assert!(report.is_good(), "{name}: {}\n{}", report.text(), windrow.tail());
}

fn keyed(users: &[&str]) -> Security {
    let user = |text: &&str| text.split_once(':').map(|(n, p)| (n.to_owned(), p.to_owned()));
    let users = users.iter().filter_map(user).collect();
    Security {
        shared_key: "secret".into(),
        users,
        network_key: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn windrow_plain() {
    holds("plain", &[], |_| {}).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn windrow_with_a_key() {
    let settings = [("WINDROW_SHARED_KEY", "secret".to_owned())];
    holds("shared key", &settings, |t| t.security = Some(keyed(&[]))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn windrow_with_users() {
    let settings = [
        ("WINDROW_SHARED_KEY", "secret".to_owned()),
        ("WINDROW_USER", "alice:pass,bob:word".to_owned()),
    ];
    holds("shared key and users", &settings, |t| {
        t.security = Some(keyed(&["alice:pass", "bob:word"]));
    })
    .await;
}

/// Users without a key, which makes the key empty.
#[tokio::test(flavor = "multi_thread")]
async fn windrow_with_an_empty_key() {
    let settings = [("WINDROW_USER", "alice:pass".to_owned())];
    holds_in("79-94", "users and an empty key", &settings, |t| {
        t.security = Some(Security {
            shared_key: String::new(),
            ..keyed(&["alice:pass"])
        });
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn windrow_with_a_key_for_the_network() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("windrow.toml");
    let text = "[[forward.networks]]\ncidr = \"127.0.0.0/8\"\nshared_key = \"of the network\"\n";
    std::fs::write(&file, text).unwrap();
    let settings = [
        ("WINDROW_CONFIG", file.display().to_string()),
        ("WINDROW_SHARED_KEY", "secret".to_owned()),
    ];
    holds_in("79-95", "a key for the network", &settings, |t| {
        t.security = Some(Security {
            network_key: Some("of the network".into()),
            ..keyed(&[])
        });
    })
    .await;
}

/// The case of a connection that is idle for a minute.
const IDLE: &str = "73";

#[tokio::test(flavor = "multi_thread")]
async fn windrow_and_an_idle_connection() {
    holds_in(IDLE, "idle", &[], |_| {}).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn windrow_with_tls() {
    let certificates = Certificates::make();
    let settings = settings(&certificates, false);
    holds("TLS", &settings, |t| t.tls = Some(tls(&certificates, false))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn windrow_with_client_certificates_and_a_key() {
    let certificates = Certificates::make();
    let mut settings = settings(&certificates, true);
    settings.push(("WINDROW_SHARED_KEY", "secret".to_owned()));
    holds("TLS with client certificates, and shared key", &settings, |t| {
        t.tls = Some(tls(&certificates, true));
        t.security = Some(keyed(&[]));
    })
    .await;
}

/// Case 55: the journal is full because an output is down, and drains when it is up again.
#[tokio::test(flavor = "multi_thread")]
async fn windrow_starved() {
    let Some(program) = program() else { return };
    let sink = FakeElasticsearch::stopped();
    let server = Setup::new(program)
        .sqlite()
        .arg("--output", "elasticsearch")
        .arg("--elasticsearch-url", sink.url())
        .arg("--journal-limit", "8MiB")
        .arg("--idle-timeout", "1s")
        .env("WINDROW_SQLITE_RETENTION_AGE", "0s")
        .start();
    let mut target = Target::new(server.forward().to_string());
    target.sink = format!("windrow-logs={}", server.admin()).parse().unwrap();
    target.declared.dedupe = true;
    let starving = Arc::new(Starving {
        server,
        sink: Mutex::new(sink),
        filler: Mutex::new(None),
    });
    for (action, act) in [
        (Action::Starve, Starving::starve as fn(&Starving)),
        (Action::Feed, Starving::feed),
    ] {
        let starving = Arc::clone(&starving);
        target.hooks.set(
            action,
            Arc::new(move || {
                act(&starving);
                Ok(())
            }),
        );
    }
    let options = Options {
        filter: "55".into(),
        reply_timeout: Duration::from_secs(60),
        sink_timeout: Duration::from_secs(60),
        ..Options::default()
    };
    let report = proto_tests::run(&target, &options).await;
    println!("starved\n{}", report.text());
    assert!(report.is_good(), "{}", report.text());
    let summary = report.summary();
    assert!(
        summary.starts_with("1 cases: 1 passed"),
        "it was not run: {summary}"
    );
}

/// A server whose second output can be stopped, and the load that fills its journal.
struct Starving {
    server: Server,
    sink: Mutex<FakeElasticsearch>,
    filler: Mutex<Option<Running>>,
}

impl Starving {
    /// Fills the journal until appends wait: with short ones, which have a reserve of their own.
    fn starve(&self) {
        let filler = Load {
            traces: 20_000,
            chunk_records: 100,
            ack_timeout: Duration::from_secs(300),
            give_up: Duration::from_secs(300),
            ..Load::new(self.server.forward(), "filler-")
        };
        *self.filler.lock().unwrap() = Some(filler.start());
        wait::until_true("a full journal", Duration::from_secs(120), || {
            self.server.metric("windrow_journal_blocked") > 0.5
        });
        // There may be room for something shorter.
        while self.stores_a_record() {}
    }

    /// Sends the shortest record there is. False if it is not acknowledged within a second.
    fn stores_a_record(&self) -> bool {
        let forward = self.server.forward();
        let mut stream = TcpStream::connect(forward).expect("it accepts");
        let patience = Some(Duration::from_secs(1));
        stream.set_read_timeout(patience).expect("a socket");
        stream
            .write_all(b"\x94\xa1f\x00\x80\x81\xa5chunk\xa1x")
            .expect("it reads");
        stream.read(&mut [0; 64]).is_ok_and(|bytes| bytes > 0)
    }

    /// Starts the output again, and waits for the end of the load.
    fn feed(&self) {
        self.sink.lock().unwrap().start_again();
        if let Some(filler) = self.filler.lock().unwrap().take() {
            filler.finish();
        }
    }
}

/// The TLS settings of the server.
fn settings(certificates: &Certificates, client: bool) -> Vec<(&'static str, String)> {
    let text = |path: PathBuf| path.display().to_string();
    let (cert, key) = certificates.server();
    let mut settings = vec![("WINDROW_TLS_CERT", text(cert)), ("WINDROW_TLS_KEY", text(key))];
    if client {
        settings.push(("WINDROW_TLS_CLIENT_CA", text(certificates.authority())));
    }
    settings
}

fn tls(certificates: &Certificates, client: bool) -> Tls {
    Tls {
        ca: Some(certificates.authority()),
        client: client.then(|| certificates.client()),
        server_name: Some("server.example".into()),
    }
}
