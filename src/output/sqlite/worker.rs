//! Thread of the embedded store: collects batches into transactions, retries and confirms them, and
//! runs retention between them.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime};

use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::time::Instant;
use windrow_trace::UnionError;

use super::{SqliteWriter, StoreError, TransactionSummary};
use crate::output::{Batch, OutputId, SealedDocument, Watchdog};

/// Documents of one transaction, reached by whole batches. Ids are random, so that in a large store
/// nearly each document touches a page of the index of its own: the more of them share a
/// transaction, the fewer pages are written.
const MAX_TRANSACTION_DOCUMENTS: usize = 30_000;
/// Bytes of the documents of one transaction, reached by whole batches. The store exceeds its
/// limit by no more.
const MAX_TRANSACTION_BYTES: usize = 32 << 20;
/// Pause after a failed transaction.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// Pause between retention runs, also of an idle store.
const RETENTION_INTERVAL: Duration = if cfg!(test) {
    Duration::from_millis(200)
} else {
    Duration::from_secs(10)
};

/// Receives the results of transactions.
pub trait WriteObserver: Send {
    /// A transaction is on disk.
    fn written(&mut self, done: &TransactionSummary, took: Duration);
    /// A transaction failed and is retried after a pause.
    fn failed(&mut self, error: &StoreError);
    /// A document can never be stored; returns once it is durable elsewhere.
    fn rejected(&mut self, document: &SealedDocument, why: &UnionError);
}

/// Writes batches until the channel closes. Runs on its own thread; `runtime` is its clock. A
/// failed transaction is retried until it succeeds or `stop` returns true.
pub fn run(
    mut writer: SqliteWriter,
    id: OutputId,
    mut batches: mpsc::Receiver<Batch>,
    mut observer: impl WriteObserver,
    watchdog: &Watchdog,
    runtime: &Runtime,
    stop: &dyn Fn() -> bool,
) {
    let mut retain_at = Instant::now();
    let mut has_written = false;
    loop {
        let next = async { tokio::time::timeout_at(retain_at, batches.recv()).await };
        match runtime.block_on(next) {
            Ok(Some(first)) => {
                has_written = true;
                if !write_batches(
                    &mut writer,
                    id,
                    &first,
                    &mut batches,
                    &mut observer,
                    watchdog,
                    stop,
                ) {
                    return;
                }
            }
            Ok(None) => return,
            Err(_elapsed) => {
                if !std::mem::take(&mut has_written) {
                    writer.shrink_memory();
                }
            }
        }
        let step = if Instant::now() >= retain_at {
            watchdog.begin();
            writer.retain()
        } else {
            Ok(false)
        };
        let step = step.and_then(|more| {
            // Writing waits while the store is beyond its limit.
            while writer.is_beyond_limit()? && writer.retain()? && !stop() {}
            Ok(more)
        });
        match step {
            Ok(more) => {
                watchdog.succeed();
                let now = Instant::now();
                if more {
                    retain_at = now;
                } else if now >= retain_at {
                    retain_at = now + RETENTION_INTERVAL;
                }
            }
            Err(error) => {
                observer.failed(&error);
                watchdog.fail(&error);
                retain_at = Instant::now() + RETENTION_INTERVAL;
            }
        }
    }
}

/// Writes a batch and those that wait behind it in one transaction, and confirms them; `false` when
/// `stop` ends the attempts.
fn write_batches(
    writer: &mut SqliteWriter,
    id: OutputId,
    first: &Batch,
    batches: &mut mpsc::Receiver<Batch>,
    observer: &mut impl WriteObserver,
    watchdog: &Watchdog,
    stop: &dyn Fn() -> bool,
) -> bool {
    let mut batch: Vec<SealedDocument> = first.documents_for(id).collect();
    let mut bytes = first.bytes();
    while batch.len() < MAX_TRANSACTION_DOCUMENTS
        && bytes < MAX_TRANSACTION_BYTES
        && let Ok(more) = batches.try_recv()
    {
        bytes += more.bytes();
        batch.extend(more.documents_for(id));
    }
    let began = SystemTime::now();
    let mut dead: HashSet<_> = HashSet::new();
    let mut new_lines_of: HashMap<_, u32> = HashMap::new();
    watchdog.begin();
    loop {
        let documents = batch.iter();
        let mut reject = |document: &SealedDocument, why: &UnionError| {
            observer.rejected(document, why);
            dead.insert(document.key());
        };
        let mut merged = |document: &SealedDocument, new_lines| {
            new_lines_of.insert(document.key(), new_lines);
        };
        match writer.write(documents, &mut reject, &mut merged) {
            Ok(done) => {
                observer.written(&done, began.elapsed().unwrap_or_default());
                watchdog.succeed();
                break;
            }
            Err(error) => {
                observer.failed(&error);
                watchdog.fail(&error);
                if stop() {
                    return false;
                }
                std::thread::sleep(RETRY_PAUSE);
            }
        }
    }
    for document in &batch {
        let at = document.key();
        if dead.contains(&at) {
            document.confirm_dead(id);
        } else {
            if let Some(new_lines) = new_lines_of.get(&at) {
                document.note_merged(*new_lines);
            }
            document.confirm(id);
        }
    }
    true
}
