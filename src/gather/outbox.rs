//! The outbox: documents are rendered into one buffer, and the buffer is handed to the outputs when it is full or old.
//!
//! Owns the buffer, the batches, and the budget of bytes under way. Does not decide when a trace is sealed, and does not
//! know what outputs do with a batch.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::brake::{Brake, Free};
use crate::hold::Hold;
use crate::output::{
    Batch, BatchBuffer, DocumentMeta, DocumentSpan, Framing, LineCounters, MemoryCharge, push_document_id,
};
use windrow_trace::{Closed, Extent, Names, PartId, Renderer, Scratch, Shapes, Single};

/// Documents are handed on when they take this many bytes...
const BATCH_BYTES: usize = 1 << 20;
/// ... or when the oldest of them has waited for so long (µs): few large batches cost less than many small ones.
const BATCH_AGE: i64 = 50_000;
/// Memory for the text of a batch that becomes full: the last document goes beyond the end.
const SHEET_BYTES: usize = BATCH_BYTES + BATCH_BYTES / 16;
/// Where a text has so many bytes it is expected to become full.
const MUCH: usize = BATCH_BYTES / 16;
/// Sheets of batches that are kept to be written on again: as many as are under way while an output is quick.
const SHEETS: usize = 4;
/// What a document takes besides its text.
const DOCUMENT_OVERHEAD: usize = 160;

pub(super) struct Outbox {
    outputs: Vec<mpsc::Sender<Batch>>,
    framing: Option<Box<dyn Framing>>,
    account: Arc<LineCounters>,
    /// Bytes of documents that no output has confirmed, and how many they may be.
    under_way: Arc<AtomicUsize>,
    budget: usize,
    renderer: Renderer,
    scratch: Scratch,
    text: Vec<u8>,
    /// What was handed over last; the outputs may not be done with it.
    sheets: Vec<Arc<BatchBuffer>>,
    /// The ids of the documents in it.
    ids: String,
    rows: Vec<DocumentMeta>,
    lines: u64,
    /// Claims on the journal records that they were made of.
    claims: Vec<Hold>,
    /// The number of the batch that is rendered.
    batch: u64,
    since: Option<i64>,
}

