//! Cases 65 to 73: heartbeats, framing and connection lifecycle.

use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::{sleep, timeout};

use super::{batch, cases, chunk, message, opts};
use crate::case_result::{CaseError, CaseResult, check};
use crate::context::CaseContext;
use crate::msgpack::{Raw, array, bin, hex, nil};
use crate::target::Action;

cases! {
    65 "nil-ignored" [] "S1; FB closes" "c0 alone, between messages, 1000 of them: ignored" => nils;
    66 "udp-heartbeat" [Udp] "S1; FD-in"
        "UDP 00 -> 00 to the source; 128-byte datagram -> 00; a bigger one: dropped" => udp;
    67 "connect-and-close" [] "FD-out send_heartbeat"
        "connect (TLS, handshake) and close, many times, also with RST: no leak, others served" => connect_and_close;
    68 "one-byte-per-segment" [] "FB-itest" "one byte per TCP segment for a whole message: 1 event" => trickled;
    69 "split-anywhere" [] "FB-itest" "message split at every place: 1 event each" => split_anywhere;
    70 "thousand-in-a-segment" [] "S1" "1000 messages in one write: all" => thousand;
    71 "partial-does-not-block-others" [] "FB-itest"
        "a partial message on one connection does not delay another" => partial;
    72 "graceful-stop" [Exclusive, Hook(Action::StopRestart)] "FD last_ack"
        "clean stop: whole messages acked, then FIN; unfinished ones unacked; nothing acked is lost" => graceful_stop;
    73 "idle-60-s" [Slow] "FB keepalive_idle_timeout 30"
        "idle for 60 s, then a message: accepted" => idle;
}

async fn nils(c: CaseContext) -> CaseResult {
    let mut peer = c.connect().await?;
    peer.send(&nil()).await?;
    peer.send(&message(&c, c.time(0), c.record("one"), None)).await?;
    peer.send(
        &[
            nil().repeat(1000),
            message(&c, c.time(1), c.record("two"), None),
            nil(),
        ]
        .concat(),
    )
    .await?;
    peer.expect_silence(Duration::from_millis(300)).await?;
    c.expect_alive(&mut peer).await?;
    c.expect_texts(&["one", "two"]).await
}

async fn udp(c: CaseContext) -> CaseResult {
    let Some(address) = &c.target.udp else {
        return Err(CaseError::Skip("no UDP address".into()));
    };
    let io = |e: std::io::Error| CaseError::fail("UDP works", e);
    let socket = UdpSocket::bind("0.0.0.0:0").await.map_err(io)?;
    socket.connect(address).await.map_err(io)?;
    let mut answer = [0xee; 64];
    for datagram in [vec![0], vec![0xc0], vec![7; 128]] {
        socket.send(&datagram).await.map_err(io)?;
        let n = match timeout(c.options.reply_timeout, socket.recv(&mut answer)).await {
            Ok(n) => n.map_err(io)?,
            Err(_) => return Err(CaseError::fail("one byte 00 back", "nothing")),
        };
        check(answer[..n] == [0], "one byte 00 back", hex(&answer[..n]))?;
    }
    socket.send(&[7; 129]).await.map_err(io)?;
    match timeout(Duration::from_millis(500), socket.recv(&mut answer)).await {
        Err(_) => Ok(()),
        Ok(n) => Err(CaseError::fail(
            "no answer to 129 bytes",
            hex(&answer[..n.map_err(io)?]),
        )),
    }
}

/// The number of open files of the server; none when its process is not known.
fn open_files(c: &CaseContext) -> Option<usize> {
    let pid = c.target.pid?;
    Some(std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count())
}

async fn connect_and_close(c: CaseContext) -> CaseResult {
    let before = open_files(&c);
    for n in 0..50 {
        let peer = if n % 2 == 0 {
            c.connect().await?
        } else {
            c.connect_raw().await?
        };
        if n % 3 == 0 {
            peer.reset();
        }
    }
    c.expect_listener_alive().await?;
    let Some(before) = before else {
        c.note("leaks not checked: no --pid");
        return Ok(());
    };
    // Other cases open connections at the same time; a leak would keep all fifty.
    sleep(Duration::from_secs(1)).await;
    let after = open_files(&c).unwrap_or(before);
    check(after < before + 40, format!("about {before} open files"), after)
}

