//! The one that writes: groups what waits, writes it as whole blocks, syncs once, tells everyone.
//!
//! It owns the file in use. [`Writer::step`] does one commit and knows no threads, so that tests can drive it
//! one step at a time; [`Writer::run`] is the thread around it.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{debug, error, info, warn};

use super::blocks::Blocks;
use super::company::Company;
use super::error::AppendError;
use super::format::{AT_BLOCK, FIRST_OF_COMMIT, RecordHeader, SEGMENT_HEADER_BYTES, Salt, SegmentHeader};
use super::queue::{Pending, Queue};
use super::segments::Segment;
use super::shared::{Retired, Shared, State, lock};
use super::storage::{StorageFile, is_no_space};
use super::usage::{Blocked, SYNC_BUCKETS};
use super::{Committed, Receipt, Record};

/// The most bytes of one commit: a bound for the time that the first of a group waits for the rest of it.
const MAX_COMMIT: u64 = 32 << 20;
/// A blocked writer looks again after this time even if nobody tells it to.
const RETRY: Duration = Duration::from_millis(500);
/// After an error nothing is tried for this time, whoever asks: each try costs a file.
const PAUSE: Duration = Duration::from_millis(50);

pub(super) struct Writer {
    shared: Arc<Shared>,
    sink: Box<dyn Committed>,
    active: Option<Active>,
    /// The next record gets this lsn.
    next_lsn: u64,
    /// What the next segment says it continues at; see `SegmentHeader::continues_lsn`.
    continues_lsn: u64,
    /// The newest received time that was given.
    last_us: i64,
    /// Received times of a commit.
    stamps: Vec<i64>,
    company: Company,
    /// Files are written past the page cache, until the file system refuses it.
    direct: bool,
}

/// The file in use.
struct Active {
    number: u64,
    file: Box<dyn StorageFile>,
    blocks: Blocks,
    salt: Salt,
    /// Durable bytes; the next write goes here.
    end: u64,
    /// Records go into the next segment from here on.
    capacity: u64,
}

/// What a step did.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Nothing to do.
    Idle,
    /// Some of the backlog is durable and answered.
    Committed,
    /// The disk failed: some of the backlog is answered with an error.
    Failed(Blocked),
    /// Nothing can be written now; the backlog is as it was.
    Blocked(Blocked),
}

