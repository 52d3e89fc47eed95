//! Chunk: one message on the wire, its id, and the bookkeeping until it is acknowledged.
//!
//! Owns the encoding of a batch into messages. The bytes are made once: every resend, over any
//! connection, is the same message with the same id, so that a server recognises a repetition.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use forward_protocol::encode::ChunkId;

use crate::options::Mode;
use crate::queue::{Batch, Waiter};
use crate::random::Random;
use crate::wire;

#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) id: ChunkId,
    pub(crate) message: Vec<u8>,
    pub(crate) tag: Arc<str>,
    /// Number of its first event.
    pub(crate) first: u64,
    pub(crate) events: usize,
    /// Bytes counted against the bound of the queue.
    pub(crate) cost: usize,
    pub(crate) waiters: Vec<Waiter>,
    /// Failed attempts: connections that could not be made or broke while this chunk waited.
    pub(crate) attempts: u32,
    /// When its last byte was written on the present connection.
    pub(crate) written_at: Option<Instant>,
    /// It was written completely on some connection: a server may have it.
    pub(crate) was_written: bool,
    /// Number of its file in the spool, where it stays until it is acknowledged.
    pub(crate) file: Option<u64>,
    entries: Entries,
}

/// Location of the entries, for `close`, which returns undelivered events.
#[derive(Debug)]
struct Entries {
    /// Entries of a compressed message; `None`: they are in the message.
    uncompressed: Option<Vec<u8>>,
    range: Range<usize>,
    /// End of each entry, counted from where `range` starts.
    ends: Vec<u32>,
    /// In Message mode the entry in the message lacks its array header.
    header_stripped: bool,
}

impl Chunk {
    /// A chunk recovered from the spool. Its single events are not known: it stays in the spool
    /// until it is acknowledged.
    #[cfg(feature = "spool")]
    pub(crate) fn recovered(id: ChunkId, tag: &str, events: usize, message: Vec<u8>) -> Self {
        Self {
            id,
            cost: message.len() + events * crate::queue::EVENT_OVERHEAD_BYTES,
            message,
            tag: Arc::from(tag),
            first: 0,
            events,
            waiters: Vec::new(),
            attempts: 0,
            written_at: None,
            was_written: false,
            file: None,
            entries: Entries {
                uncompressed: None,
                range: 0..0,
                ends: Vec::new(),
                header_stripped: false,
            },
        }
    }

    /// The entries (`[time, record]`), in order.
    pub(crate) fn entries(&self) -> Vec<Vec<u8>> {
        let all = self.entries.uncompressed.as_ref().unwrap_or(&self.message);
        let all = all.get(self.entries.range.clone()).unwrap_or_default();
        let mut start = 0;
        let mut entries = Vec::with_capacity(self.entries.ends.len());
        for end in &self.entries.ends {
            let end = *end as usize;
            let mut entry = Vec::with_capacity(end - start + 1);
            if self.entries.header_stripped {
                entry.push(0x92);
            }
            entry.extend_from_slice(all.get(start..end).unwrap_or_default());
            entries.push(entry);
            start = end;
        }
        entries
    }
}

/// Makes the messages of a batch: one, or in Message mode one per event. A caller's chunk is always
/// one message.
pub(crate) fn seal(batch: Batch, mode: Mode, request_ack: bool, random: &mut Random) -> Vec<Chunk> {
    match mode {
        Mode::Message if batch.id.is_none() => seal_each(batch, request_ack, random),
        _ => vec![seal_whole(batch, mode, request_ack, random)],
    }
}

fn seal_whole(batch: Batch, mode: Mode, request_ack: bool, random: &mut Random) -> Chunk {
    let id = batch.id.unwrap_or_else(|| random.chunk_id());
    let start = batch.start();
    let events = batch.events();
    let cost = batch.cost();
    let ends: Vec<u32> = batch
        .ends
        .iter()
        .skip(batch.dropped)
        // Every end behind `start` is larger than it, and both come from u32.
        .map(|end| end - u32::try_from(start).unwrap_or(0))
        .collect();
    let entries = batch.entries.get(start..).unwrap_or_default();
    let sealed = wire::message(mode, &batch.tag, entries, events, request_ack.then_some(&id));
    let (uncompressed, range) = match sealed.entries {
        Some(range) => (None, range),
        None => {
            let mut all = batch.entries;
            all.drain(..start);
            let range = 0..all.len();
            (Some(all), range)
        }
    };
    Chunk {
        id,
        message: sealed.bytes,
        tag: batch.tag,
        first: batch.first,
        events,
        cost,
        waiters: batch.waiters.into_iter().map(|(_, waiter)| waiter).collect(),
        attempts: 0,
        written_at: None,
        was_written: false,
        file: None,
        entries: Entries {
            uncompressed,
            range,
            ends,
            header_stripped: false,
        },
    }
}

fn seal_each(batch: Batch, request_ack: bool, random: &mut Random) -> Vec<Chunk> {
    let mut chunks = Vec::with_capacity(batch.events());
    let mut waiters = batch.waiters.into_iter().peekable();
    let mut start = 0;
    for (index, end) in batch.ends.iter().enumerate() {
        let end = *end as usize;
        let entry = batch.entries.get(start..end).unwrap_or_default();
        start = end;
        if index < batch.dropped {
            continue;
        }
        let id = random.chunk_id();
        let sealed = wire::single(&batch.tag, entry, request_ack.then_some(&id));
        let mut waiting = Vec::new();
        while let Some((_, waiter)) = waiters.next_if(|(waits_for, _)| *waits_for <= index) {
            waiting.push(waiter);
        }
        chunks.push(Chunk {
            id,
            message: sealed.bytes,
            tag: Arc::clone(&batch.tag),
            first: batch.first + index as u64,
            events: 1,
            cost: entry.len() + crate::queue::EVENT_OVERHEAD_BYTES,
            waiters: waiting,
            attempts: 0,
            written_at: None,
            was_written: false,
            file: None,
            entries: Entries {
                uncompressed: None,
                ends: vec![u32::try_from(sealed.range.len()).unwrap_or(u32::MAX)],
                range: sealed.range,
                header_stripped: true,
            },
        });
    }
    chunks
}
