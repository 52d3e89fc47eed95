//! The whole showcase with a real Windrow and a shorter load: every request is one document through
//! a SIGKILL.

#![expect(clippy::unwrap_used, reason = "a test")]

mod real;

use std::process::Command;

/// Runs the showcase; returns what it printed, if there is a Windrow.
fn run(more: &[&str]) -> Option<String> {
    let windrow = real::windrow("showcase")?;
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
        text.contains("12 requests, 50 lines in 4 log files -> 12 documents"),
        "{text}"
    );
    assert!(
        text.contains("Nothing is missing, nothing is there twice."),
        "{text}"
    );
    let first = text.lines().next().unwrap_or_default();
    assert!(first.contains("look at it: http://127.0.0.1:"), "{text}");
    Some(text.into_owned())
}

#[test]
fn every_request_is_one_document_over_the_sidecars() {
    run(&["--no-fluent-bit"]);
}

/// A build without a plugin that the configuration needs: it says so and ends.
#[test]
fn a_fluent_bit_that_does_not_run_is_named_with_its_last_words() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("fluent-bit");
    std::fs::write(
        &broken,
        "#!/bin/sh\necho '[error] no output plugin forward'\nexit 1\n",
    )
    .unwrap();
    std::fs::set_permissions(&broken, std::fs::Permissions::from_mode(0o755)).unwrap();
    let Some(text) = run(&["--fluent-bit", broken.to_str().unwrap()]) else {
        return;
    };
    assert!(
        text.contains("`demo sidecar-logs`") && text.contains("[error] no output plugin forward"),
        "{text}"
    );
}

#[test]
fn every_request_is_one_document_over_fluent_bit_where_there_is_one() {
    run(&[]);
}
