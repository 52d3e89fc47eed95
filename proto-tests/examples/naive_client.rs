//! A minimal adapter for the client cases, around a client that does nearly everything wrong.
//!
//! Shows the adapter's side of the contract; the suite's own test expects it to fail. Message mode
//! only, events count as delivered once written, and there are no acks, retries or handshake.

#![expect(clippy::unwrap_used, reason = "a program for tests")]

use std::io::{BufRead, Write};
use std::net::TcpStream;
use std::time::Instant;

use serde_json::{Value, json};

fn main() {
    let mut client = Client {
        endpoint: String::new(),
        ack: false,
        stream: None,
        chunks: 0,
    };
    for line in std::io::stdin().lock().lines() {
        let command: Value = serde_json::from_str(&line.unwrap()).unwrap();
        match command["do"].as_str().unwrap_or_default() {
            "open" => client.open(&command["client"]),
            "send" => client.send(&command),
            "burst" => client.burst(&command),
            "flush" => say(&json!({ "event": "flushed", "ok": true })),
            "close" => {
                say(&json!({ "event": "closed", "undelivered": [], "took_ms": 0.0 }));
                return;
            }
            other => say(&json!({ "event": "unsupported", "what": other })),
        }
    }
}

fn say(event: &Value) {
    println!("{event}");
    std::io::stdout().flush().unwrap();
}

struct Client {
    endpoint: String,
    ack: bool,
    stream: Option<TcpStream>,
    chunks: u64,
}

impl Client {
    fn open(&mut self, options: &Value) {
        self.endpoint = options["endpoints"][0].as_str().unwrap_or_default().to_owned();
        self.ack = options["ack"] == true;
        let what = if self.endpoint.starts_with("unix:") {
            Some("unix sockets")
        } else {
            None
        };
        match what.or_else(|| (!options["tls"].is_null()).then_some("TLS")) {
            Some(what) => say(&json!({ "event": "unsupported", "what": what })),
            None => say(&json!({ "event": "opened" })),
        }
    }

    fn send(&mut self, command: &Value) {
        let started = Instant::now();
        let time = command["time"]
            .as_array()
            .map_or(0, |t| t[0].as_i64().unwrap_or_default());
        let result = self.write(time, &command["record"]);
        let took = started.elapsed().as_secs_f64() * 1000.0;
        say(&json!({ "event": "sent", "id": command["id"], "took_ms": took }));
        match result {
            Ok(()) => say(&json!({ "event": "delivered", "ids": [command["id"]] })),
            Err(e) => say(&json!({ "event": "failed", "ids": [command["id"]], "error": e.to_string() })),
        }
    }

    fn burst(&mut self, command: &Value) {
        let first = command["first_id"].as_i64().unwrap_or_default();
        let pad = "x".repeat(command["pad"].as_u64().unwrap_or_default() as usize);
        for id in first..first + command["count"].as_i64().unwrap_or_default() {
            let event = match self.write(0, &json!({ "log": "burst", "seq": id, "pad": pad })) {
                Ok(()) => json!({ "event": "delivered", "ids": [id] }),
                Err(e) => json!({ "event": "failed", "ids": [id], "error": e.to_string() }),
            };
            say(&event);
        }
        say(&json!({ "event": "burst_done", "max_took_ms": 0.0, "rejected": [] }));
    }

    fn write(&mut self, time: i64, record: &Value) -> std::io::Result<()> {
        let mut message = vec![if self.ack { 0x94 } else { 0x93 }, 0xa3, b't', b'.', b'a', 0xce];
        message.extend_from_slice(&(time as u32).to_be_bytes());
        pack(&mut message, record);
        if self.ack {
            self.chunks += 1;
            pack(&mut message, &json!({ "chunk": self.chunks.to_string() }));
        }
        if self.stream.is_none() {
            self.stream = Some(TcpStream::connect(&self.endpoint)?);
        }
        let stream = self.stream.as_mut().unwrap();
        stream.set_write_timeout(Some(std::time::Duration::from_millis(500)))?;
        let result = stream.write_all(&message);
        if result.is_err() {
            self.stream = None;
        }
        result
    }
}

/// Encodes JSON as MessagePack with the longest headers; of the one-key objects only `$fill`.
fn pack(out: &mut Vec<u8>, value: &Value) {
    let mut text = |head: u8, bytes: &[u8]| {
        out.push(head);
        out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
        out.extend_from_slice(bytes);
    };
    match value {
        Value::String(s) => text(0xdb, s.as_bytes()),
        Value::Object(map) if map.contains_key("$fill") => {
            text(0xdb, &vec![b'x'; map["$fill"].as_u64().unwrap() as usize]);
        }
        Value::Object(map) => {
            out.push(0xdf);
            out.extend_from_slice(&(map.len() as u32).to_be_bytes());
            for (key, value) in map {
                pack(out, &json!(key));
                pack(out, value);
            }
        }
        Value::Number(n) => {
            out.push(0xd3);
            out.extend_from_slice(&n.as_i64().unwrap_or_default().to_be_bytes());
        }
        _ => out.push(0xc0),
    }
}
