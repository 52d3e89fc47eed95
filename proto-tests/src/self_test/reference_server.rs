//! [`ReferenceServer`]: a correct Forward server with optional fault injection.
//!
//! Appends records to a file of JSON lines. For tests only: it keeps every value in memory.

use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value as Json, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::handshake::digest;
use crate::msgpack::{Parsed, Raw, Value, array, bin, boolean, map, read, s, str_bytes};
use crate::target::Security;

/// The injected fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    AckTrimmed,
    AckAlwaysStr,
    AckReversed,
    AckInTwoWrites,
    AckLost,
    AnswersUnasked,
    LosesLastEntry,
    DoublesEvents,
    FirstGzipMemberOnly,
    NoSniffing,
    NilCloses,
    Milliseconds,
    SignedSeconds,
    MetadataInRecord,
    MarkersAreEvents,
    IgnoresSignal,
    BadEntryCloses,
    GarbageIgnored,
    StopsAtPartial,
    JsonAckInMsgpack,
    AnyKey,
    AnyUser,
    StaleNonce,
    WrongPong,
    NoPingNeeded,
    StaysAfterRefusal,
}

#[derive(Clone)]
pub(super) struct ReferenceServer {
    fault: Fault,
    security: Option<Security>,
    out: Arc<Mutex<std::fs::File>>,
}

