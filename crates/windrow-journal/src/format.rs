//! The bytes on disk: the header of a segment file and the header of a record.
//!
//! Everything is little endian. A segment file is one [`SegmentHeader`] (64 bytes) followed by records, each a
//! [`RecordHeader`] (32 bytes) and its payload, then possibly zeros (the rest of a block, space allocated ahead), and, in a
//! file that is used again, what an earlier segment left there. The payload of a record stands directly behind its header or,
//! since version 2 and if the header says so, behind zeros, at the next multiple of [`BLOCK`] bytes.
//!
//! ```text
//! segment  magic 8 | version 4 | 0 4 | number 8 | first lsn 8 | continues lsn 8 | instance 8 | after µs 8 | flags 4 | crc 4
//! record   marker 2 | kind 1 | flags 1 | payload length 4 | lsn 8 | received µs 8 | payload crc 4 | header crc 4
//! ```
//!
//! The header crc of a record covers the number and the instance of its segment too, so bytes of another file
//! can never pass for a record of this one. Header and payload have a checksum each: a damaged payload costs
//! one record, not the rest of the segment. Of the segment header magic, version and the place of the crc
//! stay where they are in all versions to come, so that an older program can say clearly what it met.

use crc32fast::Hasher;

use super::blocks::BLOCK;

pub(super) const MAGIC: [u8; 8] = *b"WINDROWJ";
/// The newest format that this program reads, and the one that it writes.
pub(super) const VERSION: u32 = 2;
pub(super) const SEGMENT_HEADER: usize = 64;
pub(super) const RECORD_HEADER: usize = 32;
/// Bytes of a record header on disk, as a file offset.
pub(super) const RECORD_HEADER_BYTES: u64 = RECORD_HEADER as u64;
/// Bytes of a segment header on disk, as a file offset.
pub(super) const SEGMENT_HEADER_BYTES: u64 = SEGMENT_HEADER as u64;
/// Starts each record. 0xC1 is the one byte that MessagePack never uses, so it is rare in payloads too.
pub(super) const MARKER: [u8; 2] = [0xC1, 0x9D];
/// Record flag: all that stands before this record was durable when this one was written. It tells damage
/// from a torn tail: bytes that are wrong *before* such a record were right once.
pub(super) const FIRST_OF_COMMIT: u8 = 1;
/// Record flag: the payload begins at a block, with zeros before it, so that it can be written from where it is.
pub(super) const AT_BLOCK: u8 = 2;
/// Segment flag: the file had another segment before. Behind the last record there are bytes of that one.
const REUSED: u32 = 1;
/// The largest payload, in bytes: 1 GiB.
pub(super) const MAX_PAYLOAD: u64 = 1 << 30;

/// The first 64 bytes of a segment file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) number: u64,
    /// The first record of the segment has this lsn.
    pub(super) first_lsn: u64,
    /// The segment before ends here: its records have smaller lsns, anything else in it was never confirmed.
    /// Between this and `first_lsn` there never was a record.
    pub(super) continues_lsn: u64,
    pub(super) instance: u64,
    /// All records of this and later segments were received after this, Unix µs.
    pub(super) after_us: i64,
    /// The file had another segment before.
    pub(super) reused: bool,
}

