//! The open traces of one shard, and when they are sealed.
//!
//! Owns the order of use, the limits and the bookkeeping of bytes. Time is an argument; there is no I/O and no
//! thread. `H` is whatever must be held until a part is written (the journal's hold on the chunk).
//!
//! There is one idle timeout, so the order of last use is the order of expiry, and a least-recently-used list is all
//! that is needed: no timer per trace. There is one linger as well: traces that are complete wait in the order in which
//! they became so, packed (`linger`).

use std::collections::VecDeque;
use std::sync::Arc;

use lru::LruCache;
use smallvec::SmallVec;

use super::document::{Gathered, PartInfo};
use super::lines::{HEADER, Line, Lines, NewLine, Span};
use super::linger::{Left, Lingering};
use super::part::PartId;
use super::shape::ShapeId;
use super::state::Reason;

/// Bytes that a trace costs beyond its records: list node, hash slot, key, and what the allocator rounds up.
const TRACE_OVERHEAD: usize = 448;

/// How many spaces for lines are kept to be used again.
const SPACES: usize = 256;

/// When traces are sealed. All times in µs.
#[derive(Clone, Debug)]
pub struct Limits {
    /// How long a completed trace waits for stragglers from other connections.
    pub linger: i64,
    /// How long after its last record an incomplete trace is sealed.
    pub idle_timeout: i64,
    /// How long a trace may take records at the most.
    pub max_age: i64,
    /// Open traces in this shard.
    pub max_traces: usize,
    /// Bytes of all open traces of this shard.
    pub max_bytes: usize,
    /// Bytes of one trace's records; what is beyond goes to the dead letter.
    pub max_trace_bytes: usize,
}

/// A record on its way into the table.
#[derive(Clone, Copy, Debug)]
pub struct Incoming<'a> {
    /// The trace id, not empty.
    pub key: &'a [u8],
    /// Event time, Unix ns.
    pub time: i64,
    /// The part that it belongs to.
    pub part: PartId,
    /// When the part was received, Unix µs.
    pub received: i64,
    /// Its number in the chunk.
    pub position: u32,
    /// The record, a MessagePack map.
    pub record: &'a [u8],
    /// Its metadata, a MessagePack map, or empty.
    pub metadata: &'a [u8],
    /// The tag that it came under.
    pub tag: &'a Arc<str>,
    /// Whether it says that its trace is complete.
    pub completes: bool,
    /// Its shape, when it is known, and its values are what the shape asks for.
    pub shape: Option<ShapeId>,
    /// With a shape: where its text lies in the record.
    pub text: Option<Span>,
}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a record that found no room must go to the dead letter"]
pub enum Added {
    /// It is in its trace.
    Kept,
    /// Its trace is at `max_trace_bytes`.
    NoRoom,
}

/// An open trace.
#[derive(Debug)]
pub(super) struct Trace<H> {
    pub(super) parts: SmallVec<[PartInfo; 2]>,
    /// One for each part.
    pub(super) holds: Holds<H>,
    pub(super) lines: Lines,
    pub(super) tags: SmallVec<[Arc<str>; 1]>,
    pub(super) opened: i64,
    pub(super) last_seen: i64,
    /// A record said that it is complete.
    pub(super) completed: bool,
    /// It is complete or too old, and stands among those that are due.
    pub(super) queued: bool,
}

/// A trace id. Those of the usual lengths (32 hex digits, a UUID) lie where they are looked up.
pub type Key = SmallVec<[u8; 40]>;

/// What must be held until a trace is written: one for each of its parts, of which there are mostly few.
pub type Holds<H> = SmallVec<[H; 2]>;

/// A trace that has left the table.
#[derive(Debug)]
pub struct Closed<'a, H> {
    /// Why it left.
    pub reason: Reason,
    content: Content<'a, H>,
}

#[derive(Debug)]
enum Content<'a, H> {
    Open { key: Key, trace: Trace<H> },
    Lingered(Left<'a, H>),
}

/// The open traces of one shard.
#[derive(Debug)]
pub struct Table<H> {
    limits: Limits,
    open: LruCache<Key, Trace<H>, foldhash::quality::RandomState>,
    /// Those of the open ones that became complete since they were settled, and when.
    completed: Vec<(i64, Key)>,
    lingering: Lingering<H>,
    /// Space of lines that are packed now.
    spaces: Vec<Lines>,
    /// How many were settled since `take_completed`.
    newly_completed: usize,
    /// Those of the open ones that are too old, or complete without being among the lingering, as they are due.
    due: VecDeque<(i64, Reason, Key)>,
    /// Bytes of the open ones.
    bytes: usize,
    lines: u64,
    /// Bytes of the lines of the traces that were closed last, on average.
    usual: usize,
}

