//! The text of a batch: its documents one behind the other in one buffer, and what they have in common.
//!
//! Owns the buffer for as long as one of them is not confirmed, the bytes that it counts against the budget of documents
//! under way, and the claims on the journal records that they were made of, which are given back together: one for each
//! record instead of one for each part of each document. Knows nothing of what the documents say.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::Account;
use crate::hold::Hold;

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
    _charge: Charge,
    claims: Claims,
    account: Arc<Account>,
}

/// Bytes that count against a sum for as long as this lives.
#[derive(Debug)]
pub struct Charge {
    bytes: usize,
    sum: Arc<AtomicUsize>,
}

impl Charge {
    /// Adds `bytes` to `sum`.
    pub fn new(bytes: usize, sum: &Arc<AtomicUsize>) -> Self {
        sum.fetch_add(bytes, Ordering::Relaxed);
        Self {
            bytes,
            sum: Arc::clone(sum),
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.sum.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Claims on the journal records that the documents of a batch were made of.
#[derive(Debug)]
pub struct Claims {
    holds: Mutex<Vec<Hold>>,
    /// Documents that are not confirmed.
    left: AtomicUsize,
}

impl Claims {
    /// For so many documents, each of which has to be confirmed.
    pub fn new(holds: Vec<Hold>, documents: usize) -> Self {
        Self {
            holds: Mutex::new(holds),
            left: AtomicUsize::new(documents),
        }
    }

    /// One of the documents is confirmed; with the last of them the claims are given back.
    fn confirm_one(&self) {
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            let holds = std::mem::take(&mut *self.holds.lock().unwrap_or_else(PoisonError::into_inner));
            holds.into_iter().for_each(Hold::confirm);
        }
    }
}

impl Text {
    /// `framed`: the documents are framed.
    pub fn new(
        bytes: Bytes,
        framed: bool,
        charge: Charge,
        claims: Claims,
        account: &Arc<Account>,
    ) -> Arc<Self> {
        Arc::new(Self {
            bytes,
            framed,
            _charge: charge,
            claims,
            account: Arc::clone(account),
        })
    }

    /// One of its documents is confirmed by all outputs; to be said once for each.
    pub(super) fn confirm_one(&self) {
        self.claims.confirm_one();
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
