//! Encoding of batches as Forward messages, one function per mode.
//!
//! The message formats are those of [`forward_protocol::encode`], except Message mode, where the
//! event is already encoded.

use std::ops::Range;

use forward_protocol::encode::{ChunkId, EntryStream, write_forward, write_packed};
use forward_protocol::msgpack::{write_array_len, write_map_len, write_str};

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
    let count = u32::try_from(events).unwrap_or(u32::MAX);
    if write_gzip(
        &mut out,
        mode,
        tag,
        EntryStream {
            bytes: entries,
            count,
        },
        chunk,
    ) {
        return Message {
            bytes: out,
            entries: None,
        };
    }
    let stream = EntryStream {
        bytes: entries,
        count,
    };
    // The entries end where the option map begins, which has the same bytes whatever stands before
    // it.
    let options = options_len(count, chunk);
    match mode {
        Mode::Message | Mode::Forward => write_forward(&mut out, tag.as_bytes(), stream, chunk),
        _ => write_packed(&mut out, tag.as_bytes(), stream, chunk),
    }
    let end = out.len() - options;
    Message {
        entries: Some(end - entries.len()..end),
        bytes: out,
    }
}

/// Length of the option map behind uncompressed entries: what an empty message has behind its empty
/// payload.
fn options_len(count: u32, chunk: Option<&ChunkId>) -> usize {
    let mut empty = Vec::with_capacity(64);
    write_packed(&mut empty, b"", EntryStream { bytes: b"", count }, chunk);
    // Array header, empty tag, empty binary.
    empty.len() - 4
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
        write_str(&mut out, chunk.as_bytes());
    }
    Single { bytes: out, range }
}

/// False if the message is not to be compressed, or cannot be.
#[cfg(feature = "gzip")]
fn write_gzip(
    out: &mut Vec<u8>,
    mode: Mode,
    tag: &str,
    entries: EntryStream<'_>,
    chunk: Option<&ChunkId>,
) -> bool {
    use forward_protocol::encode::{compress, write_compressed};
    use forward_protocol::entries::Compression::Gzip;
    if mode != Mode::PackedGzip {
        return false;
    }
    let Ok(packed) = compress(Gzip, entries.bytes, GZIP_LEVEL) else {
        return false;
    };
    write_compressed(out, tag.as_bytes(), Gzip, &packed, entries.count, chunk);
    true
}

/// Logs repeat themselves: the fastest level already takes most of it out.
#[cfg(feature = "gzip")]
const GZIP_LEVEL: u32 = 1;

#[cfg(not(feature = "gzip"))]
fn write_gzip(_: &mut Vec<u8>, _: Mode, _: &str, _: EntryStream<'_>, _: Option<&ChunkId>) -> bool {
    false
}

#[cfg(test)]
mod tests;
