//! What the journal does while something is wrong, and after.

use super::super::format::segment_name;
use super::super::storage::Storage;
use super::super::usage::Blocked;
use super::super::writer::Progress;
use super::super::{Options, Record};
use super::faulty::{Disk, Fault, Sort};
use super::rig::{Ledger, Rig, options};

fn rig(disk: &Disk) -> (Rig, Ledger) {
    (Rig::open(disk).unwrap(), Ledger::default())
}

#[test]
fn a_full_disk_stops_the_journal_before_the_segment_is_full_and_nothing_fails() {
    let disk = Disk::default();
    let (mut rig, mut ledger) = rig(&disk);
    rig.send(&mut ledger, 100);
    rig.keeper.tick();
    assert_eq!(rig.step(&mut ledger), Progress::Committed);
    // The segment in use is nearly empty, but there is no room for the one after it.
    disk.set_capacity(Some(disk.used()));
    rig.keeper.tick();
    rig.send(&mut ledger, 100);
    assert_eq!(rig.step(&mut ledger), Progress::Blocked(Blocked::NoSpace));
    assert_eq!(rig.shared.usage().blocked, Some(Blocked::NoSpace));
    assert!(rig.keeper.tick(), "it is tried again");
    assert_eq!(rig.step(&mut ledger), Progress::Blocked(Blocked::NoSpace));
    assert_eq!((ledger.confirmed.len(), ledger.failed), (1, 0));
    // Some space: but not all of it is taken, others need some too.
    disk.set_capacity(Some(disk.used() + 4096));
    rig.keeper.tick();
    assert_eq!(rig.step(&mut ledger), Progress::Blocked(Blocked::NoSpace));
    disk.set_capacity(Some(disk.used() + 5000));
    assert!(!rig.keeper.tick());
    assert_eq!(rig.step(&mut ledger), Progress::Committed);
    assert_eq!((ledger.confirmed.len(), ledger.failed), (2, 0));
    rig.check(&mut ledger);
}

#[test]
fn on_a_full_disk_a_segment_that_is_done_makes_room_for_the_next() {
    let disk = Disk::default();
    let (mut rig, mut ledger) = rig(&disk);
    rig.keeper.tick();
    for _ in 0..3 {
        rig.send(&mut ledger, 900);
    }
    rig.run(&mut ledger);
    // Room for hardly more than a header.
    disk.set_capacity(Some(disk.used() + 100));
    rig.keeper.tick();
    rig.send(&mut ledger, 900);
    assert_eq!(rig.step(&mut ledger), Progress::Blocked(Blocked::NoSpace));
    for lsn in ledger.lsns() {
        rig.release(&mut ledger, lsn);
    }
    // All of the only segment is released, but only a new one would let it go.
    for _ in 0..6 {
        rig.step(&mut ledger);
        disk.set_capacity(Some(disk.used() + 4196));
        rig.keeper.tick();
    }
    assert_eq!(ledger.confirmed.len(), 4, "{:?}", rig.shared.usage());
    assert_eq!(ledger.failed, 0);
    rig.check(&mut ledger);
}

#[test]
fn space_that_ends_in_the_middle_of_a_write_fails_nobody() {
    let disk = Disk::default().without_allocate();
    let mut ledger = Ledger::default();
    let larger = Options {
        segment_bytes: 16384,
        ..options()
    };
    let mut rig = Rig::open_with(&disk, larger).unwrap();
    rig.send(&mut ledger, 100);
    rig.run(&mut ledger);
    rig.keeper.tick();
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
    rig.keeper.tick();
    rig.run(&mut ledger);
    assert_eq!((ledger.confirmed.len(), ledger.failed), (4, 0));
    assert_eq!(rig.shared.usage().blocked, None);
    rig.check(&mut ledger);
    disk.power_cycle(1);
    Rig::open(&disk).unwrap().check(&mut ledger);
}

