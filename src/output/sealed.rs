//! Sealed documents on their way to the outputs, and the batch that they are rendered in: one text, one list of what is to
//! be known of each, one allocation for all of it.
//!
//! Owns them for as long as one of them is not confirmed; the bytes that they count against the budget of documents under
//! way; and the claims on the journal records that they were made of, which are given back together: one for each record
//! instead of one for each part of each document. Knows nothing of what the documents say.

use std::ops::Range;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::{Account, OutputId};
use crate::hold::Hold;

/// The documents that go to an output at a time. While nothing goes wrong they are sent and confirmed as one.
#[derive(Clone, Debug)]
pub struct Batch(Arc<Text>);

/// What is in it.
#[derive(Debug)]
struct Text {
    bytes: Bytes,
    framed: bool,
    /// Records in all documents.
    lines: u64,
    /// The earliest and the latest first event time, Unix ns.
    between: (i64, i64),
    /// The ids of all documents, one behind the other.
    ids: String,
    rows: Vec<Row>,
    claims: Mutex<Vec<Hold>>,
    /// Documents that are not confirmed.
    left: AtomicUsize,
    account: Arc<Account>,
    _charge: Charge,
}

/// What is known of a document besides its text, and what has become of it.
#[derive(Debug)]
pub struct Row {
    id: Range<u32>,
    is_trace: bool,
    first_ns: i64,
    lines: u32,
    place: Place,
    /// One bit per output that has not confirmed it yet.
    waiting: AtomicU8,
    /// Lines that an output had already, and whether one gave the document up.
    repeated: AtomicU32,
    dead: AtomicU8,
    /// Whether an unanswered write may have stored it.
    unsettled: AtomicU8,
    /// Whether it was joined with a document that was there already.
    joined: AtomicU8,
}

/// Where a document stands in its batch's text.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    start: usize,
    json: usize,
    end: usize,
}

/// Bytes that count against a sum for as long as this lives.
#[derive(Debug)]
pub struct Charge {
    bytes: usize,
    sum: Arc<AtomicUsize>,
}

/// A document on its way to the outputs.
#[derive(Clone, Debug)]
pub struct Sealed {
    text: Arc<Text>,
    at: u32,
}

impl Batch {
    /// `framed`: what an output wants stands before each document in `bytes`, see [`super::Framing`]. `ids`: their ids.
    /// `claims`: on the journal records that they were made of.
    pub fn new(
        bytes: Bytes,
        framed: bool,
        ids: String,
        rows: Vec<Row>,
        claims: Vec<Hold>,
        charge: Charge,
        account: &Arc<Account>,
    ) -> Self {
        let (mut lines, mut between) = (0, (i64::MAX, i64::MIN));
        for row in &rows {
            lines += u64::from(row.lines);
            between = (between.0.min(row.first_ns), between.1.max(row.first_ns));
        }
        Self(Arc::new(Text {
            bytes,
            framed,
            lines,
            between,
            ids,
            left: AtomicUsize::new(rows.len()),
            rows,
            claims: Mutex::new(claims),
            account: Arc::clone(account),
            _charge: charge,
        }))
    }

    /// Each of its documents, in order.
    pub fn documents(&self) -> impl Iterator<Item = Sealed> + use<> {
        let text = Arc::clone(&self.0);
        (0..text.rows.len() as u32).map(move |at| Sealed {
            text: Arc::clone(&text),
            at,
        })
    }

    /// Documents in it.
    pub fn len(&self) -> usize {
        self.0.rows.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.rows.is_empty()
    }

    /// Records in all documents.
    pub fn lines(&self) -> u64 {
        self.0.lines
    }

    /// The earliest and the latest first event time of a document, Unix ns.
    pub fn first_between(&self) -> (i64, i64) {
        self.0.between
    }

    /// All documents with their frames, one behind the other; `None` when they have none.
    pub fn framed(&self) -> Option<&Bytes> {
        self.0.framed.then_some(&self.0.bytes)
    }

