//! Files of segments that are done with become those of new ones, and nothing of what they held ever comes back.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use tracing_subscriber::fmt::MakeWriter;

use super::super::format::segment_name;
use super::super::inspect::inspect_on;
use super::super::storage::QUARANTINE;
use super::super::writer::Progress;
use super::faulty::{Disk, Fault, Sort};
use super::model::{crash_at_each, fail_at_each};
use super::rig::{Ledger, Rig, options};

/// One record a segment, of this size.
const RECORD: usize = 3000;

/// Writes a segment, and releases all but the last three.
fn round(rig: &mut Rig, ledger: &mut Ledger) {
    rig.send(ledger, RECORD);
    rig.run(ledger);
    rig.keeper.tick();
    let lsns = ledger.lsns();
    let old = lsns.len().saturating_sub(3);
    lsns.into_iter()
        .take(old)
        .for_each(|lsn| rig.release(ledger, lsn));
    rig.keeper.tick();
}

fn churn(rig: &mut Rig, ledger: &mut Ledger) {
    (0..9).for_each(|_| round(rig, ledger));
}

fn count(disk: &Disk, sort: Sort) -> usize {
    disk.log().iter().filter(|its| **its == sort).count()
}

fn spares(disk: &Disk) -> usize {
    disk.names()
        .iter()
        .filter(|name| name.ends_with(".spare"))
        .count()
}

fn operations_of_churn() -> u64 {
    let disk = Disk::default();
    churn(&mut Rig::open(&disk).unwrap(), &mut Ledger::default());
    // The instance file is one rename; each file that is used again is two.
    assert!(count(&disk, Sort::Rename) > 6, "the script uses no file again");
    disk.operations()
}

#[test]
fn in_the_long_run_no_file_is_made_or_removed() {
    let disk = Disk::default();
    let mut ledger = Ledger::default();
    let mut rig = Rig::open(&disk).unwrap();
    churn(&mut rig, &mut ledger);
    let counts = [Sort::Create, Sort::Remove, Sort::Allocate].map(|sort| count(&disk, sort));
    let used = disk.used();
    for _ in 0..50 {
        round(&mut rig, &mut ledger);
        rig.check(&mut ledger);
        assert!(disk.used() <= used + 4096, "{}", disk.used());
    }
    let after = [Sort::Create, Sort::Remove, Sort::Allocate].map(|sort| count(&disk, sort));
    let [created, removed, allocated] = [0, 1, 2].map(|at| after[at] - counts[at]);
    // Notes are files too: one for each segment. And each file is filled up again.
    assert_eq!((created, removed, allocated), (50, 50, 50));
}

#[test]
fn after_a_kill_only_what_is_open_comes_back() {
    for size in [10, 1500, 3500] {
        let disk = Disk::default();
        let mut ledger = Ledger::default();
        let mut rig = Rig::open(&disk).unwrap();
        churn(&mut rig, &mut ledger);
        rig.send(&mut ledger, size);
        rig.run(&mut ledger);
        assert!(spares(&disk) > 0);
        disk.process_dies();
        let disk = rig.kill();
        let rig = Rig::open(&disk).unwrap();
        assert_eq!(spares(&disk), 0, "they are of no use to another life");
        assert_eq!((rig.recovery.torn_bytes, rig.recovery.quarantined.len()), (0, 0));
        rig.check(&mut ledger);
        let expected: Vec<_> = ledger.lsns().into_iter().rev().take(4).collect();
        let found: BTreeSet<_> = rig.read_all().iter().map(|record| record.lsn).collect();
        assert!(expected.iter().all(|lsn| found.contains(lsn)), "{found:?}");
    }
}

#[test]
fn a_crash_at_any_operation_loses_nothing_confirmed() {
    crash_at_each(operations_of_churn(), churn);
}

#[test]
fn an_error_at_any_operation_confirms_nothing_that_is_not_durable() {
    fail_at_each(operations_of_churn(), churn);
}

#[test]
fn damage_is_told_from_what_an_earlier_segment_left() {
    let disk = Disk::default();
    let mut ledger = Ledger::default();
    let mut rig = Rig::open(&disk).unwrap();
    churn(&mut rig, &mut ledger);
    for _ in 0..3 {
        rig.send(&mut ledger, 500);
        rig.run(&mut ledger);
    }
    let segment = rig.read_all().last().unwrap().segment;
    let its: Vec<_> = rig
        .read_all()
        .iter()
        .filter(|record| record.segment == segment)
        .map(|record| record.lsn)
        .collect();
    assert!(its.len() > 1);
    disk.process_dies();
    let disk = rig.kill();
    let report = inspect_on(&disk, &options().dir, &mut |_, _| {}).unwrap();
    assert!(!report.is_damaged() && report.segments.iter().all(|segment| segment.torn_bytes == 0));
    let mut content = disk.content(&segment_name(segment)).unwrap();
    content[200] ^= 1;
    disk.set_content(&segment_name(segment), &content);
    // Of the commits of the newest segment the first is damaged: the later ones say so.
    let rig = Rig::open(&disk).unwrap();
    assert_eq!(rig.recovery.quarantined, [segment]);
    rig.check_all_but(&mut ledger, &[its[0]].into());
    assert_eq!(rig.shared.usage().quarantined_segments, 1);
}

