//! Adapter between the client cases of the conformance suite and this logger: commands as JSON
//! lines on stdin, events as JSON lines on stdout.
//!
//! Translates only; contract: "Adapter contract for the client cases", version 1.

use std::collections::HashMap;
use std::error::Error;
use std::io::{BufRead as _, Write as _};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fluent_logger::{Builder, ConnectionError, Event, Logger, Mode, OnFull, SendError};
use serde::ser::{Error as _, Serialize, SerializeMap as _, Serializer};
use serde_json::{Map, Value, json};

type Failure = Box<dyn Error + Send + Sync>;

/// Ids of events that are not settled, by what identifies them in what `close` returns.
type Open = Arc<Mutex<HashMap<Vec<u8>, Vec<u64>>>>;

fn main() -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(run())?;
    // Commands may still be waiting on stdin: leave without joining anything.
    runtime.shutdown_background();
    Ok(())
}

fn say(event: &Value) {
    let mut out = std::io::stdout().lock();
    // The suite may have ended.
    let _ = writeln!(out, "{event}");
    let _ = out.flush();
}

async fn run() -> Result<(), Failure> {
    let (lines, mut commands) = tokio::sync::mpsc::channel::<String>(1024);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { return };
            if lines.blocking_send(line).is_err() {
                return;
            }
        }
    });
    let mut client: Option<Client> = None;
    while let Some(line) = commands.recv().await {
        let command: Value = serde_json::from_str(&line)?;
        match (command["do"].as_str().unwrap_or_default(), &client) {
            ("open", _) => match Client::open(&command["client"]) {
                Ok(opened) => {
                    client = Some(opened);
                    say(&json!({ "event": "opened" }));
                }
                Err(Refusal::Unsupported(what)) => say(&json!({ "event": "unsupported", "what": what })),
                Err(Refusal::Error(error)) => say(&json!({ "event": "error", "error": error })),
            },
            ("send", Some(client)) => client.send(&command).await,
            ("burst", Some(client)) => client.burst(&command).await,
            ("flush", Some(client)) => {
                let flush = tokio::time::timeout(millis(&command["timeout_ms"]), client.logger.flush());
                let ok = flush.await.is_ok_and(|result| result.is_ok());
                say(&json!({ "event": "flushed", "ok": ok }));
            }
            ("stats", Some(client)) => {
                let stats = client.logger.stats();
                say(&json!({
                    "event": "stats", "delivered": stats.delivered, "dropped": stats.dropped + stats.given_up,
                    "retries": stats.resent, "errors": stats.connect_failures + stats.connection_losses,
                }));
            }
            ("close", Some(client)) => {
                client.close(millis(&command["timeout_ms"])).await;
                return Ok(());
            }
            (other, _) => say(&json!({ "event": "unsupported", "what": format!("command {other}") })),
        }
    }
    Ok(())
}

fn millis(value: &Value) -> Duration {
    Duration::from_millis(value.as_u64().unwrap_or(2000))
}

enum Refusal {
    Unsupported(String),
    Error(String),
}

struct Client {
    logger: Logger,
    tag: String,
    open: Open,
}

impl Client {
    fn open(options: &Value) -> Result<Self, Refusal> {
        let builder = configure(options)?.on_connection_error(|error: &ConnectionError| {
            say(&json!({ "event": "error", "error": error.to_string() }));
        });
        let logger = builder
            .build()
            .map_err(|error| Refusal::Error(error.to_string()))?;
        Ok(Self {
            logger,
            tag: options["tag"].as_str().unwrap_or("t").to_owned(),
            open: Arc::default(),
        })
    }

    async fn send(&self, command: &Value) {
        let id = command["id"].as_u64().unwrap_or(0);
        let tag = command["tag"].as_str().unwrap_or(&self.tag);
        let record = Record(&command["record"]);
        if let Some(bytes) = not_serde(&command["record"]) {
            // What serde cannot say goes as MessagePack; nobody waits for the delivery of these in
            // the cases.
            match self.logger.log_encoded(time_of(&command["time"]), tag, &bytes) {
                Ok(()) => say(&json!({ "event": "sent", "id": id, "took_ms": 0.0 })),
                Err(error) => say(&json!({ "event": "rejected", "id": id, "error": error.to_string() })),
            }
            return;
        }
        let (result, took) = self.hand_over(id, tag, time_of(&command["time"]), &record);
        let took = took.as_secs_f64() * 1000.0;
        match result {
            Ok(()) => say(&json!({ "event": "sent", "id": id, "took_ms": took })),
            Err(error) => say(&json!({ "event": "rejected", "id": id, "error": error })),
        }
    }

