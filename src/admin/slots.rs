//! Slots of the admin port's connections: which are open, and which one a new connection replaces.
//!
//! A connection is idle while it sends its request header or is kept alive between two requests. If
//! all slots are taken, a new connection replaces the one that has been idle for longest. If all of
//! them are busy with responses, it gets a slot for probes, which serves one request to a probe's
//! path.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Connections that are served completely.
const MAX_CONNECTIONS: usize = 256;
/// Further connections, for probes.
const MAX_PROBE_CONNECTIONS: usize = 64;
/// Time that each connection has for its request, however many others come. It also bounds the work
/// that a flood of connections causes.
const MIN_IDLE: Duration = Duration::from_millis(20);

/// What a connection may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SlotKind {
    /// Everything.
    Full,
    /// One request to a probe's path.
    Probe,
}

/// What a connection does.
#[derive(Debug)]
pub(super) struct Activity {
    kind: SlotKind,
    opened: Instant,
    /// Responses and writes in progress.
    busy: AtomicUsize,
    /// When it became idle, in milliseconds after `opened`.
    idle_since_ms: AtomicU64,
}

impl Activity {
    fn new(kind: SlotKind) -> Self {
        Self {
            kind,
            opened: Instant::now(),
            busy: AtomicUsize::new(0),
            idle_since_ms: AtomicU64::new(0),
        }
    }

    pub(super) fn kind(&self) -> SlotKind {
        self.kind
    }

    /// How long it has been idle; `None` while it is busy.
    fn idle_time(&self) -> Option<Duration> {
        if self.busy.load(Ordering::Acquire) > 0 {
            return None;
        }
        let since = Duration::from_millis(self.idle_since_ms.load(Ordering::Acquire));
        Some(self.opened.elapsed().saturating_sub(since))
    }
}

/// A response or a write in progress, until it is dropped.
#[derive(Debug)]
pub(super) struct Busy(Arc<Activity>);

impl Busy {
    pub(super) fn new(activity: Arc<Activity>) -> Self {
        activity.busy.fetch_add(1, Ordering::AcqRel);
        Self(activity)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let now = u64::try_from(self.0.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.idle_since_ms.store(now, Ordering::Release);
        self.0.busy.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The slot of one connection; dropped when the connection ends.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) activity: Arc<Activity>,
    /// Cancelled when another connection takes the slot.
    pub(super) closed: CancellationToken,
}

impl Slot {
    pub(super) fn new(kind: SlotKind) -> Self {
        Self {
            activity: Arc::new(Activity::new(kind)),
            closed: CancellationToken::new(),
        }
    }

    fn share(&self) -> Self {
        Self {
            activity: Arc::clone(&self.activity),
            closed: self.closed.clone(),
        }
    }

    /// Whether the connection still holds its end.
    fn is_open(&self) -> bool {
        Arc::strong_count(&self.activity) > 1
    }
}

/// All slots in use.
#[derive(Debug, Default)]
pub(super) struct Slots {
    full: Vec<Slot>,
    probes: Vec<Slot>,
}

impl Slots {
    /// A slot for a new connection; another one may be closed for it.
    pub(super) async fn take(&mut self) -> Slot {
        loop {
            self.full.retain(Slot::is_open);
            self.probes.retain(Slot::is_open);
            if self.full.len() < MAX_CONNECTIONS {
                return open(&mut self.full, SlotKind::Full);
            }
            let (slots, victim) = match longest_idle(&self.full) {
                Some(victim) => (&mut self.full, victim),
                None if self.probes.len() < MAX_PROBE_CONNECTIONS => {
                    return open(&mut self.probes, SlotKind::Probe);
                }
                // The response to a probe is small: one that is busy for long is not read.
                None => {
                    let oldest = (0, Duration::MAX);
                    let victim = longest_idle(&self.probes).unwrap_or(oldest);
                    (&mut self.probes, victim)
                }
            };
            let (index, idle_time) = victim;
            let wait = MIN_IDLE.saturating_sub(idle_time);
            if wait.is_zero() {
                slots.remove(index).closed.cancel();
            } else {
                tokio::time::sleep(wait).await;
            }
        }
    }
}

fn open(slots: &mut Vec<Slot>, kind: SlotKind) -> Slot {
    let slot = Slot::new(kind);
    slots.push(slot.share());
    slot
}

/// The index of the connection that has been idle for longest, and for how long.
fn longest_idle(slots: &[Slot]) -> Option<(usize, Duration)> {
    slots
        .iter()
        .enumerate()
        .filter_map(|(index, slot)| Some((index, slot.activity.idle_time()?)))
        .max_by_key(|(_, time)| *time)
}
