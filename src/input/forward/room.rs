//! How much room a connection's receive buffer has: for how much is read at a time, and when the buffer grows.
//!
//! Owns the sizes of reads, which grow with what the client sends, and what is reserved for a message that has begun. Room
//! costs memory for each connection; too little of it costs a system call more, or that what has come is copied to where
//! there is more. Reads nothing.

use bytes::{Buf, BytesMut};

use crate::spares::{self, Spares};
use windrow_journal::BLOCK_BYTES;

/// The first read of a connection, and the least room for a read: ten thousand that send a byte and wait cost little.
pub(super) const TINY: usize = 1 << 10;
/// The read of a connection that sends; grows with what the client sends.
const SMALL: usize = 8 << 10;
/// The most that is read at a time; what a message that has begun still needs comes on top, in steps of this.
pub(super) const LARGE: usize = 256 << 10;
/// Room for what follows the records of a message: mostly an option or two.
const OPTIONS: usize = 256;
/// Large buffers are made in steps of this, so that one can be used for a message that is a little longer than the one before.
const STEP: usize = 16 << 10;
/// All connections together reserve about this much for reading before each of them has to read less at a time.
const RECEIVE_MEMORY: usize = 64 << 20;

/// See above.
#[derive(Debug)]
pub(super) struct Room {
    /// How much is read at a time: more after a read that filled the buffer, less after a few that did not.
    read: usize,
    /// Bytes of the messages that were last complete together.
    last: usize,
    /// There is room for all of the message that is being read, as far as it is known how long it is.
    whole: bool,
}

impl Room {
    pub(super) fn new() -> Self {
        Self {
            read: SMALL,
            last: 0,
            whole: false,
        }
    }

    /// Makes room for the rest of the message that has begun, of which at least `needed` bytes are missing, and for more at a
    /// time the more a client sends.
    pub(super) fn make(&mut self, buffer: &mut BytesMut, needed: usize, spares: &Spares) {
        let spare = buffer.capacity() - buffer.len();
        let read = match buffer.is_empty() {
            // Of a message that does not fit the first read shows how much it needs; what it brings is copied then.
            true if self.last > self.read => SMALL,
            _ => self.read,
        };
        // A claimed length reserves nothing by itself: at most what has come already, and one read.
        let want = needed.min(buffer.len().max(LARGE));
        let least = if buffer.capacity() <= TINY {
            TINY / 2
        } else if buffer.is_empty() {
            read
        } else if self.whole {
            1
        } else {
            // Inside a message a little less will do: more room means to copy what has come.
            read / 4
        };
        if spare < want.max(least) {
            self.whole = want == needed && want > read;
            let more = if self.whole { OPTIONS } else { 0 };
            grow(buffer, want.max(read) + more, spares);
        }
    }

    /// A read brought so many bytes where there was room for `spare`; as many connections share the memory.
    pub(super) fn was_read(&mut self, bytes: usize, spare: usize, connections: usize) {
        if bytes == spare {
            // Few connections read much at a time, many connections little.
            let fair = RECEIVE_MEMORY / connections.max(1);
            self.read = (self.read * 2).min(fair.clamp(SMALL, LARGE));
        } else if bytes < self.read / 4 {
            self.read = (self.read / 2).max(SMALL);
        }
    }

    /// Messages of so many bytes are complete, and leave the buffer.
    pub(super) fn left(&mut self, bytes: usize) {
        (self.last, self.whole) = (bytes, false);
    }
}

