//! Reserve below the limit of the journal, which long appends leave to short ones: clients that send
//! little go on beside one that has filled the journal.

use std::collections::VecDeque;

use crate::queue::PendingAppend;

/// Bytes that appends may still write.
pub(crate) struct BelowLimit {
    /// For short ones.
    pub(crate) short_bytes: u64,
    /// What of it long ones leave to them.
    pub(crate) reserve_bytes: u64,
}

impl BelowLimit {
    pub(crate) fn of(&self, pending: &PendingAppend) -> u64 {
        match pending.is_short() {
            true => self.short_bytes,
            false => self.short_bytes.saturating_sub(self.reserve_bytes),
        }
    }
}

/// Keeps the order among short appends, and that among long ones.
#[cold]
pub(crate) fn move_short_to_front(backlog: &mut VecDeque<PendingAppend>) {
    let (mut short, long): (VecDeque<_>, VecDeque<_>) = backlog.drain(..).partition(PendingAppend::is_short);
    short.extend(long);
    *backlog = short;
}