#[test]
fn after_a_failed_sync_the_file_is_left_alone() {
    for sort in [Sort::Write, Sort::Sync] {
        let disk = Disk::default();
        let (mut rig, mut ledger) = rig(&disk);
        rig.send(&mut ledger, 100);
        rig.run(&mut ledger);
        rig.keeper.tick();
        disk.fail_always(sort, Some(Fault::Broken));
        rig.send(&mut ledger, 200);
        rig.send(&mut ledger, 300);
        assert!(matches!(
            rig.step(&mut ledger),
            Progress::Failed(Blocked::Failing(_))
        ));
        assert_eq!((ledger.confirmed.len(), ledger.failed), (1, 2));
        // As long as the disk fails, what comes later waits; it was never written, so nothing about it is unclear.
        rig.send(&mut ledger, 400);
        for _ in 0..3 {
            assert!(matches!(
                rig.step(&mut ledger),
                Progress::Blocked(Blocked::Failing(_))
            ));
            rig.keeper.tick();
        }
        assert_eq!(ledger.failed, 2);
        assert!(rig.shared.usage().disk_errors >= 2);
        disk.fail_always(sort, None);
        rig.run(&mut ledger);
        assert_eq!((ledger.confirmed.len(), rig.shared.usage().blocked), (2, None));
        let segments: Vec<u64> = rig.read_all().iter().map(|record| record.segment).collect();
        assert!(
            segments[0] < segments[1],
            "nothing more goes into the file that failed"
        );
        rig.check(&mut ledger);
        // The failed records would be back if their file had been synced again.
        disk.power_cycle(3);
        let rig = Rig::open(&disk).unwrap();
        assert_eq!(rig.read_all().len(), 2);
        rig.check(&mut ledger);
    }
}

#[test]
fn lsns_of_failed_records_are_given_again_and_the_old_bytes_stay_unread() {
    let disk = Disk::default();
    let (mut rig, mut ledger) = rig(&disk);
    rig.send(&mut ledger, 100);
    rig.run(&mut ledger);
    rig.keeper.tick();
    // The sync fails, and so does the attempt to cut the bytes off: they are in the file, whole and sound.
    disk.fail_always(Sort::SetLen, Some(Fault::Broken));
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
    let disk = Disk::default();
    let mut ledger = Ledger::default();
    let options = Options {
        segment_bytes: 4096,
        limit_bytes: 40_000,
        ..options()
    };
    let mut rig = Rig::open_with(&disk, options).unwrap();
    for _ in 0..100 {
        rig.send(&mut ledger, 1000);
    }
    while rig.step(&mut ledger) == Progress::Committed {
        rig.keeper.tick();
    }
    assert_eq!(rig.shared.usage().blocked, Some(Blocked::Limit));
    let usage = rig.shared.usage();
    assert!(usage.bytes <= 40_000 && usage.bytes > 38_000, "{usage:?}");
    assert!(
        disk.used() <= 40_000 + 4096 + 1000,
        "with notes and what is allocated ahead: {}",
        disk.used()
    );
    assert!(usage.past_soft_limit());
    // A middle segment goes first: any one will do.
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
    rig.keeper.tick();
    rig.run(&mut ledger);
    assert_eq!(ledger.confirmed.len(), before + lsns.len(), "as many as went");
    // In the end all of them go through.
    while !rig.backlog.is_empty() {
        let oldest = rig.shared.usage().oldest_segment.unwrap();
        rig.release(&mut ledger, oldest.first_unreleased_lsn);
        rig.keeper.tick();
        rig.run(&mut ledger);
        assert!(rig.shared.usage().bytes <= 40_000);
    }
    assert_eq!((ledger.confirmed.len(), ledger.failed), (100, 0));
    rig.check(&mut ledger);
}

#[test]
fn a_record_as_large_as_allowed_gets_in_when_the_rest_is_released() {
    let disk = Disk::default();
    let mut ledger = Ledger::default();
    let options = Options {
        segment_bytes: 4096,
        limit_bytes: 40_000,
        ..options()
    };
    let mut rig = Rig::open_with(&disk, options).unwrap();
    let largest = rig.shared.max_payload() as usize;
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
    rig.keeper.tick();
    rig.run(&mut ledger);
    assert_eq!(ledger.confirmed.len(), 3);
    rig.check(&mut ledger);
}

