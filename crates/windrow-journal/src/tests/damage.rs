//! Tests of damage: truncation at every byte, a flip of every byte, missing and garbage files.

use std::collections::BTreeSet;
use std::ops::Range;

use bytes::Bytes;

use super::faulty_disk::FaultyDisk;
use super::rig::{Ledger, Rig, options};
use crate::format::{RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES, renamed_name, segment_name};
use crate::inspect::inspect_on;
use crate::manifest::MANIFEST;
use crate::storage::Storage;
use crate::{Journal, JournalOptions};

/// A journal of three segments, and the places of its records: (segment, bytes, lsn).
struct Small {
    disk: FaultyDisk,
    ledger: Ledger,
    records: Vec<(u64, Range<u64>, u64)>,
    /// The records of the last commit.
    last_commit: Vec<u64>,
}

fn small() -> Small {
    let disk = FaultyDisk::default();
    let mut ledger = Ledger::default();
    let mut rig = Rig::open(&disk).unwrap();
    // Two records a commit, two commits a segment: the third stays half empty.
    for commit in 0..5 {
        rig.send(&mut ledger, 1400 + commit * 10);
        rig.send(&mut ledger, 300);
        rig.run(&mut ledger);
        rig.maintenance.tick();
    }
    rig.send(&mut ledger, 60);
    rig.send(&mut ledger, 0);
    rig.run(&mut ledger);
    let mut ends = std::collections::BTreeMap::new();
    let records: Vec<_> = rig
        .read_all()
        .iter()
        .map(|record| {
            let start = *ends.get(&record.segment).unwrap_or(&SEGMENT_HEADER_BYTES);
            let end = start + RECORD_HEADER_BYTES + record.payload.len() as u64;
            ends.insert(record.segment, end);
            (record.segment, start..end, record.lsn)
        })
        .collect();
    assert!(
        records.last().unwrap().0 >= 3 && records.len() == 12,
        "{records:?}"
    );
    let last_commit = vec![11, 12];
    Small {
        disk: rig.kill(),
        ledger,
        records,
        last_commit,
    }
}

impl Small {
    fn copy(&self) -> (FaultyDisk, Ledger) {
        (self.disk.copy(), self.ledger.clone())
    }

    fn segments(&self) -> BTreeSet<u64> {
        self.records.iter().map(|(segment, ..)| *segment).collect()
    }

    fn newest(&self) -> u64 {
        self.records.last().unwrap().0
    }
}

/// The journal works: its records stay, and new records are confirmed and read back in order.
fn goes_on(mut rig: Rig, ledger: &mut Ledger, lost: &BTreeSet<u64>) {
    rig.send(ledger, 500);
    rig.maintenance.tick();
    rig.run(ledger);
    assert!(rig.backlog.is_empty());
    rig.check_all_but(ledger, lost);
    let disk = rig.kill();
    Rig::open(&disk).unwrap().check_all_but(ledger, lost);
}

#[test]
fn the_newest_segment_cut_at_every_byte_loses_only_what_is_cut() {
    let small = small();
    let name = segment_name(small.newest());
    let content = small.disk.content(&name).unwrap();
    let first_of_newest = small
        .records
        .iter()
        .find(|record| record.0 == small.newest())
        .unwrap()
        .2;
    for len in 0..content.len() {
        let (disk, mut ledger) = small.copy();
        disk.set_content(&name, &content[..len]);
        let rig = Rig::open(&disk).unwrap();
        let cut = small.records.iter().filter(|(segment, bytes, _)| {
            *segment == small.newest() && (bytes.end > len as u64 || (len as u64) < SEGMENT_HEADER_BYTES)
        });
        let lost: BTreeSet<u64> = cut.map(|(.., lsn)| *lsn).collect();
        let back: Vec<u64> = rig.read_all().iter().map(|record| record.lsn).collect();
        let expected: Vec<u64> = (1..=12).filter(|lsn| !lost.contains(lsn)).collect();
        assert_eq!(back, expected, "cut to {len} bytes");
        assert!(
            rig.recovery.quarantined.is_empty(),
            "a torn tail is no damage ({len} bytes)"
        );
        // No lsn that may have been confirmed is assigned again, unless the cut leaves no trace.
        let clean_cut = small
            .records
            .iter()
            .any(|(segment, bytes, _)| *segment == small.newest() && (bytes.start == len as u64));
        if len as u64 > SEGMENT_HEADER_BYTES && !clean_cut && lost.len() == 1 {
            assert!(rig.recovery.next_lsn > 12, "{len}: {}", rig.recovery.next_lsn);
        }
        assert!(rig.recovery.next_lsn >= first_of_newest);
        ledger.forget(&lost);
        goes_on(rig, &mut ledger, &lost);
    }
}

