//! Test harness: the journal's parts without threads, driven step by step, and a ledger of what was
//! confirmed.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::faulty_disk::FaultyDisk;
use crate::error::OpenError;
use crate::maintenance::Maintenance;
use crate::queue::{Append, PendingAppend};
use crate::reader::Reader;
use crate::recovery::{Recovery, recover};
use crate::shared::Shared;
use crate::storage::BLOCK_BYTES;
use crate::sync::lock;
use crate::writer::{Progress, Writer};
use crate::{AppendError, JournalOptions, Receipt, Record};

/// Segments of 4 KiB, the minimum, so that a few records fill one.
pub(super) fn options() -> JournalOptions {
    JournalOptions {
        dir: PathBuf::from("journal"),
        segment_bytes: 4096,
        limit_bytes: 1 << 20,
        clock,
    }
}

/// A clock that is set back from time to time.
fn clock() -> i64 {
    thread_local!(static CALLS: Cell<i64> = const { Cell::new(0) });
    let calls = CALLS.replace(CALLS.get() + 1);
    1_000_000 + calls - (calls % 7) * 20
}

pub(super) struct Rig {
    pub(super) disk: FaultyDisk,
    pub(super) shared: Arc<Shared>,
    pub(super) writer: Writer,
    pub(super) maintenance: Maintenance,
    pub(super) recovery: Recovery,
    pub(super) backlog: VecDeque<PendingAppend>,
    waiting: Vec<(Bytes, Append)>,
}

/// A confirmed record, as its sender knows it.
#[derive(Debug, Clone)]
pub(super) struct ConfirmedRecord {
    received_us: i64,
    payload: Bytes,
    /// It was never confirmed, and was read back.
    adopted: bool,
    /// Released. The journal may have forgotten that in a crash.
    released: bool,
}

/// What was sent and what was confirmed, recorded independently of the journal.
#[derive(Debug, Default, Clone)]
pub(super) struct Ledger {
    pub(super) confirmed: BTreeMap<u64, ConfirmedRecord>,
    /// Sent and not confirmed: these may or may not come back.
    unconfirmed: BTreeSet<Bytes>,
    sent: u64,
    /// The device has failed: unconfirmed records may come back from the page cache, where a failed
    /// sync left them, and be lost in the next power failure. No journal can prevent that.
    pub(super) device_failed: bool,
    pub(super) failed: u64,
}

impl Rig {
    pub(super) fn open(disk: &FaultyDisk) -> Result<Self, OpenError> {
        Self::open_with(disk, options())
    }

    pub(super) fn open_with(disk: &FaultyDisk, options: JournalOptions) -> Result<Self, OpenError> {
        let (shared, writer, recovery) = recover(Arc::new(disk.clone()), options, Box::new(()))?;
        let maintenance = Maintenance::new(Arc::clone(&shared));
        let disk = disk.clone();
        Ok(Self {
            disk,
            shared,
            writer,
            maintenance,
            recovery,
            backlog: VecDeque::new(),
            waiting: Vec::new(),
        })
    }

    /// Sends a unique payload of about `size` bytes.
    pub(super) fn send(&mut self, ledger: &mut Ledger, size: usize) {
        let payload = ledger.payload(size);
        self.send_payload(ledger, payload.into());
    }

    /// Sends a unique, block-aligned payload of about `size` bytes.
    pub(super) fn send_aligned(&mut self, ledger: &mut Ledger, size: usize) {
        self.send_behind_block(ledger, size, 0);
    }

    /// Sends a unique payload of about `size` bytes that begins this many bytes behind a block.
    pub(super) fn send_behind_block(&mut self, ledger: &mut Ledger, size: usize, offset: usize) {
        let payload = ledger.payload(size);
        let mut memory = vec![0; payload.len() + BLOCK_BYTES + offset];
        let at = memory.as_ptr().align_offset(BLOCK_BYTES) + offset;
        memory[at..at + payload.len()].copy_from_slice(&payload);
        self.send_payload(ledger, Bytes::from(memory).slice(at..at + payload.len()));
    }

    fn send_payload(&mut self, ledger: &mut Ledger, payload: Bytes) {
        ledger.unconfirmed.insert(payload.clone());
        // Each of a source of its own, so that all of the journal can be used.
        let source = (ledger.confirmed.len() + ledger.unconfirmed.len()) as u64;
        let (pending, append) = PendingAppend::new(source, kind_of(&payload), payload.clone());
        self.backlog.push_back(pending);
        self.waiting.push((payload, append));
    }

    /// Makes one commit and enters its receipts into the ledger.
    pub(super) fn step(&mut self, ledger: &mut Ledger) -> Progress {
        let progress = self.writer.step(&mut self.backlog);
        // As the writer thread does.
        lock(&self.shared.state).blocked = match &progress {
            Progress::Failed(why) | Progress::Blocked(why) => Some(why.clone()),
            Progress::Idle | Progress::Committed => None,
        };
        self.collect(ledger);
        progress
    }

    /// Commits until nothing waits or a commit fails.
    pub(super) fn run(&mut self, ledger: &mut Ledger) {
        while self.step(ledger) == Progress::Committed {}
    }

    /// Drops the future of the last append.
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

    /// Reads everything back and compares it with the ledger. There must be no damage.
    pub(super) fn check(&self, ledger: &mut Ledger) {
        self.check_all_but(ledger, &BTreeSet::new());
        if ledger.device_failed {
            return;
        }
        let usage = self.shared.usage();
        assert_eq!(
            (usage.lost_records, usage.quarantined_segments),
            (0, 0),
            "false alarm"
        );
    }

    /// [`Rig::check`], except for lsns that may be missing.
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
                    // Not confirmed, but durable: it has to stay.
                    assert!(
                        ledger.unconfirmed.remove(&record.payload),
                        "nobody sent this: {record:?}"
                    );
                    let known = ConfirmedRecord {
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

    /// Kills the process.
    pub(super) fn kill(self) -> FaultyDisk {
        self.disk
    }
}

impl Ledger {
    /// A unique payload of about `size` bytes.
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
            ConfirmedRecord {
                received_us,
                payload,
                adopted: false,
                released: false,
            },
        );
    }

    /// Forgets records that are known to be lost.
    pub(super) fn forget(&mut self, lsns: &BTreeSet<u64>) {
        self.confirmed.retain(|lsn, _| !lsns.contains(lsn));
    }

    pub(super) fn lsns(&self) -> Vec<u64> {
        self.confirmed.keys().copied().collect()
    }
}

/// A kind derived from the payload, so that a wrong one is noticed.
fn kind_of(payload: &[u8]) -> u8 {
    (crc32fast::hash(payload) % 251) as u8
}
