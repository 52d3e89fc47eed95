//! Delivery over the Forward protocol: one PackedForward message per chunk, acknowledged before the next.
//!
//! The same chunk always makes the same bytes (fields in their order, the caller's chunk id), so that a server which knows
//! chunks by their content sees a repetition as what it is. Source: Forward Protocol Specification v1, "PackedForward
//! Mode" and "Option". It does not retry: that is the sidecar's part. It speaks plain TCP, without a shared key.

use std::{
    io,
    time::{Duration, Instant},
};

use forward_protocol::msgpack;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::{Chunk, Delivery};

/// A connection to a Forward server, opened when needed.
#[derive(Debug)]
pub struct ForwardDelivery {
    address: String,
    max_age: Option<Duration>,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    stream: TcpStream,
    since: Instant,
}

impl ForwardDelivery {
    /// To `address` (`host:port`). Behind several servers: a connection older than `max_age` is replaced between two chunks.
    #[must_use]
    pub fn new(address: String, max_age: Option<Duration>) -> Self {
        Self {
            address,
            max_age,
            open: None,
        }
    }

    async fn connect(&self) -> io::Result<Open> {
        let stream = within(CONNECT_TIMEOUT, "connecting", TcpStream::connect(&self.address)).await?;
        stream.set_nodelay(true)?;
        Ok(Open {
            stream,
            since: Instant::now(),
        })
    }
}

impl Delivery for ForwardDelivery {
    async fn deliver(&mut self, chunk: &Chunk) -> Result<(), String> {
        let message = encode(chunk);
        let reusable = self
            .open
            .take()
            .filter(|open| self.max_age.is_none_or(|age| open.since.elapsed() < age));
        if let Some(mut open) = reusable
            && exchange(&mut open.stream, &message, &chunk.id).await.is_ok()
        {
            self.open = Some(open);
            return Ok(());
        }
        // The server may have closed an idle connection at any time: that is no failure yet.
        let fresh = async {
            let mut open = self.connect().await?;
            exchange(&mut open.stream, &message, &chunk.id)
                .await
                .map(|()| open)
        };
        match fresh.await {
            Ok(open) => {
                self.open = Some(open);
                Ok(())
            }
            Err(error) => Err(format!("{}: {error}", self.address)),
        }
    }
}

/// Sends the message and reads its acknowledgement.
async fn exchange(stream: &mut TcpStream, message: &[u8], id: &str) -> io::Result<()> {
    within(IO_TIMEOUT, "sending a chunk", stream.write_all(message)).await?;
    let mut answer = Vec::new();
    let mut scanner = msgpack::Scanner::new(0, MAX_ANSWER, MAX_ANSWER_DEPTH);
    loop {
        let read = within(
            IO_TIMEOUT,
            "waiting for an acknowledgement",
            stream.read_buf(&mut answer),
        )
        .await?;
        if read == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "closed before the acknowledgement",
            ));
        }
        match scanner.scan(&answer) {
            Ok(None) => {}
            // One chunk is under way: anything behind its acknowledgement belongs to nothing.
            Ok(Some(end))
                if end == answer.len() && acknowledged(&answer).as_deref() == Some(id.as_bytes()) =>
            {
                return Ok(());
            }
            Ok(Some(_)) => {
                return Err(io::Error::other(
                    "the answer is not the acknowledgement of the chunk",
                ));
            }
            Err(error) => {
                return Err(io::Error::other(format!(
                    "the answer is not MessagePack: {error}"
                )));
            }
        }
    }
}

/// The value of `ack` in an answer.
fn acknowledged(answer: &[u8]) -> Option<Vec<u8>> {
    let mut reader = msgpack::Reader::new(answer);
    for _ in 0..reader.map_len().ok()? {
        if reader.str_or_bin().ok()? == b"ack" {
            return reader.str_or_bin().ok().map(<[u8]>::to_vec);
        }
        reader.raw(MAX_ANSWER_DEPTH).ok()?;
    }
    None
}

async fn within<T>(time: Duration, what: &str, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match timeout(time, work).await {
        Ok(result) => result,
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("{what} took longer than {time:?}"),
        )),
    }
}

fn encode(chunk: &Chunk) -> Vec<u8> {
    let mut entries = Vec::new();
    for event in &chunk.events {
        msgpack::write_array_len(&mut entries, 2);
        let seconds = event.time_ns.div_euclid(1_000_000_000);
        // EventTime counts unsigned seconds; a time outside 1970 to 2106 goes to the nearer end.
        let seconds = u32::try_from(seconds.max(0)).unwrap_or(u32::MAX);
        let nanoseconds = u32::try_from(event.time_ns.rem_euclid(1_000_000_000)).unwrap_or(0);
        msgpack::write_event_time(&mut entries, seconds, nanoseconds);
        write_map(&mut entries, &event.record);
    }
    let mut message = Vec::with_capacity(entries.len() + 128);
    msgpack::write_array_len(&mut message, 3);
    msgpack::write_str(&mut message, chunk.tag.as_bytes());
    msgpack::write_bin(&mut message, &entries);
    msgpack::write_map_len(&mut message, 2);
    msgpack::write_str(&mut message, b"chunk");
    msgpack::write_str(&mut message, chunk.id.as_bytes());
    msgpack::write_str(&mut message, b"size");
    msgpack::write_u64(&mut message, chunk.events.len() as u64);
    message
}

