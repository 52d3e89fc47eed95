//! Client cases 15 to 17, 21, 22, 24, 35, 36 and 40: broken connections and unavailable servers.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::time::sleep;

use super::server::{AckingServer, Server};
use super::{ClientContext, client_cases};
use crate::case_result::{CaseError, CaseResult, check};

client_cases! {
    15 "idle-closed" "PY _check_recv_side; FD-cache"
        "idle connection closed by the server, then a send without ack: nothing lost" => idle_closed;
    16 "no-ack-partial-write" "all" "no-ack mode, connection reset inside a message: the next one starts with a whole message" => partial_write;
    17 "server-down-at-start" "DK sync failure; ecs-agent#1379"
        "server down at start: opening neither blocks nor fails; events arrive once it is up" => down_at_start;
    21 "back-off" "moby#40063, #44511"
        "back-off grows, is capped, and ends at once on close" => back_off;
    22 "close-deadline" "GO ForceStopAsyncSend"
        "close within the deadline: undelivered events reported with a dead server, all flushed with a live one" => close_deadline;
    24 "server-stops-reading" "moby PR#49911" "server stops reading: write timeout, new connection, sent again" => zero_window;
    35 "several-endpoints" "FD-lb; FL MultiSender"
        "chunk unacked on one endpoint goes to the other with the same id" => failover;
    36 "connection-age" "GO AsyncReconnectInterval"
        "maximum age of a connection closes it between chunks only" => connection_age;
    40 "process-exit" "drop" "process exit without close: no deadlock" => process_exit;
}

async fn idle_closed(b: ClientContext) -> CaseResult {
    let server = Server::start().await?;
    let mut client = b.open(&server.endpoint(), json!({ "ack": false })).await?;
    client.send(1, json!({ "seq": 1 })).await?;
    let mut conn = server.accept(b.reply_timeout()).await?;
    conn.message().await?;
    drop(conn);
    // The FIN has arrived before the next event is sent.
    sleep(Duration::from_millis(300)).await;
    client.send(2, json!({ "seq": 2 })).await?;
    let message = server.accept(b.reply_timeout()).await?.message().await?;
    let seqs: Vec<_> = message
        .events
        .iter()
        .filter_map(super::server::Event::seq)
        .collect();
    check(seqs == [2], "event 2 on a new connection", format!("{seqs:?}"))
}

async fn partial_write(b: ClientContext) -> CaseResult {
    let server = Server::start().await?;
    let mut client = b
        .open(
            &server.endpoint(),
            json!({ "ack": false, "write_timeout_ms": 1000 }),
        )
        .await?;
    // More than the socket buffers hold, so that the client is still writing at the reset.
    for seq in 0..16 {
        client
            .send(seq, json!({ "seq": seq, "pad": { "$fill": 1_000_000 } }))
            .await?;
    }
    let mut conn = server.accept(b.reply_timeout()).await?;
    conn.read_exact(100_000).await?;
    drop(conn);
    let peer = AckingServer::start(server);
    client.send(99, json!({ "seq": 99 })).await?;
    peer.until(b.reply_timeout(), |p| p.seqs().contains(&99)).await;
    // `AckingServer` stops reading a connection at the first bytes that are not a message.
    check(
        peer.seqs().contains(&99),
        "event 99, in whole messages",
        format!("{:?}", peer.seqs()),
    )
}

async fn down_at_start(b: ClientContext) -> CaseResult {
    let server = Server::start().await?;
    let (endpoint, address) = (server.endpoint(), server.address.to_string());
    drop(server);
    let started = Instant::now();
    let mut client = b.open(&endpoint, json!({})).await?;
    check(
        started.elapsed() < Duration::from_secs(5),
        "opened at once",
        format!("{:?}", started.elapsed()),
    )?;
    for seq in 1..=3 {
        client.send(seq, json!({ "seq": seq })).await?;
    }
    sleep(Duration::from_millis(500)).await;
    let peer = AckingServer::start(Server::at(&address).await?);
    client.expect_delivered(&[1, 2, 3]).await?;
    let mut seqs = peer.seqs();
    seqs.sort_unstable();
    check(seqs == [1, 2, 3], "each once", format!("{seqs:?}"))
}

async fn back_off(b: ClientContext) -> CaseResult {
    let server = Server::start().await?;
    let mut client = b
        .open(
            &server.endpoint(),
            json!({ "retry_initial_ms": 50, "retry_max_ms": 800 }),
        )
        .await?;
    client.send(1, json!({ "seq": 1 })).await?;
    let started = Instant::now();
    let mut times = Vec::new();
    while let Some(left) = Duration::from_secs(5).checked_sub(started.elapsed()) {
        match server.accept_tcp(left).await {
            Ok(stream) => {
                times.push(started.elapsed());
                drop(stream);
            }
            Err(_) => break,
        }
    }
    let gaps: Vec<u128> = times.windows(2).map(|w| (w[1] - w[0]).as_millis()).collect();
    check(
        (3..=60).contains(&times.len()),
        "3 to 60 tries in 5 s",
        format!("{} tries, gaps {gaps:?} ms", times.len()),
    )?;
    let half = gaps.len() / 2;
    let sum = |part: &[u128]| part.iter().sum::<u128>() / part.len().max(1) as u128;
    check(
        sum(&gaps[half..]) > sum(&gaps[..half]),
        "gaps that grow",
        format!("{gaps:?} ms"),
    )?;
    check(
        gaps.iter().all(|g| *g <= 2400),
        "gaps of at most about 800 ms",
        format!("{gaps:?} ms"),
    )?;
    drop(server);
    let (_, took) = client.close(300).await?;
    check(
        took < Duration::from_millis(1300),
        "closed within 300 ms",
        format!("{took:?}"),
    )
}

