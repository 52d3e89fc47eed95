//! Official Forward loggers of other languages, installed from their registries into the user's
//! cache and given records to send, as an application would.
//!
//! Each is set up with its own options by their own names, as JSON; one that it does not know is an
//! error where the library lets the script find out.

mod go;
mod java;
mod node;
mod otlp;
mod python;

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use serde_json::Value;

pub use go::Go;
pub use java::Java;
pub use node::{Node, Package};
pub use otlp::{Collector, OtlpPython};
pub use python::{Python, Sender};

/// What every script is called with: `HOST PORT TAG OPTIONS`.
fn arguments(to: SocketAddr, tag: &str, options: &Value) -> [String; 4] {
    [
        to.ip().to_string(),
        to.port().to_string(),
        tag.to_owned(),
        options.to_string(),
    ]
}

/// Runs a sending program to its end with the records as one JSON array on its standard input;
/// gives its standard output.
///
/// # Panics
/// When it fails.
#[track_caller]
fn feed(command: &mut Command, records: &[Value]) -> String {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot run {name}: {error}"));
    let text = Value::from(records.to_vec()).to_string();
    child
        .stdin
        .take()
        .expect("piped")
        .write_all(text.as_bytes())
        .expect("the program reads its input");
    let output = child.wait_with_output().expect("the program ends");
    assert!(
        output.status.success(),
        "{name} failed ({}): {}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