impl<H> Table<H> {
    /// An empty table.
    pub fn new(limits: Limits) -> Self {
        let open = LruCache::unbounded_with_hasher(foldhash::quality::RandomState::default());
        Self {
            limits,
            open,
            completed: Vec::new(),
            lingering: Lingering::new(),
            spaces: Vec::new(),
            newly_completed: 0,
            due: VecDeque::new(),
            bytes: 0,
            lines: 0,
            usual: 512,
        }
    }

    /// Traces in it.
    pub fn len(&self) -> usize {
        self.open.len() + self.lingering.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of all traces, with what they cost beyond their records.
    pub fn bytes(&self) -> usize {
        self.bytes + self.lingering.bytes()
    }

    /// Whether there are more traces, or more bytes of them, than there may be.
    pub fn is_too_full(&self) -> bool {
        self.len() > self.limits.max_traces || self.bytes() > self.limits.max_bytes
    }

    /// Records in all traces.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// Puts a record into its trace, opening it if need be. `hold` is called when the record begins a part.
    pub fn add(&mut self, now: i64, incoming: &Incoming<'_>, hold: impl FnOnce() -> H) -> Added {
        let size = HEADER + incoming.record.len() + incoming.metadata.len();
        let max_bytes = self.limits.max_trace_bytes;
        if let Some(trace) = self.open.get_mut(incoming.key) {
            let before = trace.cost();
            let added = trace.add(now, incoming, hold, max_bytes, size);
            let cost = trace.cost();
            self.lines += u64::from(added == Added::Kept);
            self.bytes = self.bytes + cost - before;
            if !trace.queued {
                let too_old = now.saturating_sub(trace.opened) >= self.limits.max_age;
                trace.queued = incoming.completes || too_old;
                let (completes, queued) = (incoming.completes, trace.queued);
                if completes {
                    self.complete(now, Key::from_slice(incoming.key));
                } else if queued {
                    let key = Key::from_slice(incoming.key);
                    self.due.push_front((now, Reason::MaxAge, key));
                }
            }
            return added;
        }
        let key = Key::from_slice(incoming.key);
        let mut trace = if let Some((due, trace)) = self.lingering.take(incoming.key) {
            self.put_due(due, key.clone());
            trace
        } else {
            Trace::new(now, self.space(size))
        };
        let added = trace.add(now, incoming, hold, max_bytes, size);
        self.lines += u64::from(added == Added::Kept);
        if incoming.completes && !trace.queued {
            trace.queued = true;
            if self.limits.linger > 0 && Lingering::takes(&key, &trace) {
                self.newly_completed += 1;
                self.lay(now, &key, trace);
                return added;
            }
            self.complete(now, key.clone());
        }
        self.bytes += trace.cost();
        self.open.push(key, trace);
        added
    }

    /// Space for the lines of a new trace, of which the first takes `size` bytes.
    fn space(&mut self, size: usize) -> Lines {
        match self.spaces.pop() {
            Some(lines) if lines.capacity() >= size => lines,
            // A little more than usual, so that most traces never grow.
            _ => Lines::new(size, self.usual + self.usual / 8),
        }
    }

    /// Lays a trace that is complete since then where it waits for stragglers.
    fn lay(&mut self, since: i64, key: &Key, trace: Trace<H>) {
        let due = since.saturating_add(self.limits.linger);
        let lines = self.lingering.push(key, trace, due);
        if self.spaces.len() < SPACES && lines.capacity() <= 2 * self.usual {
            self.spaces.push(lines.emptied());
        }
    }

    /// Notes that an open trace is complete.
    fn complete(&mut self, now: i64, key: Key) {
        if self.limits.linger > 0 {
            self.completed.push((now, key));
        } else {
            self.newly_completed += 1;
            self.put_due(now, key);
        }
    }

    /// Lays the traces that have become complete where they wait for stragglers. Better once for all records that came
    /// together than after each: a trace that is open again costs more than one that still is.
    pub fn settle(&mut self) {
        let mut completed = std::mem::take(&mut self.completed);
        self.newly_completed += completed.len();
        for (since, key) in completed.drain(..) {
            // One that was sealed for want of room in the meantime is not there any more.
            let Some((key, trace)) = self.open.pop_entry(&*key) else {
                continue;
            };
            if trace.queued && Lingering::takes(&key, &trace) {
                self.bytes -= trace.cost();
                self.lay(since, &key, trace);
            } else {
                if trace.queued {
                    self.put_due(since.saturating_add(self.limits.linger), key.clone());
                }
                self.open.push(key, trace);
            }
        }
        self.completed = completed;
    }

    /// How many traces became complete since this was asked last.
    pub fn take_completed(&mut self) -> usize {
        std::mem::take(&mut self.newly_completed)
    }

    /// Remembers when a complete trace among the open ones is due.
    fn put_due(&mut self, due: i64, key: Key) {
        let at = self.due.partition_point(|(other, ..)| *other <= due);
        self.due.insert(at, (due, Reason::Completed, key));
    }

    /// The next trace that must be sealed by now: complete or too old, idle, or in the way of newer ones.
    /// Call it until it gives `None`, after each chunk and at each tick.
    pub fn next_closed(&mut self, now: i64) -> Option<Closed<'_, H>> {
        self.settle();
        let waits = |due: i64| due > now && due - now <= self.limits.linger;
        // Of a clock that was set back nobody waits for the old time to come again.
        if self.lingering.first_due().is_some_and(|due| !waits(due)) {
            return self.close_lingering();
        }
        while self.due.front().is_some_and(|(due, ..)| !waits(*due)) {
            let Some((_, reason, key)) = self.due.pop_front() else {
                break;
            };
            // One that was sealed for want of room in the meantime is not there any more; one that was opened again
            // under the same id is not marked, and waits for its own turn.
            let Some((key, trace)) = self.open.pop_entry(&*key) else {
                continue;
            };
            if trace.queued {
                return Some(self.closed(key, trace, reason));
            }
            self.open.push(key, trace);
        }
        if self.is_too_full() {
            // Those that are complete go first: most likely nothing of them is to come.
            return self.close_any(Reason::Evicted);
        }
        let (_, oldest) = self.open.peek_lru()?;
        let idle = now.saturating_sub(oldest.last_seen) >= self.limits.idle_timeout;
        if idle && !oldest.queued {
            return self.close_open(Reason::Idle);
        }
        None
    }

