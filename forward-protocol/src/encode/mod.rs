//! Client side: writes messages of every carrier mode.
//!
//! Records and metadata are given as raw MessagePack maps (see [`crate::msgpack`] for writing
//! them), so a record is encoded once, when it is logged, and only copied here. An option map is
//! written only when needed: for an ack, a compressed payload, or the metadata of a single event.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::BufMut;

use crate::entries::Compression;
use crate::msgpack::{
    write_array_len, write_bin, write_event_time, write_i64, write_map_len, write_str, write_u64,
};

#[cfg(test)]
mod tests;

/// The id of a chunk that is to be acknowledged: Base64 of 16 random bytes, 24 characters, as the
/// specification demands, or a text of the caller's. A retry must use the same id: servers
/// deduplicate by it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChunkId {
    /// The text, padded with zeros.
    text: [u8; Self::MAX_LEN],
    len: u8,
}

impl ChunkId {
    /// The longest caller-given id in bytes: enough for the hexadecimal digits of a 256-bit hash.
    pub const MAX_LEN: usize = 64;

    /// The id for 16 random bytes.
    pub fn from_random(random: [u8; 16]) -> Self {
        let mut text = [0; Self::MAX_LEN];
        // 16 bytes always fill 24 characters exactly.
        let written = STANDARD.encode_slice(random, &mut text);
        debug_assert_eq!(written.ok(), Some(24));
        Self { text, len: 24 }
    }

    /// A caller-given id. `None` if it is empty or longer than [`MAX_LEN`](Self::MAX_LEN).
    pub fn from_text(own: &str) -> Option<Self> {
        let len = u8::try_from(own.len()).ok().filter(|len| *len > 0)?;
        let mut text = [0; Self::MAX_LEN];
        text.get_mut(..own.len())?.copy_from_slice(own.as_bytes());
        Some(Self { text, len })
    }

    /// The characters of the id.
    pub fn as_bytes(&self) -> &[u8] {
        self.text.get(..usize::from(self.len)).unwrap_or_default()
    }
}

impl std::fmt::Display for ChunkId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(std::str::from_utf8(self.as_bytes()).unwrap_or_default())
    }
}

impl std::fmt::Debug for ChunkId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ChunkId({self})")
    }
}

/// Writes an event time given in nanoseconds since 1970: an EventTime where it can represent the
/// time, else whole seconds as an integer. An EventTime covers 1970 to 2106; its last two seconds
/// are Fluent Bit's group markers. No value wraps around.
pub fn write_time(out: &mut impl BufMut, unix_ns: i64) {
    let seconds = unix_ns.div_euclid(1_000_000_000);
    match u32::try_from(seconds) {
        Ok(s) if s < 0xffff_fffe => {
            write_event_time(out, s, unix_ns.rem_euclid(1_000_000_000) as u32);
        }
        _ => write_i64(out, seconds),
    }
}

/// Writes one entry of a Forward or PackedForward message: `[time, record]`, or
/// `[[time, metadata], record]` when there is metadata, which Fluentd up to 1.19 does not
/// understand.
pub fn write_entry(out: &mut impl BufMut, unix_ns: i64, metadata: Option<&[u8]>, record: &[u8]) {
    write_array_len(out, 2);
    if let Some(metadata) = metadata {
        write_array_len(out, 2);
        write_time(out, unix_ns);
        out.put_slice(metadata);
    } else {
        write_time(out, unix_ns);
    }
    out.put_slice(record);
}

/// Writes a message in Message mode: one event.
pub fn write_message(
    out: &mut impl BufMut,
    tag: &[u8],
    unix_ns: i64,
    record: &[u8],
    metadata: Option<&[u8]>,
    chunk: Option<&ChunkId>,
) {
    let pairs = u32::from(chunk.is_some()) + u32::from(metadata.is_some());
    write_array_len(out, if pairs > 0 { 4 } else { 3 });
    write_str(out, tag);
    write_time(out, unix_ns);
    out.put_slice(record);
    if pairs > 0 {
        write_map_len(out, pairs);
        write_chunk(out, chunk);
        if let Some(metadata) = metadata {
            write_str(out, b"metadata");
            out.put_slice(metadata);
        }
    }
}

