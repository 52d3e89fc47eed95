//! Writer thread with group commit: writes queued appends as whole blocks, syncs once, and sends
//! the receipts.
//!
//! Owns the segment in use. [`Writer::step`] makes one commit, without waiting; [`Writer::run`] is
//! the thread around it.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::debug;

use crate::block_writer::BlockWriter;
use crate::commit_coalescer::CommitCoalescer;
use crate::error::AppendError;
use crate::exit_guard::ExitGuard;
use crate::format::{
    FIRST_OF_COMMIT, PAYLOAD_ALIGNED, RecordHeader, SEGMENT_HEADER_BYTES, Salt, SegmentHeader,
};
use crate::queue::{PendingAppend, QueueState};
use crate::record::{CommitSink, Receipt, Record};
use crate::reserve::Reserve;
use crate::segments::Segment;
use crate::shared::{SealedSegment, Shared, State};
use crate::storage::{StorageFile, is_no_space};
use crate::sync::{lock, wait, wait_until};
use crate::usage::{Blocked, SYNC_BUCKETS};

/// Limits how long the first append of a commit waits for the others in it.
const MAX_COMMIT_BYTES: u64 = 32 << 20;
/// A blocked writer tries again after this time, unless it is woken before.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);
/// Shortest time between tries at the limit, where each looks at all appends that wait.
const LIMIT_RETRY_INTERVAL: Duration = Duration::from_millis(5);
/// Shortest time between tries after an error, since each creates a file.
const MIN_RETRY_INTERVAL: Duration = Duration::from_millis(50);

pub(crate) struct Writer {
    shared: Arc<Shared>,
    sink: Box<dyn CommitSink>,
    active: Option<ActiveSegment>,
    /// The next record gets this lsn.
    next_lsn: u64,
    /// For the header of the next segment; see `SegmentHeader::continues_lsn`.
    continues_lsn: u64,
    /// Received time of the newest record.
    last_us: i64,
    /// Received times of the commit that is being written; kept for its memory.
    received_us: Vec<i64>,
    coalescer: CommitCoalescer,
    reserve: Reserve,
    /// New files are opened for direct I/O; false once the file system has refused it.
    direct: bool,
}

/// The segment in use.
struct ActiveSegment {
    number: u64,
    file: Box<dyn StorageFile>,
    blocks: BlockWriter,
    salt: Salt,
    /// Durable bytes; the next record starts here.
    end: u64,
    /// Records beyond this size go into the next segment.
    capacity: u64,
}

/// Outcome of [`Writer::step`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// The backlog is empty.
    Idle,
    /// Some appends are durable and answered.
    Committed,
    /// The disk failed; some appends are answered with an error.
    Failed(Blocked),
    /// Nothing can be written; the backlog is unchanged.
    Blocked(Blocked),
}

impl Writer {
    /// `lsns` runs from the lsn that the next segment continues at to that of the next record.
    pub(crate) fn new(
        shared: Arc<Shared>,
        sink: Box<dyn CommitSink>,
        lsns: &Range<u64>,
        last_us: i64,
    ) -> Self {
        Self {
            shared,
            sink,
            active: None,
            continues_lsn: lsns.start,
            next_lsn: lsns.end,
            last_us,
            received_us: Vec::new(),
            coalescer: CommitCoalescer::default(),
            reserve: Reserve::default(),
            direct: true,
        }
    }

    /// Runs until the queue is closed and empty.
    pub(crate) fn run(mut self) {
        let _guard = ExitGuard(Arc::clone(&self.shared));
        let mut backlog = VecDeque::new();
        let mut blocked: Option<Blocked> = None;
        loop {
            let closing = self.take_queued(&mut backlog, blocked.as_ref());
            let now_blocked = loop {
                match self.step(&mut backlog) {
                    Progress::Idle => break None,
                    Progress::Committed => {}
                    Progress::Failed(reason) | Progress::Blocked(reason) => break Some(reason),
                }
            };
            if now_blocked != blocked {
                Blocked::log(now_blocked.as_ref());
                let mut state = lock(&self.shared.state);
                state.blocked.clone_from(&now_blocked);
                state.failing_since = match &now_blocked {
                    Some(Blocked::Failing(_)) => state.failing_since.or_else(|| Some(Instant::now())),
                    _ => None,
                };
                drop(state);
                blocked = now_blocked;
            }
            if blocked.is_some() {
                // Their callers will append them again: they must not pile up.
                backlog.retain(|pending| !pending.is_abandoned());
            }
            lock(&self.shared.queue.state).held_by_writer = backlog.len();
            if closing {
                for pending in backlog {
                    pending.reply(Err(AppendError::Closed));
                }
                break;
            }
        }
        if let Some(ActiveSegment { mut file, end, .. }) = self.active.take() {
            // Gives the unused space back; nothing depends on it.
            let _ = file.set_len(end);
        }
    }

