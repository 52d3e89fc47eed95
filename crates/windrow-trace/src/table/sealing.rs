//! Sealing: which trace leaves the table next, and why.

use super::{PREFETCH_RECORDS_AHEAD, Table};
use crate::document::state::SealReason;
use crate::open::slab::SlotKey;
use crate::open::trace::OpenTrace;
use crate::sealed::{Keeper, SealedTrace};
use crate::source::SourceId;
use crate::table::Limits;
use crate::trace_id::TraceId;

impl<H: Clone> Table<H> {
    /// Seals the next trace that is due by `now`: completed, idle, too old, or evicted. Call it
    /// until it returns `None`, after each chunk and at each tick.
    pub fn next_sealed(&mut self, now: i64) -> Option<SealedTrace<'_, H>> {
        self.move_completed();
        while let Some((since, key)) = self.ready.pop_front() {
            if let Some((_, ahead)) = self
                .ready
                .get(PREFETCH_RECORDS_AHEAD)
                .filter(|_| self.exceeds_cache())
            {
                self.open.prefetch_all(*ahead);
            }
            if let Some((id, trace)) = self.open.get_mut(key) {
                let due = since.saturating_add(self.limits.linger);
                if due > now {
                    self.sealed_early += 1;
                    self.budget
                        .sealed_early(now, id.hash(), due, trace.record_bytes());
                }
                return self.seal_slot(now, key, SealReason::Completed);
            }
        }
        let linger = self.limits.linger;
        let is_pending = |due: i64| due > now && due - now <= linger;
        // A deadline further away than the linger time is one from before the clock was set back.
        if self.lingering.first_due().is_some_and(|due| !is_pending(due))
            || self.lingering.bytes() > self.budget.bytes(now)
        {
            return self.seal_lingering(now);
        }
        while self.deadlines.front().is_some_and(|(due, ..)| !is_pending(*due)) {
            let Some((_, reason, key)) = self.deadlines.pop_front() else {
                break;
            };
            // It may have been sealed for lack of memory since.
            let Some(late_due) = self.late_due(key) else {
                continue;
            };
            if reason == SealReason::Idle && is_pending(late_due) {
                self.set_deadline(late_due, reason, key);
                continue;
            }
            return self.seal_slot(now, key, reason);
        }
        if self.is_too_full() {
            // Completed traces go first: most likely they get no more records.
            if self.lingering.len() == 0 {
                self.promote_used(now);
            }
            return self.seal_any(now, SealReason::Evicted);
        }
        let (_, oldest) = self.open.oldest()?;
        let idle = now.saturating_sub(oldest.last_seen) >= self.limits.idle_timeout;
        if idle && !oldest.has_deadline {
            return self.seal_oldest(now, SealReason::Idle);
        }
        None
    }

    /// Promotes traces that were used since their last promotion, until the tail of the list is the
    /// least recently used trace.
    fn promote_used(&mut self, now: i64) {
        while let Some((key, oldest)) = self.open.oldest()
            && oldest.last_seen > oldest.promoted_at
        {
            oldest.promoted_at = now;
            // After the clock was set back, `last_seen` would stay ahead of `promoted_at`.
            oldest.last_seen = oldest.last_seen.min(now);
            self.open.promote(key);
        }
    }

    /// Seals a trace whatever its age: the one that completed first, else the least recently used
    /// one, for `reason`.
    pub fn seal_any(&mut self, now: i64, reason: SealReason) -> Option<SealedTrace<'_, H>> {
        if self.lingering.len() > 0 {
            self.seal_lingering(now)
        } else {
            self.seal_oldest(now, reason)
        }
    }

    /// The ids and destinations of all traces with a source whose guard satisfies `predicate`.
    pub fn ids_holding(&self, predicate: impl FnMut(&H) -> bool) -> Vec<(Vec<u8>, u16)> {
        let sources = self.sources.matching(predicate);
        let matches = |source: SourceId| sources.get(source.0 as usize).is_some_and(|matches| *matches);
        let mut ids = self.lingering.ids_with(matches);
        let has = |trace: &OpenTrace| trace.parts.iter().any(|part| matches(part.source));
        let open = self.open.iter().filter(|(_, trace)| has(trace));
        ids.extend(open.map(|(id, _)| (id.bytes().to_vec(), id.hash())));
        let with_destination = |(id, hash): (Vec<u8>, u64)| {
            let destination = self.hasher.destination(hash, &id);
            (id, destination)
        };
        ids.into_iter().map(with_destination).collect()
    }

    /// Seals the trace with this id before it is due.
    pub fn seal(&mut self, id: TraceId<'_>) -> Option<SealedTrace<'_, H>> {
        if self.lingering.contains(id) {
            let (_, trace) = self.lingering.take(id)?;
            self.lines -= u64::from(trace.count());
            return Some(SealedTrace::reopened(id.into(), trace, self.keeper()));
        }
        let (key, _) = self.open.find(id)?;
        self.take_slot(key, SealReason::Evicted)
    }

    fn seal_oldest(&mut self, now: i64, reason: SealReason) -> Option<SealedTrace<'_, H>> {
        let (key, _) = self.open.oldest()?;
        self.seal_slot(now, key, reason)
    }

    fn seal_lingering(&mut self, now: i64) -> Option<SealedTrace<'_, H>> {
        let popped = self.lingering.pop()?;
        if popped.due() > now {
            self.sealed_early += 1;
            self.budget
                .sealed_early(now, popped.hash(), popped.due(), popped.bytes());
        }
        self.recently_sealed.insert(popped.hash(), now);
        self.lines -= u64::from(popped.count());
        let keeper = Keeper {
            sources: &mut self.sources,
            buffers: &mut self.buffers,
            hasher: &self.hasher,
        };
        Some(SealedTrace::lingered(popped, keeper))
    }

    pub(super) fn seal_slot(
        &mut self,
        now: i64,
        key: SlotKey,
        reason: SealReason,
    ) -> Option<SealedTrace<'_, H>> {
        // One that is too old goes on: its next lines are not the last.
        if reason != SealReason::MaxAge
            && let Some((id, _)) = self.open.get_mut(key)
        {
            self.recently_sealed.insert(id.hash(), now);
        }
        self.take_slot(key, reason)
    }

    fn take_slot(&mut self, key: SlotKey, reason: SealReason) -> Option<SealedTrace<'_, H>> {
        let slot = self.open.take(key)?;
        self.bytes -= slot.trace.memory_bytes();
        self.lines -= u64::from(slot.trace.count());
        self.buffers.observe(slot.trace.record_bytes());
        // That it completed says more than why it was sealed now.
        let reason = if slot.trace.is_complete {
            SealReason::Completed
        } else {
            reason
        };
        let keeper = Keeper {
            sources: &mut self.sources,
            buffers: &mut self.buffers,
            hasher: &self.hasher,
        };
        Some(SealedTrace::open(reason, slot, keeper))
    }

    fn keeper(&mut self) -> Keeper<'_, H> {
        Keeper {
            sources: &mut self.sources,
            buffers: &mut self.buffers,
            hasher: &self.hasher,
        }
    }

    /// When a trace of late lines is due: the linger time after its last line, but no later than
    /// the idle timeout after its first.
    fn late_due(&mut self, key: SlotKey) -> Option<i64> {
        let Limits {
            linger, idle_timeout, ..
        } = self.limits;
        let (_, trace) = self.open.get_mut(key)?;
        let quiet = trace.last_seen.saturating_add(linger);
        Some(quiet.min(trace.opened_at.saturating_add(idle_timeout)))
    }
}
