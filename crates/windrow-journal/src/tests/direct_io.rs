//! Tests of direct I/O and block-aligned writes.

use std::collections::BTreeSet;
use std::path::Path;

use bytes::Bytes;

use super::faulty_disk::{DirectIoRefusal, Fault, FaultyDisk, Operation, Rng};
use super::rig::{Ledger, Rig, options};
use crate::format::segment_name;
use crate::inspect::inspect_on;
use crate::queue::MIN_ALIGNED_PAYLOAD_BYTES;
use crate::storage::BLOCK_BYTES;
use crate::{Journal, JournalOptions};

/// Empty, less than a block, exactly one, several, and more than the buffer holds.
const SIZES: [usize; 10] = [0, 10, 250, 4000, 4096 - 32, 4096, 9000, 60_000, 70_000, 2_500_000];

fn wide() -> JournalOptions {
    JournalOptions {
        segment_bytes: 8 << 20,
        limit_bytes: 256 << 20,
        ..options()
    }
}

/// Makes commits of all sizes while a reader follows; the last commit ends within a block.
fn mixture(rig: &mut Rig, ledger: &mut Ledger, seed: u64) {
    let mut rng = Rng::new(seed);
    let mut pick = |n: usize| rng.below(n as u64) as usize;
    let after = ledger.lsns().last().map_or(0, |lsn| lsn + 1);
    let mut reader = rig.reader(after);
    for _ in 0..40 {
        let count = 1 + pick(3);
        for _ in 0..count {
            let size = SIZES[pick(SIZES.len())];
            match pick(2) {
                0 => rig.send(ledger, size),
                _ => rig.send_aligned(ledger, size),
            }
        }
        rig.run(ledger);
        assert!(rig.backlog.is_empty());
        let lsns = ledger.lsns();
        for lsn in &lsns[lsns.len() - count..] {
            assert_eq!(reader.next().unwrap().unwrap().lsn, *lsn);
        }
        assert_eq!(reader.next().unwrap(), None);
        rig.maintenance.tick();
        lsns.iter()
            .take(lsns.len().saturating_sub(10))
            .for_each(|lsn| rig.release(ledger, *lsn));
        rig.maintenance.tick();
    }
    rig.send(ledger, 100);
    rig.run(ledger);
    rig.check(ledger);
}

#[test]
fn commits_of_all_sizes_take_turns_through_restarts_and_power_failures() {
    let disk = FaultyDisk::default();
    let mut ledger = Ledger::default();
    for seed in 0..6 {
        let mut rig = Rig::open_with(&disk, wide()).unwrap();
        rig.check(&mut ledger);
        mixture(&mut rig, &mut ledger, seed);
        let disk = rig.kill();
        match seed % 2 {
            0 => disk.process_dies(),
            _ => disk.power_cycle(seed),
        }
    }
    assert!(disk.direct_writes() > 240, "{}", disk.direct_writes());
    Rig::open_with(&disk, wide()).unwrap().check(&mut ledger);
}

#[test]
fn a_commit_in_several_pieces_is_whole_or_was_never_confirmed() {
    // Three writes and a sync.
    for at in 1..=4 {
        for seed in 0..8 {
            let disk = FaultyDisk::default();
            let mut ledger = Ledger::default();
            let mut rig = Rig::open_with(&disk, wide()).unwrap();
            rig.send(&mut ledger, 100);
            rig.run(&mut ledger);
            rig.maintenance.tick();
            let before = disk.operations();
            disk.fail(at, Fault::Crash);
            rig.send(&mut ledger, 1_000_000);
            // One of them is written without a copy.
            rig.send_aligned(&mut ledger, 200_000);
            (0..2).for_each(|_| rig.send(&mut ledger, 1_000_000));
            rig.step(&mut ledger);
            let done = disk.operations() - before;
            assert!(disk.is_dead() && done == at, "{done}");
            disk.power_cycle(seed);
            let mut rig = Rig::open_with(&disk, wide()).unwrap();
            rig.check(&mut ledger);
            mixture(&mut rig, &mut ledger, seed);
        }
    }
}

