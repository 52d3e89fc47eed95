//! A trace id with its hash, which is computed once for all tables that it is looked up in.
//!
//! Owns the hash function: keyed anew in each process, since whoever sends records chooses the ids.

use std::hash::{BuildHasher, BuildHasherDefault, Hasher};

/// Bytes of an id that lie where it is looked up.
const INLINE_BYTES: usize = 40;

/// A trace id where it came, with its hash.
#[derive(Clone, Copy, Debug)]
pub struct TraceId<'a> {
    hash: u64,
    id: &'a [u8],
}

impl<'a> TraceId<'a> {
    /// The id.
    #[inline]
    pub fn bytes(self) -> &'a [u8] {
        self.id
    }

    #[inline]
    pub(crate) fn hash(self) -> u64 {
        self.hash
    }
}

/// A trace id that is kept. Those of the usual lengths (32 hex digits, a UUID) lie where they are looked up.
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

/// By words, so that it is written and read by them: bytes that are read by other words than they were written by a moment ago
/// wait until everything that was written before them is in memory.
#[derive(Clone, Copy, Debug)]
#[repr(align(8))]
struct InlineBytes([u8; INLINE_BYTES]);

impl OwnedTraceId {
    /// Of nothing.
    pub(crate) const EMPTY: Self = Self {
        hash: 0,
        id: IdBytes::Inline {
            bytes: InlineBytes([0; INLINE_BYTES]),
            length: 0,
        },
    };

    /// Of an id and its hash, from [`Self::hash`].
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

    /// As it came.
    #[inline]
    pub(crate) fn as_id(&self) -> TraceId<'_> {
        TraceId {
            hash: self.hash,
            id: self.id(),
        }
    }

    /// Whether it is of this id.
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

/// Hashes ids.
#[derive(Debug, Default)]
pub(crate) struct TraceIdHasher(foldhash::quality::RandomState);

impl TraceIdHasher {
    #[inline]
    pub(crate) fn id<'a>(&self, id: &'a [u8]) -> TraceId<'a> {
        // Without the length that `Hash` would add: ids are compared whatever their hashes say.
        let mut hasher = self.0.build_hasher();
        hasher.write(id);
        TraceId {
            hash: hasher.finish(),
            id,
        }
    }
}

/// Most ids have one of two lengths: a copy of a known length is a few instructions, another one a call.
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

/// For tables of hashes.
pub(crate) type PrehashedState = BuildHasherDefault<PrehashedHasher>;

/// See [`PrehashedState`].
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
