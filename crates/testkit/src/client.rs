//! A Forward client for single messages with chosen times and chunk ids. Loads of many records are
//! in [`crate::load`].

use std::io::{Cursor, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rmpv::Value;
use windrow_bench::load::msgpack::write_event_time;

use crate::json::from_json;

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
            write_event_time(&mut time, *seconds, *nanos);
            Value::Array(vec![Value::Ext(0, time.split_off(2)), from_json(record)])
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
