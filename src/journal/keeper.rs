//! The one that keeps house beside the writer: allocates the next segment, cuts off what was allocated and not
//! used, writes notes, removes dead segments.
//!
//! [`Keeper::tick`] does all that is due once and knows no threads; [`Keeper::run`] is the thread around it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, error, info, warn};

use super::format::{SEGMENT_HEADER_BYTES, notes_name, segment_name};
use super::notes::Notes;
use super::shared::{Retired, Shared, State, lock};
use super::storage::{QUARANTINE, Storage, StorageFile, is_no_space};

/// Releases gather this long before they are noted.
const NOTES_DELAY: Duration = Duration::from_millis(200);
/// What failed is tried again after this time.
const RETRY: Duration = Duration::from_millis(250);
/// The smallest segment that is begun when the disk is nearly full (or the configured size, if smaller).
const SMALLEST: u64 = 1 << 20;

/// Says it when the keeper panics: from then on no segment is removed.
struct WhenGone(Arc<Shared>);

impl Drop for WhenGone {
    fn drop(&mut self) {
        if std::thread::panicking() {
            error!("the journal's keeper thread panicked: no space is given back any more, restart Windrow");
            lock(&self.0.state).ended = Some("keeper");
        }
    }
}

/// Why the keeper wakes.
#[derive(Default)]
pub(super) struct Signals {
    /// Something should be done now.
    pub(super) work: bool,
    /// There are releases to note, soon.
    pub(super) notes: bool,
    pub(super) stop: bool,
}

/// The segment after the one in use.
pub(super) struct Ahead {
    pub(super) next_number: u64,
    pub(super) ready: Option<Prepared>,
}

/// A segment file that is allocated and durable, and has no header yet.
pub(super) struct Prepared {
    pub(super) number: u64,
    pub(super) file: Box<dyn StorageFile>,
    pub(super) capacity: u64,
}

pub(super) struct Keeper {
    shared: Arc<Shared>,
    notes: Notes,
    /// Segments that could not be removed, each said once.
    stuck: BTreeSet<u64>,
}

impl Keeper {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            notes: Notes::default(),
            stuck: BTreeSet::new(),
        }
    }

    /// The thread: until it is told to stop; then it writes the last notes.
    pub(super) fn run(mut self) {
        let _guard = WhenGone(Arc::clone(&self.shared));
        let mut again = true;
        loop {
            let stop = self.wait(again);
            again = self.tick();
            if stop {
                break;
            }
        }
        if let Some(Prepared { number, file, .. }) = lock(&self.shared.ahead).ready.take() {
            drop(file);
            // If it stays, recovery removes it.
            let _ = self.shared.storage.remove(&segment_name(number));
        }
    }

    /// Waits until something is due. True when it is time to stop.
    fn wait(&self, again: bool) -> bool {
        let shared = &self.shared;
        let mut signals = lock(&shared.signals);
        loop {
            if signals.work || signals.stop {
                break;
            }
            if !again && !signals.notes {
                let waited = shared.signals_changed.wait(signals);
                signals = waited.unwrap_or_else(std::sync::PoisonError::into_inner);
                continue;
            }
            let delay = if again { RETRY } else { NOTES_DELAY };
            let waited = shared
                .signals_changed
                .wait_timeout_while(signals, delay, |s| !s.work && !s.stop);
            signals = waited.map_or_else(|poisoned| poisoned.into_inner().0, |(signals, _)| signals);
            break;
        }
        signals.work = false;
        signals.notes = false;
        signals.stop
    }

    /// Does all that is due. True if something failed and should be tried again.
    pub(super) fn tick(&mut self) -> bool {
        let mut state = lock(&self.shared.state);
        let retired = std::mem::take(&mut state.retired);
        let released = std::mem::take(&mut state.to_note);
        drop(state);
        for segment in retired {
            self.retire(segment);
        }
        self.note(released);
        let mut again = self.remove_dead();
        again |= self.prepare_ahead();
        if lock(&self.shared.state).blocked.is_some() {
            self.shared.kick_writer();
        }
        again
    }

    fn retire(&mut self, segment: Retired) {
        let Retired {
            number,
            instance,
            next_lsn,
            end,
            file,
        } = segment;
        if let Some(mut file) = file
            && file.len().is_ok_and(|len| len > end)
        {
            // Where this fails, a few allocated bytes stay until the segment goes.
            let _ = file.set_len(end);
        }
        if let Err(error) = self.notes.seal(&*self.shared.storage, number, instance, next_lsn) {
            debug!(segment = number, %error, "the end of a segment was not noted: it may be looked for at a restart");
            self.notes.forget(number);
        }
    }

    fn note(&mut self, mut lsns: Vec<u64>) {
        lsns.sort_unstable();
        let mut by_segment: BTreeMap<(u64, u64), Vec<u64>> = BTreeMap::new();
        let state = lock(&self.shared.state);
        for lsn in lsns {
            let segment = state
                .segments
                .at_or_after(lsn)
                .filter(|segment| segment.first_lsn <= lsn);
            // A segment that goes now needs no notes.
            if let Some(segment) = segment.filter(|segment| !segment.sealed || segment.unreleased() > 0) {
                by_segment
                    .entry((segment.number, segment.instance))
                    .or_default()
                    .push(lsn);
            }
        }
        drop(state);
        for ((number, instance), lsns) in by_segment {
            if let Err(error) = self.notes.append(&*self.shared.storage, number, instance, &lsns) {
                debug!(segment = number, %error, "releases were not noted: after a restart they are done again");
                self.notes.forget(number);
            }
        }
    }

    fn remove_dead(&mut self) -> bool {
        let shared = &self.shared;
        let dead = lock(&shared.state).segments.dead();
        let mut again = false;
        for number in dead {
            let keep = lock(&shared.state)
                .segments
                .by_number(number)
                .is_some_and(|segment| segment.keep_file);
            let name = segment_name(number);
            let gone = match keep {
                true => set_aside(&*shared.storage, &name),
                false => shared.storage.remove(&name),
            };
            match gone {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    if self.stuck.insert(number) {
                        warn!(segment = number, %error, "cannot remove a journal segment that is done with; trying on");
                    }
                    again = true;
                }
                _ => {
                    self.notes.forget(number);
                    self.stuck.remove(&number);
                    // Without its segment it means nothing; what stays is removed by recovery.
                    let _ = shared.storage.remove(&notes_name(number));
                    lock(&shared.state).segments.remove(number);
                    shared.kick_writer();
                }
            }
        }
        again
    }

    fn prepare_ahead(&self) -> bool {
        let shared = &self.shared;
        let mut ahead = lock(&shared.ahead);
        let used = lock(&shared.state).segments.bytes();
        let mut no_space = false;
        let mut failed = false;
        if ahead.ready.is_none() && used + shared.segment_bytes <= shared.limit_bytes {
            match prepare(shared, &mut ahead.next_number, false) {
                Ok(prepared) => ahead.ready = Some(prepared),
                Err(error) if is_no_space(&error) => no_space = true,
                Err(error) => {
                    debug!(%error, "cannot prepare the next journal segment");
                    failed = true;
                }
            }
        }
        drop(ahead);
        let mut state = lock(&shared.state);
        let State { no_space_ahead, .. } = &mut *state;
        let before = std::mem::replace(no_space_ahead, no_space);
        drop(state);
        if no_space && !before {
            warn!(
                dir = %shared.dir.display(),
                "no space on the disk for the next journal segment: nothing more is accepted until there is"
            );
        } else if before && !no_space {
            info!("there is space for the next journal segment again");
            shared.kick_writer();
        }
        no_space || failed
    }
}

