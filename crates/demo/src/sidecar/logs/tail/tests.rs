//! A log file is written, rotated, truncated and replaced in a temporary folder.

use std::io::Write;

use super::*;

struct Fixture {
    _folder: tempfile::TempDir,
    path: PathBuf,
    tail: Tail,
    wait: Duration,
}

const LONG: Duration = Duration::from_secs(3600);

impl Fixture {
    fn new(wait: Duration) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.log");
        let tail = Tail::resume(&path, &[], &[], wait, 64).unwrap();
        Self {
            _folder: folder,
            path,
            tail,
            wait,
        }
    }

    fn append(&self, text: &str) {
        append(&self.path, text);
    }

    fn rotate(&self, to: &str) -> PathBuf {
        let to = self.path.with_file_name(to);
        fs::rename(&self.path, &to).unwrap();
        to
    }

    /// Everything that is there, delivered.
    fn drain(&mut self) -> String {
        let mut all = Vec::new();
        while let Some(batch) = self.tail.next_batch().unwrap() {
            assert_eq!(
                self.tail.next_batch().unwrap().as_ref(),
                Some(&batch),
                "not the same before it is delivered"
            );
            self.tail.delivered(&batch).unwrap();
            all.extend(batch.bytes);
        }
        String::from_utf8(all).unwrap()
    }

    fn restart(&mut self) {
        let (files, finished) = (self.tail.positions(), self.tail.finished());
        self.tail = Tail::resume(&self.path, &files, &finished, self.wait, 64).unwrap();
    }
}

fn append(path: &Path, text: &str) {
    File::options()
        .create(true)
        .append(true)
        .open(path)
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
}

/// Rotated files are told apart by their last change: let the file system's clock move on.
fn next_tick(beside: &Path) {
    let probe = beside.with_file_name("probe");
    fs::write(&probe, "").unwrap();
    let before = modified_ns(&fs::metadata(&probe).unwrap());
    while modified_ns(&fs::metadata(&probe).unwrap()) == before {
        fs::write(&probe, "").unwrap();
    }
}

#[test]
fn only_whole_lines_and_only_once() {
    let mut f = Fixture::new(LONG);
    assert_eq!(f.drain(), "");
    f.append("one\ntwo\nthr");
    assert_eq!(f.drain(), "one\ntwo\n");
    assert_eq!(f.tail.behind(), 3);
    f.append("ee\n");
    assert_eq!(f.drain(), "three\n");
    assert_eq!((f.drain().as_str(), f.tail.behind()), ("", 0));
}

#[test]
fn a_restart_goes_on_where_the_last_delivery_ended() {
    let mut f = Fixture::new(LONG);
    f.append("one\n");
    assert_eq!(f.drain(), "one\n");
    f.append("two\n");
    let undelivered = f.tail.next_batch().unwrap().unwrap();
    f.restart();
    assert_eq!(f.tail.next_batch().unwrap().unwrap(), undelivered);
    assert_eq!(f.drain(), "two\n");
}

#[test]
fn a_rotated_file_is_read_to_its_end_beside_the_new_one() {
    let mut f = Fixture::new(LONG);
    f.append("one\n");
    assert_eq!(f.drain(), "one\n");
    f.append("two\n");
    let old = f.rotate("app.log.1");
    f.append("three\n");
    assert_eq!(f.drain(), "two\nthree\n");
    append(&old, "late\n");
    f.append("four\n");
    assert_eq!(f.drain(), "late\nfour\n");
}

#[test]
fn a_rotated_file_is_given_up_with_its_last_unfinished_line() {
    let mut f = Fixture::new(Duration::ZERO);
    f.append("one\ntw");
    assert_eq!(f.drain(), "one\n");
    f.rotate("app.log.1");
    f.append("new\n");
    assert_eq!(f.drain(), "twnew\n");
    assert_eq!((f.tail.positions().len(), f.tail.finished().len()), (1, 1));
    f.restart();
    f.rotate("app.log.2");
    f.append("newer\n");
    assert_eq!(f.drain(), "newer\n", "a finished file was read again");
}

#[test]
fn without_a_new_file_the_renamed_one_is_kept() {
    let mut f = Fixture::new(Duration::ZERO);
    f.append("one\n");
    assert_eq!(f.drain(), "one\n");
    let old = f.rotate("app.log.1");
    append(&old, "two\n");
    assert_eq!(f.drain(), "two\n");
    assert_eq!(f.tail.positions().len(), 1);
}

