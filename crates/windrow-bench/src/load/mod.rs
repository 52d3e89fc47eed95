//! Load of `windrow bench`, and the parts of which every load is made.
//!
//! A load is records in an order (`order`), their encoding (`template`, `msgpack`), and chunks made
//! of them (`source`, `message`). The tests' loads bring records of their own and use the rest.
//! Sends nothing.

use std::sync::Arc;

mod message;
pub mod msgpack;
mod order;
mod source;
mod template;

pub use message::Mode;
pub use order::{ConnectionOrder, Interleaving};
pub use source::{Chunk, Framing, Records, Source};

use template::Template;

/// Bytes of chunks that are made before the clock runs.
const MAX_AHEAD_BYTES: usize = 256 << 20;

/// A load of requests' log lines.
#[derive(Clone, Debug)]
pub struct Load {
    /// How records are carried.
    pub mode: Mode,
    /// Whether the client asks for acknowledgements. In Message mode each record has one of its own
    /// then.
    pub acks: bool,
    /// Records in all; rounded down to whole traces, but at least one.
    pub records: u64,
    /// Records of one trace; the last one completes it.
    pub lines: u32,
    /// Whether the records have a trace id.
    pub traced: bool,
    /// Traces open at the same time over all connections; rounded down to the same number on each,
    /// but at least one.
    pub open: u64,
    /// Connections; a trace stays on one of them.
    pub connections: u32,
    /// Chunks in flight on a connection before its acknowledgements are awaited.
    pub window: usize,
    /// Records of a chunk.
    pub chunk_records: u32,
    /// Bytes added to each record's message.
    pub filler: usize,
    /// Makes the chunks and traces of one load differ from those of another.
    pub run: u32,
}

impl Default for Load {
    /// 500,000 records of about 250 bytes, 5 lines a trace, 700 traces open, packed, acknowledged,
    /// 2 connections.
    fn default() -> Self {
        Self {
            mode: Mode::Packed,
            acks: true,
            records: 500_000,
            lines: 5,
            traced: true,
            open: 700,
            connections: 2,
            window: 1,
            chunk_records: 1000,
            filler: 60,
            run: 0,
        }
    }
}

impl Load {
    /// Traces in all.
    pub fn traces(&self) -> u64 {
        (self.records / u64::from(self.lines.max(1))).max(1)
    }

    /// Records in all, exactly.
    pub fn total(&self) -> u64 {
        self.traces() * u64::from(self.lines.max(1))
    }

    /// Documents that come of it.
    pub fn documents(&self) -> u64 {
        if self.traced { self.traces() } else { self.total() }
    }

    /// Bytes of one record with its time, as it stands in a packed chunk: those of a trace's first
    /// line.
    pub fn record_bytes(&self) -> usize {
        Template::new(self, 0, false).len()
    }

    /// The sources of all connections, with as many chunks made ahead as there is room for.
    ///
    /// # Errors
    /// When the records cannot be compressed.
    pub fn prepare(&self) -> std::io::Result<Vec<Source<RequestRecords>>> {
        let mut sources = self.sources();
        let room = MAX_AHEAD_BYTES / sources.len();
        for source in &mut sources {
            source.make_ahead(room)?;
        }
        Ok(sources)
    }

    fn sources(&self) -> Vec<Source<RequestRecords>> {
        let templates: Arc<[_]> = (0..self.lines.max(1))
            .map(|line| [false, true].map(|post| Template::new(self, line, post)))
            .collect();
        let framing = Arc::new(Framing {
            mode: self.mode,
            acks: self.acks,
            tag: "app.bench".to_owned(),
            chunk_records: self.chunk_records,
            window: self.window,
        });
        let connections = u64::from(self.connections.max(1));
        let order = Interleaving {
            traces: self.traces(),
            lines: self.lines,
            open: (self.open / connections).max(1) * connections,
            connections,
            spread: false,
        };
        let records = |connection| RequestRecords {
            templates: Arc::clone(&templates),
            order: order.of_connection(connection),
            run: self.run,
            connection,
            sequence: 0,
        };
        (0..connections)
            .map(|connection| Source::new(records(connection), Arc::clone(&framing)))
            .collect()
    }
}

/// The records of one connection of a [`Load`].
#[derive(Debug)]
pub struct RequestRecords {
    /// By line, for `GET` and for `POST`.
    templates: Arc<[[Template; 2]]>,
    order: ConnectionOrder,
    run: u32,
    connection: u64,
    sequence: u64,
}

impl Records for RequestRecords {
    fn write_next(&mut self, out: &mut Vec<u8>) -> bool {
        let Some((trace, line)) = self.order.next() else {
            return false;
        };
        let Some(templates) = self.templates.get(line as usize) else {
            return false;
        };
        // The run stands before the number, so that no two runs share a trace.
        let name = u64::from(self.run) << 40 | trace;
        templates[usize::from(trace.is_multiple_of(3))].write(out, name, self.sequence);
        self.sequence += 1;
        true
    }

    fn chunk_id(&self, number: u64) -> String {
        format!("{:08x}{:06x}{number:010x}", self.run, self.connection)
    }
}

#[cfg(test)]
mod tests;
