//! Client cases 5 to 14, 23 and 25: handling of acks.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::json;

use super::server::{AckingServer, Connection, Message, Server};
use super::{ClientContext, client_cases};
use crate::case_result::{CaseError, CaseResult, check};
use crate::msgpack::{bin, map, map32, s, uint};

client_cases! {
    5 "ack-once" "S1" "ack received: delivery reported exactly once, success" => acked;
    6 "ack-byte-by-byte" "FB, FD fragile" "ack arriving byte by byte: success" => trickled;
    7 "acks-in-one-segment" "GO loses one" "two acks in one segment: both matched" => together;
    8 "acks-out-of-order" "NN; V batches" "acks out of order: matched by id" => out_of_order;
    9 "ack-forms" "loggers" "ack map with extra keys, map32 header, bin value: success" => forms;
    10 "ack-wrong-id" "FD #4057" "wrong ack id: connection dropped, same id sent again on a new one" => wrong_id;
    11 "ack-empty-map" "V; NN fatal" "{} in reply: not delivered, sent again, never fatal" => empty_map;
    12 "ack-timeout" "FD-conn discard" "no ack in time: connection dropped, same id sent again elsewhere" => no_ack;
    13 "close-before-ack" "fluentd#576" "server closes before the ack: sent again; not reported as delivered" => closed_early;
    14 "close-after-read" "all" "server reads everything and closes without ack: the same chunk id again" => closed_late;
    23 "many-threads" "GO muconn bug" "many threads, one client, acks: no cross-talk, no duplicates" => many_threads;
    25 "unsolicited-bytes" "ND" "unsolicited acks in no-ack mode: read and ignored" => unsolicited;
}

async fn acked(b: ClientContext) -> CaseResult {
    let server = Server::start().await?;
    let mut client = b.open(&server.endpoint(), json!({})).await?;
    client.send(1, json!({ "seq": 1 })).await?;
    let mut conn = server.accept(b.reply_timeout()).await?;
    let message = conn.message().await?;
    tokio::time::sleep(Duration::from_millis(200)).await;
    check(
        client.delivered().is_empty(),
        "no delivery before the ack",
        format!("{:?}", client.delivered()),
    )?;
    conn.ack(&message).await?;
    client.expect_delivered(&[1]).await?;
    client.close(2000).await?;
    client.expect_delivered(&[1]).await
}

async fn trickled(b: ClientContext) -> CaseResult {
    let server = Server::start().await?;
    let mut client = b.open(&server.endpoint(), json!({})).await?;
    let mut conn = None;
    for id in 1..=3 {
        client.send(id, json!({ "seq": id })).await?;
        if conn.is_none() {
            conn = Some(server.accept(b.reply_timeout()).await?);
        }
        if let Some(conn) = &mut conn {
            let message = conn.message().await?;
            conn.trickle(&message.ack()?).await?;
        }
        client.expect_delivered(&[id]).await?;
    }
    Ok(())
}

/// Three events in separate chunks, all unacked; skipped when the client sends one chunk at a time.
async fn pipelined(
    b: &ClientContext,
) -> Result<(super::adapter::Adapter, Connection, Vec<Message>, Server), CaseError> {
    let server = Server::start().await?;
    let options = json!({ "mode": "message", "pipeline": 8, "max_batch_events": 1, "flush_interval_ms": 0 });
    let mut client = b.open(&server.endpoint(), options).await?;
    for id in 1..=3 {
        client.send(id, json!({ "seq": id })).await?;
    }
    let mut conn = server.accept(b.reply_timeout()).await?;
    let mut messages = vec![conn.message().await?];
    while let Some(message) = conn.maybe_message(Duration::from_millis(700)).await {
        messages.push(message);
    }
    if messages.len() < 2 {
        return Err(CaseError::Skip(
            "the client keeps one chunk unacked at a time".into(),
        ));
    }
    Ok((client, conn, messages, server))
}

