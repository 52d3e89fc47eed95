//! Readers of the admin port who are slow or many: they lose events and are told how many, are
//! refused beyond the budget, and hold up neither intake nor the store.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use rusqlite::Connection;
use serde_json::Value;
use windrow_testkit::load::Load;
use windrow_testkit::server::Server;
use windrow_testkit::wait;

use crate::{SOON, assert_stored, windrow};

/// A request whose answer is not read yet.
fn ask(server: &Server, path: &str) -> TcpStream {
    let admin = server.admin();
    let address = admin.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    // A small window, so that what is not read waits in the server.
    rustix::net::sockopt::set_socket_recv_buffer_size(&stream, 4096).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    stream
}

/// The first line of an answer.
fn status(stream: &TcpStream) -> String {
    stream.set_read_timeout(Some(SOON)).unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line
}

#[test]
fn a_slow_reader_of_the_tail_is_told_how_many_traces_it_lost() {
    let server = windrow().sqlite().start();
    server.wait_ready();
    let stream = ask(&server, "/api/v1/tail");
    stream.set_read_timeout(Some(SOON)).unwrap();
    let mut lines = BufReader::new(&stream).lines();
    // The answer begins when the server knows the reader.
    assert_eq!(lines.next().unwrap().unwrap(), "HTTP/1.1 200 OK");
    let load = Load {
        traces: 30_000,
        lines: 1,
        ..Load::new(server.forward(), "slow-")
    };
    let report = load.run();
    let (mut seen, mut lost, mut events) = (0, 0, 0);
    while seen + lost < 30_000 {
        let line = lines.next().unwrap().unwrap();
        // Behind the size of each chunk.
        let Some(data) = line.strip_prefix("data: ") else {
            continue;
        };
        let event: Value = serde_json::from_str(data).unwrap();
        seen += event["traces"].as_array().unwrap().len() as u64;
        lost += event["lost"].as_u64().unwrap();
        events += 1;
    }
    assert_eq!(seen + lost, 30_000, "every trace was seen or counted, none twice");
    assert!(
        seen > 0 && lost > 0,
        "{seen} seen, {lost} lost in {events} events"
    );
    assert_stored(&server, &report);
}

#[test]
fn unread_answers_and_tails_hold_up_neither_intake_nor_probes() {
    let server = windrow().sqlite().start();
    server.wait_ready();
    let first = Load {
        traces: 2000,
        filler: 2000,
        ..Load::new(server.forward(), "first-")
    };
    assert_stored(&server, &first.run());
    let tails: Vec<_> = (0..64).map(|_| ask(&server, "/api/v1/tail")).collect();
    for tail in &tails {
        let line = status(tail);
        assert!(line.starts_with("HTTP/1.1 200 "), "{line}");
    }
    let refused = server.get("/api/v1/tail");
    assert_eq!(refused.status, 503, "{}", refused.text);
    assert!(refused.text.contains("64 readers"), "{}", refused.text);
    // Of about 20 MB each, of which two fit.
    let unread: Vec<_> = (0..40).map(|_| ask(&server, "/logs?limit=1000")).collect();
    let refused = wait::until("an answer beyond the budget", SOON, || {
        let answer = server.get("/api/v1/traces/nobody");
        if answer.status == 503 {
            Ok(answer)
        } else {
            Err(answer.status.to_string())
        }
    });
    assert!(refused.text.contains("memory for answers"), "{}", refused.text);
    let second = Load {
        traces: 20_000,
        ..Load::new(server.forward(), "second-")
    };
    let report = second.run();
    assert_stored(&server, &report);
    for path in ["/health", "/ready", "/metrics"] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
    drop((tails, unread));
    wait::until("room for others", SOON, || {
        match server.get("/api/v1/traces").status {
            200 => Ok(()),
            status => Err(status.to_string()),
        }
    });
}

/// The index is behind the store, never in front of it.
#[test]
fn documents_are_confirmed_while_the_index_cannot_be_written() {
    let server = windrow().sqlite().start();
    server.wait_ready();
    let before = Load {
        traces: 10,
        ..Load::new(server.forward(), "before-")
    };
    assert_stored(&server, &before.run());
    let lag = |wanted: f64| {
        wait::until("the lag of the index", SOON, || {
            match server.metric("windrow_search_lag_documents") {
                lag if lag == wanted => Ok(()),
                lag => Err(lag.to_string()),
            }
        });
    };
    // Found, since the lag is 0 as well before the index has looked at the store.
    wait::until("the first documents to be found", SOON, || {
        let page = server.get("/api/v1/traces?q=completed&limit=100").json();
        match page["traces"].as_array().map(Vec::len) {
            Some(10) => Ok(()),
            _ => Err(page.to_string()),
        }
    });
    lag(0.0);
    let index = Connection::open(server.data().join("windrow.db.search")).unwrap();
    index.busy_timeout(Duration::from_secs(30)).unwrap();
    index.execute_batch("BEGIN IMMEDIATE").unwrap();
    let during = Load {
        traces: 3000,
        ..Load::new(server.forward(), "during-")
    };
    let report = during.run();
    assert_stored(&server, &report);
    wait::until("every record to be confirmed", SOON, || {
        match server.metric("windrow_records_open") {
            0.0 => Ok(()),
            open => Err(open.to_string()),
        }
    });
    // Shown where people look, and searches go on with what is indexed.
    let page = wait::until("the lag in an answer", SOON, || {
        let page = server.get("/api/v1/traces?q=completed&limit=100").json();
        if page["lag"]["documents"].as_u64() > Some(0) {
            Ok(page)
        } else {
            Err(page["lag"].to_string())
        }
    });
    assert_eq!(page["traces"].as_array().unwrap().len(), 10);
    assert!(server.get("/api/v1/stats").json()["index"]["lag"].as_u64() > Some(0));
    index.execute_batch("ROLLBACK").unwrap();
    lag(0.0);
    let id = report.ledger.load().trace_id(2999);
    let found = server.get(&format!("/api/v1/traces?q=id:{id}")).json();
    assert_eq!(found["traces"].as_array().unwrap().len(), 1, "{found}");
}
