//! Cases 74 to 78: JSON over TCP.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{cases, expect_time};
use crate::case_result::{CaseError, CaseResult, check};
use crate::context::{CaseContext, T0};
use crate::peer::Peer;

cases! {
    74 "json-message" [Open] "FD-test" "first byte '[': [\"t\", 1700000000, {..}] is 1 event" => json_message;
    75 "json-stream" [Open] "FD-test json_with_newline; GO"
        "JSON values without separator, with newline, split inside a string: all" => json_stream;
    76 "json-ack" [Open] "FD-test message_json" "JSON with chunk: the ack is JSON, {\"ack\": x}" => json_ack;
    77 "json-odd" [Open] "FD-test"
        "duplicate keys: the last wins; float time; Forward shape in JSON: accepted" => json_odd;
    78 "json-refused-with-key" [Key] "S1: not with authentication"
        "JSON on a listener with a shared key: closed, nothing accepted" => json_refused;
}

fn event(c: &CaseContext, text: &str) -> Value {
    json!({ "traceId": c.token, "log": text })
}

/// Expects the next JSON value from the server to be this ack.
async fn expect_json_ack(peer: &mut Peer, chunk: &str) -> CaseResult {
    let expected = json!({ "ack": chunk });
    let deadline = Instant::now() + Duration::from_secs(5);
    let mut bytes = Vec::new();
    while Instant::now() < deadline {
        let (more, closed) = peer.drain(Duration::from_millis(100)).await;
        bytes.extend(more);
        if let Ok(seen) = serde_json::from_slice::<Value>(&bytes) {
            return check(seen == expected, expected.to_string(), seen);
        }
        if closed {
            break;
        }
    }
    Err(CaseError::fail(
        expected.to_string(),
        format!("{:?}", String::from_utf8_lossy(&bytes)),
    ))
}

/// Expects that the connection still works: a JSON event with chunk is acked in JSON.
async fn expect_alive(c: &CaseContext, peer: &mut Peer) -> CaseResult {
    let message =
        json!(["conformance.json", T0, event(&c.with_suffix("live"), "alive"), { "chunk": "live" }]);
    peer.send(message.to_string().as_bytes()).await?;
    expect_json_ack(peer, "live").await
}

async fn json_message(c: CaseContext) -> CaseResult {
    let mut peer = c.connect().await?;
    peer.send(
        json!(["conformance.json", T0, event(&c, "one")])
            .to_string()
            .as_bytes(),
    )
    .await?;
    expect_alive(&c, &mut peer).await?;
    c.expect_texts(&["one"]).await
}

async fn json_stream(c: CaseContext) -> CaseResult {
    let texts = ["one", "two", "three", "four", "fünf \"\\ ]}"];
    let value = |n: usize| json!(["conformance.json", T0 + n as u32, event(&c, texts[n]), {}]).to_string();
    let mut peer = c.connect().await?;
    peer.send(format!("{}{}\n{}\r\n ", value(0), value(1), value(2)).as_bytes())
        .await?;
    peer.send(value(3).as_bytes()).await?;
    let last = value(4);
    peer.trickle(last.as_bytes()).await?;
    expect_alive(&c, &mut peer).await?;
    c.expect_texts(&texts).await
}

async fn json_ack(c: CaseContext) -> CaseResult {
    let mut peer = c.connect().await?;
    for (n, chunk) in (0..).zip(["x", "p88ngmxTQVC8/nh2wlKKeQ==\n", "a\"b"]) {
        let message = json!(["conformance.json", T0 + n, event(&c, &format!("{n}")), { "chunk": chunk }]);
        peer.send(message.to_string().as_bytes()).await?;
        expect_json_ack(&mut peer, chunk).await?;
    }
    c.expect_texts(&["0", "1", "2"]).await
}

async fn json_odd(c: CaseContext) -> CaseResult {
    let (twice, float, forward) = (
        c.with_suffix("twice"),
        c.with_suffix("float"),
        c.with_suffix("forward"),
    );
    let mut peer = c.connect().await?;
    let text = format!(
        r#"["conformance.json",{T0},{{"traceId":"{}","log":"x","a":1,"a":2}}]"#,
        twice.token
    );
    peer.send(text.as_bytes()).await?;
    peer.send(
        json!(["conformance.json", 1_700_000_000.5, event(&float, "x")])
            .to_string()
            .as_bytes(),
    )
    .await?;
    let entries = json!([[T0, event(&forward, "one")], [T0 + 1, event(&forward, "two")]]);
    peer.send(
        json!(["conformance.json", entries, { "size": 2 }])
            .to_string()
            .as_bytes(),
    )
    .await?;
    expect_alive(&c, &mut peer).await?;
    if let Some(doc) = twice.only_record().await? {
        check(
            doc.fields.get("a") == Some(&json!(2)),
            "a: 2",
            format!("{:?}", doc.whole),
        )?;
    }
    expect_time(&float, T0.into(), 500_000_000).await?;
    forward.expect_texts(&["one", "two"]).await
}

async fn json_refused(c: CaseContext) -> CaseResult {
    let mut peer = c.connect_raw().await?;
    crate::handshake::helo(&mut peer).await?;
    peer.send_unless_closed(
        json!(["conformance.json", T0, event(&c, "one"), { "chunk": "x" }])
            .to_string()
            .as_bytes(),
    )
    .await;
    let bytes = peer.expect_close(Duration::from_secs(5)).await?;
    let acked = bytes.windows(3).any(|w| w == b"ack");
    check(!acked, "no ack", crate::msgpack::hex(&bytes))?;
    c.expect_nothing().await
}
