//! The size of a cache line.

/// Bytes of a cache line on x86-64 and most ARM64 processors.
pub(crate) const CACHE_LINE_BYTES: usize = 64;
