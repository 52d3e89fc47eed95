//! Background thread: preallocates, recycles and unlinks segments, and writes the release logs.
//!
//! [`Maintenance::tick`] does all work that is due, without waiting; [`Maintenance::run`] is the
//! thread around it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use tracing::{debug, error, info, warn};

use crate::format::{release_log_name, segment_name, spare_name};
use crate::manifest::LiveSegment;
use crate::preallocator::Preallocation;
use crate::quarantine::{QuarantineMode, quarantine};
use crate::release_log::ReleaseLogs;
use crate::shared::{SealedSegment, Shared};
use crate::storage::{Storage, is_no_space};
use crate::sync::lock;

/// Tries to write the manifest on a full disk before segments are emptied without an entry in it.
const MANIFEST_TRIES: u32 = 3;

pub(crate) struct Maintenance {
    shared: Arc<Shared>,
    release_logs: ReleaseLogs,
    /// Segments that could not be removed; each was logged once.
    stuck: BTreeSet<u64>,
    /// Failed writes of the manifest in a row for lack of space.
    manifest_no_space: u32,
    /// Segments that were emptied although the manifest names them.
    emptied: Vec<u64>,
}

/// Whether the manifest says that the obsolete segments are removed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ManifestEntry {
    Durable,
    /// Their space is needed before the entry can be written.
    NoSpace,
    Failed,
}

/// What is to be done with the file of an obsolete segment.
enum Disposal {
    Unlink,
    Recycle,
    Quarantine,
}