    /// Waits for appends and moves all of them to the backlog. True when the queue is closed.
    fn take_queued(&mut self, backlog: &mut VecDeque<PendingAppend>, blocked: Option<&Blocked>) -> bool {
        let changed = &self.shared.queue.changed;
        let mut queue = lock(&self.shared.queue.state);
        let recheck = |queue: &QueueState| queue.recheck || queue.closed;
        // Appends do not wake a blocked writer: the maintenance thread or the timeout does.
        match blocked {
            None => {}
            Some(Blocked::Limit) => {
                queue = wait_until(changed, queue, LIMIT_RETRY_INTERVAL, |queue| queue.closed);
                queue.wake_for_short = !self.reserve.is_full;
                if !(queue.wake_for_short && queue.appends.iter().any(PendingAppend::is_short)) {
                    queue = wait_until(changed, queue, RETRY_INTERVAL, recheck);
                }
                queue.wake_for_short = false;
            }
            Some(Blocked::NoSpace) => {
                queue = wait_until(changed, queue, MIN_RETRY_INTERVAL, |queue| queue.closed);
                queue = wait_until(changed, queue, RETRY_INTERVAL, recheck);
            }
            Some(Blocked::Failing(_)) => {
                queue = wait_until(changed, queue, MIN_RETRY_INTERVAL, |queue| queue.closed);
            }
        }
        let arrived = queue.appends.len();
        while backlog.is_empty() && queue.appends.is_empty() && !queue.closed {
            queue.wake_at_len = 1;
            queue = wait(changed, queue);
        }
        let bytes = || queue.appends.iter().map(PendingAppend::max_bytes).sum();
        if backlog.is_empty()
            && let Some((count, timeout)) = self.coalescer.delay(arrived, queue.appends.len(), bytes)
        {
            queue.wake_at_len = count;
            queue = wait_until(changed, queue, timeout, |queue| {
                queue.wake_at_len == 0 || queue.closed
            });
        }
        queue.wake_at_len = 0;
        queue.recheck = false;
        if backlog.is_empty() {
            std::mem::swap(backlog, &mut queue.appends);
        } else {
            backlog.append(&mut queue.appends);
        }
        queue.held_by_writer = backlog.len();
        queue.closed
    }

    /// Commits appends from the front of the backlog.
    pub(crate) fn step(&mut self, backlog: &mut VecDeque<PendingAppend>) -> Progress {
        while backlog.front().is_some_and(PendingAppend::is_abandoned) {
            backlog.pop_front();
        }
        let Some(first_bytes) = backlog.front().map(PendingAppend::max_bytes) else {
            return Progress::Idle;
        };
        let state = lock(&self.shared.state);
        let used = state.segments.bytes();
        let no_space = state.no_space_for_next;
        let newest = state.segments.newest();
        // The segment in use would be obsolete if it were not the newest.
        let newest_is_released = newest.is_some_and(|s| s.next_lsn > s.first_lsn && s.unreleased() == 0);
        drop(state);
        let free_bytes = self.shared.limit_bytes.saturating_sub(used);
        let outside_bytes = free_bytes.saturating_sub(self.shared.reserve_bytes());
        let in_reserve = self.needed_bytes(first_bytes) > outside_bytes;
        let (mut available_bytes, admitted) = if in_reserve {
            (free_bytes, self.reserve.admit(backlog, free_bytes))
        } else {
            self.reserve.leave();
            (outside_bytes, backlog.len())
        };
        let first_bytes = backlog.front().map_or(first_bytes, PendingAppend::max_bytes);
        let at_limit = admitted == 0 || self.needed_bytes(first_bytes) > available_bytes;
        if at_limit || no_space {
            if newest_is_released && let Err(error) = self.begin_segment(true) {
                return Progress::Blocked(self.count_error(&error));
            }
            return Progress::Blocked(if at_limit {
                Blocked::Limit
            } else {
                Blocked::NoSpace
            });
        }
        let begins = self.begins_segment(first_bytes);
        if begins {
            if let Err(error) = self.begin_segment(false) {
                return Progress::Blocked(self.count_error(&error));
            }
            available_bytes -= SEGMENT_HEADER_BYTES;
        }
        let Some(active) = &self.active else {
            return Progress::Idle;
        };
        let max_bytes = active
            .room()
            .max(first_bytes)
            .min(MAX_COMMIT_BYTES.max(first_bytes));
        let mut bytes = 0;
        let fitting = backlog.iter().take(admitted).take_while(|pending| {
            bytes += pending.max_bytes();
            bytes <= max_bytes.min(available_bytes)
        });
        let count = fitting.count();
        if in_reserve {
            backlog
                .iter()
                .take(count)
                .for_each(|pending| self.reserve.record(pending));
        }
        self.commit(backlog, count)
    }

