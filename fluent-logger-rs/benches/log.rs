//! What a log call costs its caller, against what a user would take instead: `tracing-subscriber` writing JSON to a
//! file.
//!
//! Only the calls are measured. A server thread on the same machine reads and acknowledges meanwhile, and between the
//! rounds everything is flushed, so that no call meets a full buffer.

use std::fs::File;
use std::hint::black_box;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use fluent_logger::{FluentLayer, Logger};
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
                        let mut reader = Reader::new(&buffer[..end]);
                        let mut ack = b"\x81\xa3ack".to_vec();
                        let _ = reader.array_len();
                        let _ = (
                            reader.raw(100),
                            reader.raw(100),
                            reader.map_len(),
                            reader.raw(100),
                        );
                        ack.extend_from_slice(reader.raw(100).unwrap_or_default());
                        let _ = stream.write_all(&ack);
                        buffer.drain(..end);
                    }
                }
            });
        }
    });
    address
}

fn logger() -> Logger {
    Logger::builder()
        .address(server().to_string())
        .buffer_limit(1_000_000)
        .buffer_limit_bytes(1 << 30)
        .own_thread(true)
        .build()
        .expect("legal options")
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
    let direct = logger();
    group.bench_function("fluent-logger-rs: log(struct)", |bencher| {
        bencher.iter_custom(|iterations| {
            rounds(iterations, &direct, || {
                direct.log("app", black_box(&LINE)).expect("there is room");
            })
        });
    });
    let traced = logger();
    let layer = FluentLayer::new(traced.clone(), "app");
    with_default(tracing_subscriber::registry().with(layer), || {
        group.bench_function("fluent-logger-rs: tracing layer", |bencher| {
            bencher.iter_custom(|iterations| rounds(iterations, &traced, event));
        });
    });
    let file = File::create(std::env::temp_dir().join("fluent-logger-bench.json")).expect("a file");
    let json = tracing_subscriber::fmt::layer()
        .json()
        .with_writer(std::sync::Mutex::new(file));
    with_default(tracing_subscriber::registry().with(json), || {
        group.bench_function("tracing-subscriber: JSON to a file", |bencher| {
            bencher.iter(event);
        });
    });
    assert_eq!((direct.stats().rejected, traced.stats().rejected), (0, 0));
    group.finish();
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
