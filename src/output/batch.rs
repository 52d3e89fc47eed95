//! Batch of rendered documents: one text with the metadata of each document, delivered as a unit.
//!
//! Owns the documents until all are confirmed, their share of the memory budget, and the claims on
//! their journal records, which are released together. One document is `sealed`, its metadata
//! `meta`, its confirmations `delivery_state`, the memory `buffer`. Does not know what documents
//! contain.

mod buffer;
mod delivery_state;
mod meta;
mod sealed;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use smallvec::SmallVec;

pub use self::buffer::BatchBuffer;
use self::delivery_state::{ConfirmedCounts, DeliveryStates};
pub use self::meta::{DocumentMeta, DocumentSpan};
pub use self::sealed::SealedDocument;
use super::{DestinationId, LineCounters, OutputId};
use crate::claim::RecordClaim;

/// Documents that are rendered together. Unless one of them needs treatment of its own, they are
/// sent and confirmed as a unit. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Batch(Arc<BatchInner>);

/// The shared content of a batch and its documents.
#[derive(Debug)]
struct BatchInner {
    buffer: Arc<BatchBuffer>,
    framed: bool,
    /// Records in all documents.
    lines: u64,
    /// Earliest and latest first event time, Unix ns.
    between: (i64, i64),
    /// Those of the documents, each once.
    destinations: SmallVec<[DestinationId; 4]>,
    /// Not all documents go to all outputs.
    is_partial: bool,
    states: DeliveryStates,
    claims: Mutex<Vec<RecordClaim>>,
    /// Documents that not all outputs have confirmed.
    unconfirmed: AtomicUsize,
    account: Arc<LineCounters>,
    _charge: MemoryCharge,
}

/// Bytes that count towards a sum until this is dropped.
#[derive(Debug)]
pub struct MemoryCharge {
    bytes: usize,
    sum: Arc<AtomicUsize>,
}

impl Batch {
    /// `framed`: each document in `buffer` has a frame, see [`super::Framing`]. `claims`: on the
    /// journal records of the documents. `outputs`: the number of outputs that have to confirm each
    /// document, 1 to 8.
    pub fn new(
        buffer: Arc<BatchBuffer>,
        framed: bool,
        claims: Vec<RecordClaim>,
        charge: MemoryCharge,
        account: &Arc<LineCounters>,
        outputs: u8,
    ) -> Self {
        let (mut lines, mut between) = (0, (i64::MAX, i64::MIN));
        let mut destinations = SmallVec::new();
        let (all, mut common) = (u8::MAX >> (8 - outputs.clamp(1, 8)), u8::MAX);
        let mut last = None;
        for row in &buffer.rows {
            lines += u64::from(row.lines);
            between = (between.0.min(row.first_ns), between.1.max(row.first_ns));
            common &= row.outputs;
            if last != Some(row.destination) {
                last = Some(row.destination);
                if !destinations.contains(&row.destination) {
                    destinations.push(row.destination);
                }
            }
        }
        let is_partial = common & all != all;
        let states = if is_partial {
            DeliveryStates::of_each(outputs, &buffer.rows)
        } else {
            DeliveryStates::new(outputs)
        };
        Self(Arc::new(BatchInner {
            framed,
            lines,
            between,
            unconfirmed: AtomicUsize::new(buffer.rows.len()),
            buffer,
            destinations,
            is_partial,
            states,
            claims: Mutex::new(claims),
            account: Arc::clone(account),
            _charge: charge,
        }))
    }

    /// The documents, in order.
    pub fn documents(&self) -> impl Iterator<Item = SealedDocument> + use<> {
        let batch = Arc::clone(&self.0);
        (0..batch.buffer.rows.len() as u32).map(move |at| SealedDocument::new(Arc::clone(&batch), at))
    }

    /// The documents for `output`, in order.
    pub fn documents_for(&self, output: OutputId) -> impl Iterator<Item = SealedDocument> + use<> {
        let batch = Arc::clone(&self.0);
        let bit = 1 << (output.0 & 7);
        self.documents()
            .zip(0..)
            .filter(move |(_, at): &(SealedDocument, usize)| batch.buffer.rows[*at].outputs & bit != 0)
            .map(|(document, _)| document)
    }

    /// Number and records of the documents for `output`.
    pub fn counts_for(&self, output: OutputId) -> (u64, u64) {
        if !self.is_partial() {
            return (self.len() as u64, self.lines());
        }
        let documents = self.documents_for(output);
        documents.fold((0, 0), |(count, lines), document| {
            (count + 1, lines + u64::from(document.lines()))
        })
    }

    /// Whether some of the documents are not for all outputs.
    pub fn is_partial(&self) -> bool {
        self.0.is_partial
    }

    /// The destinations of the documents, each once.
    pub fn destinations(&self) -> &[DestinationId] {
        &self.0.destinations
    }

