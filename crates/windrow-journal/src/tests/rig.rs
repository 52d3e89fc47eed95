//! The journal's parts without their threads, one step at a time, beside a ledger of what was confirmed.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::super::blocks::BLOCK;
use super::super::error::OpenError;
use super::super::keeper::Keeper;
use super::super::queue::{Append, Pending};
use super::super::reader::Reader;
use super::super::recovery::{Recovery, recover};
use super::super::shared::{Shared, lock};
use super::super::writer::{Progress, Writer};
use super::super::{AppendError, Options, Receipt, Record};
use super::faulty::Disk;

/// Segments of 4 KiB (the least), so that a few records fill one.
pub(super) fn options() -> Options {
    Options {
        dir: PathBuf::from("journal"),
        segment_bytes: 4096,
        limit_bytes: 1 << 20,
    }
}

/// A clock that goes backwards now and then.
fn clock() -> i64 {
    thread_local!(static CALLS: Cell<i64> = const { Cell::new(0) });
    let calls = CALLS.replace(CALLS.get() + 1);
    1_000_000 + calls - (calls % 7) * 20
}

pub(super) struct Rig {
    pub(super) disk: Disk,
    pub(super) shared: Arc<Shared>,
    pub(super) writer: Writer,
    pub(super) keeper: Keeper,
    pub(super) recovery: Recovery,
    pub(super) backlog: VecDeque<Pending>,
    waiting: Vec<(Bytes, Append)>,
}

/// A confirmed record, as the one who sent it knows it.
#[derive(Debug, Clone)]
pub(super) struct Known {
    received_us: i64,
    payload: Bytes,
    /// It was never confirmed, and came back all the same.
    adopted: bool,
    /// Released. Whether the journal still knows after a crash is open.
    released: bool,
}

/// What an independent observer knows: what was sent and what was confirmed.
#[derive(Debug, Default, Clone)]
pub(super) struct Ledger {
    pub(super) confirmed: BTreeMap<u64, Known>,
    /// Sent and not confirmed: it may or may not come back.
    unconfirmed: BTreeSet<Bytes>,
    sent: u64,
    /// The device failed at some time: what was never confirmed may come back from the memory of the system, where a
    /// failed sync left it, and be gone after the next power failure. No journal can help that.
    pub(super) device_failed: bool,
    pub(super) failed: u64,
}

impl Rig {
    pub(super) fn open(disk: &Disk) -> Result<Self, OpenError> {
        Self::open_with(disk, options())
    }

    pub(super) fn open_with(disk: &Disk, options: Options) -> Result<Self, OpenError> {
        let (shared, writer, recovery) = recover(Arc::new(disk.clone()), options, Box::new(()), clock)?;
        let keeper = Keeper::new(Arc::clone(&shared));
        let disk = disk.clone();
        Ok(Self {
            disk,
            shared,
            writer,
            keeper,
            recovery,
            backlog: VecDeque::new(),
            waiting: Vec::new(),
        })
    }

    /// Sends a payload of about `size` bytes that is like no other.
    pub(super) fn send(&mut self, ledger: &mut Ledger, size: usize) {
        let payload = ledger.payload(size);
        self.send_payload(ledger, payload.into());
    }

    /// The same, with a payload that begins at a block in memory.
    pub(super) fn send_at_block(&mut self, ledger: &mut Ledger, size: usize) {
        let payload = ledger.payload(size);
        let mut memory = vec![0; payload.len() + BLOCK];
        let at = memory.as_ptr().align_offset(BLOCK);
        memory[at..at + payload.len()].copy_from_slice(&payload);
        self.send_payload(ledger, Bytes::from(memory).slice(at..at + payload.len()));
    }

    fn send_payload(&mut self, ledger: &mut Ledger, payload: Bytes) {
        ledger.unconfirmed.insert(payload.clone());
        let (pending, append) = Pending::new(kind_of(&payload), payload.clone());
        self.backlog.push_back(pending);
        self.waiting.push((payload, append));
    }

    /// One commit; what was confirmed goes into the ledger.
    pub(super) fn step(&mut self, ledger: &mut Ledger) -> Progress {
        let progress = self.writer.step(&mut self.backlog);
        // As the thread does.
        lock(&self.shared.state).blocked = match &progress {
            Progress::Failed(why) | Progress::Blocked(why) => Some(why.clone()),
            Progress::Idle | Progress::Committed => None,
        };
        self.collect(ledger);
        progress
    }

    /// Commits until nothing waits or nothing goes.
    pub(super) fn run(&mut self, ledger: &mut Ledger) {
        while self.step(ledger) == Progress::Committed {}
    }

    /// The one who sent the last payload goes away.
    pub(super) fn abandon(&mut self) {
        self.waiting.pop();
    }

