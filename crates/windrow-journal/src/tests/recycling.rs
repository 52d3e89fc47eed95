//! Tests of segment recycling: no remains of a previous segment ever come back.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use tracing_subscriber::fmt::MakeWriter;

use super::faulty_disk::{Fault, FaultyDisk, Operation};
use super::model::{crash_at_each, fail_at_each};
use super::rig::{Ledger, Rig, options};
use crate::format::segment_name;
use crate::inspect::inspect_on;
use crate::manifest::MIN_FILE_BYTES as MANIFEST_BYTES;
use crate::quarantine::QUARANTINE;
use crate::writer::Progress;

/// Payload size in bytes; a segment holds one such record.
const RECORD_BYTES: usize = 3000;

/// Writes a segment and releases all records but the last three.
fn round(rig: &mut Rig, ledger: &mut Ledger) {
    rig.send(ledger, RECORD_BYTES);
    rig.run(ledger);
    rig.maintenance.tick();
    let lsns = ledger.lsns();
    let old = lsns.len().saturating_sub(3);
    lsns.into_iter()
        .take(old)
        .for_each(|lsn| rig.release(ledger, lsn));
    rig.maintenance.tick();
}

fn churn(rig: &mut Rig, ledger: &mut Ledger) {
    (0..9).for_each(|_| round(rig, ledger));
}

fn count(disk: &FaultyDisk, operation: Operation) -> usize {
    disk.log().iter().filter(|its| **its == operation).count()
}

fn spares(disk: &FaultyDisk) -> usize {
    disk.names()
        .iter()
        .filter(|name| name.ends_with(".spare"))
        .count()
}

fn operations_of_churn() -> u64 {
    let disk = FaultyDisk::default();
    churn(&mut Rig::open(&disk).unwrap(), &mut Ledger::default());
    // The instance file is one rename; each recycled file is two.
    assert!(count(&disk, Operation::Rename) > 6, "the script recycles no file");
    disk.operations()
}

#[test]
fn in_the_long_run_no_file_is_made_or_removed() {
    let disk = FaultyDisk::default();
    let mut ledger = Ledger::default();
    let mut rig = Rig::open(&disk).unwrap();
    churn(&mut rig, &mut ledger);
    let counts =
        [Operation::Create, Operation::Remove, Operation::Allocate].map(|operation| count(&disk, operation));
    let used = disk.used();
    for _ in 0..50 {
        round(&mut rig, &mut ledger);
        rig.check(&mut ledger);
        assert!(disk.used() <= used + 4096, "{}", disk.used());
    }
    let after =
        [Operation::Create, Operation::Remove, Operation::Allocate].map(|operation| count(&disk, operation));
    let [created, removed, allocated] = [0, 1, 2].map(|at| after[at] - counts[at]);
    // One release log for each segment. And each recycled file is allocated to its full size.
    assert_eq!((created, removed, allocated), (50, 50, 50));
}

#[test]
fn after_a_kill_only_what_is_open_comes_back() {
    for size in [10, 1500, 3500] {
        let disk = FaultyDisk::default();
        let mut ledger = Ledger::default();
        let mut rig = Rig::open(&disk).unwrap();
        churn(&mut rig, &mut ledger);
        rig.send(&mut ledger, size);
        rig.run(&mut ledger);
        assert!(spares(&disk) > 0);
        disk.process_dies();
        let disk = rig.kill();
        let rig = Rig::open(&disk).unwrap();
        assert_eq!(spares(&disk), 0, "spare files are not kept over a restart");
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
    let disk = FaultyDisk::default();
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
    // The first commit of the newest segment is damaged, as the later ones prove.
    let rig = Rig::open(&disk).unwrap();
    assert_eq!(rig.recovery.quarantined, [segment]);
    rig.check_all_but(&mut ledger, &[its[0]].into());
    assert_eq!(rig.shared.usage().quarantined_segments, 1);
}

/// The quarantine holds a link to the damaged file, not a copy.
#[test]
fn a_damaged_file_is_never_used_again() {
    let disk = FaultyDisk::default();
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
    assert_eq!(disk.content(&name), None, "it is removed under its own name");
    let kept = disk.content(&format!("{QUARANTINE}/{name}")).unwrap();
    assert_eq!(kept[..content.len().min(kept.len())], content[..kept.len()]);
}

#[test]
fn a_file_that_failed_is_never_used_again() {
    let disk = FaultyDisk::default();
    let mut ledger = Ledger::default();
    let mut rig = Rig::open(&disk).unwrap();
    // Two thirds of a segment, so that it is large enough to be kept.
    rig.send(&mut ledger, RECORD_BYTES);
    rig.run(&mut ledger);
    rig.maintenance.tick();
    disk.fail(2, Fault::Broken);
    rig.send(&mut ledger, 500);
    assert!(matches!(rig.step(&mut ledger), Progress::Failed(_)));
    ledger.device_failed = true;
    rig.send(&mut ledger, RECORD_BYTES);
    rig.run(&mut ledger);
    rig.maintenance.tick();
    let first = ledger.lsns()[0];
    rig.release(&mut ledger, first);
    rig.maintenance.tick();
    assert_eq!((rig.shared.usage().segments, spares(&disk)), (1, 0));
    rig.check(&mut ledger);
}

/// All its records were released, so nothing is lost; the reader continues with the next segment.
#[test]
fn a_reader_inside_a_file_that_is_used_again_raises_no_alarm() {
    let mut large = options();
    (large.segment_bytes, large.limit_bytes) = (4 << 20, 64 << 20);
    let disk = FaultyDisk::default();
    let mut ledger = Ledger::default();
    let mut rig = Rig::open_with(&disk, large).unwrap();
    // Larger than the read window.
    let round = |rig: &mut Rig, ledger: &mut Ledger| {
        rig.send(ledger, 1_200_000);
        rig.send(ledger, 1_200_000);
        rig.run(ledger);
        rig.maintenance.tick();
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
    assert!(disk.content(&name).is_none() && count(&disk, Operation::Rename) > 6);
    let said = CapturedLog::default();
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

/// Collects log lines.
#[derive(Clone, Default)]
struct CapturedLog(Arc<Mutex<Vec<u8>>>);

impl MakeWriter<'_> for CapturedLog {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl Write for CapturedLog {
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
    let disk = FaultyDisk::default();
    let mut ledger = Ledger::default();
    let mut rig = Rig::open_with(&disk, narrow).unwrap();
    for _ in 0..30 {
        round(&mut rig, &mut ledger);
        assert!(disk.used() <= 9 * 4096 + 1000 + MANIFEST_BYTES, "{}", disk.used());
    }
    let disk = FaultyDisk::default();
    let mut ledger = Ledger::default();
    let mut rig = Rig::open(&disk).unwrap();
    churn(&mut rig, &mut ledger);
    assert!(spares(&disk) > 1);
    disk.set_capacity(Some(disk.used() + 4096));
    rig.maintenance.tick();
    assert_eq!(
        spares(&disk),
        1,
        "only the next segment; the space of others is needed"
    );
    round(&mut rig, &mut ledger);
    rig.check(&mut ledger);
}
