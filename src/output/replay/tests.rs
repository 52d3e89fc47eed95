//! Tests of the replay: whenever it stops, each entry is written or still there.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs::OpenOptions;

use bytes::Bytes;

use super::super::dead_letter::{DeadLetter, EntryContent, FILE_BYTES, LIMIT_BYTES};
use super::*;

fn entry(id: &str) -> Entry {
    Entry {
        time: "2026-11-21T09:20:00Z".parse().unwrap(),
        source: "elasticsearch".into(),
        status: Some(400),
        kind: "old".into(),
        reason: "old reason".into(),
        index: None,
        destination: None,
        id: Some(id.into()),
        is_trace: Some(true),
        first_ns: Some(1),
        lines: Some(1),
        parts: vec![],
        content: EntryContent::Document(Bytes::from_static(b"{}")),
    }
}

/// A dead letter with `n` entries in small files.
fn filled(n: usize) -> (tempfile::TempDir, DeadLetter) {
    let folder = tempfile::tempdir().unwrap();
    let dead = DeadLetter::open(folder.path(), 1000, LIMIT_BYTES).unwrap();
    for n in 0..n {
        dead.put(&entry(&format!("t{n}"))).unwrap();
    }
    (folder, dead)
}

fn ids(entries: &[Entry]) -> Vec<String> {
    entries.iter().map(|entry| entry.id.clone().unwrap()).collect()
}

fn left(folder: &Path) -> Vec<Entry> {
    let mut left = Vec::new();
    for ending in [CLAIMED_EXTENSION, ENTRIES_EXTENSION] {
        for path in files(folder, ending).unwrap() {
            left.extend(
                lines(&path)
                    .unwrap()
                    .map(|line| Entry::parse(&line.unwrap()).unwrap()),
            );
        }
    }
    left
}

thread_local! {
    /// Steps after which the replay of this thread ends as if it were killed.
    static STEPS_LEFT: Cell<Option<u32>> = const { Cell::new(None) };
}

pub(super) fn step() -> io::Result<()> {
    match STEPS_LEFT.get() {
        Some(0) => Err(io::Error::other("killed")),
        left => {
            STEPS_LEFT.set(left.map(|left| left - 1));
            Ok(())
        }
    }
}

fn failed() -> ReplayOutcome {
    ReplayOutcome::Refused {
        status: Some(422),
        kind: "new".into(),
        reason: "new reason".into(),
    }
}

#[tokio::test]
async fn what_is_written_goes_and_what_fails_stays_with_its_new_reason() {
    let (folder, dead) = filled(20);
    let dry = dry_run(folder.path()).unwrap();
    assert_eq!((dry.entries, dry.kinds["elasticsearch: old"]), (20, 20));
    assert_eq!(dead.usage().entries, 20, "a dry run changes nothing");

    let mut seen = Vec::new();
    let mut steps = 0;
    let send = async |entries: &[Entry]| {
        seen.extend(ids(entries));
        entries
            .iter()
            .map(|e| {
                if e.id.as_deref() == Some("t7") {
                    failed()
                } else {
                    ReplayOutcome::Written
                }
            })
            .collect()
    };
    let summary = replay(folder.path(), send, |_| steps += 1).await.unwrap();
    assert_eq!(
        seen,
        (0..20).map(|n| format!("t{n}")).collect::<Vec<_>>(),
        "in the order in which they came"
    );
    assert_eq!((summary.entries, summary.written, summary.refused), (20, 19, 1));
    assert_eq!(summary.first_reason.as_deref(), Some("new reason"));
    assert!(steps > 0);
    let left = left(folder.path());
    assert_eq!(ids(&left), ["t7"]);
    assert_eq!(
        (left[0].status, &*left[0].kind, &*left[0].reason),
        (Some(422), "new", "new reason")
    );
    assert_eq!(dead.usage().entries, 1);
    assert!(
        files(folder.path(), "tmp").unwrap().is_empty()
            && files(folder.path(), CLAIMED_EXTENSION).unwrap().is_empty()
    );

    let summary = replay(
        folder.path(),
        async |e: &[Entry]| vec![ReplayOutcome::Written; e.len()],
        |_| {},
    )
    .await
    .unwrap();
    assert_eq!(summary.written, 1);
    assert!(files(folder.path(), ENTRIES_EXTENSION).unwrap().is_empty());
}

