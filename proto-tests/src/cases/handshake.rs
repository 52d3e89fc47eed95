//! Cases 79 to 95: the handshake.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::{cases, chunk, message, opts};
use crate::case_result::{CaseError, CaseResult, check};
use crate::context::CaseContext;
use crate::handshake::{Helo, Ping, SALT, digest, expect_welcome, helo, key_of, pong, user_of};
use crate::msgpack::{Raw, Value, array, bin, int, nil, s};
use crate::peer::Peer;
use crate::target::Security;

cases! {
    79 "helo" [Key] "S1; FB, FD clients"
        "HELO is sent at once, in one segment; nonce and auth as bin; keepalive a bool" => helo_form;
    80 "pong" [Key] "S1" "valid PING: PONG true, reason \"\", host name, correct digest" => welcome;
    81 "salt-raw-str" [Key] "FB-out" "PING with a salt of 16 bytes that are not UTF-8 in a str: success" => salt_raw;
    82 "salt-forms" [Key] "S1 str|bin; FD client" "salt as bin, as 32 hex chars, empty: success" => salt_forms;
    83 "wrong-key" [Key] "FD-in; FB-ups reuse"
        "wrong key: PONG false with a reason, \"\", \"\", FIN within 1 s; events sent after it are not accepted" => wrong_key;
    84 "wrong-user" [Users] "FD-in; FB-in"
        "wrong password and unknown user: the same reason, PONG false, close" => wrong_user;
    85 "user-without-users" [NoUsers] "FB-out"
        "no users configured, client sends user and digest: success" => unasked_user;
    86 "digest-upper-case" [Key] "S1: hex" "upper-case hex digest: accepted or refused, always the same" => upper_case;
    87 "ping-fragmented" [Key] "S1 stream; FB fails" "PING in several reads: success" => fragmented;
    88 "ping-and-event" [Key] "sloppy clients" "PING and the first message in one segment: PONG, then the event" => pipelined;
    89 "event-instead-of-ping" [Key] "FD invalid ping message"
        "event instead of PING: PONG false or close; not accepted" => no_ping;
    90 "ping-malformed" [Key] "FD, FB: exactly 6" "PING of 5 or 7 elements, wrong types, nil host name: refused, closed" => malformed;
    91 "ping-never" [Key] "timeouts" "no PING for 10 s: closed" => never;
    92 "nonce-fresh" [Key] "S1" "every connection has a fresh nonce" => fresh_nonce;
    93 "key-empty" [Key] "FB empty_shared_key" "empty shared key works" => empty_key;
    94 "handshake-on-this-transport" [Key] "FB PR#1287" "handshake over plain TCP and inside TLS" => transport;
    95 "network-key" [NetworkKey] "FD-in nodes"
        "a key for the client's network: that key works, the default one does not" => network_key;
}

fn security(c: &CaseContext) -> Result<&Security, CaseError> {
    c.target
        .security
        .as_ref()
        .ok_or_else(|| CaseError::Skip("no shared key".into()))
}

/// A connection after its HELO, and a valid PING for it.
async fn greeted(c: &CaseContext, salt: &[u8]) -> Result<(Peer, Helo, Ping), CaseError> {
    let security = security(c)?;
    let mut peer = c.connect_raw().await?;
    let helo = helo(&mut peer).await?;
    let ping = Ping::new(&helo, key_of(security), user_of(security), salt);
    Ok((peer, helo, ping))
}

/// Expects PONG true, and that events are accepted after it.
async fn welcomed(c: &CaseContext, peer: &mut Peer, helo: &Helo, salt: &[u8]) -> CaseResult {
    expect_welcome(peer, helo, key_of(security(c)?), salt).await?;
    c.expect_alive(peer).await
}

/// Expects the connection to be closed, with or without a PONG false; returns the reason, if any.
async fn refused(peer: &mut Peer) -> Result<Option<String>, CaseError> {
    let bytes = peer.expect_close(Duration::from_secs(5)).await?;
    let Ok(values) = crate::msgpack::read_all(&bytes) else {
        return Ok(None);
    };
    for value in &values {
        if let Some([_, Value::Bool(ok), reason, ..]) = value.items() {
            check(!ok, "PONG false or a close", format!("{value:?}"))?;
            return Ok(reason.text());
        }
        check(value.get("ack").is_none(), "no ack", format!("{value:?}"))?;
    }
    Ok(None)
}

