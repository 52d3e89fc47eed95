//! MessagePack: finding the end of values, reading them in place, and writing them.
//!
//! Owns the byte format only; knows nothing of Forward. Nothing here recurses, and nothing reserves memory from a
//! length that a peer declared: a container's count only says how many values must still follow.
//!
//! Two ways of finding the end of a value share one loop, which looks at the first byte of each value in a table
//! and keeps a single number, the count of values that are still to come:
//!
//! * [`skip`] for bytes that are all there,
//! * [`Scanner`] for a buffer that is still growing: it goes on where it stopped.

mod read;
mod scan;
mod write;

#[cfg(test)]
mod tests;

pub use read::{Kind, Reader, Value};
pub use scan::{Scanner, skip};
pub(crate) use scan::{check_depth, extent, scalar_end, scalar_size};
pub use write::{
    write_array_len, write_bin, write_bool, write_event_time, write_ext, write_f32, write_f64, write_i64,
    write_map_len, write_nil, write_str, write_u64,
};

/// Why bytes are not one MessagePack value. Offsets count from the start of the buffer given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bytes end inside a value. With more bytes it may become complete.
    #[error("the bytes end inside the value at byte {at}")]
    Incomplete {
        /// Where the value that is cut off begins.
        at: usize,
    },
    /// The byte `0xc1`, which MessagePack never uses.
    #[error("illegal MessagePack byte 0xc1 at byte {at}")]
    Malformed {
        /// Where it stands.
        at: usize,
    },
    /// Containers stand open inside each other beyond the limit.
    #[error("more than {limit} containers inside each other at byte {at}")]
    TooDeep {
        /// The header of the first container beyond the limit.
        at: usize,
        /// The limit that was given.
        limit: u32,
    },
    /// A value of this type was not expected here.
    #[error("expected {expected}, found {found:?} at byte {at}")]
    WrongType {
        /// Where the value begins.
        at: usize,
        /// What the caller wanted.
        expected: &'static str,
        /// What stands there.
        found: Kind,
    },
    /// The value can only be complete in a longer message than the limit allows.
    #[error("the value needs at least {needed} bytes, the limit is {limit}")]
    TooLong {
        /// The least number of bytes from the value's start to its end.
        needed: u64,
        /// The limit that was given.
        limit: usize,
    },
}
