//! What is sent: Forward chunks with records of eight fields, as an application behind Fluent Bit writes them.
//!
//! Owns the records, their order (traces interleaved, the lines of a trace in order) and the framing of each mode. Most
//! of a chunk is copied from templates, so that making one costs little beside sending it. Sends nothing.

use std::sync::Arc;

use forward_protocol::encode::{
    ChunkId, EntryStream, compress, write_compressed, write_entry, write_forward, write_message, write_packed,
};
use forward_protocol::entries::Compression;
use forward_protocol::msgpack::{write_f64, write_map_len, write_str, write_u64};

const TAG: &[u8] = b"app.bench";

/// Event time of the first record, Unix seconds; in the middle of a day, since documents at midnight cost more.
const START: u32 = 1_790_000_000;

/// Records of one connection that share a second.
const RECORDS_A_SECOND: u64 = 100_000;

/// Hexadecimal digits of a trace id that differ.
const DIGITS: usize = 16;

/// Bytes of chunks that are made before the clock runs.
const AHEAD: usize = 256 << 20;

/// How records are carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// PackedForward.
    Packed,
    /// CompressedPackedForward, gzip.
    Gzip,
    /// Forward.
    Forward,
    /// Message: each record is a message.
    Message,
}

/// A load.
#[derive(Clone, Debug)]
pub struct Load {
    /// How records are carried.
    pub mode: Mode,
    /// Whether the client asks for acknowledgements. In Message mode each record has one of its own then.
    pub acks: bool,
    /// Records in all; rounded down to whole traces, but at least one.
    pub records: u64,
    /// Records of one trace; the last one completes it.
    pub lines: u32,
    /// Whether the records have a trace id.
    pub traced: bool,
    /// Traces open at the same time, over all connections.
    pub open: u64,
    /// Connections; a trace stays on one of them.
    pub connections: u32,
    /// Chunks in flight on a connection before its acknowledgements are awaited.
    pub window: usize,
    /// Records of a chunk.
    pub chunk_records: u32,
    /// Bytes added to each record's message.
    pub filler: usize,
    /// Makes the chunks of one load differ from those of another.
    pub run: u32,
}

impl Default for Load {
    /// 500,000 records of about 250 bytes, 5 lines a trace, 700 traces open, packed, acknowledged, 2 connections.
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

    /// Bytes of one record with its time, as it stands in a packed chunk: those of a trace's first line.
    pub fn record_bytes(&self) -> usize {
        Template::new(self, 0, false).bytes.len()
    }

    /// The sources of all connections, with as many chunks made ahead as there is room for.
    ///
    /// # Errors
    /// When the records cannot be compressed.
    pub fn prepare(&self) -> std::io::Result<Vec<Source>> {
        let load = Arc::new(self.clone());
        let templates: Arc<[_]> = (0..self.lines.max(1))
            .map(|line| [false, true].map(|post| Template::new(self, line, post)))
            .collect();
        let mut sources: Vec<_> = (0..self.connections.max(1))
            .map(|connection| Source::new(&load, &templates, connection))
            .collect();
        let room = AHEAD / sources.len();
        for source in &mut sources {
            source.make_ahead(room)?;
        }
        Ok(sources)
    }
}

/// A record with its time, ready but for the time and the number of its trace.
#[derive(Debug)]
struct Template {
    bytes: Vec<u8>,
    /// Where the digits are.
    trace: Option<usize>,
}

impl Template {
    /// The array's head and the head of the EventTime.
    const TIME: usize = 3;

    fn new(load: &Load, line: u32, post: bool) -> Self {
        let last = line + 1 >= load.lines;
        let filler: String = ('a'..='z').cycle().take(load.filler).collect();
        let message = if last {
            format!("request completed {line} {filler}")
        } else {
            format!("handler step {line} \"quoted\" {filler}")
        };
        let mut record = Vec::new();
        write_map_len(&mut record, if load.traced { 8 } else { 7 });
        let mut trace = None;
        if load.traced {
            write_str(&mut record, b"traceId");
            write_str(&mut record, format!("t{:031x}", 0).as_bytes());
            trace = Some(record.len() - DIGITS);
        }
        let text = |record: &mut Vec<u8>, name: &[u8], value: &[u8]| {
            write_str(record, name);
            write_str(record, value);
        };
        text(&mut record, b"message", message.as_bytes());
        text(&mut record, b"method", if post { b"POST" } else { b"GET" });
        text(&mut record, b"path", b"/api/v1/orders");
        write_str(&mut record, b"status");
        write_u64(&mut record, if last { 200 } else { 0 });
        write_str(&mut record, b"latencyMs");
        write_f64(&mut record, f64::from(line) * 1.5);
        text(&mut record, b"level", b"info");
        text(&mut record, b"service_name", b"order-service");
        let mut bytes = Vec::new();
        write_entry(&mut bytes, i64::from(START) * 1_000_000_000, None, &record);
        let before = bytes.len() - record.len();
        Self {
            bytes,
            trace: trace.map(|at| before + at),
        }
    }