async fn helo_form(c: CaseContext) -> CaseResult {
    let security = security(&c)?;
    let mut peer = c.connect_raw().await?;
    let helo = helo(&mut peer).await?;
    check(
        peer.reads.len() == 1,
        "HELO in one read",
        format!("{:?}", peer.reads),
    )?;
    let options = &helo.options;
    let typed = |key| matches!(options.get(key), Some(Value::Bin(_)));
    check(
        typed("nonce") && helo.nonce.len() >= 8,
        "nonce as bin, 8 bytes or more",
        format!("{options:?}"),
    )?;
    check(
        helo.auth.is_empty() || typed("auth"),
        "auth as bin, where there is one",
        format!("{options:?}"),
    )?;
    check(
        security.users.is_empty() || !helo.auth.is_empty(),
        "auth salt, since there are users",
        format!("{options:?}"),
    )?;
    check(
        matches!(options.get("keepalive"), Some(Value::Bool(_))),
        "keepalive as bool",
        format!("{options:?}"),
    )
}

async fn welcome(c: CaseContext) -> CaseResult {
    let security = security(&c)?;
    let (mut peer, helo, ping) = greeted(&c, SALT).await?;
    peer.reads.clear();
    peer.send(&ping.bytes()).await?;
    let pong = pong(&mut peer).await?;
    check(
        peer.reads.len() == 1 && peer.reads[0] <= 511,
        "PONG in one read of at most 511 bytes",
        format!("{:?}", peer.reads),
    )?;
    check(
        pong.ok && pong.reason.is_empty(),
        "PONG true, reason \"\"",
        format!("{pong:?}"),
    )?;
    check(
        !pong.hostname.is_empty(),
        "the server's host name",
        format!("{pong:?}"),
    )?;
    let right = digest(&[SALT, &pong.hostname, &helo.nonce, key_of(security).as_bytes()]);
    check(pong.digest == right, right, &pong.digest)?;
    c.expect_alive(&mut peer).await
}

async fn salt_raw(c: CaseContext) -> CaseResult {
    let salt: Vec<u8> = (0xf0..=0xff).collect();
    let (mut peer, helo, ping) = greeted(&c, &salt).await?;
    peer.send(&ping.bytes()).await?;
    welcomed(&c, &mut peer, &helo, &salt).await
}

async fn salt_forms(c: CaseContext) -> CaseResult {
    let raw: Vec<u8> = (0xf0..=0xff).collect();
    for (salt, as_bin) in [
        (raw.as_slice(), true),
        (SALT, false),
        (SALT, true),
        (b"".as_slice(), false),
    ] {
        let (mut peer, helo, mut ping) = greeted(&c, salt).await?;
        if as_bin {
            ping.salt = bin(salt);
        }
        peer.send(&ping.bytes()).await?;
        welcomed(&c, &mut peer, &helo, salt).await?;
    }
    Ok(())
}

async fn wrong_key(c: CaseContext) -> CaseResult {
    let security = security(&c)?;
    let mut peer = c.connect_raw().await?;
    let helo = helo(&mut peer).await?;
    let wrong = format!("{}-wrong", key_of(security));
    peer.send(&Ping::new(&helo, &wrong, user_of(security), SALT).bytes())
        .await?;
    let answer = pong(&mut peer).await?;
    let refusal =
        !answer.ok && !answer.reason.is_empty() && answer.hostname.is_empty() && answer.digest.is_empty();
    check(refusal, "PONG false, a reason, \"\", \"\"", format!("{answer:?}"))?;
    let asked = Instant::now();
    peer.send_unless_closed(&message(
        &c,
        c.time(0),
        c.record("too late"),
        Some(opts(&[("chunk", chunk(&c, 1))])),
    ))
    .await;
    peer.expect_close_unacked(Duration::from_secs(2)).await?;
    check(
        asked.elapsed() < Duration::from_millis(1500),
        "FIN within 1 s",
        format!("{:?}", asked.elapsed()),
    )?;
    c.expect_nothing().await
}

