//! Tests of the admin server on real sockets: shutdown, slow clients, and the bytes of the page.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::time::Duration;

use flate2::read::MultiGzDecoder;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::admin::slots::{Slot, SlotKind};

async fn served(
    router: Router,
) -> (
    std::net::SocketAddr,
    CancellationToken,
    tokio::task::JoinHandle<()>,
) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    (address, stop.clone(), tokio::spawn(serve(listener, router, stop)))
}

#[tokio::test]
async fn a_socket_is_served_and_stops_with_answers_complete() {
    let fixture = Fixture::new();
    let (address, stop, server) = served(fixture.router()).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    // Two requests on one connection.
    stream
        .write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\nok\n") {
        assert_ne!(
            stream.read_buf(&mut answer).await.unwrap(),
            0,
            "{}",
            String::from_utf8_lossy(&answer)
        );
    }
    stream
        .write_all(b"HEAD /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\n"),
        "{answer}"
    );

    // An idle connection does not hold up the stop.
    let mut idle = TcpStream::connect(address).await.unwrap();
    idle.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    idle.read_u8().await.unwrap();
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(10), server)
        .await
        .expect("it stops")
        .unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

/// What a browser gets for a file of the page: bytes over the wire with the header, and the content.
async fn loaded(address: std::net::SocketAddr, path: &str) -> (usize, Vec<u8>) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n\
         Connection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let end = answer.windows(4).position(|end| end == b"\r\n\r\n").unwrap();
    let (header, body) = answer.split_at(end + 4);
    let header = String::from_utf8_lossy(header).to_ascii_lowercase();
    assert!(header.starts_with("http/1.1 200 ok\r\n"), "{path}: {header}");
    assert!(
        header.contains("\r\ncontent-encoding: gzip\r\n"),
        "{path}: {header}"
    );
    let mut content = Vec::new();
    MultiGzDecoder::new(body).read_to_end(&mut content).unwrap();
    (answer.len(), content)
}

/// The files that the page fetches, those for charts included, which are fetched on demand.
#[tokio::test]
async fn the_page_loads_in_less_than_100_kilobytes() {
    let (address, _stop, _server) = served(Fixture::new().router()).await;
    let mut sizes = BTreeMap::new();
    let mut waiting = vec![url::Url::parse("http://page/").unwrap()];
    while let Some(file) = waiting.pop() {
        let path = file.path().to_owned();
        if sizes.contains_key(&path) {
            continue;
        }
        let (bytes, content) = loaded(address, &path).await;
        sizes.insert(path, bytes);
        let content = String::from_utf8(content).unwrap();
        // A minified library has quotes in other places, and loads nothing.
        if !file.path().contains("/uplot/") {
            let names = content.split(['\'', '"']).filter(|text| {
                ["./", "../", "/assets/"]
                    .iter()
                    .any(|start| text.starts_with(start))
            });
            waiting.extend(names.map(|name| file.join(name).unwrap()));
        }
    }
    let sum: usize = sizes.values().sum();
    println!("{sum} bytes: {sizes:#?}");
    for file in [
        "/",
        "/assets/traces.js",
        "/assets/style.css",
        "/assets/vendor/uplot/uPlot.iife.min.js",
    ] {
        assert!(sizes.contains_key(file), "{file} is not among {sizes:?}");
    }
    assert!(sum < 100_000, "{sum} bytes: {sizes:#?}");
}

/// A connection served with the given timeouts, and the client's end of it.
async fn with_timeouts(
    router: Router,
    header: Duration,
    stall: Duration,
) -> (TcpStream, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    (
        client,
        tokio::spawn(http::connection(
            server,
            router,
            Slot::new(SlotKind::Full),
            CancellationToken::new(),
            header,
            stall,
        )),
    )
}

#[tokio::test]
async fn half_a_header_does_not_hold_a_connection() {
    let (long, short) = (Duration::from_secs(600), Duration::from_millis(50));
    let (mut client, served) = with_timeouts(Fixture::new().router(), short, long).await;
    client.write_all(b"GET /health HTT").await.unwrap();
    tokio::time::timeout(Duration::from_secs(10), served)
        .await
        .expect("it is closed")
        .unwrap();
}

#[tokio::test]
async fn an_answer_that_is_not_taken_does_not_hold_a_connection() {
    let documents = vec![format!("\"{}\"", "x".repeat(1 << 20)); 40];
    let fixture = Fixture::with(Shelf {
        documents,
        ..Shelf::default()
    });
    let (long, short) = (Duration::from_secs(600), Duration::from_millis(50));
    let (mut client, served) = with_timeouts(fixture.router(), long, short).await;
    client
        .write_all(b"GET /logs HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    // More than any socket buffer holds, and nobody reads.
    tokio::time::timeout(Duration::from_secs(10), served)
        .await
        .expect("it is closed")
        .unwrap();
}

/// The response to a request, on a connection of its own; at most a second after the request.
async fn asked(address: std::net::SocketAddr, path: &str) -> String {
    let ask = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let answer = tokio::time::timeout(Duration::from_secs(1), ask).await;
    answer.unwrap_or_else(|_| panic!("{path} is not answered within a second"))
}

/// Opens connections that send `bytes` and nothing more.
async fn held(address: std::net::SocketAddr, number: usize, bytes: &[u8]) -> Vec<TcpStream> {
    crate::serve::raise_file_limit(0);
    let mut held = Vec::new();
    for _ in 0..number {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        held.push(stream);
    }
    held
}

#[tokio::test]
async fn silent_connections_give_way_to_others() {
    let (address, _stop, _server) = served(Fixture::new().router()).await;
    for bytes in [&b""[..], b"G"] {
        let _silent = held(address, 1000, bytes).await;
        for path in ["/health", "/ready", "/metrics", "/logs"] {
            let answer = asked(address, path).await;
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{path}: {answer}");
        }
    }
}

#[tokio::test]
async fn connections_kept_alive_give_way_to_others() {
    let (address, _stop, _server) = served(Fixture::new().router()).await;
    let _idle = held(address, 300, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let answer = asked(address, "/logs").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
}

#[tokio::test]
async fn probes_are_answered_while_all_other_connections_are_busy() {
    let router = Router::new()
        .route("/logs", get(std::future::pending::<()>))
        .route("/health", get(|| async { "ok\n" }));
    let (address, _stop, _server) = served(router).await;
    let busy = held(address, 256, b"GET /logs HTTP/1.1\r\nHost: x\r\n\r\n").await;
    // Further ones, silent or not, share what is reserved for probes.
    let _more = held(address, 300, b"GET /logs HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let _silent = held(address, 300, b"").await;
    for _ in 0..10 {
        let answer = asked(address, "/health").await;
        assert!(answer.ends_with("\r\n\r\nok\n"), "{answer}");
        let answer = asked(address, "/logs").await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    }
    for stream in busy {
        let mut byte = [0];
        let read = stream.try_read(&mut byte);
        assert_eq!(
            read.map_err(|error| error.kind()),
            Err(std::io::ErrorKind::WouldBlock),
            "a busy connection stays open"
        );
    }
}