#[test]
fn an_abandoned_append_is_not_written() {
    let disk = Disk::default();
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
    let disk = Disk::default();
    let (mut rig, mut ledger) = rig(&disk);
    for _ in 0..8 {
        rig.send(&mut ledger, 1800);
        rig.run(&mut ledger);
    }
    let all: Vec<u64> = rig.read_all().iter().map(|record| record.lsn).collect();
    let first_segment = rig.read_all().iter().filter(|record| record.segment == 1).count();
    let mut reader = rig.reader(0);
    // Passing.
    disk.fail_always(Sort::Read, Some(Fault::Full));
    for _ in 0..20 {
        let error = reader.next().unwrap_err().to_string();
        assert!(error.contains("journal/"), "{error}");
    }
    disk.fail_always(Sort::Read, None);
    let read: Vec<u64> = std::iter::from_fn(|| reader.next().unwrap())
        .map(|record| record.lsn)
        .collect();
    assert_eq!(read, all);
    assert_eq!(rig.shared.usage().lost_records, 0);
    // The device: five errors in a row, and the segment is given up.
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
    let disk = Disk::default();
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
    assert!(rig.recovery.next_lsn > 3, "lsns are not given twice");
    rig.send(&mut ledger, 10);
    rig.run(&mut ledger);
    assert_eq!(rig.read_all().last().unwrap().payload.len(), 10);
}

#[test]
fn a_removed_segment_can_be_read_to_its_end() {
    let disk = Disk::default();
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
    rig.keeper.tick();
    assert_eq!(rig.shared.usage().segments, 1);
    assert!(disk.open(&segment_name(1), false).is_err());
    let rest: Vec<Record> = std::iter::from_fn(|| reader.next().unwrap()).collect();
    assert!(rest.iter().all(|record| record.released));
    assert_eq!(rig.shared.usage().lost_records, 0);
    assert_eq!(rig.shared.usage().quarantined_segments, 0);
}

#[test]
fn a_segment_that_is_being_removed_is_not_missed() {
    let disk = Disk::default();
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
    // As it is for a moment: the file is gone, the keeper has not said so yet.
    disk.remove(&segment_name(1)).unwrap();
    assert_eq!(rig.read_all().len(), 6 - first.len());
    rig.check(&mut ledger);
}

#[test]
fn quarantine_without_links_moves_the_file_in_the_end() {
    let disk = Disk::default();
    let (mut rig, mut ledger) = rig(&disk);
    for _ in 0..6 {
        rig.send(&mut ledger, 1200);
        rig.run(&mut ledger);
    }
    rig.keeper.tick();
    let mut content = disk.content(&segment_name(1)).unwrap();
    content[500] ^= 1;
    disk.set_content(&segment_name(1), &content);
    disk.fail_always(Sort::Rename, Some(Fault::Broken));
    let damaged = [1].into();
    rig.check_all_but(&mut ledger, &damaged);
    disk.fail_always(Sort::Rename, None);
    ledger.forget(&damaged);
    for lsn in ledger.lsns() {
        rig.release(&mut ledger, lsn);
    }
    rig.keeper.tick();
    assert_eq!(
        disk.content(&format!("quarantine/{}", segment_name(1))).unwrap(),
        content
    );
    assert!(disk.content(&segment_name(1)).is_none());
}

#[test]
fn a_clean_restart_remembers_every_release() {
    let disk = Disk::default();
    let (mut rig, mut ledger) = rig(&disk);
    for _ in 0..9 {
        rig.send(&mut ledger, 1200);
        rig.run(&mut ledger);
    }
    // Out of order, and one at a time.
    for lsn in [7, 2, 3, 9, 1] {
        rig.release(&mut ledger, lsn);
        rig.keeper.tick();
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
    let disk = Disk::default();
    let (mut rig, mut ledger) = rig(&disk);
    rig.send(&mut ledger, 100);
    rig.run(&mut ledger);
    rig.keeper.tick();
    rig.send(&mut ledger, 200);
    // Killed between the write and its sync: the system still has the bytes.
    disk.fail(2, Fault::Crash);
    rig.step(&mut ledger);
    assert!(disk.is_dead());
    disk.process_dies();
    let rig = Rig::open(&disk).unwrap();
    assert_eq!(rig.read_all().len(), 2);
    rig.check(&mut ledger);
    // It may have been processed by now. The power must not take it, and its lsn, back.
    for seed in 0..8 {
        let disk = disk.copy_with_power_failure(seed);
        Rig::open(&disk).unwrap().check(&mut ledger.clone());
    }
}
