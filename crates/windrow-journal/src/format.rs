//! On-disk format: segment header, record header and file names.
//!
//! All numbers are little endian. A segment file is a [`SegmentHeader`] (64 bytes), then records,
//! each a [`RecordHeader`] (32 bytes) and its payload, then possibly zeros (the rest of a block,
//! preallocated space), then, in a recycled file, remains of a previous segment. A payload follows
//! its header directly or, since version 2 and if a flag of the header is set, after zeros, at the
//! next multiple of [`BLOCK_BYTES`].
//!
//! ```text
//! (field, size in bytes)
//! segment  magic 8 | version 4 | 0 4 | number 8 | first lsn 8 | continues lsn 8 | instance 8
//!          | after µs 8 | flags 4 | crc 4
//! record   marker 2 | kind 1 | flags 1 | payload length 4 | lsn 8 | received µs 8
//!          | payload crc 4 | header crc 4
//! ```
//!
//! The header crc of a record also covers the number and the instance of its segment, so that bytes
//! of another segment are never a valid record. Header and payload have separate checksums: a
//! damaged payload costs one record, not the rest of the segment. Magic, version and crc of the
//! segment header keep their offsets in all versions, so that an older program can recognise a
//! newer format.

use crc32fast::Hasher;

use crate::storage::BLOCK_BYTES;

pub(crate) const MAGIC: [u8; 8] = *b"WINDROWJ";
/// The version that this program writes, and the newest that it reads.
pub(crate) const FORMAT_VERSION: u32 = 2;
pub(crate) const SEGMENT_HEADER_LEN: usize = 64;
pub(crate) const RECORD_HEADER_LEN: usize = 32;
/// [`RECORD_HEADER_LEN`] as a file offset.
pub(crate) const RECORD_HEADER_BYTES: u64 = RECORD_HEADER_LEN as u64;
/// [`SEGMENT_HEADER_LEN`] as a file offset.
pub(crate) const SEGMENT_HEADER_BYTES: u64 = SEGMENT_HEADER_LEN as u64;
/// Starts each record. MessagePack never uses the byte 0xC1, so the marker is rare in payloads.
pub(crate) const RECORD_MARKER: [u8; 2] = [0xC1, 0x9D];
/// Record flag: everything before this record was durable when it was written. It tells damage from
/// a torn tail: invalid bytes *before* such a record were valid once.
pub(crate) const FIRST_OF_COMMIT: u8 = 1;
/// Record flag: the payload starts at a block, after zeros, so that it can be written without a
/// copy.
pub(crate) const PAYLOAD_ALIGNED: u8 = 2;
/// Segment flag: the file is recycled. Remains of a previous segment may follow the last record.
const RECYCLED: u32 = 1;
/// Segment flag: the program that began the segment keeps a manifest. Older programs ignore it.
const IN_MANIFEST: u32 = 2;
/// The largest payload, in bytes: 1 GiB.
pub(crate) const MAX_PAYLOAD_BYTES: u64 = 1 << 30;

/// The first 64 bytes of a segment file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) number: u64,
    /// The first record of the segment has this lsn.
    pub(crate) first_lsn: u64,
    /// End of the previous segment: its records have smaller lsns, and anything else in it was
    /// never confirmed. No record has an lsn from here to `first_lsn`.
    pub(crate) continues_lsn: u64,
    pub(crate) instance: u64,
    /// All records of this and later segments were received after this time, Unix microseconds.
    pub(crate) after_us: i64,
    /// The file held another segment before.
    pub(crate) recycled: bool,
    /// The segment is in the manifest of the folder.
    pub(crate) in_manifest: bool,
}

