//! The messages of the Forward protocol's modes, as a client writes them.
//!
//! Shapes and option keys: Forward Protocol Specification v1. The option map is left out when it would say
//! nothing; `size` is the number of events.

use std::ops::Range;

use forward_protocol::msgpack::{write_array_len, write_bin, write_map_len, write_str, write_u64};

use crate::chunk::ChunkId;
use crate::options::Mode;

/// A whole message and where its entries stand in it.
pub(crate) struct Message {
    pub(crate) bytes: Vec<u8>,
    /// `None`: they are compressed.
    pub(crate) entries: Option<Range<usize>>,
}

/// A message of Message mode and where `time, record` stand in it.
pub(crate) struct Single {
    pub(crate) bytes: Vec<u8>,
    pub(crate) range: Range<usize>,
}

/// A batch as one message of the given mode (Message mode has [`single`]).
pub(crate) fn message(
    mode: Mode,
    tag: &str,
    entries: &[u8],
    events: usize,
    chunk: Option<&ChunkId>,
) -> Message {
    let mut out = Vec::with_capacity(entries.len() + tag.len() + 96);
    let compressed = compress(mode, entries);
    let has_options = chunk.is_some() || compressed.is_some();
    write_array_len(&mut out, if has_options { 3 } else { 2 });
    write_str(&mut out, tag.as_bytes());
    let range = match (mode, &compressed) {
        (Mode::Message | Mode::Forward, _) => {
            write_array_len(&mut out, u32::try_from(events).unwrap_or(u32::MAX));
            let start = out.len();
            out.extend_from_slice(entries);
            Some(start..out.len())
        }
        (_, Some(packed)) => {
            write_bin(&mut out, packed);
            None
        }
        (_, None) => {
            write_bin(&mut out, entries);
            Some(out.len() - entries.len()..out.len())
        }
    };
    if has_options {
        write_map_len(
            &mut out,
            1 + u32::from(chunk.is_some()) + u32::from(compressed.is_some()),
        );
        if let Some(chunk) = chunk {
            write_str(&mut out, b"chunk");
            write_str(&mut out, chunk);
        }
        write_str(&mut out, b"size");
        write_u64(&mut out, u64::try_from(events).unwrap_or(u64::MAX));
        if compressed.is_some() {
            write_str(&mut out, b"compressed");
            write_str(&mut out, b"gzip");
        }
    }
    Message {
        bytes: out,
        entries: range,
    }
}

/// One event as a message of Message mode; `entry` is `[time, record]`.
pub(crate) fn single(tag: &str, entry: &[u8], chunk: Option<&ChunkId>) -> Single {
    let mut out = Vec::with_capacity(entry.len() + tag.len() + 48);
    write_array_len(&mut out, if chunk.is_some() { 4 } else { 3 });
    write_str(&mut out, tag.as_bytes());
    let start = out.len();
    // Without the array header, which is one byte for two elements.
    out.extend_from_slice(entry.get(1..).unwrap_or_default());
    let range = start..out.len();
    if let Some(chunk) = chunk {
        write_map_len(&mut out, 1);
        write_str(&mut out, b"chunk");
        write_str(&mut out, chunk);
    }
    Single { bytes: out, range }
}

#[cfg(feature = "gzip")]
fn compress(mode: Mode, entries: &[u8]) -> Option<Vec<u8>> {
    use std::io::Write as _;
    if mode != Mode::PackedGzip {
        return None;
    }
    let out = Vec::with_capacity(entries.len() / 4 + 64);
    let mut encoder = flate2::write::GzEncoder::new(out, flate2::Compression::fast());
    // Writing to memory does not fail; if it did, the entries go uncompressed.
    encoder.write_all(entries).ok()?;
    encoder.finish().ok()
}

#[cfg(not(feature = "gzip"))]
fn compress(_: Mode, _: &[u8]) -> Option<Vec<u8>> {
    None
}

#[cfg(test)]
mod tests;