/// Consecutive entries written with [`write_entry`].
#[derive(Clone, Copy, Debug)]
pub struct EntryStream<'a> {
    /// The entries.
    pub bytes: &'a [u8],
    /// How many there are.
    pub count: u32,
}

/// Writes a message in Forward mode.
pub fn write_forward(out: &mut impl BufMut, tag: &[u8], entries: EntryStream<'_>, chunk: Option<&ChunkId>) {
    write_array_len(out, if chunk.is_some() { 3 } else { 2 });
    write_str(out, tag);
    write_array_len(out, entries.count);
    out.put_slice(entries.bytes);
    write_options(out, entries.count, None, chunk);
}

/// Writes a message in PackedForward mode, not compressed. The cheapest mode for a server to
/// receive.
pub fn write_packed(out: &mut impl BufMut, tag: &[u8], entries: EntryStream<'_>, chunk: Option<&ChunkId>) {
    write_array_len(out, if chunk.is_some() { 3 } else { 2 });
    write_str(out, tag);
    write_bin(out, entries.bytes);
    write_options(out, entries.count, None, chunk);
}

/// Writes a message in CompressedPackedForward mode. `compressed` is the output of [`compress`],
/// `count` the number of entries. Every server reads gzip; zstd is for Fluentd from 1.19, Fluent
/// Bit from 4.1, and Windrow.
pub fn write_compressed(
    out: &mut impl BufMut,
    tag: &[u8],
    compression: Compression,
    compressed: &[u8],
    count: u32,
    chunk: Option<&ChunkId>,
) {
    write_array_len(out, 3);
    write_str(out, tag);
    write_bin(out, compressed);
    write_options(out, count, Some(compression), chunk);
}

/// Compresses entries. `level` is 0 to 9 for gzip and 1 to 22 for zstd; other values are clamped.
///
/// # Errors
/// [`std::io::ErrorKind::Unsupported`] when the feature of the format is off. Compressing itself
/// does not fail.
pub fn compress(compression: Compression, entries: &[u8], level: u32) -> std::io::Result<Vec<u8>> {
    match compression {
        #[cfg(feature = "gzip")]
        Compression::Gzip => {
            use std::io::Write as _;
            let level = flate2::Compression::new(level.min(9));
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
            encoder.write_all(entries)?;
            encoder.finish()
        }
        #[cfg(feature = "zstd")]
        Compression::Zstd => zstd::bulk::compress(entries, level.clamp(1, 22) as i32),
        #[cfg(not(all(feature = "gzip", feature = "zstd")))]
        other => {
            let _ = (entries, level);
            Err(std::io::Error::new(
                std::io::ErrorKind::Unsupported,
                format!("the feature for {other:?} is off"),
            ))
        }
    }
}

/// Writes the option map, if it has any option. The chunk id comes first: old versions of Fluent
/// Bit rely on it.
fn write_options(
    out: &mut impl BufMut,
    count: u32,
    compression: Option<Compression>,
    chunk: Option<&ChunkId>,
) {
    let pairs = u32::from(chunk.is_some()) + u32::from(compression.is_some());
    if pairs == 0 {
        return;
    }
    write_map_len(out, pairs + 1);
    write_chunk(out, chunk);
    write_str(out, b"size");
    write_u64(out, u64::from(count));
    if let Some(compression) = compression {
        write_str(out, b"compressed");
        let name: &[u8] = match compression {
            Compression::Gzip => b"gzip",
            Compression::Zstd => b"zstd",
        };
        write_str(out, name);
    }
}

fn write_chunk(out: &mut impl BufMut, chunk: Option<&ChunkId>) {
    if let Some(id) = chunk {
        write_str(out, b"chunk");
        write_str(out, id.as_bytes());
    }
}
