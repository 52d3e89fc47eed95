//! Share of a chunk: some of its records as a Forward message, with the identity that they have in
//! the whole chunk.
//!
//! Owns the option that carries it. A record keeps the part, the section and the position that it
//! has in the chunk as the client sent it, so that it does not matter to the union which instance
//! gathers it, or whether several do. Only journal records of the kind [`CHUNK_SHARES`] are read as
//! shares: a client cannot choose the identity of what it sends.

use forward_protocol::frame::Message;
use forward_protocol::msgpack::{
    Reader, Value, write_array_len, write_bin, write_map_len, write_str, write_u64,
};
use twox_hash::xxhash3_128;
use windrow_journal::Record;

/// Kind of the journal records that hold shares, and nothing that a client sent as it is.
pub const CHUNK_SHARES: u8 = 2;

/// The option of a message that makes it a share.
const OPTION: &[u8] = b"windrow_share";
/// Version of the option's value.
const VERSION: u8 = 1;
/// Version, hash, section, time of reception.
const FIXED_BYTES: usize = 1 + 16 + 4 + 8;
/// Depth of option values that are passed over.
const MAX_DEPTH: u32 = 16;

/// What the records of a share have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Hash of the whole chunk: tag, chunk id and payload.
    pub(crate) chunk: u128,
    /// The section of the chunk.
    pub(crate) section: u32,
    /// When the instance that the client sent it to received the chunk (Unix µs): records without a
    /// time get the same one wherever they are gathered.
    pub(crate) received: i64,
}

/// A share, read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) identity: Identity,
    /// Hash of the identity of all its records.
    pub(crate) hash: u128,
    /// The position of each record in the chunk.
    pub(crate) positions: Vec<u32>,
}

/// A share that records are appended to.
#[derive(Debug)]
pub(crate) struct ShareBuilder {
    /// The entries.
    pub(crate) entries: Vec<u8>,
    /// Differences of the positions, as LEB128.
    positions: Vec<u8>,
    next_position: u32,
    count: u32,
}

impl ShareBuilder {
    pub(crate) fn new() -> Self {
        Self {
            entries: Vec::new(),
            positions: Vec::new(),
            next_position: 0,
            count: 0,
        }
    }

    /// Counts a record that was appended to `entries`. Positions ascend.
    #[inline]
    pub(crate) fn count(&mut self, position: u32) {
        let mut gap = position.wrapping_sub(self.next_position);
        while gap >= 0x80 {
            self.positions.push(gap as u8 | 0x80);
            gap >>= 7;
        }
        self.positions.push(gap as u8);
        self.next_position = position.wrapping_add(1);
        self.count += 1;
    }

    /// Number of records.
    pub(crate) fn records(&self) -> u32 {
        self.count
    }

    /// Appends the message to `out`. It asks for no ack of its own.
    pub(crate) fn write(&self, out: &mut Vec<u8>, tag: &[u8], identity: &Identity) {
        out.reserve(self.entries.len() + self.positions.len() + tag.len() + FIXED_BYTES + 96);
        write_array_len(out, 3);
        write_str(out, tag);
        write_bin(out, &self.entries);
        write_map_len(out, 2);
        write_str(out, b"size");
        write_u64(out, u64::from(self.count));
        write_str(out, OPTION);
        let mut value = Vec::with_capacity(FIXED_BYTES + self.positions.len());
        value.push(VERSION);
        value.extend_from_slice(&identity.chunk.to_be_bytes());
        value.extend_from_slice(&identity.section.to_be_bytes());
        value.extend_from_slice(&identity.received.to_be_bytes());
        value.extend_from_slice(&self.positions);
        write_bin(out, &value);
    }
}

impl Share {
    /// The share that a message of a journal record is; `None` if it is none.
    #[inline]
    pub(crate) fn in_record(record: &Record, message: &Message<'_>) -> Option<Self> {
        match record.kind {
            CHUNK_SHARES => Self::read(message),
            _ => None,
        }
    }

