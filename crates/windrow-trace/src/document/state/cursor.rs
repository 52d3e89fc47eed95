//! Reader of the bytes of a state. Damage is an error with its offset.

use super::StateError;

/// A reader of varints.
pub(super) struct Cursor<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

impl Cursor<'_> {
    pub(super) fn byte(&mut self) -> Result<u8, StateError> {
        let byte = *self.bytes.get(self.at).ok_or(StateError::Damaged(self.at))?;
        self.at += 1;
        Ok(byte)
    }

    pub(super) fn varint(&mut self) -> Result<u64, StateError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(StateError::Damaged(self.at))
    }

    pub(super) fn small(&mut self) -> Result<u32, StateError> {
        u32::try_from(self.varint()?).map_err(|_| StateError::Damaged(self.at))
    }

    /// A count of items of at least `least` bytes each. At most what the remaining bytes can hold,
    /// so that a damaged count allocates nothing.
    pub(super) fn count(&mut self, least: usize) -> Result<usize, StateError> {
        let count = self.varint()?;
        let room = (self.bytes.len() - self.at) / least;
        usize::try_from(count)
            .ok()
            .filter(|&count| count <= room)
            .ok_or(StateError::Damaged(self.at))
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], StateError> {
        let piece = self
            .bytes
            .get(self.at..self.at + N)
            .ok_or(StateError::Damaged(self.at))?;
        self.at += N;
        piece.try_into().map_err(|_| StateError::Damaged(self.at))
    }

    pub(super) fn text(&mut self) -> Result<String, StateError> {
        let length = self.count(1)?;
        let piece = self
            .bytes
            .get(self.at..self.at + length)
            .ok_or(StateError::Damaged(self.at))?;
        self.at += length;
        String::from_utf8(piece.to_vec()).map_err(|_| StateError::Damaged(self.at))
    }
}

pub(super) fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}
