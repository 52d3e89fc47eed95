//! Scene 3 with real processes: three services with logging and metrics sidecars and a real
//! Windrow, while log files are rotated and truncated and while sidecars and Windrow are killed.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::real::{self, Process, Windrow, count_lines, free_port, get, get_with_trace, wait_until_up};

const DEMO: &str = env!("CARGO_BIN_EXE_demo");

struct Service {
    folder: PathBuf,
    name: &'static str,
    port: u16,
    process: Process,
    sidecar: Process,
    forward: String,
}

impl Service {
    fn start(root: &Path, name: &'static str, calls: &[&str], forward: &str) -> Self {
        let folder = root.join(name);
        fs::create_dir_all(&folder).unwrap();
        let port = free_port();
        let log = folder.join("app.log");
        let calls = calls.join(",");
        let mut variables = vec![
            ("SERVICE_NAME", name),
            ("SERVICE_LOG_PATH", log.to_str().unwrap()),
        ];
        if !calls.is_empty() {
            variables.push(("SERVICE_CALLS", &calls));
        }
        let arguments = ["service", "--host", "127.0.0.1", "--port", &port.to_string()];
        let process = Process::start(Path::new(DEMO), &arguments, &variables, &folder.join("out"));
        let sidecar = start_sidecar(&folder, name, forward);
        let service = Self {
            folder,
            name,
            port,
            process,
            sidecar,
            forward: forward.to_owned(),
        };
        wait_until_up(&format!("{}health", service.url()));
        service
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port)
    }

    fn restart_sidecar_after_kill(&mut self) {
        self.sidecar.kill();
        self.sidecar = start_sidecar(&self.folder, self.name, &self.forward);
    }

    fn log(&self) -> PathBuf {
        self.folder.join("app.log")
    }

    fn rotate(&self) {
        fs::rename(self.log(), self.folder.join("app.log.1")).unwrap();
    }

    /// Once its sidecar has delivered all of the log, the log is emptied, as `copytruncate` does.
    fn truncate_when_delivered(&self) {
        let state = self.folder.join("position.json");
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let length = fs::metadata(self.log()).unwrap().len();
            let state: serde_json::Value =
                serde_json::from_slice(&fs::read(&state).unwrap_or_default()).unwrap_or_default();
            let delivered = state["files"]
                .as_array()
                .into_iter()
                .flatten()
                .last()
                .map(|file| file["delivered"].as_u64());
            if delivered == Some(Some(length)) {
                break;
            }
            assert!(
                Instant::now() < deadline,
                "the sidecar is behind: {state}, log of {length} bytes"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        File::options()
            .write(true)
            .open(self.log())
            .unwrap()
            .set_len(0)
            .unwrap();
    }
}

fn start_sidecar(folder: &Path, name: &str, forward: &str) -> Process {
    let (log, state) = (folder.join("app.log"), folder.join("position.json"));
    let variables = [
        ("SERVICE_NAME", name),
        ("ENVIRONMENT", "test"),
        ("LOG_PATH", log.to_str().unwrap()),
        ("STATE_PATH", state.to_str().unwrap()),
        ("WINDROW_ADDR", forward),
        ("POLL_INTERVAL", "20ms"),
    ];
    Process::start(
        Path::new(DEMO),
        &["sidecar-logs"],
        &variables,
        &folder.join("sidecar.out"),
    )
}

