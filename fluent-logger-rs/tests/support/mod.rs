//! Scripted Forward server for the tests: each connection runs a closure of the test.
//!
//! Owns listening, decoding and the record of received messages. Sends an ack only when the script
//! does.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "a part of tests, of which each uses another part of it"
)]

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use forward_protocol::msgpack::{Reader, Scanner, Value};

/// How long a test waits for anything before it fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    pub raw: Vec<u8>,
    pub tag: String,
    pub chunk: Option<Vec<u8>>,
    pub compressed: bool,
    pub size: Option<u64>,
    /// (time as MessagePack, record)
    pub events: Vec<(Vec<u8>, serde_json::Value)>,
}

#[derive(Debug, Default)]
struct Seen {
    messages: Vec<(usize, Message)>,
}

pub struct Server {
    pub address: SocketAddr,
    seen: Arc<(Mutex<Seen>, Condvar)>,
    stop: Arc<AtomicBool>,
    connections: Arc<AtomicUsize>,
    closed: Arc<AtomicUsize>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
    acceptor: Option<JoinHandle<()>>,
}

pub struct Peer {
    pub number: usize,
    stream: TcpStream,
    buffer: Vec<u8>,
    seen: Arc<(Mutex<Seen>, Condvar)>,
    stop: Arc<AtomicBool>,
}

impl Server {
    pub fn start(script: impl Fn(&mut Peer) + Send + Sync + 'static) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), script)
    }

    /// Reads and acknowledges everything.
    pub fn faithful() -> Self {
        Self::start(serve)
    }