    /// Number of documents.
    pub fn len(&self) -> usize {
        self.0.buffer.rows.len()
    }

    /// Bytes of all documents with their frames.
    pub fn bytes(&self) -> usize {
        self.0.buffer.bytes.len()
    }

    /// Whether there are no documents.
    pub fn is_empty(&self) -> bool {
        self.0.buffer.rows.is_empty()
    }

    /// Records in all documents.
    pub fn lines(&self) -> u64 {
        self.0.lines
    }

    /// Earliest and latest first event time of the documents, Unix ns.
    pub fn first_between(&self) -> (i64, i64) {
        self.0.between
    }

    /// All documents with their frames, concatenated; `None` if they have no frames.
    pub fn framed(&self) -> Option<&Bytes> {
        self.0.framed.then_some(&self.0.buffer.bytes)
    }

    /// Records that `output` has all documents durably. Idempotent.
    pub fn confirm(&self, output: OutputId) {
        let BatchInner {
            states,
            buffer,
            lines,
            ..
        } = &*self.0;
        self.0.release(&states.confirm_all(&buffer.rows, *lines, output));
    }
}

impl BatchInner {
    /// Counts documents that all outputs have confirmed; releases the claims with the last one.
    fn release(&self, counts: &ConfirmedCounts) {
        let account = &self.account;
        for (counter, lines) in [
            (&account.dead, counts.dead),
            (&account.deferred, counts.deferred),
            (&account.delivered, counts.delivered),
            (&account.duplicate, counts.repeated),
            (&account.late, counts.late),
        ] {
            if lines > 0 {
                counter.fetch_add(lines, Ordering::Relaxed);
            }
        }
        if counts.documents == 0 {
            return;
        }
        account.in_flight.fetch_sub(counts.lines, Ordering::Relaxed);
        if self.unconfirmed.fetch_sub(counts.documents, Ordering::AcqRel) == counts.documents {
            let mut claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *claims)
                .into_iter()
                .for_each(RecordClaim::confirm);
        }
    }
}

impl MemoryCharge {
    /// Adds `bytes` to `sum` until the charge is dropped.
    pub fn new(bytes: usize, sum: &Arc<AtomicUsize>) -> Self {
        sum.fetch_add(bytes, Ordering::Relaxed);
        Self {
            bytes,
            sum: Arc::clone(sum),
        }
    }
}

