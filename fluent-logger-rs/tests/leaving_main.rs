//! Test of leaving `main` with a guard, after `close`, by a panic, and without any of these.
//!
//! A program of its own (`harness = false`), since the end of the main thread is what it tests: it
//! runs itself as a child.
#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::Duration;

use fluent_logger::Logger;
use serde_json::json;
use support::{PATIENCE, Server, events};

/// What the child process does, by the environment variable `CHILD`.
fn child() {
    let address = std::env::var("CHILD_ADDRESS").unwrap();
    let logger = Logger::builder()
        .address(address)
        .flush_interval(Duration::from_secs(60))
        .build()
        .unwrap();
    let kind = std::env::var("CHILD").unwrap();
    let _guard = (kind != "drop" && kind != "global").then(|| logger.guard(Duration::from_millis(300)));
    for n in 0..7 {
        logger.log("t", &json!({ "n": n })).unwrap();
    }
    if kind == "closed" {
        assert_eq!(logger.blocking_close(PATIENCE).unwrap(), []);
    }
    if kind == "global" {
        // As in a global subscriber, which is never dropped.
        static KEPT: OnceLock<Logger> = OnceLock::new();
        KEPT.set(logger).unwrap();
    }
    if kind == "panic" {
        panic!("on the way");
    }
}

/// Runs this program as a child to its end.
fn run(kind: &str, address: &str) -> Output {
    let run = Command::new(std::env::current_exe().unwrap())
        .envs([("CHILD", kind), ("CHILD_ADDRESS", address)])
        .output()
        .unwrap();
    assert_eq!(run.status.success(), kind != "panic", "{run:?}");
    run
}

fn complaints(output: &Output) -> Vec<String> {
    String::from_utf8_lossy(&output.stderr)
        .lines()
        .filter(|line| line.starts_with("fluent-logger: "))
        .map(str::to_owned)
        .collect()
}

fn main() {
    if std::env::var_os("CHILD").is_some() {
        return child();
    }
    let server = Server::faithful();
    let here = server.address.to_string();
    assert_eq!(complaints(&run("closed", &here)), [""; 0]);
    assert_eq!(complaints(&run("guard", &here)), [""; 0]);
    assert_eq!(complaints(&run("panic", &here)), [""; 0]);
    assert_eq!(events(&server.messages()).len(), 21);
    // Port 9 needs a privilege that no test server has.
    let said = complaints(&run("guard", "127.0.0.1:9"));
    assert_eq!(
        said,
        ["fluent-logger: 7 events were not delivered within 300ms and are lost"]
    );
    #[cfg(target_os = "linux")]
    assert_eq!(
        complaints(&run("global", "127.0.0.1:9")),
        [
            "fluent-logger: `main` ended with 7 events not delivered; they are lost. Keep \
             `Logger::guard` in `main`, or call `close`"
        ]
    );
    let said = complaints(&run("drop", "127.0.0.1:9"));
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(
        said[0].contains("dropped with 7 events not delivered yet"),
        "{said:?}"
    );
}
