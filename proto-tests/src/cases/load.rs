//! Cases 99, 100 and 106 to 108: load and durability.

use std::io::Write;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::sleep;

use super::{batch, cases, chunk, compressed::gzip, message, opts};
use crate::case_result::{CaseError, CaseResult, check};
use crate::context::CaseContext;
use crate::msgpack::{Format, Raw, array, bin, blob, concat, s, unhex};
use crate::target::Action;

cases! {
    99 "gzip-bomb" [Exclusive] "FD SizeLimitError; FB-rtest"
        "gzip of 10 MB that inflates to 10 GB: stops at the limit, bounded memory and time, no ack" => bomb;
    100 "many-small-bombs" [Last] "CPU"
        "200 small messages that inflate to 1 MiB each: others are served meanwhile and after" => small_bombs;
    106 "many-connections" [Exclusive] "limits" "10,000 idle and 100 active connections: the active ones are served" => many_connections;
    107 "slow-sender" [ProgressTimeout] "slowloris"
        "1 byte a second in a 1 MiB message: closed by the progress timeout; events before it kept" => slow_sender;
    108 "kill-after-ack" [Exclusive, Hook(Action::KillRestart)] "what an ack means"
        "killed right after the ack: the events are delivered after the restart" => kill_after_ack;
}

/// One gzip member of zeros: a deflate block of 16 MiB, repeated. The stream is valid up to its
/// trailer, which no server should reach.
fn gzip_of_zeros(bytes: u64) -> Result<Vec<u8>, CaseError> {
    const BLOCK: u64 = 16 << 20;
    let broken = |e: std::io::Error| CaseError::Skip(format!("gzip: {e}"));
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    let zeros = vec![0; 1 << 20];
    for _ in 0..16 {
        encoder.write_all(&zeros).map_err(broken)?;
    }
    // A flush ends the block at a byte boundary, so that it can be repeated.
    encoder.flush().map_err(broken)?;
    let block = encoder.get_ref().clone();
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
    for _ in 0..bytes.div_ceil(BLOCK) {
        out.extend_from_slice(&block);
    }
    out.extend_from_slice(&[3, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    Ok(out)
}

async fn bomb(c: CaseContext) -> CaseResult {
    let before = c.memory();
    let payload = gzip_of_zeros(c.options.bomb_bytes)?;
    c.note(format!(
        "{} bytes inflate to {}",
        payload.len(),
        c.options.bomb_bytes
    ));
    let option = opts(&[("chunk", chunk(&c, 1)), ("compressed", s("gzip"))]);
    let mut peer = c.connect().await?;
    peer.send_unless_closed(&batch(&c, bin(&payload), Some(option)))
        .await;
    c.expect_listener_alive().await?;
    peer.expect_close_unacked(Duration::from_secs(30)).await?;
    let limit = c.target.declared.decompressed_bytes.unwrap_or(256 << 20);
    c.expect_memory(before, limit + (64 << 20))?;
    c.expect_listener_alive().await
}

async fn small_bombs(c: CaseContext) -> CaseResult {
    let payload = gzip(&concat(&[c.with_suffix("bomb").entry(0, "x"), vec![0; 1 << 20]]))?;
    let one = |n| {
        batch(
            &c,
            bin(&payload),
            Some(opts(&[("chunk", chunk(&c, n)), ("compressed", s("gzip"))])),
        )
    };
    let mut peer = c.connect().await?;
    let started = Instant::now();
    for n in 0..200 {
        if !peer.send_unless_closed(&one(n)).await {
            c.note(format!("the server stopped reading after {n}"));
            break;
        }
    }
    c.expect_listener_alive().await?;
    c.note(format!("others served after {:?}", started.elapsed()));
    let (bytes, closed) = peer.drain(Duration::from_secs(2)).await;
    check(
        closed || !bytes.is_empty(),
        "acks, or the connection closed",
        "neither",
    )?;
    // The decompressed bombs must not block later events of others.
    let other = c.with_suffix("other");
    let mut peer = c.connect().await?;
    peer.send(&message(&c, c.time(0), other.record("after the bombs"), None))
        .await?;
    c.expect_alive(&mut peer).await?;
    other.expect_texts(&["after the bombs"]).await
}

async fn many_connections(c: CaseContext) -> CaseResult {
    let allowed = c
        .target
        .declared
        .connections
        .map_or(usize::MAX, |n| n.saturating_sub(150));
    let wanted = c.options.many_connections.min(allowed);
    let mut idle = Vec::new();
    while idle.len() < wanted {
        match c.connect().await {
            Ok(mut peer) => {
                peer.send_unless_closed(&unhex("93")).await;
                idle.push(peer);
            }
            Err(fault) if idle.len() < 1000 => return Err(fault),
            Err(_) => {
                // This process or the server is out of file descriptors; free some for the active
                // connections.
                idle.truncate(idle.len().saturating_sub(200));
                break;
            }
        }
    }
    c.note(format!(
        "{} idle connections, each with one byte of a message",
        idle.len()
    ));
    let mut active = JoinSet::new();
    for n in 0..100 {
        let c = c.clone();
        active.spawn(async move {
            let mut peer = c.connect().await?;
            let option = opts(&[("chunk", chunk(&c, n))]);
            peer.send(&message(
                &c,
                c.time(n),
                c.record(&format!("active {n}")),
                Some(option),
            ))
            .await?;
            peer.expect_ack(&chunk(&c, n)).await
        });
    }
    for result in active.join_all().await {
        result?;
    }
    drop(idle);
    c.expect_count(100).await
}

async fn slow_sender(c: CaseContext) -> CaseResult {
    let limit = c
        .target
        .declared
        .progress_timeout
        .unwrap_or(Duration::from_secs(60));
    let mut peer = c.connect().await?;
    peer.send(&message(&c, c.time(0), c.record("before"), None))
        .await?;
    let big = batch(
        &c,
        blob(Format::Bin32, &vec![0; 1 << 20]),
        Some(opts(&[("chunk", chunk(&c, 1))])),
    );
    peer.send(&big[..100]).await?;
    let deadline = Instant::now() + limit * 2 + Duration::from_secs(10);
    for byte in &big[100..] {
        let open = peer.send_unless_closed(&[*byte]).await;
        let (bytes, closed) = peer.drain(Duration::from_secs(1)).await;
        check(bytes.is_empty(), "no ack", crate::msgpack::hex(&bytes))?;
        if closed || !open {
            return c.expect_texts(&["before"]).await;
        }
        if Instant::now() > deadline {
            return Err(CaseError::fail(
                format!("closed about {limit:?} after the start"),
                "still open",
            ));
        }
    }
    Ok(())
}

async fn kill_after_ack(c: CaseContext) -> CaseResult {
    let texts: Vec<String> = (0..50).map(|n| format!("line {n}")).collect();
    let mut peer = c.connect().await?;
    let messages: Vec<Raw> = (0..)
        .zip(&texts)
        .map(|(n, text)| {
            batch(
                &c,
                array(&[c.entry(n, text)]),
                Some(opts(&[("chunk", chunk(&c, n))])),
            )
        })
        .collect();
    peer.send(&messages.concat()).await?;
    for n in 0..50 {
        peer.expect_ack(&chunk(&c, n)).await?;
    }
    c.hook(Action::KillRestart).await?;
    sleep(Duration::from_millis(50)).await;
    c.await_listener().await?;
    c.expect_texts(&texts.iter().map(String::as_str).collect::<Vec<_>>())
        .await
}