impl ReferenceServer {
    /// Starts a server that appends to `file`; returns its address.
    pub(super) async fn start(fault: Fault, security: Option<Security>, file: PathBuf) -> String {
        let out = Arc::new(Mutex::new(std::fs::File::create(file).unwrap()));
        let server = Self { fault, security, out };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                let server = server.clone();
                tokio::spawn(async move {
                    let _ = server.connection(stream).await;
                });
            }
        });
        address
    }

    fn has(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    async fn connection(&self, mut stream: TcpStream) -> Option<()> {
        let mut buffer = Vec::new();
        if let Some(security) = &self.security {
            self.handshake(&mut stream, &mut buffer, security).await?;
        }
        let mut part = vec![0; 1 << 20];
        let mut garbage = 0;
        loop {
            if matches!(buffer.first(), Some(b'[' | b'{')) {
                return self.json(stream, buffer).await;
            }
            let mut acks: Vec<Raw> = Vec::new();
            loop {
                match read(&buffer) {
                    Parsed::Complete(value, n) => {
                        buffer.drain(..n);
                        match value {
                            Value::Array(items) if items.len() >= 2 => {
                                acks.extend(self.message(&items)?);
                                if self.has(Fault::AnswersUnasked) && acks.is_empty() {
                                    acks.push(map(&[]));
                                }
                            }
                            Value::Nil if !self.has(Fault::NilCloses) => {}
                            Value::Nil | Value::Array(_) => return None,
                            _ => garbage += 1,
                        }
                        if garbage > 8 && !self.has(Fault::GarbageIgnored) {
                            return None;
                        }
                    }
                    Parsed::Incomplete => break,
                    Parsed::Invalid(_) if self.has(Fault::GarbageIgnored) => buffer.clear(),
                    Parsed::Invalid(_) => return None,
                }
            }
            if self.has(Fault::AckReversed) {
                acks.reverse();
            }
            if self.has(Fault::StopsAtPartial) && !buffer.is_empty() {
                return None;
            }
            for ack in acks {
                if self.has(Fault::AckInTwoWrites) {
                    let (left, right) = ack.split_at(ack.len() / 2);
                    stream.write_all(left).await.ok()?;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    stream.write_all(right).await.ok()?;
                } else {
                    stream.write_all(&ack).await.ok()?;
                }
            }
            match stream.read(&mut part).await {
                Ok(n) if n > 0 => buffer.extend_from_slice(&part[..n]),
                _ => return None,
            }
        }
    }

    async fn handshake(
        &self,
        stream: &mut TcpStream,
        buffer: &mut Vec<u8>,
        security: &Security,
    ) -> Option<()> {
        let nonce = if self.has(Fault::StaleNonce) {
            7
        } else {
            crate::context::random()
        }
        .to_be_bytes();
        let auth: &[u8] = if security.users.is_empty() {
            b""
        } else {
            b"salt-of-the-users"
        };
        let options = [
            (s("nonce"), bin(&nonce)),
            (s("auth"), bin(auth)),
            (s("keepalive"), boolean(true)),
        ];
        stream.write_all(&array(&[s("HELO"), map(&options)])).await.ok()?;
        let mut part = vec![0; 4096];
        let deadline = tokio::time::Instant::now() + Duration::from_secs(1);
        let ping = loop {
            match read(buffer) {
                Parsed::Complete(value, n) => {
                    let raw: Vec<u8> = buffer.drain(..n).collect();
                    if self.has(Fault::NoPingNeeded)
                        && value.items().and_then(|i| i[0].bytes()) != Some(b"PING")
                    {
                        buffer.splice(..0, raw);
                        return Some(());
                    }
                    break value;
                }
                Parsed::Incomplete if buffer.len() < 8192 => {}
                _ => return None,
            }
            match tokio::time::timeout_at(deadline, stream.read(&mut part)).await {
                Ok(Ok(n)) if n > 0 => buffer.extend_from_slice(&part[..n]),
                _ => return None,
            }
        };
        let pong = |ok, reason: &str, name: &str, digest: &str| {
            array(&[s("PONG"), boolean(ok), s(reason), s(name), s(digest)])
        };
        let checked = match ping.items() {
            Some([name, Value::Str(host), salt, key, user, password]) if name.bytes() == Some(b"PING") => {
                let salt = salt.bytes()?;
                let right = digest(&[salt, host, &nonce, security.shared_key.as_bytes()]);
                let user = user.bytes()?;
                let known = security.users.iter().find(|(name, _)| name.as_bytes() == user);
                let user_right = known.is_some_and(|(name, word)| {
                    password.bytes() == Some(digest(&[auth, name.as_bytes(), word.as_bytes()]).as_bytes())
                });
                if key.bytes() != Some(right.as_bytes()) && !self.has(Fault::AnyKey) {
                    Err("shared_key mismatch")
                } else if !security.users.is_empty() && !user_right && !self.has(Fault::AnyUser) {
                    Err("username/password mismatch")
                } else {
                    Ok(salt.to_vec())
                }
            }
            _ => Err("invalid ping message"),
        };
        match checked {
            Ok(salt) => {
                let key = if self.has(Fault::WrongPong) {
                    "another"
                } else {
                    &security.shared_key
                };
                let right = digest(&[&salt, b"server.example", &nonce, key.as_bytes()]);
                stream
                    .write_all(&pong(true, "", "server.example", &right))
                    .await
                    .ok()
            }
            Err(reason) => {
                stream.write_all(&pong(false, reason, "", "")).await.ok()?;
                if self.has(Fault::StaysAfterRefusal) {
                    Some(())
                } else {
                    None
                }
            }
        }
    }

    /// Handles one message and returns its ack, if any. `None`: close the connection.
    fn message(&self, items: &[Value]) -> Option<Option<Raw>> {
        let slot = usize::from(!matches!(
            items[1],
            Value::Array(_) | Value::Str(_) | Value::Bin(_)
        ));
        let option = items.get(2 + slot).unwrap_or(&Value::Nil);
        let logs = matches!(option.get("fluent_signal"), None | Some(Value::Int(0)))
            || self.has(Fault::IgnoresSignal);
        let mut entries = match &items[1] {
            Value::Array(entries) => entries.clone(),
            Value::Str(bytes) | Value::Bin(bytes) => self.packed(bytes, option),
            time => {
                let meta = option.get("metadata").cloned().unwrap_or(Value::Map(Vec::new()));
                let time = Value::Array(vec![time.clone(), meta]);
                vec![Value::Array(vec![
                    time,
                    items.get(2).cloned().unwrap_or(Value::Nil),
                ])]
            }
        };
        if self.has(Fault::LosesLastEntry) && entries.len() > 1 {
            entries.pop();
        }
        for entry in entries.iter().filter(|_| logs) {
            let kept = self.entry(entry).is_some();
            if !kept && self.has(Fault::BadEntryCloses) {
                return None;
            }
        }
        let chunk = match option.get("chunk") {
            Some(Value::Str(id)) if self.has(Fault::AckTrimmed) => Some(str_bytes(id.trim_ascii_end())),
            Some(Value::Str(id)) => Some(str_bytes(id)),
            Some(Value::Bin(id)) if self.has(Fault::AckAlwaysStr) => Some(str_bytes(id)),
            Some(Value::Bin(id)) => Some(bin(id)),
            _ => None,
        };
        if self.has(Fault::AckLost) {
            return Some(None);
        }
        Some(chunk.map(|id| map(&[(s("ack"), id)])))
    }

    fn packed(&self, bytes: &[u8], option: &Value) -> Vec<Value> {
        let named = option
            .get("compressed")
            .and_then(Value::text)
            .is_some_and(|c| c != "text");
        let sniff = *option != Value::Nil && (named || !self.has(Fault::NoSniffing));
        let mut plain = Vec::new();
        match bytes {
            [0x1f, 0x8b, ..] if sniff => {
                let mut member = flate2::bufread::GzDecoder::new(bytes);
                let mut all = flate2::read::MultiGzDecoder::new(bytes);
                let reader: &mut dyn std::io::Read = if self.has(Fault::FirstGzipMemberOnly) {
                    &mut member
                } else {
                    &mut all
                };
                // Output before a defect is kept.
                let _ = reader.take(300 << 20).read_to_end(&mut plain);
            }
            [0x28, 0xb5, 0x2f, 0xfd, ..] if sniff => {
                let _ = zstd::Decoder::new(bytes).and_then(|mut d| d.read_to_end(&mut plain));
            }
            _ => plain.extend_from_slice(bytes),
        }
        let mut values = Vec::new();
        let mut rest = plain.as_slice();
        while let Parsed::Complete(value, n) = read(rest) {
            values.push(value);
            rest = &rest[n..];
        }
        values
    }

    fn entry(&self, entry: &Value) -> Option<()> {
        let [time, record @ Value::Map(_)] = entry.items()? else {
            return None;
        };
        let (time, metadata) = match time {
            Value::Array(items) => (items.first()?, items.get(1)),
            time => (time, None),
        };
        if let Value::Ext(0, bytes) = time
            && matches!(bytes.as_slice(), [0xff, 0xff, 0xff, 0xfe | 0xff, 0, 0, 0, 0])
            && !self.has(Fault::MarkersAreEvents)
        {
            return Some(());
        }
        let (sec, mut nsec) = self.time(time)?;
        if self.has(Fault::Milliseconds) {
            nsec = nsec / 1_000_000 * 1_000_000;
        }
        let Json::Object(mut fields) = to_json(record) else {
            return None;
        };
        if let (Some(metadata), true) = (metadata, self.has(Fault::MetadataInRecord))
            && let Json::Object(more) = to_json(metadata)
        {
            fields.extend(more);
        }
        self.keep(fields, sec, nsec);
        Some(())
    }

    fn keep(&self, mut fields: Map<String, Json>, sec: i128, nsec: u32) {
        fields.insert("date".into(), json!(format!("{sec}.{nsec:09}")));
        let line = format!("{}\n", Json::Object(fields));
        let times = if self.has(Fault::DoublesEvents) { 2 } else { 1 };
        self.out
            .lock()
            .unwrap()
            .write_all(line.repeat(times).as_bytes())
            .unwrap();
    }

    fn time(&self, time: &Value) -> Option<(i128, u32)> {
        let word = |b: &[u8]| b.iter().fold(0_u64, |v, b| v << 8 | u64::from(*b));
        let now = || {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            (i128::from(now.as_secs()), now.subsec_nanos())
        };
        Some(match time {
            Value::Nil | Value::Int(0) => now(),
            Value::Int(sec) => (*sec, 0),
            Value::Float(f) if f.is_finite() => {
                (f.trunc() as i128, ((f - f.trunc()).abs() * 1e9).round() as u32)
            }
            Value::Ext(0, b) if b.len() == 8 && word(&b[4..]) < 1_000_000_000 => match word(&b[..4]) {
                0 => now(),
                sec if self.has(Fault::SignedSeconds) => {
                    (i128::from((sec as u32).cast_signed()), word(&b[4..]) as u32)
                }
                sec => (sec.into(), word(&b[4..]) as u32),
            },
            Value::Ext(-1, b) if b.len() == 4 => (word(b).into(), 0),
            Value::Ext(-1, b) if b.len() == 8 => ((word(b) & 0x3_ffff_ffff).into(), (word(b) >> 34) as u32),
            Value::Ext(-1, b) if b.len() == 12 => (word(&b[4..]).into(), word(&b[..4]) as u32),
            _ => return None,
        })
    }

    async fn json(&self, mut stream: TcpStream, mut buffer: Vec<u8>) -> Option<()> {
        let mut part = vec![0; 4096];
        loop {
            let mut values = serde_json::Deserializer::from_slice(&buffer).into_iter::<Json>();
            let mut acks = Vec::new();
            while let Some(Ok(value)) = values.next() {
                acks.extend(self.json_message(&value));
            }
            let taken = values.byte_offset();
            buffer.drain(..taken);
            for chunk in acks {
                let in_msgpack = self.has(Fault::JsonAckInMsgpack);
                let ack = if in_msgpack {
                    map(&[(s("ack"), s(chunk.as_str()?))])
                } else {
                    json!({ "ack": chunk }).to_string().into()
                };
                stream.write_all(&ack).await.ok()?;
            }
            match stream.read(&mut part).await {
                Ok(n) if n > 0 => buffer.extend_from_slice(&part[..n]),
                _ => return None,
            }
        }
    }

    fn json_message(&self, value: &Json) -> Option<Json> {
        let items = value.as_array()?;
        let single = [json!([items.get(1)?, items.get(2)])];
        let (entries, option) = match items.get(1)? {
            Json::Array(entries) => (entries.as_slice(), items.get(2)),
            _ => (single.as_slice(), items.get(3)),
        };
        for entry in entries {
            let time = entry[0].as_f64()?;
            if let Some(record) = entry[1].as_object() {
                self.keep(record.clone(), time.trunc() as i128, (time.fract() * 1e9) as u32);
            }
        }
        option?.get("chunk").cloned()
    }
}

fn to_json(value: &Value) -> Json {
    match value {
        Value::Nil => Json::Null,
        Value::Bool(b) => json!(b),
        Value::Int(n) => u64::try_from(*n).map_or_else(|_| json!(*n as i64), |n| json!(n)),
        Value::Float(f) => json!(f),
        Value::Str(b) | Value::Bin(b) | Value::Ext(_, b) => json!(String::from_utf8_lossy(b)),
        Value::Array(items) => items.iter().map(to_json).collect(),
        Value::Map(pairs) => {
            let key = |k: &Value| match to_json(k) {
                Json::String(text) => text,
                other => other.to_string(),
            };
            pairs
                .iter()
                .map(|(k, v)| (key(k), to_json(v)))
                .collect::<Map<_, _>>()
                .into()
        }
    }
}
