//! Division of `memory_limit` between the stages.
//!
//! The rest is for first reads of messages and for memory that the allocator keeps.

/// Bytes of `memory_limit` for each stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MemoryShares {
    /// Journal records that wait in memory to be gathered: an eighth.
    pub(crate) record_queue: usize,
    /// Admission limit: a 128th, so that chunks are gathered while they are in the processor's
    /// cache.
    pub(crate) admission: usize,
    /// Receive buffers of messages that have begun: an eighth. First reads of messages together take
    /// as much again.
    pub(crate) receive: usize,
    /// Open traces, with the parts of lines: half.
    pub(crate) open_traces: usize,
    /// Parts of lines that wait for the others, of the share of open traces: a 32nd.
    pub(crate) partial_lines: usize,
    /// Documents that wait for outputs: an eighth.
    pub(crate) outputs: usize,
}

impl MemoryShares {
    /// Divides `memory_limit`, in bytes.
    pub(crate) fn of(memory_limit: u64) -> Self {
        let share = |part| to_usize(memory_limit / part);
        Self {
            record_queue: share(8),
            admission: share(128),
            receive: share(8),
            open_traces: share(2),
            partial_lines: share(32),
            outputs: share(8),
        }
    }
}

/// A configured number of bytes or items as `usize`, capped at `usize::MAX`.
pub(crate) fn to_usize(configured: u64) -> usize {
    usize::try_from(configured).unwrap_or(usize::MAX)
}