impl Maintenance {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            release_logs: ReleaseLogs::default(),
            stuck: BTreeSet::new(),
            manifest_no_space: 0,
            emptied: Vec::new(),
        }
    }

    /// Runs until it is told to stop; then logs the last releases.
    pub(crate) fn run(mut self) {
        let _guard = PanicGuard(Arc::clone(&self.shared));
        let mut retry = true;
        loop {
            let stop = self.shared.signals.wait(retry);
            retry = self.tick();
            if stop {
                break;
            }
        }
        self.close_manifest();
        self.shared.preallocator.discard_all();
    }

    /// Does all work that is due. True if something failed and is to be tried again.
    pub(crate) fn tick(&mut self) -> bool {
        let mut state = lock(&self.shared.state);
        let sealed = std::mem::take(&mut state.sealed_segments);
        let released = std::mem::take(&mut state.unlogged_releases);
        drop(state);
        for segment in sealed {
            self.finish_sealed(segment);
        }
        self.log_releases(released);
        let mut retry = self.remove_obsolete();
        retry |= self.preallocate();
        if lock(&self.shared.state).blocked.is_some() {
            self.shared.queue.recheck();
        }
        retry
    }

    /// Gives back the unused space of a sealed segment and logs where it ends.
    fn finish_sealed(&mut self, segment: SealedSegment) {
        let SealedSegment {
            number,
            instance,
            next_lsn,
            end,
            file,
        } = segment;
        if let Some(mut file) = file
            && file.len().is_ok_and(|len| len > end)
        {
            // If this fails, the space is given back with the segment.
            let _ = file.set_len(end);
        }
        let storage = &*self.shared.storage;
        if let Err(error) = self.release_logs.seal(storage, number, instance, next_lsn) {
            debug!(segment = number, %error, "cannot log the end of a segment; recovery may have to read it");
            self.release_logs.close(number);
        }
    }

    fn log_releases(&mut self, mut lsns: Vec<u64>) {
        lsns.sort_unstable();
        let mut by_segment: BTreeMap<(u64, u64), Vec<u64>> = BTreeMap::new();
        let state = lock(&self.shared.state);
        for lsn in lsns {
            let segment = state
                .segments
                .at_or_after(lsn)
                .filter(|segment| segment.first_lsn <= lsn);
            // An obsolete segment is removed with its log.
            if let Some(segment) = segment.filter(|segment| !segment.sealed || segment.unreleased() > 0) {
                by_segment
                    .entry((segment.number, segment.instance))
                    .or_default()
                    .push(lsn);
            }
        }
        drop(state);
        let storage = &*self.shared.storage;
        for ((number, instance), lsns) in by_segment {
            if let Err(error) = self.release_logs.append(storage, number, instance, &lsns) {
                debug!(segment = number, %error, "cannot log releases; these records come back after a restart");
                self.release_logs.close(number);
            }
        }
    }

    /// Removes the segments that are not needed any more. True if one could not be removed.
    fn remove_obsolete(&mut self) -> bool {
        let shared = &self.shared;
        let obsolete = lock(&shared.state).segments.obsolete();
        let entry = self.log_in_manifest(&obsolete);
        if entry == ManifestEntry::Failed {
            return true;
        }
        let shared = &self.shared;
        let mut retry = entry == ManifestEntry::NoSpace;
        for number in obsolete {
            let removed = match self.disposal(number) {
                // It stays until there is an entry: the quarantine would free no space.
                Disposal::Quarantine if entry == ManifestEntry::NoSpace => continue,
                _ if entry == ManifestEntry::NoSpace => {
                    let emptied = empty(&*shared.storage, number);
                    self.emptied.extend(emptied.is_ok().then_some(number));
                    emptied
                }
                Disposal::Quarantine => quarantine(&*shared.storage, number, QuarantineMode::Move),
                Disposal::Recycle => shared.preallocator.recycle(number),
                Disposal::Unlink => shared.storage.remove(&segment_name(number)),
            };
            match removed {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    if self.stuck.insert(number) {
                        warn!(segment = number, %error, "cannot remove an obsolete journal segment; retrying");
                    }
                    retry = true;
                }
                _ => {
                    self.release_logs.close(number);
                    self.stuck.remove(&number);
                    // Recovery removes it if this fails.
                    let _ = shared.storage.remove(&release_log_name(number));
                    lock(&shared.state).segments.remove(number);
                    shared.queue.recheck();
                }
            }
        }
        retry
    }

    /// Logs new segments, and those that are about to be removed.
    fn log_in_manifest(&mut self, obsolete: &[u64]) -> ManifestEntry {
        let shared = &self.shared;
        let mut manifest = lock(&shared.manifest);
        let logged = manifest.newest_number();
        let state = lock(&shared.state);
        let new = state
            .segments
            .iter()
            .filter(|segment| Some(segment.number) > logged);
        let begun: Vec<(u64, LiveSegment)> = new
            .map(|segment| {
                let live = LiveSegment {
                    first_lsn: segment.first_lsn,
                    continues_lsn: segment.continues_lsn,
                    bytes: shared.segment_bytes.max(segment.end),
                    end_lsn: None,
                };
                (segment.number, live)
            })
            .collect();
        drop(state);
        match manifest.log(&*shared.storage, &begun, obsolete) {
            Ok(()) => {
                self.manifest_no_space = 0;
                for number in self.emptied.drain(..) {
                    // Recovery removes it if this fails.
                    let _ = shared.storage.remove(&spare_name(number));
                }
                ManifestEntry::Durable
            }
            Err(error) if is_no_space(&error) && self.manifest_no_space >= MANIFEST_TRIES => {
                // On a file system that cannot overwrite a preallocated file in place, only
                // segments that are given up make space.
                ManifestEntry::NoSpace
            }
            Err(error) => {
                let first = self.manifest_no_space == 0;
                self.manifest_no_space += u32::from(is_no_space(&error));
                if first {
                    debug!(%error, "cannot write the journal's manifest; obsolete segments are kept until that works");
                }
                ManifestEntry::Failed
            }
        }
    }

    /// Logs the end of the newest segment, so that its records can be counted if its file is lost.
    fn close_manifest(&self) {
        let shared = &self.shared;
        let state = lock(&shared.state);
        let newest = state.segments.newest();
        let newest = newest.map(|segment| (segment.number, segment.next_lsn));
        drop(state);
        if let Some((number, next_lsn)) = newest {
            // If this fails, only the number of lost records would be unknown.
            let _ = lock(&shared.manifest).close(&*shared.storage, number, next_lsn);
        }
    }

    fn disposal(&self, number: u64) -> Disposal {
        let shared = &self.shared;
        let segment_bytes = shared.segment_bytes;
        let disposal = shared.preallocator.decide_recycling(|spare_bytes| {
            let mut state = lock(&shared.state);
            let used = state.segments.bytes();
            let Some(segment) = state.segments.by_number_mut(number) else {
                return Disposal::Unlink;
            };
            if segment.quarantine_on_removal {
                return Disposal::Quarantine;
            }
            // Spare files stay within the limit, whatever is written into the segment in use.
            let fits = spare_bytes.is_some_and(|spare_bytes| {
                (segment_bytes / 2..=segment_bytes).contains(&segment.end)
                    && used - segment.end + spare_bytes <= shared.limit_bytes
            });
            // A damaged file is linked into the quarantine: it must not be overwritten.
            segment.recycling = segment.recyclable && !segment.damaged && fits;
            match segment.recycling {
                true => Disposal::Recycle,
                false => Disposal::Unlink,
            }
        });
        match disposal {
            Disposal::Recycle if !shared.preallocator.has_free_space() => Disposal::Unlink,
            disposal => disposal,
        }
    }

    /// Preallocates the next segment. True if that failed.
    fn preallocate(&self) -> bool {
        let shared = &self.shared;
        let used_bytes = || lock(&shared.state).segments.bytes();
        let outcome = shared.preallocator.prepare_ahead(shared.limit_bytes, used_bytes);
        let no_space = outcome == Preallocation::NoSpace;
        let had_no_space = std::mem::replace(&mut lock(&shared.state).no_space_for_next, no_space);
        if no_space && !had_no_space {
            warn!(
                dir = %shared.dir.display(),
                "no space on the disk for the next journal segment: nothing more is accepted until there is"
            );
        } else if had_no_space && !no_space {
            info!("there is space for the next journal segment again");
            shared.queue.recheck();
        }
        outcome != Preallocation::Done
    }
}

/// Frees the space of an obsolete segment. Its file stays under the name of a spare file, so that
/// recovery does not take the segment for a missing one.
fn empty(storage: &dyn Storage, number: u64) -> io::Result<()> {
    match storage.rename(&segment_name(number), &spare_name(number)) {
        // Renamed by an earlier try.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => other?,
    }
    storage.sync_folder()?;
    storage.open(&spare_name(number), true)?.set_len(0)
}

/// Reports a panic of the maintenance thread: without it no segment is removed.
struct PanicGuard(Arc<Shared>);

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            error!(
                "the journal's maintenance thread panicked: no disk space is freed until Windrow is restarted"
            );
            lock(&self.0.state).panicked_thread = Some("maintenance");
        }
    }
}
