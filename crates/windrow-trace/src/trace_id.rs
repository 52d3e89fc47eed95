//! Trace ids with their hash, computed once per record for all lookups.
//!
//! Owns the hash function. It is keyed per process, because senders choose the ids (hash flooding).
//!
//! The destination of a trace is a part of its hash, and in no other place: of one id the hashes for
//! two destinations always differ, so whoever compares hash and id compares the destination too.

use std::hash::{BuildHasher, BuildHasherDefault, Hasher};

/// Ids of up to this many bytes are stored inline.
const INLINE_BYTES: usize = 40;

/// Odd, so that multiplying by it is a bijection: each destination changes a hash in its own way.
const DESTINATION_FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
/// Multiplying by it undoes multiplying by [`DESTINATION_FACTOR`].
const DESTINATION_INVERSE: u64 = inverse(DESTINATION_FACTOR);

/// The inverse of an odd number modulo 2^64, by Newton's iteration: each step doubles the number of
/// right bits, of which there are three at first.
const fn inverse(odd: u64) -> u64 {
    let (mut inverse, mut step) = (odd, 0);
    while step < 5 {
        inverse = inverse.wrapping_mul(2u64.wrapping_sub(odd.wrapping_mul(inverse)));
        step += 1;
    }
    inverse
}

/// A borrowed trace id with its hash.
#[derive(Clone, Copy, Debug)]
pub struct TraceId<'a> {
    hash: u64,
    id: &'a [u8],
}

impl<'a> TraceId<'a> {
    /// The bytes of the id.
    #[inline]
    pub fn bytes(self) -> &'a [u8] {
        self.id
    }

    #[inline]
    pub(crate) fn hash(self) -> u64 {
        self.hash
    }

    /// Bytes on the heap of the owned id.
    #[inline]
    pub(crate) fn heap_bytes(self) -> usize {
        match self.id.len() {
            0..=INLINE_BYTES => 0,
            bytes => bytes,
        }
    }

    /// The id of the trace for `destination`, which is another trace than those of this id for other
    /// destinations. 0 is that of an id as it comes from [`Table::trace_id`](crate::Table::trace_id).
    #[inline]
    #[must_use]
    pub fn with_destination(self, destination: u16) -> Self {
        Self {
            hash: self.hash ^ u64::from(destination).wrapping_mul(DESTINATION_FACTOR),
            id: self.id,
        }
    }
}

/// An owned trace id. The usual ones (32 hex digits, a UUID) are stored inline.
#[derive(Clone, Debug)]
pub(crate) struct OwnedTraceId {
    hash: u64,
    id: IdBytes,
}

#[derive(Clone, Debug)]
enum IdBytes {
    Inline { bytes: InlineBytes, length: u8 },
    Heap(Box<[u8]>),
}

/// Aligned, so that it is copied by whole words: a load that is wider than the stores before it
/// cannot be forwarded from the store buffer and stalls.
#[derive(Clone, Copy, Debug)]
#[repr(align(8))]
struct InlineBytes([u8; INLINE_BYTES]);

impl OwnedTraceId {
    /// The id of a vacant slot.
    pub(crate) const EMPTY: Self = Self {
        hash: 0,
        id: IdBytes::Inline {
            bytes: InlineBytes([0; INLINE_BYTES]),
            length: 0,
        },
    };

    /// An id with a hash from [`Self::hash`].
    pub(crate) fn from_parts(id: &[u8], hash: u64) -> Self {
        Self { hash, id: copy(id) }
    }

    #[inline]
    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    #[inline]
    pub(crate) fn id(&self) -> &[u8] {
        match &self.id {
            IdBytes::Inline { bytes, length } => bytes.0.get(..usize::from(*length)).unwrap_or_default(),
            IdBytes::Heap(id) => id,
        }
    }

    /// The id as a borrowed one.
    #[inline]
    pub(crate) fn as_id(&self) -> TraceId<'_> {
        TraceId {
            hash: self.hash,
            id: self.id(),
        }
    }

    /// Whether it equals `id`.
    #[inline]
    pub(crate) fn is(&self, id: TraceId<'_>) -> bool {
        self.hash == id.hash && self.id() == id.id
    }
}

impl From<TraceId<'_>> for OwnedTraceId {
    #[inline]
    fn from(id: TraceId<'_>) -> Self {
        Self::from_parts(id.id, id.hash)
    }
}

/// Hashes trace ids.
#[derive(Debug, Default)]
pub(crate) struct TraceIdHasher(foldhash::quality::RandomState);

impl TraceIdHasher {
    #[inline]
    pub(crate) fn id<'a>(&self, id: &'a [u8]) -> TraceId<'a> {
        // Without the length prefix that `Hash` adds: the ids themselves are always compared.
        let mut hasher = self.0.build_hasher();
        hasher.write(id);
        TraceId {
            hash: hasher.finish(),
            id,
        }
    }

    /// The destination that is a part of `hash`, the hash of `id`.
    pub(crate) fn destination(&self, hash: u64, id: &[u8]) -> u16 {
        (hash ^ self.id(id).hash).wrapping_mul(DESTINATION_INVERSE) as u16
    }
}

/// Most ids have one of two lengths. Copying a known length takes a few instructions, any other a
/// call.
#[inline]
fn copy(id: &[u8]) -> IdBytes {
    #[inline]
    fn known<const N: usize>(id: &[u8; N]) -> IdBytes {
        let mut bytes = InlineBytes([0; INLINE_BYTES]);
        bytes.0[..N].copy_from_slice(id);
        IdBytes::Inline {
            bytes,
            length: N as u8,
        }
    }
    if let Ok(id) = <&[u8; 32]>::try_from(id) {
        known(id)
    } else if let Ok(id) = <&[u8; 36]>::try_from(id) {
        known(id)
    } else if id.len() <= INLINE_BYTES {
        let mut bytes = InlineBytes([0; INLINE_BYTES]);
        bytes.0[..id.len()].copy_from_slice(id);
        IdBytes::Inline {
            bytes,
            length: id.len() as u8,
        }
    } else {
        IdBytes::Heap(id.into())
    }
}

/// Hash builder for tables whose keys are hashes already.
pub(crate) type PrehashedState = BuildHasherDefault<PrehashedHasher>;

/// The identity hasher of [`PrehashedState`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PrehashedHasher(u64);

impl Hasher for PrehashedHasher {
    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    #[inline]
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_destination_is_a_part_of_the_hash_and_can_be_read_back() {
        assert_eq!(DESTINATION_FACTOR.wrapping_mul(DESTINATION_INVERSE), 1);
        let hasher = TraceIdHasher::default();
        let mut hashes = std::collections::HashSet::new();
        for destination in 0..=u16::MAX {
            let id = hasher.id(b"abc").with_destination(destination);
            assert_eq!(hasher.destination(id.hash(), b"abc"), destination);
            assert!(hashes.insert(id.hash()));
        }
        assert!(hashes.contains(&hasher.id(b"abc").hash()));
    }
}
