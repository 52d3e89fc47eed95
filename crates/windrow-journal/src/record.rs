//! Records, the receipts for them, and the sink that gets each commit.

use bytes::Bytes;

/// One record, as it is on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Log sequence number: ascending, never assigned twice, with gaps.
    pub lsn: u64,
    /// Number of the segment that holds the record; see
    /// [`Usage::oldest_segment`](crate::Usage::oldest_segment).
    pub segment: u64,
    /// When the record was received, Unix microseconds: strictly ascending with the lsn, and the
    /// same after a restart.
    pub received_us: i64,
    /// The caller's value; the journal does not interpret it.
    pub kind: u8,
    /// The caller's bytes, unchanged.
    pub payload: Bytes,
    /// The record was released, in this run or the previous one, but its segment still exists.
    pub released: bool,
}

/// Proof that a record is durable. Only the journal makes one, once per record.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "an acknowledgement is made from a receipt"]
pub struct Receipt {
    pub(crate) lsn: u64,
    pub(crate) segment: u64,
    pub(crate) received_us: i64,
}

impl Receipt {
    /// Log sequence number of the record.
    pub fn lsn(&self) -> u64 {
        self.lsn
    }

    /// Number of the segment that holds the record.
    pub fn segment(&self) -> u64 {
        self.segment
    }

    /// When the record was received, Unix microseconds.
    pub fn received_us(&self) -> i64 {
        self.received_us
    }
}

/// Gets the records of each commit. `()` ignores them, for callers that read everything back.
pub trait CommitSink: Send + 'static {
    /// Called on the writer thread, in lsn order, after the sync and before the receipts are sent.
    /// A [`Reader`](crate::Reader) returns these records only once this has returned: a record from
    /// a reader has been here, and a record that has been here is in reach of every reader.
    ///
    /// All appends wait for this call, so it must be quick. It must not call the journal or a
    /// reader: they wait for it too.
    fn committed(&mut self, records: Vec<Record>);
}

impl CommitSink for () {
    fn committed(&mut self, _: Vec<Record>) {}
}