impl Shared {
    /// The prepared segment, or one that is prepared now.
    pub(super) fn take_prepared(&self, in_need: bool) -> io::Result<Prepared> {
        let mut ahead = lock(&self.ahead);
        match ahead.ready.take() {
            Some(prepared) => Ok(prepared),
            None => prepare(self, &mut ahead.next_number, in_need),
        }
    }
}

/// Makes a segment file: allocated, and durable in its folder. On a nearly full disk it becomes smaller, and
/// some space is left for others (the dead letter must be able to write, or nothing would ever be released).
fn prepare(shared: &Shared, next_number: &mut u64, in_need: bool) -> io::Result<Prepared> {
    let smallest = SMALLEST.min(shared.segment_bytes);
    let mut capacity = if in_need {
        smallest.min(64 << 10)
    } else {
        shared.segment_bytes
    };
    let reserve = if in_need { 0 } else { shared.segment_bytes / 8 };
    loop {
        let enough = shared
            .storage
            .free_bytes()
            .map_or(true, |free| free >= capacity + reserve);
        let made = match enough {
            true => make(&*shared.storage, next_number, capacity),
            false => Err(io::ErrorKind::StorageFull.into()),
        };
        match made {
            Err(error) if is_no_space(&error) && capacity / 4 >= smallest => capacity /= 4,
            other => return other,
        }
    }
}

/// Moves a damaged file into the quarantine.
fn set_aside(storage: &dyn Storage, name: &str) -> io::Result<()> {
    storage.create_folder(QUARANTINE)?;
    storage.rename(name, &format!("{QUARANTINE}/{name}"))
}

fn make(storage: &dyn Storage, next_number: &mut u64, capacity: u64) -> io::Result<Prepared> {
    let number = *next_number;
    *next_number += 1;
    let name = segment_name(number);
    let mut file = storage.create(&name)?;
    let allocated = match file.allocate(capacity.max(SEGMENT_HEADER_BYTES)) {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
        other => other,
    };
    let durable = allocated
        .and_then(|()| file.sync_all())
        .and_then(|()| storage.sync_folder());
    match durable {
        Ok(()) => Ok(Prepared {
            number,
            file,
            capacity,
        }),
        Err(error) => {
            drop(file);
            let _ = storage.remove(&name);
            Err(error)
        }
    }
}
