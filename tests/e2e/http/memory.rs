//! Memory of the HTTP input: nothing stays of any number of requests, and hostile bodies stay
//! within the limit.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};
use windrow_bench::store::CountingStore;
use windrow_testkit::fluent_bit;
use windrow_testkit::server::Server;
use windrow_testkit::{ports, wait};

use super::{HttpServer, gzip, post};
use crate::{SOON, windrow};

const MIB: u64 = 1 << 20;

/// Name, connections, headers, body, requests, keep-alive.
type Trial<'a> = (&'a str, usize, &'a str, &'a [u8], usize, bool);
/// Address, path, headers, body, expected status.
type Hostile<'a> = (SocketAddr, &'a str, &'a [(&'a str, &'a str)], &'a [u8], u16);

/// What is sent in the trials.
fn body_of(bytes: usize) -> Vec<u8> {
    let record = json!({"traceId": "leak", "message": "x".repeat(900), "level": "info", "status": 200});
    let count = (bytes / record.to_string().len()).max(1);
    Value::from(vec![record; count]).to_string().into_bytes()
}

/// Sends a body `count` times over one connection, or over one each.
fn send(address: SocketAddr, head: &str, body: &[u8], count: usize, keep_alive: bool) {
    let connection = if keep_alive { "keep-alive" } else { "close" };
    let head = format!(
        "POST /app HTTP/1.1\r\nHost: x\r\nConnection: {connection}\r\nContent-Type: application/json\r\n{head}Content-Length: {}\r\n\r\n",
        body.len()
    );
    let connect = || {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    };
    let mut stream = connect();
    for number in 0..count {
        if number > 0 && !keep_alive {
            stream = connect();
        }
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        let mut answer = Vec::new();
        let mut buffer = [0; 1024];
        // The answer ends with its body, or has none.
        while !answer.ends_with(b"}\n") && !answer.ends_with(b"\r\n\r\n") {
            match stream.read(&mut buffer).unwrap() {
                0 => break,
                n => answer.extend_from_slice(&buffer[..n]),
            }
        }
        let status = answer.get(9..12).unwrap_or_default();
        assert!(
            status == b"200" || status == b"201",
            "{}",
            String::from_utf8_lossy(&answer)
        );
    }
}

fn send_with(
    workers: usize,
    address: SocketAddr,
    head: &str,
    body: &[u8],
    requests: usize,
    keep_alive: bool,
) {
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| send(address, head, body, requests.div_ceil(workers), keep_alive));
        }
    });
}

fn resident(server: &mut Server) -> u64 {
    server.process().anonymous_bytes().unwrap()
}

/// The lowest memory once all is delivered and idle.
fn idle(server: &mut Server) -> u64 {
    wait::until_true("all to be delivered", 2 * SOON, || {
        server.metric("windrow_records_open") < 0.5
    });
    let mut lowest = u64::MAX;
    for _ in 0..30 {
        std::thread::sleep(Duration::from_millis(100));
        lowest = lowest.min(resident(server));
    }
    lowest
}

