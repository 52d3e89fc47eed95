//! A trace id with its hash, which is computed once for all tables that it is looked up in.
//!
//! Owns the hash function: keyed anew in each process, since whoever sends records chooses the ids.

use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher};

use smallvec::SmallVec;

/// Bytes of an id that lie where it is looked up.
const ROOM: usize = 40;

/// A trace id. Those of the usual lengths (32 hex digits, a UUID) lie where they are looked up.
#[derive(Clone, Debug)]
pub(super) struct Key {
    hash: u64,
    id: SmallVec<[u8; ROOM]>,
}

impl Key {
    /// Of an id and its hash, from [`Self::hash`].
    pub(super) fn again(id: &[u8], hash: u64) -> Self {
        Self { hash, id: copy(id) }
    }

    #[inline]
    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    #[inline]
    pub(super) fn id(&self) -> &[u8] {
        &self.id
    }
}

impl PartialEq for Key {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.id == other.id
    }
}

impl Eq for Key {}

impl Hash for Key {
    #[inline]
    fn hash<S: Hasher>(&self, state: &mut S) {
        state.write_u64(self.hash);
    }
}

/// Makes keys.
#[derive(Debug, Default)]
pub(super) struct Keys(foldhash::quality::RandomState);

impl Keys {
    #[inline]
    pub(super) fn key(&self, id: &[u8]) -> Key {
        // Without the length that `Hash` would add: keys are compared whatever their hashes say.
        let mut hasher = self.0.build_hasher();
        hasher.write(id);
        Key {
            hash: hasher.finish(),
            id: copy(id),
        }
    }
}

/// Most ids have one of two lengths: a copy of a known length is a few instructions, another one a call.
#[inline]
fn copy(id: &[u8]) -> SmallVec<[u8; ROOM]> {
    fn known<const N: usize>(id: &[u8; N]) -> SmallVec<[u8; ROOM]> {
        let mut room = [0; ROOM];
        room[..N].copy_from_slice(id);
        SmallVec::from_buf_and_len(room, N)
    }
    if let Ok(id) = <&[u8; 32]>::try_from(id) {
        known(id)
    } else if let Ok(id) = <&[u8; 36]>::try_from(id) {
        known(id)
    } else {
        SmallVec::from_slice(id)
    }
}

/// For tables of keys, which are hashed already.
pub(super) type Hashed = BuildHasherDefault<Given>;

/// See [`Hashed`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Given(u64);

impl Hasher for Given {
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