async fn trickled(c: CaseContext) -> CaseResult {
    let mut peer = c.connect().await?;
    let option = opts(&[("chunk", chunk(&c, 1))]);
    peer.trickle(&batch(&c, array(&[c.entry(0, "one")]), Some(option)))
        .await?;
    peer.expect_ack(&chunk(&c, 1)).await?;
    c.expect_alive(&mut peer).await?;
    c.expect_texts(&["one"]).await
}

async fn split_anywhere(c: CaseContext) -> CaseResult {
    let make = |n: u32| {
        let text = format!("cut at {n:03}");
        let option = opts(&[("chunk", chunk(&c, 0))]);
        (batch(&c, bin(&c.entry(n, &text)), Some(option)), text)
    };
    let length = make(0).0.len() as u32;
    let mut peer = c.connect().await?;
    let mut texts = Vec::new();
    for cut in 1..length {
        let (bytes, text) = make(cut);
        let (left, right) = bytes.split_at(cut as usize);
        peer.send_segments([left, right].into_iter()).await?;
        peer.expect_ack(&chunk(&c, 0)).await?;
        texts.push(text);
    }
    c.expect_texts(&texts.iter().map(String::as_str).collect::<Vec<_>>())
        .await
}

async fn thousand(c: CaseContext) -> CaseResult {
    let texts: Vec<String> = (0..1000).map(|n| format!("line {n}")).collect();
    let messages: Vec<Raw> = (0..)
        .zip(&texts)
        .map(|(n, t)| message(&c, c.time(n), c.record(t), None))
        .collect();
    super::send_and_expect(
        &c,
        messages.concat(),
        &texts.iter().map(String::as_str).collect::<Vec<_>>(),
    )
    .await
}

async fn partial(c: CaseContext) -> CaseResult {
    let bytes = message(
        &c,
        c.time(0),
        c.record("slow"),
        Some(opts(&[("chunk", chunk(&c, 1))])),
    );
    let (left, right) = bytes.split_at(bytes.len() / 2);
    let mut slow = c.connect().await?;
    slow.send(left).await?;
    for _ in 0..3 {
        c.expect_listener_alive().await?;
    }
    slow.send(right).await?;
    slow.expect_ack(&chunk(&c, 1)).await?;
    c.expect_texts(&["slow"]).await
}

async fn graceful_stop(c: CaseContext) -> CaseResult {
    let half = c.with_suffix("half");
    let unfinished = message(
        &c,
        c.time(0),
        half.record("half"),
        Some(opts(&[("chunk", chunk(&half, 1))])),
    );
    let mut unacked = c.connect().await?;
    unacked.send(&unfinished[..unfinished.len() / 2]).await?;
    let mut peer = c.connect().await?;
    for n in 0..100 {
        peer.send(&message(
            &c,
            c.time(n),
            c.record(&format!("line {n}")),
            Some(opts(&[("chunk", chunk(&c, n))])),
        ))
        .await?;
    }
    // After the first ack the server is processing them, so the stop interrupts it.
    peer.expect_ack(&chunk(&c, 0)).await?;
    let stop = tokio::spawn({
        let c = c.clone();
        async move { c.hook(Action::StopRestart).await }
    });
    for n in 1..100 {
        peer.expect_ack(&chunk(&c, n)).await?;
    }
    peer.expect_close_unacked(Duration::from_secs(30)).await?;
    unacked.expect_close_unacked(Duration::from_secs(30)).await?;
    stop.await.map_err(|e| CaseError::fail("the hook runs", e))??;
    c.await_listener().await?;
    let texts: Vec<String> = (0..100).map(|n| format!("line {n}")).collect();
    c.expect_texts(&texts.iter().map(String::as_str).collect::<Vec<_>>())
        .await?;
    half.expect_nothing().await
}

async fn idle(c: CaseContext) -> CaseResult {
    let mut peer = c.connect().await?;
    c.expect_alive(&mut peer).await?;
    sleep(Duration::from_secs(60)).await;
    peer.send(&message(
        &c,
        c.time(0),
        c.record("one"),
        Some(opts(&[("chunk", chunk(&c, 1))])),
    ))
    .await?;
    peer.expect_ack(&chunk(&c, 1)).await?;
    c.expect_texts(&["one"]).await
}