    /// A record of so many bytes begins a segment.
    fn begins_segment(&self, bytes: u64) -> bool {
        !self.active.as_ref().is_some_and(|active| active.accepts(bytes))
    }

    /// Bytes that a record of so many bytes takes, with the header of the segment that it begins.
    fn needed_bytes(&self, bytes: u64) -> u64 {
        match self.begins_segment(bytes) {
            true => bytes + SEGMENT_HEADER_BYTES,
            false => bytes,
        }
    }

    /// Writes, syncs and answers the first `count` appends of the backlog.
    fn commit(&mut self, backlog: &mut VecDeque<PendingAppend>, count: usize) -> Progress {
        let Some(active) = &mut self.active else {
            return Progress::Idle;
        };
        let now = (self.shared.now_us)();
        let mut last_us = self.last_us;
        self.received_us.clear();
        let started = Instant::now();
        let (file, mut bytes, mut written) = (&mut *active.file, 0, Ok(()));
        for (lsn, pending) in (self.next_lsn..).zip(backlog.iter().take(count)) {
            last_us = now.max(last_us + 1);
            let blocks = &mut active.blocks;
            let aligned = blocks.direct() && pending.is_block_aligned();
            let first = if bytes == 0 { FIRST_OF_COMMIT } else { 0 };
            let header = RecordHeader {
                kind: pending.kind,
                flags: first | if aligned { PAYLOAD_ALIGNED } else { 0 },
                len: pending.len_field(),
                lsn,
                received_us: last_us,
                payload_crc: pending.payload_crc,
            };
            bytes = header.end(active.end + bytes) - active.end;
            self.received_us.push(last_us);
            written = blocks.put(file, &header.encode(&active.salt));
            written = written.and_then(|()| match aligned {
                true => blocks.put_aligned(file, &pending.payload),
                false => blocks.put(file, &pending.payload),
            });
            if written.is_err() {
                break;
            }
        }
        let written = written.and_then(|()| active.blocks.finish(file));
        if let Err(error) = written.and_then(|()| file.sync_data()) {
            return self.abandon_segment(&error, backlog, count);
        }
        let sync_time = started.elapsed();
        self.coalescer.record_commit(count, sync_time);

        active.end += bytes;
        let (segment, end, first_lsn) = (active.number, active.end, self.next_lsn);
        self.next_lsn += count as u64;
        self.continues_lsn = self.next_lsn;
        self.last_us = last_us;
        let mut records = Vec::with_capacity(count);
        let mut replies = Vec::with_capacity(count);
        let numbered = (first_lsn..).zip(&self.received_us);
        for (pending, (lsn, &received_us)) in backlog.drain(..count).zip(numbered) {
            let (kind, payload, reply) = pending.into_parts();
            records.push(Record {
                lsn,
                segment,
                received_us,
                kind,
                payload,
                released: false,
            });
            replies.push((
                reply,
                Receipt {
                    lsn,
                    segment,
                    received_us,
                },
            ));
        }
        // Under the lock of readers: a record is visible to them when the sink has got it.
        let mut state = lock(&self.shared.state);
        let State {
            segments, counters, ..
        } = &mut *state;
        segments.committed(self.next_lsn, end);
        counters.records += count as u64;
        counters.record_bytes += bytes;
        counters.syncs += 1;
        counters.sync_time += sync_time;
        counters.sync_buckets[SYNC_BUCKETS.partition_point(|bound| *bound < sync_time)] += 1;
        self.sink.committed(records);
        drop(state);

        for (reply, receipt) in replies {
            reply.send(Ok(receipt));
        }
        Progress::Committed
    }