async fn wrong_user(c: CaseContext) -> CaseResult {
    let security = security(&c)?;
    let Some((name, password)) = user_of(security) else {
        return Err(CaseError::Skip("no users".into()));
    };
    let bad = format!("{password}-wrong");
    let mut reasons = Vec::new();
    for user in [Some((name, bad.as_str())), Some(("nobody.here", password)), None] {
        let mut peer = c.connect_raw().await?;
        let helo = helo(&mut peer).await?;
        peer.send(&Ping::new(&helo, key_of(security), user, SALT).bytes())
            .await?;
        let answer = pong(&mut peer).await?;
        check(!answer.ok, "PONG false", format!("{answer:?}"))?;
        peer.expect_close_unacked(Duration::from_secs(5)).await?;
        reasons.push(answer.reason);
    }
    check(
        !reasons[0].is_empty() && reasons[0] == reasons[1],
        "one and the same reason",
        format!("{reasons:?}"),
    )
}

async fn unasked_user(c: CaseContext) -> CaseResult {
    let security = security(&c)?;
    let mut peer = c.connect_raw().await?;
    let helo = helo(&mut peer).await?;
    let ping = Ping::new(&helo, key_of(security), Some(("", "")), SALT);
    peer.send(&ping.bytes()).await?;
    welcomed(&c, &mut peer, &helo, SALT).await?;
    let (mut peer, helo, mut ping) = greeted(&c, SALT).await?;
    ping.username = s("alice");
    ping.password_digest = s(&digest(&[&helo.auth, b"alice", b"pass"]));
    peer.send(&ping.bytes()).await?;
    welcomed(&c, &mut peer, &helo, SALT).await
}

async fn upper_case(c: CaseContext) -> CaseResult {
    let mut accepted = Vec::new();
    for _ in 0..3 {
        let (mut peer, helo, mut ping) = greeted(&c, SALT).await?;
        let key = key_of(security(&c)?);
        let hex = digest(&[
            SALT,
            crate::handshake::HOSTNAME.as_bytes(),
            &helo.nonce,
            key.as_bytes(),
        ]);
        ping.key_digest = s(&hex.to_uppercase());
        peer.send(&ping.bytes()).await?;
        match pong(&mut peer).await {
            Ok(pong) if pong.ok => accepted.push(true),
            Ok(_) => {
                peer.expect_close_unacked(Duration::from_secs(5)).await?;
                accepted.push(false);
            }
            Err(_) => accepted.push(false),
        }
    }
    c.note(if accepted[0] { "accepted" } else { "refused" });
    check(
        accepted.iter().all(|a| *a == accepted[0]),
        "always the same",
        format!("{accepted:?}"),
    )
}

