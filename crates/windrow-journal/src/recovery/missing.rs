//! Segments that the manifest names and whose records cannot be read: their files are missing, or
//! were moved to the quarantine.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use tracing::{error, info, warn};

use super::survey::Survey;
use super::tail::SegmentTail;
use crate::format::segment_name;
use crate::manifest::{LiveSegment, LoadedManifest, MANIFEST, MissingSegment};
use crate::release_log::{self, merge_ranges};
use crate::segments::Segments;
use crate::storage::Storage;

/// Compares the manifest with the segments that were found. Older first.
pub(super) fn find(
    storage: &dyn Storage,
    dir: &Path,
    loaded: &LoadedManifest,
    survey: &Survey,
    instance: u64,
) -> Vec<MissingSegment> {
    if !loaded.exists {
        if survey.found.iter().any(|found| found.in_manifest) {
            warn!(
                "the journal file {} is missing: whether a segment is missing cannot be told at this start",
                dir.join(MANIFEST).display()
            );
        }
        return Vec::new();
    }
    // A spare file is what is left of a segment that was given up.
    let is_found = |number: u64| {
        survey.spare_files.contains(&number) || survey.found.iter().any(|found| found.number == number)
    };
    let mut missing = Vec::new();
    for (&number, live) in loaded.live.iter().filter(|(number, _)| !is_found(**number)) {
        let logged = release_log::read(storage, number, instance).unwrap_or_default();
        let end = live.end_lsn.or(logged.next_lsn);
        let lsns = live.first_lsn..end.unwrap_or_else(|| live.max_end_lsn());
        let records = end.is_some().then(|| count_unreleased(&lsns, logged.released));
        missing.push(MissingSegment {
            number,
            lsns,
            records,
        });
    }
    missing.retain(|segment| segment.records != Some(0));
    let by_older_program =
        |found: &&super::FoundSegment| !found.in_manifest && !loaded.live.contains_key(&found.number);
    if survey.found.iter().any(|found| by_older_program(&found)) {
        info!(
            "an older Windrow has used the journal: its manifest is rewritten, missing segments are not looked for"
        );
        missing.clear();
    } else if loaded.unreadable_entries > 0 {
        for segment in missing.drain(..) {
            warn!(
                segment = segment.number,
                "the journal file {} is missing, and the file {MANIFEST} is damaged: whether records were lost \
                 cannot be told",
                segment_name(segment.number)
            );
        }
    }
    missing
}

/// Finds records that are missing at the end of the newest segment, which was closed with them, and
/// marks the bytes there as damage. Returns how many of them were not released.
pub(super) fn find_at_end(
    storage: &dyn Storage,
    loaded: &LoadedManifest,
    survey: &Survey,
    tail: &mut SegmentTail,
) -> u64 {
    let Some(newest) = survey.found.last().filter(|_| loaded.unreadable_entries == 0) else {
        return 0;
    };
    let live = loaded.live.get(&newest.number);
    let Some(end_lsn) = live
        .and_then(|live| live.end_lsn)
        .filter(|&end| end > tail.next_lsn)
    else {
        return 0;
    };
    let lsns = tail.next_lsn..end_lsn;
    let logged = release_log::read(storage, newest.number, newest.instance).unwrap_or_default();
    let records = count_unreleased(&lsns, logged.released);
    error!(
        segment = newest.number,
        first_lsn = lsns.start,
        end_lsn = lsns.end,
        records,
        "records are missing at the end of the journal file {}, which was closed with them: those that were not \
         released are lost",
        newest.name
    );
    let cut_off = tail.end..newest.size.max(tail.end);
    tail.damage.get_or_insert(cut_off);
    records
}

fn count_unreleased(lsns: &Range<u64>, released: Vec<Range<u64>>) -> u64 {
    let released = merge_ranges(released).into_iter().map(|range| {
        let end = range.end.min(lsns.end);
        end.saturating_sub(range.start.max(lsns.start))
    });
    (lsns.end.saturating_sub(lsns.start)).saturating_sub(released.sum())
}

/// Logs the missing segments. Returns how many records in them are known to be lost.
pub(super) fn report(dir: &Path, missing: &[MissingSegment]) -> u64 {
    for segment in missing {
        let (number, lsns) = (segment.number, &segment.lsns);
        let path = dir.join(segment_name(number));
        match segment.records {
            Some(records) => error!(
                segment = number,
                first_lsn = lsns.start,
                end_lsn = lsns.end,
                records,
                "the journal file {} is missing or unreadable: its unreleased records are lost",
                path.display()
            ),
            None => error!(
                segment = number,
                first_lsn = lsns.start,
                "the newest journal file {} is missing or unreadable: its records from this lsn on are lost, their \
                 number is unknown because the journal was not closed",
                path.display()
            ),
        }
    }
    missing.iter().filter_map(|segment| segment.records).sum()
}

/// The segments that the manifest has to name from here on.
pub(super) fn live_segments(
    segments: &Segments,
    survey: &Survey,
    segment_bytes: u64,
) -> BTreeMap<u64, LiveSegment> {
    let continues = |number: u64| {
        let found = survey.found.iter().find(|found| found.number == number);
        found.map(|found| found.continues_lsn)
    };
    let live = segments.iter().map(|segment| {
        let live = LiveSegment {
            first_lsn: segment.first_lsn,
            continues_lsn: continues(segment.number).unwrap_or(segment.continues_lsn),
            bytes: segment_bytes.max(segment.end),
            end_lsn: segment.sealed.then_some(segment.next_lsn),
        };
        (segment.number, live)
    });
    live.collect()
}
