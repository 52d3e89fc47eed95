//! Tests of the admin server on real sockets: shutdown and slow clients.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::*;

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
