//! Model test: random sequences of appends, releases, crashes, faults and restarts, compared with a
//! ledger.

use proptest::prelude::*;

use super::faulty_disk::{Fault, FaultyDisk, Operation};
use super::rig::{Ledger, Rig};
use crate::writer::Progress;

#[derive(Debug, Clone)]
enum Op {
    /// Number of records, and their size in bytes.
    Send(usize, usize),
    Commit,
    /// Where to start in the confirmed records, in percent, and the number of records.
    Release(usize, usize),
    Tick,
    ReadAll,
    /// The process is killed.
    Kill,
    /// A power failure, with this seed.
    Crash(u64),
    /// A fault after this number of operations.
    Fail(u64, Fault),
    /// The disk is full, or has space again.
    Full(bool),
}

fn op() -> impl Strategy<Value = Op> {
    let fault = prop_oneof![
        Just(Fault::Broken),
        Just(Fault::Full),
        Just(Fault::Short),
        Just(Fault::Crash)
    ];
    prop_oneof![
        6 => (1..12_usize, prop_oneof![0..200_usize, 2000..9000_usize]).prop_map(|(n, size)| Op::Send(n, size)),
        6 => Just(Op::Commit),
        4 => (0..100_usize, 1..40_usize).prop_map(|(from, n)| Op::Release(from, n)),
        4 => Just(Op::Tick),
        1 => Just(Op::ReadAll),
        1 => Just(Op::Kill),
        2 => any::<u64>().prop_map(Op::Crash),
        2 => (1..12_u64, fault).prop_map(|(at, fault)| Op::Fail(at, fault)),
        1 => any::<bool>().prop_map(Op::Full),
    ]
}

/// Opens the journal. While a fault lasts that may fail; after a power cycle it must work.
fn reopen(disk: &FaultyDisk, ledger: &mut Ledger, seed: u64) -> Rig {
    for attempt in 0.. {
        match Rig::open(disk) {
            Ok(rig) if !disk.is_dead() => {
                rig.check(ledger);
                return rig;
            }
            Ok(_) | Err(_) if attempt < 3 => disk.power_cycle(seed.wrapping_add(attempt)),
            Ok(_) => panic!("dead without a reason"),
            Err(error) => panic!("{error}"),
        }
    }
    unreachable!()
}