#[tokio::test]
async fn after_a_delay_nothing_more_is_sent_and_all_of_it_stays() {
    let (folder, _dead) = filled(30);
    let mut calls = 0;
    let send = async |entries: &[Entry]| {
        calls += 1;
        let outcome = if calls == 2 {
            ReplayOutcome::Postponed("away".into())
        } else {
            ReplayOutcome::Written
        };
        vec![outcome; entries.len()]
    };
    let summary = replay(folder.path(), send, |_| {}).await.unwrap();
    assert_eq!(calls, 2);
    assert_eq!(summary.first_reason.as_deref(), Some("away"));
    assert_eq!(summary.written + summary.postponed, 30);
    assert_eq!(left(folder.path()).len() as u64, summary.postponed);
    assert!(
        left(folder.path())
            .iter()
            .all(|entry| entry.reason == "old reason")
    );
}

#[tokio::test]
async fn too_few_outcomes_and_foreign_entries_lose_nothing() {
    let (folder, _dead) = filled(10);
    let summary = replay(
        folder.path(),
        async |_: &[Entry]| vec![ReplayOutcome::Written],
        |_| {},
    )
    .await
    .unwrap();
    assert_eq!(summary.not_replayable as usize, left(folder.path()).len());
    assert_eq!(summary.written + summary.not_replayable, 10);
    assert!(summary.not_replayable > 0);
}

#[tokio::test]
async fn lines_that_cannot_be_read_stay_and_spoil_nothing() {
    let (folder, _dead) = filled(3);
    let path = files(folder.path(), ENTRIES_EXTENSION).unwrap()[0].clone();
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("not json\n{text}{{\"torn\":")).unwrap();
    let summary = replay(
        folder.path(),
        async |e: &[Entry]| vec![ReplayOutcome::Written; e.len()],
        |_| {},
    )
    .await
    .unwrap();
    assert_eq!((summary.written, summary.unreadable), (3, 2));
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text, "not json\n{\"torn\":\n");
}

/// The replay dies after each number of batches: dropped in the middle of a send.
#[tokio::test]
async fn a_replay_that_crashes_at_any_batch_can_be_repeated() {
    for dies_at in 0..8 {
        let (folder, dead) = filled(20);
        let mut written = BTreeSet::new();
        {
            let mut calls = 0;
            let send = async |entries: &[Entry]| {
                if calls == dies_at {
                    std::future::pending::<()>().await;
                }
                calls += 1;
                written.extend(ids(entries));
                entries
                    .iter()
                    .map(|e| {
                        if e.id.as_deref() == Some("t2") {
                            failed()
                        } else {
                            ReplayOutcome::Written
                        }
                    })
                    .collect()
            };
            let dying = replay(folder.path(), send, |_| {});
            // Ready only when there are fewer batches than `dies_at`; otherwise dropped where it
            // hangs.
            let _ = tokio::time::timeout(std::time::Duration::from_millis(20), dying).await;
        }
        // A running Windrow goes on putting.
        dead.put(&entry("new")).unwrap();
        let there: BTreeSet<String> = ids(&left(folder.path())).into_iter().collect();
        for id in (0..20).map(|n| format!("t{n}")).chain(["new".into()]) {
            assert!(
                there.contains(&id) || written.contains(&id),
                "dies at {dies_at}: {id} is lost"
            );
        }
        let mut again = BTreeSet::new();
        // Twice: a rest that has the number of a taken file is left for the second.
        for _ in 0..2 {
            let send = async |entries: &[Entry]| {
                again.extend(ids(entries));
                vec![ReplayOutcome::Written; entries.len()]
            };
            replay(folder.path(), send, |_| {}).await.unwrap();
        }
        assert!(there.is_subset(&again), "dies at {dies_at}");
        assert!(left(folder.path()).is_empty());
        assert_eq!(dead.usage().entries, 0);
    }
}

