//! Client cases 18 to 20 and 39: limits on buffering and on blocking the application.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::adapter::Adapter;
use super::server::{AckingServer, Server};
use super::{ClientContext, client_cases};
use crate::case_result::{CaseError, CaseResult, check};

client_cases! {
    18 "overflow-policies" "PY drops all"
        "long outage: bounded; each overflow policy drops the right events and reports each" => policies;
    19 "limit-in-bytes" "DK 1 Mi messages" "the buffer's limit counts bytes, not only events" => bytes;
    20 "never-blocks-longer" "GO#44"
        "a call never takes longer than the block timeout, whatever the server does" => never_longer;
    39 "oversize-event" "loggers" "event above the limit: refused or reported, the others unaffected" => oversize;
}

/// Waits until each of `0..count` is delivered or failed, and returns both sets.
async fn accounted(
    b: &ClientContext,
    client: &Adapter,
    count: i64,
) -> Result<(HashSet<i64>, HashSet<i64>), CaseError> {
    let deadline = Instant::now() + b.reply_timeout() * 2;
    loop {
        let delivered: HashSet<i64> = client.delivered().into_iter().collect();
        let failed: HashSet<i64> = client.failed().into_iter().collect();
        if (0..count).all(|id| delivered.contains(&id) || failed.contains(&id)) {
            let both = delivered.intersection(&failed).count();
            check(both == 0, "no event both delivered and failed", format!("{both}"))?;
            return Ok((delivered, failed));
        }
        if Instant::now() > deadline {
            let missing = (0..count)
                .filter(|id| !delivered.contains(id) && !failed.contains(id))
                .count();
            return Err(CaseError::fail(
                format!("all {count} events delivered or reported"),
                format!("{missing} unaccounted for"),
            ));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A client whose server is down, and the address at which it will start.
async fn alone(b: &ClientContext, more: Value) -> Result<(Adapter, String), CaseError> {
    let server = Server::start().await?;
    let (endpoint, address) = (server.endpoint(), server.address.to_string());
    drop(server);
    Ok((b.open(&endpoint, more).await?, address))
}

async fn policies(b: ClientContext) -> CaseResult {
    for policy in ["drop_oldest", "drop_newest", "block"] {
        let options = json!({ "buffer_events": 100, "overflow": policy, "block_timeout_ms": 5, "max_batch_events": 10 });
        let (mut client, address) = alone(&b, options).await?;
        client.burst(0, 600, 1, 10).await?;
        let peer = AckingServer::start(Server::at(&address).await?);
        let (delivered, failed) = accounted(&b, &client, 600).await?;
        // Events in flight when the server went down may not count against the buffer.
        check(
            (80..=250).contains(&delivered.len()),
            format!("{policy}: about 100 kept"),
            delivered.len(),
        )?;
        let right = match policy {
            "drop_oldest" => delivered.contains(&599),
            _ => delivered.contains(&0) && failed.contains(&599),
        };
        check(
            right,
            format!("{policy}: the right ones kept"),
            format!("{:?}", delivered.iter().max()),
        )?;
        let seqs: HashSet<i64> = peer.seqs().into_iter().collect();
        check(
            seqs == delivered,
            format!("{policy}: what is reported delivered has arrived"),
            seqs.len(),
        )?;
    }
    Ok(())
}

async fn bytes(b: ClientContext) -> CaseResult {
    let options = json!({ "buffer_bytes": 200_000, "overflow": "drop_newest", "max_batch_bytes": 50_000 });
    let (mut client, address) = alone(&b, options).await?;
    client.burst(0, 200, 1, 10_000).await?;
    let _peer = AckingServer::start(Server::at(&address).await?);
    let (delivered, _) = accounted(&b, &client, 200).await?;
    check(
        (5..=40).contains(&delivered.len()),
        "about 20 events of 10,000 bytes kept",
        delivered.len(),
    )
}

async fn never_longer(b: ClientContext) -> CaseResult {
    let server = Server::start().await?;
    let options = json!({
        "buffer_events": 50, "buffer_bytes": 100_000, "overflow": "block", "block_timeout_ms": 200, "max_batch_bytes": 20_000,
    });
    let mut client = b.open(&server.endpoint(), options).await?;
    // The server accepts and does nothing: no ack ever comes.
    let _held = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok(conn) = server.accept_tcp(Duration::from_secs(60)).await {
            held.push(conn);
        }
    });
    let done = client.burst(0, 80, 4, 1000).await?;
    let longest = done["max_took_ms"].as_f64().unwrap_or(f64::INFINITY);
    check(
        longest <= 700.0,
        "no call longer than about 200 ms",
        format!("{longest} ms"),
    )
}

async fn oversize(b: ClientContext) -> CaseResult {
    let server = Server::start().await?;
    let mut client = b
        .open(&server.endpoint(), json!({ "max_event_bytes": 10_000 }))
        .await?;
    let peer = AckingServer::start(server);
    client.send(1, json!({ "seq": 1 })).await?;
    client
        .send(2, json!({ "seq": 2, "pad": { "$fill": 70_000 } }))
        .await?;
    client.send(3, json!({ "seq": 3 })).await?;
    client.expect_delivered(&[1, 3]).await?;
    check(
        client.failed() == [2],
        "event 2 refused or reported",
        format!("{:?}", client.failed()),
    )?;
    let mut seqs = peer.seqs();
    seqs.sort_unstable();
    check(seqs == [1, 3], "events 1 and 3", format!("{seqs:?}"))
}