impl Writer {
    pub(super) fn new(
        shared: Arc<Shared>,
        sink: Box<dyn Committed>,
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
            stamps: Vec::new(),
            company: Company::default(),
            direct: true,
        }
    }

    /// The thread: until the queue is closed and empty.
    pub(super) fn run(mut self) {
        let _guard = WhenGone {
            shared: Arc::clone(&self.shared),
        };
        let mut backlog = VecDeque::new();
        let mut blocked: Option<Blocked> = None;
        loop {
            let closing = self.next_work(&mut backlog, blocked.as_ref());
            let now_blocked = loop {
                match self.step(&mut backlog) {
                    Progress::Idle => break None,
                    Progress::Committed => {}
                    Progress::Failed(why) | Progress::Blocked(why) => break Some(why),
                }
            };
            if now_blocked != blocked {
                say(now_blocked.as_ref());
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
                // The one who sent it has gone, and sends it again: these must not pile up.
                backlog.retain(|pending| !pending.is_abandoned());
            }
            lock(&self.shared.queue).held_by_writer = backlog.len();
            if closing {
                backlog
                    .into_iter()
                    .for_each(|pending| pending.answer(Err(AppendError::Closed)));
                break;
            }
        }
        if let Some(Active { mut file, end, .. }) = self.active.take() {
            // Only gives back what was allocated ahead.
            let _ = file.set_len(end);
        }
    }

    /// Waits until there is something to do and takes all of it. True when the queue is closed.
    fn next_work(&mut self, backlog: &mut VecDeque<Pending>, blocked: Option<&Blocked>) -> bool {
        let mut queue = lock(&self.shared.queue);
        let wait = |queue, time, until: fn(&Queue) -> bool| {
            let waited = self
                .shared
                .queue_changed
                .wait_timeout_while(queue, time, |queue| !until(queue));
            waited.map_or_else(|poisoned| poisoned.into_inner().0, |(queue, _)| queue)
        };
        // New appends do not wake a blocked writer; the keeper does, or time.
        match blocked {
            None => {}
            Some(Blocked::Limit) => queue = wait(queue, RETRY, |queue| queue.kick || queue.closed),
            Some(Blocked::NoSpace) => {
                queue = wait(queue, PAUSE, |queue| queue.closed);
                queue = wait(queue, RETRY, |queue| queue.kick || queue.closed);
            }
            Some(Blocked::Failing(_)) => queue = wait(queue, PAUSE, |queue| queue.closed),
        }
        let already = queue.items.len();
        while backlog.is_empty() && queue.items.is_empty() && !queue.closed {
            queue.writer_wants = 1;
            let waited = self.shared.queue_changed.wait(queue);
            queue = waited.unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        let bytes = || queue.items.iter().map(Pending::size).sum();
        if backlog.is_empty()
            && let Some((count, patience)) = self.company.expected(already, queue.items.len(), bytes)
        {
            queue.writer_wants = count;
            queue = wait(queue, patience, |queue| queue.writer_wants == 0 || queue.closed);
        }
        queue.writer_wants = 0;
        queue.kick = false;
        if backlog.is_empty() {
            std::mem::swap(backlog, &mut queue.items);
        } else {
            backlog.append(&mut queue.items);
        }
        queue.held_by_writer = backlog.len();
        queue.closed
    }

    /// Commits one group from the front of the backlog.
    pub(super) fn step(&mut self, backlog: &mut VecDeque<Pending>) -> Progress {
        while backlog.front().is_some_and(Pending::is_abandoned) {
            backlog.pop_front();
        }
        let Some(first) = backlog.front().map(Pending::size) else {
            return Progress::Idle;
        };
        let state = lock(&self.shared.state);
        let used = state.segments.bytes();
        let no_space = state.no_space_ahead;
        // Everything in the newest segment is released: a new one would free it.
        let newest = state.segments.newest();
        let idle = newest.is_some_and(|s| s.next_lsn > s.first_lsn && s.unreleased() == 0);
        drop(state);
        let mut room = self.shared.limit_bytes.saturating_sub(used);
        let begins = !self.active.as_ref().is_some_and(|active| active.takes(first));
        let needed = if begins {
            first + SEGMENT_HEADER_BYTES
        } else {
            first
        };
        if needed > room || no_space {
            let why = if needed > room {
                Blocked::Limit
            } else {
                Blocked::NoSpace
            };
            if idle && let Err(error) = self.begin(true) {
                return Progress::Blocked(self.failed(&error));
            }
            return Progress::Blocked(why);
        }
        if begins {
            if let Err(error) = self.begin(false) {
                return Progress::Blocked(self.failed(&error));
            }
            room -= SEGMENT_HEADER_BYTES;
        }
        let Some(active) = &self.active else {
            return Progress::Idle;
        };
        let most = room.min(active.room().max(first)).min(MAX_COMMIT.max(first));
        let mut bytes = 0;
        let fits = backlog.iter().take_while(|pending| {
            bytes += pending.size();
            bytes <= most
        });
        let count = fits.count();
        self.commit(backlog, count)
    }

    /// Writes, syncs and answers the first `count` of the backlog.
    fn commit(&mut self, backlog: &mut VecDeque<Pending>, count: usize) -> Progress {
        let Some(active) = &mut self.active else {
            return Progress::Idle;
        };
        let now = (self.shared.now_us)();
        let mut last_us = self.last_us;
        self.stamps.clear();
        let started = Instant::now();
        let (file, mut bytes, mut written) = (&mut *active.file, 0, Ok(()));
        for (lsn, pending) in (self.next_lsn..).zip(backlog.iter().take(count)) {
            last_us = now.max(last_us + 1);
            let blocks = &mut active.blocks;
            let at_block = blocks.direct() && pending.is_at_block();
            let first = if bytes == 0 { FIRST_OF_COMMIT } else { 0 };
            let header = RecordHeader {
                kind: pending.kind,
                flags: first | if at_block { AT_BLOCK } else { 0 },
                len: pending.len_field(),
                lsn,
                received_us: last_us,
                payload_crc: pending.payload_crc,
            };
            bytes = header.end(active.end + bytes) - active.end;
            self.stamps.push(last_us);
            written = blocks.put(file, &header.encode(&active.salt));
            written = written.and_then(|()| match at_block {
                true => blocks.put_at_block(file, &pending.payload),
                false => blocks.put(file, &pending.payload),
            });
            if written.is_err() {
                break;
            }
        }
        let written = written.and_then(|()| active.blocks.finish(file));
        if let Err(error) = written.and_then(|()| file.sync_data()) {
            return self.give_up_file(&error, backlog, count);
        }
        let sync_time = started.elapsed();
        self.company.committed(count, sync_time);

        active.end += bytes;
        let (segment, end, first_lsn) = (active.number, active.end, self.next_lsn);
        self.next_lsn += count as u64;
        self.continues_lsn = self.next_lsn;
        self.last_us = last_us;
        let mut records = Vec::with_capacity(count);
        let mut answers = Vec::with_capacity(count);
        let numbered = (first_lsn..).zip(&self.stamps);
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
            answers.push((
                reply,
                Receipt {
                    lsn,
                    segment,
                    received_us,
                },
            ));
        }
        // Readers see the records from the moment on that the sink has them, neither sooner nor later: so whoever takes
        // records from both can tell which of them it had.
        let mut state = lock(&self.shared.state);
        let State { segments, counts, .. } = &mut *state;
        segments.committed(self.next_lsn, end);
        counts.records += count as u64;
        counts.record_bytes += bytes;
        counts.syncs += 1;
        counts.sync_time += sync_time;
        counts.sync_buckets[SYNC_BUCKETS.partition_point(|most| *most < sync_time)] += 1;
        self.sink.committed(records);
        drop(state);

        for (reply, receipt) in answers {
            reply.answer(Ok(receipt));
        }
        Progress::Committed
    }

    /// A write or a sync failed: the file ends at its last synced byte and is never synced again.
    fn give_up_file(&mut self, error: &io::Error, backlog: &mut VecDeque<Pending>, count: usize) -> Progress {
        if let Some(Active {
            mut file,
            end,
            number,
            ..
        }) = self.active.take()
        {
            // Gives the space back. If it does not work: the header of the next segment says where this one ends.
            let _ = file.set_len(end);
            if let Some(segment) = lock(&self.shared.state).segments.by_number_mut(number) {
                segment.reusable = false;
            }
        }
        let why = self.failed(error);
        if let Blocked::Failing(text) = &why {
            for pending in backlog.drain(..count) {
                pending.answer(Err(AppendError::Disk(Arc::clone(text))));
            }
            return Progress::Failed(why);
        }
        // Lack of space passes: the records wait and go into a new segment.
        lock(&self.shared.state).no_space_ahead = true;
        self.shared.wake_keeper();
        Progress::Blocked(why)
    }

    fn failed(&self, error: &io::Error) -> Blocked {
        if is_no_space(error) {
            return Blocked::NoSpace;
        }
        lock(&self.shared.state).counts.disk_errors += 1;
        Blocked::Failing(error.to_string().into())
    }

    /// Begins the next segment. `in_need`: with as little space as can be, to free the present one.
    fn begin(&mut self, in_need: bool) -> io::Result<()> {
        let mut prepared = self.shared.take_prepared(in_need)?;
        let header = SegmentHeader {
            number: prepared.number,
            first_lsn: self.next_lsn,
            continues_lsn: self.continues_lsn,
            instance: self.shared.instance,
            after_us: self.last_us,
            reused: prepared.spare.is_some(),
        };
        // Durable before any record, so that a file without a sound header has never held a record.
        let mut blocks = Blocks::new(self.goes_direct(&mut *prepared.file));
        let written = blocks.put(&mut *prepared.file, &header.encode());
        let written = written.and_then(|()| blocks.finish(&mut *prepared.file));
        let durable = written.and_then(|()| prepared.file.sync_data());
        self.direct = blocks.direct();
        if let Err(error) = durable.and_then(|()| self.shared.name_prepared(&prepared)) {
            self.shared.discard(prepared);
            return Err(error);
        }
        let before = self.active.replace(Active {
            number: prepared.number,
            file: prepared.file,
            blocks,
            salt: Salt::new(prepared.number, self.shared.instance),
            end: SEGMENT_HEADER_BYTES,
            capacity: prepared.capacity,
        });
        let mut state = lock(&self.shared.state);
        let State {
            segments, retired, ..
        } = &mut *state;
        if let Some(segment) = segments.newest_mut() {
            segment.sealed = true;
            retired.push(Retired {
                number: segment.number,
                instance: segment.instance,
                next_lsn: segment.next_lsn,
                end: segment.end,
                file: before.map(|active| active.file),
            });
        }
        let lsns = self.next_lsn..self.next_lsn;
        let (number, instance) = (prepared.number, self.shared.instance);
        let mut segment = Segment::new(number, instance, lsns, SEGMENT_HEADER_BYTES, false);
        segment.reusable = true;
        state.segments.push(segment);
        drop(state);
        self.continues_lsn = self.next_lsn;
        self.shared.wake_keeper();
        Ok(())
    }

    /// Whether a new file is written past the page cache.
    fn goes_direct(&self, file: &mut dyn StorageFile) -> bool {
        self.direct
            && match file.set_direct(true) {
                Ok(()) => true,
                Err(error) => {
                    debug!(%error, "journal files are written through the page cache: nothing else is offered");
                    false
                }
            }
    }

    /// Begins a segment before there is anything to write.
    pub(super) fn begin_at_open(&mut self) -> io::Result<()> {
        self.begin(false).or_else(|_| self.begin(true))
    }
}

