//! Document batcher: renders documents into one buffer and sends it to the outputs as a batch when
//! it is full or old.
//!
//! Owns the buffers and the budget of bytes in flight. Does not decide when a trace is sealed, and
//! does not know what an output does with a batch.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::admission::{AdmissionControl, BypassReason};
use crate::claim::RecordClaim;
use crate::output::{
    Batch, BatchBuffer, BatchTap, DestinationId, Destinations, DocumentMeta, DocumentSpan, Framing,
    LineCounters, MemoryCharge, push_document_id,
};
use windrow_trace::{
    FieldNames, PartId, RecordView, RenderedDocument, Renderer, Scratch, SealedTrace, ShapeRegistry,
    UntracedRecord,
};

/// A batch of this size is full.
const FULL_BATCH_BYTES: usize = 1 << 20;
/// Age at which a batch is sent though it is not full: few large batches cost less than many small
/// ones.
const MAX_BATCH_AGE_US: i64 = 50_000;
/// Capacity of a full batch's buffer: the last document ends beyond [`FULL_BATCH_BYTES`].
const FULL_CAPACITY_BYTES: usize = FULL_BATCH_BYTES + FULL_BATCH_BYTES / 16;
/// A batch of this size is expected to become full.
const RESERVE_THRESHOLD_BYTES: usize = FULL_BATCH_BYTES / 16;
/// Buffers that are recycled: as many as are in flight to a fast output.
const MAX_RECYCLED: usize = 4;
/// Memory of a document besides its text.
const DOCUMENT_OVERHEAD_BYTES: usize = 160;

/// Collects rendered documents and sends them to every output.
pub(super) struct DocumentBatcher {
    outputs: Vec<mpsc::Sender<Batch>>,
    tap: Arc<BatchTap>,
    framing: Option<Box<dyn Framing>>,
    account: Arc<LineCounters>,
    /// Where documents go; `None`: all to the default destination.
    destinations: Option<Arc<Destinations>>,
    /// Bytes of documents that an output has not confirmed.
    in_flight_bytes: Arc<AtomicUsize>,
    budget_bytes: usize,
    renderer: Renderer,
    scratch: Scratch,
    /// The rendered documents of the current batch.
    text: Vec<u8>,
    /// Their ids, one after the other.
    ids: String,
    rows: Vec<DocumentMeta>,
    lines: u64,
    /// Claims on the journal records that they were made of.
    claims: Vec<RecordClaim>,
    /// Number of the current batch.
    batch: u64,
    /// When the age of the current batch began (µs).
    since: Option<i64>,
    /// Buffers of full batches, reused once every output has dropped the batch.
    recycled: Vec<Arc<BatchBuffer>>,
}

impl DocumentBatcher {
    pub(super) fn new(
        outputs: Vec<mpsc::Sender<Batch>>,
        tap: Arc<BatchTap>,
        framing: Option<Box<dyn Framing>>,
        in_flight_bytes: Arc<AtomicUsize>,
        budget_bytes: usize,
        account: Arc<LineCounters>,
    ) -> Self {
        Self {
            outputs,
            tap,
            framing,
            account,
            destinations: None,
            in_flight_bytes,
            budget_bytes,
            renderer: Renderer::default(),
            scratch: Scratch::default(),
            text: Vec::new(),
            ids: String::new(),
            rows: Vec::new(),
            lines: 0,
            claims: Vec::new(),
            batch: 1,
            since: None,
            recycled: Vec::with_capacity(MAX_RECYCLED),
        }
    }

    /// Documents go to several destinations.
    pub(super) fn route_to(&mut self, destinations: Arc<Destinations>) {
        self.destinations = Some(destinations);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.text.len() >= FULL_BATCH_BYTES
    }

