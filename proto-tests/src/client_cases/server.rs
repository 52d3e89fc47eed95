//! The scripted server: listeners, connections, and parsed messages of the client.
//!
//! A [`Connection`] is driven by the case; [`AckingServer`] acks and keeps all messages.

use std::io::Read as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::case_result::{CaseError, CaseResult};
use crate::msgpack::{Parsed, Raw, Value, bin, hex, map, read, read_all, s, str_bytes};

/// A transport of a scripted connection.
pub(super) trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// A TCP listener of a case.
pub(super) struct Server {
    listener: TcpListener,
    pub(super) address: SocketAddr,
}

impl Server {
    pub(super) async fn start() -> Result<Self, CaseError> {
        Self::at("127.0.0.1:0").await
    }

    /// Listens on this address, for a server that starts late.
    pub(super) async fn at(address: &str) -> Result<Self, CaseError> {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|e| CaseError::Skip(format!("{address}: {e}")))?;
        let address = listener
            .local_addr()
            .map_err(|e| CaseError::Skip(e.to_string()))?;
        Ok(Self { listener, address })
    }

    pub(super) fn endpoint(&self) -> Vec<String> {
        vec![self.address.to_string()]
    }

    /// The next TCP connection.
    pub(super) async fn accept_tcp(&self, within: Duration) -> Result<TcpStream, CaseError> {
        match timeout(within, self.listener.accept()).await {
            Ok(Ok((stream, _))) => {
                let _ = stream.set_nodelay(true);
                Ok(stream)
            }
            Ok(Err(e)) => Err(CaseError::Skip(e.to_string())),
            Err(_) => Err(CaseError::fail(
                "a connection from the client",
                format!("none in {within:?}"),
            )),
        }
    }

    pub(super) async fn accept(&self, within: Duration) -> Result<Connection, CaseError> {
        Ok(Connection::new(self.accept_tcp(within).await?, within))
    }
}

/// One connection of the client.
pub(super) struct Connection {
    io: Box<dyn Io>,
    buffer: Vec<u8>,
    reply_timeout: Duration,
}

impl Connection {
    pub(super) fn new(io: impl Io + 'static, reply_timeout: Duration) -> Self {
        Self {
            io: Box::new(io),
            buffer: Vec::new(),
            reply_timeout,
        }
    }

    /// The next msgpack value with its bytes; none when the client closed.
    pub(super) async fn value(&mut self, within: Duration) -> Result<Option<(Value, Raw)>, CaseError> {
        let deadline = Instant::now() + within;
        let mut part = vec![0; 256 * 1024];
        loop {
            match read(&self.buffer) {
                Parsed::Complete(value, n) => return Ok(Some((value, self.buffer.drain(..n).collect()))),
                Parsed::Invalid(why) => {
                    let seen = format!("{why}: {}", hex(&self.buffer));
                    return Err(CaseError::fail("msgpack from the client", seen));
                }
                Parsed::Incomplete => {}
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match timeout(left, self.io.read(&mut part)).await {
                Ok(Ok(0) | Err(_)) => return Ok(None),
                Ok(Ok(n)) => self.buffer.extend_from_slice(&part[..n]),
                Err(_) => {
                    let seen = format!("nothing whole in {within:?}, bytes {:?}", hex(&self.buffer));
                    return Err(CaseError::fail("a message from the client", seen));
                }
            }
        }
    }

    /// The next message; fails when the client closes instead.
    pub(super) async fn message(&mut self) -> Result<Message, CaseError> {
        self.message_within(self.reply_timeout).await
    }

    pub(super) async fn message_within(&mut self, within: Duration) -> Result<Message, CaseError> {
        match self.value(within).await? {
            Some((value, raw)) => Message::parse(&value, raw),
            None => Err(CaseError::fail(
                "a message from the client",
                "it closed the connection",
            )),
        }
    }

    /// The next message if one comes within this time.
    pub(super) async fn maybe_message(&mut self, within: Duration) -> Option<Message> {
        self.message_within(within).await.ok()
    }

    pub(super) async fn write(&mut self, bytes: &[u8]) -> CaseResult {
        let write = async {
            self.io.write_all(bytes).await?;
            self.io.flush().await
        };
        match timeout(self.reply_timeout, write).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(e)) => Err(CaseError::fail("the client keeps the connection", e)),
            Err(_) => Err(CaseError::fail(
                "the client reads",
                format!("{} bytes not taken", bytes.len()),
            )),
        }
    }

    /// One byte at a time.
    pub(super) async fn trickle(&mut self, bytes: &[u8]) -> CaseResult {
        for byte in bytes {
            self.write(&[*byte]).await?;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }

    pub(super) async fn ack(&mut self, message: &Message) -> CaseResult {
        self.write(&message.ack()?).await
    }

    /// Reads exactly `n` bytes.
    pub(super) async fn read_exact(&mut self, n: usize) -> CaseResult {
        let mut part = vec![0; n];
        match timeout(self.reply_timeout, self.io.read_exact(&mut part)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(e)) => Err(CaseError::fail("bytes from the client", e)),
            Err(_) => Err(CaseError::fail("bytes from the client", "none")),
        }
    }

    /// Expects the client to close within this time; returns the bytes that it sent before.
    pub(super) async fn expect_close(&mut self, within: Duration) -> Result<Raw, CaseError> {
        let deadline = Instant::now() + within;
        let mut part = vec![0; 64 * 1024];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match timeout(left, self.io.read(&mut part)).await {
                Ok(Ok(0) | Err(_)) => return Ok(std::mem::take(&mut self.buffer)),
                Ok(Ok(n)) => self.buffer.extend_from_slice(&part[..n]),
                Err(_) => {
                    let seen = format!("open, bytes {:?}", hex(&self.buffer));
                    return Err(CaseError::fail(
                        format!("the client drops the connection within {within:?}"),
                        seen,
                    ));
                }
            }
        }
    }
}

