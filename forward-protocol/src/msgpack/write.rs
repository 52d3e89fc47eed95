//! Writers: append values in their shortest form to any [`BufMut`].

use bytes::BufMut;

/// Writes `nil`.
pub fn write_nil(out: &mut impl BufMut) {
    out.put_u8(0xc0);
}

/// Writes a boolean.
pub fn write_bool(out: &mut impl BufMut, value: bool) {
    out.put_u8(if value { 0xc3 } else { 0xc2 });
}

/// Writes an unsigned integer.
pub fn write_u64(out: &mut impl BufMut, value: u64) {
    if value < 0x80 {
        out.put_u8(value as u8);
    } else if let Ok(n) = u8::try_from(value) {
        out.put_u8(0xcc);
        out.put_u8(n);
    } else if let Ok(n) = u16::try_from(value) {
        out.put_u8(0xcd);
        out.put_u16(n);
    } else if let Ok(n) = u32::try_from(value) {
        out.put_u8(0xce);
        out.put_u32(n);
    } else {
        out.put_u8(0xcf);
        out.put_u64(value);
    }
}

/// Writes a signed integer; from 0 on in the unsigned forms.
pub fn write_i64(out: &mut impl BufMut, value: i64) {
    if let Ok(n) = u64::try_from(value) {
        write_u64(out, n);
    } else if value >= -32 {
        out.put_i8(value as i8);
    } else if let Ok(n) = i8::try_from(value) {
        out.put_u8(0xd0);
        out.put_i8(n);
    } else if let Ok(n) = i16::try_from(value) {
        out.put_u8(0xd1);
        out.put_i16(n);
    } else if let Ok(n) = i32::try_from(value) {
        out.put_u8(0xd2);
        out.put_i32(n);
    } else {
        out.put_u8(0xd3);
        out.put_i64(value);
    }
}

/// Writes a 32-bit float.
pub fn write_f32(out: &mut impl BufMut, value: f32) {
    out.put_u8(0xca);
    out.put_f32(value);
}

/// Writes a 64-bit float.
pub fn write_f64(out: &mut impl BufMut, value: f64) {
    out.put_u8(0xcb);
    out.put_f64(value);
}

/// Writes a string. Bytes that are not UTF-8 are allowed: the peers treat `str` as bytes.
///
/// # Panics
/// When `value` is 4 GiB or longer, which MessagePack cannot represent.
pub fn write_str(out: &mut impl BufMut, value: &[u8]) {
    match value.len() {
        n @ 0..=31 => out.put_u8(0xa0 | n as u8),
        n => write_len_header(out, n, [0xd9, 0xda, 0xdb]),
    }
    out.put_slice(value);
}

/// Writes a binary.
///
/// # Panics
/// When `value` is 4 GiB or longer, which MessagePack cannot represent.
pub fn write_bin(out: &mut impl BufMut, value: &[u8]) {
    write_len_header(out, value.len(), [0xc4, 0xc5, 0xc6]);
    out.put_slice(value);
}

/// Writes an array header; `len` values must follow.
pub fn write_array_len(out: &mut impl BufMut, len: u32) {
    if len < 16 {
        out.put_u8(0x90 | len as u8);
    } else {
        write_count_header(out, len, [0xdc, 0xdd]);
    }
}

/// Writes a map header; `len` pairs must follow.
pub fn write_map_len(out: &mut impl BufMut, len: u32) {
    if len < 16 {
        out.put_u8(0x80 | len as u8);
    } else {
        write_count_header(out, len, [0xde, 0xdf]);
    }
}

/// Writes an extension value.
///
/// # Panics
/// When `data` is 4 GiB or longer, which MessagePack cannot represent.
pub fn write_ext(out: &mut impl BufMut, kind: i8, data: &[u8]) {
    match data.len() {
        1 => out.put_u8(0xd4),
        2 => out.put_u8(0xd5),
        4 => out.put_u8(0xd6),
        8 => out.put_u8(0xd7),
        16 => out.put_u8(0xd8),
        n => write_len_header(out, n, [0xc7, 0xc8, 0xc9]),
    }
    out.put_i8(kind);
    out.put_slice(data);
}

/// Writes an EventTime as fixext8 of type 0 (Forward Protocol Specification v1): unsigned seconds
/// since 1970 and nanoseconds below 1 000 000 000.
pub fn write_event_time(out: &mut impl BufMut, seconds: u32, nanoseconds: u32) {
    let mut bytes = [0u8; 10];
    bytes[0] = 0xd7;
    bytes[2..6].copy_from_slice(&seconds.to_be_bytes());
    bytes[6..].copy_from_slice(&nanoseconds.to_be_bytes());
    out.put_slice(&bytes);
}

/// The header of a value with a length in bytes; `tags` are those for 8, 16 and 32 bits.
fn write_len_header(out: &mut impl BufMut, len: usize, tags: [u8; 3]) {
    if let Ok(n) = u8::try_from(len) {
        out.put_u8(tags[0]);
        out.put_u8(n);
    } else if let Ok(n) = u16::try_from(len) {
        out.put_u8(tags[1]);
        out.put_u16(n);
    } else {
        let Ok(n) = u32::try_from(len) else {
            panic!("{len} bytes do not fit in one MessagePack value")
        };
        out.put_u8(tags[2]);
        out.put_u32(n);
    }
}

/// The header of a container; `tags` are those for 16 and 32 bits.
fn write_count_header(out: &mut impl BufMut, len: u32, tags: [u8; 2]) {
    if let Ok(n) = u16::try_from(len) {
        out.put_u8(tags[0]);
        out.put_u16(n);
    } else {
        out.put_u8(tags[1]);
        out.put_u32(len);
    }
}
