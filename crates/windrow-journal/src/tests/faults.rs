//! Tests of faults: full and failing disks, limits, abandoned appends, unreadable sectors.

use super::faulty_disk::{Fault, FaultyDisk, Operation};
use super::rig::{Ledger, Rig, options};
use crate::format::segment_name;
use crate::manifest::MIN_FILE_BYTES as MANIFEST_BYTES;
use crate::storage::Storage;
use crate::usage::Blocked;
use crate::writer::Progress;
use crate::{JournalOptions, Record};

fn rig(disk: &FaultyDisk) -> (Rig, Ledger) {
    (Rig::open(disk).unwrap(), Ledger::default())
}

#[test]
fn a_full_disk_stops_the_journal_before_the_segment_is_full_and_nothing_fails() {
    let disk = FaultyDisk::default();
    let (mut rig, mut ledger) = rig(&disk);
    rig.send(&mut ledger, 100);
    rig.maintenance.tick();
    assert_eq!(rig.step(&mut ledger), Progress::Committed);
    // The segment in use is nearly empty, but the disk has no space for the next one.
    disk.set_capacity(Some(disk.used()));
    rig.maintenance.tick();
    rig.send(&mut ledger, 100);
    assert_eq!(rig.step(&mut ledger), Progress::Blocked(Blocked::NoSpace));
    assert_eq!(rig.shared.usage().blocked, Some(Blocked::NoSpace));
    assert!(rig.maintenance.tick(), "it is tried again");
    assert_eq!(rig.step(&mut ledger), Progress::Blocked(Blocked::NoSpace));
    assert_eq!((ledger.confirmed.len(), ledger.failed), (1, 0));
    // Too little space: some of it is left to other programs.
    disk.set_capacity(Some(disk.used() + 4096));
    rig.maintenance.tick();
    assert_eq!(rig.step(&mut ledger), Progress::Blocked(Blocked::NoSpace));
    disk.set_capacity(Some(disk.used() + 5000));
    assert!(!rig.maintenance.tick());
    assert_eq!(rig.step(&mut ledger), Progress::Committed);
    assert_eq!((ledger.confirmed.len(), ledger.failed), (2, 0));
    rig.check(&mut ledger);
}

#[test]
fn on_a_full_disk_a_segment_that_is_done_makes_room_for_the_next() {
    let disk = FaultyDisk::default();
    let (mut rig, mut ledger) = rig(&disk);
    rig.maintenance.tick();
    for _ in 0..3 {
        rig.send(&mut ledger, 900);
    }
    rig.run(&mut ledger);
    // Space for little more than a header.
    disk.set_capacity(Some(disk.used() + 100));
    rig.maintenance.tick();
    rig.send(&mut ledger, 900);
    assert_eq!(rig.step(&mut ledger), Progress::Blocked(Blocked::NoSpace));
    for lsn in ledger.lsns() {
        rig.release(&mut ledger, lsn);
    }
    // All records of the only segment are released, but only a newer segment makes it obsolete.
    for _ in 0..6 {
        rig.step(&mut ledger);
        disk.set_capacity(Some(disk.used() + 4196));
        rig.maintenance.tick();
    }
    assert_eq!(ledger.confirmed.len(), 4, "{:?}", rig.shared.usage());
    assert_eq!(ledger.failed, 0);
    rig.check(&mut ledger);
}

#[test]
fn space_that_ends_in_the_middle_of_a_write_fails_nobody() {
    let disk = FaultyDisk::default().without_allocate();
    let mut ledger = Ledger::default();
    let larger = JournalOptions {
        segment_bytes: 16384,
        ..options()
    };
    let mut rig = Rig::open_with(&disk, larger).unwrap();
    rig.send(&mut ledger, 100);
    rig.run(&mut ledger);
    rig.maintenance.tick();
    disk.set_capacity(Some(disk.used() + 5000));
    for _ in 0..3 {
        rig.send(&mut ledger, 3000);
    }
    assert_eq!(rig.step(&mut ledger), Progress::Blocked(Blocked::NoSpace));
    assert_eq!(
        (ledger.confirmed.len(), ledger.failed, rig.backlog.len()),
        (1, 0, 3)
    );
    let first = segment_name(rig.shared.usage().oldest_segment.unwrap().number);
    assert_eq!(
        disk.content(&first).unwrap().len(),
        64 + 132,
        "cut back to what is durable"
    );
    rig.check(&mut ledger);
    disk.set_capacity(None);
    rig.maintenance.tick();
    rig.run(&mut ledger);
    assert_eq!((ledger.confirmed.len(), ledger.failed), (4, 0));
    assert_eq!(rig.shared.usage().blocked, None);
    rig.check(&mut ledger);
    disk.power_cycle(1);
    Rig::open(&disk).unwrap().check(&mut ledger);
}

