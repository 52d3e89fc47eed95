//! Cases 47 to 58: acks.

use std::time::Duration;

use super::{batch, cases, chunk, message, opts};
use crate::case_result::{CaseError, CaseResult, check};
use crate::context::{CaseContext, T0};
use crate::msgpack::{Raw, array, bin, hex, nil, s, str_bytes, uint, unhex};
use crate::target::Action;
use crate::vectors;

cases! {
    47 "ack-newline" [] "FD-out encode64; FD-ack" "chunk with a trailing newline: the ack has it too" => newline;
    48 "ack-every-id" [] "FB-out; FL; GO"
        "chunk of 32 hex, 36-char UUID, 24 chars, 1 byte, 200 bytes, empty: echoed verbatim" => every_id;
    49 "ack-bin" [] "FD-in echoes any" "chunk as bin: echoed as bin" => bin_id;
    50 "ack-three-in-a-segment" [] "S1 continuously; V"
        "three messages with chunks in one segment: three acks in the same order" => three;
    51 "ack-one-write" [Exclusive] "FB-out 511; FD-ack 512; FL 256"
        "the ack's bytes leave in one write, at most 256 for usual ids" => one_write;
    52 "ack-after-half-close" [] "nc-style clients"
        "client half-closes after sending: processed, acked, then closed" => half_close;
    53 "ack-resend" [] "FD; FB: stable ids"
        "connection reset before the ack, same chunk resent: acked, nothing lost (no duplicates with dedupe)" => resend;
    54 "ack-same-id-other-tag" [] "FB: the hash leaves out the tag" "same chunk id, different tag: both kept" => same_id;
    55 "ack-not-when-starved" [Exclusive, Hook(Action::Starve), Hook(Action::Feed)] "FD: exception closes"
        "output or disk fails: no ack; after recovery no acked event is missing" => starved;
    56 "ack-never-read" [Exclusive] "ND"
        "client never reads 10,000 acks: memory bounded, others unaffected" => never_read;
    57 "ack-all-invalid" [] "FD-in: a retry never succeeds" "chunk whose every event is invalid: acked" => all_invalid;
    58 "no-chunk-no-bytes" [] "FD-test" "no chunk: the server never writes anything" => never_writes;
}

/// Sends an event with each of these chunk ids, expecting each ack before the next.
async fn echoes(c: &CaseContext, ids: &[Raw]) -> CaseResult {
    let mut peer = c.connect().await?;
    let texts: Vec<String> = (0..ids.len()).map(|n| format!("id {n}")).collect();
    for ((n, id), text) in (0..).zip(ids).zip(&texts) {
        peer.send(&message(
            c,
            c.time(n),
            c.record(text),
            Some(opts(&[("chunk", id.clone())])),
        ))
        .await?;
        peer.expect_ack(id).await?;
    }
    c.expect_alive(&mut peer).await?;
    c.expect_texts(&texts.iter().map(String::as_str).collect::<Vec<_>>())
        .await
}

async fn newline(c: CaseContext) -> CaseResult {
    let mut peer = c.connect().await?;
    peer.send(&unhex(vectors::FLUENTD_PACKED)).await?;
    let ack = peer.raw(1).await;
    check(
        ack == unhex(vectors::FLUENTD_ACK_REPLY),
        format!("ack {}", vectors::FLUENTD_ACK_REPLY),
        hex(&ack),
    )?;
    echoes(&c, &[s("p88ngmxTQVC8/nh2wlKKeQ==\n"), s("\n"), s("a\r\n")]).await
}

async fn every_id(c: CaseContext) -> CaseResult {
    let mut peer = c.connect().await?;
    peer.send(&unhex(vectors::BIT_V1_ACK)).await?;
    peer.expect_ack(&s("MA/y7fgeYcS5gSPqPlJ9CA==")).await?;
    echoes(
        &c,
        &[
            s("0123456789abcdef0123456789abcdef"),
            s("123e4567-e89b-42d3-a456-426614174000"),
            s("wjuG8UNGMPQTCSrJs/JvPA=="),
            s("x"),
            str_bytes(&[b'i'; 200]),
            s(""),
            str_bytes(&[0xff, 0x00, 0x80]),
        ],
    )
    .await
}

