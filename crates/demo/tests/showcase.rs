//! The whole showcase with a real Windrow and a shorter load: every request is one document through
//! a SIGKILL.

#![expect(clippy::unwrap_used, reason = "a test")]

mod real;

use std::process::Command;

fn run(more: &[&str]) {
    let Some(windrow) = real::windrow("showcase") else {
        return;
    };
    let done = Command::new(env!("CARGO_BIN_EXE_demo"))
        .args(["showcase", "--requests", "12", "--windrow"])
        .arg(windrow)
        .args(more)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&done.stdout);
    assert!(
        done.status.success(),
        "{text}\n{}",
        String::from_utf8_lossy(&done.stderr)
    );
    assert!(text.contains("kill -9 of Windrow"), "{text}");
    assert!(
        text.contains("12 requests, 48 lines in 4 log files -> 12 documents"),
        "{text}"
    );
    assert!(
        text.contains("Nothing is missing, nothing is there twice."),
        "{text}"
    );
}

#[test]
fn every_request_is_one_document_over_the_sidecars() {
    run(&["--no-fluent-bit"]);
}

#[test]
fn every_request_is_one_document_over_fluent_bit_where_there_is_one() {
    run(&[]);
}