#[test]
fn after_a_failed_sync_the_file_is_left_alone() {
    for operation in [Operation::Write, Operation::Sync] {
        let disk = FaultyDisk::default();
        let (mut rig, mut ledger) = rig(&disk);
        rig.send(&mut ledger, 100);
        rig.run(&mut ledger);
        rig.maintenance.tick();
        disk.fail_always(operation, Some(Fault::Broken));
        rig.send(&mut ledger, 200);
        rig.send(&mut ledger, 300);
        assert!(matches!(
            rig.step(&mut ledger),
            Progress::Failed(Blocked::Failing(_))
        ));
        assert_eq!((ledger.confirmed.len(), ledger.failed), (1, 2));
        // Later appends wait while the disk fails: they were never written, so their state is
        // certain.
        rig.send(&mut ledger, 400);
        for _ in 0..3 {
            assert!(matches!(
                rig.step(&mut ledger),
                Progress::Blocked(Blocked::Failing(_))
            ));
            rig.maintenance.tick();
        }
        assert_eq!(ledger.failed, 2);
        assert!(rig.shared.usage().disk_errors >= 2);
        disk.fail_always(operation, None);
        rig.run(&mut ledger);
        assert_eq!((ledger.confirmed.len(), rig.shared.usage().blocked), (2, None));
        let segments: Vec<u64> = rig.read_all().iter().map(|record| record.segment).collect();
        assert!(
            segments[0] < segments[1],
            "nothing more is written to the file that failed"
        );
        rig.check(&mut ledger);
        // The failed records would return if their file had been synced again.
        disk.power_cycle(3);
        let rig = Rig::open(&disk).unwrap();
        assert_eq!(rig.read_all().len(), 2);
        rig.check(&mut ledger);
    }
}

#[test]
fn lsns_of_failed_records_are_given_again_and_the_old_bytes_stay_unread() {
    let disk = FaultyDisk::default();
    let (mut rig, mut ledger) = rig(&disk);
    rig.send(&mut ledger, 100);
    rig.run(&mut ledger);
    rig.maintenance.tick();
    // The sync fails, and so does the truncation: the records are complete and valid in the file.
    disk.fail_always(Operation::SetLen, Some(Fault::Broken));
    disk.fail(2, Fault::Broken);
    rig.send(&mut ledger, 200);
    assert!(matches!(rig.step(&mut ledger), Progress::Failed(_)));
    rig.send(&mut ledger, 300);
    rig.run(&mut ledger);
    let sizes = |rig: &Rig| {
        rig.read_all()
            .iter()
            .map(|record| record.payload.len())
            .collect::<Vec<_>>()
    };
    assert_eq!(sizes(&rig), [100, 300]);
    disk.process_dies();
    let rig = Rig::open(&disk).unwrap();
    assert_eq!(sizes(&rig), [100, 300]);
    rig.check(&mut ledger);
}

#[test]
fn the_limit_holds_and_released_segments_make_room() {
    let disk = FaultyDisk::default();
    let mut ledger = Ledger::default();
    let options = JournalOptions {
        segment_bytes: 4096,
        limit_bytes: 40_000,
        ..options()
    };
    let mut rig = Rig::open_with(&disk, options).unwrap();
    for _ in 0..100 {
        rig.send(&mut ledger, 1000);
    }
    while rig.step(&mut ledger) == Progress::Committed {
        rig.maintenance.tick();
    }
    assert_eq!(rig.shared.usage().blocked, Some(Blocked::Limit));
    let usage = rig.shared.usage();
    assert!(usage.bytes <= 40_000 && usage.bytes > 38_000, "{usage:?}");
    assert!(
        disk.used() <= 40_000 + 4096 + 1000 + MANIFEST_BYTES,
        "with the manifest, release logs and preallocated files: {}",
        disk.used()
    );
    assert!(usage.past_soft_limit());
    // A segment in the middle can be removed first.
    let middle = rig.read_all()[12].segment;
    let lsns: Vec<u64> = rig
        .read_all()
        .iter()
        .filter(|record| record.segment == middle)
        .map(|record| record.lsn)
        .collect();
    for &lsn in &lsns {
        rig.release(&mut ledger, lsn);
    }
    let before = ledger.confirmed.len();
    rig.maintenance.tick();
    rig.run(&mut ledger);
    assert_eq!(ledger.confirmed.len(), before + lsns.len(), "as many as went");
    // In the end all appends are durable.
    while !rig.backlog.is_empty() {
        let oldest = rig.shared.usage().oldest_segment.unwrap();
        rig.release(&mut ledger, oldest.first_unreleased_lsn);
        rig.maintenance.tick();
        rig.run(&mut ledger);
        assert!(rig.shared.usage().bytes <= 40_000);
    }
    assert_eq!((ledger.confirmed.len(), ledger.failed), (100, 0));
    rig.check(&mut ledger);
}

