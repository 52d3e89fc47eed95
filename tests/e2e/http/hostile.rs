//! Clients that attack the HTTP and OTLP inputs: slow headers, thousands of idle connections, bombs,
//! depth, claimed lengths, and floods of HTTP/2 frames. Others are served meanwhile, and memory stays
//! within its limit.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::json;
use windrow_testkit::{process, wait};

use super::{END, HttpServer, answer, gzip, post, record};
use crate::{SOON, windrow};

const MIB: u64 = 1 << 20;
const LIMIT: u64 = 64 * MIB;
const JSON: (&str, &str) = ("Content-Type", "application/json");

/// A server with a small memory limit that waits a second for a request.
fn start() -> HttpServer {
    HttpServer::start(
        windrow()
            .sqlite()
            .arg("--memory-limit", LIMIT.to_string())
            .env("WINDROW_FORWARD_HANDSHAKE_TIMEOUT", "1s")
            .env("WINDROW_FORWARD_PROGRESS_TIMEOUT", "1s")
            .env("WINDROW_HTTP_IDLE_TIMEOUT", "1s"),
    )
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(2 * SOON)).unwrap();
    stream.set_write_timeout(Some(SOON)).unwrap();
    stream
}

/// Waits until the server closes the connection; what it said.
fn said_until_closed(mut stream: TcpStream) -> Vec<u8> {
    let mut said = Vec::new();
    stream.read_to_end(&mut said).ok();
    said
}

/// Others are served, no connection is left, and memory kept to its limit.
#[track_caller]
fn assert_well(http: &mut HttpServer, id: &str) {
    let sent = http.json("/", &record(id, END));
    assert_eq!(sent.status, 200, "{sent:?}");
    http.trace(id, 1);
    wait::until_true("the attackers to be gone", 2 * SOON, || {
        http.server.metric("windrow_input_connections") < 0.5
    });
    let peak = http.server.process().peak_resident_bytes().unwrap();
    // The program itself, the store's cache, and what an allocator keeps.
    assert!(peak < LIMIT + 64 * MIB, "{} MiB were resident", peak / MIB);
}

