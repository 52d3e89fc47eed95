//! [`Options`]: how to run the server cases.

use std::time::Duration;

/// Options of a run of the server cases.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which cases: numbers, ranges (`47-58`) and name globs, separated by commas; empty means all.
    pub filter: String,
    /// How many cases may run at once.
    pub parallel: usize,
    /// How long to wait for a reply of the server.
    pub reply_timeout: Duration,
    /// How long to wait for events to appear in the sink.
    pub sink_timeout: Duration,
    /// Whether cases that take a minute or more run.
    pub slow: bool,
    /// Number of connections in the case `many-connections`.
    pub many_connections: usize,
    /// Decompressed size of the payload in the case `gzip-bomb`, in bytes.
    pub bomb_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            filter: String::new(),
            parallel: 8,
            reply_timeout: Duration::from_secs(5),
            sink_timeout: Duration::from_secs(15),
            slow: false,
            many_connections: 10_000,
            bomb_bytes: 10 << 30,
        }
    }
}