#[test]
fn every_byte_flipped_costs_at_most_the_record_that_it_is_in() {
    let small = small();
    for segment in small.segments() {
        let name = segment_name(segment);
        let content = small.disk.content(&name).unwrap();
        // A sample of the preallocated zeros after the newest record.
        let written = small
            .records
            .iter()
            .rev()
            .find(|record| record.0 == segment)
            .unwrap()
            .1
            .end as usize;
        let rest = (written..content.len()).step_by(97);
        for at in (0..written).chain(rest) {
            let (disk, mut ledger) = small.copy();
            let mut changed = content.clone();
            changed[at] ^= 1 << (at % 8);
            disk.set_content(&name, &changed);
            let hit = small
                .records
                .iter()
                .find(|(other, bytes, _)| *other == segment && bytes.contains(&(at as u64)));
            let lost: BTreeSet<u64> = hit.map(|(.., lsn)| *lsn).into_iter().collect();
            let in_last_commit = hit.is_some_and(|(.., lsn)| small.last_commit.contains(lsn));
            let context = format!("segment {segment} byte {at}");

            let rig = Rig::open(&disk).unwrap_or_else(|error| panic!("{context}: {error}"));
            let records = rig.read_all();
            let back: BTreeSet<u64> = records.iter().map(|record| record.lsn).collect();
            let usage = rig.shared.usage();
            let kept = disk.names().contains(&format!("quarantine/{name}"));
            if in_last_commit {
                // It looks like a commit that a crash cut short: everything from there on is cut
                // off.
                let lsn = hit.unwrap().2;
                assert_eq!(back, (1..lsn).collect(), "{context}");
                assert!(rig.recovery.torn_bytes > 0 && !kept, "{context}");
                assert!(rig.recovery.next_lsn > 12, "{context}: lsns are assigned twice");
                let lost = (lsn..=12).collect();
                ledger.forget(&lost);
                goes_on(rig, &mut ledger, &lost);
                continue;
            }
            let expected: BTreeSet<u64> = (1..=12).filter(|lsn| !lost.contains(lsn)).collect();
            assert_eq!(back, expected, "{context}");
            assert_eq!(usage.lost_records, lost.len() as u64, "{context}");
            let in_header = (at as u64) < SEGMENT_HEADER_BYTES;
            assert_eq!(
                usage.quarantined_segments,
                u64::from(in_header || hit.is_some()),
                "{context}"
            );
            assert_eq!(kept, in_header || hit.is_some(), "{context}");
            // Lost records count as released, so the segments can be removed.
            for lsn in &back {
                rig.release(&mut ledger, *lsn);
            }
            assert_eq!(rig.shared.usage().unreleased_records, 0, "{context}");
            ledger.forget(&lost);
            goes_on(rig, &mut ledger, &lost);
        }
    }
}

