//! The server over real sockets on port 0.

use std::{fs, path::Path};

use super::*;

struct Started {
    url: String,
    log: PathBuf,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), Error>>,
    telemetry: Arc<Telemetry>,
    _folder: tempfile::TempDir,
}

fn options(folder: &Path) -> Options {
    Options {
        listen: ([127, 0, 0, 1], 0).into(),
        log_path: folder.join("app.log"),
        shutdown_timeout: Duration::from_secs(30),
    }
}

async fn start(change: impl FnOnce(&mut Options)) -> Started {
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(folder.path());
    change(&mut options);
    let server = Server::bind(&options).await.unwrap();
    let url = format!("http://{}", server.local_addr().unwrap());
    let stop = CancellationToken::new();
    let telemetry = Arc::clone(&server.telemetry);
    let task = tokio::spawn(server.run(stop.clone()));
    Started {
        url,
        log: options.log_path,
        stop,
        task,
        telemetry,
        _folder: folder,
    }
}

fn lines(path: &Path) -> Vec<Value> {
    fs::read_to_string(path)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

#[tokio::test]
async fn a_request_writes_two_lines_with_the_callers_trace_id() {
    let server = start(|_| {}).await;
    let answer = client()
        .get(format!("{}/hello", server.url))
        .header("X-Trace-Id", "abc")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["x-trace-id"], "abc");
    let lines = lines(&server.log);
    assert_eq!(lines.len(), 2);
    assert_eq!(
        (&lines[0]["traceId"], &lines[0]["message"]),
        (&json!("abc"), &json!("handler finished"))
    );
    assert_eq!(lines[1]["message"], "request completed");
    assert_eq!(lines[1]["method"], "GET");
    assert_eq!(lines[1]["path"], "/hello");
    assert_eq!(lines[1]["status"], 200);
    assert!(lines[1]["latencyMs"].is_u64());
}

#[tokio::test]
async fn without_a_usable_header_each_request_gets_its_own_trace_id() {
    let server = start(|_| {}).await;
    let url = format!("{}/hello", server.url);
    client().get(&url).send().await.unwrap();
    client().get(&url).header("X-Trace-Id", " ").send().await.unwrap();
    client()
        .get(&url)
        .header("X-Trace-Id", "x".repeat(257))
        .send()
        .await
        .unwrap();
    let lines = lines(&server.log);
    let ids: std::collections::HashSet<&str> = lines
        .iter()
        .map(|line| line["traceId"].as_str().unwrap())
        .collect();
    assert_eq!((lines.len(), ids.len()), (6, 3));
    assert!(ids.iter().all(|id| id.len() == 32));
}

#[tokio::test]
async fn metrics_count_requests_errors_and_latency() {
    let server = start(|_| {}).await;
    client()
        .get(format!("{}/hello", server.url))
        .send()
        .await
        .unwrap();
    client()
        .get(format!("{}/hello?status=503", server.url))
        .send()
        .await
        .unwrap();
    client()
        .get(format!("{}/nothing-here", server.url))
        .send()
        .await
        .unwrap();
    let text = client()
        .get(format!("{}/metrics", server.url))
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    for line in [
        "http_requests_total{method=\"GET\",path=\"/hello\"} 2",
        "http_request_errors_total{method=\"GET\",path=\"/hello\"} 1",
        "http_request_duration_seconds_count{method=\"GET\",path=\"/hello\"} 2",
        "http_requests_in_flight 0",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
    }
    let health = client()
        .get(format!("{}/health", server.url))
        .send()
        .await
        .unwrap();
    assert_eq!(health.status(), 200);
}

/// Waits until the server works on a request.
async fn in_flight(telemetry: &Telemetry) {
    let waited = tokio::time::timeout(Duration::from_secs(20), async {
        while telemetry.in_flight() == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    waited.await.unwrap();
}

#[tokio::test]
async fn a_stop_lets_the_request_in_flight_end_and_its_lines_be_written() {
    let server = start(|_| {}).await;
    let url = format!("{}/hello?delayMs=300", server.url);
    let request = tokio::spawn(async move { client().get(url).send().await });
    in_flight(&server.telemetry).await;
    server.stop.cancel();
    assert_eq!(request.await.unwrap().unwrap().status(), 200);
    server.task.await.unwrap().unwrap();
    assert_eq!(lines(&server.log).len(), 2);
    assert!(
        client()
            .get(format!("{}/health", server.url))
            .send()
            .await
            .is_err(),
        "it still listens"
    );
}

#[tokio::test]
async fn a_request_that_does_not_end_in_time_is_reported() {
    let server = start(|options| options.shutdown_timeout = Duration::from_millis(10)).await;
    let url = format!("{}/hello?delayMs=60000", server.url);
    let request = tokio::spawn(async move { client().get(url).send().await });
    in_flight(&server.telemetry).await;
    server.stop.cancel();
    let error = server.task.await.unwrap().unwrap_err();
    assert!(
        matches!(error, Error::StopTimeout { in_flight: 1, .. }),
        "{error}"
    );
    request.abort();
}

#[tokio::test]
async fn a_port_in_use_is_a_clear_error() {
    let server = start(|_| {}).await;
    let folder = tempfile::tempdir().unwrap();
    let mut second = options(folder.path());
    second.listen = server.url.trim_start_matches("http://").parse().unwrap();
    let error = Server::bind(&second).await.unwrap_err().to_string();
    assert!(
        error.contains("in use") && error.contains("SERVER_PORT"),
        "{error}"
    );
}
