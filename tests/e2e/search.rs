//! Search of the embedded store through the API and the command line: what was sent is found, with
//! its lines, also after a crash and after late lines.

use std::process::{Command, Output};

use serde_json::{Value, json};
use windrow_testkit::client::Client;
use windrow_testkit::http;
use windrow_testkit::load::Load;
use windrow_testkit::server::Server;
use windrow_testkit::wait;

use crate::{SOON, assert_stored, windrow};

const SECOND: u32 = 1_790_000_000;

fn send(server: &Server, chunk: &str, id: &str, lines: &[(u32, &str, &str, &str)]) {
    let lines: Vec<_> = lines
        .iter()
        .map(|(ms, level, service, text)| {
            let line = json!({"traceId": id, "level": level, "service_name": service, "message": text});
            (SECOND + ms / 1000, ms % 1000 * 1_000_000, line)
        })
        .collect();
    Client::connect(server.forward()).send("app.web", chunk, &lines);
}

fn order(server: &Server) {
    send(
        server,
        "c1",
        "order-1",
        &[
            (0, "info", "order", "handler started"),
            (250, "error", "payment", "card \u{1b}[31m refused\nat line 2"),
            (1750, "info", "order", "request completed"),
        ],
    );
    send(
        server,
        "c2",
        "order-2",
        &[(5000, "info", "order", "request completed")],
    );
}

fn traces(server: &Server, query: &str) -> Vec<Value> {
    let answer = server.get(&format!("/api/v1/traces?{query}"));
    assert_eq!(answer.status, 200, "{query}: {}", answer.text);
    answer.json()["traces"].as_array().unwrap().clone()
}

fn wait_for(server: &Server, query: &str, count: usize) -> Vec<Value> {
    wait::until(query, SOON, || match traces(server, query) {
        found if found.len() == count => Ok(found),
        found => Err(format!("{} found", found.len())),
    })
}

/// Runs a command of the program under test.
fn run(server: &Server, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_windrow"))
        .args(arguments)
        .args(["--url", &server.admin()])
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn traces_are_found_with_their_lines() {
    let server = windrow().sqlite().start();
    order(&server);
    let found = wait_for(&server, "q=refused", 1);
    assert_eq!(found[0]["id"], "order-1");
    assert_eq!(found[0]["durationMs"].as_f64(), Some(1750.0));
    assert_eq!(found[0]["text"], "card  refused");
    wait_for(&server, "q=request+completed&sort=oldest", 2);
    wait_for(&server, "q=duration:%3E1s", 1);
    wait_for(&server, "q=tag:app.web+-refused", 1);
    let trace = server.get("/api/v1/traces/order-1").json();
    let lines = trace["traces"][0]["lines"].as_array().unwrap().clone();
    let times: Vec<_> = lines
        .iter()
        .map(|line| line["offsetMs"].as_f64().unwrap())
        .collect();
    assert_eq!(times, [0.0, 250.0, 1750.0]);
    assert_eq!(lines[1]["text"], "card  refused\nat line 2");
    assert_eq!(server.get("/api/v1/traces/nobody").status, 404);
    let counts = server
        .get(&format!(
            "/api/v1/histogram?from={SECOND}000&to={SECOND}999&buckets=1"
        ))
        .json();
    assert_eq!(counts["buckets"].as_array().unwrap().len(), 1);
    let facets = server.get("/api/v1/facets").json();
    assert_eq!(facets["tags"], json!([{"value": "app.web", "count": 2}]));
}

#[test]
fn late_lines_and_a_crash_change_what_is_found() {
    let mut server = windrow().sqlite().start();
    order(&server);
    wait_for(&server, "q=refused", 1);
    send(
        &server,
        "c3",
        "order-2",
        &[(6000, "warn", "mail", "straggler came late")],
    );
    let found = wait_for(&server, "q=straggler", 1);
    assert_eq!(
        (&found[0]["id"], &found[0]["lines"]),
        (&json!("order-2"), &json!(2))
    );
    let report = Load {
        traces: 3000,
        ..Load::new(server.forward(), "s-")
    }
    .run();
    server.crash();
    assert_stored(&server, &report);
    let one = report.ledger.load().trace_id(2999);
    wait_for(&server, &format!("q={one}"), 1);
    wait_for(&server, "q=straggler", 1);
    wait::until("the index to be complete", SOON, || {
        match server.metric("windrow_search_lag_documents") {
            0.0 => Ok(()),
            lag => Err(format!("{lag} documents behind")),
        }
    });
    let facets = server.get("/api/v1/facets").json();
    let levels = facets["levels"].as_array().unwrap();
    let count: u64 = levels.iter().map(|level| level["count"].as_u64().unwrap()).sum();
    assert_eq!(count, 3002, "{facets}");
}

#[test]
fn the_command_line_searches_and_shows_a_trace() {
    let server = windrow().sqlite().start();
    order(&server);
    wait_for(&server, "q=completed", 2);
    let plain = run(&server, &["search", "refused", "duration:>1s"]);
    let said = text(&plain.stdout);
    assert!(
        plain.status.success() && said.contains("order-1") && said.contains("1.75 s"),
        "{plain:?}"
    );
    assert_eq!(said.lines().count(), 1);
    assert!(
        !said.contains('\u{1b}'),
        "neither colours nor what a log wrote: {said:?}"
    );
    let json = text(&run(&server, &["search", "--json", "--sort", "oldest", "--limit", "1"]).stdout);
    let line: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(line["id"], "order-1");
    assert!(
        text(&run(&server, &["search", "--since", "1h"]).stdout).is_empty(),
        "the events are older"
    );

    let shown = text(&run(&server, &["trace", "order-1"]).stdout);
    let place = |what: &str| shown.find(what).unwrap_or_else(|| panic!("no {what}: {shown}"));
    assert!(
        place("handler started") < place("refused") && place("at line 2") < place("+1.75 s"),
        "{shown}"
    );
    assert!(!shown.contains('\u{1b}'));
    let json = text(&run(&server, &["trace", "order-1", "--json"]).stdout);
    assert_eq!(json.lines().count(), 3);

    let wrong = run(&server, &["search", "a level:loud"]);
    let said = text(&wrong.stderr);
    assert_eq!(wrong.status.code(), Some(64));
    assert!(said.contains("  a level:loud\n          ^^^^"), "{said}");
    assert_eq!(run(&server, &["trace", "nobody"]).status.code(), Some(1));
}

#[test]
fn search_needs_the_token_and_can_be_switched_off() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = windrow()
        .sqlite()
        .data(&data)
        .arg("--admin-token", "secret")
        .start();
    for path in [
        "/api/v1/traces",
        "/api/v1/traces/a",
        "/api/v1/histogram",
        "/api/v1/facets",
        "/api/v1/openapi.json",
    ] {
        assert_eq!(
            http::get(&format!("{}{path}", server.admin())).unwrap().status,
            401,
            "{path}"
        );
    }
    let refused = run(&server, &["search", "a"]);
    assert!(
        !refused.status.success() && text(&refused.stderr).contains("--token"),
        "{refused:?}"
    );
    let allowed = run(&server, &["search", "a", "--token", "secret"]);
    assert!(allowed.status.success(), "{allowed:?}");
    let index = server.data().join("windrow.db.search");
    assert!(index.is_file());

    let off = windrow()
        .sqlite()
        .data(server.data().to_path_buf())
        .env("WINDROW_SQLITE_SEARCH", "false");
    drop(server);
    let off = off.start();
    assert_eq!(off.get("/api/v1/traces").status, 501);
    assert!(!index.try_exists().unwrap(), "it would not be up to date");
}
