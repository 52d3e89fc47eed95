//! Read strategy of a connection: how many bytes a read may bring, and when the receive buffer
//! grows.
//!
//! Adaptive: reads grow with what the client sends. A large buffer costs memory for each
//! connection; a small one costs system calls, and copies when a message does not fit. Performs no
//! reads.

use bytes::{Buf, BytesMut};

use crate::buffer_pool::{self, BufferPool};
use windrow_journal::BLOCK_BYTES;

/// Initial buffer of a connection: ten thousand connections that send a byte and wait cost little.
pub(super) const INITIAL_BUFFER_BYTES: usize = 1 << 10;
/// Size of a read at first, and the smallest later.
const MIN_READ_BYTES: usize = 8 << 10;
/// Largest read, unless a message that has begun is known to need more.
pub(super) const MAX_READ_BYTES: usize = 256 << 10;
/// Space for the options that follow the records of a message: mostly one or two.
const OPTIONS_BYTES: usize = 256;
/// Capacities of large buffers are multiples of this, so that a pooled one also fits a slightly
/// longer message.
const CAPACITY_STEP_BYTES: usize = 16 << 10;

/// From this size on, a buffer grows by a quarter at least.
const PROPORTIONAL_GROWTH_BYTES: usize = 1 << 20;

/// Adaptive read size of one connection.
#[derive(Debug)]
pub(super) struct ReadStrategy {
    /// Size of the next read: doubled after a read that filled the buffer, halved after a much
    /// smaller one.
    read_bytes: usize,
    /// Size of the last run of complete messages.
    last_run_bytes: usize,
    /// The buffer has space for the whole message that is being read, as far as its length is
    /// known.
    fits_message: bool,
    /// Bytes that all connections together read between two messages; with many connections their
    /// reads become smaller.
    shared_bytes: usize,
    /// The share of this connection.
    share_bytes: usize,
}

impl ReadStrategy {
    /// All connections together read at most about `shared_bytes` at once.
    pub(super) fn new(shared_bytes: usize) -> Self {
        Self {
            read_bytes: MIN_READ_BYTES,
            last_run_bytes: 0,
            fits_message: false,
            shared_bytes,
            share_bytes: MIN_READ_BYTES,
        }
    }

    /// By how many bytes `buffer` must grow for the next read, and for the message that has begun,
    /// of which at least `needed` bytes are missing; 0 when it has space.
    pub(super) fn growth(&mut self, buffer: &BytesMut, needed: usize) -> usize {
        let spare = buffer.capacity() - buffer.len();
        let read = match buffer.is_empty() {
            // A message is expected that exceeds a read: a small read shows its length, and little
            // is copied.
            true if self.last_run_bytes > self.read_bytes => MIN_READ_BYTES.min(self.share_bytes),
            true => self.read_bytes.min(self.share_bytes),
            false => self.read_bytes,
        };
        // A claimed length alone reserves little: at most as much as has come already, or one read.
        let wanted = needed.min(buffer.len().max(MAX_READ_BYTES));
        let min_spare = if buffer.capacity() <= INITIAL_BUFFER_BYTES {
            INITIAL_BUFFER_BYTES / 2
        } else if buffer.is_empty() {
            read
        } else if self.fits_message {
            1
        } else {
            // Inside a message a smaller read is better than growing, which copies what has come.
            read / 4
        };
        if spare >= wanted.max(min_spare) {
            return 0;
        }
        self.fits_message = wanted == needed && wanted > read;
        if self.fits_message {
            return wanted + OPTIONS_BYTES;
        }
        // In proportion, or the copies of a long message of unknown length would grow quadratically.
        let proportional = match buffer.len() {
            0..PROPORTIONAL_GROWTH_BYTES => 0,
            bytes => bytes / 4,
        };
        wanted.max(read).max(proportional)
    }

    /// Adapts to a read that brought `bytes` where `spare` would have fitted, with `connections`
    /// open.
    pub(super) fn record_read(&mut self, bytes: usize, spare: usize, connections: usize) {
        self.share_bytes =
            (self.shared_bytes / connections.max(1)).clamp(INITIAL_BUFFER_BYTES, MAX_READ_BYTES);
        if bytes == spare {
            self.read_bytes = (self.read_bytes * 2).min(self.share_bytes.max(MIN_READ_BYTES));
        } else if bytes < self.read_bytes / 4 {
            self.read_bytes = (self.read_bytes / 2).max(MIN_READ_BYTES);
        }
    }

