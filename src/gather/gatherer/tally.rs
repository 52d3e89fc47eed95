//! Tally of a message: damage, bad entries, records that are too long, and what of them is rejected
//! one by one.

use std::sync::atomic::Ordering;

use forward_protocol::entries::{Damage, Defect};

use super::Gatherer;
use super::origin::MessageOrigin;
use crate::gather::reject_buffer::RejectReason;
use crate::metrics::MadeText;

/// What the walk over a message found.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) records: u64,
    /// Of them, those that are messages with records of their own, which are counted too.
    pub(super) nested: u64,
    pub(super) invalid_times: u64,
    /// Times outside of the time window.
    pub(super) times_outside: u64,
    /// Lines whose text was made of a value of another type, and of all fields.
    pub(super) texts_of_values: u64,
    pub(super) texts_of_fields: u64,
    pub(super) bad: u32,
    /// Defect of the last bad entry.
    pub(super) defect: Option<Defect>,
    /// Bad entries that are not rejected one by one.
    pub(super) bad_in_message: u32,
    /// Records that are longer than a document may be.
    pub(super) too_long: u32,
    /// Records that a route dropped.
    pub(super) dropped: u64,
    /// Records that went to a fallback for lack of destinations.
    pub(super) fallbacks: u64,
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

impl Gatherer {
    /// Counts the tally of a message, and rejects the whole message if a part that cannot be kept
    /// has no bytes of its own.
    pub(super) fn account_for(
        &mut self,
        tally: &Tally,
        damage: Option<Damage>,
        message: &[u8],
        origin: &MessageOrigin<'_>,
    ) {
        let mut reject_message = |reason, records| {
            let tag = Some(origin.tag.as_bytes());
            self.rejects
                .reject_records(reason, message, tag, origin.received, records);
        };
        if let Some(damage) = damage {
            self.metrics.input_records.inc();
            reject_message(RejectReason::Damage(damage), 1);
        }
        if let Some(defect) = tally.defect.filter(|_| tally.bad_in_message > 0) {
            reject_message(RejectReason::Entries(defect), tally.bad_in_message);
        }
        if let Some(limit) = tally.record_limit {
            self.metrics.input_records.inc();
            reject_message(RejectReason::TooManyRecords { limit }, 1);
        }
        if tally.too_long > 0 {
            let limit = self.settings.max_record_bytes;
            reject_message(RejectReason::TooLong { limit }, tally.too_long);
        }
        self.metrics.input_records.inc_by(tally.records - tally.nested);
        for (form, count) in [
            (MadeText::Value, tally.texts_of_values),
            (MadeText::Fields, tally.texts_of_fields),
        ] {
            if count > 0 {
                self.metrics.input_text_made[form].inc_by(count);
            }
        }
        if tally.dropped > 0 {
            self.account.dropped.fetch_add(tally.dropped, Ordering::Relaxed);
        }
        if tally.fallbacks > 0 {
            self.metrics.destinations_fallback_records.inc_by(tally.fallbacks);
        }
        if tally.times_outside > 0 {
            self.metrics.input_time_outside.inc_by(tally.times_outside);
        }
        if tally.invalid_times > 0 {
            self.metrics.input_time_invalid.inc_by(tally.invalid_times);
        }
    }
}