    /// The share that `message` is; `None` if it is none.
    pub(crate) fn read(message: &Message<'_>) -> Option<Self> {
        let value = option(message)?;
        let (fixed, positions) = value.split_at_checked(FIXED_BYTES)?;
        let (version, fixed) = fixed.split_first()?;
        if *version != VERSION {
            return None;
        }
        let (chunk, rest) = fixed.split_first_chunk::<16>()?;
        let (section, rest) = rest.split_first_chunk::<4>()?;
        let received = rest.first_chunk::<8>()?;
        let identity = Identity {
            chunk: u128::from_be_bytes(*chunk),
            section: u32::from_be_bytes(*section),
            received: i64::from_be_bytes(*received),
        };
        let mut hasher = xxhash3_128::Hasher::new();
        hasher.write(chunk);
        hasher.write(section);
        hasher.write(positions);
        Some(Self {
            identity,
            hash: hasher.finish_128(),
            positions: read_positions(positions)?,
        })
    }
}

fn read_positions(bytes: &[u8]) -> Option<Vec<u32>> {
    let mut positions = Vec::with_capacity(bytes.len());
    let (mut next, mut gap, mut shift) = (0u32, 0u32, 0);
    for byte in bytes {
        gap |= u32::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 != 0 {
            shift += 7;
            continue;
        }
        let position = next.wrapping_add(gap);
        positions.push(position);
        (next, gap, shift) = (position.wrapping_add(1), 0, 0);
    }
    (shift == 0).then_some(positions)
}

/// The value of the option in a message of the mode in which shares are written.
fn option<'a>(message: &Message<'a>) -> Option<&'a [u8]> {
    let options = message.bytes.get(message.body_offset + message.body.len()..)?;
    let mut reader = Reader::new(options);
    for _ in 0..reader.map_len().ok()? {
        let is_share = reader.str_or_bin().ok()? == OPTION;
        if is_share {
            return match reader.value().ok()? {
                Value::Bin(value) => Some(value),
                _ => None,
            };
        }
        reader.raw(MAX_DEPTH).ok()?;
    }
    None
}

#[cfg(test)]
mod tests {
    use forward_protocol::frame::{Limits, messages};
    use proptest::prelude::*;

    use super::*;

    fn written(identity: &Identity, positions: &[u32]) -> Vec<u8> {
        let mut share = ShareBuilder::new();
        for position in positions {
            share.entries.extend_from_slice(b"\x92\xc0\x80");
            share.count(*position);
        }
        let mut out = Vec::new();
        share.write(&mut out, b"app", identity);
        out
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            chunk: u128,
            section: u32,
            received: i64,
            positions in proptest::collection::btree_set(any::<u32>(), 0..50),
        ) {
            let identity = Identity { chunk, section, received };
            let positions: Vec<u32> = positions.into_iter().collect();
            let bytes = written(&identity, &positions);
            let message = messages(&bytes, Limits::default()).next().unwrap().unwrap();
            let share = Share::read(&message).unwrap();
            prop_assert_eq!(share.identity, identity);
            prop_assert_eq!(&share.positions, &positions);
            prop_assert_eq!(message.options.size, Some(positions.len() as i64));
            prop_assert_eq!(message.options.chunk, None);
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = read_positions(&bytes);
        }
    }

    #[test]
    fn the_hash_is_that_of_the_records_and_not_of_the_way() {
        let identity = Identity {
            chunk: 7,
            section: 0,
            received: 1,
        };
        let hash = |identity: &Identity, positions: &[u32]| {
            let bytes = written(identity, positions);
            let message = messages(&bytes, Limits::default()).next().unwrap().unwrap();
            Share::read(&message).unwrap().hash
        };
        let first = hash(&identity, &[1, 5]);
        let later = Identity {
            received: 2,
            ..identity
        };
        assert_eq!(hash(&later, &[1, 5]), first);
        assert_ne!(hash(&identity, &[1, 6]), first);
        let section = Identity {
            section: 1,
            ..identity
        };
        assert_ne!(hash(&section, &[1, 5]), first);
    }

    #[test]
    fn an_ordinary_message_is_no_share() {
        for bytes in [
            &b"\x92\xa3app\xc4\x03\x92\xc0\x80"[..],
            b"\x93\xa3app\xc4\x03\x92\xc0\x80\x81\xa5chunk\xa1a",
            b"\x93\xa3app\xc4\x03\x92\xc0\x80\x81\xadwindrow_share\xc4\x01\x01",
            b"\x93\xa3app\xc4\x03\x92\xc0\x80\x81\xadwindrow_share\x01",
        ] {
            let message = messages(bytes, Limits::default()).next().unwrap().unwrap();
            assert_eq!(Share::read(&message), None);
        }
    }
}