async fn bin_id(c: CaseContext) -> CaseResult {
    echoes(&c, &[bin(b"0123456789abcdef"), bin(&[0, 0xff])]).await
}

async fn three(c: CaseContext) -> CaseResult {
    let texts = ["one", "two", "three"];
    let bytes: Vec<Raw> = (0..)
        .zip(texts)
        .map(|(n, text)| {
            message(
                &c,
                c.time(n),
                c.record(text),
                Some(opts(&[("chunk", chunk(&c, n))])),
            )
        })
        .collect();
    let mut peer = c.connect().await?;
    peer.send(&bytes.concat()).await?;
    for n in 0..3 {
        peer.expect_ack(&chunk(&c, n)).await?;
    }
    c.expect_alive(&mut peer).await?;
    c.expect_texts(&texts).await
}

async fn one_write(c: CaseContext) -> CaseResult {
    let mut peer = c.connect().await?;
    for n in 0..20 {
        peer.reads.clear();
        let id = s(&format!("123e4567-e89b-42d3-a456-4266141740{n:02}"));
        peer.send(&message(
            &c,
            c.time(n),
            c.record("x"),
            Some(opts(&[("chunk", id.clone())])),
        ))
        .await?;
        peer.expect_ack(&id).await?;
        check(
            peer.reads.len() == 1 && peer.reads[0] <= 256,
            "one read of at most 256 bytes",
            format!("{:?}", peer.reads),
        )?;
    }
    Ok(())
}

async fn half_close(c: CaseContext) -> CaseResult {
    let mut peer = c.connect().await?;
    peer.send(&message(
        &c,
        c.time(0),
        c.record("one"),
        Some(opts(&[("chunk", chunk(&c, 1))])),
    ))
    .await?;
    peer.half_close().await?;
    peer.expect_ack(&chunk(&c, 1)).await?;
    peer.expect_close_unacked(Duration::from_secs(5)).await?;
    c.expect_texts(&["one"]).await
}

/// Expects the text once; without declared dedupe a duplicate is allowed.
async fn kept(c: &CaseContext, text: &str) -> CaseResult {
    if c.target.declared.dedupe || !c.target.sink.is_readable() {
        return c.expect_texts(&[text]).await;
    }
    match c.expect_texts(&[text]).await {
        Err(CaseError::Fail { seen, .. }) if seen.starts_with("2 events") => {
            c.note("stored twice: at-least-once delivery");
            c.expect_texts(&[text, text]).await
        }
        result => result,
    }
}

async fn resend(c: CaseContext) -> CaseResult {
    let bytes = batch(
        &c,
        array(&[c.entry(0, "once")]),
        Some(opts(&[("chunk", chunk(&c, 1))])),
    );
    let mut peer = c.connect().await?;
    peer.send(&bytes).await?;
    // Long enough for the server to read the message and ack into a closed connection.
    tokio::time::sleep(Duration::from_millis(200)).await;
    peer.reset();
    let mut peer = c.connect().await?;
    peer.send(&bytes).await?;
    peer.expect_ack(&chunk(&c, 1)).await?;
    peer.send(&bytes).await?;
    peer.expect_ack(&chunk(&c, 1)).await?;
    c.expect_alive(&mut peer).await?;
    if c.target.declared.dedupe {
        return c.expect_texts(&["once"]).await;
    }
    match c.expect_texts(&["once"]).await {
        Err(CaseError::Fail { seen, .. }) if seen.starts_with("2 events") || seen.starts_with("3 events") => {
            c.note("stored more than once: no deduplication");
            Ok(())
        }
        result => result,
    }
}

