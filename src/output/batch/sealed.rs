//! One document on its way to the outputs: a place in its batch, which it keeps.
//!
//! Owns what outputs may ask of a document and say of it, for when not all of a batch fares alike.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

#[cfg(test)]
use super::Batch;
use super::Text;
use super::delivery_state::{ConfirmedCounts, DeliveryState};
use super::meta::{DocumentMeta, DocumentSpan};
use crate::output::OutputId;

/// A document on its way to the outputs.
#[derive(Clone, Debug)]
pub struct SealedDocument {
    text: Arc<Text>,
    at: u32,
}

impl SealedDocument {
    /// The document of this number in the text.
    pub(super) fn new(text: Arc<Text>, at: u32) -> Self {
        Self { text, at }
    }

    fn row(&self) -> &DocumentMeta {
        &self.text.buffer.rows[self.at as usize]
    }

    fn state(&self) -> &DeliveryState {
        self.text.states.of(&self.text.buffer.rows, self.at)
    }

    /// The trace id, or for a record without one its part's id and its number; at most [`crate::output::MAX_ID_BYTES`] long.
    pub fn id(&self) -> &str {
        let Range { start, end } = self.row().id;
        self.text
            .buffer
            .ids
            .get(start as usize..end as usize)
            .unwrap_or_default()
    }

    /// Whether it is a trace, which may have to be joined with what is stored. Otherwise "exists already" is success.
    pub fn is_trace(&self) -> bool {
        self.row().is_trace
    }

    /// First event time, Unix ns: decides the index.
    pub fn first_ns(&self) -> i64 {
        self.row().first_ns
    }

    /// Records in it.
    pub fn lines(&self) -> u32 {
        self.row().lines
    }

    /// The batch that it is in.
    #[cfg(test)]
    pub(in crate::output) fn batch(&self) -> Batch {
        Batch(Arc::clone(&self.text))
    }

    /// Tells it from all others that are not confirmed.
    pub fn key(&self) -> (usize, u32) {
        (Arc::as_ptr(&self.text).addr(), self.at)
    }

    /// The complete document: one JSON object without a newline.
    pub fn json(&self) -> &[u8] {
        let place = self.row().place.json(self.text.framed);
        self.text.buffer.bytes.get(place).unwrap_or_default()
    }

    /// [`Self::json`], without a copy.
    pub fn shared_json(&self) -> Bytes {
        self.text
            .buffer
            .bytes
            .slice(self.row().place.json(self.text.framed))
    }

    /// The whole text of its batch, and where the document stands in it together with its frame; `None` when it has
    /// none.
    pub fn framed(&self) -> Option<(&Bytes, Range<usize>)> {
        let DocumentSpan { start, end, .. } = self.row().place;
        self.text.framed.then(|| (&self.text.buffer.bytes, start..end))
    }

    /// This output has it, durably. Confirming twice is harmless.
    pub fn confirm(&self, output: OutputId) {
        Self::confirm_all(std::iter::once(self), output);
    }

    /// The same for many: what is counted is counted together, since each counter costs as much as a look at memory that
    /// another processor has written.
    pub fn confirm_all<'a>(documents: impl Iterator<Item = &'a Self>, output: OutputId) {
        let mut settled: Option<(&Arc<Text>, ConfirmedCounts)> = None;
        for document in documents {
            if !document.state().confirm(output) {
                continue;
            }
            match &mut settled {
                Some((text, settled)) if Arc::ptr_eq(text, &document.text) => {
                    settled.add(document.row(), document.state());
                }
                other => {
                    let mut first = ConfirmedCounts::default();
                    first.add(document.row(), document.state());
                    if let Some((text, settled)) = other.replace((&document.text, first)) {
                        text.settle(&settled);
                    }
                }
            }
        }
        if let Some((text, settled)) = settled {
            text.settle(&settled);
        }
    }

    /// A write of it was sent, and its answer did not come: it may be stored. For the counters.
    pub fn note_uncertain(&self) {
        self.state().note_uncertain();
    }

    /// All of it was stored before: its lines are repeated, unless a write of ours is the likely reason. For the
    /// counters; to be said before it is confirmed.
    pub fn note_unchanged(&self) {
        self.state().note_unchanged(self.lines());
    }

    /// It was joined with a document that was there already, to which so many of its lines are new. For the counters
    /// only; to be said before it is confirmed.
    pub fn note_merged(&self, new_lines: u32) {
        self.state().note_merged(self.lines().saturating_sub(new_lines));
    }

    /// This output can never store it; it is in the dead letter, durably.
    pub fn confirm_dead(&self, output: OutputId) {
        self.state().note_dead();
        self.confirm(output);
    }
}
