//! Division of `memory_limit` between the stages.
//!
//! What the shares leave is for receive buffers and for what the allocator keeps.

/// Bytes of `memory_limit` for each stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MemoryShares {
    /// Received chunks that wait to be gathered: an eighth.
    pub(crate) feed: usize,
    /// Received chunks that wait to be gathered while gathering is busy: a 128th, which stays in the
    /// processor's cache.
    pub(crate) admission: usize,
    /// Open traces: half.
    pub(crate) open_traces: usize,
    /// Documents that wait for outputs: an eighth.
    pub(crate) outputs: usize,
}

impl MemoryShares {
    /// Divides `memory_limit`, in bytes.
    pub(crate) fn of(memory_limit: u64) -> Self {
        let share = |part| to_usize(memory_limit / part);
        Self {
            feed: share(8),
            admission: share(128),
            open_traces: share(2),
            outputs: share(8),
        }
    }
}

/// Configured bytes or counts, as many as the platform can address.
pub(crate) fn to_usize(configured: u64) -> usize {
    usize::try_from(configured).unwrap_or(usize::MAX)
}