#[test]
fn damage_of_small_files_is_harmless() {
    let small = small();
    let (disk, mut ledger) = small.copy();
    let rig = Rig::open(&disk).unwrap();
    let instance = rig.shared.instance;
    for lsn in [1, 2, 5] {
        rig.release(&mut ledger, lsn);
    }
    let mut maintenance = rig.maintenance;
    maintenance.tick();
    let notes: Vec<String> = disk
        .names()
        .into_iter()
        .filter(|name| name.ends_with(".notes"))
        .collect();
    assert!(!notes.is_empty());
    for name in notes.iter().map(String::as_str).chain(["instance"]) {
        let content = disk.content(name).unwrap();
        for at in 0..content.len() {
            for cut in [true, false] {
                let (disk, mut ledger) = (disk.copy(), ledger.clone());
                let mut changed = content.clone();
                match cut {
                    true => changed.truncate(at),
                    false => changed[at] ^= 0x40,
                }
                disk.set_content(name, &changed);
                let rig = Rig::open(&disk).unwrap();
                assert_eq!(rig.shared.instance, instance, "{name} {at}");
                rig.check(&mut ledger);
                goes_on(rig, &mut ledger, &BTreeSet::new());
            }
        }
    }
}

#[test]
fn missing_segments_are_missed() {
    let small = small();
    for segment in small.segments() {
        let (disk, mut ledger) = small.copy();
        disk.remove(&segment_name(segment)).unwrap();
        let rig = Rig::open(&disk).unwrap();
        let gone = small.records.iter().filter(|record| record.0 == segment);
        let lost: BTreeSet<u64> = gone.map(|record| record.2).collect();
        rig.check_all_but(&mut ledger, &lost);
        assert_eq!(rig.recovery.lost, [segment]);
        let usage = rig.shared.usage();
        assert_eq!(usage.lost_segments, 1, "segment {segment}");
        let known = if segment == small.newest() {
            0
        } else {
            lost.len() as u64
        };
        assert_eq!(usage.lost_records, known, "segment {segment}");
        assert!(rig.recovery.next_lsn > 12, "lsns are assigned twice");
        ledger.forget(&lost);
        goes_on(rig, &mut ledger, &lost);
    }
    // The file is removed while the journal is open.
    let (disk, mut ledger) = small.copy();
    let rig = Rig::open(&disk).unwrap();
    disk.remove(&segment_name(2)).unwrap();
    let gone = small.records.iter().filter(|record| record.0 == 2);
    let lost: BTreeSet<u64> = gone.map(|record| record.2).collect();
    rig.check_all_but(&mut ledger, &lost);
    assert_eq!(rig.shared.usage().lost_records, lost.len() as u64);
}

#[test]
fn the_newest_segment_is_missed_with_its_number_of_records_after_a_clean_stop() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Journal::open(JournalOptions::new(dir.path()), Box::new(())).unwrap();
    let (journal, _) = open();
    let receipts: Vec<_> = (0..5)
        .map(|_| journal.append(0, Bytes::from_static(b"x")).wait().unwrap())
        .collect();
    journal.release(receipts[1].lsn());
    journal.close();
    std::fs::remove_file(dir.path().join(segment_name(receipts[0].segment()))).unwrap();
    let (journal, recovery) = open();
    assert_eq!(recovery.lost, [receipts[0].segment()]);
    assert_eq!(journal.usage().lost_records, 4, "one of five was released");
    let next = journal.append(0, Bytes::from_static(b"y")).wait().unwrap();
    assert!(next.lsn() > receipts[4].lsn(), "lsns are assigned twice");
    journal.close();
    let (journal, recovery) = open();
    assert!(recovery.lost.is_empty(), "a loss is reported once");
    assert_eq!(recovery.unreleased_records, 1);
    journal.close();
}

#[test]
fn records_cut_off_after_a_clean_stop_are_lost_and_not_torn() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Journal::open(JournalOptions::new(dir.path()), Box::new(())).unwrap();
    let (journal, _) = open();
    let receipts: Vec<_> = (0..5)
        .map(|_| journal.append(0, Bytes::from(vec![7; 100])).wait().unwrap())
        .collect();
    journal.close();
    let name = segment_name(receipts[0].segment());
    let file = std::fs::File::options()
        .write(true)
        .open(dir.path().join(&name))
        .unwrap();
    file.set_len(SEGMENT_HEADER_BYTES + 3 * 132 + 50).unwrap();
    let (journal, recovery) = open();
    let usage = journal.usage();
    assert_eq!((usage.lost_records, usage.quarantined_segments), (2, 1));
    assert_eq!(recovery.unreleased_records, 3);
    assert!(dir.path().join("quarantine").join(&name).try_exists().unwrap());
    let next = journal.append(0, Bytes::new()).wait().unwrap();
    assert!(next.lsn() > receipts[4].lsn(), "lsns are assigned twice");
    journal.close();
    let (journal, _) = open();
    assert_eq!(journal.usage().lost_records, 0, "a loss is reported once");
    journal.close();
}