    /// Whether to send the batch now. Its age counts from the first call of this function.
    pub(super) fn is_due(&mut self, now: i64) -> bool {
        if self.is_empty() {
            return false;
        }
        let since = *self.since.get_or_insert(now);
        self.is_full() || !(0..MAX_BATCH_AGE_US).contains(&(now - since))
    }

    /// Whether the documents in flight exceed their budget.
    pub(super) fn is_over_budget(&self) -> bool {
        self.in_flight_bytes.load(Ordering::Relaxed) > self.budget_bytes
    }

    /// Drops the batch without confirming its claims: its records stay in the journal.
    pub(super) fn clear(&mut self) {
        self.ids.clear();
        self.rows.clear();
        self.lines = 0;
        self.claims.clear();
        self.batch += 1;
        self.text.clear();
        self.since = None;
    }

    /// Adds the document of a sealed trace.
    pub(super) fn push_trace(
        &mut self,
        names: &FieldNames,
        shapes: &ShapeRegistry,
        closed: &mut SealedTrace<'_, RecordClaim>,
        now: i64,
    ) {
        self.reserve();
        let (start, id) = (self.text.len(), self.ids.len());
        push_document_id(&mut self.ids, closed.id());
        let name = self.ids.get(id..).unwrap_or_default();
        let destination = match self.destinations {
            Some(_) => DestinationId(closed.destination()),
            None => DestinationId::DEFAULT,
        };
        let (gathered, twice) = closed.content(now, &mut self.scratch);
        let framing = &mut self.framing;
        let head = |out: &mut Vec<u8>, first| head(framing, out, name, first, destination);
        let out = &mut self.text;
        let extent = self.renderer.trace(out, names, shapes, gathered, head);
        self.push_row(start, id, true, destination, extent);
        closed.release(self.batch, |claim| self.claims.push(claim));
        if twice > 0 {
            let duplicate = &self.account.duplicate;
            duplicate.fetch_add(u64::from(twice), Ordering::Relaxed);
        }
    }

    /// Adds the document of a record without a trace id: record `number` of `part`.
    pub(super) fn push_single(
        &mut self,
        view: &RecordView,
        single: &UntracedRecord<'_>,
        part: PartId,
        number: u32,
        claim: &RecordClaim,
        destination: DestinationId,
    ) {
        self.reserve();
        let (start, id) = (self.text.len(), self.ids.len());
        part.push_document_id(&mut self.ids, number);
        let name = self.ids.get(id..).unwrap_or_default();
        head(&mut self.framing, &mut self.text, name, single.time, destination);
        let extent = self.renderer.untraced(&mut self.text, view, single);
        self.push_row(start, id, false, destination, extent);
        if self.claims.last().is_none_or(|last| !last.is_same(claim)) {
            self.claims.push(claim.clone());
        }
    }

    /// Reserves a whole batch once the batch is expected to become full: growing by doubling copies
    /// at each step.
    #[inline]
    fn reserve(&mut self) {
        if self.text.capacity() < FULL_CAPACITY_BYTES
            && (RESERVE_THRESHOLD_BYTES..FULL_BATCH_BYTES).contains(&self.text.len())
        {
            self.reserve_full();
        }
    }

    #[cold]
    fn reserve_full(&mut self) {
        let (full, now) = (FULL_CAPACITY_BYTES, self.text.len());
        let more = |of: usize| of * (full - now) / now;
        self.text.reserve_exact(full - now);
        self.ids.reserve(more(self.ids.len()));
        self.rows.reserve(more(self.rows.len()));
    }

    /// Adds the row of a document whose framed text begins at `start` and whose id begins at `id`.
    fn push_row(
        &mut self,
        start: usize,
        id: usize,
        is_trace: bool,
        destination: DestinationId,
        extent: RenderedDocument,
    ) {
        if self.framing.is_some() {
            self.text.push(b'\n');
        }
        let place = DocumentSpan::new(start, extent.at, self.text.len());
        let id = id..self.ids.len();
        self.lines += u64::from(extent.lines);
        let mut row = DocumentMeta::new(id, is_trace, extent.first, extent.lines, place);
        if let Some(destinations) = &self.destinations {
            row = row.to(destination, destinations.get(destination).outputs);
        }
        self.rows.push(row);
    }

