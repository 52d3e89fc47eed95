//! Buffer options of the builder: batches, bounds and what happens when they are reached.

use std::time::Duration;

use super::Builder;
use crate::options::OnFull;

impl Builder {
    /// How long an event waits for more events before its batch is sent; `send` does not wait. 0 to
    /// 1 hour. Default: 100 ms.
    ///
    /// ```
    /// # use std::time::Duration;
    /// let builder = fluent_logger::Logger::builder().flush_interval(Duration::from_millis(20));
    /// ```
    pub fn flush_interval(mut self, interval: Duration) -> Self {
        self.flush_interval = interval;
        self
    }

    /// The most bytes that a message has before compression, unless a single event is larger; a
    /// batch is sent before it would exceed them. 1 KiB to 64 MiB, and effectively at most a
    /// quarter of the buffer. Default: 1 MiB. Fluent Bit 5.1.1 refuses messages above 6,144,000
    /// bytes in its default configuration (`buffer_max_size`).
    ///
    /// ```
    /// let builder = fluent_logger::Logger::builder().chunk_limit_bytes(256 * 1024);
    /// ```
    pub fn chunk_limit_bytes(mut self, bytes: usize) -> Self {
        self.chunk_bytes = bytes;
        self
    }

    /// A batch is sent when it has this many events. 1 to 1,000,000, and effectively at most a
    /// quarter of the buffer. Default: 16,384.
    ///
    /// ```
    /// let builder = fluent_logger::Logger::builder().chunk_limit_events(1000);
    /// ```
    pub fn chunk_limit_events(mut self, events: usize) -> Self {
        self.chunk_events = events;
        self
    }

    /// Larger events, in bytes encoded, are refused
    /// ([`Rejected::TooLarge`](crate::Rejected::TooLarge)). 64 bytes to 64 MiB. Default: 1 MiB.
    ///
    /// ```
    /// let builder = fluent_logger::Logger::builder().record_limit(64 * 1024);
    /// ```
    pub fn record_limit(mut self, bytes: usize) -> Self {
        self.record_limit = bytes;
        self
    }

    /// Events that the logger holds at most, waiting and in flight together. 1 to 100,000,000.
    /// Default: 65,536.
    ///
    /// ```
    /// let builder = fluent_logger::Logger::builder().buffer_limit(100_000);
    /// ```
    pub fn buffer_limit(mut self, events: usize) -> Self {
        self.buffer_events = events;
        self
    }

    /// Bytes of encoded events that the logger holds at most, waiting and in flight together. 1 KiB
    /// to 16 GiB. Default: 32 MiB. The memory in use can be up to about twice that while buffers
    /// grow.
    ///
    /// ```
    /// let builder = fluent_logger::Logger::builder().buffer_limit_bytes(64 << 20);
    /// ```
    pub fn buffer_limit_bytes(mut self, bytes: usize) -> Self {
        self.buffer_bytes = bytes;
        self
    }

    /// What happens to an event when the buffer is full. Default: [`OnFull::Refuse`].
    ///
    /// ```
    /// let builder = fluent_logger::Logger::builder().on_full(fluent_logger::OnFull::DropOldest);
    /// ```
    pub fn on_full(mut self, policy: OnFull) -> Self {
        self.on_full = policy;
        self
    }
}
