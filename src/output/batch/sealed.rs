//! A sealed document: one document of a batch, with its confirmations.
//!
//! Keeps its batch alive. Used when the documents of a batch have different outcomes.

use std::ops::Range;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;

#[cfg(test)]
use super::Batch;
use super::BatchInner;
use super::delivery_state::{ConfirmedCounts, DeliveryState};
use super::meta::{DocumentMeta, DocumentSpan};
use crate::claim::RecordClaim;
use crate::output::{DestinationId, LineCounters, OutputId};

/// A document of a batch. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SealedDocument {
    batch: Arc<BatchInner>,
    at: u32,
}

impl SealedDocument {
    /// Document number `at` of the batch.
    pub(super) fn new(batch: Arc<BatchInner>, at: u32) -> Self {
        Self { batch, at }
    }

    fn meta(&self) -> &DocumentMeta {
        &self.batch.buffer.rows[self.at as usize]
    }

    fn state(&self) -> &DeliveryState {
        self.batch.states.of(&self.batch.buffer.rows, self.at)
    }

    /// The trace id, or the id of its part and its number for a record without a trace; at most
    /// [`crate::output::MAX_ID_BYTES`] bytes.
    pub fn id(&self) -> &str {
        let Range { start, end } = self.meta().id;
        self.batch
            .buffer
            .ids
            .get(start as usize..end as usize)
            .unwrap_or_default()
    }

    /// Whether it is the document of a trace, which is merged with an existing one. For another
    /// document "exists already" is success.
    pub fn is_trace(&self) -> bool {
        self.meta().is_trace
    }

    /// First event time, Unix ns; decides the index.
    pub fn first_ns(&self) -> i64 {
        self.meta().first_ns
    }

    /// Where it goes.
    pub fn destination(&self) -> DestinationId {
        self.meta().destination
    }

    /// Records in it.
    pub fn lines(&self) -> u32 {
        self.meta().lines
    }

    /// Its batch.
    #[cfg(test)]
    pub(crate) fn batch(&self) -> Batch {
        Batch(Arc::clone(&self.batch))
    }

    /// Unique among the documents in memory.
    pub fn key(&self) -> (usize, u32) {
        (Arc::as_ptr(&self.batch).addr(), self.at)
    }

    /// The complete document: one JSON object without a newline.
    pub fn json(&self) -> &[u8] {
        let range = self.meta().span.json(self.batch.framed);
        self.batch.buffer.bytes.get(range).unwrap_or_default()
    }

    /// [`Self::json`], without a copy.
    pub fn shared_json(&self) -> Bytes {
        self.batch
            .buffer
            .bytes
            .slice(self.meta().span.json(self.batch.framed))
    }

    /// The text of its batch, and the range of the document with its frame; `None` if it has no
    /// frame.
    pub fn framed(&self) -> Option<(&Bytes, Range<usize>)> {
        let DocumentSpan { start, end, .. } = self.meta().span;
        self.batch.framed.then(|| (&self.batch.buffer.bytes, start..end))
    }

    /// Records that `output` has the document durably. Idempotent.
    pub fn confirm(&self, output: OutputId) {
        Self::confirm_all(std::iter::once(self), output);
    }

    /// Confirms many documents. Counts them together, because each counter is contended memory.
    pub fn confirm_all<'a>(documents: impl Iterator<Item = &'a Self>, output: OutputId) {
        let mut counts: Option<(&Arc<BatchInner>, ConfirmedCounts)> = None;
        for document in documents {
            if !document.state().confirm(output) {
                continue;
            }
            match &mut counts {
                Some((batch, counts)) if Arc::ptr_eq(batch, &document.batch) => {
                    counts.add(document.meta(), document.state());
                }
                other => {
                    let mut first = ConfirmedCounts::default();
                    first.add(document.meta(), document.state());
                    if let Some((batch, counts)) = other.replace((&document.batch, first)) {
                        batch.release(&counts);
                    }
                }
            }
        }
        if let Some((batch, counts)) = counts {
            batch.release(&counts);
        }
    }

    /// Further claims on the journal records of these documents.
    pub(crate) fn claims<'a>(documents: impl Iterator<Item = &'a Self>) -> Vec<RecordClaim> {
        let mut claims = Vec::new();
        let mut last = None;
        for document in documents {
            let batch = &document.batch;
            if last.is_some_and(|last| Arc::ptr_eq(last, batch)) {
                continue;
            }
            last = Some(batch);
            let held = batch.claims.lock().unwrap_or_else(PoisonError::into_inner);
            claims.extend(held.iter().cloned());
        }
        claims
    }

    /// A write of it may have been applied, and its response was lost. For the counters.
    pub fn note_uncertain(&self) {
        self.state().note_uncertain();
    }

    /// All of it was stored before: its lines count as duplicates, unless an uncertain write is the
    /// likely reason. For the counters; call before the confirmation.
    pub fn note_unchanged(&self) {
        self.state().note_unchanged(self.lines());
    }

    /// It was merged with an existing document, which did not contain `new_lines` of its lines. For
    /// the counters; call before the confirmation.
    pub fn note_merged(&self, new_lines: u32) {
        self.state().note_merged(self.lines().saturating_sub(new_lines));
    }

    /// Records that the document waits for `output` on disk, durably.
    pub fn confirm_deferred(&self, output: OutputId) {
        self.state().note_deferred();
        self.confirm(output);
    }

    /// The line counters of its batch.
    pub fn account(&self) -> &Arc<LineCounters> {
        &self.batch.account
    }

    /// Records that `output` can never store the document, and that it is durable in the dead
    /// letter.
    pub fn confirm_dead(&self, output: OutputId) {
        self.state().note_dead();
        self.confirm(output);
    }
}
