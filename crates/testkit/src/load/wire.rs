//! The bytes of a load: MessagePack and gzip written here, apart from any code that reads them in the server.
//!
//! Shapes as in the Forward Protocol Specification v1 and Fluent Bit 5.1.1 `plugins/out_forward` (v2 entries).

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use rmp::encode as enc;

use super::{Entries, Ids, Load, Mode, Time};

/// One message as it goes over the wire, time and again the same bytes.
#[derive(Debug, Clone)]
pub struct Chunk {
    /// The complete message; without acks in message mode several messages.
    pub bytes: Vec<u8>,
    /// The chunk id; `None` when no ack is asked for.
    pub id: Option<String>,
    /// The records in it: trace and line.
    pub records: Vec<(u64, u32)>,
}

/// All chunks of one connection, in order.
pub(super) fn chunks(load: &Load, connection: u64) -> Vec<Chunk> {
    let per_chunk = if load.mode == Mode::Message && load.acks {
        1
    } else {
        load.chunk_records
    };
    let mut chunks = Vec::new();
    let mut waiting = Vec::with_capacity(per_chunk);
    let mut flush = |waiting: &mut Vec<(u64, u32)>| {
        if !waiting.is_empty() {
            let id = load.acks.then(|| chunk_id(load, connection, chunks.len() as u64));
            chunks.push(frame(load, id, std::mem::take(waiting)));
        }
    };
    let share = load.connections.max(1);
    let open = load.open.max(1);
    let mut first = 0;
    while first < load.traces {
        let end = (first + open).min(load.traces);
        for line in 0..load.lines {
            for trace in first..end {
                let owner = if load.spread {
                    trace + u64::from(line)
                } else {
                    trace
                };
                if owner % share == connection {
                    waiting.push((trace, line));
                    if waiting.len() == per_chunk {
                        flush(&mut waiting);
                    }
                }
            }
        }
        first = end;
    }
    flush(&mut waiting);
    chunks
}

fn chunk_id(load: &Load, connection: u64, number: u64) -> String {
    match load.ids {
        Ids::Unique => format!("{}{connection:08x}{number:08x}==", load.prefix),
        Ids::Counting => (number + 1).to_string(),
    }
}

fn frame(load: &Load, id: Option<String>, records: Vec<(u64, u32)>) -> Chunk {
    let mut out = Vec::new();
    match load.mode {
        Mode::Message => {
            for &(trace, line) in &records {
                array(&mut out, 4);
                string(&mut out, &load.tag);
                time(&mut out, load, trace, line);
                record(&mut out, load, trace, line);
                options(&mut out, id.as_deref(), None, false);
            }
        }
        Mode::Forward => {
            array(&mut out, 3);
            string(&mut out, &load.tag);
            array(&mut out, records.len());
            for &(trace, line) in &records {
                entry(&mut out, load, trace, line);
            }
            options(&mut out, id.as_deref(), Some(records.len()), false);
        }
        Mode::Packed | Mode::Gzip | Mode::GzipMembers => {
            array(&mut out, 3);
            string(&mut out, &load.tag);
            let mut body = Vec::new();
            let mut middle = 0;
            for (index, &(trace, line)) in records.iter().enumerate() {
                if index == records.len() / 2 {
                    middle = body.len();
                }
                entry(&mut body, load, trace, line);
            }
            let body = match load.mode {
                Mode::Gzip => gzip(&body),
                Mode::GzipMembers => [gzip(&body[..middle]), gzip(&body[middle..])].concat(),
                _ => body,
            };
            enc::write_bin(&mut out, &body).expect("memory takes it");
            options(
                &mut out,
                id.as_deref(),
                Some(records.len()),
                load.mode != Mode::Packed,
            );
        }
    }
    Chunk {
        bytes: out,
        id,
        records,
    }
}

fn options(out: &mut Vec<u8>, id: Option<&str>, size: Option<usize>, gzip: bool) {
    map(
        out,
        usize::from(id.is_some()) + usize::from(size.is_some()) + usize::from(gzip),
    );
    if let Some(size) = size {
        string(out, "size");
        enc::write_uint(out, size as u64).expect("memory takes it");
    }
    if let Some(id) = id {
        string(out, "chunk");
        string(out, id);
    }
    if gzip {
        string(out, "compressed");
        string(out, "gzip");
    }
}

