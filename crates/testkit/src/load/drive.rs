//! One connection of a load: sends chunks within the window, reads acks strictly in order, and after any
//! failure connects again and resends the same bytes from the first chunk without an ack.

use std::collections::VecDeque;
use std::io::{self, Cursor, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::{Chunk, Ledger, Load, Mark};

/// What became of one connection's chunks.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) latencies: Vec<Duration>,
    pub(super) resent: u64,
    pub(super) connects: u64,
    pub(super) troubles: Vec<String>,
}

pub(super) fn drive(
    load: &Load,
    connection: u64,
    chunks: &[Chunk],
    ledger: &Ledger,
    stop: &AtomicBool,
) -> Outcome {
    let addresses = load.addresses.len();
    let address = load.addresses[usize::try_from(connection).expect("few connections") % addresses];
    let mut driver = Driver {
        load,
        address,
        chunks,
        ledger,
        stop,
        next: 0,
        progress: Instant::now(),
        began: Instant::now(),
        outcome: Outcome::default(),
    };
    while driver.next < chunks.len() && !stop.load(Relaxed) {
        let before = driver.next;
        if let Err(error) = driver.one_connection() {
            driver.outcome.resent += 1;
            if driver.outcome.troubles.len() < 5 {
                driver.outcome.troubles.push(error.to_string());
            }
            // A peer that is down refuses at once; do not spin on it.
            if driver.next == before {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        assert!(
            driver.progress.elapsed() < load.give_up,
            "no chunk got through to {address} for {} s (chunk {} of {}): {:?}",
            load.give_up.as_secs_f64(),
            driver.next,
            chunks.len(),
            driver.outcome.troubles
        );
    }
    driver.outcome
}

struct Driver<'a> {
    load: &'a Load,
    address: SocketAddr,
    chunks: &'a [Chunk],
    ledger: &'a Ledger,
    stop: &'a AtomicBool,
    /// The first chunk without an ack.
    next: usize,
    progress: Instant,
    began: Instant,
    outcome: Outcome,
}

impl Driver<'_> {
    /// `Ok` when the connection ended on purpose.
    fn one_connection(&mut self) -> io::Result<()> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(self.load.ack_timeout))?;
        // A peer that reads no more must not hold the load for ever either.
        stream.set_write_timeout(Some(self.load.ack_timeout))?;
        self.outcome.connects += 1;
        let mut acks = Acks::default();
        let mut in_flight = VecDeque::new();
        let mut sent = self.next;
        let first = sent;
        loop {
            let enough = self.load.reconnect > 0 && sent - first >= self.load.reconnect;
            let stopping = self.stop.load(Relaxed);
            if sent < self.chunks.len() && in_flight.len() < self.load.window && !enough && !stopping {
                self.pace(sent);
                let chunk = &self.chunks[sent];
                self.ledger.raise(&chunk.records, Mark::Sent);
                for _ in 0..self.load.repeat.max(1) {
                    stream.write_all(&chunk.bytes)?;
                }
                if chunk.id.is_some() {
                    in_flight.push_back((sent, Instant::now()));
                } else {
                    self.advance(sent);
                }
                sent += 1;
                continue;
            }
            let Some((index, at)) = in_flight.pop_front() else {
                break;
            };
            let chunk = &self.chunks[index];
            let id = chunk.id.as_deref().unwrap_or_default();
            for _ in 0..self.load.repeat.max(1) {
                let got = acks.next(&mut stream)?;
                assert_eq!(
                    got, id,
                    "the ack of another chunk than the oldest in flight on {}",
                    self.address
                );
                self.ledger.raise(&chunk.records, Mark::Acknowledged);
            }
            self.outcome.latencies.push(at.elapsed());
            self.advance(index);
        }
        // Without acks the peer must have read everything before this end closes.
        stream.shutdown(Shutdown::Write)?;
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest)?;
        assert!(
            rest.is_empty(),
            "{} bytes after the last ack: {rest:02x?}",
            rest.len()
        );
        Ok(())
    }

    fn advance(&mut self, index: usize) {
        self.next = index + 1;
        self.progress = Instant::now();
    }

    /// Waits until the chunk is due by the rate.
    fn pace(&self, index: usize) {
        if self.load.rate == 0 {
            return;
        }
        #[expect(clippy::cast_precision_loss, reason = "far less than 2^52 records")]
        let due = {
            let per_chunk =
                self.load.records() as f64 / self.load.connections as f64 / self.chunks.len() as f64;
            index as f64 * per_chunk * self.load.connections as f64 / self.load.rate as f64
        };
        let due = self.began + Duration::from_secs_f64(due);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}

/// Acks as they come: several in one segment, or one in several.
#[derive(Default)]
struct Acks {
    buffer: Vec<u8>,
}

impl Acks {
    fn next(&mut self, stream: &mut TcpStream) -> io::Result<String> {
        loop {
            if let Some(id) = self.take()? {
                return Ok(id);
            }
            let mut part = [0; 4096];
            match stream.read(&mut part)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => self.buffer.extend_from_slice(&part[..n]),
            }
        }
    }

    /// `{"ack": id}` at the front of the buffer, if it is all there.
    fn take(&mut self) -> io::Result<Option<String>> {
        let mut cursor = Cursor::new(&self.buffer[..]);
        let value = match rmpv::decode::read_value(&mut cursor) {
            Ok(value) => value,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => {
                return Err(io::Error::other(format!(
                    "an ack that is not MessagePack: {error}"
                )));
            }
        };
        let used = usize::try_from(cursor.position()).expect("in memory");
        let id = match value.as_map().map(Vec::as_slice) {
            Some([(key, id)]) if key.as_str() == Some("ack") => id.as_str().map(str::to_owned),
            _ => None,
        };
        let Some(id) = id else {
            return Err(io::Error::other(format!("not an ack: {value}")));
        };
        self.buffer.drain(..used);
        Ok(Some(id))
    }
}
