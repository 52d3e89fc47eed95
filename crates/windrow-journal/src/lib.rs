//! Write-ahead log: bytes in, [`Receipt`] out. It is also a queue on disk: what cannot be processed
//! at once is read back from it.
//!
//! Owns its folder and everything in it. Does not interpret payloads.
//!
//! # Example
//! ```
//! use bytes::Bytes;
//! use windrow_journal::{Journal, JournalOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let dir = folder.path().join("journal");
//! let options = JournalOptions::new(dir);
//! // `()` is a sink that ignores commits; this program reads everything back.
//! let (journal, recovery) = Journal::open(options, Box::new(()))?;
//!
//! // Appends that wait at the same time share one sync. In async code, await them instead.
//! let first = journal.append(0, Bytes::from_static(b"first"));
//! let second = journal.append(0, Bytes::from_static(b"second"));
//! let receipt = first.wait()?;
//! assert!(receipt.lsn() < second.wait()?.lsn());
//!
//! // After a crash, the same loop returns what was not released.
//! let mut reader = journal.reader(recovery.first_lsn);
//! while let Some(record) = reader.next()? {
//!     if !record.released {
//!         println!("{}: {} bytes", record.lsn, record.payload.len());
//!         journal.release(record.lsn);
//!     }
//! }
//! assert_eq!(journal.usage().unreleased_records, 0);
//! journal.close();
//! # Ok(())
//! # }
//! ```
//!
//! # Guarantees
//! * A [`Receipt`] exists only for a record that was synced to disk. Only the journal makes one.
//! * Every record with a receipt is returned by a [`Reader`], unchanged and in order, after any
//!   crash, until it is released. The exception is damage by the disk, which is counted, logged and
//!   kept in `quarantine/`.
//! * A damaged record is never returned.
//! * A segment file that is missing, and was not removed by the journal, is counted and logged.
//! * Lsns and received times ascend strictly over the life of the folder; none is assigned twice.
//! * The segments stay within [`JournalOptions::limit_bytes`], plus at most one segment that is not
//!   in use.
//!
//! # Files
//! | name | content |
//! |---|---|
//! | `LOCK` | lock file: one process per folder |
//! | `instance` | random number of the folder, 16 hex digits |
//! | `<number>.seg` | segment: a header, then records (`format.rs`) |
//! | `<number>.notes` | release log of a segment (`release_log.rs`) |
//! | `<number>.spare` | file of an obsolete segment, to be recycled in this run |
//! | `manifest` | segments that were begun and not removed (`manifest.rs`) |
//! | `quarantine/` | damaged segment files, never removed by the journal |
//!
//! # Design
//! Appends wait in a queue. The *writer* thread takes all of them, writes them as whole blocks with
//! direct I/O (through the page cache where the file system has none), syncs once, calls the
//! [`CommitSink`] and sends the receipts: group commit, so a slower disk makes larger groups. The
//! *maintenance* thread preallocates the next segment, logs releases, and unlinks or recycles
//! segments whose records are all released. Overwriting a recycled file costs half of what filling
//! a new one costs. Remains of its previous segment are never taken for records, because checksums
//! cover the segment's number.
//!
//! After a failed write or sync the segment ends at its last synced byte, its file is never synced
//! again (the kernel may have dropped the pages that it could not write), and a new segment begins.
//! A full disk is no failure: records wait until there is space. A segment header names the lsn
//! that it continues at, so that anything at or after that lsn in older files is known to be
//! unconfirmed and is not read.

mod block_writer;
mod commit_coalescer;
mod error;
mod exit_guard;
mod folder_lock;
mod format;
mod inspect;
mod instance;
mod journal;
mod maintenance;
mod manifest;
mod options;
mod preallocator;
mod quarantine;
mod queue;
mod reader;
mod record;
mod recovery;
mod release_log;
mod reserve;
mod scanner;
mod segments;
mod shared;
mod signals;
mod storage;
mod sync;
#[cfg(test)]
mod tests;
mod usage;
mod writer;

pub use error::{AppendError, OpenError, ReadError};
pub use inspect::{JournalReport, RecordVisitor, SegmentReport, inspect, inspect_with};
pub use journal::Journal;
pub use options::JournalOptions;
pub use queue::Append;
pub use reader::Reader;
pub use record::{CommitSink, Receipt, Record};
pub use recovery::Recovery;
pub use storage::BLOCK_BYTES;
pub use usage::{Blocked, OldestSegment, SYNC_BUCKETS, Usage};
