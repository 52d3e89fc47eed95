//! Dead letter: documents that Elasticsearch rejects for good are kept complete, with the reason,
//! while the others are delivered; `windrow replay` sends them again when the cause is fixed.

use std::process::Command;

use serde_json::Value;
use windrow_testkit::check;
use windrow_testkit::fake_elasticsearch::{FakeElasticsearch, Faults};
use windrow_testkit::load::Load;
use windrow_testkit::server::Server;
use windrow_testkit::wait;

use crate::{SOON, windrow};

/// All entries in the data folder.
fn entries(folder: &std::path::Path) -> Vec<Value> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(entries(&path));
        } else if path.extension().is_some_and(|end| end == "ndjson") {
            let text = std::fs::read_to_string(path).unwrap();
            found.extend(
                text.lines()
                    .map(|line| serde_json::from_str::<Value>(line).unwrap()),
            );
        }
    }
    found
}

fn replay(server: &Server, url: &str, more: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_windrow"));
    command.args([
        "replay",
        "--output",
        "elasticsearch",
        "--elasticsearch-url",
        url,
        "--index",
        "poison-%Y-%m-%d",
        "--data-dir",
    ]);
    let output = command.arg(server.data()).args(more).output().unwrap();
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{}: {said}", output.status);
    said
}

#[test]
fn poison_is_put_aside_and_replayed() {
    let sink = FakeElasticsearch::with(Faults {
        poison: Some("of poison-1".to_owned()),
        item_429_every: 40,
        ..Faults::default()
    });
    let mut server = windrow().elasticsearch(&sink.url(), "poison").start();
    let report = Load {
        traces: 300,
        ..Load::new(server.forward(), "poison-")
    }
    .run();
    // 1, 10 to 19 and 100 to 199.
    wait::until("the dead letter", SOON, || {
        let (dead, good) = (entries(server.data()).len(), sink.documents("poison-").len());
        if (dead, good) == (111, 189) {
            Ok(())
        } else {
            Err(format!("{dead} dead, {good} stored"))
        }
    });
    for entry in entries(server.data()) {
        assert_eq!(entry["source"], "elasticsearch");
        assert_eq!(entry["status"], 400);
        assert!(
            entry["reason"]
                .as_str()
                .unwrap()
                .contains("failed to parse field [poison]"),
            "{entry}"
        );
        assert_eq!(
            entry["document"]["message"].as_str().unwrap().split('\n').count(),
            5
        );
        assert!(entry["index"].as_str().unwrap().starts_with("poison-2026"));
    }
    // Each is counted a moment after it is in its file.
    wait::until("the counter of dead letters", SOON, || {
        let counted = server.metric("windrow_dead_letter_documents_total");
        if (counted - 111.0).abs() < 0.5 {
            Ok(())
        } else {
            Err(format!("{counted} counted"))
        }
    });
    wait::until("/ready to mention it", SOON, || {
        let answer = server.get("/ready");
        if answer.text.to_lowercase().contains("dead") {
            Ok(())
        } else {
            Err(answer.text)
        }
    });

    let before = replay(&server, &sink.url(), &["--dry-run"]);
    assert!(before.contains("111"), "{before}");
    assert_eq!(entries(server.data()).len(), 111);
    replay_still_refused(&server, &sink);
    sink.set(Faults::default());
    replay(&server, &sink.url(), &[]);
    assert_eq!(entries(server.data()).len(), 0);
    check::compare(&report.ledger, &sink.documents("poison-")).assert_clean();
    assert!(server.terminate(SOON).success());
}

/// What is refused again stays.
fn replay_still_refused(server: &Server, sink: &FakeElasticsearch) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_windrow"));
    command.args([
        "replay",
        "--output",
        "elasticsearch",
        "--elasticsearch-url",
        &sink.url(),
        "--data-dir",
    ]);
    // Its exit status is not fixed: something is left.
    command.arg(server.data()).output().unwrap();
    assert_eq!(entries(server.data()).len(), 111);
}
