//! The client against a scripted server on port 0.

use std::{
    collections::HashMap,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{Router, extract::State, http::HeaderMap, routing::get};
use tokio::net::TcpListener;

use super::*;

#[derive(Default)]
struct Script {
    /// The answers of one trace id, in order; the last one stands for all that follow.
    answers: Vec<u16>,
    seen: Mutex<HashMap<String, usize>>,
    running: AtomicUsize,
    most: AtomicUsize,
}

async fn answer(State(script): State<Arc<Script>>, headers: HeaderMap) -> StatusCode {
    let running = script.running.fetch_add(1, Ordering::SeqCst) + 1;
    script.most.fetch_max(running, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(5)).await;
    script.running.fetch_sub(1, Ordering::SeqCst);
    let trace = headers["x-trace-id"].to_str().unwrap().to_owned();
    let mut seen = script.seen.lock().unwrap();
    let attempt = seen.entry(trace).or_default();
    let status = script.answers[(*attempt).min(script.answers.len() - 1)];
    *attempt += 1;
    StatusCode::from_u16(status).unwrap()
}

async fn serve(answers: &[u16]) -> (String, Arc<Script>) {
    let script = Arc::new(Script {
        answers: answers.to_vec(),
        ..Script::default()
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hello", listener.local_addr().unwrap());
    let router = Router::new()
        .route("/hello", get(answer))
        .with_state(Arc::clone(&script));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, script)
}

fn options(target: &str) -> Options {
    Options {
        target: target.to_owned(),
        count: 20,
        concurrency: 3,
        interval: Duration::from_millis(1),
        timeout: Duration::from_secs(20),
        retries: 3,
        backoff: Duration::from_millis(1),
    }
}

async fn send(options: &Options) -> (Summary, Vec<Outcome>) {
    let mut outcomes = Vec::new();
    let summary = run(options, &CancellationToken::new(), |outcome| {
        outcomes.push(outcome.clone());
    })
    .await
    .unwrap();
    (summary, outcomes)
}

#[tokio::test]
async fn every_request_has_its_own_trace_id_and_no_more_than_the_allowed_number_run_at_once() {
    let (url, script) = serve(&[200]).await;
    let (summary, outcomes) = send(&options(&url)).await;
    assert_eq!(
        (summary.requests, summary.succeeded, summary.retries),
        (20, 20, 0)
    );
    assert_eq!(script.seen.lock().unwrap().len(), 20);
    assert_eq!(outcomes.len(), 20);
    let most = script.most.load(Ordering::SeqCst);
    assert!((2..=3).contains(&most), "{most} at once");
}

#[tokio::test]
async fn server_errors_and_429_are_tried_again_with_the_same_trace_id() {
    let (url, script) = serve(&[503, 429, 200]).await;
    let (summary, _) = send(&Options {
        count: 4,
        ..options(&url)
    })
    .await;
    assert_eq!((summary.succeeded, summary.retries), (4, 8));
    assert!(
        script
            .seen
            .lock()
            .unwrap()
            .values()
            .all(|attempts| *attempts == 3)
    );
}

#[tokio::test]
async fn it_gives_up_after_the_retries_and_says_the_last_status() {
    let (url, _) = serve(&[500]).await;
    let (summary, outcomes) = send(&Options {
        count: 1,
        ..options(&url)
    })
    .await;
    assert_eq!((summary.succeeded, summary.retries), (0, 3));
    assert_eq!((outcomes[0].attempts, &outcomes[0].result), (4, &Ok(500)));
    assert!(
        summary.to_string().contains("1 failed") && summary.to_string().contains("500 x 1"),
        "{summary}"
    );
}

#[tokio::test]
async fn other_client_errors_are_final() {
    let (url, _) = serve(&[404, 200]).await;
    let (summary, _) = send(&Options {
        count: 2,
        ..options(&url)
    })
    .await;
    assert_eq!((summary.requests, summary.succeeded, summary.retries), (2, 0, 0));
}

#[tokio::test]
async fn network_errors_are_tried_again() {
    // Bound and dropped: connections are refused.
    let port = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let target = format!("http://127.0.0.1:{port}/hello");
    let (summary, outcomes) = send(&Options {
        count: 1,
        retries: 2,
        ..options(&target)
    })
    .await;
    assert_eq!((summary.succeeded, summary.retries), (0, 2));
    let error = outcomes[0].result.as_ref().unwrap_err();
    assert!(error.contains("refused"), "{error}");
}

#[tokio::test]
async fn an_answer_slower_than_the_timeout_is_a_network_error() {
    let (url, _) = serve(&[200]).await;
    let slow = Options {
        count: 1,
        retries: 1,
        timeout: Duration::from_nanos(1),
        ..options(&url)
    };
    let (summary, _) = send(&slow).await;
    assert_eq!((summary.succeeded, summary.retries), (0, 1));
}

#[tokio::test]
async fn a_stop_ends_an_endless_run() {
    let (url, _) = serve(&[200]).await;
    let stop = CancellationToken::new();
    let endless = Options {
        count: 0,
        ..options(&url)
    };
    let mut ended = 0;
    let summary = run(&endless, &stop, |_| {
        ended += 1;
        if ended == 5 {
            stop.cancel();
        }
    })
    .await
    .unwrap();
    assert!((5..=8).contains(&summary.requests), "{summary}");
}

#[tokio::test]
async fn a_target_that_is_no_url_is_refused_before_anything_is_sent() {
    let error = run(&options("localhost:8080"), &CancellationToken::new(), |_| {})
        .await
        .unwrap_err();
    assert!(error.to_string().contains("--target"), "{error}");
}