#[test]
fn a_damaged_header_and_first_record_behind_a_removed_segment_cost_one_record() {
    let small = small();
    let (disk, mut ledger) = small.copy();
    let mut rig = Rig::open(&disk).unwrap();
    for (.., lsn) in small.records.iter().filter(|record| record.0 == 1) {
        rig.release(&mut ledger, *lsn);
    }
    rig.maintenance.tick();
    assert!(!disk.names().contains(&segment_name(1)));
    let mut content = disk.content(&segment_name(2)).unwrap();
    content[..100].fill(0xFF);
    disk.set_content(&segment_name(2), &content);
    let rig = Rig::open(&disk).unwrap();
    let hit = small.records.iter().find(|record| record.0 == 2).unwrap().2;
    rig.check_all_but(&mut ledger, &[hit].into());
    assert_eq!(rig.shared.usage().lost_records, 1);
}

#[test]
fn segments_that_the_journal_removed_are_not_missed() {
    let small = small();
    let (disk, mut ledger) = small.copy();
    let mut rig = Rig::open(&disk).unwrap();
    for (.., lsn) in small.records.iter().filter(|record| record.0 != 1) {
        rig.release(&mut ledger, *lsn);
    }
    rig.maintenance.tick();
    rig.send(&mut ledger, 10);
    rig.run(&mut ledger);
    rig.maintenance.tick();
    assert!(
        !disk.names().contains(&segment_name(2)),
        "removed before an older one"
    );
    // The release logs may be lost, the manifest is durable.
    let crashed = disk.copy();
    crashed.power_cycle(1);
    let rig = Rig::open(&crashed).unwrap();
    assert_eq!(rig.recovery.lost, [0; 0]);
    rig.check(&mut ledger);
    // Unreleased records of a segment that was removed by somebody else are missed beside them.
    disk.remove(&segment_name(1)).unwrap();
    let rig = Rig::open(&disk).unwrap();
    assert_eq!(rig.recovery.lost, [1]);
}

#[test]
fn segments_with_swapped_names_lose_nothing() {
    let small = small();
    let (disk, mut ledger) = small.copy();
    let [first, second] = [1, 2].map(|number| disk.content(&segment_name(number)).unwrap());
    disk.set_content(&segment_name(1), &second);
    disk.set_content(&segment_name(2), &first);
    let rig = Rig::open(&disk).unwrap();
    rig.check(&mut ledger);
    assert_eq!(disk.content(&segment_name(1)).unwrap(), first);
    goes_on(rig, &mut ledger, &BTreeSet::new());
    // A crash between the renames.
    let (disk, mut ledger) = small.copy();
    disk.rename(&segment_name(1), &renamed_name(1)).unwrap();
    let rig = Rig::open(&disk).unwrap();
    rig.check(&mut ledger);
    goes_on(rig, &mut ledger, &BTreeSet::new());
}

#[test]
fn a_segment_replaced_by_a_copy_of_another_is_missed() {
    let small = small();
    let (disk, mut ledger) = small.copy();
    let copy = disk.content(&segment_name(1)).unwrap();
    disk.set_content(&segment_name(2), &copy);
    let rig = Rig::open(&disk).unwrap();
    let gone = small.records.iter().filter(|record| record.0 == 2);
    let lost: BTreeSet<u64> = gone.map(|record| record.2).collect();
    assert_eq!(rig.recovery.lost, [2]);
    assert_eq!(rig.shared.usage().lost_records, lost.len() as u64);
    let kept = disk.content(&format!("quarantine/{}.copy", segment_name(1)));
    assert_eq!(kept.unwrap(), copy);
    rig.check_all_but(&mut ledger, &lost);
    ledger.forget(&lost);
    goes_on(rig, &mut ledger, &lost);
}