    /// One call as an application makes it; a task reports what became of the event.
    fn hand_over(
        &self,
        id: u64,
        tag: &str,
        time: SystemTime,
        record: &(impl Serialize + Sync),
    ) -> (Result<(), String>, Duration) {
        let key = key_of(tag, record);
        self.open
            .lock()
            .expect("no panic inside")
            .entry(key.clone())
            .or_default()
            .push(id);
        let started = Instant::now();
        let sending = tokio::task::block_in_place(|| self.logger.log_tracked(time, tag, record));
        let took = started.elapsed();
        let sending = match sending {
            Ok(sending) => sending,
            Err(rejected) => {
                forget(&self.open, &key, id);
                return (Err(rejected.to_string()), took);
            }
        };
        let open = Arc::clone(&self.open);
        tokio::spawn(async move {
            match sending.await {
                Ok(()) => {
                    forget(&open, &key, id);
                    say(&json!({ "event": "delivered", "ids": [id] }));
                }
                // `close` tells.
                Err(SendError::Closed) => {}
                Err(error) => {
                    forget(&open, &key, id);
                    say(&json!({ "event": "failed", "ids": [id], "error": error.to_string() }));
                }
            }
        });
        (Ok(()), took)
    }

    async fn burst(&self, command: &Value) {
        let number = |name: &str| command[name].as_u64().unwrap_or(0);
        let (first, count, threads) = (number("first_id"), number("count"), number("threads").max(1));
        let pad = "x".repeat(usize::try_from(number("pad")).unwrap_or(0));
        let tag = command["tag"].as_str().unwrap_or(&self.tag);
        let (mut slowest, mut rejected) = (Duration::ZERO, Vec::new());
        std::thread::scope(|scope| {
            let runtime = tokio::runtime::Handle::current();
            let workers: Vec<_> = (0..threads)
                .map(|thread| {
                    let (pad, runtime) = (&pad, runtime.clone());
                    scope.spawn(move || {
                        let _guard = runtime.enter();
                        let (mut slowest, mut rejected) = (Duration::ZERO, Vec::new());
                        for id in
                            (first + thread..first + count).step_by(usize::try_from(threads).unwrap_or(1))
                        {
                            let record = json!({ "log": "burst", "seq": id, "pad": pad });
                            let (result, took) = self.hand_over(id, tag, SystemTime::now(), &Record(&record));
                            slowest = slowest.max(took);
                            if result.is_err() {
                                rejected.push(id);
                            }
                        }
                        (slowest, rejected)
                    })
                })
                .collect();
            for worker in workers {
                let (took, refused) = worker.join().expect("no panic in a burst");
                slowest = slowest.max(took);
                rejected.extend(refused);
            }
        });
        let slowest = slowest.as_secs_f64() * 1000.0;
        say(&json!({ "event": "burst_done", "max_took_ms": slowest, "rejected": rejected }));
    }

    async fn close(&self, timeout: Duration) {
        let started = Instant::now();
        let events = self.logger.close(timeout).await;
        let took = started.elapsed().as_secs_f64() * 1000.0;
        // Reports of deliveries come before the farewell.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let ids: Vec<u64> = events.iter().filter_map(|event| self.id_of(event)).collect();
        say(&json!({ "event": "closed", "undelivered": ids, "took_ms": took }));
    }

    fn id_of(&self, event: &Event) -> Option<u64> {
        let mut key = event.tag().as_bytes().to_vec();
        key.extend_from_slice(event.record());
        let mut open = self.open.lock().expect("no panic inside");
        let ids = open.get_mut(&key)?;
        (!ids.is_empty()).then(|| ids.remove(0))
    }
}

fn forget(open: &Open, key: &[u8], id: u64) {
    if let Some(ids) = open.lock().expect("no panic inside").get_mut(key) {
        ids.retain(|other| *other != id);
    }
}