#[test]
fn a_record_as_large_as_allowed_gets_in_when_the_rest_is_released() {
    let disk = FaultyDisk::default();
    let mut ledger = Ledger::default();
    let options = JournalOptions {
        segment_bytes: 4096,
        limit_bytes: 40_000,
        ..options()
    };
    let mut rig = Rig::open_with(&disk, options).unwrap();
    let largest = rig.shared.max_payload_bytes() as usize;
    assert_eq!(largest, 20_000);
    rig.send(&mut ledger, largest);
    rig.send(&mut ledger, 3000);
    rig.send(&mut ledger, largest);
    rig.run(&mut ledger);
    assert_eq!(
        (ledger.confirmed.len(), rig.shared.usage().blocked),
        (2, Some(Blocked::Limit))
    );
    for lsn in ledger.lsns() {
        rig.release(&mut ledger, lsn);
    }
    rig.maintenance.tick();
    rig.run(&mut ledger);
    assert_eq!(ledger.confirmed.len(), 3);
    rig.check(&mut ledger);
}

#[test]
fn an_abandoned_append_is_not_written() {
    let disk = FaultyDisk::default();
    let (mut rig, mut ledger) = rig(&disk);
    rig.send(&mut ledger, 10);
    rig.abandon();
    rig.send(&mut ledger, 20);
    rig.run(&mut ledger);
    let records: Vec<Record> = rig.read_all();
    assert_eq!(
        records
            .iter()
            .map(|record| record.payload.len())
            .collect::<Vec<_>>(),
        [20]
    );
    rig.check(&mut ledger);
}

#[test]
fn a_reader_that_meets_an_error_skips_nothing_and_a_dead_sector_ends_only_its_segment() {
    let disk = FaultyDisk::default();
    let (mut rig, mut ledger) = rig(&disk);
    for _ in 0..8 {
        rig.send(&mut ledger, 1800);
        rig.run(&mut ledger);
    }
    let all: Vec<u64> = rig.read_all().iter().map(|record| record.lsn).collect();
    let first_segment = rig.read_all().iter().filter(|record| record.segment == 1).count();
    let mut reader = rig.reader(0);
    // Errors that pass.
    disk.fail_always(Operation::Read, Some(Fault::Full));
    for _ in 0..20 {
        let error = reader.next().unwrap_err().to_string();
        assert!(error.contains("journal/"), "{error}");
    }
    disk.fail_always(Operation::Read, None);
    let read: Vec<u64> = std::iter::from_fn(|| reader.next().unwrap())
        .map(|record| record.lsn)
        .collect();
    assert_eq!(read, all);
    assert_eq!(rig.shared.usage().lost_records, 0);
    // Device errors: after five in a row the segment is given up.
    let mut reader = rig.reader(0);
    disk.break_reads_of(&segment_name(1));
    let mut errors = 0;
    let mut read = Vec::new();
    loop {
        match reader.next() {
            Ok(Some(record)) => read.push(record.lsn),
            Ok(None) => break,
            Err(_) => errors += 1,
        }
    }
    assert_eq!((read, errors), (all[first_segment..].to_vec(), 4));
    assert_eq!(rig.shared.usage().lost_records, first_segment as u64);
    assert!(disk.names().contains(&format!("quarantine/{}", segment_name(1))));
}

#[test]
fn dead_sectors_in_the_newest_segment_do_not_keep_the_journal_from_opening() {
    let disk = FaultyDisk::default();
    let (mut rig, mut ledger) = rig(&disk);
    for _ in 0..3 {
        rig.send(&mut ledger, 1800);
        rig.run(&mut ledger);
    }
    let newest = rig.read_all().last().unwrap().segment;
    let disk = rig.kill();
    disk.break_reads_of(&segment_name(newest));
    let mut rig = Rig::open(&disk).unwrap();
    assert_eq!(rig.recovery.quarantined, [newest]);
    assert!(rig.recovery.next_lsn > 3, "lsns are not assigned twice");
    rig.send(&mut ledger, 10);
    rig.run(&mut ledger);
    assert_eq!(rig.read_all().last().unwrap().payload.len(), 10);
}

