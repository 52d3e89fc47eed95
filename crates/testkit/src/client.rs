//! A hand-held Forward client: single messages with chosen times and chunk ids, for tests that tell a small story.
//! Loads of many records are [`crate::load`]'s.

use std::io::{Cursor, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rmpv::Value;

use crate::load::event_time;

/// An event: Unix seconds, nanoseconds, record (a JSON object).
pub type Event = (u32, u32, serde_json::Value);

/// One connection.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    /// Connects.
    ///
    /// # Panics
    /// When nothing listens there.
    #[track_caller]
    pub fn connect(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).unwrap_or_else(|error| panic!("{to}: {error}"));
        stream.set_nodelay(true).expect("a socket");
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .expect("a socket");
        Self {
            stream,
            buffer: Vec::new(),
        }
    }

    /// Sends events as one chunk in forward mode, and waits for its ack.
    ///
    /// # Panics
    /// When the ack does not come within 30 s, or is another.
    #[track_caller]
    pub fn send(&mut self, tag: &str, chunk: &str, events: &[Event]) {
        self.write(&forward(tag, Some(chunk), events));
        assert_eq!(self.ack().as_deref(), Some(chunk));
    }

    /// Writes bytes as they are.
    ///
    /// # Panics
    /// When the peer has closed.
    #[track_caller]
    pub fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the peer reads");
    }

    /// The next ack's id; `None` when the peer closes or sends nothing for 30 s.
    pub fn ack(&mut self) -> Option<String> {
        loop {
            let mut cursor = Cursor::new(&self.buffer[..]);
            if let Ok(value) = rmpv::decode::read_value(&mut cursor) {
                let used = usize::try_from(cursor.position()).expect("in memory");
                self.buffer.drain(..used);
                return value["ack"].as_str().map(str::to_owned);
            }
            let mut part = [0; 1024];
            match self.stream.read(&mut part) {
                Ok(0) | Err(_) => return None,
                Ok(n) => self.buffer.extend_from_slice(&part[..n]),
            }
        }
    }
}

/// `[tag, [[EventTime, record]…], {"chunk": …}]`.
pub fn forward(tag: &str, chunk: Option<&str>, events: &[Event]) -> Vec<u8> {
    let entries = events
        .iter()
        .map(|(seconds, nanos, record)| {
            let mut time = Vec::new();
            event_time(&mut time, *seconds, *nanos);
            Value::Array(vec![Value::Ext(0, time.split_off(2)), value(record)])
        })
        .collect();
    let options = chunk
        .map(|id| (Value::from("chunk"), Value::from(id)))
        .into_iter()
        .collect();
    let message = Value::Array(vec![tag.into(), Value::Array(entries), Value::Map(options)]);
    let mut out = Vec::new();
    rmpv::encode::write_value(&mut out, &message).expect("memory takes it");
    out
}

fn value(json: &serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::Nil,
        serde_json::Value::Bool(bool) => Value::from(*bool),
        serde_json::Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => Value::from(number),
            (None, Some(number)) => Value::from(number),
            (None, None) => Value::from(number.as_f64().unwrap_or(f64::NAN)),
        },
        serde_json::Value::String(text) => Value::from(text.as_str()),
        serde_json::Value::Array(items) => Value::Array(items.iter().map(value).collect()),
        serde_json::Value::Object(fields) => Value::Map(
            fields
                .iter()
                .map(|(name, field)| (name.as_str().into(), value(field)))
                .collect(),
        ),
    }
}

/// A MessagePack value as JSON, of the kinds that JSON has.
///
/// # Panics
/// When it holds another kind: bytes, an extension, a number that is none, a key that is no text.
pub fn json(value: &Value) -> serde_json::Value {
    let text = |text: &Value| text.as_str().expect("UTF-8 text").to_owned();
    match value {
        Value::Nil => serde_json::Value::Null,
        Value::Boolean(bool) => (*bool).into(),
        Value::Integer(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => number.into(),
            (None, number) => number.expect("an integer of 64 bits").into(),
        },
        Value::F32(_) | Value::F64(_) => value.as_f64().expect("a float").into(),
        Value::String(_) => text(value).into(),
        Value::Array(items) => items.iter().map(json).collect(),
        Value::Map(fields) => fields
            .iter()
            .map(|(name, field)| (text(name), json(field)))
            .collect(),
        Value::Binary(_) | Value::Ext(..) => panic!("JSON has no {value}"),
    }
}