#[test]
fn orders_are_one_document_through_rotation_truncation_and_kills() {
    let Some(program) = real::windrow("scene 3") else {
        return;
    };
    let root = tempfile::tempdir().unwrap();
    let mut windrow = Windrow::start(&program, &root.path().join("windrow"), &["--output", "sqlite"]);
    let user = Service::start(root.path(), "user", &[], &windrow.forward);
    let product = Service::start(root.path(), "product", &[], &windrow.forward);
    let mut order = Service::start(
        root.path(),
        "order",
        &[&user.url(), &product.url()],
        &windrow.forward,
    );
    let mut traces = Vec::new();
    let mut send = |count: usize| {
        for _ in 0..count {
            let trace = windrow_demo::id::trace_id();
            let answer = get_with_trace(&order.url(), Some(&trace));
            assert_eq!(answer.as_deref(), Some("Hello from order\n"));
            traces.push(trace);
        }
    };
    send(5);
    user.rotate();
    send(5);
    product.truncate_when_delivered();
    send(5);
    windrow.kill();
    send(5);
    order.restart_sidecar_after_kill();
    windrow.start_again();
    let documents = windrow.wait_for(&traces, 6);
    for document in &documents {
        assert_eq!(document["environment"], "test");
        assert!(
            document["service_name"].is_string() && document["level"] == "info",
            "{document}"
        );
        let text = document["message"].as_str().unwrap();
        for service in ["user", "product", "order"] {
            assert_eq!(
                text.matches(&format!("{service}: handler finished")).count(),
                1,
                "{text}"
            );
        }
    }
    // The page without a trace id: the newest first.
    let newest: Vec<serde_json::Value> =
        serde_json::from_str(&get(&format!("{}/logs?limit=5", windrow.admin)).unwrap()).unwrap();
    assert_eq!(newest.iter().map(count_lines).collect::<Vec<_>>(), [6; 5]);
    let times: Vec<&str> = newest
        .iter()
        .map(|document| document["@timestamp"].as_str().unwrap())
        .collect();
    assert!(times.is_sorted_by(|one, two| one >= two), "{times:?}");
    for mut service in [user, product, order] {
        assert_eq!(service.process.terminate(), Some(0), "{}", service.name);
        assert_eq!(
            service.sidecar.terminate(),
            Some(0),
            "sidecar of {}",
            service.name
        );
    }
}

#[test]
fn metrics_carry_both_labels_and_a_killed_service_is_down() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let app_metrics = format!("http://127.0.0.1:{port}/metrics");
    let log = folder.path().join("app.log");
    let start = || {
        let variables = [
            ("SERVICE_NAME", "user"),
            ("SERVICE_LOG_PATH", log.to_str().unwrap()),
        ];
        let arguments = ["service", "--host", "127.0.0.1", "--port", &port.to_string()];
        Process::start(
            Path::new(DEMO),
            &arguments,
            &variables,
            &folder.path().join("out"),
        )
    };
    let mut service = start();
    let own_port = free_port().to_string();
    let variables = [
        ("SERVICE_NAME", "user"),
        ("ENVIRONMENT", "test"),
        ("APP_METRICS_URL", &app_metrics),
        ("METRICS_PORT", &own_port),
        ("METRICS_HOST", "127.0.0.1"),
        ("SCRAPE_INTERVAL", "50ms"),
    ];
    let _sidecar = Process::start(
        Path::new(DEMO),
        &["sidecar-metrics"],
        &variables,
        &folder.path().join("sidecar.out"),
    );
    let page = format!("http://127.0.0.1:{own_port}/metrics");
    let labels = "service_name=\"user\",environment=\"test\"";
    wait_until_up(&app_metrics);
    get(&format!("http://127.0.0.1:{port}/")).unwrap();
    wait_for_line(
        &page,
        &format!("http_requests_total{{{labels},method=\"GET\",path=\"/\"}} 1"),
    );
    wait_for_line(&page, &format!("up{{{labels}}} 1"));
    service.kill();
    let down = wait_for_line(&page, &format!("up{{{labels}}} 0"));
    assert!(!down.contains("http_requests_total"), "stale samples:\n{down}");
    let _service = start();
    wait_for_line(&page, &format!("up{{{labels}}} 1"));
}

fn wait_for_line(page: &str, line: &str) -> String {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let text = get(page).unwrap_or_default();
        if text.lines().any(|other| other == line) {
            return text;
        }
        assert!(Instant::now() < deadline, "{line} is not in\n{text}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