    /// This output has all of it, durably. Confirming twice is harmless.
    pub fn confirm(&self, output: OutputId) {
        let mut settled = Settled::default();
        for row in &self.0.rows {
            if row.confirm(output) {
                settled.add(row);
            }
        }
        self.0.settle(&settled);
    }
}

impl Text {
    /// Counts documents that all outputs have confirmed; gives the claims back with the last of them.
    fn settle(&self, settled: &Settled) {
        let account = &self.account;
        for (counter, lines) in [
            (&account.dead, settled.dead),
            (&account.delivered, settled.delivered),
            (&account.duplicate, settled.repeated),
            (&account.late, settled.late),
        ] {
            if lines > 0 {
                counter.fetch_add(lines, Ordering::Relaxed);
            }
        }
        if settled.documents == 0 {
            return;
        }
        account.in_flight.fetch_sub(settled.lines, Ordering::Relaxed);
        if self.left.fetch_sub(settled.documents, Ordering::AcqRel) == settled.documents {
            let mut claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *claims).into_iter().for_each(Hold::confirm);
        }
    }
}

/// Documents of one batch that all outputs have confirmed, and their lines by what became of them.
#[derive(Debug, Default)]
struct Settled {
    documents: usize,
    lines: u64,
    delivered: u64,
    repeated: u64,
    late: u64,
    dead: u64,
}

impl Settled {
    fn add(&mut self, row: &Row) {
        let lines = u64::from(row.lines);
        self.documents += 1;
        self.lines += lines;
        if row.dead.load(Ordering::Acquire) == 1 {
            self.dead += lines;
            return;
        }
        let repeated = u64::from(row.repeated.load(Ordering::Acquire));
        self.delivered += lines - repeated;
        self.repeated += repeated;
        if row.joined.load(Ordering::Acquire) == 1 {
            self.late += lines - repeated;
        }
    }
}

impl Row {
    /// Of a document that `outputs` outputs (1 to 8) have to confirm. `id`: where its id stands among those of the batch;
    /// it has at most [`super::MAX_ID_BYTES`]. `is_trace`: it may have to be joined with what is stored; otherwise "exists
    /// already" is success. `first_ns`: first event time, Unix ns, which decides the index. `lines`: records in it.
    pub fn new(
        id: Range<usize>,
        is_trace: bool,
        first_ns: i64,
        lines: u32,
        place: Place,
        outputs: u8,
    ) -> Self {
        Self {
            id: id.start as u32..id.end as u32,
            is_trace,
            first_ns,
            lines,
            place,
            waiting: AtomicU8::new(u8::MAX >> (8 - outputs.clamp(1, 8))),
            repeated: AtomicU32::new(0),
            dead: AtomicU8::new(0),
            unsettled: AtomicU8::new(0),
            joined: AtomicU8::new(0),
        }
    }

    /// This output has it. Whether it was the last one that had to confirm it.
    fn confirm(&self, output: OutputId) -> bool {
        let bit = 1u8 << (output.0 & 7);
        // The bit is taken before the question, so that of several outputs exactly one is the last.
        self.waiting.fetch_and(!bit, Ordering::AcqRel) == bit
    }
}

impl Place {
    /// From `start` on its frame, if the text is framed; from `json` on the document; at `end` the next begins.
    pub fn new(start: usize, json: usize, end: usize) -> Self {
        Self { start, json, end }
    }

    fn json(self, framed: bool) -> Range<usize> {
        self.json..self.end - usize::from(framed)
    }
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

impl Sealed {
    fn row(&self) -> &Row {
        &self.text.rows[self.at as usize]
    }