    /// Takes the rendered batch and leaves a buffer for the next one.
    fn take_batch(&mut self) -> Arc<BatchBuffer> {
        // A full buffer is moved; a batch that is not full is copied, so that it does not keep a
        // large buffer alive.
        let is_full = self.is_full();
        // One long document can make the buffer much larger; such a buffer is not recycled.
        let is_usual = self.text.capacity() <= 2 * FULL_CAPACITY_BYTES;
        if !is_full {
            // Batches that are not full need fewer buffers.
            self.recycled.pop();
        }
        let recycled = if is_full { self.recycle() } else { None };
        let (text, ids, rows) = recycled.unwrap_or_else(|| {
            let similar = |length| length + length / 8;
            let text = if is_full { FULL_CAPACITY_BYTES } else { 0 };
            (
                Vec::with_capacity(text),
                String::with_capacity(similar(self.ids.len())),
                Vec::with_capacity(similar(self.rows.len())),
            )
        });
        let rendered = if is_full {
            Bytes::from(std::mem::replace(&mut self.text, text))
        } else {
            let copy = Bytes::copy_from_slice(&self.text);
            self.text.clear();
            copy
        };
        let ids = std::mem::replace(&mut self.ids, ids);
        let sheet = BatchBuffer::new(rendered, ids, std::mem::replace(&mut self.rows, rows));
        if is_full && is_usual && self.recycled.len() < MAX_RECYCLED {
            self.recycled.push(Arc::clone(&sheet));
        }
        sheet
    }

    /// Buffers of a sent batch that every output has dropped.
    fn recycle(&mut self) -> Option<(Vec<u8>, String, Vec<DocumentMeta>)> {
        let sheets = self.recycled.iter_mut().enumerate();
        let (at, back) = sheets
            .filter_map(|(at, sheet)| Some((at, BatchBuffer::reclaim(sheet)?)))
            .next()?;
        self.recycled.remove(at);
        Some(back)
    }

    /// Frees what a load has made large, and the recycled buffers; called when the server is idle.
    pub(super) fn shrink(&mut self) {
        self.recycled.clear();
        if self.is_empty() && self.text.capacity() > RESERVE_THRESHOLD_BYTES {
            (self.text, self.ids, self.rows) = (Vec::new(), String::new(), Vec::new());
        }
        self.renderer.shrink();
        self.scratch = Scratch::default();
    }

    /// Sends the batch to every output; while the queue of one is full, admission control is
    /// bypassed.
    pub(super) fn send(&mut self, admission: &AdmissionControl) {
        self.since = None;
        if self.is_empty() {
            return;
        }
        if self.text.capacity() > 2 * FULL_CAPACITY_BYTES {
            // One long document made it grow, to twice its length at worst.
            self.text.shrink_to_fit();
        }
        let charged = self.text.len() + self.rows.len() * DOCUMENT_OVERHEAD_BYTES;
        let lines = std::mem::take(&mut self.lines);
        let batch = Batch::new(
            self.take_batch(),
            self.framing.is_some(),
            std::mem::take(&mut self.claims),
            MemoryCharge::new(charged, &self.in_flight_bytes),
            &self.account,
            self.outputs.len() as u8,
        );
        self.batch += 1;
        self.account.in_flight.fetch_add(lines, Ordering::Relaxed);
        self.tap.offer(&batch);
        let Some((last, others)) = self.outputs.split_last() else {
            return;
        };
        for output in others {
            send_to(output, batch.clone(), admission);
        }
        send_to(last, batch, admission);
    }
}