/// With every subset of the sectors that the disk can have written before a power failure.
#[test]
fn what_was_confirmed_survives_each_torn_rewrite_of_its_block() {
    let disk = FaultyDisk::default();
    let mut ledger = Ledger::default();
    let mut rig = Rig::open_with(&disk, wide()).unwrap();
    (0..5).for_each(|_| rig.send(&mut ledger, 300));
    rig.run(&mut ledger);
    let name = segment_name(rig.shared.usage().oldest_segment.unwrap().number);
    let before = disk.content(&name).unwrap();
    disk.fail(2, Fault::Crash);
    (0..3).for_each(|_| rig.send(&mut ledger, 500));
    rig.step(&mut ledger);
    assert!(disk.is_dead());
    disk.process_dies();
    let after = disk.content(&name).unwrap();
    assert_eq!(
        before[BLOCK_BYTES..],
        after[BLOCK_BYTES..],
        "one block was written again"
    );
    for subset in 0..256_u32 {
        let mut torn = before.clone();
        for sector in (0..8).filter(|sector| subset & (1 << sector) != 0) {
            let bytes = sector * 512..(sector + 1) * 512;
            torn[bytes.clone()].copy_from_slice(&after[bytes]);
        }
        let disk = disk.copy();
        disk.set_content(&name, &torn);
        let rig = Rig::open_with(&disk, wide()).unwrap();
        assert!(rig.recovery.quarantined.is_empty(), "{subset:08b}");
        rig.check(&mut ledger.clone());
    }
}

#[test]
fn behind_the_last_record_of_a_commit_there_are_zeros_up_to_the_end_of_its_block() {
    let disk = FaultyDisk::default();
    let mut ledger = Ledger::default();
    let mut rig = Rig::open(&disk).unwrap();
    let mut again = 0;
    for _ in 0..12 {
        rig.send(&mut ledger, 10);
        rig.run(&mut ledger);
        let newest = rig.read_all().last().unwrap().segment;
        let content = disk.content(&segment_name(newest)).unwrap();
        assert_eq!(
            (content.len(), &content[64 + 42..]),
            (BLOCK_BYTES, &[0; BLOCK_BYTES - 64 - 42][..])
        );
        again += u64::from(content[56] & 1 == 1);
        rig.send(&mut ledger, 3950);
        rig.run(&mut ledger);
        rig.maintenance.tick();
        ledger
            .lsns()
            .into_iter()
            .for_each(|lsn| rig.release(&mut ledger, lsn));
        rig.maintenance.tick();
    }
    assert!(again > 3, "recycled files: {again}");
}

#[test]
fn where_the_page_cache_cannot_be_passed_it_is_not() {
    for how in [DirectIoRefusal::Asked, DirectIoRefusal::Write] {
        // From the start, or from some write on.
        for late in [false, true] {
            let disk = FaultyDisk::default();
            let mut ledger = Ledger::default();
            let mut rig = Rig::open_with(&disk, wide()).unwrap();
            let direct = disk.direct_writes();
            if late {
                rig.send(&mut ledger, 5000);
                rig.run(&mut ledger);
                assert!(disk.direct_writes() > direct);
            }
            disk.refuse_direct(how);
            if !late {
                rig = Rig::open_with(&disk, wide()).unwrap();
            }
            mixture(&mut rig, &mut ledger, 7);
            assert_eq!((ledger.failed, rig.shared.usage().disk_errors), (0, 0));
            let direct = disk.direct_writes();
            mixture(&mut rig, &mut ledger, 8);
            assert_eq!(disk.direct_writes(), direct, "{how:?}, late: {late}");
            disk.power_cycle(3);
            Rig::open_with(&disk, wide()).unwrap().check(&mut ledger);
        }
    }
}

#[test]
fn a_large_payload_that_begins_at_a_block_is_written_from_where_it_is() {
    let disk = FaultyDisk::default();
    let mut ledger = Ledger::default();
    let mut rig = Rig::open_with(&disk, wide()).unwrap();
    let at_block = |rig: &Rig| {
        let content = disk.content(&segment_name(rig.read_all()[0].segment)).unwrap();
        let payload = &rig.read_all().pop().unwrap().payload;
        let at = content.windows(payload.len()).position(|bytes| bytes == payload);
        at.unwrap() % BLOCK_BYTES == 0
    };
    for (size, expected) in [
        (MIN_ALIGNED_PAYLOAD_BYTES, true),
        (MIN_ALIGNED_PAYLOAD_BYTES - 1, false),
    ] {
        rig.send(&mut ledger, 10);
        rig.send_aligned(&mut ledger, size);
        rig.run(&mut ledger);
        assert_eq!(at_block(&rig), expected, "{size}");
        // A payload that is not block-aligned is copied.
        rig.send_behind_block(&mut ledger, size + 1, 16);
        rig.run(&mut ledger);
        assert!(!at_block(&rig));
    }
    rig.check(&mut ledger);
    let report = inspect_on(&disk, Path::new("journal"), &mut |_, _| {}).unwrap();
    let [segment] = &report.segments[..] else {
        panic!("{report:?}");
    };
    assert_eq!(
        (segment.records, segment.damaged_bytes, segment.torn_bytes),
        (6, 0, 0)
    );
    assert_eq!(segment.record_bytes + 64, rig.shared.usage().bytes);
}

