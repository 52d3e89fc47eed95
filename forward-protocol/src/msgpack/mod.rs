//! MessagePack: finding the end of values, reading them in place, and writing them.
//!
//! Owns the byte format and knows nothing of Forward. No function recurses or reserves memory for a
//! declared length: a container's count only says how many values must follow.
//!
//! Two functions find the end of a value with the same loop, which looks up the first byte of each
//! value in a table and keeps one number, the count of values still to come:
//!
//! * [`skip`] for a complete buffer,
//! * [`Scanner`] for a growing buffer: it resumes where it stopped.

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

/// Why bytes cannot be read as a MessagePack value. Offsets count from the start of the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bytes end inside a value. With more bytes it may become complete.
    #[error("the bytes end inside the value at byte {at}")]
    Incomplete {
        /// Offset of the truncated value.
        at: usize,
    },
    /// The byte `0xc1`, which MessagePack never uses.
    #[error("illegal MessagePack byte 0xc1 at byte {at}")]
    Malformed {
        /// Its offset.
        at: usize,
    },
    /// Containers are nested beyond the limit.
    #[error("containers are nested deeper than {limit} at byte {at}")]
    TooDeep {
        /// The header of the first container beyond the limit.
        at: usize,
        /// The limit that was given.
        limit: u32,
    },
    /// The value has another type than the caller wants.
    #[error("expected {expected}, found {found:?} at byte {at}")]
    WrongType {
        /// Where the value begins.
        at: usize,
        /// The wanted type.
        expected: &'static str,
        /// The actual type.
        found: Kind,
    },
    /// The value is longer than the limit allows.
    #[error("the value needs at least {needed} bytes, the limit is {limit}")]
    TooLong {
        /// Lower bound of the value's length in bytes.
        needed: u64,
        /// The limit that was given.
        limit: usize,
    },
}
