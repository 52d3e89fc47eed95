//! Framing: entries become one message of each mode (Forward Protocol Specification v1, "Event
//! Modes").

use std::io::{self, Write as _};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::msgpack::{write_array_len, write_bin, write_map_len, write_str, write_uint};

/// How records are put into messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// PackedForward: `[tag, bin(entries), option]`.
    Packed,
    /// CompressedPackedForward: the entries are one gzip member.
    Gzip,
    /// CompressedPackedForward: the entries are two gzip members, one behind the other.
    GzipMembers,
    /// Forward: `[tag, [entry, …], option]`.
    Forward,
    /// Message: `[tag, time, record, option]`, one record a message.
    Message,
}

impl Mode {
    /// The messages of this mode are compressed.
    pub(super) fn is_compressed(self) -> bool {
        matches!(self, Self::Gzip | Self::GzipMembers)
    }
}

/// Entries `[time, record]`, one behind the other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entries<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) count: u32,
    /// The byte at which the second half of them begins.
    pub(super) middle: usize,
}

/// Appends a message in Message mode with the record of `entry`.
pub(super) fn write_message(out: &mut Vec<u8>, tag: &str, entry: &[u8], id: Option<&str>) {
    write_array_len(out, if id.is_some() { 4 } else { 3 });
    write_str(out, tag);
    // Time and record stand in the message as they stand in the entry, behind its one-byte head.
    out.extend_from_slice(entry.get(1..).unwrap_or_default());
    if let Some(id) = id {
        write_map_len(out, 1);
        write_str(out, "chunk");
        write_str(out, id);
    }
}

/// Appends a message that carries all `entries`, in a mode other than Message.
///
/// # Errors
/// When the entries cannot be compressed.
pub(super) fn write_batch(
    out: &mut Vec<u8>,
    mode: Mode,
    tag: &str,
    entries: Entries<'_>,
    id: Option<&str>,
) -> io::Result<()> {
    let options = id.is_some() || mode.is_compressed();
    write_array_len(out, if options { 3 } else { 2 });
    write_str(out, tag);
    match mode {
        Mode::Forward | Mode::Message => {
            write_array_len(out, entries.count);
            out.extend_from_slice(entries.bytes);
        }
        Mode::Packed => write_bin(out, entries.bytes),
        Mode::Gzip => write_bin(out, &gzip(entries.bytes)?),
        Mode::GzipMembers => {
            let (first, second) = entries.bytes.split_at(entries.middle);
            write_bin(out, &[gzip(first)?, gzip(second)?].concat());
        }
    }
    if options {
        write_map_len(out, 1 + u32::from(id.is_some()) + u32::from(mode.is_compressed()));
        if let Some(id) = id {
            write_str(out, "chunk");
            write_str(out, id);
        }
        write_str(out, "size");
        write_uint(out, entries.count.into());
        if mode.is_compressed() {
            write_str(out, "compressed");
            write_str(out, "gzip");
        }
    }
    Ok(())
}

fn gzip(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes)?;
    encoder.finish()
}