    /// Closes a trace, whatever its age: the one that has been complete for the longest, or else the one that was used
    /// least recently, for this reason.
    pub fn close_any(&mut self, reason: Reason) -> Option<Closed<'_, H>> {
        if self.lingering.len() > 0 {
            self.close_lingering()
        } else {
            self.close_open(reason)
        }
    }

    /// Closes all traces of which `pinned` says so of one of their holds.
    pub fn close_holding(&mut self, mut pinned: impl FnMut(&H) -> bool) -> Vec<Closed<'static, H>> {
        let mut all = Vec::new();
        for (key, trace) in self.lingering.take_holding(&mut pinned) {
            self.bytes += trace.cost();
            all.push(self.closed(key, trace, Reason::Completed));
        }
        let keys: Vec<Key> = self
            .open
            .iter()
            .filter(|(_, trace)| trace.holds.iter().any(&mut pinned))
            .map(|(key, _)| key.clone())
            .collect();
        all.extend(keys.iter().filter_map(|key| {
            let (key, trace) = self.open.pop_entry(&**key)?;
            Some(self.closed(key, trace, Reason::Evicted))
        }));
        all
    }

    fn close_open(&mut self, reason: Reason) -> Option<Closed<'static, H>> {
        let (key, trace) = self.open.pop_lru()?;
        Some(self.closed(key, trace, reason))
    }

    fn close_lingering(&mut self) -> Option<Closed<'_, H>> {
        let left = self.lingering.pop()?;
        self.lines -= u64::from(left.lines());
        self.usual = usual(self.usual, left.line_bytes());
        Some(Closed {
            reason: Reason::Completed,
            content: Content::Lingered(left),
        })
    }

    /// Of a trace that was among the open ones.
    fn closed(&mut self, key: Key, trace: Trace<H>, reason: Reason) -> Closed<'static, H> {
        self.bytes -= trace.cost();
        self.lines -= u64::from(trace.lines.len());
        self.usual = usual(self.usual, trace.lines.buffer().len());
        Closed {
            // That it is complete says more than why it had to go.
            reason: if trace.completed {
                Reason::Completed
            } else {
                reason
            },
            content: Content::Open { key, trace },
        }
    }
}

/// The moving average of the bytes of traces.
fn usual(before: usize, bytes: usize) -> usize {
    (before * 15 + bytes) / 16
}