#[test]
fn a_folder_without_a_usable_manifest_raises_no_alarm() {
    let small = small();
    let (disk, mut ledger) = small.copy();
    let mut rig = Rig::open(&disk).unwrap();
    for (.., lsn) in small.records.iter().filter(|record| record.0 == 2) {
        rig.release(&mut ledger, *lsn);
    }
    rig.maintenance.tick();
    let content = disk.content(MANIFEST).unwrap();
    for at in 0..=6 * 64 {
        let changed = disk.copy();
        match at {
            // As an older program leaves it.
            384 => changed.remove(MANIFEST).unwrap(),
            at => {
                let mut bytes = content.clone();
                bytes[at] ^= 0x10;
                changed.set_content(MANIFEST, &bytes);
            }
        }
        let mut ledger = ledger.clone();
        let rig = Rig::open(&changed).unwrap();
        rig.check(&mut ledger);
        goes_on(rig, &mut ledger, &BTreeSet::new());
    }
}

#[test]
fn a_file_of_garbage_goes_to_the_quarantine_and_its_number_is_not_used_again() {
    let small = small();
    for number in [2, small.newest()] {
        let (disk, mut ledger) = small.copy();
        let garbage: Vec<u8> = (0..4096_u32)
            .map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8)
            .collect();
        disk.set_content(&segment_name(number), &garbage);
        let gone = small.records.iter().filter(|record| record.0 == number);
        let lost: BTreeSet<u64> = gone.map(|record| record.2).collect();
        let rig = Rig::open(&disk).unwrap();
        assert_eq!(rig.recovery.quarantined, [number]);
        assert_eq!(rig.recovery.lost, [number]);
        assert_eq!(
            disk.content(&format!("quarantine/{}", segment_name(number)))
                .unwrap(),
            garbage
        );
        rig.check_all_but(&mut ledger, &lost);
        if number == small.newest() {
            assert!(rig.recovery.next_lsn > 12, "its lsns may have been assigned");
        }
        ledger.forget(&lost);
        goes_on(rig, &mut ledger, &lost);
        assert!(!disk.names().contains(&segment_name(number)));
    }
}

#[test]
fn inspect_counts_what_is_there_and_changes_nothing() {
    let small = small();
    let (disk, _) = small.copy();
    let before: Vec<_> = disk.names().iter().map(|name| disk.content(name)).collect();
    let report = inspect_on(&disk, &options().dir, &mut |_, _| {}).unwrap();
    assert_eq!(
        (report.records(), report.unreleased(), report.is_damaged()),
        (12, 12, false)
    );
    let newest = segment_name(small.newest());
    let mut content = disk.content(&newest).unwrap();
    let end = small.records.last().unwrap().1.end as usize;
    content[end - 40] ^= 1;
    disk.set_content(&newest, &content);
    let report = inspect_on(&disk, &options().dir, &mut |_, _| {}).unwrap();
    assert!(!report.is_damaged());
    assert!(
        report.segments.iter().any(|segment| segment.torn_bytes > 0),
        "{report}"
    );

    let mut content = disk.content(&segment_name(1)).unwrap();
    content[200] ^= 1;
    disk.set_content(&segment_name(1), &content);
    let report = inspect_on(&disk, &options().dir, &mut |_, _| {}).unwrap();
    assert!(report.is_damaged());
    let text = report.to_string();
    assert!(
        text.contains("DAMAGED") && text.contains("1 confirmed records MISSING"),
        "{text}"
    );
    let after: Vec<_> = disk.names().iter().map(|name| disk.content(name)).collect();
    assert_eq!(before.len(), after.len());
}
