//! Survey of the journal folder: its files by name, and the segments by their headers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use tracing::error;

use super::rename;
use crate::error::OpenError;
use crate::format::{
    BadSegmentHeader, FORMAT_VERSION, FileKind, SEGMENT_HEADER_BYTES, Salt, file_kind, release_log_name,
    segment_name, spare_name,
};
use crate::manifest::LoadedManifest;
use crate::quarantine::{QUARANTINE, QuarantineMode, quarantine};
use crate::scanner::{ScanStep, SegmentScanner, read_segment_header};
use crate::storage::Storage;
use crate::{instance, manifest};

/// A usable segment file.
#[derive(Debug)]
pub(super) struct FoundSegment {
    pub(super) number: u64,
    pub(super) name: String,
    pub(super) size: u64,
    pub(super) instance: u64,
    pub(super) first_lsn: u64,
    pub(super) continues_lsn: u64,
    /// The header is damaged; its values come from the records.
    pub(super) header_damaged: bool,
    /// The file held another segment before.
    pub(super) recycled: bool,
    /// The segment was begun by a program that keeps a manifest.
    pub(super) in_manifest: bool,
}

#[derive(Debug, Default)]
pub(super) struct Survey {
    /// Oldest first.
    pub(super) found: Vec<FoundSegment>,
    /// Segment files without a valid header: number and size.
    without_header: Vec<(u64, u64)>,
    release_logs: Vec<u64>,
    /// Numbers of the segments whose files these were.
    pub(super) spare_files: Vec<u64>,
    /// Received time that the records of the next segment must exceed, Unix microseconds.
    pub(super) after_us: i64,
    pub(super) next_number: u64,
    /// Segments without a readable record, moved to the quarantine.
    pub(super) unreadable: Vec<u64>,
    /// Bytes of such segments that are newer than all others.
    pub(super) unreadable_bytes_at_end: u64,
}

impl Survey {
    pub(super) fn take(storage: &dyn Storage, dir: &Path) -> Result<Self, OpenError> {
        rename::restore_names(storage, dir)?;
        let files = storage.list("").map_err(OpenError::during("list", dir))?;
        // The quarantine exists only once there was damage.
        let quarantined = storage.list(QUARANTINE).unwrap_or_default();
        let mut survey = Self::default();
        let mut sizes = BTreeMap::new();
        for (name, size) in &files {
            match file_kind(name) {
                FileKind::Segment(number) => drop(sizes.insert(number, *size)),
                FileKind::ReleaseLog(number) => survey.release_logs.push(number),
                FileKind::Spare(number) => survey.spare_files.push(number),
                FileKind::Renamed(_) | FileKind::Other => {}
            }
        }
        let numbers = files
            .iter()
            .chain(&quarantined)
            .filter_map(|(name, _)| match file_kind(name) {
                FileKind::Segment(number)
                | FileKind::ReleaseLog(number)
                | FileKind::Spare(number)
                | FileKind::Renamed(number) => Some(number),
                FileKind::Other => None,
            });
        survey.next_number = numbers.max().unwrap_or(0) + 1;
        for (number, size) in sizes {
            let name = segment_name(number);
            let path = dir.join(&name);
            let header = read_segment_header(storage, &name).map_err(OpenError::during("read", &path))?;
            match header {
                Ok(header) if header.number == number => {
                    survey.after_us = survey.after_us.max(header.after_us);
                    survey.found.push(FoundSegment {
                        number,
                        name,
                        size,
                        instance: header.instance,
                        first_lsn: header.first_lsn,
                        continues_lsn: header.continues_lsn,
                        header_damaged: false,
                        recycled: header.recycled,
                        in_manifest: header.in_manifest,
                    });
                }
                Err(BadSegmentHeader::Newer { version }) => {
                    return Err(OpenError::NewerFormat {
                        path,
                        found: version,
                        supported: FORMAT_VERSION,
                    });
                }
                Ok(_) | Err(BadSegmentHeader::Blank | BadSegmentHeader::Damaged) => {
                    survey.without_header.push((number, size));
                }
            }
        }
        Ok(survey)
    }

    /// Handles the files without a valid header: removes those that were preallocated and never
    /// used, adds those with readable records, and quarantines the others.
    pub(super) fn examine_damaged_headers(
        &mut self,
        storage: &dyn Storage,
        dir: &Path,
        instance: u64,
    ) -> Result<(), OpenError> {
        for (number, size) in std::mem::take(&mut self.without_header) {
            let name = segment_name(number);
            let path = dir.join(&name);
            let file = storage
                .open(&name, false)
                .map_err(OpenError::during("open", &path))?;
            let from = SEGMENT_HEADER_BYTES.min(size);
            let mut scanner = SegmentScanner::new(file, Salt::new(number, instance), from, size);
            let mut damaged_bytes = 0;
            let first_lsn = loop {
                let step = scanner.step(&(0..u64::MAX), u64::MAX);
                match step.map_err(OpenError::during("read", &path))? {
                    ScanStep::Record { header, .. } => break Some(header.lsn),
                    ScanStep::Damage { bytes } => damaged_bytes += bytes.end - bytes.start,
                    ScanStep::End => break None,
                }
            };
            match first_lsn {
                Some(first_lsn) => {
                    let found = FoundSegment {
                        number,
                        name,
                        size,
                        instance,
                        first_lsn,
                        continues_lsn: first_lsn,
                        header_damaged: true,
                        recycled: false,
                        in_manifest: true,
                    };
                    let at = self.found.partition_point(|other| other.number < number);
                    self.found.insert(at, found);
                }
                // The header is synced before the first record is written: the file never held a
                // record.
                None if damaged_bytes == 0 => {
                    storage
                        .remove(&name)
                        .map_err(OpenError::during("remove", &path))?;
                }
                None => {
                    error!(
                        segment = number,
                        bytes = size,
                        "no record of the journal file {name} is readable; moving it to {QUARANTINE}"
                    );
                    quarantine(storage, number, QuarantineMode::Move)
                        .map_err(OpenError::during("move to the quarantine", &path))?;
                    self.unreadable.push(number);
                    if self.found.last().is_none_or(|newest| newest.number < number) {
                        self.unreadable_bytes_at_end += size;
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes the lsns of segments with a damaged header from the manifest: their first records may be
    /// unreadable too.
    pub(super) fn complete_damaged_headers(&mut self, manifest: &LoadedManifest) {
        for found in self.found.iter_mut().filter(|found| found.header_damaged) {
            if let Some(live) = manifest.live.get(&found.number) {
                found.first_lsn = live.first_lsn.min(found.first_lsn);
                found.continues_lsn = live.continues_lsn.min(found.continues_lsn);
            }
        }
    }

    /// Removes release logs without a segment, spare files, and half-written files. A spare file
    /// whose segment the manifest names tells that it was given up: it is emptied only.
    pub(super) fn remove_leftovers(&self, storage: &dyn Storage, manifest: &LoadedManifest) {
        let segments: BTreeSet<u64> = self.found.iter().map(|found| found.number).collect();
        for &number in &self.spare_files {
            let name = spare_name(number);
            let _ = match manifest.live.contains_key(&number) && !segments.contains(&number) {
                true => storage.open(&name, true).and_then(|mut file| file.set_len(0)),
                false => storage.remove(&name),
            };
        }
        for number in self
            .release_logs
            .iter()
            .filter(|number| !segments.contains(number))
        {
            let _ = storage.remove(&release_log_name(*number));
        }
        let _ = storage.remove(instance::TEMPORARY);
        let _ = storage.remove(manifest::TEMPORARY);
    }
}
