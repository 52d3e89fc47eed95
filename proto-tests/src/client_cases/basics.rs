//! Client cases 1 to 4, 37 and 38: encoding of messages.

use std::collections::HashSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::server::{AckingServer, Server};
use super::{ClientContext, client_cases};
use crate::case_result::{CaseError, CaseResult, check};
use crate::msgpack::{Value, hex, unhex};

client_cases! {
    1 "modes-bytes" "S1" "Message, Forward, Packed, Packed+gzip produce the bytes of the vectors" => modes;
    2 "times-encoded" "GO int32 bug; FB-dec"
        "year 2040 and nsec 999,999,999 exact; before 1970, after 2106 and the marker seconds never wrap" => times;
    3 "options-minimal" "S1; FL, ND errors"
        "no empty option map; size = number of events; compressed only when compressed" => options;
    4 "chunk-ids" "S1" "chunk = Base64 of 16 random bytes, 24 characters, no newline, unique" => chunk_ids;
    37 "batches-split" "FB-in refuses > 6,144,000 bytes" "batches stay below the configured maximum" => batches;
    38 "records-exact" "loggers"
        "keys as str; u64, i64, bin, invalid UTF-8 exact; nesting limited" => records;
}

const ENTRY: &str = "92d7006553f100075bcd1581a36c6f67a26869";

async fn modes(b: ClientContext) -> CaseResult {
    for mode in ["message", "forward", "packed", "packed_gzip"] {
        let server = Server::start().await?;
        let mut client = b
            .open(&server.endpoint(), json!({ "mode": mode, "ack": false }))
            .await?;
        client.send(1, json!({ "log": "hi" })).await?;
        let message = server.accept(b.reply_timeout()).await?.message().await?;
        // After the tag `t.a`: time and record, or one entry in an array or in a payload.
        let expected = match mode {
            "message" => format!("a3742e61{}", &ENTRY[2..]),
            "forward" => format!("a3742e6191{ENTRY}"),
            _ => ENTRY.to_owned(),
        };
        let bytes = unhex(&expected);
        let right = match (mode, &message.payload) {
            ("message" | "forward", None) => message.raw[1..].starts_with(&bytes),
            ("packed" | "packed_gzip", Some(payload)) => *payload == bytes,
            _ => false,
        };
        check(right, format!("{mode}: {expected}"), hex(&message.raw))?;
    }
    Ok(())
}

async fn times(b: ClientContext) -> CaseResult {
    let server = Server::start().await?;
    let mut client = b.open(&server.endpoint(), json!({ "ack": false })).await?;
    let peer = AckingServer::start(server);
    let times: [[i64; 2]; 7] = [
        [2_214_086_400, 999_999_999],
        [1_700_000_000, 1],
        [-5, 0],
        [4_294_967_301, 0],
        [0xffff_ffff, 0],
        [0xffff_fffe, 0],
        [0xffff_fffd, 999_999_999],
    ];
    let mut expected = 0;
    for (seq, time) in (0..).zip(times) {
        let answer = client.send_at(seq, Some(time), json!({ "seq": seq })).await?;
        expected += usize::from(super::adapter::kind(&answer) == "sent");
    }
    peer.until(b.reply_timeout(), |p| p.seqs().len() >= expected)
        .await;
    let events: Vec<_> = peer.messages().into_iter().flat_map(|m| m.events).collect();
    for event in &events {
        let Some([sec, nsec]) = event.seq().and_then(|n| times.get(n as usize)) else {
            continue;
        };
        let right = match &event.time {
            Value::Int(n) => *n == i128::from(*sec),
            Value::Ext(0, bytes) if bytes.len() == 8 => {
                let wire = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
                let wire_nsec = u32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
                let plain = (0..0xffff_fffe).contains(sec);
                let same = i64::from(wire) == *sec && i64::from(wire_nsec) == *nsec;
                // Out of range only the nearest representable time is allowed.
                same && plain || !plain && (wire == 0 && *sec < 0 || wire == 0xffff_fffd && *sec > 0)
            }
            _ => false,
        };
        check(
            right,
            format!("time {sec}.{nsec:09}, whole seconds, or the nearest that fits"),
            format!("{:?}", event.time),
        )?;
    }
    check(
        events.len() == expected,
        format!("{expected} events"),
        events.len(),
    )
}

async fn options(b: ClientContext) -> CaseResult {
    for (mode, ack) in [
        ("message", false),
        ("forward", false),
        ("packed", false),
        ("packed_gzip", true),
        ("forward", true),
    ] {
        let server = Server::start().await?;
        let mut client = b
            .open(
                &server.endpoint(),
                json!({ "mode": mode, "ack": ack, "flush_interval_ms": 100 }),
            )
            .await?;
        for seq in 0..3 {
            client.send(seq, json!({ "seq": seq })).await?;
        }
        let message = server.accept(b.reply_timeout()).await?.message().await?;
        let count = message.events.len() as i128;
        let shown = format!("{mode}, ack {ack}: {:?}", message.option);
        if let Some(option) = &message.option {
            check(*option != Value::Map(Vec::new()), "no empty option map", &shown)?;
            let size = option.get("size");
            check(
                size.is_none_or(|s| *s == Value::Int(count)),
                format!("size {count} or none"),
                &shown,
            )?;
            let compressed = option.get("compressed").and_then(Value::text);
            let wanted = (mode == "packed_gzip").then(|| "gzip".to_owned());
            check(compressed == wanted, format!("compressed {wanted:?}"), &shown)?;
            check(
                option.get("chunk").is_some() == ack,
                "chunk only with ack",
                &shown,
            )?;
        }
        if mode == "message" {
            check(message.elements == 3, "3 elements: no options", &shown)?;
        }
    }
    Ok(())
}