impl Active {
    fn room(&self) -> u64 {
        self.capacity.saturating_sub(self.end)
    }

    /// A record that is larger than a segment goes alone into one.
    fn takes(&self, size: u64) -> bool {
        size <= self.room() || self.end == SEGMENT_HEADER_BYTES
    }
}

/// Ends the waiting of all appends, however the writer thread ends.
struct WhenGone {
    shared: Arc<Shared>,
}

impl Drop for WhenGone {
    fn drop(&mut self) {
        if std::thread::panicking() {
            error!("the journal's writer thread panicked: nothing is accepted any more, restart Windrow");
            let text = "the journal's writer thread panicked; restart Windrow".into();
            let mut state = lock(&self.shared.state);
            state.blocked = Some(Blocked::Failing(text));
            state.ended = Some("writer");
        }
        let mut queue = lock(&self.shared.queue);
        queue.closed = true;
        let left = std::mem::take(&mut queue.items);
        drop(queue);
        left.into_iter()
            .for_each(|pending| pending.answer(Err(AppendError::Closed)));
    }
}

fn say(blocked: Option<&Blocked>) {
    match blocked {
        None => info!("the journal takes records again"),
        Some(Blocked::Failing(text)) => {
            error!(
                error = &**text,
                "the journal's disk fails: nothing is acknowledged until it works again"
            );
        }
        Some(why) => warn!("{why}: records wait, nothing more is acknowledged until there is room"),
    }
}