impl Outbox {
    pub(super) fn new(
        outputs: Vec<mpsc::Sender<Batch>>,
        framing: Option<Box<dyn Framing>>,
        under_way: Arc<AtomicUsize>,
        budget: usize,
        account: Arc<LineCounters>,
    ) -> Self {
        Self {
            outputs,
            framing,
            account,
            under_way,
            budget,
            renderer: Renderer::default(),
            scratch: Scratch::default(),
            text: Vec::new(),
            sheets: Vec::with_capacity(SHEETS),
            ids: String::new(),
            rows: Vec::new(),
            lines: 0,
            claims: Vec::new(),
            batch: 1,
            since: None,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.text.len() >= BATCH_BYTES
    }

    /// Whether it is time to hand over. The age of what is rendered counts from the first time that this is asked.
    pub(super) fn is_due(&mut self, now: i64) -> bool {
        if self.is_empty() {
            return false;
        }
        let since = *self.since.get_or_insert(now);
        self.is_full() || !(0..BATCH_AGE).contains(&(now - since))
    }

    /// Whether the outputs have enough for now.
    pub(super) fn must_wait(&self) -> bool {
        self.under_way.load(Ordering::Relaxed) > self.budget
    }

    pub(super) fn clear(&mut self) {
        self.ids.clear();
        self.rows.clear();
        self.lines = 0;
        self.claims.clear();
        self.batch += 1;
        self.text.clear();
        self.since = None;
    }

    /// Renders a trace.
    pub(super) fn trace(&mut self, names: &Names, shapes: &Shapes, closed: &mut Closed<'_, Hold>, now: i64) {
        self.make_room();
        let (start, id) = (self.text.len(), self.ids.len());
        push_document_id(&mut self.ids, closed.key());
        let name = self.ids.get(id..).unwrap_or_default();
        let (gathered, twice) = closed.gathered(now, &mut self.scratch);
        let framing = &mut self.framing;
        let head = |out: &mut Vec<u8>, first| head(framing, out, name, first);
        let out = &mut self.text;
        let extent = self.renderer.trace(out, names, shapes, gathered, head);
        self.push(start, id, true, extent);
        closed.leave(self.batch, |claim| self.claims.push(claim));
        if twice > 0 {
            let duplicate = &self.account.duplicate;
            duplicate.fetch_add(u64::from(twice), Ordering::Relaxed);
        }
    }

    /// Renders a record without a trace id, which is the record of this number of its part.
    pub(super) fn single(
        &mut self,
        names: &Names,
        single: &Single<'_>,
        part: PartId,
        number: u32,
        hold: &Hold,
    ) {
        self.make_room();
        let (start, id) = (self.text.len(), self.ids.len());
        part.push_document_id(&mut self.ids, number);
        let name = self.ids.get(id..).unwrap_or_default();
        head(&mut self.framing, &mut self.text, name, single.time);
        let extent = self.renderer.single(&mut self.text, names, single);
        self.push(start, id, false, extent);
        if self.claims.last().is_none_or(|last| !last.is_same(hold)) {
            self.claims.push(hold.clone());
        }
    }

    /// Makes room for a whole batch once it is expected to become full: to grow step by step takes new memory with each step.
    #[inline]
    fn make_room(&mut self) {
        if self.text.capacity() < SHEET_BYTES && (MUCH..BATCH_BYTES).contains(&self.text.len()) {
            self.expect_full();
        }
    }

    #[cold]
    fn expect_full(&mut self) {
        let (full, now) = (SHEET_BYTES, self.text.len());
        let more = |of: usize| of * (full - now) / now;
        self.text.reserve_exact(full - now);
        self.ids.reserve(more(self.ids.len()));
        self.rows.reserve(more(self.rows.len()));
    }

    /// A document is in the text, from `start` on with its frame, and its id among the ids, from `id` on.
    fn push(&mut self, start: usize, id: usize, is_trace: bool, extent: Extent) {
        if self.framing.is_some() {
            self.text.push(b'\n');
        }
        let place = DocumentSpan::new(start, extent.at, self.text.len());
        let id = id..self.ids.len();
        self.lines += u64::from(extent.lines);
        self.rows
            .push(DocumentMeta::new(id, is_trace, extent.first, extent.lines, place));
    }

    /// What is rendered, and memory for what comes.
    fn written(&mut self) -> Arc<BatchBuffer> {
        // A buffer that is full goes as it is; of one that is not a copy goes, so that none is kept for little.
        let is_full = self.is_full();
        // One document can be many times as long.
        let is_usual = self.text.capacity() <= 2 * SHEET_BYTES;
        if !is_full {
            // And none that was kept is needed.
            self.sheets.pop();
        }
        let back = if is_full { self.take_back() } else { None };
        let (text, ids, rows) = back.unwrap_or_else(|| {
            let like_before = |length| length + length / 8;
            let text = if is_full { SHEET_BYTES } else { 0 };
            (
                Vec::with_capacity(text),
                String::with_capacity(like_before(self.ids.len())),
                Vec::with_capacity(like_before(self.rows.len())),
            )
        });
        let written = if is_full {
            Bytes::from(std::mem::replace(&mut self.text, text))
        } else {
            let copy = Bytes::copy_from_slice(&self.text);
            self.text.clear();
            copy
        };
        let ids = std::mem::replace(&mut self.ids, ids);
        let sheet = BatchBuffer::new(written, ids, std::mem::replace(&mut self.rows, rows));
        if is_full && is_usual && self.sheets.len() < SHEETS {
            self.sheets.push(Arc::clone(&sheet));
        }
        sheet
    }

    /// Memory of a batch that was handed over, if the outputs are done with one.
    fn take_back(&mut self) -> Option<(Vec<u8>, String, Vec<DocumentMeta>)> {
        let sheets = self.sheets.iter_mut().enumerate();
        let (at, back) = sheets
            .filter_map(|(at, sheet)| Some((at, BatchBuffer::reclaim(sheet)?)))
            .next()?;
        self.sheets.remove(at);
        Some(back)
    }

    /// Gives memory back that is only kept to be used again, when there is nothing to do.
    pub(super) fn rest(&mut self) {
        self.sheets.clear();
    }

    /// Gives what is rendered to every output; while one has no place for it, nobody is held up by the brake.
    pub(super) fn hand_over(&mut self, brake: &Brake) {
        self.since = None;
        if self.is_empty() {
            return;
        }
        let charged = self.text.len() + self.rows.len() * DOCUMENT_OVERHEAD;
        let lines = std::mem::take(&mut self.lines);
        let batch = Batch::new(
            self.written(),
            self.framing.is_some(),
            std::mem::take(&mut self.claims),
            MemoryCharge::new(charged, &self.under_way),
            &self.account,
            self.outputs.len() as u8,
        );
        self.batch += 1;
        self.account.in_flight.fetch_add(lines, Ordering::Relaxed);
        let Some((last, others)) = self.outputs.split_last() else {
            return;
        };
        for output in others {
            send(output, batch.clone(), brake);
        }
        send(last, batch, brake);
    }
}

fn send(output: &mpsc::Sender<Batch>, batch: Batch, brake: &Brake) {
    // A closed output is one that stops; the journal keeps what it did not confirm.
    if let Err(TrySendError::Full(batch)) = output.try_send(batch) {
        brake.set_free(Free::Outputs, true);
        output.blocking_send(batch).ok();
        brake.set_free(Free::Outputs, false);
    }
}

fn head(framing: &mut Option<Box<dyn Framing>>, out: &mut Vec<u8>, id: &str, first: i64) {
    if let Some(framing) = framing {
        framing.write_prefix(out, id, first);
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::hold::Held;

    /// Renders a batch that is full, and gives where its text stands.
    fn full(outbox: &mut Outbox) -> *const u8 {
        let record = [&b"\x81\xa1a\xda\x10\x00"[..], &[b'x'; 4096]].concat();
        let single = Single {
            shape: None,
            time: 0,
            tag: "app",
            record: &record,
            metadata: b"",
        };
        let hold = Held::begin(1, 1, Arc::new(|_| ()));
        while !outbox.is_full() {
            outbox.single(&Names::default(), &single, PartId([1; 12]), 0, &hold);
        }
        let place = outbox.text.as_ptr();
        outbox.hand_over(&Brake::new(1));
        place
    }

    #[test]
    fn a_batch_is_written_where_another_was_that_the_outputs_are_done_with() {
        let (sender, mut batches) = mpsc::channel(100);
        let account = Arc::<LineCounters>::default();
        let mut outbox = Outbox::new(vec![sender], None, Arc::default(), usize::MAX, account);
        let (first, second) = (full(&mut outbox), full(&mut outbox));
        assert_ne!(first, second);
        // The next one begins when the one before is handed over.
        drop(batches.blocking_recv());
        let third = full(&mut outbox);
        assert!(third != first && third != second);
        assert_eq!(full(&mut outbox), first);
        for _ in 0..20 {
            full(&mut outbox);
        }
        assert_eq!(
            outbox.sheets.len(),
            SHEETS,
            "no more are kept while an output is slow"
        );
        outbox.rest();
        assert!(outbox.sheets.is_empty());
    }

    #[test]
    fn an_output_without_a_place_takes_the_brake_off() {
        let brake = Brake::new(1);
        brake.set_waiting(1000);
        let (sender, mut batches) = mpsc::channel(1);
        let mut outbox = Outbox::new(
            vec![sender],
            None,
            Arc::default(),
            usize::MAX,
            Arc::<LineCounters>::default(),
        );
        let single = Single {
            shape: None,
            time: 0,
            tag: "app",
            record: b"\x80",
            metadata: b"",
        };
        let hold = Held::begin(1, 1, Arc::new(|_| ()));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..2 {
                    outbox.single(&Names::default(), &single, PartId([1; 12]), 0, &hold);
                    outbox.hand_over(&brake);
                }
            });
            // The first has its place; the second waits for one.
            let began = Instant::now();
            while !brake.has_room() && began.elapsed() < Duration::from_secs(60) {
                std::thread::yield_now();
            }
            let held_up = !brake.has_room();
            // Lets the thread end, whatever came of it.
            assert!(batches.blocking_recv().is_some() && batches.blocking_recv().is_some());
            assert!(!held_up);
        });
        assert!(!brake.has_room(), "the outputs have a place again");
    }
}
