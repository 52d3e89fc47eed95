//! Promises of both inputs, by a ledger: what was accepted is stored once, complete and in order,
//! whatever happens to the server; and a client that gets no answer sends the same bytes again.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use windrow_testkit::disk::SmallDisk;
use windrow_testkit::fake_elasticsearch::FakeElasticsearch;
use windrow_testkit::load::{Ledger, Load};
use windrow_testkit::{check, need, wait};

use super::HttpServer;
use crate::{SOON, windrow};

const BATCH: usize = 50;
const CLIENTS: usize = 4;

/// The bodies of a load, and what became of them.
struct Sending {
    address: SocketAddr,
    path: &'static str,
    bodies: Vec<Vec<u8>>,
    ledger: Ledger,
    next: AtomicUsize,
    accepted: AtomicUsize,
    failures: AtomicUsize,
    /// The last answer that asked to send again.
    unavailable: Mutex<Option<String>>,
}

impl Sending {
    fn new(http: &HttpServer, otlp: bool, prefix: &str, traces: u64) -> Self {
        let load = Load {
            traces,
            open: 300,
            ..Load::new(http.server.forward(), prefix)
        };
        let (records, ledger) = load.by_logger();
        let body = |records: &[Value]| match otlp {
            true => logs(records).to_string().into_bytes(),
            false => Value::from(records).to_string().into_bytes(),
        };
        Self {
            address: if otlp { http.otlp } else { http.address },
            path: if otlp { "/v1/logs" } else { "/app" },
            bodies: records.chunks(BATCH).map(body).collect(),
            ledger,
            next: AtomicUsize::new(0),
            accepted: AtomicUsize::new(0),
            failures: AtomicUsize::new(0),
            unavailable: Mutex::new(None),
        }
    }

    /// Sends bodies until all are accepted, each again and again until it is.
    fn client(&self) {
        loop {
            let number = self.next.fetch_add(1, Ordering::SeqCst);
            let Some(body) = self.bodies.get(number) else {
                return;
            };
            // Some are sent once more, as if the answer had been lost.
            for _ in 0..=usize::from(number.is_multiple_of(7)) {
                while let Err(error) = self.send(number, body) {
                    assert!(!error.starts_with("HTTP/1.1 4"), "{error}");
                    self.failures.fetch_add(1, Ordering::SeqCst);
                    if error.starts_with("HTTP") {
                        *self.unavailable.lock().unwrap() = Some(error);
                    }
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
            self.accepted.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn send(&self, number: usize, body: &[u8]) -> Result<(), String> {
        let failed = |error: std::io::Error| error.to_string();
        let mut stream = TcpStream::connect(self.address).map_err(failed)?;
        stream.set_read_timeout(Some(SOON)).unwrap();
        let path = self.path;
        // OTLP has no keys: an equal request is known by its content.
        let key = match path {
            "/app" => format!("Idempotency-Key: body-{number}\r\n"),
            _ => String::new(),
        };
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n{key}Content-Length: {}\r\n\r\n",
            body.len()
        );
        stream
            .write_all(&[head.as_bytes(), body].concat())
            .map_err(failed)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map_err(failed)?;
        match answer.starts_with("HTTP/1.1 200 ") {
            true => Ok(()),
            false if answer.is_empty() => Err("no answer".into()),
            false => Err(answer),
        }
    }

    fn wait_accepted(&self, bodies: usize) {
        wait::until("accepted bodies", 2 * SOON, || {
            let accepted = self.accepted.load(Ordering::SeqCst);
            if accepted >= bodies {
                Ok(())
            } else {
                Err(format!("{accepted} of {bodies}"))
            }
        });
    }
}

/// Records as OTLP: their fields become the body of a log record.
fn logs(records: &[Value]) -> Value {
    let records: Vec<Value> = records
        .iter()
        .map(|record| {
            let mut fields = record.as_object().unwrap().clone();
            let time = fields.remove("_time").and_then(|time| time.as_f64()).unwrap();
            #[expect(clippy::cast_possible_truncation, reason = "a time of this century")]
            let nanoseconds = (time * 1e9) as i64;
            json!({"timeUnixNano": nanoseconds.to_string(), "body": any(&fields.into())})
        })
        .collect();
    json!({"resourceLogs": [{
        "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "orders"}}]},
        "scopeLogs": [{"scope": {"name": "ledger"}, "logRecords": records}],
    }]})
}

fn any(value: &Value) -> Value {
    match value {
        Value::Null => json!({}),
        Value::Bool(value) => json!({"boolValue": value}),
        Value::Number(number) if number.is_f64() => json!({"doubleValue": number}),
        Value::Number(number) => json!({"intValue": number.to_string()}),
        Value::String(text) => json!({"stringValue": text}),
        Value::Array(values) => json!({"arrayValue": {"values": values.iter().map(any).collect::<Vec<_>>()}}),
        Value::Object(pairs) => {
            let pairs = pairs
                .iter()
                .map(|(key, value)| json!({"key": key, "value": any(value)}));
            json!({"kvlistValue": {"values": pairs.collect::<Vec<_>>()}})
        }
    }
}

fn survives_kills(otlp: bool) {
    let mut http = HttpServer::start(windrow().sqlite().env("WINDROW_HTTP_TIME_KEY", "_time"));
    let sending = Sending::new(&http, otlp, "k", 4000);
    let bodies = sending.bodies.len();
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| sending.client());
        }
        for kill in 1..=10 {
            sending.wait_accepted(bodies * kill / 11);
            std::thread::sleep(Duration::from_millis(kill as u64 * 37 % 90));
            http.server.crash();
        }
    });
    let failures = sending.failures.load(Ordering::SeqCst);
    assert!(failures > 0, "no kill was noticed, so nothing is shown");
    check::eventually(&sending.ledger, 2 * SOON, || http.server.stored()).assert_clean();
    wait::until_true("the audit to be even", SOON, || {
        http.server.metric("windrow_audit_difference") == 0.0
    });
    assert!(http.server.terminate(SOON).success());
    check::compare(&sending.ledger, &http.server.stored()).assert_clean();
}

