//! Crash test: processes on a real disk, killed with SIGKILL.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use bytes::Bytes;

use super::faulty_disk::Rng;
use crate::{CommitSink, Journal, JournalOptions, Record};

const FOLDER: &str = "WINDROW_TEST_JOURNAL_FOLDER";
const KILLS: u64 = 20;
const CALLERS: u64 = 8;

fn options(dir: &Path) -> JournalOptions {
    JournalOptions {
        segment_bytes: 64 << 10,
        limit_bytes: 1 << 20,
        ..JournalOptions::new(dir)
    }
}

/// The process that is killed: prints each confirmed record, and releases one in three.
fn child(dir: &Path) {
    let (journal, recovery) = Journal::open(options(dir), Box::new(())).unwrap();
    let mut reader = journal.reader(recovery.first_lsn);
    // Records of previous runs are released, so that the folder does not fill up.
    while let Some(record) = reader.next().unwrap() {
        println!("found {} {}", record.lsn, crc32fast::hash(&record.payload));
        journal.release(record.lsn);
    }
    std::thread::scope(|scope| {
        for caller in 0..CALLERS {
            let journal = journal.clone();
            scope.spawn(move || {
                let mut rng = Rng::new(caller + u64::from(std::process::id()));
                loop {
                    let size = rng.below(if caller == 0 { 20_000 } else { 300 });
                    let payload: Bytes = (0..size).map(|_| rng.below(256) as u8).collect();
                    let crc = crc32fast::hash(&payload);
                    let receipt = journal.append(caller as u8, payload).wait().unwrap();
                    println!("confirmed {} {crc}", receipt.lsn());
                    if receipt.lsn() % 3 == 0 {
                        journal.release(receipt.lsn());
                    }
                }
            });
        }
    });
}

#[test]
fn twenty_kills_lose_nothing_confirmed() {
    // The killed processes run this same test, with this variable set.
    if let Some(dir) = std::env::var_os(FOLDER) {
        return child(dir.as_ref());
    }
    let dir = tempfile::tempdir().unwrap();
    let mut confirmed: BTreeMap<u64, u32> = BTreeMap::new();
    let mut found: BTreeMap<u64, u32> = BTreeMap::new();
    let mut rng = Rng::new(u64::from(std::process::id()));
    let mut record = |line: &str| {
        let mut words = line
            .split(' ')
            .skip_while(|word| *word != "confirmed" && *word != "found");
        // The last line can be cut short, and the test harness prints lines too.
        if let (Some(what), Some(lsn), Some(crc), None) =
            (words.next(), words.next(), words.next(), words.next())
        {
            let (lsn, crc) = (lsn.parse().unwrap(), crc.parse().unwrap());
            let (map, other) = match what {
                "confirmed" => (&mut confirmed, &found),
                _ => (&mut found, &confirmed),
            };
            assert!(
                map.insert(lsn, crc).is_none_or(|before| before == crc),
                "lsn {lsn} was assigned twice"
            );
            assert!(
                other.get(&lsn).is_none_or(|&before| before == crc),
                "lsn {lsn} came back changed"
            );
        }
    };
    for _ in 0..KILLS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "tests::kill::twenty_kills_lose_nothing_confirmed",
                "--nocapture",
            ])
            .env(FOLDER, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut left = 20 + rng.below(300);
        let mut line = String::new();
        while left > 0 && lines.read_line(&mut line).unwrap() > 0 {
            left -= u64::from(line.contains("confirmed "));
            record(line.trim_end());
            line.clear();
        }
        child.kill().unwrap();
        // What it printed before it died counts, except for an incomplete line.
        while lines.read_line(&mut line).unwrap() > 0 {
            if line.ends_with('\n') {
                record(line.trim_end());
            }
            line.clear();
        }
        child.wait().unwrap();
    }
    let (journal, recovery) = Journal::open(options(dir.path()), Box::new(Nothing)).unwrap();
    assert!(recovery.quarantined.is_empty());
    let mut reader = journal.reader(0);
    while let Some(record) = reader.next().unwrap() {
        found.insert(record.lsn, crc32fast::hash(&record.payload));
    }
    assert!(confirmed.len() as u64 >= 20 * KILLS, "{}", confirmed.len());
    for (lsn, crc) in &confirmed {
        match found.get(lsn) {
            Some(again) => assert_eq!(crc, again, "record {lsn} came back changed"),
            // Released, and its segment is removed.
            None => assert_eq!(lsn % 3, 0, "record {lsn} is lost"),
        }
    }
    assert_eq!(journal.usage().lost_records, 0);
}

struct Nothing;

impl CommitSink for Nothing {
    fn committed(&mut self, _: Vec<Record>) {}
}
