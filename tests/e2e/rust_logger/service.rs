//! The axum example as an application: its requests become whole documents, whoever is killed; and
//! every serde type becomes what JSON has for it.

#[path = "../../../fluent-logger-rs/examples/axum.rs"]
mod example;

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use fluent_logger::Logger;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde::Serialize;
use serde_json::{Value, json};
use windrow_testkit::check::Stored;
use windrow_testkit::process::Process;
use windrow_testkit::wait;

use super::child;
use crate::{SOON, windrow};

const SERVICE: &str = "rust_logger::service::requests_are_whole_documents_whoever_is_killed";

/// How many requests each run of the service answers before it is killed.
const REQUESTS: u64 = 40;

struct Service {
    process: Process,
    address: SocketAddr,
}

impl Service {
    fn start(spool: &Path, forward: SocketAddr) -> Self {
        let mut process = child(
            SERVICE,
            &[
                ("CHILD_FOLDER", ""),
                ("SPOOL", spool.to_str().unwrap()),
                ("LISTEN", "127.0.0.1:0"),
                ("FLUENT_LOGGER_ADDRESS", &forward.to_string()),
                ("FLUENT_LOGGER_ENVIRONMENT", "test"),
            ],
        );
        let address = process.line("its address", SOON, |line| {
            line.split_once("listening on ")?.1.parse().ok()
        });
        Self { process, address }
    }

    /// The head of the answer to a request.
    fn get(&self, path: &str, trace: &str) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: shop\r\nX-Trace-Id: {trace}\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        answer
    }

    fn shop(&self, id: u64) {
        let answer = self.get(&format!("/cart/{id}"), &format!("cart-{id}"));
        assert!(answer.contains(&format!("x-trace-id: cart-{id}\r\n")), "{answer}");
    }
}

/// Each of these requests is one document with both of its lines.
fn whole(stored: &[Stored], requests: impl IntoIterator<Item = u64>) -> Result<(), String> {
    let mut found: HashMap<&str, Vec<&Value>> = HashMap::new();
    for document in stored {
        let id = document.source["traceId"].as_str().unwrap_or_default();
        found.entry(id).or_default().push(&document.source);
    }
    for id in requests {
        match found.get(format!("cart-{id}").as_str()).map(Vec::as_slice) {
            Some([document])
                if document["windrow"]["lines"] == 2
                    && document["status"] == 200
                    && document["items"] == id % 5
                    && document["path"] == format!("/cart/{id}")
                    && document["service"] == "shop"
                    && document["environment"] == "test"
                    && document["latencyMs"].is_number() => {}
            other => return Err(format!("request {id}: {other:?}")),
        }
    }
    Ok(())
}

