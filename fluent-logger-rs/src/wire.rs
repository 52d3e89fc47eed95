//! The messages of the Forward protocol's modes, as a client writes them.
//!
//! Shapes and option keys: Forward Protocol Specification v1. The option map is left out when it would say
//! nothing; `size` is the number of events.

use std::ops::Range;

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

/// A batch as one message.
pub(crate) fn message(mode: Mode, tag: &str, entries: &[u8], events: usize, chunk: Option<&ChunkId>) -> Message {
    let mut out = Vec::with_capacity(entries.len() + tag.len() + 96);
    let gzip = matches!(mode, Mode::PackedGzip);
    let options = usize::from(chunk.is_some()) + if gzip { 2 } else { usize::from(chunk.is_some()) };
    out.push(if options == 0 { 0x92 } else { 0x93 });
    write_str(&mut out, tag.as_bytes());
    let range = match mode {
        Mode::Message | Mode::Forward => {
            write_array(&mut out, events);
            let start = out.len();
            out.extend_from_slice(entries);
            Some(start..out.len())
        }
        Mode::Packed => {
            write_bin(&mut out, entries.len());
            let start = out.len();
            out.extend_from_slice(entries);
            Some(start..out.len())
        }
        Mode::PackedGzip => {
            let packed = gzip_entries(entries);
            write_bin(&mut out, packed.len());
            out.extend_from_slice(&packed);
            None
        }
    };
    if options > 0 {
        out.push(0x80 | u8::try_from(options).unwrap_or(0));
        if let Some(chunk) = chunk {
            write_chunk(&mut out, chunk);
        }
        write_str(&mut out, b"size");
        write_uint(&mut out, events);
        if gzip {
            write_str(&mut out, b"compressed");
            write_str(&mut out, b"gzip");
        }
    }
    Message { bytes: out, entries: range }
}