    pub fn start_at(address: SocketAddr, script: impl Fn(&mut Peer) + Send + Sync + 'static) -> Self {
        let started = Instant::now();
        let listener = loop {
            match TcpListener::bind(address) {
                Ok(listener) => break listener,
                Err(error) if started.elapsed() < PATIENCE && error.kind() == ErrorKind::AddrInUse => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(error) => panic!("cannot listen on {address}: {error}"),
            }
        };
        let address = listener.local_addr().unwrap();
        let seen = Arc::new((Mutex::new(Seen::default()), Condvar::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let connections = Arc::new(AtomicUsize::new(0));
        let closed = Arc::new(AtomicUsize::new(0));
        let streams = Arc::new(Mutex::new(Vec::<TcpStream>::new()));
        let script = Arc::new(script);
        let acceptor = {
            let closed = Arc::clone(&closed);
            let (seen, stop, connections, streams) = (
                Arc::clone(&seen),
                Arc::clone(&stop),
                Arc::clone(&connections),
                Arc::clone(&streams),
            );
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    let Ok(stream) = stream else { continue };
                    streams.lock().unwrap().push(stream.try_clone().unwrap());
                    let number = connections.fetch_add(1, Ordering::SeqCst);
                    let (seen, stop, script) = (Arc::clone(&seen), Arc::clone(&stop), Arc::clone(&script));
                    let closed = Arc::clone(&closed);
                    std::thread::spawn(move || {
                        let mut peer = Peer {
                            number,
                            stream,
                            buffer: Vec::new(),
                            seen,
                            stop,
                        };
                        script(&mut peer);
                        // The clone in `streams` would keep it open.
                        let _ = peer.stream.shutdown(std::net::Shutdown::Both);
                        closed.fetch_add(1, Ordering::SeqCst);
                    });
                }
            })
        };
        Self {
            address,
            seen,
            stop,
            connections,
            closed,
            streams,
            acceptor: Some(acceptor),
        }
    }

    /// Received messages, also after the server has stopped.
    pub fn history(&self) -> History {
        History(Arc::clone(&self.seen))
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Waits until this many connections were closed by their scripts.
    pub fn wait_for_closed(&self, count: usize) {
        let started = Instant::now();
        while self.closed.load(Ordering::SeqCst) < count {
            assert!(started.elapsed() < PATIENCE, "not {count} closed");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Every message, in order of arrival, with the number of its connection.
    pub fn messages(&self) -> Vec<(usize, Message)> {
        self.seen.0.lock().unwrap().messages.clone()
    }

    /// Waits until the condition holds for the messages so far.
    pub fn wait_for(&self, what: &str, condition: impl Fn(&[(usize, Message)]) -> bool) {
        let started = Instant::now();
        let (seen, news) = &*self.seen;
        let mut seen = seen.lock().unwrap();
        while !condition(&seen.messages) {
            let left = PATIENCE
                .checked_sub(started.elapsed())
                .unwrap_or_else(|| panic!("no {what}"));
            seen = news.wait_timeout(seen, left).unwrap().0;
        }
    }

    pub fn wait_for_events(&self, count: usize) {
        self.wait_for(&format!("{count} events"), |messages| {
            events(messages).len() >= count
        });
    }

    /// Ends all connections abruptly and stops listening.
    pub fn kill(mut self) {
        self.stop_now();
    }

    fn stop_now(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the acceptor.
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        for stream in self.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop_now();
    }
}

/// The messages of a server, living or dead.
pub struct History(Arc<(Mutex<Seen>, Condvar)>);

impl History {
    pub fn messages(&self) -> Vec<(usize, Message)> {
        self.0.0.lock().unwrap().messages.clone()
    }
}

/// Waits for something that must come.
pub fn until(what: &str, condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < PATIENCE, "no {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The records of messages, in order.
pub fn events(messages: &[(usize, Message)]) -> Vec<serde_json::Value> {
    messages
        .iter()
        .flat_map(|(_, message)| message.events.iter().map(|(_, record)| record.clone()))
        .collect()
}

/// Reads and acknowledges everything.
pub fn serve(peer: &mut Peer) {
    while let Some(message) = peer.read() {
        if let Some(chunk) = message.chunk {
            peer.ack(&chunk);
        }
    }
}

impl Peer {
    /// The next message; `None` when the client closed.
    pub fn read(&mut self) -> Option<Message> {
        let mut scanner = Scanner::new(0, usize::MAX, 1000);
        loop {
            if let Some(end) = scanner.scan(&self.buffer).expect("the client writes MessagePack") {
                let rest = self.buffer.split_off(end);
                let raw = std::mem::replace(&mut self.buffer, rest);
                let message = parse(raw);
                let (seen, news) = &*self.seen;
                seen.lock().unwrap().messages.push((self.number, message.clone()));
                news.notify_all();
                return Some(message);
            }
            let mut part = [0; 64 * 1024];
            let count = self.stream.read(&mut part).unwrap_or(0);
            if count == 0 || self.stop.load(Ordering::SeqCst) {
                return None;
            }
            self.buffer.extend_from_slice(&part[..count]);
        }
    }

    pub fn ack(&mut self, chunk: &[u8]) {
        let mut out = b"\x81\xa3ack".to_vec();
        forward_protocol::msgpack::write_str(&mut out, chunk);
        self.write(&out);
    }

    pub fn write(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Waits until the client closes, reading nothing into messages.
    pub fn wait_for_end(&mut self) {
        let mut part = [0; 4096];
        while matches!(self.stream.read(&mut part), Ok(count) if count > 0) {}
    }

    pub fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Whether the client still holds the connection; reads nothing.
    pub fn alive(&self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let alive = !matches!(self.stream.take_error(), Ok(Some(_)))
            && self.stream.peek(&mut [0]).is_ok_and(|count| count > 0);
        self.stream.set_nonblocking(false).unwrap();
        alive
    }

    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }
}

fn parse(raw: Vec<u8>) -> Message {
    let mut reader = Reader::new(&raw);
    let elements = reader.array_len().expect("a message is an array");
    let tag = String::from_utf8(reader.str_or_bin().unwrap().to_vec()).unwrap();
    let mut events = Vec::new();
    let mut packed: Option<Vec<u8>> = None;
    let option_at = match reader.clone().value().unwrap() {
        Value::Array(count) => {
            reader.value().unwrap();
            for _ in 0..count {
                events.push(entry(&mut reader));
            }
            2
        }
        Value::Bin(bytes) | Value::Str(bytes) => {
            packed = Some(bytes.to_vec());
            reader.value().unwrap();
            2
        }
        _ => {
            events.push(time_and_record(&mut reader));
            3
        }
    };
    let (mut chunk, mut compressed, mut size) = (None, false, None);
    if elements > option_at {
        for _ in 0..reader.map_len().unwrap() {
            match reader.str_or_bin().unwrap() {
                b"chunk" => chunk = Some(reader.str_or_bin().unwrap().to_vec()),
                b"compressed" => compressed = reader.str_or_bin().unwrap() == b"gzip",
                b"size" => size = Some(u64::try_from(reader.int().unwrap()).unwrap()),
                other => panic!("unknown option {other:?}"),
            }
        }
    }
    assert!(reader.is_empty(), "nothing behind the options");
    if let Some(packed) = packed {
        let entries = if compressed { inflate(&packed) } else { packed };
        let mut reader = Reader::new(&entries);
        while !reader.is_empty() {
            events.push(entry(&mut reader));
        }
    }
    Message {
        raw,
        tag,
        chunk,
        compressed,
        size,
        events,
    }
}

fn entry(reader: &mut Reader<'_>) -> (Vec<u8>, serde_json::Value) {
    assert_eq!(reader.array_len().unwrap(), 2);
    time_and_record(reader)
}

fn time_and_record(reader: &mut Reader<'_>) -> (Vec<u8>, serde_json::Value) {
    let time = reader.raw(10).unwrap().to_vec();
    let record = reader.raw(100).unwrap();
    (time, rmp_serde::from_slice(record).expect("a record"))
}

#[cfg(feature = "gzip")]
fn inflate(packed: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    flate2::read::MultiGzDecoder::new(packed)
        .read_to_end(&mut out)
        .unwrap();
    out
}

#[cfg(not(feature = "gzip"))]
fn inflate(_: &[u8]) -> Vec<u8> {
    panic!("gzip without the feature");
}