#[test]
fn requests_are_whole_documents_whoever_is_killed() {
    if std::env::var_os("CHILD_FOLDER").is_some() {
        return example::main().unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let spool = folder.path().join("spool");
    let mut server = windrow().sqlite().start();
    let mut answered = 0;
    for life in 0..6 {
        let mut service = Service::start(&spool, server.forward());
        // In some lives the server dies first, while requests are answered.
        let server_dies = life % 2 == 1;
        for id in answered..answered + REQUESTS {
            if server_dies && id == answered + REQUESTS / 2 {
                server.kill();
            }
            service.shop(id);
        }
        service.get("/synced", "sync");
        answered += REQUESTS;
        service.process.kill();
        if server_dies {
            server.start_again();
        }
    }
    let mut service = Service::start(&spool, server.forward());
    wait::until("every answered request in one whole document", SOON, || {
        whole(&server.stored(), 0..answered)
    });
    // A trace ends with its request, long before it would be given up as silent (30 s).
    let asked = Instant::now();
    service.shop(answered);
    wait::until("the trace of one more request", Duration::from_secs(20), || {
        whole(&server.stored(), [answered])
    });
    let reason = server
        .stored()
        .iter()
        .find(|document| document.source["traceId"] == format!("cart-{answered}"))
        .map(|document| document.source["windrow"]["reason"].clone());
    assert_eq!(reason, Some(json!("completed")));
    println!(
        "{answered} requests; a trace is stored {:?} after its request",
        asked.elapsed()
    );
    service.process.kill();
    assert!(server.terminate(SOON).success());
    whole(&server.stored(), 0..=answered).unwrap();
}

#[derive(Debug, Clone, Serialize)]
enum Choice {
    Unit,
    Newtype(i32),
    Tuple(u8, String),
    Struct { a: Option<bool> },
}

impl Choice {
    fn expected(&self) -> Value {
        match self {
            Self::Unit => json!("Unit"),
            Self::Newtype(n) => json!({ "Newtype": n }),
            Self::Tuple(a, b) => json!({ "Tuple": [a, b] }),
            Self::Struct { a } => json!({ "Struct": { "a": a } }),
        }
    }
}

/// Serialised as bytes.
#[derive(Debug, Clone)]
struct Bytes(Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

#[derive(Debug, Clone, Serialize)]
struct Types {
    flag: bool,
    small: i8,
    long: i64,
    longest: u64,
    wide: i128,
    widest: u128,
    single: f32,
    double: f64,
    nan: f32,
    letter: char,
    text: String,
    bytes: Bytes,
    option: Option<u16>,
    unit: (),
    choice: Choice,
    pair: (u8, bool),
    list: Vec<i16>,
    by_number: HashMap<i32, bool>,
    by_letter: HashMap<char, u8>,
}

fn types() -> impl Strategy<Value = Types> {
    let choice = prop_oneof![
        Just(Choice::Unit),
        any::<i32>().prop_map(Choice::Newtype),
        any::<(u8, String)>().prop_map(|(a, b)| Choice::Tuple(a, b)),
        any::<Option<bool>>().prop_map(|a| Choice::Struct { a }),
    ];
    let numbers = any::<(bool, i8, i64, u64, i128, u128)>();
    // Eighths, which both widths of floats and their decimal texts hold exactly.
    let floats = (-100_000i32..100_000, -1_000_000_000i64..1_000_000_000);
    let texts = any::<(char, String, Vec<u8>, Option<u16>)>();
    let more = any::<((u8, bool), Vec<i16>, HashMap<i32, bool>, HashMap<char, u8>)>();
    (numbers, floats, texts, choice, more).prop_map(|(numbers, floats, texts, choice, more)| Types {
        flag: numbers.0,
        small: numbers.1,
        long: numbers.2,
        longest: numbers.3,
        wide: numbers.4,
        widest: numbers.5,
        single: floats.0 as f32 / 8.0,
        double: floats.1 as f64 / 8.0,
        nan: f32::NAN,
        letter: texts.0,
        text: texts.1,
        bytes: Bytes(texts.2),
        option: texts.3,
        unit: (),
        choice,
        pair: more.0,
        list: more.1,
        by_number: more.2,
        // As a name: blanks, dots and control characters get another one.
        by_letter: more
            .3
            .into_iter()
            .filter(|(letter, _)| letter.is_alphanumeric())
            .collect(),
    })
}

impl Types {
    /// What the document should have.
    fn expected(&self) -> Value {
        let wide = match (i64::try_from(self.wide), u64::try_from(self.wide)) {
            (Ok(n), _) => json!(n),
            (_, Ok(n)) => json!(n),
            _ => json!(self.wide.to_string()),
        };
        let widest = match u64::try_from(self.widest) {
            Ok(n) => json!(n),
            Err(_) => json!(self.widest.to_string()),
        };
        // The server takes bytes that are UTF-8 for text.
        let bytes =
            String::from_utf8(self.bytes.0.clone()).unwrap_or_else(|error| BASE64.encode(error.as_bytes()));
        json!({
            "flag": self.flag, "small": self.small, "long": self.long, "longest": self.longest,
            "wide": wide, "widest": widest, "single": self.single, "double": self.double, "nan": null,
            "letter": self.letter, "text": self.text, "bytes": bytes,
            "option": self.option, "unit": null, "choice": self.choice.expected(), "pair": self.pair,
            "list": self.list, "by_number": self.by_number, "by_letter": self.by_letter,
        })
    }
}

/// Records of the property test.
const RECORDS: usize = 300;

#[test]
fn every_serde_type_is_stored_as_json_has_it() {
    let server = windrow().sqlite().start();
    let logger = Logger::builder()
        .address(server.forward().to_string())
        .build()
        .unwrap();
    let mut runner = TestRunner::deterministic();
    let strategy = types();
    let mut values: Vec<Types> = (0..RECORDS)
        .map(|_| strategy.new_tree(&mut runner).unwrap().current())
        .collect();
    // Random integers of 128 bits hardly ever fit 64.
    for (value, n) in values.iter_mut().zip(0u32..).step_by(3) {
        value.wide = -i128::from(n);
        value.widest = u128::from(u64::MAX) + u128::from(n % 2);
    }
    for (id, value) in values.iter().enumerate() {
        let record = json!({ "id": id });
        #[derive(Serialize)]
        struct Line<'a> {
            #[serde(rename = "traceId")]
            trace_id: String,
            message: &'a str,
            #[serde(flatten)]
            record: Value,
            value: &'a Types,
        }
        logger
            .log(
                "types",
                &Line {
                    trace_id: format!("types-{id}"),
                    message: "request completed",
                    record,
                    value,
                },
            )
            .unwrap();
    }
    assert_eq!(logger.blocking_close(SOON).unwrap(), []);
    wait::until("every record in its document", SOON, || {
        let stored = server.stored();
        if stored.len() < RECORDS {
            return Err(format!("{} documents", stored.len()));
        }
        Ok(())
    });
    for document in server.stored() {
        let id = usize::try_from(document.source["id"].as_u64().unwrap()).unwrap();
        // Text and back: a float of 32 bits has another value in 64 than its decimal text.
        let expected = serde_json::to_string(&values[id].expected()).unwrap();
        let expected: Value = serde_json::from_str(&expected).unwrap();
        assert_eq!(document.source["value"], expected, "{:?}", values[id]);
    }
}
