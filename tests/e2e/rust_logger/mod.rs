//! The Rust logger in an application: with real Windrows that stop and restart, and with other real
//! servers.

mod outages;
mod peers;
mod restarts;
mod service;

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Command;

use fluent_logger::Event;
use serde_json::{Value, json};
use windrow_testkit::check::Stored;
use windrow_testkit::process::Process;

/// A record that is a trace of its own.
fn record(id: u64) -> Value {
    json!({ "traceId": format!("r{id}"), "id": id, "message": "request completed" })
}

fn id_of(event: &Event) -> u64 {
    event.deserialize::<Value>().unwrap()["id"].as_u64().unwrap()
}

/// How many documents each record is in; a document of more than its one line is damage.
fn documents_by_id(stored: &[Stored]) -> Result<HashMap<u64, usize>, String> {
    let mut found = HashMap::new();
    for document in stored {
        let Some(id) = document.source["id"].as_u64() else {
            continue;
        };
        *found.entry(id).or_default() += 1;
        if document.source["windrow"]["lines"] != 1 {
            return Err(format!("{} has another line: {}", document.id, document.source));
        }
    }
    Ok(found)
}

/// Each of these is in exactly one document, and nothing is in two.
fn exactly_once(stored: &[Stored], wanted: impl IntoIterator<Item = u64>) -> Result<(), String> {
    let found = documents_by_id(stored)?;
    if let Some((id, count)) = found.iter().find(|(_, count)| **count != 1) {
        return Err(format!("{id} is in {count} documents"));
    }
    let missing: Vec<u64> = wanted.into_iter().filter(|id| !found.contains_key(id)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let first = &missing[..missing.len().min(5)];
    Err(format!(
        "{} are in no document, {first:?} among them",
        missing.len()
    ))
}

/// Files made by `src/output/elasticsearch/tests/tls/make`: an authority, a server `localhost`, a
/// client.
fn tls(name: &str) -> PathBuf {
    [
        env!("CARGO_MANIFEST_DIR"),
        "src/output/elasticsearch/tests/tls",
        name,
    ]
    .iter()
    .collect()
}

/// This test program once more, running one test, which sees the environment variable
/// `CHILD_FOLDER` and becomes the application that is measured or killed.
fn child(test: &str, environment: &[(&str, &str)]) -> Process {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture"]);
    Process::start("the application", command.envs(environment.iter().copied()))
}