fn ids(messages: &[Message]) -> Vec<i64> {
    messages
        .iter()
        .flat_map(|m| &m.events)
        .filter_map(super::server::Event::seq)
        .collect()
}

async fn together(b: ClientContext) -> CaseResult {
    let (client, mut conn, messages, _server) = pipelined(&b).await?;
    let acks: Vec<_> = messages.iter().map(Message::ack).collect::<Result<_, _>>()?;
    conn.write(&acks.concat()).await?;
    client.expect_delivered(&ids(&messages)).await
}

async fn out_of_order(b: ClientContext) -> CaseResult {
    let (client, mut conn, messages, _server) = pipelined(&b).await?;
    let last = messages.len() - 1;
    conn.ack(&messages[last]).await?;
    client.expect_delivered(&ids(&messages[last..])).await?;
    check(
        !client.delivered().contains(&1),
        "the first is not delivered yet",
        format!("{:?}", client.delivered()),
    )?;
    for message in messages[..last].iter().rev() {
        conn.ack(message).await?;
    }
    client.expect_delivered(&ids(&messages)).await
}

async fn forms(b: ClientContext) -> CaseResult {
    let server = Server::start().await?;
    let mut client = b.open(&server.endpoint(), json!({})).await?;
    let mut conn = None;
    for id in 1..=4 {
        client.send(id, json!({ "seq": id })).await?;
        if conn.is_none() {
            conn = Some(server.accept(b.reply_timeout()).await?);
        }
        let Some(conn) = &mut conn else { continue };
        let message = conn.message().await?;
        let raw = message.chunk_raw()?;
        let bytes = message.chunk()?.bytes().unwrap_or_default().to_vec();
        conn.write(&match id {
            1 => map(&[(s("x"), uint(1)), (s("ack"), raw), (s("y"), map(&[]))]),
            2 => map32(&[(s("ack"), raw)]),
            3 => map(&[(s("ack"), bin(&bytes))]),
            _ => map(&[(bin(b"ack"), raw)]),
        })
        .await?;
        client.expect_delivered(&[id]).await?;
    }
    Ok(())
}

/// Receives a message on which `spoil` acts without acking it. Expects it again with the same id on
/// another connection, and only then its delivery.
async fn comes_again<F>(b: &ClientContext, more: serde_json::Value, spoil: F) -> CaseResult
where
    F: AsyncFnOnce(Connection, &Message) -> Result<Option<Connection>, CaseError>,
{
    let server = Server::start().await?;
    let mut client = b.open(&server.endpoint(), more).await?;
    client.send(1, json!({ "seq": 1 })).await?;
    let mut first = server.accept(b.reply_timeout()).await?;
    let message = first.message().await?;
    let kept = spoil(first, &message).await?;
    let (mut conn, again) = match kept {
        // A client may resend on the same connection, or on a new one.
        Some(mut kept) => tokio::select! {
            conn = server.accept(b.reply_timeout()) => {
                let mut conn = conn?;
                let again = conn.message().await?;
                (conn, again)
            }
            Ok(again) = kept.message_within(b.reply_timeout()) => (kept, again),
        },
        None => {
            let mut conn = server.accept(b.reply_timeout()).await?;
            let again = conn.message().await?;
            (conn, again)
        }
    };
    check(
        client.delivered().is_empty(),
        "not reported as delivered before the ack",
        format!("{:?}", client.delivered()),
    )?;
    let same = again.chunk()? == message.chunk()? && ids(std::slice::from_ref(&again)) == [1];
    check(
        same,
        format!("the same chunk id {:?}", message.chunk()?),
        format!("{:?}", again.option),
    )?;
    conn.ack(&again).await?;
    client.expect_delivered(&[1]).await
}

async fn wrong_id(b: ClientContext) -> CaseResult {
    comes_again(&b, json!({}), async |mut conn, _| {
        conn.write(&map(&[(s("ack"), s("AAAAAAAAAAAAAAAAAAAAAA=="))]))
            .await?;
        conn.expect_close(Duration::from_secs(3)).await?;
        Ok(None)
    })
    .await
}

