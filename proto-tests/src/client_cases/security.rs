//! Client cases 26 to 32: the handshake.

use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use super::adapter::Adapter;
use super::server::{Connection, Server};
use super::{ClientContext, client_cases};
use crate::case_result::{CaseError, CaseResult, check};
use crate::handshake::digest;
use crate::msgpack::{Raw, Value, array, bin, boolean, hex, map, s, str_bytes, uint, unhex};
use crate::vectors;

client_cases! {
    26 "helo-without-key" "NN" "HELO when no key is configured: a clear error, bounded retries" => helo_without_key;
    27 "ping-bytes" "S1; FB server requires str"
        "PING: right digests, salt as ASCII-hex str, user and password \"\" when auth is empty or absent" => ping_bytes;
    28 "nonce-forms" "loggers" "nonce as str that is not UTF-8, as bin, of 0, 16 and 64 bytes: digest right" => nonce_forms;
    29 "handshake-fragmented" "FB, FD fragile" "HELO and PONG byte by byte: works" => fragmented;
    30 "pong-wrong" "FB-itest" "PONG with wrong digest, 4 elements, false, or not an array: connection closed, nothing sent, error" => wrong_pong;
    31 "helo-missing" "FB, FD wait forever" "key configured, no HELO comes: timeout with an error" => no_helo;
    32 "helo-keepalive-false" "S1" "HELO keepalive=false: a new connection for each batch" => keepalive_false;
}

const NONCE: &[u8] = &[0xff, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 0x80];

fn helo(nonce: Raw, auth: Option<Raw>, keepalive: bool) -> Raw {
    let mut pairs = vec![(s("nonce"), nonce)];
    pairs.extend(auth.map(|auth| (s("auth"), auth)));
    pairs.push((s("keepalive"), boolean(keepalive)));
    array(&[s("HELO"), map(&pairs)])
}

/// The five parts of a PING, as bytes.
struct Ping {
    salt: Vec<u8>,
    parts: Vec<Value>,
    raw: Raw,
}

async fn ping(conn: &mut Connection, within: Duration) -> Result<Ping, CaseError> {
    let Some((value, raw)) = conn.value(within).await? else {
        return Err(CaseError::fail("PING", "the client closed the connection"));
    };
    let parts = value.items().unwrap_or_default().to_vec();
    let right =
        parts.len() == 6 && parts[0].bytes() == Some(b"PING") && parts.iter().all(|p| p.bytes().is_some());
    check(right, "PING with 6 strings", hex(&raw))?;
    Ok(Ping {
        salt: parts[2].bytes().unwrap_or_default().to_vec(),
        parts,
        raw,
    })
}

impl Ping {
    /// Checks host name, key digest, and user with password digest.
    fn check(&self, nonce: &[u8], user: Option<(&[u8], &str, &str)>) -> CaseResult {
        let key = digest(&[&self.salt, b"client.example", nonce, b"secret"]);
        let (name, password) = match user {
            Some((auth, name, password)) => (
                name.to_owned(),
                digest(&[auth, name.as_bytes(), password.as_bytes()]),
            ),
            None => (String::new(), String::new()),
        };
        let seen = || hex(&self.raw);
        check(
            self.parts[1].bytes() == Some(b"client.example"),
            "host name client.example",
            seen(),
        )?;
        check(
            self.parts[3].bytes() == Some(key.as_bytes()),
            format!("key digest {key}"),
            seen(),
        )?;
        check(
            self.parts[4].bytes() == Some(name.as_bytes()),
            format!("user {name:?}"),
            seen(),
        )?;
        check(
            self.parts[5].bytes() == Some(password.as_bytes()),
            format!("password digest {password:?}"),
            seen(),
        )
    }

    fn pong(&self, nonce: &[u8]) -> Raw {
        let right = digest(&[&self.salt, b"server.example", nonce, b"secret"]);
        array(&[s("PONG"), boolean(true), s(""), s("server.example"), s(&right)])
    }
}

/// A client with the key `secret` that has an event to send, and its first connection.
async fn keyed(b: &ClientContext, more: Json) -> Result<(Adapter, Server, Connection), CaseError> {
    let server = Server::start().await?;
    let mut options = json!({ "shared_key": "secret", "handshake_timeout_ms": 3000 });
    if let (Json::Object(options), Json::Object(more)) = (&mut options, more) {
        options.extend(more);
    }
    let mut client = b.open(&server.endpoint(), options).await?;
    client.send(1, json!({ "seq": 1 })).await?;
    let conn = server.accept(b.reply_timeout()).await?;
    Ok((client, server, conn))
}

/// Acks the message of event 1 and expects its delivery.
async fn delivered(client: &Adapter, conn: &mut Connection) -> CaseResult {
    let message = conn.message().await?;
    conn.ack(&message).await?;
    client.expect_delivered(&[1]).await
}

async fn helo_without_key(b: ClientContext) -> CaseResult {
    let server = Server::start().await?;
    let mut client = b.open(&server.endpoint(), json!({})).await?;
    client.send(1, json!({ "seq": 1 })).await?;
    let started = Instant::now();
    let mut tries = 0;
    while let Some(left) = Duration::from_secs(3).checked_sub(started.elapsed()) {
        let Ok(mut conn) = server.accept(left).await else {
            break;
        };
        tries += 1;
        conn.write(&unhex(vectors::HELO)).await?;
        // Some clients send events before they read the HELO; these are not acked.
        let _ = conn.expect_close(Duration::from_millis(500)).await;
    }
    let error = client.expect_error().await?;
    check(
        error.to_lowercase().contains("key"),
        "an error that names the shared key",
        &error,
    )?;
    check(tries <= 60, "bounded retries", tries)?;
    check(
        client.delivered().is_empty(),
        "nothing delivered",
        format!("{:?}", client.delivered()),
    )
}