async fn chunk_ids(b: ClientContext) -> CaseResult {
    let server = Server::start().await?;
    let mut client = b
        .open(
            &server.endpoint(),
            json!({ "mode": "message", "max_batch_events": 1, "flush_interval_ms": 0 }),
        )
        .await?;
    let peer = AckingServer::start(server);
    client.burst(0, 500, 4, 0).await?;
    peer.until(b.reply_timeout() * 2, |p| p.seqs().len() >= 500).await;
    let messages = peer.messages();
    check(messages.len() >= 2, "several chunks", messages.len())?;
    let mut seen = HashSet::new();
    for message in &messages {
        let chunk = message.chunk()?;
        let Value::Str(bytes) = &chunk else {
            return Err(CaseError::fail("the chunk id as str", format!("{chunk:?}")));
        };
        let decoded = STANDARD.decode(bytes).map(|d| d.len());
        check(
            bytes.len() == 24 && decoded == Ok(16),
            "Base64 of 16 bytes",
            String::from_utf8_lossy(bytes),
        )?;
        check(
            seen.insert(bytes.clone()),
            "each id once",
            String::from_utf8_lossy(bytes),
        )?;
    }
    Ok(())
}

async fn batches(b: ClientContext) -> CaseResult {
    let server = Server::start().await?;
    let mut client = b
        .open(
            &server.endpoint(),
            json!({ "max_batch_bytes": 65_536, "flush_interval_ms": 200 }),
        )
        .await?;
    let peer = AckingServer::start(server);
    client.burst(0, 2000, 2, 200).await?;
    peer.until(b.reply_timeout(), |p| p.seqs().len() >= 2000).await;
    check(peer.seqs().len() == 2000, "2000 events", peer.seqs().len())?;
    let largest = peer.messages().iter().map(|m| m.raw.len()).max().unwrap_or(0);
    check(largest <= 65_536, "no message above 65,536 bytes", largest)?;
    check(
        peer.messages().len() < 1000,
        "events in batches",
        format!("{} messages", peer.messages().len()),
    )
}

async fn records(b: ClientContext) -> CaseResult {
    let server = Server::start().await?;
    let mut client = b.open(&server.endpoint(), json!({})).await?;
    let record = json!({
        "seq": 1, "u": { "$u64": "18446744073709551615" }, "i": { "$i64": "-9223372036854775808" },
        "b": { "$bin": "00ff" }, "s": { "$str": "ff41" }, "f": 1.5, "n": null, "t": true, "a": [1, "x"],
        "m": { "k": { "$nest": 5 } }, "big": { "$fill": 70_000 },
    });
    client.send(1, record).await?;
    let peer = AckingServer::start(server);
    peer.until(b.reply_timeout(), |p| !p.seqs().is_empty()).await;
    let events: Vec<_> = peer.messages().into_iter().flat_map(|m| m.events).collect();
    let Some(event) = events.first() else {
        return Err(CaseError::fail("the event", "none"));
    };
    let wanted = [
        ("u", Value::Int(u64::MAX.into())),
        ("i", Value::Int(i64::MIN.into())),
        ("b", Value::Bin(vec![0, 0xff])),
        ("s", Value::Str(vec![0xff, 0x41])),
        ("f", Value::Float(1.5)),
        ("n", Value::Nil),
        ("t", Value::Bool(true)),
        ("a", Value::Array(vec![Value::Int(1), Value::Str(b"x".to_vec())])),
    ];
    for (key, value) in wanted {
        check(
            event.record.get(key) == Some(&value),
            format!("{key}: {value:?}"),
            format!("{:?}", event.record.get(key)),
        )?;
    }
    check(
        event.record.get("big").and_then(Value::bytes).map(<[u8]>::len) == Some(70_000),
        "70,000 bytes",
        "another length",
    )?;
    let Value::Map(pairs) = &event.record else {
        return Err(CaseError::fail("a map", "no map"));
    };
    check(
        pairs.iter().all(|(k, _)| matches!(k, Value::Str(_))),
        "keys as str",
        format!("{pairs:?}"),
    )?;
    // Too deep: rejected, truncated, or reported; later events are not affected.
    client
        .send(2, json!({ "seq": 2, "deep": { "$nest": 300 } }))
        .await?;
    client.send(3, json!({ "seq": 3 })).await?;
    peer.until(b.reply_timeout(), |p| p.seqs().contains(&3)).await;
    check(
        peer.seqs().contains(&3),
        "the event after the deep one",
        format!("{:?}", peer.seqs()),
    )?;
    let deepest = peer
        .messages()
        .iter()
        .flat_map(|m| &m.events)
        .map(|e| depth(&e.record))
        .max()
        .unwrap_or(0);
    check(deepest <= 100, "nesting of at most 100", deepest)?;
    Ok(())
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Map(pairs) => 1 + pairs.iter().map(|(_, v)| depth(v)).max().unwrap_or(0),
        _ => 0,
    }
}