async fn close_deadline(b: ClientContext) -> CaseResult {
    let server = Server::start().await?;
    let mut client = b
        .open(&server.endpoint(), json!({ "flush_interval_ms": 50 }))
        .await?;
    for seq in 1..=3 {
        client.send(seq, json!({ "seq": seq })).await?;
    }
    let silent = server.accept(b.reply_timeout()).await?;
    let (answer, took) = client.close(700).await?;
    check(
        took < Duration::from_millis(1700),
        "closed within 700 ms",
        format!("{took:?}"),
    )?;
    let mut undelivered: Vec<i64> = answer["undelivered"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_i64)
        .collect();
    undelivered.extend(client.failed());
    undelivered.sort_unstable();
    undelivered.dedup();
    check(
        undelivered == [1, 2, 3],
        "events 1, 2, 3 reported as not delivered",
        format!("{undelivered:?}"),
    )?;
    drop(silent);
    let server = Server::start().await?;
    let mut client = b
        .open(&server.endpoint(), json!({ "flush_interval_ms": 3000 }))
        .await?;
    let peer = AckingServer::start(server);
    for seq in 1..=3 {
        client.send(seq, json!({ "seq": seq })).await?;
    }
    let (answer, _) = client.close(5000).await?;
    check(
        answer["undelivered"].as_array().is_none_or(Vec::is_empty),
        "nothing undelivered",
        &answer,
    )?;
    let mut seqs = peer.seqs();
    seqs.sort_unstable();
    check(seqs == [1, 2, 3], "all flushed by close", format!("{seqs:?}"))
}

async fn zero_window(b: ClientContext) -> CaseResult {
    let server = Server::start().await?;
    let options = json!({
        "write_timeout_ms": 500, "ack_timeout_ms": 2000, "overflow": "block", "block_timeout_ms": 10_000,
    });
    let mut client = b.open(&server.endpoint(), options).await?;
    for seq in 0..12 {
        client
            .send(seq, json!({ "seq": seq, "pad": { "$fill": 1_000_000 } }))
            .await?;
    }
    let stuck = server.accept(b.reply_timeout()).await?;
    let second = server.accept(b.reply_timeout()).await;
    check(second.is_ok(), "a new connection when nothing is read", "none")?;
    drop((second, stuck));
    let peer = AckingServer::start(server);
    peer.until(b.reply_timeout() * 2, |p| (0..12).all(|n| p.seqs().contains(&n)))
        .await;
    let seqs = peer.seqs();
    check(
        (0..12).all(|n| seqs.contains(&n)),
        "all 12 events",
        format!("{seqs:?}"),
    )?;
    client.expect_delivered(&(0..12).collect::<Vec<_>>()).await
}

async fn failover(b: ClientContext) -> CaseResult {
    let (one, two) = (Server::start().await?, Server::start().await?);
    let endpoints = [one.endpoint(), two.endpoint()].concat();
    let mut client = b.open(&endpoints, json!({})).await?;
    client.send(1, json!({ "seq": 1 })).await?;
    let (mut first, other) = tokio::select! {
        conn = one.accept(b.reply_timeout()) => { drop(one); (conn?, two) }
        conn = two.accept(b.reply_timeout()) => { drop(two); (conn?, one) }
    };
    let message = first.message().await?;
    drop(first);
    let mut second = other.accept(b.reply_timeout()).await?;
    let again = second.message().await?;
    check(
        again.chunk()? == message.chunk()?,
        "the same chunk id on the other endpoint",
        format!("{:?}", again.option),
    )?;
    second.ack(&again).await?;
    client.expect_delivered(&[1]).await
}

async fn connection_age(b: ClientContext) -> CaseResult {
    let server = Server::start().await?;
    let mut client = b
        .open(&server.endpoint(), json!({ "max_connection_age_ms": 300 }))
        .await?;
    let peer = AckingServer::start(server);
    for seq in 0..40 {
        client.send(seq, json!({ "seq": seq })).await?;
        sleep(Duration::from_millis(50)).await;
    }
    client.expect_delivered(&(0..40).collect::<Vec<_>>()).await?;
    check(
        peer.connections() >= 3,
        "several connections in 2 s",
        peer.connections(),
    )?;
    let mut seqs = peer.seqs();
    seqs.sort_unstable();
    check(
        seqs.iter().copied().eq(0..40),
        "each event once",
        format!("{seqs:?}"),
    )
}

async fn process_exit(b: ClientContext) -> CaseResult {
    let server = Server::start().await?;
    let mut client = b.open(&server.endpoint(), json!({})).await?;
    client.send(1, json!({ "seq": 1 })).await?;
    let mut conn = server.accept(b.reply_timeout()).await?;
    conn.message().await.map_err(|f| match f {
        CaseError::Fail { expected, seen } => CaseError::fail(format!("{expected} before the end"), seen),
        skip => skip,
    })?;
    // Never acked: the process must end all the same.
    client.close_stdin(Duration::from_secs(10)).await
}