#[test]
fn slow_headers_and_silence_end_after_their_time() {
    let mut http = start();
    for (address, begin) in [
        (http.address, &b""[..]),
        (http.address, b"POST / HT"),
        (http.address, b"POST / HTTP/1.1\r\nHost: x\r\nX-Slow: "),
        (http.otlp, b"POST /v1/logs HTTP/1.1\r\n"),
        (http.otlp, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ] {
        let mut stream = connect(address);
        stream.write_all(begin).unwrap();
        let mut drip = stream.try_clone().unwrap();
        // A byte now and then does not prolong it.
        let dripping = std::thread::spawn(move || {
            for _ in 0..600 {
                if drip.write_all(b"x").is_err() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        if begin.is_empty() || begin.starts_with(b"PRI") {
            drop(dripping);
            said_until_closed(stream);
            continue;
        }
        said_until_closed(stream);
        dripping.join().unwrap();
    }
    // Between two requests, too.
    let mut stream = connect(http.address);
    let body = record("first", END).to_string();
    let head = "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
    let request = format!("{head}Content-Length: {}\r\n\r\n{body}POST / HT", body.len());
    stream.write_all(request.as_bytes()).unwrap();
    let said = said_until_closed(stream);
    assert!(
        said.starts_with(b"HTTP/1.1 200 "),
        "{}",
        String::from_utf8_lossy(&said)
    );
    assert_well(&mut http, "slow");
}

#[test]
fn thousands_of_idle_connections() {
    let connections = usize::try_from(process::raise_file_limit().saturating_sub(500) / 2).unwrap();
    let connections = connections.min(3000);
    let mut http = start();
    let open: Vec<TcpStream> = (0..connections)
        .map(|number| {
            let mut stream = connect(if number % 2 == 0 { http.address } else { http.otlp });
            let begin = [&b""[..], b"P", b"POST / HTTP/1.1\r\nHost: x\r\nX: y"][number % 3];
            stream.write_all(begin).ok();
            stream
        })
        .collect();
    let sent = http.json("/", &record("beside", END));
    assert_eq!(sent.status, 200, "{sent:?}");
    for stream in open {
        said_until_closed(stream);
    }
    assert_well(&mut http, "idle");
}

#[test]
fn claims_and_nonsense_of_http_1() {
    let mut http = start();
    let head = "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n";
    let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n");
    for (status, request) in [
        (413, format!("{head}Content-Length: 9223372036854775807\r\n\r\n")),
        (400, format!("{head}Content-Length: 18446744073709551616\r\n\r\n")),
        (400, format!("{head}Content-Length: -1\r\n\r\n")),
        (
            400,
            format!("{head}Content-Length: 2\r\nContent-Length: 20\r\n\r\n{{}}"),
        ),
        (400, format!("{chunked}10000000000000000\r\n")),
        (400, format!("{chunked}-1\r\n")),
        (400, format!("{chunked}zz\r\n")),
        (400, format!("{chunked}2\r\n{{}}x")),
        (400, format!("{head}Transfer-Encoding: gzip\r\n\r\n")),
        (400, "POST / HTTP/9.9\r\nHost: x\r\n\r\n".into()),
        (400, "POST /\u{1} HTTP/1.1\r\nHost: x\r\n\r\n".into()),
        (400, "POST / HTTP/1.1\r\nHost x\r\n\r\n".into()),
        (400, "POST / HTTP/1.1\r\nHo\0st: x\r\n\r\n".into()),
        (431, format!("{head}{}\r\n", "A: b\r\n".repeat(200))),
        (
            414,
            format!("POST /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(70_000)),
        ),
    ] {
        let mut stream = connect(http.address);
        stream.write_all(request.as_bytes()).ok();
        let got = answer(&mut stream);
        let shown: String = request.chars().take(120).collect();
        // A request line of any length is a header of any length.
        let is_right = got.status == status || (status == 414 && got.status == 431);
        assert!(is_right, "{shown:?}: {got:?}");
    }
    // A chunk of 16 EiB that is only claimed is a slow body.
    let mut stream = connect(http.address);
    stream
        .write_all(format!("{chunked}FFFFFFFFFFFFFFFF\r\n{{").as_bytes())
        .unwrap();
    assert!([400, 408].contains(&answer(&mut stream).status));
    // Many requests in one write are answered in order, and a client that reads no answers is left.
    let one = record("many", "line").to_string();
    let many = format!(
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{one}",
        one.len()
    )
    .repeat(50);
    let mut stream = connect(http.address);
    stream.write_all(many.as_bytes()).unwrap();
    let said = String::from_utf8(said_until_closed(stream)).unwrap();
    assert_eq!(said.matches("HTTP/1.1 200 OK").count(), 50, "{said}");
    assert_eq!(http.server.metric("windrow_input_records_total"), 50.0);
    assert_well(&mut http, "nonsense");
}

#[test]
fn bombs_and_depth_in_every_format() {
    let mut http = start();
    let spaces = vec![b' '; 64 << 20];
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    zlib.write_all(&spaces).unwrap();
    let zlib = zlib.finish().unwrap();
    let twice = gzip(&gzip(&spaces));
    let objects = "{\"a\":".repeat(200_000);
    let closed = format!("{}1{}", "{\"a\":".repeat(5000), "}".repeat(5000));
    let lists = [&b"\x81\xa1a"[..], &[0x91; 1 << 20]].concat();
    let mut protobuf = b"\x0a\x01x".to_vec();
    for _ in 0..3000 {
        for field in [0x0a, 0x2a] {
            let mut length = protobuf.len();
            let mut next = vec![field];
            while length >= 0x80 {
                next.push(length as u8 | 0x80);
                length >>= 7;
            }
            next.push(length as u8);
            next.extend_from_slice(&protobuf);
            protobuf = next;
        }
    }
    // An OTLP request around it: a body of the log record.
    for field in [0x2a, 0x12, 0x12, 0x0a] {
        let length = protobuf.len();
        let bytes = [
            length as u8 | 0x80,
            (length >> 7) as u8 | 0x80,
            (length >> 14) as u8,
        ];
        protobuf = [&[field][..], &bytes, &protobuf].concat();
    }
    let claims: [&[u8]; 6] = [
        b"\xdf\xff\xff\xff\xff",
        b"\x81\xa1a\xdb\xff\xff\xff\xff",
        b"\x81\xa1a\xc9\xff\xff\xff\xff\x01",
        b"\x81\xa1a\xdd\xff\xff\xff\xff",
        b"\x81\xdf\xff\xff\xff\xff",
        b"\x92\xcb\0\0\0\0\0\0\0\0\xdf\xff\xff\xff\xff",
    ];
    let address = http.address;
    let msgpack = ("Content-Type", "application/msgpack");
    for _ in 0..3 {
        let got = post(address, "/", &[JSON, ("Content-Encoding", "deflate")], &zlib);
        assert_eq!(got.status, 413, "{got:?}");
        // What was compressed twice is decompressed once.
        let got = post(address, "/", &[JSON, ("Content-Encoding", "gzip")], &twice);
        assert_eq!(got.status, 400, "{got:?}");
        for body in [objects.as_bytes(), closed.as_bytes()] {
            assert_eq!(post(address, "/", &[JSON], body).status, 400);
            assert_eq!(post(http.otlp, "/v1/logs", &[JSON], body).status, 400);
        }
        assert_eq!(post(address, "/", &[msgpack], &lists).status, 400);
        for claim in claims {
            assert_eq!(post(address, "/", &[msgpack], claim).status, 400, "{claim:x?}");
        }
        let got = post(
            http.otlp,
            "/v1/logs",
            &[("Content-Type", "application/x-protobuf")],
            &protobuf,
        );
        assert!(got.status == 200 && got.text.contains("nested deeper"), "{got:?}");
    }
    assert_well(&mut http, "bombs");
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// `POST / HTTP/2` with the authority `x`, in HPACK.
const POST: &[u8] = b"\x83\x86\x84\x41\x01x";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

#[test]
fn floods_of_http_2() {
    let mut http = start();
    let address = http.address;
    let attack = |frames: &mut dyn Iterator<Item = Vec<u8>>| {
        let mut stream = connect(address);
        stream.write_all(PREFACE).unwrap();
        for frame in frames {
            if stream.write_all(&frame).is_err() {
                break;
            }
        }
        said_until_closed(stream)
    };
    let streams = || (0..20_000u32).map(|number| 2 * number + 1);
    // Streams that are reset as soon as they are opened (CVE-2023-44487).
    attack(&mut streams().map(|id| [frame(1, 4, id, POST), frame(3, 0, id, &[0, 0, 0, 8])].concat()));
    // Streams that stay open, with bodies that never come.
    attack(&mut streams().take(2000).map(|id| frame(1, 4, id, POST)));
    // Headers without an end (CVE-2024-27316).
    let more = |_| frame(9, 0, 1, &[0; 1000]);
    attack(&mut std::iter::once(frame(1, 0, 1, POST)).chain((0..20_000).map(more)));
    // A header of 3 KB that is repeated by its index: 30 MB in 10 KB.
    let long = [&b"\x40\x01a\x7f\xb9\x16"[..], &[b'b'; 3000]].concat();
    let bomb = [POST, &long, &[0xbe; 10_000]].concat();
    attack(&mut std::iter::once(frame(1, 5, 1, &bomb)));
    // Pings and settings that want to be acknowledged, of which no acknowledgement is read.
    attack(&mut (0..50_000).map(|_| frame(6, 0, 0, &[7; 8])));
    attack(&mut (0..50_000).map(|_| frame(4, 0, 0, b"")));
    // Frames that are longer than agreed, of no stream, and of no kind.
    attack(&mut std::iter::once(vec![0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]));
    attack(&mut std::iter::once(frame(0, 0, 77, b"data")));
    attack(&mut std::iter::once(frame(0xee, 0xff, 0, b"unknown")));
    // One request, and then nothing: the connection ends after its idle time.
    let said = attack(&mut std::iter::once(frame(1, 5, 1, POST)));
    // A HEADERS frame of stream 1.
    assert!(
        said.windows(9)
            .any(|head| head[3] == 1 && head[5..] == [0, 0, 0, 1]),
        "{said:x?}"
    );
    let sent = http.json("/", &json!([]));
    assert_eq!(sent.status, 200, "{sent:?}");
    assert_well(&mut http, "floods");
}