async fn fragmented(c: CaseContext) -> CaseResult {
    let (mut peer, helo, ping) = greeted(&c, SALT).await?;
    let bytes = ping.bytes();
    for part in bytes.chunks(bytes.len() / 3 + 1) {
        peer.send(part).await?;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    welcomed(&c, &mut peer, &helo, SALT).await?;
    let (mut peer, helo, ping) = greeted(&c, SALT).await?;
    peer.send_segments(ping.bytes().chunks(10)).await?;
    welcomed(&c, &mut peer, &helo, SALT).await
}

async fn pipelined(c: CaseContext) -> CaseResult {
    let (mut peer, helo, ping) = greeted(&c, SALT).await?;
    let event = message(
        &c,
        c.time(0),
        c.record("one"),
        Some(opts(&[("chunk", chunk(&c, 1))])),
    );
    peer.send(&[ping.bytes(), event].concat()).await?;
    expect_welcome(&mut peer, &helo, key_of(security(&c)?), SALT).await?;
    peer.expect_ack(&chunk(&c, 1)).await?;
    c.expect_texts(&["one"]).await
}

async fn no_ping(c: CaseContext) -> CaseResult {
    let mut peer = c.connect_raw().await?;
    peer.send(&message(
        &c,
        c.time(0),
        c.record("no ping"),
        Some(opts(&[("chunk", chunk(&c, 1))])),
    ))
    .await?;
    helo(&mut peer).await?;
    refused(&mut peer).await?;
    c.expect_nothing().await
}

async fn malformed(c: CaseContext) -> CaseResult {
    let (_, _, sample) = greeted(&c, SALT).await?;
    let _ = sample;
    type Change = fn(&Ping) -> Raw;
    let changes: [(&str, Change); 8] = [
        ("5 elements", |p| {
            array(&[
                s("PING"),
                p.hostname.clone(),
                p.salt.clone(),
                p.key_digest.clone(),
                p.username.clone(),
            ])
        }),
        ("7 elements", |p| {
            array(&[
                s("PING"),
                p.hostname.clone(),
                p.salt.clone(),
                p.key_digest.clone(),
                s(""),
                s(""),
                s(""),
            ])
        }),
        ("nil host name", |p| {
            Ping {
                hostname: nil(),
                ..p.clone()
            }
            .bytes()
        }),
        ("int salt", |p| {
            Ping {
                salt: int(5),
                ..p.clone()
            }
            .bytes()
        }),
        ("nil digest", |p| {
            Ping {
                key_digest: nil(),
                ..p.clone()
            }
            .bytes()
        }),
        ("array user", |p| {
            Ping {
                username: array(&[]),
                ..p.clone()
            }
            .bytes()
        }),
        ("PONG", |p| {
            array(&[
                s("PONG"),
                p.hostname.clone(),
                p.salt.clone(),
                p.key_digest.clone(),
                s(""),
                s(""),
            ])
        }),
        ("64 KiB host name", |p| {
            Ping {
                hostname: s(&"h".repeat(65_536)),
                ..p.clone()
            }
            .bytes()
        }),
    ];
    for (name, change) in changes {
        let (mut peer, _, ping) = greeted(&c, SALT).await?;
        peer.send_unless_closed(&change(&ping)).await;
        refused(&mut peer).await.map_err(|f| match f {
            CaseError::Fail { expected, seen } => CaseError::fail(format!("{name}: {expected}"), seen),
            skip => skip,
        })?;
    }
    Ok(())
}

async fn never(c: CaseContext) -> CaseResult {
    let limit = c
        .target
        .declared
        .handshake_timeout
        .unwrap_or(Duration::from_secs(10));
    let mut silent = c.connect_raw().await?;
    helo(&mut silent).await?;
    let (mut slow, _, ping) = greeted(&c, SALT).await?;
    slow.send(&ping.bytes()[..20]).await?;
    silent.expect_close(limit + Duration::from_secs(5)).await?;
    slow.expect_close(Duration::from_secs(5)).await?;
    Ok(())
}

async fn fresh_nonce(c: CaseContext) -> CaseResult {
    let mut nonces = HashSet::new();
    for _ in 0..20 {
        let (_, helo, _) = greeted(&c, SALT).await?;
        nonces.insert(helo.nonce);
    }
    check(nonces.len() == 20, "20 different nonces", nonces.len())
}

async fn empty_key(c: CaseContext) -> CaseResult {
    if !key_of(security(&c)?).is_empty() {
        return Err(CaseError::Skip(
            "needs a listener whose shared key is empty (--shared-key '')".into(),
        ));
    }
    let (mut peer, helo, ping) = greeted(&c, SALT).await?;
    peer.send(&ping.bytes()).await?;
    welcomed(&c, &mut peer, &helo, SALT).await
}

async fn transport(c: CaseContext) -> CaseResult {
    c.note(if c.target.tls.is_some() {
        "inside TLS"
    } else {
        "plain TCP"
    });
    c.expect_listener_alive().await
}

async fn network_key(c: CaseContext) -> CaseResult {
    let security = security(&c)?;
    c.expect_listener_alive().await?;
    let mut peer = c.connect_raw().await?;
    let helo = helo(&mut peer).await?;
    peer.send(&Ping::new(&helo, &security.shared_key, user_of(security), SALT).bytes())
        .await?;
    refused(&mut peer).await.map(|_| ())
}
