//! Tests of the end of a logger: guard, and blocking calls where they cannot work.
#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use std::time::{Duration, Instant};

use fluent_logger::{Builder, CloseError, FlushError, Logger, SendError};
use serde_json::json;
use support::{PATIENCE, Server, events};

fn builder(server: &Server) -> Builder {
    Logger::builder().address(server.address.to_string())
}

fn current_thread() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

#[test]
fn blocking_calls_work_on_the_only_thread_of_a_runtime() {
    let server = Server::faithful();
    current_thread().block_on(async {
        let logger = builder(&server).build().unwrap();
        logger.blocking_send("t", &json!({ "n": 1 })).unwrap();
        logger.log("t", &json!({ "n": 2 })).unwrap();
        logger.blocking_flush(PATIENCE).unwrap();
        logger.log("t", &json!({ "n": 3 })).unwrap();
        assert_eq!(logger.blocking_close(PATIENCE).unwrap(), []);
    });
    assert_eq!(events(&server.messages()).len(), 3);
}

#[test]
fn blocking_calls_that_stop_the_logger_are_errors_at_once() {
    let server = Server::faithful();
    current_thread().block_on(async {
        let logger = builder(&server).own_thread(false).build().unwrap();
        logger.log("t", &json!({ "n": 1 })).unwrap();
        let started = Instant::now();
        assert_eq!(
            logger.blocking_close(PATIENCE),
            Err(CloseError::RuntimeBlocked { buffered: 1 })
        );
        assert_eq!(logger.blocking_flush(PATIENCE), Err(FlushError::RuntimeBlocked));
        assert_eq!(
            logger.blocking_send("t", &json!({ "n": 2 })),
            Err(SendError::RuntimeBlocked)
        );
        assert!(started.elapsed() < Duration::from_secs(5));
        // The logger is still open.
        assert_eq!(logger.close(PATIENCE).await, []);
    });
    assert_eq!(events(&server.messages()).len(), 1);
}

#[test]
fn a_runtime_that_does_not_run_is_an_error_and_not_an_empty_answer() {
    let server = Server::faithful();
    let runtime = current_thread();
    let logger = runtime.block_on(async { builder(&server).own_thread(false).build().unwrap() });
    logger.log("t", &json!({ "n": 1 })).unwrap();
    let elsewhere = logger.clone();
    let closed = std::thread::spawn(move || elsewhere.blocking_close(Duration::ZERO));
    assert_eq!(closed.join().unwrap(), Err(CloseError::NoAnswer { buffered: 1 }));
    drop(runtime);
    let lost = logger.blocking_close(Duration::ZERO).unwrap();
    assert_eq!(lost.len(), 1, "the runtime ended, and the event is returned");
}

#[test]
fn a_guard_delivers_what_is_queued() {
    let server = Server::faithful();
    let logger = builder(&server)
        .flush_interval(Duration::from_secs(60))
        .build()
        .unwrap();
    let guard = logger.guard(PATIENCE);
    for n in 0..100 {
        logger.log("t", &json!({ "n": n })).unwrap();
    }
    drop(guard);
    assert_eq!(events(&server.messages()).len(), 100);
    assert!(logger.log("t", &json!({})).is_err(), "closed");
}
