//! The chunks of one connection, made from its records. Knows neither what the records say nor who
//! sends them.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::message::{Entries, Mode, write_batch, write_message};

/// The records of one connection.
pub trait Records {
    /// Appends the entry of the next record: `[time, record]`, or `[[time, metadata], record]` in a
    /// mode other than Message. Returns `false` when there is none.
    fn write_next(&mut self, out: &mut Vec<u8>) -> bool;

    /// The id of this connection's chunk number `number`.
    fn chunk_id(&self, number: u64) -> String;
}

/// How records become chunks, and how many chunks may be unacknowledged.
#[derive(Clone, Debug)]
pub struct Framing {
    /// Mode of all messages.
    pub mode: Mode,
    /// The client asks for acknowledgements. In Message mode each record is a chunk of its own
    /// then.
    pub acks: bool,
    /// Tag of all records.
    pub tag: String,
    /// Records of a chunk.
    pub chunk_records: u32,
    /// Chunks in flight on a connection before its acknowledgements are awaited.
    pub window: usize,
}

/// What is written to a socket at once, and again if it must be repeated.
#[derive(Debug)]
pub struct Chunk {
    /// One message; several in Message mode without acknowledgements.
    pub bytes: Vec<u8>,
    /// What the acknowledgement must say, if one is asked for.
    pub id: Option<String>,
    /// Its records: their places in the order of the connection.
    pub records: Range<u64>,
}

/// The chunks of one connection, in order.
#[derive(Debug)]
pub struct Source<R> {
    records: R,
    framing: Arc<Framing>,
    number: u64,
    position: u64,
    entries: Vec<u8>,
    ahead: VecDeque<Chunk>,
}

impl<R: Records> Source<R> {
    /// The chunks of `records`.
    pub fn new(records: R, framing: Arc<Framing>) -> Self {
        Self {
            records,
            framing,
            number: 0,
            position: 0,
            entries: Vec::new(),
            ahead: VecDeque::new(),
        }
    }

    /// How the chunks are framed.
    pub fn framing(&self) -> &Framing {
        &self.framing
    }

    /// The next chunk; `None` at the end.
    ///
    /// # Errors
    /// When the records cannot be compressed.
    pub fn next_chunk(&mut self) -> io::Result<Option<Chunk>> {
        match self.ahead.pop_front() {
            Some(chunk) => Ok(Some(chunk)),
            None => self.make(),
        }
    }

    /// Makes chunks ahead, until they have `max_bytes`. Compressing takes longer than sending, so
    /// compressed chunks, which are small, are all made ahead.
    pub(super) fn make_ahead(&mut self, max_bytes: usize) -> io::Result<()> {
        let mut bytes = 0;
        while (bytes < max_bytes || self.framing.mode.is_compressed())
            && let Some(chunk) = self.make()?
        {
            bytes += chunk.bytes.len();
            self.ahead.push_back(chunk);
        }
        Ok(())
    }

    fn make(&mut self) -> io::Result<Option<Chunk>> {
        let Framing {
            mode,
            acks,
            ref tag,
            chunk_records,
            ..
        } = *self.framing;
        let single = mode == Mode::Message;
        let max_records = if single && acks { 1 } else { chunk_records.max(1) };
        let id = acks.then(|| self.records.chunk_id(self.number));
        let mut bytes = Vec::new();
        let mut count = 0;
        let mut starts = Vec::new();
        self.entries.clear();
        while count < max_records {
            if mode == Mode::GzipMembers {
                starts.push(self.entries.len());
            }
            if !self.records.write_next(&mut self.entries) {
                break;
            }
            count += 1;
            if single {
                write_message(&mut bytes, tag, &self.entries, id.as_deref());
                self.entries.clear();
            }
        }
        if count == 0 {
            return Ok(None);
        }
        let from = self.position;
        self.position += u64::from(count);
        self.number += 1;
        if !single {
            let entries = Entries {
                bytes: &self.entries,
                count,
                middle: starts.get(count as usize / 2).copied().unwrap_or(0),
            };
            write_batch(&mut bytes, mode, tag, entries, id.as_deref())?;
        }
        bytes.shrink_to_fit();
        Ok(Some(Chunk {
            bytes,
            id,
            records: from..self.position,
        }))
    }
}