    /// Records that a run of complete messages of `bytes` has left the buffer.
    pub(super) fn run_taken(&mut self, bytes: usize) {
        (self.last_run_bytes, self.fits_message) = (bytes, false);
    }
}

/// Grows `buffer` by at least `more` bytes. A large buffer is aligned to a block, so that the
/// journal can write from it directly.
pub(super) fn grow(buffer: &mut BytesMut, more: usize, pool: &BufferPool) {
    if more == 0 {
        return;
    }
    if more < buffer_pool::MIN_BUFFER_BYTES {
        buffer.reserve(more);
        return;
    }
    let bytes = buffer.len() + more;
    let mut larger = pool.take(BLOCK_BYTES + bytes).unwrap_or_else(|| {
        // Not `with_capacity`: `BytesMut` would remember it and reserve as much again at the next
        // small need.
        let mut new = BytesMut::new();
        new.reserve(2 * BLOCK_BYTES + bytes.next_multiple_of(CAPACITY_STEP_BYTES));
        new
    });
    let before = larger.spare_capacity_mut().as_ptr().align_offset(BLOCK_BYTES);
    if before < BLOCK_BYTES {
        larger.resize(before, 0);
        larger.advance(before);
    }
    larger.extend_from_slice(buffer);
    *buffer = larger;
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    /// Receive memory that is large enough for full reads of a few connections.
    const SHARED: usize = 64 << 20;

    /// A chunk of a thousand records; its options are known only once the records are there.
    const MESSAGE: usize = 244_351;
    const OPTIONS: usize = 34;

    fn reserve(strategy: &mut ReadStrategy, buffer: &mut BytesMut, needed: usize, pool: &BufferPool) {
        let more = strategy.growth(buffer, needed);
        grow(buffer, more, pool);
    }

    /// Reads a message of a fast client; gives how many bytes were copied as the buffer grew, and
    /// how many reads it took.
    fn receive(
        strategy: &mut ReadStrategy,
        buffer: &mut BytesMut,
        kept: &mut Vec<Bytes>,
        connections: usize,
    ) -> (usize, usize) {
        let (mut copied, mut reads) = (0, 0);
        while buffer.len() < MESSAGE {
            let missing = (MESSAGE - OPTIONS).saturating_sub(buffer.len());
            let needed = match (buffer.len(), missing) {
                (0, _) => 0,
                (_, 0) => MESSAGE - buffer.len(),
                _ => missing,
            };
            let before = (buffer.as_ptr(), buffer.len());
            reserve(strategy, buffer, needed, &BufferPool::default());
            if buffer.as_ptr() != before.0 {
                copied += before.1;
            }
            let spare = buffer.capacity() - buffer.len();
            let bytes = spare.min(MESSAGE - buffer.len());
            assert!(bytes > 0, "a read has space");
            buffer.resize(buffer.len() + bytes, 0);
            strategy.record_read(bytes, spare, connections);
            reads += 1;
        }
        strategy.run_taken(buffer.len());
        // What was received is passed on, and kept for a while.
        kept.push(std::mem::take(buffer).freeze());
        (copied, reads)
    }

    #[test]
    fn little_is_copied_of_messages_that_are_known_to_be_long() {
        let mut strategy = ReadStrategy::new(SHARED);
        let (mut buffer, mut kept) = (BytesMut::with_capacity(INITIAL_BUFFER_BYTES), Vec::new());
        let (copied, reads) = receive(&mut strategy, &mut buffer, &mut kept, 1000);
        assert!(
            copied <= INITIAL_BUFFER_BYTES && reads <= 3,
            "{copied} bytes in {reads} reads"
        );
        for _ in 0..10 {
            let (copied, reads) = receive(&mut strategy, &mut buffer, &mut kept, 1000);
            assert!(
                copied <= MIN_READ_BYTES && reads <= 2,
                "{copied} bytes in {reads} reads"
            );
        }
    }

    #[test]
    fn few_connections_read_a_whole_message_at_once() {
        let mut strategy = ReadStrategy::new(SHARED);
        let (mut buffer, mut kept) = (BytesMut::with_capacity(INITIAL_BUFFER_BYTES), Vec::new());
        let last = (0..20)
            .map(|_| receive(&mut strategy, &mut buffer, &mut kept, 2))
            .last();
        assert_eq!(last, Some((0, 1)));
    }

    #[test]
    fn a_large_message_is_aligned_to_a_block() {
        for connections in [2, 1000] {
            let mut strategy = ReadStrategy::new(SHARED);
            let (mut buffer, mut kept) = (BytesMut::with_capacity(INITIAL_BUFFER_BYTES), Vec::new());
            for _ in 0..20 {
                receive(&mut strategy, &mut buffer, &mut kept, connections);
            }
            let at_block = |message: &&Bytes| message.as_ptr().align_offset(BLOCK_BYTES) == 0;
            assert_eq!(kept[10..].iter().filter(at_block).count(), 10, "{connections}");
        }
    }

    #[test]
    fn a_pooled_buffer_is_reused_for_a_large_message() {
        let (mut strategy, pool) = (ReadStrategy::new(SHARED), BufferPool::default());
        let mut buffer = BytesMut::with_capacity(INITIAL_BUFFER_BYTES);
        let mut before = None;
        for _ in 0..5 {
            // Each message is slightly longer or shorter than the one before.
            for length in [MESSAGE, MESSAGE + OPTIONS] {
                buffer.resize(INITIAL_BUFFER_BYTES, 1);
                reserve(&mut strategy, &mut buffer, length - INITIAL_BUFFER_BYTES, &pool);
                assert_eq!(buffer, vec![1; INITIAL_BUFFER_BYTES]);
                let place = buffer.as_ptr();
                assert_eq!(place.align_offset(BLOCK_BYTES), 0);
                assert_eq!(*before.get_or_insert(place), place);
                buffer.resize(length, 1);
                strategy.run_taken(length);
                pool.put(std::mem::take(&mut buffer).freeze());
            }
        }
    }

    #[test]
    fn a_claimed_length_reserves_little() {
        let mut strategy = ReadStrategy::new(SHARED);
        let mut buffer = BytesMut::with_capacity(INITIAL_BUFFER_BYTES);
        buffer.resize(100, 0);
        reserve(&mut strategy, &mut buffer, 100 << 20, &BufferPool::default());
        assert!(buffer.capacity() <= 2 * MAX_READ_BYTES, "{}", buffer.capacity());
    }

    #[test]
    fn a_message_of_unknown_length_is_copied_a_few_times_at_most() {
        const LENGTH: usize = 32 << 20;
        let mut strategy = ReadStrategy::new(SHARED);
        let (mut buffer, mut copied) = (BytesMut::with_capacity(INITIAL_BUFFER_BYTES), 0);
        while buffer.len() < LENGTH {
            let before = (buffer.as_ptr(), buffer.len());
            reserve(&mut strategy, &mut buffer, 1, &BufferPool::default());
            if buffer.as_ptr() != before.0 {
                copied += before.1;
            }
            let spare = buffer.capacity() - buffer.len();
            buffer.resize(buffer.len() + spare.min(MAX_READ_BYTES), 0);
            strategy.record_read(spare.min(MAX_READ_BYTES), spare, 1);
        }
        assert!(copied < 7 * LENGTH, "{copied} bytes were copied");
        assert!(buffer.capacity() < LENGTH / 2 * 3, "{}", buffer.capacity());
    }

    #[test]
    fn first_reads_of_many_connections_are_small() {
        let mut strategy = ReadStrategy::new(SHARED);
        for connections in [1, 1, 1, 1, 1, 1, 1, 20_000] {
            strategy.record_read(MAX_READ_BYTES, MAX_READ_BYTES, connections);
        }
        let most = strategy.growth(&BytesMut::new(), 0) * 20_000;
        assert!(most <= SHARED, "{most}");
    }

    #[test]
    fn reads_shrink_for_a_client_that_sends_little() {
        let mut strategy = ReadStrategy::new(SHARED);
        for _ in 0..10 {
            strategy.record_read(MAX_READ_BYTES, MAX_READ_BYTES, 1);
        }
        assert_eq!(strategy.read_bytes, MAX_READ_BYTES);
        for _ in 0..10 {
            strategy.record_read(100, MAX_READ_BYTES, 1);
        }
        assert_eq!(strategy.read_bytes, MIN_READ_BYTES);
    }
}
