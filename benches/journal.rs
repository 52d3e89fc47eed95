//! Cost of the journal: CPU time per append by thread, syncs, and the time to open and read back.
//!
//! `cargo bench --bench journal [-- FOLDER]` (the folder decides which disk; about 1.5 GB are written).
//! CPU time is what counts here: elapsed times depend on the disk and on what else the machine does.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use windrow_journal::{Journal, JournalOptions};

fn main() {
    let folder = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    let folder = folder.map_or_else(std::env::temp_dir, PathBuf::from);
    println!(
        "{:<34} {:>8} {:>9} {:>8} {:>9} {:>9}  CPU us per append by thread",
        "scenario", "appends", "syncs", "seconds", "appends/s", "MB/s"
    );
    for (size, tasks, count) in [
        (250, 1, 2000),
        (250, 64, 100_000),
        (250, 1024, 300_000),
        (250, 8192, 500_000),
        (250_000, 2, 2000),
        (250_000, 32, 2000),
    ] {
        appends(&folder, size, tasks, count);
    }
}

/// `tasks` callers, each with one append at a time.
fn appends(folder: &Path, size: usize, tasks: usize, count: usize) {
    let dir = tempfile::tempdir_in(folder).expect("a folder");
    let (journal, _) = Journal::open(JournalOptions::new(dir.path()), Box::new(())).expect("a journal");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .expect("a runtime");
    let payload = Bytes::from(vec![0x42; size]);
    let started = Instant::now();
    let before = cpu_by_thread();
    runtime.block_on(async {
        let handles: Vec<_> = (0..tasks)
            .map(|_| {
                let (journal, payload) = (journal.clone(), payload.clone());
                tokio::spawn(async move {
                    for _ in 0..count / tasks {
                        let receipt = journal.append(0, payload.clone()).await.expect("durable");
                        drop(std::hint::black_box(receipt));
                    }
                })
            })
            .collect();
        for handle in handles {
            handle.await.expect("a task that ends");
        }
    });
    let took = started.elapsed();
    let after = cpu_by_thread();
    let usage = journal.usage();
    let name = format!("{size} B x {tasks} callers");
    print!(
        "{name:<34} {:>8} {:>9} {:>8.2} {:>9.0} {:>9.0} ",
        usage.records,
        usage.syncs,
        took.as_secs_f64(),
        usage.records as f64 / took.as_secs_f64(),
        usage.record_bytes as f64 / 1e6 / took.as_secs_f64()
    );
    let mut sum = 0.0;
    for (thread, time) in &after {
        let spent = time.saturating_sub(before.get(thread).copied().unwrap_or_default());
        let each = spent.as_secs_f64() * 1e6 / usage.records as f64;
        sum += each;
        if each >= 0.005 {
            print!(" {thread} {each:.2}");
        }
    }
    println!("  = {sum:.2}");
    journal.close();
    if usage.record_bytes > 100_000_000 {
        read_back(dir.path(), usage.records);
    }
}

fn read_back(dir: &Path, records: u64) {
    let (journal, recovery) = Journal::open(JournalOptions::new(dir), Box::new(())).expect("a journal");
    let before: Duration = cpu_by_thread().values().sum();
    let started = Instant::now();
    let mut reader = journal.reader(recovery.first_lsn);
    let (mut count, mut bytes) = (0, 0);
    while let Some(record) = reader.next().expect("readable") {
        count += 1;
        bytes += record.payload.len();
    }
    assert_eq!(count, records);
    let took = started.elapsed();
    let cpu = cpu_by_thread().values().sum::<Duration>().saturating_sub(before);
    println!(
        "    opened in {:.1} ms ({} segments, {} MB), read back {count} records in {:.0} ms: {:.0} MB/s, {:.3} us CPU each",
        recovery.took.as_secs_f64() * 1e3,
        recovery.segments,
        recovery.bytes / 1_000_000,
        took.as_secs_f64() * 1e3,
        bytes as f64 / 1e6 / took.as_secs_f64(),
        cpu.as_secs_f64() * 1e6 / count as f64
    );
}

/// CPU time of this process by thread.
fn cpu_by_thread() -> BTreeMap<String, Duration> {
    windrow_bench::threads(std::process::id())
}
