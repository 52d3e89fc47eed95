//! Records of a load: what a line says, as MessagePack and as JSON. Knows nothing of messages and
//! chunks.
//!
//! Entry shapes as in the Forward Protocol Specification v1 and Fluent Bit 5.1.1
//! `plugins/out_forward` (v2 entries).

use windrow_bench::load::Mode;
use windrow_bench::load::msgpack::{
    write_array_len, write_event_time, write_f64, write_map_len, write_str, write_uint,
};

use super::shape::{Entries, Load, Time};
use crate::json::to_json;

/// Appends the entry of a line.
pub(super) fn write_entry(out: &mut Vec<u8>, load: &Load, trace: u64, line: u32) {
    write_array_len(out, 2);
    match load.entries {
        // Message mode has no place for metadata in an entry.
        _ if load.mode == Mode::Message => write_time(out, load, trace, line),
        Entries::V1 => write_time(out, load, trace, line),
        Entries::V2 => {
            write_array_len(out, 2);
            write_time(out, load, trace, line);
            // Fluent Bit sends an empty map mostly; some records carry something.
            if trace.is_multiple_of(7) {
                write_map_len(out, 1);
                write_str(out, "origin");
                write_str(out, "load");
            } else {
                write_map_len(out, 0);
            }
        }
    }
    write_record(out, load, trace, line);
}

fn write_time(out: &mut Vec<u8>, load: &Load, trace: u64, line: u32) {
    let (seconds, nanoseconds) = load.event_time(trace, line);
    match load.time {
        Time::EventTime => write_event_time(out, seconds, nanoseconds),
        Time::Integer => write_uint(out, seconds.into()),
        Time::Float => write_f64(out, f64::from(seconds) + f64::from(nanoseconds) / 1e9),
    }
}

/// The fields of a line. `check::fields` states the same once more as JSON.
fn write_record(out: &mut Vec<u8>, load: &Load, trace: u64, line: u32) {
    let last = line + 1 == load.lines;
    write_map_len(out, 8 + u32::from(load.trace_ids) + u32::from(line == 0));
    if load.trace_ids {
        write_str(out, "traceId");
        write_str(out, &load.trace_id(trace));
    }
    write_str(out, "message");
    write_str(out, &load.text(trace, line));
    write_str(out, "method");
    write_str(out, if trace.is_multiple_of(3) { "POST" } else { "GET" });
    write_str(out, "path");
    write_str(out, "/api/v1/orders");
    write_str(out, "status");
    write_uint(out, if last { 200 } else { 102 });
    write_str(out, "latencyMs");
    write_f64(out, latency(line));
    write_str(out, "level");
    write_str(out, "info");
    write_str(out, "service_name");
    write_str(out, "order-service");
    write_str(out, "context");
    write_map_len(out, 2);
    write_str(out, "line");
    rmp::encode::write_sint(out, -i64::from(line)).expect("memory takes it");
    write_str(out, "list");
    write_array_len(out, 2);
    rmp::encode::write_bool(out, last).expect("memory takes it");
    rmp::encode::write_nil(out).expect("memory takes it");
    if line == 0 {
        write_str(out, "opened_by");
        write_str(out, "first line");
    }
}

/// Never a whole number: languages with one type for all numbers would send it as an integer.
fn latency(line: u32) -> f64 {
    f64::from(line) * 1.5 + 0.25
}

/// A line as JSON, with its time in Unix seconds as `_time`: the bytes of [`write_record`],
/// decoded.
pub(super) fn json(load: &Load, trace: u64, line: u32) -> serde_json::Value {
    let mut bytes = Vec::new();
    write_record(&mut bytes, load, trace, line);
    let value = rmpv::decode::read_value(&mut &bytes[..]).expect("it was just written");
    let mut value = to_json(&value);
    let (seconds, nanoseconds) = load.event_time(trace, line);
    value["_time"] = if nanoseconds == 0 {
        seconds.into()
    } else {
        (f64::from(seconds) + f64::from(nanoseconds) / 1e9).into()
    };
    value
}