#[test]
fn several_rotations_between_two_looks_lose_nothing() {
    let mut f = Fixture::new(LONG);
    f.append("old\n");
    next_tick(&f.path);
    f.rotate("app.log.9");
    f.append("a\n");
    assert_eq!(
        f.drain(),
        "a\n",
        "files that were there before the first look are not read"
    );
    f.append("b\n");
    next_tick(&f.path);
    f.rotate("app.log.2");
    f.append("c\n");
    next_tick(&f.path);
    f.rotate("app.log.1");
    fs::write(f.path.with_file_name("app.log.0.gz"), "zip").unwrap();
    fs::write(f.path.with_file_name("app.logbook"), "no\n").unwrap();
    f.append("d\n");
    assert_eq!(f.drain(), "b\nc\nd\n");
}

#[test]
fn rotations_while_nobody_watched_lose_nothing() {
    let mut f = Fixture::new(LONG);
    f.append("a\n");
    assert_eq!(f.drain(), "a\n");
    f.append("b\n");
    next_tick(&f.path);
    f.rotate("app.log.2");
    f.append("c\n");
    next_tick(&f.path);
    f.rotate("app.log.1");
    f.append("d\n");
    f.restart();
    assert_eq!(f.drain(), "b\nc\nd\n");
    assert!(f.tail.notices().is_empty());
}

#[test]
fn a_truncated_file_is_read_from_its_beginning() {
    let mut f = Fixture::new(LONG);
    f.append("one\ntwo\n");
    f.drain();
    File::options()
        .write(true)
        .open(&f.path)
        .unwrap()
        .set_len(0)
        .unwrap();
    f.append("three\n");
    assert_eq!(f.drain(), "three\n");
    assert_eq!(f.tail.notices(), vec![Notice::Truncated(f.path.clone())]);
}

#[test]
fn a_truncated_file_is_noticed_also_when_it_has_grown_beyond_the_position() {
    let mut f = Fixture::new(LONG);
    f.append("one\n");
    f.drain();
    fs::write(&f.path, "two\nthree\n").unwrap();
    assert_eq!(f.drain(), "two\nthree\n");
    f.restart();
    fs::write(&f.path, "four\nfive\nsix\n").unwrap();
    f.restart();
    assert_eq!(f.drain(), "four\nfive\nsix\n");
}

#[test]
fn a_file_that_is_gone_after_a_restart_is_told() {
    let mut f = Fixture::new(LONG);
    f.append("one\n");
    f.drain();
    let position = f.tail.positions();
    let keep_inode = File::open(&f.path).unwrap();
    fs::remove_file(&f.path).unwrap();
    f.append("two\n");
    f.restart();
    drop(keep_inode);
    assert_eq!(f.drain(), "two\n");
    assert_eq!(f.tail.notices(), vec![Notice::Gone(position[0].clone())]);
}

#[test]
fn a_line_longer_than_a_batch_goes_in_pieces() {
    let mut f = Fixture::new(LONG);
    f.append(&"x".repeat(150));
    f.append("\nend\n");
    let first = f.tail.next_batch().unwrap().unwrap();
    assert_eq!((first.start, first.bytes.len()), (0, 64));
    assert_eq!(f.drain(), format!("{}\nend\n", "x".repeat(150)));
}

#[test]
fn the_chunk_under_way_at_a_crash_is_made_again_byte_by_byte() {
    let mut f = Fixture::new(LONG);
    f.append("one\ntwo\n");
    let batch = f.tail.next_batch().unwrap().unwrap();
    let pending = Pending {
        file: batch.file,
        start: batch.start,
        end: batch.end(),
        hash: batch.hash(),
        chunk: "c".to_owned(),
        read_at_ns: 0,
    };
    f.append("three\n");
    f.restart();
    assert_eq!(f.tail.again(&pending).unwrap(), Some(batch.clone()));
    assert_ne!(
        f.tail.next_batch().unwrap(),
        Some(batch),
        "the file has grown, the chunk has not"
    );

    fs::write(&f.path, "other\nbytes\n").unwrap();
    f.restart();
    assert_eq!(f.tail.again(&pending).unwrap(), None);
}

#[test]
fn a_batch_of_very_short_lines_is_bounded_too() {
    let mut fixture = Fixture::new(LONG);
    fixture.append(&"\n".repeat(CHUNK_LINES + 3));
    fixture.tail = Tail::resume(&fixture.path, &[], &[], LONG, 1 << 20).unwrap();
    let first = fixture.tail.next_batch().unwrap().unwrap();
    assert_eq!(first.bytes.len(), CHUNK_LINES);
    fixture.tail.delivered(&first).unwrap();
    assert_eq!(fixture.drain(), "\n\n\n");
}
