//! Tally of a message: damage, bad entries, records that are too long, and what of them is rejected
//! one by one.

use forward_protocol::entries::Defect;

/// What the walk over a message found.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) records: u64,
    /// Of them, those that are messages with records of their own, which are counted too.
    pub(super) nested: u64,
    pub(super) invalid_times: u64,
    pub(super) bad: u32,
    /// Defect of the last bad entry.
    pub(super) defect: Option<Defect>,
    /// Bad entries that are not rejected one by one.
    pub(super) bad_in_message: u32,
    /// Records that are longer than a document may be.
    pub(super) too_long: u32,
    /// Bytes that may be rejected one by one; at first those of the message. A small compressed
    /// payload can hold gigabytes.
    pub(super) rejectable_bytes: usize,
    /// The walk ended at this number of records, and more followed.
    pub(super) record_limit: Option<u64>,
}

impl Tally {
    /// Whether an entry of `bytes` bytes is rejected by itself.
    pub(super) fn admit(&mut self, bytes: usize) -> bool {
        let left = self.rejectable_bytes.checked_sub(bytes);
        self.rejectable_bytes = left.unwrap_or(self.rejectable_bytes);
        left.is_some()
    }
}