fn key_of(tag: &str, record: &impl Serialize) -> Vec<u8> {
    let mut key = tag.as_bytes().to_vec();
    key.extend(rmp_serde::to_vec_named(record).unwrap_or_default());
    key
}

fn time_of(value: &Value) -> SystemTime {
    let Some(seconds) = value[0].as_i64() else {
        return SystemTime::now();
    };
    let nanos = Duration::from_nanos(value[1].as_u64().unwrap_or(0));
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let time = if seconds < 0 {
        UNIX_EPOCH.checked_sub(whole)
    } else {
        UNIX_EPOCH.checked_add(whole)
    };
    time.and_then(|time| time.checked_add(nanos))
        .unwrap_or(UNIX_EPOCH)
}

/// A setter of the builder.
type Set<T> = fn(Builder, T) -> Builder;

fn configure(options: &Value) -> Result<Builder, Refusal> {
    let text = |name: &str| options[name].as_str();
    let number = |name: &str| options[name].as_u64();
    let size = |name: &str| number(name).and_then(|value| usize::try_from(value).ok());
    let time = |name: &str| number(name).map(Duration::from_millis);
    let mut builder = Logger::builder();
    let tls = options["tls"].is_object();
    for endpoint in options["endpoints"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
    {
        let scheme = if tls && !endpoint.starts_with("unix:") {
            "tls://"
        } else {
            ""
        };
        builder = builder.address(format!("{scheme}{endpoint}"));
    }
    if tls {
        builder = configure_tls(builder, &options["tls"])?;
    }
    builder = builder.mode(match text("mode") {
        Some("message") => Mode::Message,
        Some("forward") => Mode::Forward,
        Some("packed") | None => Mode::Packed,
        Some("packed_gzip") => gzip()?,
        Some(other) => return Err(Refusal::Unsupported(format!("mode {other}"))),
    });
    if let Some(ack) = options["ack"].as_bool() {
        builder = builder.request_ack(ack);
    }
    if let Some(key) = text("shared_key") {
        builder = builder.shared_key(key);
    }
    if let Some(name) = text("username") {
        builder = builder.user(name, text("password").unwrap_or_default());
    }
    if let Some(name) = text("self_hostname") {
        builder = builder.self_hostname(name);
    }
    let times: [(&str, Set<Duration>); 7] = [
        ("connect_timeout_ms", Builder::connect_timeout),
        ("handshake_timeout_ms", Builder::handshake_timeout),
        ("write_timeout_ms", Builder::write_timeout),
        ("ack_timeout_ms", Builder::ack_timeout),
        ("retry_initial_ms", Builder::retry_wait),
        ("retry_max_ms", Builder::max_retry_wait),
        ("flush_interval_ms", Builder::flush_interval),
    ];
    for (name, set) in times {
        if let Some(value) = time(name) {
            builder = set(builder, value);
        }
    }
    let sizes: [(&str, Set<usize>); 6] = [
        ("max_batch_bytes", Builder::chunk_limit_bytes),
        ("max_batch_events", Builder::chunk_limit_events),
        ("max_event_bytes", Builder::record_limit),
        ("buffer_bytes", Builder::buffer_limit_bytes),
        ("buffer_events", Builder::buffer_limit),
        ("pipeline", Builder::in_flight),
    ];
    for (name, set) in sizes {
        if let Some(value) = size(name) {
            builder = set(builder, value);
        }
    }
    if let Some(limit) = number("retry_limit").and_then(|value| u32::try_from(value).ok()) {
        builder = builder.max_retry(limit);
    }
    if let Some(age) = time("max_connection_age_ms") {
        builder = builder.async_reconnect_interval(age);
    }
    Ok(builder.on_full(match text("overflow") {
        Some("drop_oldest") => OnFull::DropOldest,
        Some("block") => OnFull::Wait(time("block_timeout_ms").unwrap_or(Duration::from_secs(1))),
        _ => OnFull::Refuse,
    }))
}

#[cfg(feature = "gzip")]
fn gzip() -> Result<Mode, Refusal> {
    Ok(Mode::PackedGzip)
}

#[cfg(not(feature = "gzip"))]
fn gzip() -> Result<Mode, Refusal> {
    Err(Refusal::Unsupported(
        "packed_gzip without the feature gzip".to_owned(),
    ))
}

#[cfg(feature = "tls")]
fn configure_tls(mut builder: Builder, tls: &Value) -> Result<Builder, Refusal> {
    if let Some(ca) = tls["ca"].as_str() {
        builder = builder.tls_ca_file(ca);
    }
    if let Some(name) = tls["server_name"].as_str() {
        builder = builder.tls_server_name(name);
    }
    if let (Some(cert), Some(key)) = (tls["cert"].as_str(), tls["key"].as_str()) {
        builder = builder.tls_client_cert(cert, key);
    }
    Ok(builder.tls_insecure_skip_verify(tls["insecure"].as_bool().unwrap_or(false)))
}

#[cfg(not(feature = "tls"))]
fn configure_tls(_: Builder, _: &Value) -> Result<Builder, Refusal> {
    Err(Refusal::Unsupported("tls without the feature tls".to_owned()))
}

/// A record as the suite describes it: JSON, with one-key objects for what JSON cannot say.
struct Record<'a>(&'a Value);