fn send_to(output: &mpsc::Sender<Batch>, batch: Batch, admission: &AdmissionControl) {
    // A closed channel belongs to an output that has stopped; the journal keeps what it did not
    // confirm.
    if let Err(TrySendError::Full(batch)) = output.try_send(batch) {
        admission.set_bypass(BypassReason::OutputsFull, true);
        output.blocking_send(batch).ok();
        admission.set_bypass(BypassReason::OutputsFull, false);
    }
}

fn head(
    framing: &mut Option<Box<dyn Framing>>,
    out: &mut Vec<u8>,
    id: &str,
    first: i64,
    destination: DestinationId,
) {
    if let Some(framing) = framing {
        framing.write_prefix(out, id, first, destination);
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::claim::RecordClaim;

    /// Renders and sends a full batch; gives the address of its text.
    fn send_full(batcher: &mut DocumentBatcher) -> *const u8 {
        let record = [&b"\x81\xa1a\xda\x10\x00"[..], &[b'x'; 4096]].concat();
        let single = UntracedRecord {
            shape: None,
            time: 0,
            tag: "app",
            record: &record,
            metadata: b"",
            level: None,
            service: None,
        };
        let view = RecordView::new(FieldNames::default());
        let claim = RecordClaim::new(1, 1, Arc::new(|_| ()));
        while !batcher.is_full() {
            batcher.push_single(&view, &single, PartId([1; 12]), 0, &claim, DestinationId::DEFAULT);
        }
        let place = batcher.text.as_ptr();
        batcher.send(&AdmissionControl::new(1));
        place
    }

    #[test]
    fn the_buffer_of_a_batch_is_recycled_once_the_outputs_drop_it() {
        let (sender, mut batches) = mpsc::channel(100);
        let account = Arc::<LineCounters>::default();
        let mut batcher = DocumentBatcher::new(
            vec![sender],
            BatchTap::new().0,
            None,
            Arc::default(),
            usize::MAX,
            account,
        );
        let (first, second) = (send_full(&mut batcher), send_full(&mut batcher));
        assert_ne!(first, second);
        // The buffer of the next batch is chosen when a batch is sent.
        drop(batches.blocking_recv());
        let third = send_full(&mut batcher);
        assert!(third != first && third != second);
        assert_eq!(send_full(&mut batcher), first);
        for _ in 0..20 {
            send_full(&mut batcher);
        }
        assert_eq!(
            batcher.recycled.len(),
            MAX_RECYCLED,
            "no more are kept while an output is slow"
        );
        batcher.shrink();
        assert!(batcher.recycled.is_empty());
    }

    #[test]
    fn a_full_output_bypasses_admission_control() {
        let admission = AdmissionControl::new(1);
        admission.set_queued_bytes(1000);
        let (sender, mut batches) = mpsc::channel(1);
        let mut batcher = DocumentBatcher::new(
            vec![sender],
            BatchTap::new().0,
            None,
            Arc::default(),
            usize::MAX,
            Arc::<LineCounters>::default(),
        );
        let single = UntracedRecord {
            shape: None,
            time: 0,
            tag: "app",
            record: b"\x80",
            metadata: b"",
            level: None,
            service: None,
        };
        let view = RecordView::new(FieldNames::default());
        let claim = RecordClaim::new(1, 1, Arc::new(|_| ()));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..2 {
                    batcher.push_single(&view, &single, PartId([1; 12]), 0, &claim, DestinationId::DEFAULT);
                    batcher.send(&admission);
                }
            });
            // The queue holds the first batch; the second waits.
            let began = Instant::now();
            while !admission.has_capacity() && began.elapsed() < Duration::from_secs(60) {
                std::thread::yield_now();
            }
            let limited = !admission.has_capacity();
            // Received before the assertion, so that the thread ends if it fails.
            assert!(batches.blocking_recv().is_some() && batches.blocking_recv().is_some());
            assert!(!limited);
        });
        assert!(!admission.has_capacity(), "the output has caught up");
    }
}