/// Why 64 bytes are not a segment header of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadSegmentHeader {
    /// Written by a newer Windrow.
    Newer { version: u32 },
    /// All zeros or cut short before the first byte: the file was prepared and never begun.
    Blank,
    /// Torn or damaged.
    Damaged,
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> [u8; SEGMENT_HEADER] {
        let mut out = [0; SEGMENT_HEADER];
        out[..8].copy_from_slice(&MAGIC);
        out[8..12].copy_from_slice(&VERSION.to_le_bytes());
        out[16..24].copy_from_slice(&self.number.to_le_bytes());
        out[24..32].copy_from_slice(&self.first_lsn.to_le_bytes());
        out[32..40].copy_from_slice(&self.continues_lsn.to_le_bytes());
        out[40..48].copy_from_slice(&self.instance.to_le_bytes());
        out[48..56].copy_from_slice(&self.after_us.to_le_bytes());
        let flags = if self.reused { REUSED } else { 0 };
        out[56..60].copy_from_slice(&flags.to_le_bytes());
        let crc = crc32fast::hash(&out[..60]);
        out[60..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads a header; `bytes` may be shorter than a header when the file is.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, BadSegmentHeader> {
        if bytes.iter().all(|&byte| byte == 0) {
            return Err(BadSegmentHeader::Blank);
        }
        let Some(bytes) = bytes.first_chunk::<SEGMENT_HEADER>() else {
            return Err(BadSegmentHeader::Damaged);
        };
        if bytes[..8] != MAGIC || crc32fast::hash(&bytes[..60]) != u32_at(bytes, 60) {
            return Err(BadSegmentHeader::Damaged);
        }
        let version = u32_at(bytes, 8);
        if version > VERSION {
            return Err(BadSegmentHeader::Newer { version });
        }
        Ok(Self {
            number: u64_at(bytes, 16),
            first_lsn: u64_at(bytes, 24),
            continues_lsn: u64_at(bytes, 32),
            instance: u64_at(bytes, 40),
            after_us: i64::from_le_bytes(u64_at(bytes, 48).to_le_bytes()),
            reused: u32_at(bytes, 56) & REUSED != 0,
        })
    }
}

/// The start of each checksum of one segment: its number and instance, hashed once.
#[derive(Clone)]
pub(super) struct Salt(Hasher);

impl Salt {
    pub(super) fn new(number: u64, instance: u64) -> Self {
        let mut hasher = Hasher::new();
        hasher.update(&number.to_le_bytes());
        hasher.update(&instance.to_le_bytes());
        Self(hasher)
    }

    pub(super) fn crc(&self, bytes: &[u8]) -> u32 {
        let mut hasher = self.0.clone();
        hasher.update(bytes);
        hasher.finalize()
    }
}

/// The 32 bytes before a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecordHeader {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) len: u32,
    pub(super) lsn: u64,
    pub(super) received_us: i64,
    pub(super) payload_crc: u32,
}

impl RecordHeader {
    pub(super) fn encode(&self, salt: &Salt) -> [u8; RECORD_HEADER] {
        let mut out = [0; RECORD_HEADER];
        out[..2].copy_from_slice(&MARKER);
        out[2] = self.kind;
        out[3] = self.flags;
        out[4..8].copy_from_slice(&self.len.to_le_bytes());
        out[8..16].copy_from_slice(&self.lsn.to_le_bytes());
        out[16..24].copy_from_slice(&self.received_us.to_le_bytes());
        out[24..28].copy_from_slice(&self.payload_crc.to_le_bytes());
        let crc = salt.crc(&out[..28]);
        out[28..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// The header at the start of `bytes`, if there is a whole and sound one.
    pub(super) fn decode(bytes: &[u8], salt: &Salt) -> Option<Self> {
        let bytes = bytes.first_chunk::<RECORD_HEADER>()?;
        if bytes[..2] != MARKER || salt.crc(&bytes[..28]) != u32_at(bytes, 28) {
            return None;
        }
        let len = u32_at(bytes, 4);
        (u64::from(len) <= MAX_PAYLOAD).then(|| Self {
            kind: bytes[2],
            flags: bytes[3],
            len,
            lsn: u64_at(bytes, 8),
            received_us: i64::from_le_bytes(u64_at(bytes, 16).to_le_bytes()),
            payload_crc: u32_at(bytes, 24),
        })
    }

    /// Where the payload begins when the header begins at `at`.
    pub(super) fn payload_at(&self, at: u64) -> u64 {
        let behind = at + RECORD_HEADER_BYTES;
        match self.flags & AT_BLOCK {
            0 => behind,
            _ => behind.next_multiple_of(BLOCK as u64),
        }
    }

    /// Where the record ends when it begins at `at`.
    pub(super) fn end(&self, at: u64) -> u64 {
        self.payload_at(at) + u64::from(self.len)
    }
}

/// The name of a segment file: 20 digits, so that names sort as numbers do.
pub(super) fn segment_name(number: u64) -> String {
    format!("{number:020}.seg")
}

/// The name of the file that notes which records of a segment are released.
pub(super) fn notes_name(number: u64) -> String {
    format!("{number:020}.notes")
}

/// The name of the file of a segment that is done with, until another segment uses it.
pub(super) fn spare_name(number: u64) -> String {
    format!("{number:020}.spare")
}

/// What a file name of the folder stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileKind {
    Segment(u64),
    Notes(u64),
    Spare(u64),
    Other,
}

/// Takes a name apart that [`segment_name`], [`notes_name`] or [`spare_name`] made.
pub(super) fn file_kind(name: &str) -> FileKind {
    let Some((digits, extension)) = name.split_once('.') else {
        return FileKind::Other;
    };
    if digits.len() != 20 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return FileKind::Other;
    }
    match (digits.parse(), extension) {
        (Ok(number), "seg") => FileKind::Segment(number),
        (Ok(number), "notes") => FileKind::Notes(number),
        (Ok(number), "spare") => FileKind::Spare(number),
        _ => FileKind::Other,
    }
}

