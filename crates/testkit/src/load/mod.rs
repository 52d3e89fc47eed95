//! A load with a ledger: the client of `windrow bench` sends records of the tests' own, resends the
//! very same bytes after a failure, and a [`Ledger`] keeps what was acknowledged.
//!
//! A load is deterministic: trace ids, texts, times, chunk borders and chunk ids follow from
//! [`Load`] alone. So the ledger needs only one mark a record, and what a stored document must
//! contain can be worked out again. It does not speak TLS and knows no handshake.

mod ledger;
mod record;
mod shape;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;
use windrow_bench::client::{Client, Observer, Sent};
pub use windrow_bench::load::Mode;
use windrow_bench::load::{ConnectionOrder, Framing, Records, Source};

pub use ledger::{Ledger, Mark};
pub use shape::{Entries, Ids, Load, Time, trace_number};

impl Load {
    /// The records in order of their times as JSON, each with `_time` in Unix seconds, for a logger
    /// of another language to send; and a ledger by which all of them must be stored.
    pub fn by_logger(self) -> (Vec<Value>, Ledger) {
        let load = Arc::new(self);
        let ledger = Ledger::new(Arc::clone(&load));
        let mut lines: Vec<(u64, u32)> = (0..load.traces)
            .flat_map(|trace| (0..load.lines).map(move |line| (trace, line)))
            .collect();
        let order = load.order();
        lines.sort_unstable_by_key(|&(trace, line)| order.sequence(trace, line));
        let records = lines
            .into_iter()
            .map(|(trace, line)| {
                ledger.raise_line(trace, line, Mark::Acknowledged);
                record::json(&load, trace, line)
            })
            .collect();
        (records, ledger)
    }

    /// Sends everything and waits for the end.
    ///
    /// # Panics
    /// When an acknowledgement is wrong, or none came for `give_up`.
    #[track_caller]
    pub fn run(self) -> Report {
        self.start().finish()
    }

    /// Sends in the background.
    pub fn start(self) -> Running {
        assert!(
            !self.spread || self.time != Time::Integer,
            "spread lines of one second have no order to check"
        );
        let load = Arc::new(self);
        let ledger = Arc::new(Ledger::new(Arc::clone(&load)));
        let stop = Arc::new(AtomicBool::new(false));
        let watch = Arc::new(Watch {
            ledger: Arc::clone(&ledger),
            stop: Arc::clone(&stop),
        });
        let began = Instant::now();
        // A thread of its own, since tests call this inside and outside of a runtime.
        let sender = std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            runtime.block_on(load.client().send(load.sources(), watch))
        });
        Running {
            ledger,
            sender,
            stop,
            began,
        }
    }

    fn client(&self) -> Client {
        Client {
            addresses: self.addresses.clone(),
            answer_timeout: self.ack_timeout,
            give_up: Some(self.give_up),
            copies: self.repeat.max(1),
            reconnect_chunks: (self.reconnect > 0).then_some(self.reconnect),
            records_per_second: (self.rate > 0).then_some(self.rate),
        }
    }

    fn sources(self: &Arc<Self>) -> Vec<Source<Lines>> {
        let framing = Arc::new(Framing {
            mode: self.mode,
            acks: self.acks,
            tag: self.tag.clone(),
            chunk_records: self.chunk_records,
            window: self.window,
        });
        let order = self.order();
        (0..order.connections)
            .map(|connection| {
                let lines = Lines {
                    load: Arc::clone(self),
                    order: order.of_connection(connection),
                    connection,
                };
                Source::new(lines, Arc::clone(&framing))
            })
            .collect()
    }
}

/// The lines of one connection.
struct Lines {
    load: Arc<Load>,
    order: ConnectionOrder,
    connection: u64,
}

impl Records for Lines {
    fn write_next(&mut self, out: &mut Vec<u8>) -> bool {
        let Some((trace, line)) = self.order.next() else {
            return false;
        };
        record::write_entry(out, &self.load, trace, line);
        true
    }

    fn chunk_id(&self, number: u64) -> String {
        match self.load.ids {
            Ids::Unique => format!("{}{:08x}{number:08x}==", self.load.prefix, self.connection),
            Ids::Counting => (number + 1).to_string(),
        }
    }
}

/// Keeps the ledger while the client sends.
struct Watch {
    ledger: Arc<Ledger>,
    stop: Arc<AtomicBool>,
}

impl Observer for Watch {
    fn sending(&self, connection: usize, records: &Range<u64>) {
        self.ledger.raise(connection, records, Mark::Sent);
    }

    fn acknowledged(&self, connection: usize, records: &Range<u64>) {
        self.ledger.raise(connection, records, Mark::Acknowledged);
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Relaxed)
    }
}

/// A load on its way.
#[derive(Debug)]
pub struct Running {
    ledger: Arc<Ledger>,
    sender: JoinHandle<std::io::Result<Sent>>,
    stop: Arc<AtomicBool>,
    began: Instant,
}

impl Running {
    /// The marks so far.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// All connections have ended.
    pub fn is_finished(&self) -> bool {
        self.sender.is_finished()
    }

    /// Waits until at least `records` are acknowledged.
    ///
    /// # Panics
    /// When that takes longer than two minutes.
    #[track_caller]
    pub fn wait_acknowledged(&self, records: u64) {
        crate::wait::until("acknowledged records", Duration::from_secs(120), || {
            let have = self.ledger.acknowledged();
            if have >= records {
                Ok(())
            } else {
                Err(format!("{have} of {records}"))
            }
        });
    }

    /// Ends early: no new chunk is sent, chunks in flight stay without a mark of acknowledgement.
    #[track_caller]
    pub fn stop(self) -> Report {
        self.stop.store(true, Relaxed);
        self.finish()
    }

    /// Waits for the end.
    ///
    /// # Panics
    /// When a connection failed for good.
    #[track_caller]
    pub fn finish(self) -> Report {
        let sent = match self.sender.join() {
            Ok(Ok(sent)) => sent,
            Ok(Err(error)) => panic!("the load failed: {error}"),
            Err(panic) => std::panic::resume_unwind(panic),
        };
        Report {
            ledger: self.ledger,
            seconds: self.began.elapsed().as_secs_f64(),
            resent: sent.failures,
            connects: sent.connects,
            refusals: sent.errors.clone(),
            sent,
        }
    }
}

/// What a load did.
#[derive(Debug)]
pub struct Report {
    /// What was acknowledged.
    pub ledger: Arc<Ledger>,
    /// From the first connection to the last acknowledgement, in seconds.
    pub seconds: f64,
    /// Connections that failed, after which chunks were sent again.
    pub resent: u64,
    /// Connections opened.
    pub connects: u64,
    /// Why connections failed, the first few of each.
    pub refusals: Vec<String>,
    sent: Sent,
}

impl Report {
    /// The latency below which the share `q` (0 to 1) of the acknowledgements lies, in
    /// milliseconds.
    pub fn latency_ms(&self, q: f64) -> f64 {
        self.sent
            .latency(q.clamp(0.0, 1.0))
            .map_or(0.0, |latency| latency.as_secs_f64() * 1e3)
    }
}
