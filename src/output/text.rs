//! The text of a batch: its documents one behind the other in one buffer, and what they have in common.
//!
//! Owns the buffer for as long as one of them is not confirmed, and the bytes that it counts against the budget of
//! documents under way. Knows nothing of what the documents say.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use super::Account;

/// What an output wants to stand before each document in the batch's text, so that it can send the text as it is.
/// A newline follows each document then.
pub trait Framing: Send {
    /// Appends it, for the document of this id whose first event was then (Unix ns).
    fn head(&mut self, out: &mut Vec<u8>, id: &str, first_ns: i64);
}

/// See above.
#[derive(Debug)]
pub struct Text {
    bytes: Bytes,
    framed: bool,
    charged: usize,
    sum: Arc<AtomicUsize>,
    account: Arc<Account>,
}

impl Text {
    /// `charged` bytes count against `sum` for as long as this lives. `framed`: the documents are framed.
    pub fn new(
        bytes: Bytes,
        framed: bool,
        charged: usize,
        sum: &Arc<AtomicUsize>,
        account: &Arc<Account>,
    ) -> Arc<Self> {
        sum.fetch_add(charged, Ordering::Relaxed);
        Arc::new(Self {
            bytes,
            framed,
            charged,
            sum: Arc::clone(sum),
            account: Arc::clone(account),
        })
    }

    /// Where the lines of its documents are counted.
    pub(super) fn account(&self) -> &Account {
        &self.account
    }

    pub(super) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    pub(super) fn is_framed(&self) -> bool {
        self.framed
    }
}

impl Drop for Text {
    fn drop(&mut self) {
        self.sum.fetch_sub(self.charged, Ordering::Relaxed);
    }
}

/// Where a document stands in its batch's text.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    start: usize,
    json: usize,
    end: usize,
}

impl Place {
    /// From `start` on its frame, if the text is framed; from `json` on the document; at `end` the next begins.
    pub fn new(start: usize, json: usize, end: usize) -> Self {
        Self { start, json, end }
    }

    pub(super) fn json(self, framed: bool) -> Range<usize> {
        self.json..self.end - usize::from(framed)
    }

    pub(super) fn frame(self) -> Range<usize> {
        self.start..self.end
    }
}
