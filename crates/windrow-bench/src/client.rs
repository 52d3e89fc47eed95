//! A Forward client that sends a load: keeps a window of chunks in flight on each connection, and
//! compares every acknowledgement with the chunk that must be acknowledged next. Owns the clock of
//! the client.

use std::io::{self, Error};
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::load::{Records, Source};

mod connection;

use connection::Connection;

/// How a load is sent.
#[derive(Clone, Debug)]
pub struct Client {
    /// Servers; connection `n` goes to the one at `n % addresses.len()`.
    pub addresses: Vec<SocketAddr>,
    /// A server that neither reads nor answers for this long has failed.
    pub answer_timeout: Duration,
    /// After a failure, connect again and send what is not acknowledged, until no chunk got through
    /// for this long. `None`: the first failure ends the load.
    pub give_up: Option<Duration>,
    /// Send each chunk this many times in a row; each copy must be acknowledged.
    pub copies: usize,
    /// Reconnect after this many chunks.
    pub reconnect_chunks: Option<usize>,
    /// Records per second over all connections; `None`: as fast as the server takes them.
    pub records_per_second: Option<u64>,
}

impl Client {
    /// A client that sends once, as fast as the server takes it, and fails with the first failure.
    pub fn new(address: SocketAddr) -> Self {
        Self {
            addresses: vec![address],
            answer_timeout: Duration::from_secs(60),
            give_up: None,
            copies: 1,
            reconnect_chunks: None,
            records_per_second: None,
        }
    }

    /// Sends all of `sources`, each over a connection of its own. `observer` learns of each chunk.
    ///
    /// # Errors
    /// When a connection fails for good, or an acknowledgement is wrong.
    pub async fn send<R, O>(self, sources: Vec<Source<R>>, observer: Arc<O>) -> io::Result<Sent>
    where
        R: Records + Send + 'static,
        O: Observer,
    {
        let client = Arc::new(self);
        let connections = sources.len();
        let mut ready = Vec::with_capacity(connections);
        for (index, source) in sources.into_iter().enumerate() {
            let mut connection = Connection::new(&client, index, connections, source, &observer)?;
            connection.prepare().await?;
            ready.push(connection);
        }
        let began = Instant::now();
        let mut running = JoinSet::new();
        for connection in ready {
            running.spawn(connection.run(began));
        }
        let mut sent = Sent {
            began,
            took: Duration::ZERO,
            bytes: 0,
            latencies: Vec::new(),
            connects: 0,
            failures: 0,
            errors: Vec::new(),
        };
        while let Some(ended) = running.join_next().await {
            let tally = ended.map_err(Error::other)??;
            sent.bytes += tally.bytes;
            sent.latencies.extend(tally.latencies);
            sent.connects += tally.connects;
            sent.failures += tally.failures;
            sent.errors.extend(tally.errors);
        }
        sent.took = began.elapsed();
        sent.latencies.sort_unstable();
        Ok(sent)
    }
}

/// Sends all of `sources` to `address`, each over a connection of its own, once.
///
/// # Errors
/// When a connection fails, or an acknowledgement is missing or wrong: a measurement with a fault
/// in it is none.
pub async fn drive<R>(address: SocketAddr, sources: Vec<Source<R>>) -> io::Result<Sent>
where
    R: Records + Send + 'static,
{
    Client::new(address).send(sources, Arc::new(())).await
}

/// Learns what the client has written and what was acknowledged. `records` are places in the order
/// of the connection.
pub trait Observer: Send + Sync + 'static {
    /// The chunk with these records is about to be written.
    fn sending(&self, connection: usize, records: &Range<u64>);

    /// The chunk with these records, or one of its copies, was acknowledged.
    fn acknowledged(&self, connection: usize, records: &Range<u64>);

    /// No new chunk is to be sent.
    fn is_stopped(&self) -> bool;
}

/// Learns nothing and never stops.
impl Observer for () {
    fn sending(&self, _: usize, _: &Range<u64>) {}

    fn acknowledged(&self, _: usize, _: &Range<u64>) {}

    fn is_stopped(&self) -> bool {
        false
    }
}

/// What the client saw.
#[derive(Debug)]
pub struct Sent {
    /// When the first byte was sent.
    pub began: Instant,
    /// From the first byte to the last acknowledgement, or, without acknowledgements, until all was
    /// read.
    pub took: Duration,
    /// Bytes of all chunks, each counted once.
    pub bytes: u64,
    /// From sending a chunk to its acknowledgement, sorted.
    pub latencies: Vec<Duration>,
    /// Connections opened.
    pub connects: u64,
    /// Connections that failed.
    pub failures: u64,
    /// Why connections failed, the first few of each.
    pub errors: Vec<String>,
}

impl Sent {
    /// The latency below which `share` (0 to 1) of the chunks were acknowledged.
    pub fn latency(&self, share: f64) -> Option<Duration> {
        let last = self.latencies.len().checked_sub(1)?;
        self.latencies.get((last as f64 * share) as usize).copied()
    }
}

#[cfg(test)]
mod tests;