/// Makes room for so many bytes more: for many where a block begins, so that the journal can write them from there.
fn grow(buffer: &mut BytesMut, more: usize, spares: &Spares) {
    if more < spares::LEAST {
        buffer.reserve(more);
        return;
    }
    let bytes = buffer.len() + more;
    let mut larger = spares.take(BLOCK_BYTES + bytes).unwrap_or_else(|| {
        // One that is made with a capacity takes as much when it needs only a little the next time.
        let mut new = BytesMut::new();
        new.reserve(2 * BLOCK_BYTES + bytes.next_multiple_of(STEP));
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

    /// Bytes of a chunk of a thousand records, of which those of its options are not known until the records are there.
    const MESSAGE: usize = 244_351;
    const BEHIND: usize = 34;

    /// Reads a message as a client sends it that is quick, and gives how many bytes were copied to where there is more room,
    /// and how many reads it took.
    fn receive(
        room: &mut Room,
        buffer: &mut BytesMut,
        kept: &mut Vec<Bytes>,
        connections: usize,
    ) -> (usize, usize) {
        let (mut copied, mut reads) = (0, 0);
        while buffer.len() < MESSAGE {
            let missing = (MESSAGE - BEHIND).saturating_sub(buffer.len());
            let needed = match (buffer.len(), missing) {
                (0, _) => 0,
                (_, 0) => MESSAGE - buffer.len(),
                _ => missing,
            };
            let before = (buffer.as_ptr(), buffer.len());
            room.make(buffer, needed, &Spares::default());
            if buffer.as_ptr() != before.0 {
                copied += before.1;
            }
            let spare = buffer.capacity() - buffer.len();
            let bytes = spare.min(MESSAGE - buffer.len());
            assert!(bytes > 0, "there is room for a read");
            buffer.resize(buffer.len() + bytes, 0);
            room.was_read(bytes, spare, connections);
            reads += 1;
        }
        room.left(buffer.len());
        // What was received goes on, and is kept for a while.
        kept.push(std::mem::take(buffer).freeze());
        (copied, reads)
    }

    #[test]
    fn of_a_message_that_is_known_to_be_long_little_is_copied() {
        let mut room = Room::new();
        let (mut buffer, mut kept) = (BytesMut::with_capacity(TINY), Vec::new());
        let (copied, reads) = receive(&mut room, &mut buffer, &mut kept, 1000);
        assert!(copied <= TINY && reads <= 3, "{copied} bytes in {reads} reads");
        for _ in 0..10 {
            let (copied, reads) = receive(&mut room, &mut buffer, &mut kept, 1000);
            assert!(copied <= SMALL && reads <= 2, "{copied} bytes in {reads} reads");
        }
    }

    #[test]
    fn few_connections_read_a_message_at_once() {
        let mut room = Room::new();
        let (mut buffer, mut kept) = (BytesMut::with_capacity(TINY), Vec::new());
        let last = (0..20)
            .map(|_| receive(&mut room, &mut buffer, &mut kept, 2))
            .last();
        assert_eq!(last, Some((0, 1)));
    }

    #[test]
    fn a_large_message_begins_where_the_journal_can_write_it_from() {
        for connections in [2, 1000] {
            let mut room = Room::new();
            let (mut buffer, mut kept) = (BytesMut::with_capacity(TINY), Vec::new());
            for _ in 0..20 {
                receive(&mut room, &mut buffer, &mut kept, connections);
            }
            let at_block = |message: &&Bytes| message.as_ptr().align_offset(BLOCK_BYTES) == 0;
            assert_eq!(kept[10..].iter().filter(at_block).count(), 10, "{connections}");
        }
    }

    #[test]
    fn a_large_message_is_received_where_another_was_that_is_gathered() {
        let (mut room, spares) = (Room::new(), Spares::default());
        let mut buffer = BytesMut::with_capacity(TINY);
        let mut before = None;
        for _ in 0..5 {
            // Longer from one to the next, though not much.
            for length in [MESSAGE, MESSAGE + BEHIND] {
                buffer.resize(TINY, 1);
                room.make(&mut buffer, length - TINY, &spares);
                assert_eq!(buffer, vec![1; TINY]);
                let place = buffer.as_ptr();
                assert_eq!(place.align_offset(BLOCK_BYTES), 0);
                assert_eq!(*before.get_or_insert(place), place);
                buffer.resize(length, 1);
                room.left(length);
                spares.give(std::mem::take(&mut buffer).freeze());
            }
        }
    }

    #[test]
    fn a_claimed_length_reserves_little() {
        let mut room = Room::new();
        let mut buffer = BytesMut::with_capacity(TINY);
        buffer.resize(100, 0);
        room.make(&mut buffer, 100 << 20, &Spares::default());
        assert!(buffer.capacity() <= 2 * LARGE, "{}", buffer.capacity());
    }

    #[test]
    fn who_sends_little_has_little_room() {
        let mut room = Room::new();
        for _ in 0..10 {
            room.was_read(LARGE, LARGE, 1);
        }
        assert_eq!(room.read, LARGE);
        for _ in 0..10 {
            room.was_read(100, LARGE, 1);
        }
        assert_eq!(room.read, SMALL);
    }
}
