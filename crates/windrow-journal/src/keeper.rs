//! The one that keeps house beside the writer: allocates the next segment, cuts off what was allocated and not
//! used, writes notes, removes dead segments or keeps their files for new ones.
//!
//! [`Keeper::tick`] does all that is due once and knows no threads; [`Keeper::run`] is the thread around it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, error, info, warn};

use super::format::{notes_name, segment_name, spare_name};
use super::notes::Notes;
use super::shared::{Retired, Shared, State, lock};
use super::storage::{QUARANTINE, Storage, is_no_space};

/// Releases gather this long before they are noted.
const NOTES_DELAY: Duration = Duration::from_millis(200);
/// What failed is tried again after this time.
const RETRY: Duration = Duration::from_millis(250);
/// Files of dead segments that are kept to be used again.
const SPARES: usize = 2;

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
        let mut ahead = lock(&self.shared.ahead);
        if let Some(prepared) = ahead.ready.take() {
            self.shared.discard(prepared);
        }
        self.shared.remove_spares(&mut ahead);
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
            let name = segment_name(number);
            let gone = match self.fate(number) {
                Fate::SetAside => set_aside(&*shared.storage, &name),
                Fate::UseAgain => self.spare(number),
                Fate::Remove => shared.storage.remove(&name),
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

    /// What becomes of the file of a dead segment.
    fn fate(&self, number: u64) -> Fate {
        let shared = &self.shared;
        let ahead = lock(&shared.ahead);
        let size = shared.segment_bytes;
        // With the one that is ready they stay within the limit, whatever is written into the present segment.
        let spares = ahead.spares.len() as u64;
        let more = size.saturating_mul(spares + 2);
        let mut state = lock(&shared.state);
        let used = state.segments.bytes();
        let Some(segment) = state.segments.by_number_mut(number) else {
            return Fate::Remove;
        };
        if segment.keep_file {
            return Fate::SetAside;
        }
        let fits =
            (size / 2..=size).contains(&segment.end) && used - segment.end + more <= shared.limit_bytes;
        // A damaged file has a second name in the quarantine.
        segment.leaving = segment.reusable && !segment.damaged && fits && ahead.spares.len() < SPARES;
        let leaving = segment.leaving;
        drop(state);
        drop(ahead);
        match leaving && shared.has_room() {
            true => Fate::UseAgain,
            false => Fate::Remove,
        }
    }

    /// Keeps the file of a dead segment.
    fn spare(&self, number: u64) -> io::Result<()> {
        let shared = &self.shared;
        shared
            .storage
            .rename(&segment_name(number), &spare_name(number))?;
        lock(&shared.ahead).spares.push(number);
        Ok(())
    }

    fn prepare_ahead(&self) -> bool {
        let shared = &self.shared;
        let mut ahead = lock(&shared.ahead);
        if !ahead.spares.is_empty() && !shared.has_room() {
            shared.remove_spares(&mut ahead);
        }
        let used = lock(&shared.state).segments.bytes();
        let mut no_space = false;
        let mut failed = false;
        if ahead.ready.is_none() && used + shared.segment_bytes <= shared.limit_bytes {
            match shared.prepare(&mut ahead, false) {
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

/// What becomes of the file of a dead segment.
enum Fate {
    Remove,
    /// Into the quarantine.
    SetAside,
    UseAgain,
}

/// Moves a damaged file into the quarantine.
fn set_aside(storage: &dyn Storage, name: &str) -> io::Result<()> {
    storage.create_folder(QUARANTINE)?;
    storage.rename(name, &format!("{QUARANTINE}/{name}"))
}
