//! [`Limits`]: the limits on what a peer may send.

/// Limits on what a peer may send, in bytes unless the field says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The longest message, default 64 MiB. Fluentd with a file buffer sends up to 256 MiB at once.
    pub message: usize,
    /// The longest tag, default 64 KiB (Fluent Bit sends up to 65 531 bytes).
    pub tag: usize,
    /// The longest chunk id, default 1 KiB. Real ids have 24 to 36 bytes.
    pub chunk: usize,
    /// The most pairs in an option map, default 64.
    pub options: u32,
    /// The deepest nesting of containers in an entry, default 100 (Fluentd stops at 128, Fluent Bit
    /// at 32). A deeper entry is a bad entry; its neighbours are kept.
    pub depth: u32,
    /// How many values other than arrays and maps a connection may send before it is closed, default
    /// 8. The specification says to ignore them; a peer that sends many of them speaks another protocol.
    pub strays: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message: 64 << 20,
            tag: 64 << 10,
            chunk: 1 << 10,
            options: 64,
            depth: 100,
            strays: 8,
        }
    }
}
