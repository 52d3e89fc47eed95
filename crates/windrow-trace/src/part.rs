//! Parts: the records of one trace in one chunk, and their ids.
//!
//! Owns the derivation of part ids. Chunks are the same when tag, chunk id and payload are equal.
//! The sender does not count, because resends come over other connections, from other addresses and
//! to other instances. A chunk id alone is not enough, because two clients may both count 1, 2, 3.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use twox_hash::{XxHash3_128, xxhash3_128};

/// The id of a part. Stable over resends, restarts and instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartId(pub [u8; 12]);

impl PartId {
    /// The hash of a chunk with an id, and its part id.
    pub fn of_chunk(tag: &[u8], chunk: &[u8], payload: &[u8]) -> (u128, Self) {
        let mut hasher = xxhash3_128::Hasher::new();
        hasher.write(&(tag.len() as u64).to_le_bytes());
        hasher.write(tag);
        hasher.write(&(chunk.len() as u64).to_le_bytes());
        hasher.write(chunk);
        hasher.write(payload);
        let hash = hasher.finish_128();
        (hash, Self::truncated(hash))
    }

    /// The part id of the chunk with this hash.
    pub fn of_hash(hash: u128) -> Self {
        Self::truncated(hash)
    }

    /// The part id of records without a chunk id: they exist only at this position of this
    /// instance's journal.
    pub fn of_position(instance: u64, lsn: u64) -> Self {
        let mut bytes = [0u8; 16];
        bytes[..8].copy_from_slice(&instance.to_le_bytes());
        bytes[8..].copy_from_slice(&lsn.to_le_bytes());
        Self::truncated(XxHash3_128::oneshot(&bytes))
    }

    /// The id of section `number` of this part; section 0 keeps the id. A chunk of many bytes is cut
    /// into sections by its content alone, so that a part has a bounded size.
    #[must_use]
    pub fn section(self, number: u32) -> Self {
        if number == 0 {
            return self;
        }
        let mut bytes = [0u8; 16];
        bytes[..12].copy_from_slice(&self.0);
        bytes[12..].copy_from_slice(&number.to_le_bytes());
        Self::truncated(XxHash3_128::oneshot(&bytes))
    }

    /// Appends the document `_id` of a record without a trace id: the part id and the record's
    /// number.
    pub fn push_document_id(&self, out: &mut String, number: u32) {
        URL_SAFE_NO_PAD.encode_string(self.0, out);
        out.push('-');
        out.push_str(itoa::Buffer::new().format(number));
    }

    fn truncated(hash: u128) -> Self {
        let mut id = [0u8; 12];
        id.copy_from_slice(&hash.to_be_bytes()[..12]);
        Self(id)
    }
}

impl std::fmt::Display for PartId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

/// A part of a sealed trace.
#[derive(Clone, Copy, Debug)]
pub struct PartInfo {
    /// Its id.
    pub id: PartId,
    /// Time of reception, Unix µs.
    pub received: i64,
    /// Number of the trace's records in the part, including those over the trace's limit.
    pub total: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stored documents contain these ids, and every instance and version must derive the same.
    #[test]
    fn ids_stay_what_they_are() {
        let (hash, part) = PartId::of_chunk(b"app", b"chunk", &[b'x'; 1000]);
        assert_eq!(hash, 0x9f3c_6d7e_ba56_7250_a975_e98a_3f41_66d5);
        assert_eq!(part.0, hash.to_be_bytes()[..12]);
        assert_eq!(PartId::of_hash(hash), part);
        let part = PartId::of_position(1, 2);
        assert_eq!(
            part.0,
            0x556c_70b5_fae5_b2a4_4967_2959_65e4_d325u128.to_be_bytes()[..12]
        );
    }

    #[test]
    fn ids_of_sections_stay_what_they_are() {
        let part = PartId([7; 12]);
        assert_eq!(part.section(0), part);
        assert_ne!(part.section(1), part.section(2));
        assert_eq!(part.section(1).to_string(), "4Y9tKzrsPlkflFWr");
    }

    #[test]
    fn what_is_the_same_chunk() {
        let id = |tag: &str, chunk: &str, payload: &str| {
            PartId::of_chunk(tag.as_bytes(), chunk.as_bytes(), payload.as_bytes()).1
        };
        assert_eq!(id("t", "1", "x"), id("t", "1", "x"));
        for other in [
            id("u", "1", "x"),
            id("t", "2", "x"),
            id("t", "1", "y"),
            id("t1", "", "x"),
        ] {
            assert_ne!(id("t", "1", "x"), other);
        }
        assert_ne!(PartId::of_position(1, 2), PartId::of_position(2, 1));
    }

    #[test]
    fn ids_of_records_are_short_and_differ() {
        let part = PartId([255; 12]);
        let mut ids = String::new();
        part.push_document_id(&mut ids, 0);
        part.push_document_id(&mut ids, 4_294_967_295);
        assert_eq!(ids, "________________-0________________-4294967295");
    }
}
