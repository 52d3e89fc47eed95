//! HTTP and OTLP inputs with real clients, and with bytes that no client sends.

mod access;
mod clients;
mod curl;
mod formats;
mod hostile;
mod ledger;
mod memory;
mod otlp;
mod variants;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::{Value, json};
use windrow_testkit::http::Answer;
use windrow_testkit::server::{Server, Setup};
use windrow_testkit::{ports, wait};

use crate::SOON;

/// A server with an HTTP and an OTLP input.
struct HttpServer {
    server: Server,
    address: SocketAddr,
    otlp: SocketAddr,
}

impl HttpServer {
    fn start(setup: Setup) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], ports::free()));
        let otlp = SocketAddr::from(([127, 0, 0, 1], ports::free()));
        let server = setup
            .arg("--http-listen", address.to_string())
            .arg("--otlp-listen", otlp.to_string())
            .start();
        Self {
            server,
            address,
            otlp,
        }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// A request with headers, over a connection of its own.
    fn post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        post(self.address, path, headers, body)
    }

    fn json(&self, path: &str, body: &Value) -> Answer {
        self.post(
            path,
            &[("Content-Type", "application/json")],
            body.to_string().as_bytes(),
        )
    }

    /// Documents of this trace, once there is one with this many lines.
    #[track_caller]
    fn trace(&self, id: &str, lines: usize) -> Value {
        wait::until(&format!("trace {id} with {lines} lines"), SOON, || {
            let stored = self.server.stored();
            let mine: Vec<_> = stored.iter().filter(|doc| doc.source["traceId"] == *id).collect();
            match &mine[..] {
                [one] if one.source["windrow"]["lines"] == lines => Ok(one.source.clone()),
                other => Err(format!("{other:?}")),
            }
        })
    }
}

/// A request with headers, over a connection of its own.
fn post(address: SocketAddr, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut request = format!("POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    let chunked = headers.iter().any(|(name, _)| *name == "Transfer-Encoding");
    if !chunked {
        request += &format!("Content-Length: {}\r\n", body.len());
    }
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(3 * SOON)).unwrap();
    stream.write_all(format!("{request}\r\n").as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    answer(&mut stream)
}

/// Reads an answer to the end of the connection.
fn answer(stream: &mut TcpStream) -> Answer {
    let mut text = Vec::new();
    if let Err(error) = stream.read_to_end(&mut text) {
        assert!(!text.is_empty(), "no answer: {error}");
    }
    let text = String::from_utf8_lossy(&text).into_owned();
    // An interim answer comes first.
    let text = text
        .strip_prefix("HTTP/1.1 100 Continue\r\n\r\n")
        .unwrap_or(&text);
    let (head, body) = text
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("no answer: {text:?}"));
    Answer {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        content_type: head.to_owned(),
        text: body.to_owned(),
    }
}

fn record(id: &str, message: &str) -> Value {
    json!({"traceId": id, "message": message})
}

/// The last line of a trace.
const END: &str = "request completed";

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}