fn write_map(out: &mut Vec<u8>, map: &serde_json::Map<String, Value>) {
    msgpack::write_map_len(out, length(map.len()));
    for (key, value) in map {
        msgpack::write_str(out, key.as_bytes());
        write_value(out, value);
    }
}

fn write_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => msgpack::write_nil(out),
        Value::Bool(value) => msgpack::write_bool(out, *value),
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => msgpack::write_u64(out, number),
            (None, Some(number)) => msgpack::write_i64(out, number),
            (None, None) => msgpack::write_f64(out, number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => msgpack::write_str(out, text.as_bytes()),
        Value::Array(items) => {
            msgpack::write_array_len(out, length(items.len()));
            items.iter().for_each(|item| write_value(out, item));
        }
        Value::Object(map) => write_map(out, map),
    }
}

/// A line is bounded by the size of a chunk, far below 2^32 items.
fn length(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A server that waits for its disk is slow, not dead.
const IO_TIMEOUT: Duration = Duration::from_secs(60);
const MAX_ANSWER: usize = 64 << 10;
const MAX_ANSWER_DEPTH: u32 = 8;

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::net::TcpListener;

    use super::*;
    use crate::sidecar::logs::record::Event;

    fn chunk(id: &str) -> Chunk {
        let Value::Object(record) = json!({"log": "hi", "n": -1, "list": [1.5, null, true, {"a": 7}]}) else {
            panic!("not an object")
        };
        let event = Event {
            time_ns: 1_700_000_000_123_456_789,
            record,
        };
        Chunk {
            id: id.to_owned(),
            tag: "t.a".to_owned(),
            events: vec![event],
        }
    }

    #[test]
    fn the_bytes_are_those_of_the_specification() {
        let mut expected = b"\x93\xa3t.a\xc4\x2b".to_vec();
        expected
            .extend(b"\x92\xd7\x00\x65\x53\xf1\x00\x07\x5b\xcd\x15\x83\xa3log\xa2hi\xa1n\xff\xa4list\x94");
        expected.extend(b"\xcb\x3f\xf8\x00\x00\x00\x00\x00\x00\xc0\xc3\x81\xa1a\x07");
        expected.extend(b"\x82\xa5chunk\xa2c1\xa4size\x01");
        assert_eq!(encode(&chunk("c1")), expected);
    }

    /// Accepts connections; on each, reads one message at a time and gives the answers in their order. An empty answer
    /// closes the connection.
    async fn server(connections: Vec<Vec<Vec<u8>>>) -> (String, tokio::task::JoinHandle<Vec<Vec<u8>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let task = tokio::spawn(async move {
            let mut received = Vec::new();
            for answers in connections {
                let (mut stream, _) = listener.accept().await.unwrap();
                for answer in answers {
                    let mut message = Vec::new();
                    let mut scanner = msgpack::Scanner::new(0, 1 << 20, 100);
                    while scanner.scan(&message).unwrap().is_none() {
                        assert_ne!(stream.read_buf(&mut message).await.unwrap(), 0);
                    }
                    received.push(message);
                    stream.write_all(&answer).await.unwrap();
                }
            }
            received
        });
        (address, task)
    }

    const ACK: &[u8] = b"\x81\xa3ack\xa2c1";

    #[tokio::test]
    async fn a_chunk_is_delivered_when_its_own_id_comes_back() {
        let (address, server) =
            server(vec![vec![ACK.to_vec(), b"\x82\xa1x\x01\xa3ack\xa2c2".to_vec()]]).await;
        let mut delivery = ForwardDelivery::new(address, None);
        delivery.deliver(&chunk("c1")).await.unwrap();
        delivery.deliver(&chunk("c2")).await.unwrap();
        assert_eq!(
            server.await.unwrap(),
            [encode(&chunk("c1")), encode(&chunk("c2"))]
        );
    }

    #[tokio::test]
    async fn another_answer_or_none_is_no_delivery() {
        let wrong: [&[u8]; 5] = [
            b"\x81\xa3ack\xa2c2",
            b"\x81\xa3nak\xa2c1",
            b"\xc1",
            b"\x81\xa3ack\xa2c1\x81\xa3ack\xa2c1",
            b"",
        ];
        for answer in wrong {
            let (address, _) = server(vec![vec![answer.to_vec()]]).await;
            let error = ForwardDelivery::new(address.clone(), None)
                .deliver(&chunk("c1"))
                .await
                .unwrap_err();
            assert!(error.starts_with(&address), "{error}");
        }
    }

    #[tokio::test]
    async fn an_idle_connection_that_the_server_closed_is_replaced() {
        let (address, server) = server(vec![vec![ACK.to_vec()], vec![ACK.to_vec()]]).await;
        let mut delivery = ForwardDelivery::new(address, None);
        delivery.deliver(&chunk("c1")).await.unwrap();
        delivery.deliver(&chunk("c1")).await.unwrap();
        assert_eq!(server.await.unwrap().len(), 2);
    }

    #[tokio::test]
    async fn an_old_connection_is_replaced() {
        let (address, server) = server(vec![vec![ACK.to_vec()], vec![ACK.to_vec()]]).await;
        let mut delivery = ForwardDelivery::new(address, Some(Duration::ZERO));
        delivery.deliver(&chunk("c1")).await.unwrap();
        delivery.deliver(&chunk("c1")).await.unwrap();
        assert_eq!(server.await.unwrap().len(), 2);
    }
}