fn u32_at<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    let mut out = [0; 4];
    out.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(out)
}

fn u64_at<const N: usize>(bytes: &[u8; N], at: usize) -> u64 {
    let mut out = [0; 8];
    out.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> RecordHeader {
        RecordHeader {
            kind: 3,
            flags: 1,
            len: 9,
            lsn: 77,
            received_us: 1_795_000_000_000_001,
            payload_crc: 5,
        }
    }

    #[test]
    fn headers_come_back_unchanged() {
        let segment = SegmentHeader {
            number: 4,
            first_lsn: 90,
            continues_lsn: 88,
            instance: u64::MAX,
            after_us: -1,
            reused: true,
        };
        assert_eq!(SegmentHeader::decode(&segment.encode()), Ok(segment));
        let salt = Salt::new(4, 9);
        assert_eq!(
            RecordHeader::decode(&header().encode(&salt), &salt),
            Some(header())
        );
    }

    #[test]
    fn a_record_of_another_segment_or_instance_is_none() {
        let bytes = header().encode(&Salt::new(4, 9));
        assert_eq!(RecordHeader::decode(&bytes, &Salt::new(5, 9)), None);
        assert_eq!(RecordHeader::decode(&bytes, &Salt::new(4, 8)), None);
    }

    #[test]
    fn a_newer_version_is_told_from_damage() {
        let mut bytes = SegmentHeader {
            number: 1,
            first_lsn: 1,
            continues_lsn: 1,
            instance: 1,
            after_us: 0,
            reused: false,
        }
        .encode();
        bytes[8] = 9;
        assert_eq!(SegmentHeader::decode(&bytes), Err(BadSegmentHeader::Damaged));
        let crc = crc32fast::hash(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(
            SegmentHeader::decode(&bytes),
            Err(BadSegmentHeader::Newer { version: 9 })
        );
        assert_eq!(SegmentHeader::decode(&[0; 64]), Err(BadSegmentHeader::Blank));
        assert_eq!(
            SegmentHeader::decode(&bytes[..63]),
            Err(BadSegmentHeader::Damaged)
        );
    }

    #[test]
    fn names_come_back() {
        assert_eq!(segment_name(7), "00000000000000000007.seg");
        assert_eq!(file_kind(&segment_name(u64::MAX)), FileKind::Segment(u64::MAX));
        assert_eq!(file_kind(&notes_name(12)), FileKind::Notes(12));
        assert_eq!(file_kind(&spare_name(12)), FileKind::Spare(12));
        for other in [
            "LOCK",
            "7.seg",
            "00000000000000000007.seg.bak",
            "+0000000000000000007.seg",
        ] {
            assert_eq!(file_kind(other), FileKind::Other, "{other}");
        }
    }
}