/// The crash between renaming the rest and removing the taken file.
#[tokio::test]
async fn remaining_entries_beside_their_claimed_file_are_replayed_too() {
    let folder = tempfile::tempdir().unwrap();
    let dead = DeadLetter::open(folder.path(), FILE_BYTES, LIMIT_BYTES).unwrap();
    dead.put(&entry("a")).unwrap();
    dead.put(&entry("b")).unwrap();
    fs::copy(folder.path().join("001.ndjson"), folder.path().join("001.replay")).unwrap();
    let mut sent = Vec::new();
    for _ in 0..2 {
        let send = async |entries: &[Entry]| {
            sent.extend(ids(entries));
            vec![ReplayOutcome::Written; entries.len()]
        };
        replay(folder.path(), send, |_| {}).await.unwrap();
    }
    assert_eq!(sent, ["a", "b", "a", "b"]);
    assert!(left(folder.path()).is_empty());
}

#[tokio::test]
async fn only_one_replay_at_a_time() {
    let (folder, _dead) = filled(1);
    let other = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(false)
        .open(folder.path().join("replay-lock"));
    let other = other.unwrap();
    other.lock().unwrap();
    let send = async |e: &[Entry]| vec![ReplayOutcome::Written; e.len()];
    let error = replay(folder.path(), send, |_| {}).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    drop(other);
    assert_eq!(replay(folder.path(), send, |_| {}).await.unwrap().written, 1);
}

#[tokio::test]
async fn an_empty_folder_is_no_error() {
    let folder = tempfile::tempdir().unwrap();
    let send = async |e: &[Entry]| vec![ReplayOutcome::Written; e.len()];
    assert_eq!(
        replay(folder.path(), send, |_| {}).await.unwrap(),
        ReplaySummary::default()
    );
    assert_eq!(dry_run(folder.path()).unwrap(), ReplaySummary::default());
}

#[tokio::test]
async fn a_put_after_a_replay_that_left_entries_over_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let dead = DeadLetter::open(folder.path(), FILE_BYTES, LIMIT_BYTES).unwrap();
    dead.put(&entry("a")).unwrap();
    for id in ["b", "c"] {
        let send = async |entries: &[Entry]| vec![failed(); entries.len()];
        replay(folder.path(), send, |_| {}).await.unwrap();
        dead.put(&entry(id)).unwrap();
    }
    let there: BTreeSet<String> = ids(&left(folder.path())).into_iter().collect();
    assert_eq!(there, ["a", "b", "c"].map(String::from).into());
    assert_eq!(dead.usage().entries, 3);
}

#[tokio::test]
async fn puts_after_a_replay_that_was_killed_at_any_step_are_kept() {
    let mut steps = 0;
    loop {
        let folder = tempfile::tempdir().unwrap();
        let dead = DeadLetter::open(folder.path(), 600, LIMIT_BYTES).unwrap();
        let mut put: BTreeSet<String> = (0..5).map(|n| format!("t{n}")).collect();
        for id in &put {
            dead.put(&entry(id)).unwrap();
        }
        let mut written = BTreeSet::new();
        let mut send = async |entries: &[Entry]| {
            let mut outcomes = Vec::new();
            for entry in entries {
                // The first file is written completely, of the others something is left over.
                let id = entry.id.clone().unwrap();
                outcomes.push(if ["t0", "t1", "t3"].contains(&&*id) {
                    written.insert(id);
                    ReplayOutcome::Written
                } else {
                    failed()
                });
            }
            outcomes
        };
        STEPS_LEFT.set(Some(steps));
        let result = replay(folder.path(), &mut send, |_| {}).await;
        STEPS_LEFT.set(None);
        dead.put(&entry("after the kill")).unwrap();
        // The next replay runs to its end, and the server goes on.
        replay(folder.path(), &mut send, |_| {}).await.unwrap();
        dead.put(&entry("after the next replay")).unwrap();
        let restarted = DeadLetter::open(folder.path(), 600, LIMIT_BYTES).unwrap();
        restarted.put(&entry("after a restart")).unwrap();
        dead.put(&entry("after all")).unwrap();
        let later = [
            "after the kill",
            "after the next replay",
            "after a restart",
            "after all",
        ];
        put.extend(later.map(String::from));
        let there: BTreeSet<String> = ids(&left(folder.path())).into_iter().collect();
        for id in &put {
            assert!(
                there.contains(id) || written.contains(id),
                "killed at step {steps}: {id} is lost"
            );
        }
        assert_eq!(
            dead.usage().entries,
            left(folder.path()).len() as u64,
            "step {steps}"
        );
        if result.is_ok() {
            break;
        }
        steps += 1;
    }
    assert!(steps > 10, "{steps} steps");
}
