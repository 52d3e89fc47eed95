//! Benchmark of one log call, against `tracing-subscriber` writing JSON to a file and the Go logger
//! in async mode (where Go is installed; the module proxy has the logger).
//!
//! Only the calls are measured. A server thread on the same machine reads and acknowledges
//! meanwhile, and between the rounds everything is flushed, so that no call meets a full buffer.

use std::error::Error;
use std::fs::{self, File};
use std::hint::black_box;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use fluent_logger::{Builder, FluentLayer, Logger};
use forward_protocol::msgpack::{Reader, Scanner};
use serde::Serialize;
use tracing::subscriber::with_default;
use tracing_subscriber::prelude::*;

/// Calls between two flushes.
const ROUND: u64 = 10_000;

#[derive(Serialize)]
struct Line<'a> {
    #[serde(rename = "traceId")]
    trace_id: &'a str,
    level: &'a str,
    service: &'a str,
    message: &'a str,
    status: u16,
    duration_ms: f64,
}

const LINE: Line<'static> = Line {
    trace_id: "4bf92f3577b34da6a3ce929d0e0e4736",
    level: "INFO",
    service: "checkout",
    message: "the order was taken and will be sent to the customer within three days",
    status: 200,
    duration_ms: 12.5,
};

/// A server that acknowledges everything.
fn server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let mut buffer = Vec::new();
                let mut part = vec![0; 256 * 1024];
                while let Ok(count @ 1..) = stream.read(&mut part) {
                    buffer.extend_from_slice(&part[..count]);
                    while let Ok(Some(end)) = Scanner::new(0, usize::MAX, 100).scan(&buffer) {
                        if let Some(id) = chunk_id(&buffer[..end]) {
                            let _ = stream.write_all(&[&b"\x81\xa3ack"[..], id].concat());
                        }
                        buffer.drain(..end);
                    }
                }
            });
        }
    });
    address
}

/// The value of `chunk` in the options of a message, which are its last element, as it stands
/// there.
fn chunk_id(message: &[u8]) -> Option<&[u8]> {
    let mut reader = Reader::new(message);
    for _ in 1..reader.array_len().ok()? {
        reader.raw(100).ok()?;
    }
    for _ in 0..reader.map_len().ok()? {
        let key = reader.str_or_bin().ok()?;
        let value = reader.raw(100).ok()?;
        if key == b"chunk" {
            return Some(value);
        }
    }
    None
}

fn logger(options: impl FnOnce(Builder) -> Builder) -> Logger {
    let builder = Logger::builder()
        .address(server().to_string())
        .buffer_limit(1_000_000)
        .buffer_limit_bytes(1 << 30)
        .own_thread(true);
    options(builder).build().expect("legal options")
}

/// Times `call` alone, and flushes outside of the time.
fn rounds(iterations: u64, logger: &Logger, mut call: impl FnMut()) -> Duration {
    let mut total = Duration::ZERO;
    let mut left = iterations;
    while left > 0 {
        let count = left.min(ROUND);
        let started = Instant::now();
        for _ in 0..count {
            call();
        }
        total += started.elapsed();
        left -= count;
        logger
            .blocking_flush(Duration::from_secs(60))
            .expect("the server reads");
    }
    total
}

fn compare(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("one call");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let direct = logger(|builder| builder);
    let spooled = logger(|builder| builder.spool(folder.path().join("spool")));
    for (name, logger) in [("log(struct)", &direct), ("log(struct), with a spool", &spooled)] {
        group.bench_function(format!("fluent-logger-rs: {name}"), |bencher| {
            bencher.iter_custom(|iterations| {
                rounds(iterations, logger, || {
                    logger.log("app", black_box(&LINE)).expect("there is room");
                })
            });
        });
    }
    let traced = logger(|builder| builder);
    let layer = FluentLayer::new(traced.clone(), "app");
    with_default(tracing_subscriber::registry().with(layer), || {
        group.bench_function("fluent-logger-rs: tracing layer", |bencher| {
            bencher.iter_custom(|iterations| rounds(iterations, &traced, event));
        });
    });
    let file = File::create(folder.path().join("lines.json")).expect("a file");
    let json = tracing_subscriber::fmt::layer()
        .json()
        .with_writer(std::sync::Mutex::new(file));
    with_default(tracing_subscriber::registry().with(json), || {
        group.bench_function("tracing-subscriber: JSON to a file", |bencher| {
            bencher.iter(event);
        });
    });
    for logger in [direct, spooled, traced] {
        assert_eq!(logger.stats().rejected, 0);
        assert_eq!(
            logger
                .blocking_close(Duration::from_secs(60))
                .expect("the worker answers"),
            []
        );
    }
    group.finish();
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    for acks in [true, false] {
        match go_logger(folder.path(), acks) {
            Ok(times) => println!("one call/fluent-logger-golang: async Post, acks {acks}: {times}"),
            Err(error) => println!("fluent-logger-golang was not measured: {error}"),
        }
    }
}

/// The cost of a call of the Go logger: the median of 30 rounds, and the fastest and the slowest.
fn go_logger(folder: &Path, acks: bool) -> Result<String, Box<dyn Error>> {
    let run = |command: &mut Command| -> Result<String, Box<dyn Error>> {
        let output = command.current_dir(folder).output()?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into());
        }
        Ok(String::from_utf8(output.stdout)?)
    };
    let program = folder.join("post");
    if !program.try_exists()? {
        fs::write(folder.join("main.go"), include_str!("async.go.txt"))?;
        fs::write(folder.join("go.mod"), "module post\n\ngo 1.21\n")?;
        run(Command::new("go").args(["get", "github.com/fluent/fluent-logger-golang/fluent@v1.10.2"]))?;
        run(Command::new("go").arg("build").arg("-o").arg(&program).arg("."))?;
    }
    let server = server();
    let output = run(Command::new(&program)
        .args([server.ip().to_string(), server.port().to_string()])
        .args([acks.to_string(), "30".to_owned(), ROUND.to_string()]))?;
    let mut times = output.lines().map(str::parse).collect::<Result<Vec<u64>, _>>()?;
    times.sort_unstable();
    let at = |share: usize| {
        times
            .get((times.len() - 1) * share / 2)
            .copied()
            .unwrap_or_default()
    };
    Ok(format!("{} ns ({} to {})", at(1), at(0), at(2)))
}

fn event() {
    tracing::info!(
        traceId = LINE.trace_id,
        service = LINE.service,
        status = LINE.status,
        duration_ms = LINE.duration_ms,
        "the order was taken and will be sent to the customer within three days"
    );
}

criterion_group!(benches, compare);
criterion_main!(benches);
