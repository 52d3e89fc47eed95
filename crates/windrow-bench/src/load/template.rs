//! Records of eight fields as an application behind Fluent Bit writes them, encoded once. Making a
//! record copies its template and sets the time and the digits of the trace id, so that it costs
//! little beside sending it.

use super::Load;
use super::msgpack::{write_array_len, write_event_time, write_f64, write_map_len, write_str, write_uint};

/// Event time of the first record, Unix seconds; in the middle of a day, since documents at
/// midnight cost more.
const START_UNIX_SECONDS: u32 = 1_790_000_000;

/// Records of one connection that share a second.
const RECORDS_PER_SECOND: u64 = 100_000;

/// Hexadecimal digits of a trace id that differ.
const DIGITS: usize = 16;

/// Where seconds and nanoseconds stand: behind the head of the entry and the head of the EventTime.
const TIME_OFFSET: usize = 3;

/// The entry of one line, ready but for its time and the number of its trace.
#[derive(Debug)]
pub(super) struct Template {
    bytes: Vec<u8>,
    /// Where the digits of the trace id are.
    digits: Option<usize>,
}

impl Template {
    pub(super) fn new(load: &Load, line: u32, post: bool) -> Self {
        let last = line + 1 >= load.lines;
        let filler: String = ('a'..='z').cycle().take(load.filler).collect();
        let message = if last {
            format!("request completed {line} {filler}")
        } else {
            format!("handler step {line} \"quoted\" {filler}")
        };
        let mut bytes = Vec::new();
        write_array_len(&mut bytes, 2);
        write_event_time(&mut bytes, START_UNIX_SECONDS, 0);
        write_map_len(&mut bytes, if load.traced { 8 } else { 7 });
        let mut digits = None;
        if load.traced {
            write_str(&mut bytes, "traceId");
            write_str(&mut bytes, &format!("t{:031x}", 0));
            digits = Some(bytes.len() - DIGITS);
        }
        let text = |bytes: &mut Vec<u8>, name, value| {
            write_str(bytes, name);
            write_str(bytes, value);
        };
        text(&mut bytes, "message", &message);
        text(&mut bytes, "method", if post { "POST" } else { "GET" });
        text(&mut bytes, "path", "/api/v1/orders");
        write_str(&mut bytes, "status");
        write_uint(&mut bytes, if last { 200 } else { 0 });
        write_str(&mut bytes, "latencyMs");
        write_f64(&mut bytes, f64::from(line) * 1.5);
        text(&mut bytes, "level", "info");
        text(&mut bytes, "service_name", "order-service");
        Self { bytes, digits }
    }

    /// Bytes of the entry.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Appends the entry of trace `trace`, the `sequence`-th of its connection.
    pub(super) fn write(&self, out: &mut Vec<u8>, trace: u64, sequence: u64) {
        let from = out.len();
        out.extend_from_slice(&self.bytes);
        let Some(entry) = out.get_mut(from..) else { return };
        let seconds = START_UNIX_SECONDS.wrapping_add((sequence / RECORDS_PER_SECOND) as u32);
        let nanoseconds = (sequence % RECORDS_PER_SECOND * (1_000_000_000 / RECORDS_PER_SECOND)) as u32;
        let time = (u64::from(seconds) << 32 | u64::from(nanoseconds)).to_be_bytes();
        put(entry, TIME_OFFSET, &time);
        if let Some(at) = self.digits {
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
