//! [`BadEntry`] and [`Defect`]: entries that cannot become events, and why.

use crate::msgpack::{Error, Kind};

/// An entry that cannot become an event. The iteration continues after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BadEntry<'a> {
    /// Where it begins in the walked bytes.
    pub offset: usize,
    /// Its bytes; all remaining bytes when its end is unknown.
    pub bytes: &'a [u8],
    /// What is wrong with it.
    pub defect: Defect,
}

/// Why an entry cannot become an event. Always the sender's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Defect {
    /// It is not an array.
    #[error("the entry is of type {0:?}, not an array")]
    NotArray(Kind),
    /// It does not have two elements.
    #[error("the entry has {0} elements, not 2")]
    Size(u32),
    /// Its header `[time, metadata]` does not have two elements.
    #[error("the header of the entry has {0} elements, not 2")]
    HeaderSize(u32),
    /// Its metadata is neither a map nor nil.
    #[error("the metadata is of type {0:?}, not a map")]
    Metadata(Kind),
    /// Its record is not a map.
    #[error("the record is of type {0:?}, not a map")]
    Record(Kind),
    /// Containers are nested deeper than allowed.
    #[error("containers are nested deeper than {0}")]
    TooDeep(u32),
    /// The payload ends inside the entry.
    #[error("the payload ends inside the entry")]
    Truncated,
    /// The bytes are not MessagePack; where the next entry begins is unknown.
    #[error("the entry contains the byte 0xc1, which MessagePack never uses")]
    Malformed,
}

impl From<Error> for Defect {
    fn from(error: Error) -> Self {
        match error {
            Error::Incomplete { .. } | Error::TooLong { .. } => Self::Truncated,
            Error::TooDeep { limit, .. } => Self::TooDeep(limit),
            Error::Malformed { .. } | Error::WrongType { .. } => Self::Malformed,
        }
    }
}
