//! File format of a spooled chunk.
//!
//! Owns the layout and its validation. No I/O. Numbers are little-endian:
//!
//! | bytes | |
//! |---|---|
//! | 8 | `FLSPOOL1` |
//! | 4 | CRC-32 (IEEE 802.3) of everything behind it |
//! | 8 | length of everything behind it |
//! | 4 | number of events |
//! | 1, n | length of the chunk id, chunk id |
//! | 4, n | length of the tag, tag |
//! | the rest | the message, as it goes over the wire |

use crc32fast::Hasher;
use forward_protocol::encode::ChunkId;

use crate::chunk::Chunk;

const MAGIC: &[u8; 8] = b"FLSPOOL1";

/// The bytes before the message.
pub(crate) fn header(chunk: &Chunk) -> Vec<u8> {
    let id = chunk.id.as_bytes();
    let mut about = Vec::with_capacity(16 + id.len() + chunk.tag.len());
    // All three are bounded far below: events by the buffer, an id by 64 bytes, a tag by 65,531.
    about.extend(u32::try_from(chunk.events).unwrap_or(u32::MAX).to_le_bytes());
    about.push(u8::try_from(id.len()).unwrap_or(u8::MAX));
    about.extend(id);
    about.extend(u32::try_from(chunk.tag.len()).unwrap_or(u32::MAX).to_le_bytes());
    about.extend(chunk.tag.as_bytes());
    let length = ((about.len() + chunk.message.len()) as u64).to_le_bytes();
    let mut checksum = Hasher::new();
    for part in [&length[..], &about, &chunk.message] {
        checksum.update(part);
    }
    let mut header = Vec::with_capacity(20 + about.len());
    header.extend(MAGIC);
    header.extend(checksum.finalize().to_le_bytes());
    header.extend(length);
    header.extend(about);
    header
}

/// The chunk in a file, or why it is damaged.
pub(crate) fn read(bytes: &[u8]) -> Result<Chunk, String> {
    if bytes.len() < MAGIC.len() {
        return Err(format!("torn: {} bytes are no header", bytes.len()));
    }
    let rest = bytes
        .strip_prefix(MAGIC)
        .ok_or("not written by this logger, or by another version of it")?;
    let torn = || format!("torn: {} bytes are no header", bytes.len());
    let (checksum, checked) = rest.split_first_chunk::<4>().ok_or_else(torn)?;
    let (length, body) = checked.split_first_chunk::<8>().ok_or_else(torn)?;
    let (length, there) = (u64::from_le_bytes(*length), body.len() as u64);
    if length != there {
        return Err(format!("torn: it has {there} bytes of {length}"));
    }
    if crc32fast::hash(checked) != u32::from_le_bytes(*checksum) {
        return Err("its checksum does not fit its content".to_owned());
    }
    content(body).ok_or_else(|| "its content makes no sense in spite of a right checksum".to_owned())
}

fn content(body: &[u8]) -> Option<Chunk> {
    let (events, body) = body.split_first_chunk::<4>()?;
    let (id, body) = body.split_first()?;
    let (id, body) = body.split_at_checked(usize::from(*id))?;
    let id = ChunkId::from_text(std::str::from_utf8(id).ok()?)?;
    let (tag, body) = body.split_first_chunk::<4>()?;
    let (tag, message) = body.split_at_checked(usize::try_from(u32::from_le_bytes(*tag)).ok()?)?;
    let tag = std::str::from_utf8(tag).ok()?;
    let events = usize::try_from(u32::from_le_bytes(*events)).ok()?;
    Some(Chunk::recovered(id, tag, events, message.to_vec()))
}
