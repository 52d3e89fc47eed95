//! Tests of delivery over unix sockets.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use fluent_logger::Logger;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

#[tokio::test(flavor = "multi_thread")]
async fn unix_sockets_that_the_server_makes_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fluent.sock");
    let logger = Logger::builder()
        .address(format!("unix://{}", path.display()))
        .retry_wait(Duration::from_millis(10))
        .max_retry_wait(Duration::from_millis(20))
        .build()
        .unwrap();
    for round in 0..3 {
        let _ = std::fs::remove_file(&path);
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let sending = logger.send("t", &json!({ "n": round }));
        let serving = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = vec![0; 4096];
            let count = stream.read(&mut buffer).await.unwrap();
            let at = buffer[..count]
                .windows(7)
                .position(|window| window == b"\xa5chunk\xb8")
                .unwrap()
                + 7;
            stream.write_all(b"\x81\xa3ack\xb8").await.unwrap();
            stream.write_all(&buffer[at..at + 24]).await.unwrap();
            stream
        };
        let (sent, _stream) = tokio::join!(sending, serving);
        sent.unwrap();
    }
}