fn entry(out: &mut Vec<u8>, load: &Load, trace: u64, line: u32) {
    array(out, 2);
    match load.entries {
        Entries::V1 => time(out, load, trace, line),
        Entries::V2 => {
            array(out, 2);
            time(out, load, trace, line);
            // Fluent Bit sends an empty map mostly; some records carry something.
            if trace.is_multiple_of(7) {
                map(out, 1);
                string(out, "origin");
                string(out, "load");
            } else {
                map(out, 0);
            }
        }
    }
    record(out, load, trace, line);
}

/// Seconds and nanoseconds of the `sequence`-th record.
pub(super) fn when(load: &Load, sequence: u64) -> (u32, u32) {
    let per = u64::from(load.per_second.clamp(1, 1_000_000));
    let seconds = u32::try_from(sequence / per).expect("a load lasts less than 136 years");
    let nanos = u32::try_from(sequence % per * (1_000_000_000 / per)).expect("less than a second");
    (load.start + seconds, nanos)
}

fn time(out: &mut Vec<u8>, load: &Load, trace: u64, line: u32) {
    let (seconds, nanos) = when(load, load.sequence(trace, line));
    match load.time {
        Time::EventTime => event_time(out, seconds, nanos),
        Time::Integer => {
            enc::write_uint(out, seconds.into()).expect("memory takes it");
        }
        Time::Float => {
            enc::write_f64(out, f64::from(seconds) + f64::from(nanos) / 1e9).expect("memory takes it");
        }
    }
}

/// Writes an EventTime: fixext8 of type 0, seconds and nanoseconds, big-endian.
pub fn event_time(out: &mut Vec<u8>, seconds: u32, nanos: u32) {
    out.extend_from_slice(&[0xd7, 0x00]);
    out.extend_from_slice(&seconds.to_be_bytes());
    out.extend_from_slice(&nanos.to_be_bytes());
}

/// The fields of a line. `check::fields` states the same once more as JSON.
fn record(out: &mut Vec<u8>, load: &Load, trace: u64, line: u32) {
    let last = line + 1 == load.lines;
    map(out, 8 + usize::from(load.trace_ids) + usize::from(line == 0));
    if load.trace_ids {
        string(out, "traceId");
        string(out, &load.trace_id(trace));
    }
    string(out, "message");
    string(out, &load.text(trace, line));
    string(out, "method");
    string(out, if trace.is_multiple_of(3) { "POST" } else { "GET" });
    string(out, "path");
    string(out, "/api/v1/orders");
    string(out, "status");
    enc::write_uint(out, if last { 200 } else { 102 }).expect("memory takes it");
    string(out, "latencyMs");
    enc::write_f64(out, latency(line)).expect("memory takes it");
    string(out, "level");
    string(out, "info");
    string(out, "service_name");
    string(out, "order-service");
    string(out, "context");
    map(out, 2);
    string(out, "line");
    enc::write_sint(out, -i64::from(line)).expect("memory takes it");
    string(out, "list");
    array(out, 2);
    enc::write_bool(out, last).expect("memory takes it");
    enc::write_nil(out).expect("memory takes it");
    if line == 0 {
        string(out, "opened_by");
        string(out, "first line");
    }
}

/// Never a whole number: languages with one type for all numbers would send it as an integer.
fn latency(line: u32) -> f64 {
    f64::from(line) * 1.5 + 0.25
}

/// A line as JSON, with its time in Unix seconds as `_time`: the bytes of [`record`], read by another hand.
pub(super) fn json(load: &Load, trace: u64, line: u32) -> serde_json::Value {
    let mut bytes = Vec::new();
    record(&mut bytes, load, trace, line);
    let value = rmpv::decode::read_value(&mut &bytes[..]).expect("it was just written");
    let mut value = crate::client::json(&value);
    let (seconds, nanos) = when(load, load.sequence(trace, line));
    value["_time"] = if nanos == 0 {
        seconds.into()
    } else {
        (f64::from(seconds) + f64::from(nanos) / 1e9).into()
    };
    value
}

/// The number of a trace from its id, when it is one of the load's.
pub fn trace_number(load: &Load, id: &str) -> Option<u64> {
    u64::from_str_radix(id.strip_prefix(&load.prefix)?, 16).ok()
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).expect("memory takes it");
    encoder.finish().expect("memory takes it")
}

fn string(out: &mut Vec<u8>, text: &str) {
    enc::write_str(out, text).expect("memory takes it");
}

fn array(out: &mut Vec<u8>, len: usize) {
    enc::write_array_len(out, u32::try_from(len).expect("short")).expect("memory takes it");
}

fn map(out: &mut Vec<u8>, len: usize) {
    enc::write_map_len(out, u32::try_from(len).expect("short")).expect("memory takes it");
}