    fn collect(&mut self, ledger: &mut Ledger) {
        let mut context = Context::from_waker(Waker::noop());
        for (payload, mut append) in std::mem::take(&mut self.waiting) {
            match Pin::new(&mut append).poll(&mut context) {
                Poll::Pending => self.waiting.push((payload, append)),
                Poll::Ready(Ok(receipt)) => ledger.confirm(&receipt, payload),
                Poll::Ready(Err(AppendError::Disk(_))) => ledger.failed += 1,
                Poll::Ready(Err(error)) => panic!("{error}"),
            }
        }
    }

    pub(super) fn release(&self, ledger: &mut Ledger, lsn: u64) {
        if let Some(known) = ledger.confirmed.get_mut(&lsn) {
            known.released = true;
            self.shared.release(&[lsn]);
        }
    }

    pub(super) fn reader(&self, from_lsn: u64) -> Reader {
        Reader::new(Arc::clone(&self.shared), from_lsn)
    }

    pub(super) fn read_all(&self) -> Vec<Record> {
        let mut reader = self.reader(0);
        std::iter::from_fn(|| reader.next().unwrap()).collect()
    }

    /// Reads everything back and compares it with the ledger; no damage may be seen.
    pub(super) fn check(&self, ledger: &mut Ledger) {
        self.check_all_but(ledger, &BTreeSet::new());
        if ledger.device_failed {
            return;
        }
        let usage = self.shared.usage();
        assert_eq!(
            (usage.lost_records, usage.quarantined_segments),
            (0, 0),
            "damage where there is none"
        );
    }

    /// As `check`; of these lsns nothing is expected.
    pub(super) fn check_all_but(&self, ledger: &mut Ledger, damaged: &BTreeSet<u64>) {
        let records = self.read_all();
        for pair in records.windows(2) {
            assert!(pair[0].lsn < pair[1].lsn, "out of order: {pair:?}");
            assert!(
                pair[0].received_us < pair[1].received_us,
                "times do not ascend: {pair:?}"
            );
        }
        for record in &records {
            assert_eq!(record.kind, kind_of(&record.payload), "damaged: {record:?}");
            match ledger.confirmed.get(&record.lsn) {
                Some(known) => {
                    assert_eq!(
                        (record.received_us, &record.payload),
                        (known.received_us, &known.payload)
                    );
                    assert!(known.released || !record.released, "never released: {record:?}");
                }
                None => {
                    // Not confirmed, but durable after all: from now on it has to stay.
                    assert!(
                        ledger.unconfirmed.remove(&record.payload),
                        "nobody sent this: {record:?}"
                    );
                    let known = Known {
                        received_us: record.received_us,
                        payload: record.payload.clone(),
                        adopted: true,
                        released: record.released,
                    };
                    ledger.confirmed.insert(record.lsn, known);
                }
            }
        }
        let back: BTreeSet<u64> = records.iter().map(|record| record.lsn).collect();
        if ledger.device_failed {
            ledger
                .confirmed
                .retain(|lsn, known| !known.adopted || known.released || back.contains(lsn));
        }
        let missing = ledger
            .confirmed
            .iter()
            .filter(|(_, known)| !known.released)
            .map(|(lsn, _)| lsn);
        let missing: Vec<u64> = missing
            .filter(|lsn| !back.contains(lsn) && !damaged.contains(lsn))
            .copied()
            .collect();
        assert!(missing.is_empty(), "confirmed records are missing: {missing:?}");
    }

    /// The process ends without closing anything.
    pub(super) fn kill(self) -> Disk {
        self.disk
    }
}

impl Ledger {
    /// A payload of about `size` bytes that is like no other.
    fn payload(&mut self, size: usize) -> Vec<u8> {
        self.sent += 1;
        let mut payload = format!("<{}>", self.sent).into_bytes();
        payload.resize(size.max(payload.len()), b'a' + (self.sent % 26) as u8);
        payload
    }

    fn confirm(&mut self, receipt: &Receipt, payload: Bytes) {
        assert!(self.unconfirmed.remove(&payload), "confirmed twice");
        let (lsn, received_us) = (receipt.lsn(), receipt.received_us());
        if let Some((last, known)) = self.confirmed.last_key_value() {
            assert!(*last < lsn && known.received_us < received_us, "{last} {lsn}");
        }
        self.confirmed.insert(
            lsn,
            Known {
                received_us,
                payload,
                adopted: false,
                released: false,
            },
        );
    }

    /// These are known to be gone; their payloads may be sent again.
    pub(super) fn forget(&mut self, lsns: &BTreeSet<u64>) {
        self.confirmed.retain(|lsn, _| !lsns.contains(lsn));
    }

    pub(super) fn lsns(&self) -> Vec<u64> {
        self.confirmed.keys().copied().collect()
    }
}

/// So that a kind that comes back wrong is seen too.
fn kind_of(payload: &[u8]) -> u8 {
    (crc32fast::hash(payload) % 251) as u8
}