/// `WINDROW_TEST_HTTP_REQUESTS=50000` is the long form, some minutes in a release build.
#[test]
fn nothing_stays_of_a_request() {
    let requests = std::env::var("WINDROW_TEST_HTTP_REQUESTS")
        .map_or(150, |text| text.parse().expect("a number of requests"));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let store = runtime.block_on(CountingStore::start()).unwrap();
    let setup = windrow().elasticsearch(&format!("http://{}", store.address()), "leak");
    let mut http = HttpServer::start(setup);
    let large = body_of(187 << 10);
    let compressed = gzip(&large);
    let address = http.address;
    let trials: &[Trial<'_>] = &[
        ("187 KB, 3 workers", 3, "", &large, requests, true),
        ("187 KB, 64 workers", 64, "", &large, requests, true),
        ("187 KB, 3 workers, no keep-alive", 3, "", &large, requests, false),
        (
            "187 KB, gzip",
            3,
            "Content-Encoding: gzip\r\n",
            &compressed,
            requests,
            true,
        ),
        ("1 record", 3, "", b"{\"a\":1}", requests, true),
        ("5 MiB", 3, "", &body_of(5 << 20), requests.div_ceil(40), true),
    ];
    // Before any request.
    let before = idle(&mut http.server);
    for (name, workers, head, body, count, keep_alive) in trials {
        send_with(*workers, address, head, body, *count, *keep_alive);
        let after = idle(&mut http.server);
        println!(
            "windrow, {name}: {count} requests, {} KiB before, {} KiB after",
            before >> 10,
            after >> 10
        );
    }
    // Halfway and gone.
    let half = &large[..large.len() / 2];
    for _ in 0..requests {
        let mut stream = TcpStream::connect(address).unwrap();
        let head = format!(
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            large.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(half).unwrap();
    }
    let limit = before + 8 * MIB;
    wait::until("the memory of before", SOON, || match idle(&mut http.server) {
        after if after <= limit => Ok(()),
        after => Err(format!("{} KiB before, {} KiB after", before >> 10, after >> 10)),
    });
    assert!(http.server.terminate(SOON).success());
    beside_fluent_bit(&large, requests);
}

/// Shows what Fluent Bit's input does with the same requests, where there is one.
fn beside_fluent_bit(body: &[u8], requests: usize) {
    let Ok(program) = fluent_bit::find() else {
        println!("SKIPPED: no Fluent Bit to compare with");
        return;
    };
    let port = ports::free();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let configuration = format!(
        "[SERVICE]\n    Flush 0.2\n[INPUT]\n    Name http\n    Listen 127.0.0.1\n    Port {port}\n[OUTPUT]\n    Name null\n    Match *\n"
    );
    let mut running = program.start_with(&configuration, &[]);
    wait::until_true("Fluent Bit to listen", SOON, || {
        TcpStream::connect(address).is_ok()
    });
    send_with(3, address, "", body, 6, true);
    let settle = || std::thread::sleep(Duration::from_secs(3));
    settle();
    let before = running.process().resident_bytes().unwrap();
    send_with(3, address, "", body, requests, true);
    settle();
    let after = running.process().resident_bytes().unwrap();
    println!(
        "Fluent Bit, 187 KB, 3 workers: {requests} requests, {} KiB before, {} KiB after",
        before >> 10,
        after >> 10
    );
}

const LIMIT: u64 = 64 * MIB;
/// The program itself, the buffers of connections, the store's cache, and what an allocator keeps.
const BASE: u64 = 64 * MIB;

#[test]
fn hostile_bodies_stay_within_the_memory_limit() {
    const CLIENTS: usize = 16;
    let mut http = HttpServer::start(windrow().sqlite().arg("--memory-limit", format!("{LIMIT}")));
    let (address, otlp) = (http.address, http.otlp);
    let json = ("Content-Type", "application/json");
    let protobuf = ("Content-Type", "application/x-protobuf");
    let bomb = gzip(&vec![b' '; 64 << 20]);
    let zstd_bomb = zstd::bulk::compress(&vec![b' '; 64 << 20], 3).unwrap();
    let deep = vec![b'['; 1 << 20];
    // Three bytes that would become twelve each.
    let tiny = [b"[".as_slice(), &b"{},".repeat(2 << 20), b"{}]"].concat();
    let numbers = format!("{{\"a\":[{}1.5]}}", "1.5,".repeat(2 << 20)).into_bytes();
    let keys = format!("{{{}\"k\":1}}", "\"k\":1,".repeat(1 << 20)).into_bytes();
    // Empty log records in one scope of one resource.
    let length = |n: usize| -> Vec<u8> {
        (0..4)
            .map(|at| (n >> (7 * at) & 0x7f) as u8 | if at < 3 { 0x80 } else { 0 })
            .collect()
    };
    let records = b"\x12\x00".repeat(1 << 20);
    let scope = [&b"\x12"[..], &length(records.len()), &records].concat();
    let resource = [&b"\x0a"[..], &length(scope.len()), &scope].concat();
    let cases: &[Hostile<'_>] = &[
        (address, "/", &[json, ("Content-Encoding", "gzip")], &bomb, 413),
        (
            address,
            "/",
            &[json, ("Content-Encoding", "zstd")],
            &zstd_bomb,
            413,
        ),
        (address, "/", &[json], &deep, 400),
        (address, "/", &[json], &tiny, 413),
        (address, "/", &[json], &numbers, 413),
        (address, "/", &[json], &keys, 200),
        (
            address,
            "/",
            &[("Content-Type", "application/msgpack")],
            b"\xdd\xff\xff\xff\xff",
            400,
        ),
        (
            address,
            "/",
            &[("Content-Type", "application/msgpack")],
            b"\x81\xa1a\xc6\xff\xff\xff\xff",
            400,
        ),
        (otlp, "/v1/logs", &[protobuf], &resource, 413),
        (otlp, "/v1/logs", &[protobuf], b"\x0a\xff\xff\xff\xff\x0f", 400),
        (
            otlp,
            "/v1/logs",
            &[protobuf, ("Content-Encoding", "gzip")],
            &bomb,
            413,
        ),
    ];
    std::thread::scope(|scope| {
        // Half a body each, for as long as the others work.
        let half: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let mut stream = TcpStream::connect(address).unwrap();
                stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
                stream
                    .write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 4000000\r\n\r\n")
                    .unwrap();
                // What the server does not read fills the socket.
                stream.write_all(&vec![b' '; 2 << 20]).ok();
                stream
            })
            .collect();
        let clients: Vec<_> = (0..CLIENTS / 4)
            .map(|_| {
                scope.spawn(|| {
                    for (address, path, headers, body, status) in cases {
                        let answer = post(*address, path, headers, body);
                        assert_eq!(answer.status, *status, "{headers:?}: {answer:?}");
                    }
                })
            })
            .collect();
        for client in clients {
            client.join().unwrap();
        }
        drop(half);
    });
    let peak = http.server.process().peak_resident_bytes().unwrap();
    println!("{} MiB at most", peak >> 20);
    assert!(peak < LIMIT + BASE, "{} MiB were resident", peak >> 20);
    assert_eq!(
        http.json("/", &json!({"traceId": "after", "message": "request completed"}))
            .status,
        200
    );
    http.trace("after", 1);
    assert!(http.server.terminate(SOON).success());
}