impl Serialize for Record<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Object(map) => match special(map) {
                Some(special) => special.serialize(serializer),
                None => {
                    let mut out = serializer.serialize_map(Some(map.len()))?;
                    for (key, value) in map {
                        out.serialize_entry(key, &Record(value))?;
                    }
                    out.end()
                }
            },
            Value::Array(items) => serializer.collect_seq(items.iter().map(Record)),
            other => other.serialize(serializer),
        }
    }
}

enum Special {
    Bytes(Vec<u8>),
    Text(Vec<u8>),
    Float(f64),
    Unsigned(u64),
    Signed(i64),
    Nest(u64),
}

fn special(map: &Map<String, Value>) -> Option<Special> {
    let (name, value) = map.iter().next().filter(|_| map.len() == 1)?;
    Some(match name.as_str() {
        "$bin" => Special::Bytes(from_hex(value.as_str()?)?),
        "$str" => Special::Text(from_hex(value.as_str()?)?),
        "$f64" => Special::Float(value.as_str()?.parse().ok()?),
        "$u64" => Special::Unsigned(value.as_str()?.parse().ok()?),
        "$i64" => Special::Signed(value.as_str()?.parse().ok()?),
        "$fill" => Special::Text(vec![b'x'; usize::try_from(value.as_u64()?).ok()?]),
        "$nest" => Special::Nest(value.as_u64()?),
        _ => return None,
    })
}

/// The record as MessagePack, if a text on its first level is not UTF-8: such a text is no Rust
/// string.
fn not_serde(record: &Value) -> Option<Vec<u8>> {
    use forward_protocol::msgpack::{write_map_len, write_str};
    let map = record.as_object()?;
    let raw = |value: &Value| match special(value.as_object()?)? {
        Special::Text(bytes) if std::str::from_utf8(&bytes).is_err() => Some(bytes),
        _ => None,
    };
    if !map.values().any(|value| raw(value).is_some()) {
        return None;
    }
    let mut out = Vec::new();
    write_map_len(&mut out, u32::try_from(map.len()).ok()?);
    for (key, value) in map {
        write_str(&mut out, key.as_bytes());
        match raw(value) {
            Some(bytes) => write_str(&mut out, &bytes),
            None => out.extend(rmp_serde::to_vec_named(&Record(value)).ok()?),
        }
    }
    Some(out)
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

impl Serialize for Special {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Bytes(bytes) => serializer.serialize_bytes(bytes),
            // `not_serde` takes those on the first level.
            Self::Text(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => serializer.serialize_str(text),
                Err(_) => serializer.serialize_bytes(bytes),
            },
            Self::Float(value) => serializer.serialize_f64(*value),
            Self::Unsigned(value) => serializer.serialize_u64(*value),
            Self::Signed(value) => serializer.serialize_i64(*value),
            Self::Nest(0) => serializer.serialize_u64(1),
            Self::Nest(depth) if *depth > 10_000 => Err(S::Error::custom("too deep to build")),
            Self::Nest(depth) => {
                let mut out = serializer.serialize_map(Some(1))?;
                out.serialize_entry("n", &Self::Nest(depth - 1))?;
                out.end()
            }
        }
    }
}