impl<H> Closed<'_, H> {
    /// Its id.
    pub fn key(&self) -> &[u8] {
        match &self.content {
            Content::Open { key, .. } => key,
            Content::Lingered(left) => left.key(),
        }
    }

    /// Records in it.
    pub fn lines(&self) -> u32 {
        match &self.content {
            Content::Open { trace, .. } => trace.lines.len(),
            Content::Lingered(left) => left.lines(),
        }
    }

    /// The holds of its parts; what it was made of is gone then.
    pub fn into_holds(self) -> Holds<H> {
        match self.content {
            Content::Open { trace, .. } => trace.holds,
            Content::Lingered(left) => left.into_holds(),
        }
    }

    /// Its content for rendering, and how many of its records are left out because they stand in it twice (a chunk
    /// that came again after the window in which repeated chunks are told).
    pub fn gathered<'a>(&'a mut self, sealed_at: i64, scratch: &'a mut Scratch) -> (Gathered<'a>, u32) {
        let Scratch { parts, lines } = scratch;
        parts.clear();
        lines.clear();
        let (key, buffer, tags) = match &mut self.content {
            Content::Open { key, trace } => {
                parts.extend_from_slice(&trace.parts);
                lines.extend(trace.lines.iter());
                trace.tags.sort_unstable();
                (key.as_slice(), trace.lines.buffer(), trace.tags.as_slice())
            }
            Content::Lingered(left) => {
                left.sort_tags();
                let left = &*left;
                let buffer = left.list(parts, lines);
                (left.key(), buffer, left.tags())
            }
        };
        let twice = merge_equal_parts(parts, lines);
        (
            Gathered {
                key,
                parts,
                buffer,
                lines,
                tags,
                reason: self.reason,
                sealed_at,
            },
            twice,
        )
    }
}

impl<H> Trace<H> {
    fn new(now: i64, lines: Lines) -> Self {
        Self {
            parts: SmallVec::new(),
            holds: SmallVec::new(),
            lines,
            tags: SmallVec::new(),
            opened: now,
            last_seen: now,
            completed: false,
            queued: false,
        }
    }

    fn cost(&self) -> usize {
        let spilled = if self.parts.spilled() {
            self.parts.capacity() * (size_of::<PartInfo>() + size_of::<H>())
        } else {
            0
        };
        TRACE_OVERHEAD + self.lines.capacity() + spilled
    }

    fn add(
        &mut self,
        now: i64,
        incoming: &Incoming<'_>,
        hold: impl FnOnce() -> H,
        max_bytes: usize,
        size: usize,
    ) -> Added {
        self.last_seen = now;
        self.completed |= incoming.completes;
        // The records of a part follow each other, so only the last part can be this record's.
        if self.parts.last().is_none_or(|part| part.id != incoming.part) {
            self.parts.push(PartInfo {
                id: incoming.part,
                received: incoming.received,
                total: 0,
            });
            self.holds.push(hold());
            if !self
                .tags
                .iter()
                .any(|tag| Arc::ptr_eq(tag, incoming.tag) || tag == incoming.tag)
            {
                self.tags.push(Arc::clone(incoming.tag));
            }
        }
        if let Some(part) = self.parts.last_mut() {
            part.total += 1;
        }
        if self.lines.len() > 0 && self.lines.received() + size > max_bytes {
            return Added::NoRoom;
        }
        self.lines.push(&NewLine {
            time: incoming.time,
            part: self.parts.len() as u32 - 1,
            position: incoming.position,
            shape: incoming.shape,
            record: incoming.record,
            metadata: incoming.metadata,
            text: incoming.text,
        });
        Added::Kept
    }
}

/// Space for [`Closed::gathered`] that is used again.
#[derive(Debug, Default)]
pub struct Scratch {
    parts: Vec<PartInfo>,
    lines: Vec<Line>,
}

/// Makes parts of the same id one. Gives how many lines went because they were there twice.
fn merge_equal_parts(parts: &mut Vec<PartInfo>, lines: &mut Vec<Line>) -> u32 {
    let few = parts.len() <= 8;
    let unique = if few {
        parts
            .iter()
            .enumerate()
            .all(|(i, part)| parts[..i].iter().all(|other| other.id != part.id))
    } else {
        let mut ids: Vec<PartId> = parts.iter().map(|part| part.id).collect();
        ids.sort_unstable();
        ids.windows(2).all(|pair| pair[0] != pair[1])
    };
    if unique {
        return 0;
    }
    let mut number = std::collections::HashMap::new();
    let mut merged: Vec<PartInfo> = Vec::with_capacity(parts.len());
    let mut to = Vec::with_capacity(parts.len());
    for part in parts.iter() {
        let at = *number.entry(part.id).or_insert_with(|| {
            merged.push(*part);
            merged.len() - 1
        });
        // The same reception rule as in `union`: of one part received twice the later reception counts.
        merged[at].received = merged[at].received.max(part.received);
        merged[at].total = merged[at].total.max(part.total);
        to.push(at as u32);
    }
    let before = lines.len();
    let mut seen = std::collections::HashSet::new();
    lines.retain_mut(|line| {
        line.part = to.get(line.part as usize).copied().unwrap_or(line.part);
        seen.insert((line.part, line.position))
    });
    *parts = merged;
    (before - lines.len()) as u32
}