/// Flips bytes of its header, of the padding before it, and of its first and last 20 bytes.
#[test]
fn of_a_payload_at_a_block_a_byte_flipped_costs_at_most_itself() {
    let disk = FaultyDisk::default();
    let mut ledger = Ledger::default();
    let mut rig = Rig::open_with(&disk, wide()).unwrap();
    for _ in 0..2 {
        rig.send(&mut ledger, 10);
        rig.send_aligned(&mut ledger, 70_001);
        rig.send(&mut ledger, 10);
        rig.run(&mut ledger);
    }
    let name = segment_name(rig.read_all()[0].segment);
    let content = disk.content(&name).unwrap();
    let lsns = ledger.lsns();
    let (begins, ends) = (64 + 42, BLOCK_BYTES + 70_001);
    let padding = (begins + 40..BLOCK_BYTES).step_by(97);
    let ends = (BLOCK_BYTES..BLOCK_BYTES + 20).chain(ends - 20..ends);
    for at in (begins..begins + 40).chain(padding).chain(ends) {
        let disk = disk.copy();
        let mut flipped = content.clone();
        flipped[at] ^= 0x55;
        disk.set_content(&name, &flipped);
        let rig = Rig::open_with(&disk, wide()).unwrap();
        let is_padding = (begins + 32..BLOCK_BYTES).contains(&at);
        let back: Vec<u64> = rig.read_all().iter().map(|record| record.lsn).collect();
        let expected = lsns.iter().filter(|lsn| **lsn != lsns[1] || is_padding);
        assert!(expected.eq(&back), "{at}: {back:?}");
    }
}

#[test]
fn one_commit_is_one_write_and_one_sync() {
    let disk = FaultyDisk::default();
    let mut ledger = Ledger::default();
    let mut rig = Rig::open_with(&disk, wide()).unwrap();
    rig.send(&mut ledger, 10);
    rig.run(&mut ledger);
    rig.maintenance.tick();
    for size in [10, 250_000, 10] {
        let before = disk.log().len();
        for _ in 0..2 {
            rig.send(&mut ledger, size);
            rig.send_aligned(&mut ledger, size);
        }
        rig.run(&mut ledger);
        assert_eq!(disk.log()[before..], [Operation::Write, Operation::Sync]);
    }
}

/// On a real disk, where reads go through the page cache.
#[test]
fn a_reader_that_follows_closely_never_sees_a_block_half_way() {
    let dir = tempfile::tempdir().unwrap();
    let options = JournalOptions {
        segment_bytes: 1 << 20,
        limit_bytes: 32 << 20,
        ..JournalOptions::new(dir.path())
    };
    let (journal, _) = Journal::open(options, Box::new(())).unwrap();
    let payload = |at: u64| {
        let mut rng = Rng::new(at);
        let size = match at % 20 {
            0 => 100_000 + rng.below(200_000),
            _ => rng.below(600),
        };
        Bytes::from(vec![at as u8; size as usize])
    };
    const RECORDS: u64 = 3000;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for at in 0..RECORDS {
                journal.append(0, payload(at)).wait().map(drop).unwrap();
            }
        });
        let mut reader = journal.reader(0);
        let mut at = 0;
        while at < RECORDS {
            if let Some(record) = reader.next().unwrap() {
                assert_eq!(record.payload, payload(at));
                journal.release(record.lsn);
                at += 1;
            }
        }
    });
    let usage = journal.usage();
    assert_eq!((usage.lost_records, usage.quarantined_segments), (0, 0));
    journal.close();
    let left: BTreeSet<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert!(
        left.iter()
            .all(|name| !name.to_string_lossy().ends_with(".spare")),
        "{left:?}"
    );
}