#[test]
fn accepted_requests_survive_kills_and_resends() {
    survives_kills(false);
}

#[test]
fn accepted_otlp_requests_survive_kills_and_resends() {
    survives_kills(true);
}

fn waits_for_space(otlp: bool) {
    let disk = need!(SmallDisk::mount(24 << 20));
    let other = disk.outside().join("other");
    fs::write(&other, vec![1; 14 << 20]).unwrap();
    let mut sink = FakeElasticsearch::stopped();
    let setup = windrow().on(&disk).elasticsearch(&sink.url(), "full");
    let mut http = HttpServer::start(setup.env("WINDROW_HTTP_TIME_KEY", "_time"));
    let sending = Sending::new(&http, otlp, "full-", 8000);
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| sending.client());
        }
        let asked = wait::until("an answer that asks to send again", 2 * SOON, || {
            sending
                .unavailable
                .lock()
                .unwrap()
                .clone()
                .ok_or_else(|| "none".into())
        });
        let lower = asked.to_ascii_lowercase();
        assert!(
            lower.starts_with("http/1.1 503 ") && lower.contains("retry-after: 5"),
            "{asked}"
        );
        assert!(asked.contains("no space"), "{asked}");
        assert!(sending.accepted.load(Ordering::SeqCst) < sending.bodies.len());
        http.server.crash();
        fs::remove_file(&other).unwrap();
        sink.start_again();
    });
    check::eventually(&sending.ledger, 2 * SOON, || sink.documents("full-")).assert_clean();
    http.server.wait_ready();
    assert!(http.server.terminate(SOON).success());
    check::compare(&sending.ledger, &sink.documents("full-")).assert_clean();
}

#[test]
fn a_full_disk_is_answered_with_a_time_to_send_again() {
    waits_for_space(false);
}

#[test]
fn a_full_disk_is_answered_to_otlp_too() {
    waits_for_space(true);
}
