//! The identity of a part.
//!
//! Owns how it is derived. What is the same chunk: equal tag, chunk id and payload bytes. Where it came from does not
//! count, since resends come over other connections, from other addresses and to other instances; a chunk id alone is
//! never trusted, since two clients may count 1, 2, 3.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use twox_hash::{XxHash3_128, xxhash3_128};

/// The identity of the records of one trace in one chunk: stable over resends, restarts and instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartId(pub [u8; 12]);

impl PartId {
    /// The hash of a chunk that has an id, and the part id that it gives.
    pub fn of_chunk(tag: &[u8], chunk: &[u8], payload: &[u8]) -> (u128, Self) {
        let mut hasher = xxhash3_128::Hasher::new();
        hasher.write(&(tag.len() as u64).to_le_bytes());
        hasher.write(tag);
        hasher.write(&(chunk.len() as u64).to_le_bytes());
        hasher.write(chunk);
        hasher.write(payload);
        let hash = hasher.finish_128();
        (hash, Self::shortened(hash))
    }

    /// The part id of what came without a chunk id: it exists only in this instance's journal, at this place.
    pub fn of_position(instance: u64, lsn: u64) -> Self {
        let mut bytes = [0u8; 16];
        bytes[..8].copy_from_slice(&instance.to_le_bytes());
        bytes[8..].copy_from_slice(&lsn.to_le_bytes());
        Self::shortened(XxHash3_128::oneshot(&bytes))
    }

    /// Appends the `_id` of the document of a record without a trace id: the part and the record's number in it.
    pub fn push_document_id(&self, out: &mut String, number: u32) {
        URL_SAFE_NO_PAD.encode_string(self.0, out);
        out.push('-');
        out.push_str(itoa::Buffer::new().format(number));
    }

    fn shortened(hash: u128) -> Self {
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

/// One part of a trace that is being sealed.
#[derive(Clone, Copy, Debug)]
pub struct PartInfo {
    /// Its identity.
    pub id: PartId,
    /// When it was received, Unix µs.
    pub received: i64,
    /// Records of this trace in it, with those that found no room.
    pub total: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Documents carry these ids, and other instances and versions must give the same ones.
    #[test]
    fn ids_stay_what_they_are() {
        let (hash, part) = PartId::of_chunk(b"app", b"chunk", &[b'x'; 1000]);
        assert_eq!(hash, 0x9f3c_6d7e_ba56_7250_a975_e98a_3f41_66d5);
        assert_eq!(part.0, hash.to_be_bytes()[..12]);
        let part = PartId::of_position(1, 2);
        assert_eq!(
            part.0,
            0x556c_70b5_fae5_b2a4_4967_2959_65e4_d325u128.to_be_bytes()[..12]
        );
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