/// A received event.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) time: Value,
    pub(super) record: Value,
}

impl Event {
    /// The number in the field `seq`.
    pub(super) fn seq(&self) -> Option<i64> {
        match self.record.get("seq") {
            Some(Value::Int(n)) => i64::try_from(*n).ok(),
            _ => None,
        }
    }
}

/// A received message.
#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) raw: Raw,
    pub(super) elements: usize,
    pub(super) events: Vec<Event>,
    /// The decompressed payload of a packed mode.
    pub(super) payload: Option<Raw>,
    pub(super) option: Option<Value>,
}

impl Message {
    fn parse(value: &Value, raw: Raw) -> Result<Self, CaseError> {
        let bad = |why: &str| CaseError::fail("a Forward message", format!("{why}: {}", hex(&raw)));
        let Some([tag, body, rest @ ..]) = value.items() else {
            return Err(bad("not an array of 2 or more"));
        };
        if tag.bytes().is_none() {
            return Err(bad("the tag is not a string"));
        }
        let slot = if matches!(body, Value::Array(_) | Value::Str(_) | Value::Bin(_)) {
            0
        } else {
            1
        };
        let option = rest.get(slot).filter(|o| **o != Value::Nil).cloned();
        let mut payload = None;
        let entries = match body {
            Value::Array(entries) => entries.clone(),
            Value::Str(bytes) | Value::Bin(bytes) => {
                let compressed = option
                    .as_ref()
                    .and_then(|o| o.get("compressed"))
                    .and_then(Value::text);
                let plain = inflate(bytes, compressed.as_deref()).map_err(|e| bad(&e))?;
                let entries = read_all(&plain).map_err(|e| bad(&e))?;
                payload = Some(plain);
                entries
            }
            time => {
                let record = rest.first().ok_or_else(|| bad("a Message without a record"))?;
                vec![Value::Array(vec![time.clone(), record.clone()])]
            }
        };
        let event = |entry: &Value| match entry.items() {
            Some([time, record]) => Ok(Event {
                time: time.clone(),
                record: record.clone(),
            }),
            _ => Err(bad("an entry is not [time, record]")),
        };
        let events = entries.iter().map(event).collect::<Result<_, _>>()?;
        let elements = rest.len() + 2;
        Ok(Self {
            elements,
            events,
            payload,
            option,
            raw,
        })
    }

    /// The chunk id of a message that asks for an ack.
    pub(super) fn chunk(&self) -> Result<Value, CaseError> {
        let chunk = self.option.as_ref().and_then(|o| o.get("chunk")).cloned();
        chunk.ok_or_else(|| CaseError::fail("a chunk id, since acks are on", hex(&self.raw)))
    }

    /// The chunk id as encoded MessagePack.
    pub(super) fn chunk_raw(&self) -> Result<Raw, CaseError> {
        match self.chunk()? {
            Value::Str(b) => Ok(str_bytes(&b)),
            Value::Bin(b) => Ok(bin(&b)),
            other => Err(CaseError::fail(
                "a chunk id that is a string",
                format!("{other:?}"),
            )),
        }
    }

    /// The encoded ack of the message.
    pub(super) fn ack(&self) -> Result<Raw, CaseError> {
        Ok(map(&[(s("ack"), self.chunk_raw()?)]))
    }
}

fn inflate(bytes: &[u8], compressed: Option<&str>) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    match compressed {
        Some("gzip") => {
            flate2::read::MultiGzDecoder::new(bytes)
                .read_to_end(&mut out)
                .map_err(|e| format!("gzip: {e}"))?;
        }
        Some("zstd") => out = zstd::decode_all(bytes).map_err(|e| format!("zstd: {e}"))?,
        _ => out.extend_from_slice(bytes),
    }
    Ok(out)
}

/// A server that accepts, acks and keeps all messages.
pub(super) struct AckingServer {
    got: Arc<Mutex<Vec<Message>>>,
    connections: Arc<Mutex<usize>>,
    task: JoinHandle<()>,
}

impl AckingServer {
    pub(super) fn start(server: Server) -> Self {
        let got: Arc<Mutex<Vec<Message>>> = Arc::default();
        let connections: Arc<Mutex<usize>> = Arc::default();
        let task = tokio::spawn({
            let (got, connections) = (got.clone(), connections.clone());
            async move {
                let day = Duration::from_secs(86_400);
                let mut running = tokio::task::JoinSet::new();
                while let Ok(mut conn) = server.accept(day).await {
                    *connections.lock().unwrap_or_else(PoisonError::into_inner) += 1;
                    let got = got.clone();
                    running.spawn(async move {
                        while let Ok(message) = conn.message_within(day).await {
                            let ack = message.ack().ok();
                            got.lock().unwrap_or_else(PoisonError::into_inner).push(message);
                            if let Some(ack) = ack
                                && conn.write(&ack).await.is_err()
                            {
                                break;
                            }
                        }
                    });
                }
            }
        });
        Self {
            got,
            connections,
            task,
        }
    }

    pub(super) fn messages(&self) -> Vec<Message> {
        self.got.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn connections(&self) -> usize {
        *self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The `seq` fields of all events, in order of arrival.
    pub(super) fn seqs(&self) -> Vec<i64> {
        self.messages()
            .iter()
            .flat_map(|m| m.events.clone())
            .filter_map(|e| e.seq())
            .collect()
    }

    /// Waits until `done` returns true, at most this long.
    pub(super) async fn until(&self, within: Duration, done: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + within;
        while !done(self) && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for AckingServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}
