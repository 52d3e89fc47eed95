//! The size of a cache line.

/// Bytes of a cache line on x86-64 and most ARM64 processors.
pub(crate) const LINE: usize = 64;