/// Why bytes are not a segment header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadSegmentHeader {
    /// Written by a newer Windrow.
    Newer { version: u32 },
    /// Only zeros, or no bytes: the file was preallocated and never used.
    Blank,
    /// Torn or damaged.
    Damaged,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER_LEN] {
        let mut out = [0; SEGMENT_HEADER_LEN];
        out[..8].copy_from_slice(&MAGIC);
        out[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        out[16..24].copy_from_slice(&self.number.to_le_bytes());
        out[24..32].copy_from_slice(&self.first_lsn.to_le_bytes());
        out[32..40].copy_from_slice(&self.continues_lsn.to_le_bytes());
        out[40..48].copy_from_slice(&self.instance.to_le_bytes());
        out[48..56].copy_from_slice(&self.after_us.to_le_bytes());
        let flags = if self.recycled { RECYCLED } else { 0 } | if self.in_manifest { IN_MANIFEST } else { 0 };
        out[56..60].copy_from_slice(&flags.to_le_bytes());
        let crc = crc32fast::hash(&out[..60]);
        out[60..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Decodes a header; `bytes` is shorter than one if the file is.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, BadSegmentHeader> {
        if bytes.iter().all(|&byte| byte == 0) {
            return Err(BadSegmentHeader::Blank);
        }
        let Some(bytes) = bytes.first_chunk::<SEGMENT_HEADER_LEN>() else {
            return Err(BadSegmentHeader::Damaged);
        };
        if bytes[..8] != MAGIC || crc32fast::hash(&bytes[..60]) != u32_at(bytes, 60) {
            return Err(BadSegmentHeader::Damaged);
        }
        let version = u32_at(bytes, 8);
        if version > FORMAT_VERSION {
            return Err(BadSegmentHeader::Newer { version });
        }
        Ok(Self {
            number: u64_at(bytes, 16),
            first_lsn: u64_at(bytes, 24),
            continues_lsn: u64_at(bytes, 32),
            instance: u64_at(bytes, 40),
            after_us: i64::from_le_bytes(u64_at(bytes, 48).to_le_bytes()),
            recycled: u32_at(bytes, 56) & RECYCLED != 0,
            in_manifest: u32_at(bytes, 56) & IN_MANIFEST != 0,
        })
    }
}

/// Initial state of a segment's checksums: its number and instance, hashed once.
#[derive(Clone)]
pub(crate) struct Salt(Hasher);

impl Salt {
    pub(crate) fn new(number: u64, instance: u64) -> Self {
        let mut hasher = Hasher::new();
        hasher.update(&number.to_le_bytes());
        hasher.update(&instance.to_le_bytes());
        Self(hasher)
    }

    pub(crate) fn crc(&self, bytes: &[u8]) -> u32 {
        let mut hasher = self.0.clone();
        hasher.update(bytes);
        hasher.finalize()
    }
}

/// The 32 bytes before a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) len: u32,
    pub(crate) lsn: u64,
    pub(crate) received_us: i64,
    pub(crate) payload_crc: u32,
}

impl RecordHeader {
    pub(crate) fn encode(&self, salt: &Salt) -> [u8; RECORD_HEADER_LEN] {
        let mut out = [0; RECORD_HEADER_LEN];
        out[..2].copy_from_slice(&RECORD_MARKER);
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

    /// The header at the start of `bytes`, if it is complete and valid.
    pub(crate) fn decode(bytes: &[u8], salt: &Salt) -> Option<Self> {
        let bytes = bytes.first_chunk::<RECORD_HEADER_LEN>()?;
        if bytes[..2] != RECORD_MARKER || salt.crc(&bytes[..28]) != u32_at(bytes, 28) {
            return None;
        }
        let len = u32_at(bytes, 4);
        (u64::from(len) <= MAX_PAYLOAD_BYTES).then(|| Self {
            kind: bytes[2],
            flags: bytes[3],
            len,
            lsn: u64_at(bytes, 8),
            received_us: i64::from_le_bytes(u64_at(bytes, 16).to_le_bytes()),
            payload_crc: u32_at(bytes, 24),
        })
    }

    /// File offset of the payload of a record at offset `at`.
    pub(crate) fn payload_at(&self, at: u64) -> u64 {
        let header_end = at + RECORD_HEADER_BYTES;
        match self.flags & PAYLOAD_ALIGNED {
            0 => header_end,
            _ => header_end.next_multiple_of(BLOCK_BYTES as u64),
        }
    }

    /// File offset of the end of a record at offset `at`.
    pub(crate) fn end(&self, at: u64) -> u64 {
        self.payload_at(at) + u64::from(self.len)
    }
}

/// Name of a segment file: 20 digits, so that names sort as numbers do.
pub(crate) fn segment_name(number: u64) -> String {
    format!("{number:020}.seg")
}

/// Name of a segment file that was found under the name of another segment, until it gets its own
/// name back.
pub(crate) fn renamed_name(number: u64) -> String {
    format!("{number:020}.renamed")
}

/// Name of the release log of a segment.
pub(crate) fn release_log_name(number: u64) -> String {
    format!("{number:020}.notes")
}

/// Name of the file of an obsolete segment, until it is recycled for a new one.
pub(crate) fn spare_name(number: u64) -> String {
    format!("{number:020}.spare")
}

/// Kind of a file in the folder, with the number of its segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileKind {
    Segment(u64),
    ReleaseLog(u64),
    Spare(u64),
    Renamed(u64),
    Other,
}

/// Parses a name from [`segment_name`], [`release_log_name`], [`spare_name`] or [`renamed_name`].
pub(crate) fn file_kind(name: &str) -> FileKind {
    let Some((digits, extension)) = name.split_once('.') else {
        return FileKind::Other;
    };
    if digits.len() != 20 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return FileKind::Other;
    }
    match (digits.parse(), extension) {
        (Ok(number), "seg") => FileKind::Segment(number),
        (Ok(number), "notes") => FileKind::ReleaseLog(number),
        (Ok(number), "spare") => FileKind::Spare(number),
        (Ok(number), "renamed") => FileKind::Renamed(number),
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
            recycled: true,
            in_manifest: true,
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
            recycled: false,
            in_manifest: false,
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
        assert_eq!(file_kind(&release_log_name(12)), FileKind::ReleaseLog(12));
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
