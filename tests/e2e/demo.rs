//! `windrow demo` with a shorter load: every request is one document through a SIGKILL, exit 0.

use std::process::Command;

use windrow_testkit::process::Process;
use windrow_testkit::{elasticsearch, need};

use crate::SOON;

fn show(more: &[&str]) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_windrow"));
    command.args(["demo", "--requests", "8"]).args(more);
    let mut demo = Process::start("windrow demo", &mut command);
    let status = demo.wait(3 * SOON);
    let said = demo.stdout().join("\n");
    assert!(status.success(), "{status}\n{}", demo.last_words(60));
    for promised in [
        "kill -9 of Windrow",
        "8 requests, 33 lines in 4 log files -> 8 documents",
        "Nothing is missing, nothing is there twice.",
    ] {
        assert!(said.contains(promised), "{said}");
    }
}

#[test]
fn with_the_embedded_store() {
    show(&[]);
}

#[test]
fn with_a_real_elasticsearch() {
    let node = need!(elasticsearch::shared());
    show(&["--no-fluent-bit", "--elasticsearch-url", &node.url()]);
}