/// The quarantine has a second name for the damaged file, not a copy.
#[test]
fn a_damaged_file_is_never_used_again() {
    let disk = Disk::default();
    let mut ledger = Ledger::default();
    let mut rig = Rig::open(&disk).unwrap();
    churn(&mut rig, &mut ledger);
    let segment = rig.read_all().last().unwrap().segment;
    let name = segment_name(segment);
    let mut content = disk.content(&name).unwrap();
    content[200] ^= 1;
    disk.set_content(&name, &content);
    let lost = *ledger.lsns().last().unwrap();
    rig.read_all();
    assert_eq!(rig.shared.usage().quarantined_segments, 1);
    ledger.forget(&[lost].into());
    churn(&mut rig, &mut ledger);
    assert_eq!(disk.content(&name), None, "it is gone under its own name");
    let kept = disk.content(&format!("{QUARANTINE}/{name}")).unwrap();
    assert_eq!(kept[..content.len().min(kept.len())], content[..kept.len()]);
}

#[test]
fn a_file_that_failed_is_never_used_again() {
    let disk = Disk::default();
    let mut ledger = Ledger::default();
    let mut rig = Rig::open(&disk).unwrap();
    // Two thirds of a segment, so that it is large enough to be kept.
    rig.send(&mut ledger, RECORD);
    rig.run(&mut ledger);
    rig.keeper.tick();
    disk.fail(2, Fault::Broken);
    rig.send(&mut ledger, 500);
    assert!(matches!(rig.step(&mut ledger), Progress::Failed(_)));
    ledger.device_failed = true;
    rig.send(&mut ledger, RECORD);
    rig.run(&mut ledger);
    rig.keeper.tick();
    let first = ledger.lsns()[0];
    rig.release(&mut ledger, first);
    rig.keeper.tick();
    assert_eq!((rig.shared.usage().segments, spares(&disk)), (1, 0));
    rig.check(&mut ledger);
}

/// Everything in the file was released, so nothing is lost; the reader goes on with the segments that are there.
#[test]
fn a_reader_inside_a_file_that_is_used_again_raises_no_alarm() {
    let mut large = options();
    (large.segment_bytes, large.limit_bytes) = (4 << 20, 64 << 20);
    let disk = Disk::default();
    let mut ledger = Ledger::default();
    let mut rig = Rig::open_with(&disk, large).unwrap();
    // Larger than what a reader reads ahead.
    let round = |rig: &mut Rig, ledger: &mut Ledger| {
        rig.send(ledger, 1_200_000);
        rig.send(ledger, 1_200_000);
        rig.run(ledger);
        rig.keeper.tick();
    };
    round(&mut rig, &mut ledger);
    let mut reader = rig.reader(0);
    let first = reader.next().unwrap().unwrap();
    for _ in 0..8 {
        for lsn in ledger.lsns() {
            rig.release(&mut ledger, lsn);
        }
        round(&mut rig, &mut ledger);
    }
    let name = segment_name(first.segment);
    assert!(disk.content(&name).is_none() && count(&disk, Sort::Rename) > 6);
    let said = Said::default();
    let lines = tracing_subscriber::fmt().with_writer(said.clone()).finish();
    let found: Vec<u64> = tracing::subscriber::with_default(lines, || {
        std::iter::from_fn(|| reader.next().unwrap())
            .map(|record| record.lsn)
            .collect()
    });
    let open = &ledger.lsns()[16..];
    assert!(found.ends_with(open), "{found:?} {open:?}");
    assert_eq!(String::from_utf8_lossy(&said.0.lock().unwrap()), "");
    let usage = rig.shared.usage();
    assert_eq!((usage.lost_records, usage.quarantined_segments), (0, 0));
}

/// What was logged.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<u8>>>);

impl MakeWriter<'_> for Said {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl Write for Said {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn nothing_is_kept_near_the_limit_or_on_a_full_disk() {
    let mut narrow = options();
    narrow.limit_bytes = 8 * 4096;
    let disk = Disk::default();
    let mut ledger = Ledger::default();
    let mut rig = Rig::open_with(&disk, narrow).unwrap();
    for _ in 0..30 {
        round(&mut rig, &mut ledger);
        assert!(disk.used() <= 9 * 4096 + 1000, "{}", disk.used());
    }
    let disk = Disk::default();
    let mut ledger = Ledger::default();
    let mut rig = Rig::open(&disk).unwrap();
    churn(&mut rig, &mut ledger);
    assert!(spares(&disk) > 1);
    disk.set_capacity(Some(disk.used() + 4096));
    rig.keeper.tick();
    assert_eq!(
        spares(&disk),
        1,
        "the one that is next; the space of others is needed"
    );
    round(&mut rig, &mut ledger);
    rig.check(&mut ledger);
}