fn run(ops: &[Op]) {
    let disk = FaultyDisk::default();
    let mut ledger = Ledger::default();
    let mut rig = Rig::open(&disk).unwrap();
    for (at, op) in ops.iter().enumerate() {
        match *op {
            Op::Send(count, size) => (0..count).for_each(|_| rig.send(&mut ledger, size)),
            Op::Commit => drop(rig.step(&mut ledger)),
            Op::Release(from, count) => {
                let lsns = ledger.lsns();
                let skip = lsns.len() * from / 100;
                lsns.into_iter()
                    .skip(skip)
                    .take(count)
                    .for_each(|lsn| rig.release(&mut ledger, lsn));
            }
            Op::Tick => drop(rig.maintenance.tick()),
            Op::ReadAll if disk.is_dead() => {}
            Op::ReadAll => rig.check(&mut ledger),
            Op::Kill => {
                // Within an operation, if it has a fault. The page cache keeps what was written.
                disk.process_dies();
                drop(rig);
                rig = reopen(&disk, &mut ledger, at as u64);
            }
            Op::Crash(seed) => {
                disk.power_cycle(seed);
                drop(rig);
                rig = reopen(&disk, &mut ledger, seed);
            }
            Op::Fail(from_now, fault) => {
                ledger.device_failed |= fault == Fault::Broken;
                disk.fail(from_now, fault);
            }
            Op::Full(full) => disk.set_capacity(full.then(|| disk.used())),
        }
    }
    // Without faults everything that waits is written, and can be read, released and removed.
    disk.set_capacity(None);
    disk.power_cycle(ops.len() as u64);
    drop(rig);
    let mut rig = reopen(&disk, &mut ledger, 0);
    (0..5).for_each(|_| rig.send(&mut ledger, 100));
    rig.maintenance.tick();
    assert_eq!(rig.step(&mut ledger), Progress::Committed);
    rig.check(&mut ledger);
    for lsn in ledger.lsns() {
        rig.release(&mut ledger, lsn);
    }
    rig.maintenance.tick();
    assert_eq!(
        (rig.shared.usage().segments, rig.shared.usage().unreleased_records),
        (1, 0)
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_confirmed_is_ever_lost_doubled_damaged_or_out_of_order(ops in prop::collection::vec(op(), 1..80)) {
        run(&ops);
    }
}

#[test]
fn a_segment_that_is_given_up_on_a_full_disk_is_not_missed() {
    run(&[
        Op::Send(2, 2000),
        Op::Commit,
        Op::Commit,
        Op::Full(true),
        Op::Tick,
        Op::Crash(16_043_078_031_112_080_981),
        Op::Release(0, 1),
        Op::Tick,
        Op::Tick,
        Op::Tick,
        Op::Tick,
        Op::Kill,
    ]);
}

#[test]
fn a_segment_whose_recycling_a_crash_undoes_is_whole() {
    run(&[
        Op::Send(4, 4001),
        Op::Send(2, 2000),
        Op::Commit,
        Op::Commit,
        Op::Release(0, 2),
        Op::Commit,
        Op::Commit,
        Op::Commit,
        Op::Commit,
        Op::Tick,
        Op::Release(0, 6),
        Op::Tick,
        Op::Crash(18_234_917_347_856_914_719),
        Op::Crash(9_433_100_135_416_755_397),
    ]);
}

#[test]
fn a_record_whose_commit_failed_does_not_return_with_the_lsn_of_another() {
    run(&[
        Op::Send(1, 0),
        Op::Commit,
        Op::Tick,
        Op::Kill,
        Op::Commit,
        Op::Fail(3, Fault::Broken),
        Op::Send(7, 179),
        Op::Commit,
        Op::Send(1, 0),
        Op::Commit,
        Op::Send(1, 0),
        Op::Commit,
        Op::Crash(7_630_867_469_638_810_008),
        Op::Release(23, 7),
        Op::Tick,
    ]);
}

/// A script with every kind of operation: new segments, releases, release logs, removals.
fn script(rig: &mut Rig, ledger: &mut Ledger) {
    for round in 0..6 {
        for size in [10, 900, 3000, 0, 5000] {
            rig.send(ledger, size);
        }
        rig.run(ledger);
        rig.maintenance.tick();
        let lsns = ledger.lsns();
        lsns.into_iter()
            .take(round * 4)
            .for_each(|lsn| rig.release(ledger, lsn));
        rig.maintenance.tick();
    }
}

fn operations_of_script() -> u64 {
    let disk = FaultyDisk::default();
    script(&mut Rig::open(&disk).unwrap(), &mut Ledger::default());
    let log = disk.log();
    for operation in [
        Operation::Write,
        Operation::Sync,
        Operation::SyncFolder,
        Operation::Create,
        Operation::Allocate,
        Operation::SetLen,
        Operation::Remove,
    ] {
        assert!(log.contains(&operation), "the script never does {operation:?}");
    }
    disk.operations()
}

#[test]
fn a_crash_at_any_operation_loses_nothing_confirmed() {
    crash_at_each(operations_of_script(), script);
}

/// Lets the power fail at each operation of a script, and again during recovery.
pub(super) fn crash_at_each(operations: u64, script: fn(&mut Rig, &mut Ledger)) {
    for at in 1..=operations {
        for seed in 0..6 {
            let disk = FaultyDisk::default();
            let mut ledger = Ledger::default();
            disk.fail(at, Fault::Crash);
            if let Ok(mut rig) = Rig::open(&disk) {
                script(&mut rig, &mut ledger);
            }
            assert!(disk.is_dead());
            // And again during recovery.
            disk.power_cycle(seed + at * 31);
            disk.fail(1 + seed, Fault::Crash);
            drop(Rig::open(&disk));
            disk.power_cycle(seed);
            let mut rig = Rig::open(&disk).unwrap();
            rig.check(&mut ledger);
            script(&mut rig, &mut ledger);
            rig.check(&mut ledger);
        }
    }
}

#[test]
fn an_error_at_any_operation_confirms_nothing_that_is_not_durable() {
    fail_at_each(operations_of_script(), script);
}

/// Lets each operation of a script fail once, with each fault.
pub(super) fn fail_at_each(operations: u64, script: fn(&mut Rig, &mut Ledger)) {
    for fault in [Fault::Broken, Fault::Full, Fault::Short] {
        for at in 1..=operations {
            let disk = FaultyDisk::default();
            let mut ledger = Ledger::default();
            let mut rig = Rig::open(&disk).unwrap();
            disk.fail(at, fault);
            script(&mut rig, &mut ledger);
            rig.maintenance.tick();
            // The fault has passed: the journal continues without a restart.
            rig.run(&mut ledger);
            // More than once, since one of these may be the operation that fails.
            for _ in 0..10 {
                rig.maintenance.tick();
                rig.send(&mut ledger, 10);
                rig.run(&mut ledger);
            }
            assert_eq!(rig.shared.usage().blocked, None, "{fault:?} at {at}");
            assert!(rig.backlog.is_empty());
            rig.check(&mut ledger);
            let disk = rig.kill();
            disk.power_cycle(at);
            Rig::open(&disk).unwrap().check(&mut ledger);
        }
    }
}
