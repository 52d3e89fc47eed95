//! MessagePack as the load writes it. Shares no code with Windrow's codec, so that a load can find
//! faults in it.

use rmp::encode;

/// Writing to memory fails only when there is none.
const IN_MEMORY: &str = "memory takes it";

/// Appends a string.
pub fn write_str(out: &mut Vec<u8>, text: &str) {
    encode::write_str(out, text).expect(IN_MEMORY);
}

/// Appends a binary.
pub fn write_bin(out: &mut Vec<u8>, bytes: &[u8]) {
    encode::write_bin(out, bytes).expect(IN_MEMORY);
}

/// Appends an unsigned integer in its shortest form.
pub fn write_uint(out: &mut Vec<u8>, number: u64) {
    encode::write_uint(out, number).expect(IN_MEMORY);
}

/// Appends a 64-bit float.
pub fn write_f64(out: &mut Vec<u8>, number: f64) {
    encode::write_f64(out, number).expect(IN_MEMORY);
}

/// Appends the head of an array of `len` values.
pub fn write_array_len(out: &mut Vec<u8>, len: u32) {
    encode::write_array_len(out, len).expect(IN_MEMORY);
}

/// Appends the head of a map of `len` pairs.
pub fn write_map_len(out: &mut Vec<u8>, len: u32) {
    encode::write_map_len(out, len).expect(IN_MEMORY);
}

/// Appends an EventTime: fixext8 of type 0 with Unix seconds and nanoseconds, big-endian (Forward
/// Protocol Specification v1, "EventTime Ext Format").
pub fn write_event_time(out: &mut Vec<u8>, unix_seconds: u32, nanoseconds: u32) {
    out.extend_from_slice(&[0xd7, 0x00]);
    out.extend_from_slice(&unix_seconds.to_be_bytes());
    out.extend_from_slice(&nanoseconds.to_be_bytes());
}