    /// Appends the entry of trace `trace`, the `seq`-th of its connection.
    fn write(&self, out: &mut Vec<u8>, trace: u64, seq: u64) {
        let from = out.len();
        out.extend_from_slice(&self.bytes);
        let Some(entry) = out.get_mut(from..) else { return };
        let seconds = START.wrapping_add((seq / RECORDS_A_SECOND) as u32);
        let nanoseconds = (seq % RECORDS_A_SECOND * 10_000) as u32;
        let time = (u64::from(seconds) << 32 | u64::from(nanoseconds)).to_be_bytes();
        put(entry, Self::TIME, &time);
        if let Some(at) = self.trace {
            let digit =
                |place: usize| b"0123456789abcdef"[(trace >> (4 * (DIGITS - 1 - place)) & 15) as usize];
            let digits: [u8; DIGITS] = std::array::from_fn(digit);
            put(entry, at, &digits);
        }
    }
}

fn put(entry: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = entry.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

/// What is written to a socket at once.
#[derive(Debug)]
pub struct Chunk {
    /// One message; several in Message mode without acknowledgements.
    pub bytes: Vec<u8>,
    /// What the acknowledgement must say, if one is asked for.
    pub id: Option<ChunkId>,
}

/// The chunks of one connection.
#[derive(Debug)]
pub struct Source {
    load: Arc<Load>,
    templates: Arc<[[Template; 2]]>,
    connection: u64,
    /// Traces of this connection, and of them those of the group that is open now.
    traces: u64,
    group: std::ops::Range<u64>,
    line: u32,
    /// The next trace of the group.
    next: u64,
    seq: u64,
    number: u64,
    entries: Vec<u8>,
    ahead: std::collections::VecDeque<Chunk>,
}

impl Source {
    fn new(load: &Arc<Load>, templates: &Arc<[[Template; 2]]>, connection: u32) -> Self {
        let connections = u64::from(load.connections.max(1));
        let connection = u64::from(connection);
        let traces = (load.traces() + connections - 1 - connection) / connections;
        let mut source = Self {
            load: Arc::clone(load),
            templates: Arc::clone(templates),
            connection,
            traces,
            group: 0..0,
            line: 0,
            next: 0,
            seq: 0,
            number: 0,
            entries: Vec::new(),
            ahead: std::collections::VecDeque::new(),
        };
        source.open_group(0);
        source
    }

    /// Chunks in flight before acknowledgements are awaited.
    pub fn window(&self) -> usize {
        self.load.window.max(1)
    }

    /// The next chunk; `None` at the end.
    ///
    /// # Errors
    /// When the records cannot be compressed.
    pub fn next_chunk(&mut self) -> std::io::Result<Option<Chunk>> {
        match self.ahead.pop_front() {
            Some(chunk) => Ok(Some(chunk)),
            None => self.make(),
        }
    }

    /// Compressing takes longer than sending, so all of that is made ahead; it is small.
    fn make_ahead(&mut self, room: usize) -> std::io::Result<()> {
        let mut bytes = 0;
        while (bytes < room || self.load.mode == Mode::Gzip)
            && let Some(chunk) = self.make()?
        {
            bytes += chunk.bytes.len();
            self.ahead.push_back(chunk);
        }
        Ok(())
    }

    fn open_group(&mut self, from: u64) {
        let open = (self.load.open / u64::from(self.load.connections.max(1))).max(1);
        self.group = from..self.traces.min(from + open);
        self.next = self.group.start;
        self.line = 0;
    }

    /// Appends the next record to the entries. Gives whether there was one.
    fn record(&mut self) -> bool {
        if self.next == self.group.end {
            if self.line + 1 < self.load.lines {
                self.line += 1;
                self.next = self.group.start;
            } else {
                self.open_group(self.group.end);
            }
            if self.next == self.group.end {
                return false;
            }
        }
        let trace = self.next * u64::from(self.load.connections.max(1)) + self.connection;
        let Some(templates) = self.templates.get(self.line as usize) else {
            return false;
        };
        // The run stands before the number, so that no two runs share a trace.
        let name = u64::from(self.load.run) << 40 | trace;
        templates[usize::from(trace.is_multiple_of(3))].write(&mut self.entries, name, self.seq);
        self.next += 1;
        self.seq += 1;
        true
    }

    fn make(&mut self) -> std::io::Result<Option<Chunk>> {
        let alone = self.load.mode == Mode::Message;
        let most = if alone && self.load.acks {
            1
        } else {
            self.load.chunk_records.max(1)
        };
        let mut bytes = Vec::new();
        let mut count = 0;
        let id = self.load.acks.then(|| {
            let text = format!("{:08x}{:06x}{:010x}", self.load.run, self.connection, self.number);
            ChunkId::from_text(&text)
        });
        let id = id.flatten();
        self.entries.clear();
        while count < most && self.record() {
            count += 1;
            if alone {
                let (time, record) = split(&self.entries);
                write_message(&mut bytes, TAG, time, record, None, id.as_ref());
                self.entries.clear();
            }
        }
        if count == 0 {
            return Ok(None);
        }
        self.number += 1;
        let stream = EntryStream {
            bytes: &self.entries,
            count,
        };
        match self.load.mode {
            Mode::Message => {}
            Mode::Forward => write_forward(&mut bytes, TAG, stream, id.as_ref()),
            Mode::Packed => write_packed(&mut bytes, TAG, stream, id.as_ref()),
            Mode::Gzip => {
                let small = compress(Compression::Gzip, &self.entries, 1)?;
                write_compressed(&mut bytes, TAG, Compression::Gzip, &small, count, id.as_ref());
            }
        }
        bytes.shrink_to_fit();
        Ok(Some(Chunk { bytes, id }))
    }
}

/// Time and record of an entry that a template wrote.
fn split(entry: &[u8]) -> (i64, &[u8]) {
    let (time, record) = entry
        .get(Template::TIME..)
        .and_then(<[u8]>::split_first_chunk::<8>)
        .unwrap_or((&[0; 8], &[]));
    let time = u64::from_be_bytes(*time);
    let unix_ns = (time >> 32) * 1_000_000_000 + (time & u64::from(u32::MAX));
    (unix_ns as i64, record)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use forward_protocol::entries::{Entries, decompress};
    use forward_protocol::frame::{Limits, Payload, messages};

    use super::*;

    /// Lines by trace, in the order in which they were sent, and the chunk ids.
    fn read(load: &Load) -> (BTreeMap<String, Vec<String>>, Vec<String>) {
        let (mut traces, mut ids) = (BTreeMap::<_, Vec<_>>::new(), Vec::new());
        for mut source in load.prepare().unwrap() {
            while let Some(chunk) = source.next_chunk().unwrap() {
                for message in messages(&chunk.bytes, Limits::default()) {
                    let message = message.unwrap();
                    assert_eq!(message.tag, TAG);
                    assert_eq!(message.options.chunk.is_some(), load.acks);
                    ids.extend(chunk.id.map(|id| id.to_string()));
                    let body;
                    let entries = match message.payload(100) {
                        Payload::Entries(entries) => entries,
                        Payload::Compressed { compression, bytes } => {
                            body = decompress(compression, bytes, 1 << 30).unwrap();
                            Entries::new(&body.bytes, 100)
                        }
                        Payload::Opaque(_) => panic!("not a log"),
                    };
                    for entry in entries {
                        let value: serde_json::Value = rmp_serde::from_slice(entry.unwrap().record).unwrap();
                        let trace = value["traceId"].as_str().unwrap_or_default().to_owned();
                        traces
                            .entry(trace)
                            .or_default()
                            .push(value["message"].as_str().unwrap().to_owned());
                    }
                }
            }
        }
        (traces, ids)
    }

    fn load(mode: Mode, acks: bool) -> Load {
        Load {
            mode,
            acks,
            records: 1007,
            lines: 3,
            open: 7,
            connections: 2,
            chunk_records: 50,
            run: 5,
            ..Load::default()
        }
    }

    #[test]
    fn every_mode_carries_each_line_of_each_trace_once_and_in_order() {
        for mode in [Mode::Packed, Mode::Gzip, Mode::Forward, Mode::Message] {
            for acks in [true, false] {
                let load = load(mode, acks);
                let (traces, mut ids) = read(&load);
                assert_eq!(traces.len() as u64, load.documents(), "{mode:?}");
                assert_eq!(traces.len(), 1007 / 3);
                for lines in traces.values() {
                    assert_eq!(lines.len(), 3);
                    assert!(lines[0].starts_with("handler step 0 "));
                    assert!(lines[1].starts_with("handler step 1 "));
                    assert!(lines[2].starts_with("request completed 2 "));
                }
                assert_eq!(ids.is_empty(), !acks);
                let all = ids.len();
                ids.sort_unstable();
                ids.dedup();
                assert_eq!(ids.len(), all, "no chunk id comes twice");
                assert!(mode != Mode::Message || !acks || all as u64 == load.total());
            }
        }
    }

    #[test]
    fn what_is_made_late_is_what_is_made_ahead() {
        let load = load(Mode::Packed, true);
        let all = |ahead: usize| {
            let templates = Arc::clone(&load.prepare().unwrap()[1].templates);
            let mut again = Source::new(&Arc::new(load.clone()), &templates, 1);
            again.make_ahead(ahead).unwrap();
            let mut bytes = Vec::new();
            while let Some(chunk) = again.next_chunk().unwrap() {
                bytes.extend(chunk.bytes);
            }
            bytes
        };
        assert_eq!(all(0), all(usize::MAX));
        assert!(!all(0).is_empty());
    }

    #[test]
    fn records_without_a_trace_are_documents_of_their_own() {
        let load = Load {
            traced: false,
            ..load(Mode::Packed, true)
        };
        let (traces, _) = read(&load);
        assert_eq!(traces.len(), 1);
        assert_eq!(traces[""].len() as u64, load.documents());
        assert!((230..280).contains(&Load::default().record_bytes()));
    }
}