async fn empty_map(b: ClientContext) -> CaseResult {
    comes_again(&b, json!({}), async |mut conn, _| {
        conn.write(&map(&[])).await?;
        Ok(Some(conn))
    })
    .await
}

async fn no_ack(b: ClientContext) -> CaseResult {
    comes_again(&b, json!({ "ack_timeout_ms": 500 }), async |mut conn, message| {
        let started = Instant::now();
        conn.expect_close(Duration::from_secs(3)).await?;
        check(
            started.elapsed() > Duration::from_millis(250),
            "the ack is waited for",
            format!("{:?}", started.elapsed()),
        )?;
        // The late ack is sent to a closed connection.
        let _ = conn.ack(message).await;
        Ok(None)
    })
    .await
}

async fn closed_early(b: ClientContext) -> CaseResult {
    let server = Server::start().await?;
    let mut client = b.open(&server.endpoint(), json!({})).await?;
    client
        .send(1, json!({ "seq": 1, "pad": { "$fill": 20_000 } }))
        .await?;
    let mut first = server.accept(b.reply_timeout()).await?;
    first.read_exact(10).await?;
    drop(first);
    let mut conn = server.accept(b.reply_timeout()).await?;
    let message = conn.message().await?;
    check(
        client.delivered().is_empty(),
        "not reported as delivered",
        format!("{:?}", client.delivered()),
    )?;
    conn.ack(&message).await?;
    client.expect_delivered(&[1]).await
}

async fn closed_late(b: ClientContext) -> CaseResult {
    comes_again(&b, json!({}), async |conn, _| {
        drop(conn);
        Ok(None)
    })
    .await
}

async fn many_threads(b: ClientContext) -> CaseResult {
    let server = Server::start().await?;
    let options = json!({ "overflow": "block", "block_timeout_ms": 20_000 });
    let mut client = b.open(&server.endpoint(), options).await?;
    let peer = AckingServer::start(server);
    client.burst(0, 4000, 8, 20).await?;
    client
        .command(&json!({ "do": "flush", "timeout_ms": 20_000 }))
        .await?;
    peer.until(b.reply_timeout() * 3, |p| p.seqs().len() >= 4000)
        .await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut count: HashMap<i64, usize> = HashMap::new();
    for seq in peer.seqs() {
        *count.entry(seq).or_default() += 1;
    }
    let twice = count.values().filter(|n| **n > 1).count();
    check(
        count.len() == 4000 && twice == 0,
        "4000 events, each once",
        format!("{} events, {twice} more than once", count.len()),
    )?;
    client.close(5000).await?;
    let mut delivered = client.delivered();
    delivered.sort_unstable();
    check(
        delivered.iter().copied().eq(0..4000),
        "4000 deliveries, each once",
        format!("{} deliveries", delivered.len()),
    )
}

async fn unsolicited(b: ClientContext) -> CaseResult {
    let server = Server::start().await?;
    let mut client = b.open(&server.endpoint(), json!({ "ack": false })).await?;
    client.send(1, json!({ "seq": 1 })).await?;
    let mut conn = server.accept(b.reply_timeout()).await?;
    conn.message().await?;
    let noise = map(&[(s("ack"), s("nobody asked"))]).repeat(400_000);
    let drained = conn.write(&noise).await;
    client.send(2, json!({ "seq": 2 })).await?;
    // The client may close the connection, but must not lose events.
    let message = match conn.message_within(Duration::from_secs(3)).await {
        Ok(message) => message,
        Err(_) => server.accept(b.reply_timeout()).await?.message().await?,
    };
    check(ids(&[message]) == [2], "event 2", "another")?;
    drained.map_err(|_| CaseError::fail("8 MB of unsolicited acks are read", "the client does not read"))?;
    check(
        matches!(client.failed().as_slice(), []),
        "no failure",
        format!("{:?}", client.failed()),
    )?;
    Ok(())
}