#[test]
fn a_removed_segment_can_be_read_to_its_end() {
    let disk = FaultyDisk::default();
    let (mut rig, mut ledger) = rig(&disk);
    for _ in 0..6 {
        rig.send(&mut ledger, 1200);
        rig.run(&mut ledger);
    }
    let mut reader = rig.reader(1);
    assert_eq!(reader.next().unwrap().unwrap().lsn, 1);
    for lsn in ledger.lsns() {
        rig.release(&mut ledger, lsn);
    }
    rig.maintenance.tick();
    assert_eq!(rig.shared.usage().segments, 1);
    assert!(disk.open(&segment_name(1), false).is_err());
    let rest: Vec<Record> = std::iter::from_fn(|| reader.next().unwrap()).collect();
    assert!(rest.iter().all(|record| record.released));
    assert_eq!(rig.shared.usage().lost_records, 0);
    assert_eq!(rig.shared.usage().quarantined_segments, 0);
}

#[test]
fn a_segment_that_is_being_removed_is_not_missed() {
    let disk = FaultyDisk::default();
    let (mut rig, mut ledger) = rig(&disk);
    for _ in 0..6 {
        rig.send(&mut ledger, 1200);
        rig.run(&mut ledger);
    }
    let first: Vec<u64> = rig
        .read_all()
        .iter()
        .filter(|record| record.segment == 1)
        .map(|record| record.lsn)
        .collect();
    for &lsn in &first {
        rig.release(&mut ledger, lsn);
    }
    // For a moment the file is removed and its segment is still in the table.
    disk.remove(&segment_name(1)).unwrap();
    assert_eq!(rig.read_all().len(), 6 - first.len());
    rig.check(&mut ledger);
}

#[test]
fn quarantine_without_links_moves_the_file_in_the_end() {
    let disk = FaultyDisk::default();
    let (mut rig, mut ledger) = rig(&disk);
    for _ in 0..6 {
        rig.send(&mut ledger, 1200);
        rig.run(&mut ledger);
    }
    rig.maintenance.tick();
    let mut content = disk.content(&segment_name(1)).unwrap();
    content[500] ^= 1;
    disk.set_content(&segment_name(1), &content);
    disk.fail_always(Operation::Rename, Some(Fault::Broken));
    let damaged = [1].into();
    rig.check_all_but(&mut ledger, &damaged);
    disk.fail_always(Operation::Rename, None);
    ledger.forget(&damaged);
    for lsn in ledger.lsns() {
        rig.release(&mut ledger, lsn);
    }
    rig.maintenance.tick();
    assert_eq!(
        disk.content(&format!("quarantine/{}", segment_name(1))).unwrap(),
        content
    );
    assert!(disk.content(&segment_name(1)).is_none());
}

#[test]
fn a_clean_restart_remembers_every_release() {
    let disk = FaultyDisk::default();
    let (mut rig, mut ledger) = rig(&disk);
    for _ in 0..9 {
        rig.send(&mut ledger, 1200);
        rig.run(&mut ledger);
    }
    // Out of order, and one at a time.
    for lsn in [7, 2, 3, 9, 1] {
        rig.release(&mut ledger, lsn);
        rig.maintenance.tick();
    }
    let released = |rig: &Rig| {
        let records = rig.read_all();
        records
            .iter()
            .filter(|record| record.released)
            .map(|record| record.lsn)
            .collect::<Vec<_>>()
    };
    let before = released(&rig);
    assert!(!before.is_empty());
    let rig = Rig::open(&rig.kill()).unwrap();
    assert_eq!(released(&rig), before);
    assert_eq!(rig.recovery.unreleased_records, 4);
    assert_eq!(rig.recovery.first_unreleased_lsn, Some(4));
    rig.check(&mut ledger);
}

#[test]
fn what_a_killed_process_had_written_and_not_synced_is_synced_before_it_is_used() {
    let disk = FaultyDisk::default();
    let (mut rig, mut ledger) = rig(&disk);
    rig.send(&mut ledger, 100);
    rig.run(&mut ledger);
    rig.maintenance.tick();
    rig.send(&mut ledger, 200);
    // Killed between the write and its sync: the bytes are in the page cache.
    disk.fail(2, Fault::Crash);
    rig.step(&mut ledger);
    assert!(disk.is_dead());
    disk.process_dies();
    let rig = Rig::open(&disk).unwrap();
    assert_eq!(rig.read_all().len(), 2);
    rig.check(&mut ledger);
    // It may have been processed: a power failure must not lose it and free its lsn.
    for seed in 0..8 {
        let disk = disk.copy_with_power_failure(seed);
        Rig::open(&disk).unwrap().check(&mut ledger.clone());
    }
}