async fn same_id(c: CaseContext) -> CaseResult {
    let mut peer = c.connect().await?;
    for (n, tag) in (0..).zip(["conformance.one", "conformance.two"]) {
        let entries = array(&[c.entry(0, "same")]);
        peer.send(&array(&[s(tag), entries, opts(&[("chunk", chunk(&c, 1))])]))
            .await?;
        peer.expect_ack(&chunk(&c, 1)).await.map_err(|f| match f {
            CaseError::Fail { expected, seen } => CaseError::fail(format!("{expected} for tag {n}"), seen),
            skip => skip,
        })?;
    }
    c.expect_texts(&["same", "same"]).await
}

async fn starved(c: CaseContext) -> CaseResult {
    let bytes = batch(
        &c,
        array(&[c.entry(0, "late")]),
        Some(opts(&[("chunk", chunk(&c, 1))])),
    );
    let mut peer = c.connect().await?;
    c.hook(Action::Starve).await?;
    let sent = peer.send_unless_closed(&bytes).await;
    let (early, closed) = peer.drain(Duration::from_secs(2)).await;
    c.hook(Action::Feed).await?;
    check(
        early.is_empty(),
        "no ack while nothing can be stored",
        hex(&early),
    )?;
    c.await_listener().await?;
    if closed || !sent || peer.expect_ack(&chunk(&c, 1)).await.is_err() {
        let mut peer = c.connect().await?;
        peer.send(&bytes).await?;
        peer.expect_ack(&chunk(&c, 1)).await?;
    }
    kept(&c, "late").await
}

async fn never_read(c: CaseContext) -> CaseResult {
    let before = c.memory();
    let id = |n: u32| s(&format!("{n:0>200}"));
    let mut peer = c.connect().await?;
    let mut sent = 0;
    for block in 0..100 {
        let of_block = block * 100..(block + 1) * 100;
        let bytes: Vec<Raw> = of_block
            .map(|n| message(&c, c.time(n), c.record("unread"), Some(opts(&[("chunk", id(n))]))))
            .collect();
        if !peer.send_unless_closed(&bytes.concat()).await {
            c.note(format!("the server stopped reading after about {sent} messages"));
            break;
        }
        sent += 100;
    }
    c.expect_listener_alive().await?;
    c.expect_memory(before, 64 << 20)?;
    if sent == 10_000 {
        for n in 0..sent {
            peer.expect_ack(&id(n)).await?;
        }
    }
    Ok(())
}

async fn all_invalid(c: CaseContext) -> CaseResult {
    let mut peer = c.connect().await?;
    let entries = array(&[
        array(&[uint(T0.into()), s("no map")]),
        uint(5),
        array(&[]),
        array(&[c.time(0)]),
    ]);
    let option = |n| Some(opts(&[("chunk", chunk(&c, n))]));
    peer.send(&batch(&c, entries, option(1))).await?;
    peer.expect_ack(&chunk(&c, 1)).await?;
    peer.send(&message(&c, c.time(0), s("no map"), option(2))).await?;
    peer.expect_ack(&chunk(&c, 2)).await?;
    peer.send(&message(&c, c.time(0), nil(), option(3))).await?;
    peer.expect_ack(&chunk(&c, 3)).await?;
    c.expect_alive(&mut peer).await
}

async fn never_writes(c: CaseContext) -> CaseResult {
    let mut peer = c.connect().await?;
    peer.send(&message(&c, c.time(0), c.record("message"), None))
        .await?;
    peer.send(&batch(
        &c,
        array(&[c.entry(1, "forward")]),
        Some(opts(&[("size", uint(1))])),
    ))
    .await?;
    peer.send(&batch(&c, bin(&c.entry(2, "packed")), None)).await?;
    peer.expect_silence(Duration::from_secs(1)).await?;
    c.expect_alive(&mut peer).await?;
    c.expect_texts(&["message", "forward", "packed"]).await
}
