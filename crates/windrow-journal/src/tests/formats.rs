//! Tests of format versions: all older ones are read, a newer one is told from damage.

use bytes::Bytes;

use super::api::small;
use crate::format::segment_name;
use crate::{Journal, OpenError, inspect};

#[test]
fn a_newer_format_is_refused_clearly() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(small(dir.path()), Box::new(())).unwrap();
    drop(journal.append(0, Bytes::from_static(b"x")).wait().unwrap());
    journal.close();
    let path = dir.path().join(segment_name(1));
    let mut content = std::fs::read(&path).unwrap();
    content[8] = 3;
    let crc = crc32fast::hash(&content[..60]);
    content[60..64].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(&path, &content).unwrap();
    let error = Journal::open(small(dir.path()), Box::new(())).unwrap_err();
    assert!(
        matches!(
            error,
            OpenError::NewerFormat {
                found: 3,
                supported: 2,
                ..
            }
        ),
        "{error}"
    );
    assert!(error.to_string().contains("journal format 3"));
    assert_eq!(std::fs::read(&path).unwrap(), content, "nothing was changed");
    let report = inspect(dir.path()).unwrap().to_string();
    assert!(report.contains("newer Windrow (format 3)"), "{report}");
}

/// Golden files of both formats. A program that cannot read them loses its users' data. `zeros` is
/// the padding before the payload.
#[test]
fn formats_1_and_2_stay_readable() {
    for (format, flags, zeros) in [(1, 1, 0), (2, 1, 0), (2, 1 | 2, 4096 - 64 - 32)] {
        stays_readable(format, flags, zeros);
    }
}

fn stays_readable(format: u8, flags: u8, zeros: usize) {
    let mut file = b"WINDROWJ".to_vec();
    file.extend([format, 0, 0, 0, 0, 0, 0, 0]);
    for number in [1_u64, 5, 5, 0x0123_4567_89ab_cdef, 1000] {
        file.extend(number.to_le_bytes());
    }
    file.extend([0; 4]);
    file.extend(crc32fast::hash(&file).to_le_bytes());
    assert_eq!(file.len(), 64);
    let mut record = vec![0xC1, 0x9D, 7, flags, 5, 0, 0, 0];
    record.extend(5_u64.to_le_bytes());
    record.extend(1001_u64.to_le_bytes());
    record.extend(crc32fast::hash(b"hello").to_le_bytes());
    let mut salted = [1_u64.to_le_bytes(), 0x0123_4567_89ab_cdef_u64.to_le_bytes()].concat();
    salted.extend(&record);
    record.extend(crc32fast::hash(&salted).to_le_bytes());
    record.extend(vec![0; zeros]);
    record.extend(b"hello");
    file.extend(record);
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("00000000000000000001.seg"), file).unwrap();
    let (journal, recovery) = Journal::open(small(dir.path()), Box::new(())).unwrap();
    assert_eq!(
        (recovery.next_lsn, recovery.torn_bytes, recovery.quarantined.len()),
        (6, 0, 0)
    );
    assert_eq!(journal.instance(), 0x0123_4567_89ab_cdef);
    let record = journal.reader(0).next().unwrap().unwrap();
    assert_eq!((record.lsn, record.received_us, record.kind), (5, 1001, 7));
    assert_eq!(record.payload, &b"hello"[..]);
}