    /// The trace id, or for a record without one its part's id and its number; at most [`super::MAX_ID_BYTES`] long.
    pub fn id(&self) -> &str {
        let Range { start, end } = self.row().id;
        self.text
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
    pub(super) fn batch(&self) -> Batch {
        Batch(Arc::clone(&self.text))
    }

    /// Tells it from all others that are not confirmed.
    pub fn key(&self) -> (usize, u32) {
        (Arc::as_ptr(&self.text).addr(), self.at)
    }

    /// The complete document: one JSON object without a newline.
    pub fn json(&self) -> &[u8] {
        let place = self.row().place.json(self.text.framed);
        self.text.bytes.get(place).unwrap_or_default()
    }

    /// [`Self::json`], without a copy.
    pub fn shared_json(&self) -> Bytes {
        self.text.bytes.slice(self.row().place.json(self.text.framed))
    }

    /// The whole text of its batch, and where the document stands in it together with its frame; `None` when it has
    /// none.
    pub fn framed(&self) -> Option<(&Bytes, Range<usize>)> {
        let Place { start, end, .. } = self.row().place;
        self.text.framed.then(|| (&self.text.bytes, start..end))
    }

    /// This output has it, durably. Confirming twice is harmless.
    pub fn confirm(&self, output: OutputId) {
        Self::confirm_all(std::iter::once(self), output);
    }

    /// The same for many: what is counted is counted together, since each counter costs as much as a look at memory that
    /// another processor has written.
    pub fn confirm_all<'a>(documents: impl Iterator<Item = &'a Self>, output: OutputId) {
        let mut settled: Option<(&Arc<Text>, Settled)> = None;
        for document in documents {
            if !document.row().confirm(output) {
                continue;
            }
            match &mut settled {
                Some((text, settled)) if Arc::ptr_eq(text, &document.text) => settled.add(document.row()),
                other => {
                    let mut first = Settled::default();
                    first.add(document.row());
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
    pub fn note_unsettled(&self) {
        self.row().unsettled.store(1, Ordering::Release);
    }

    /// All of it was stored before: its lines are repeated, unless a write of ours is the likely reason. For the
    /// counters; to be said before it is confirmed.
    pub fn note_unchanged(&self) {
        let row = self.row();
        if row.unsettled.load(Ordering::Acquire) == 0 {
            row.repeated.store(row.lines, Ordering::Release);
        }
    }

    /// It was joined with a document that was there already, to which so many of its lines are new. For the counters
    /// only; to be said before it is confirmed.
    pub fn note_joined(&self, new_lines: u32) {
        let row = self.row();
        row.joined.store(1, Ordering::Release);
        row.repeated
            .store(row.lines.saturating_sub(new_lines), Ordering::Release);
    }

    /// This output can never store it; it is in the dead letter, durably.
    pub fn confirm_dead(&self, output: OutputId) {
        self.row().dead.store(1, Ordering::Release);
        self.confirm(output);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;
    use crate::hold::Held;

    struct Fixture {
        batch: Batch,
        released: Arc<Mutex<Vec<u64>>>,
        sum: Arc<AtomicUsize>,
        account: Arc<Account>,
    }

    /// Two documents, made of two journal records.
    fn fixture(outputs: u8) -> Fixture {
        let released = Arc::<Mutex<Vec<u64>>>::default();
        let claim = |lsn| {
            let released = Arc::clone(&released);
            Held::begin(lsn, 1, Arc::new(move |lsn| released.lock().unwrap().push(lsn)))
        };
        let (sum, account) = (Arc::default(), Arc::<Account>::default());
        let rows = vec![
            Row::new(0..2, true, 5, 3, Place::new(0, 2, 6), outputs),
            Row::new(2..3, false, 6, 1, Place::new(6, 8, 11), outputs),
        ];
        account.in_flight.store(4, Ordering::Relaxed);
        let text = Bytes::from_static(b"a\n{1}\nb\n{}\n");
        let charge = Charge::new(100, &sum);
        let claims = vec![claim(7), claim(9)];
        let batch = Batch::new(text, true, "abc".into(), rows, claims, charge, &account);
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
        let documents: Vec<Sealed> = batch.documents().collect();
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
        second.note_joined(0);
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
        Sealed::confirm_all([&a[0], &b[0], &b[1], &b[1], &a[1]].into_iter(), OutputId(0));
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
}