impl Drop for MemoryCharge {
    fn drop(&mut self) {
        self.sum.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
impl Batch {
    /// A batch of documents `id0`, `id1`, …, of one line each.
    pub(crate) fn of_documents(documents: &[&str]) -> Self {
        let (mut text, mut ids, mut rows) = (Vec::new(), String::new(), Vec::new());
        for (number, document) in documents.iter().enumerate() {
            let (start, id) = (text.len(), ids.len());
            text.extend_from_slice(document.as_bytes());
            ids += &format!("id{number}");
            let span = DocumentSpan::new(start, start, text.len());
            rows.push(DocumentMeta::new(id..ids.len(), true, 0, 1, span));
        }
        let buffer = BatchBuffer::new(text.into(), ids, rows);
        let charge = MemoryCharge::new(1, &Arc::default());
        let account = Arc::<LineCounters>::default();
        Self::new(buffer, false, Vec::new(), charge, &account, 1)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;
    use crate::claim::RecordClaim;

    struct Fixture {
        batch: Batch,
        released: Arc<Mutex<Vec<u64>>>,
        sum: Arc<AtomicUsize>,
        account: Arc<LineCounters>,
    }

    /// Two documents, made of two journal records.
    fn fixture(outputs: u8) -> Fixture {
        let released = Arc::<Mutex<Vec<u64>>>::default();
        let claim = |lsn| {
            let released = Arc::clone(&released);
            RecordClaim::new(lsn, 1, Arc::new(move |lsn| released.lock().unwrap().push(lsn)))
        };
        let (sum, account) = (Arc::default(), Arc::<LineCounters>::default());
        let rows = vec![
            DocumentMeta::new(0..2, true, 5, 3, DocumentSpan::new(0, 2, 6)),
            DocumentMeta::new(2..3, false, 6, 1, DocumentSpan::new(6, 8, 11)),
        ];
        account.in_flight.store(4, Ordering::Relaxed);
        let text = Bytes::from_static(b"a\n{1}\nb\n{}\n");
        let charge = MemoryCharge::new(100, &sum);
        let claims = vec![claim(7), claim(9)];
        let buffer = BatchBuffer::new(text, "abc".into(), rows);
        let batch = Batch::new(buffer, true, claims, charge, &account, outputs);
        Fixture {
            batch,
            released,
            sum,
            account,
        }
    }

    #[test]
    fn claims_are_given_back_when_all_outputs_have_confirmed_all_documents() {
        let Fixture {
            batch,
            released,
            sum,
            account,
        } = fixture(2);
        let documents: Vec<SealedDocument> = batch.documents().collect();
        let [first, second] = &documents[..] else {
            panic!("two")
        };
        assert_eq!(
            (batch.len(), batch.lines(), batch.first_between()),
            (2, 4, (5, 6))
        );
        assert_eq!((first.id(), second.id()), ("ab", "c"));
        assert_ne!(first.key(), second.key());
        assert_eq!((first.json(), second.json()), (&b"{1}"[..], &b"{}"[..]));
        for document in [first, first, second] {
            document.confirm(OutputId(0));
        }
        second.note_merged(0);
        second.confirm(OutputId(1));
        assert!(released.lock().unwrap().is_empty());
        first.confirm_dead(OutputId(1));
        assert_eq!(*released.lock().unwrap(), [7, 9]);
        let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
        assert_eq!((count(&account.dead), count(&account.duplicate)), (3, 1));
        assert_eq!((count(&account.delivered), count(&account.in_flight)), (0, 0));
        assert_eq!(sum.load(Ordering::Relaxed), 100);
        drop((batch, documents));
        assert_eq!(sum.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_batch_is_confirmed_as_one() {
        let Fixture {
            batch,
            released,
            account,
            ..
        } = fixture(2);
        batch.confirm(OutputId(1));
        batch.confirm(OutputId(1));
        batch.documents().next().unwrap().confirm_dead(OutputId(0));
        assert!(released.lock().unwrap().is_empty());
        batch.confirm(OutputId(0));
        assert_eq!(*released.lock().unwrap(), [7, 9]);
        let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
        assert_eq!((count(&account.dead), count(&account.delivered)), (3, 1));
        assert_eq!(count(&account.in_flight), 0);
        batch.confirm(OutputId(0));
        assert_eq!(released.lock().unwrap().len(), 2);
    }

    #[test]
    fn documents_of_several_batches_are_confirmed_together() {
        let (one, other) = (fixture(1), fixture(1));
        let all = |of: &Fixture| of.batch.documents().collect::<Vec<_>>();
        let (a, b) = (all(&one), all(&other));
        b[0].confirm_dead(OutputId(0));
        SealedDocument::confirm_all([&a[0], &b[0], &b[1], &b[1], &a[1]].into_iter(), OutputId(0));
        for Fixture {
            released, account, ..
        } in [&one, &other]
        {
            assert_eq!(*released.lock().unwrap(), [7, 9]);
            assert_eq!(account.in_flight.load(Ordering::Relaxed), 0);
        }
        let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
        assert_eq!((count(&one.account.delivered), count(&one.account.dead)), (4, 0));
        assert_eq!(
            (count(&other.account.delivered), count(&other.account.dead)),
            (1, 3)
        );
    }

    #[test]
    fn what_is_dropped_unconfirmed_is_never_released() {
        let Fixture { batch, released, .. } = fixture(1);
        batch.documents().next().unwrap().confirm(OutputId(0));
        drop(batch);
        assert!(released.lock().unwrap().is_empty());
    }

    #[test]
    fn a_document_that_goes_to_some_outputs_waits_for_those_only() {
        let released = Arc::<Mutex<Vec<u64>>>::default();
        let releasing = Arc::clone(&released);
        let claim = RecordClaim::new(7, 1, Arc::new(move |lsn| releasing.lock().unwrap().push(lsn)));
        let rows = vec![
            DocumentMeta::new(0..1, true, 0, 1, DocumentSpan::new(0, 0, 2)),
            DocumentMeta::new(1..2, true, 0, 1, DocumentSpan::new(2, 2, 4)).to(DestinationId(3), 0b10),
        ];
        let buffer = BatchBuffer::new(Bytes::from_static(b"{}{}"), "ab".into(), rows);
        let charge = MemoryCharge::new(0, &Arc::default());
        let account = Arc::<LineCounters>::default();
        account.in_flight.store(2, Ordering::Relaxed);
        let batch = Batch::new(buffer, false, vec![claim], charge, &account, 2);
        assert!(batch.is_partial());
        assert_eq!(batch.destinations(), [DestinationId::DEFAULT, DestinationId(3)]);
        let ids = |output| -> Vec<String> {
            let documents = batch.documents_for(OutputId(output));
            documents.map(|document| document.id().to_owned()).collect()
        };
        assert_eq!((ids(0), ids(1)), (vec!["a".into()], vec!["a".into(), "b".into()]));
        batch.confirm(OutputId(0));
        assert!(released.lock().unwrap().is_empty());
        for document in batch.documents_for(OutputId(1)) {
            document.confirm(OutputId(1));
        }
        assert_eq!(*released.lock().unwrap(), [7]);
        assert_eq!(account.delivered.load(Ordering::Relaxed), 2);
        assert_eq!(account.in_flight.load(Ordering::Relaxed), 0);
    }
}
