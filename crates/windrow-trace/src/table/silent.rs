//! Silent traces: open ones that got no record for a while. Their completion record may have come to
//! another instance, and then nothing more comes here.
//!
//! A search looks at a bounded number of traces and costs records nothing. Whether the document of a
//! silent trace is complete is not known here.

use super::Table;
use crate::document::state::SealReason;
use crate::open::slab::SlotKey;
use crate::sealed::SealedTrace;
use crate::trace_id::TraceId;

/// Traces that one search looks at.
const MAX_EXAMINED: usize = 4096;
/// A trace is found again after twice the silence, so often.
const MAX_DOUBLINGS: u8 = 12;

/// A trace that got no record for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SilentTrace {
    /// The trace id.
    pub id: Vec<u8>,
    /// See [`TraceId::with_destination`](crate::TraceId::with_destination).
    pub destination: u16,
    /// Event time of its first record, Unix ns.
    pub first_ns: i64,
}

impl<H: Clone> Table<H> {
    /// At most `limit` open traces that are not complete and got no record for `silence` (µs). Each
    /// is found again after twice the silence, and four times. Goes on where the last call ended.
    pub fn find_silent(&mut self, now: i64, silence: i64, limit: usize) -> Vec<SilentTrace> {
        let mut found = Vec::new();
        let from = self
            .silent_from
            .take()
            .filter(|key| self.open.get_mut(*key).is_some());
        let mut next: Option<SlotKey> = from.or_else(|| self.open.oldest().map(|(key, _)| key));
        for _ in 0..MAX_EXAMINED {
            let Some((key, (id, trace))) = next.and_then(|key| Some((key, self.open.get_mut(key)?))) else {
                break;
            };
            // The list is in the order of promotion: those behind it got records since.
            if now.saturating_sub(trace.promoted_at) < silence {
                next = None;
                break;
            }
            let due = silence.saturating_mul(1 << trace.lookups);
            if !trace.has_deadline && now.saturating_sub(trace.last_seen) >= due {
                if found.len() == limit {
                    break;
                }
                trace.lookups = MAX_DOUBLINGS.min(trace.lookups + 1);
                found.push(SilentTrace {
                    id: id.bytes().to_vec(),
                    destination: self.hasher.destination(id.hash(), id.bytes()),
                    first_ns: trace.first_ns(),
                });
            }
            next = self.open.after(key);
        }
        self.silent_from = next;
        found
    }

    /// Seals a trace if it is still open and silent.
    pub fn seal_silent(&mut self, now: i64, silence: i64, id: TraceId<'_>) -> Option<SealedTrace<'_, H>> {
        let (key, trace) = self.open.find(id)?;
        let is_silent = now.saturating_sub(trace.last_seen) >= silence;
        if trace.has_deadline || !is_silent {
            return None;
        }
        self.seal_slot(now, key, SealReason::Idle)
    }
}