    /// Gives up the segment in use after a failed write or sync: it ends at its last synced byte,
    /// and its file is never synced again, because the kernel may have dropped the pages that it
    /// could not write.
    fn abandon_segment(
        &mut self,
        error: &io::Error,
        backlog: &mut VecDeque<PendingAppend>,
        count: usize,
    ) -> Progress {
        if let Some(ActiveSegment {
            mut file,
            end,
            number,
            ..
        }) = self.active.take()
        {
            // If this fails, the header of the next segment still tells where this one ends.
            let _ = file.set_len(end);
            if let Some(segment) = lock(&self.shared.state).segments.by_number_mut(number) {
                segment.recyclable = false;
            }
        }
        let reason = self.count_error(error);
        if let Blocked::Failing(text) = &reason {
            for pending in backlog.drain(..count) {
                pending.reply(Err(AppendError::Disk(Arc::clone(text))));
            }
            return Progress::Failed(reason);
        }
        // Lack of space passes: the appends stay in the backlog, for a new segment.
        lock(&self.shared.state).no_space_for_next = true;
        self.shared.signals.request_work();
        Progress::Blocked(reason)
    }

    /// Counts a disk error, unless it is a lack of space.
    fn count_error(&self, error: &io::Error) -> Blocked {
        if is_no_space(error) {
            return Blocked::NoSpace;
        }
        lock(&self.shared.state).counters.disk_errors += 1;
        Blocked::Failing(error.to_string().into())
    }

    /// Begins the next segment. `emergency`: with as little space as possible, so that the segment
    /// before it can be removed.
    fn begin_segment(&mut self, emergency: bool) -> io::Result<()> {
        let mut prepared = self.shared.preallocator.take(emergency)?;
        let header = SegmentHeader {
            number: prepared.number,
            first_lsn: self.next_lsn,
            continues_lsn: self.continues_lsn,
            instance: self.shared.instance,
            after_us: self.last_us,
            recycled: prepared.recycled_from.is_some(),
            in_manifest: true,
        };
        // Durable before any record, so that a file without a valid header has never held a record.
        let mut blocks = BlockWriter::new(self.enable_direct_io(&mut *prepared.file));
        let written = blocks.put(&mut *prepared.file, &header.encode());
        let written = written.and_then(|()| blocks.finish(&mut *prepared.file));
        let durable = written.and_then(|()| prepared.file.sync_data());
        self.direct = blocks.direct();
        if let Err(error) = durable.and_then(|()| self.shared.preallocator.finish(&prepared)) {
            self.shared.preallocator.discard(prepared);
            return Err(error);
        }
        let previous = self.active.replace(ActiveSegment {
            number: prepared.number,
            file: prepared.file,
            blocks,
            salt: Salt::new(prepared.number, self.shared.instance),
            end: SEGMENT_HEADER_BYTES,
            capacity: prepared.capacity,
        });
        let mut state = lock(&self.shared.state);
        let State {
            segments,
            sealed_segments,
            ..
        } = &mut *state;
        if let Some(segment) = segments.newest_mut() {
            segment.sealed = true;
            sealed_segments.push(SealedSegment {
                number: segment.number,
                instance: segment.instance,
                next_lsn: segment.next_lsn,
                end: segment.end,
                file: previous.map(|active| active.file),
            });
        }
        let lsns = self.next_lsn..self.next_lsn;
        let (number, instance) = (prepared.number, self.shared.instance);
        let mut segment = Segment::new(number, instance, lsns, SEGMENT_HEADER_BYTES, false);
        segment.recyclable = true;
        segment.continues_lsn = self.continues_lsn;
        state.segments.push(segment);
        drop(state);
        self.continues_lsn = self.next_lsn;
        self.shared.signals.request_work();
        Ok(())
    }

    /// Opens a new file for direct I/O, if possible. Returns whether it is.
    fn enable_direct_io(&self, file: &mut dyn StorageFile) -> bool {
        self.direct
            && match file.set_direct(true) {
                Ok(()) => true,
                Err(error) => {
                    debug!(%error, "the file system offers no direct I/O; writing through the page cache");
                    false
                }
            }
    }

    /// Begins a segment before there is a record for it.
    pub(crate) fn begin_at_open(&mut self) -> io::Result<()> {
        self.begin_segment(false).or_else(|_| self.begin_segment(true))
    }
}

impl ActiveSegment {
    fn room(&self) -> u64 {
        self.capacity.saturating_sub(self.end)
    }

    /// A record larger than a segment goes alone into one.
    fn accepts(&self, bytes: u64) -> bool {
        bytes <= self.room() || self.end == SEGMENT_HEADER_BYTES
    }
}