async fn ping_bytes(b: ClientContext) -> CaseResult {
    let users = json!({ "username": "alice", "password": "pass" });
    let auth: Vec<u8> = (0x10..0x20).collect();
    let forms: [(Option<Raw>, bool); 3] = [(Some(bin(&auth)), true), (Some(bin(b"")), false), (None, false)];
    for (form, asked) in forms {
        let (client, _server, mut conn) = keyed(&b, users.clone()).await?;
        conn.write(&helo(bin(NONCE), form, true)).await?;
        let ping = ping(&mut conn, b.reply_timeout()).await?;
        ping.check(NONCE, asked.then_some((&auth, "alice", "pass")))?;
        let all_str = ping.parts.iter().all(|p| matches!(p, Value::Str(_)));
        check(all_str, "all parts as str", hex(&ping.raw))?;
        let ascii_hex = ping.salt.len() >= 16 && ping.salt.iter().all(u8::is_ascii_hexdigit);
        check(ascii_hex, "salt as ASCII hex", hex(&ping.salt))?;
        conn.write(&ping.pong(NONCE)).await?;
        delivered(&client, &mut conn).await?;
    }
    Ok(())
}

async fn nonce_forms(b: ClientContext) -> CaseResult {
    let long = [0xa5; 64];
    let forms: [(&[u8], Raw); 5] = [
        (NONCE, str_bytes(NONCE)),
        (NONCE, bin(NONCE)),
        (b"", str_bytes(b"")),
        (b"", bin(b"")),
        (&long, bin(&long)),
    ];
    for (nonce, form) in forms {
        let (client, _server, mut conn) = keyed(&b, json!({})).await?;
        conn.write(&helo(form, Some(bin(b"")), true)).await?;
        let ping = ping(&mut conn, b.reply_timeout()).await?;
        ping.check(nonce, None)?;
        conn.write(&ping.pong(nonce)).await?;
        delivered(&client, &mut conn).await?;
    }
    Ok(())
}

async fn fragmented(b: ClientContext) -> CaseResult {
    let (client, _server, mut conn) = keyed(&b, json!({})).await?;
    conn.trickle(&helo(bin(NONCE), Some(bin(b"")), true)).await?;
    let ping = ping(&mut conn, b.reply_timeout()).await?;
    conn.trickle(&ping.pong(NONCE)).await?;
    delivered(&client, &mut conn).await
}

async fn wrong_pong(b: ClientContext) -> CaseResult {
    type Make = fn(&Ping) -> Raw;
    let forms: [(&str, Make); 4] = [
        ("wrong digest", |_| {
            array(&[
                s("PONG"),
                boolean(true),
                s(""),
                s("server.example"),
                s(&"0".repeat(128)),
            ])
        }),
        ("4 elements", |p| {
            let right = p.pong(NONCE);
            array(&[s("PONG"), boolean(true), s(""), str_bytes(&right[..8])])
        }),
        ("false", |_| {
            array(&[s("PONG"), boolean(false), s("shared_key mismatch"), s(""), s("")])
        }),
        ("no array", |_| uint(5)),
    ];
    for (name, make) in forms {
        let (client, _server, mut conn) = keyed(&b, json!({})).await?;
        conn.write(&helo(bin(NONCE), Some(bin(b"")), true)).await?;
        let ping = ping(&mut conn, b.reply_timeout()).await?;
        conn.write(&make(&ping)).await?;
        let sent = conn.expect_close(Duration::from_secs(5)).await?;
        check(sent.is_empty(), format!("{name}: no event after it"), hex(&sent))?;
        let error = client.expect_error().await?;
        check(
            !error.is_empty(),
            format!("{name}: an error with the reason"),
            "an empty one",
        )?;
        check(
            client.delivered().is_empty(),
            "nothing delivered",
            format!("{:?}", client.delivered()),
        )?;
    }
    Ok(())
}

async fn no_helo(b: ClientContext) -> CaseResult {
    let (client, _server, mut conn) = keyed(&b, json!({ "handshake_timeout_ms": 500 })).await?;
    let sent = conn.expect_close(Duration::from_secs(5)).await?;
    check(sent.is_empty(), "nothing sent before HELO", hex(&sent))?;
    let error = client.expect_error().await?;
    check(!error.is_empty(), "an error with the reason", "an empty one")
}

async fn keepalive_false(b: ClientContext) -> CaseResult {
    let (mut client, server, mut conn) = keyed(&b, json!({})).await?;
    for id in 1..=3 {
        conn.write(&helo(bin(NONCE), Some(bin(b"")), false)).await?;
        let ping = ping(&mut conn, b.reply_timeout()).await?;
        conn.write(&ping.pong(NONCE)).await?;
        let message = conn.message().await?;
        conn.ack(&message).await?;
        client.expect_delivered(&[id]).await?;
        if id == 3 {
            break;
        }
        client.send(id + 1, json!({ "seq": id + 1 })).await?;
        let next = server.accept(b.reply_timeout()).await?;
        conn = next;
    }
    Ok(())
}
