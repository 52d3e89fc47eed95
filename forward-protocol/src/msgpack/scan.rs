//! [`skip`] and [`Scanner`]: find the end of a value with a table-driven loop over first bytes.
//!
//! The state of the loop is two numbers: where the next value begins and how many values must still
//! come. A container adds its children to the second number, so nesting needs no stack. Depth is
//! only computed when a value has more containers than the depth limit; few records do.

use super::Error;

/// Returns where the value that begins at `at` ends. `buf` must hold all of it.
///
/// # Errors
/// [`Error::Incomplete`] when `buf` ends first (whatever count or length a header declares),
/// [`Error::Malformed`] for `0xc1`, [`Error::TooDeep`] when non-empty containers are nested deeper
/// than `max_depth`.
#[inline]
pub fn skip(buf: &[u8], at: usize, max_depth: u32) -> Result<usize, Error> {
    let (end, opened) = extent(buf, at)?;
    if opened > max_depth {
        check_depth(buf, at, max_depth)?;
    }
    Ok(end)
}

/// Finds the end of one value in a growing buffer, without reading any byte twice.
///
/// A string, binary or extension is skipped by its length, so its bytes are never read.
#[derive(Clone, Debug)]
pub struct Scanner {
    /// Offset of the next value; may lie beyond the received bytes.
    at: usize,
    /// Number of values still to come; 0 means the value is complete.
    pending: u64,
    /// Number of consecutive container headers: a lower bound of the depth.
    chain: u32,
    max_chain: u32,
    /// The largest allowed end of the value, counted from the buffer's start.
    limit: usize,
}

impl Scanner {
    /// A scanner for the value at byte `at` of a buffer. The value must end at or before byte
    /// `limit`. Only a chain of more than `max_chain` consecutive container headers is rejected
    /// here: the end of other deep values can still be found.
    pub fn new(at: usize, limit: usize, max_chain: u32) -> Self {
        Self {
            at,
            pending: 1,
            chain: 0,
            max_chain,
            limit,
        }
    }

    /// Continues the scan. `buf` holds the bytes of the earlier calls, followed by new ones.
    /// `Ok(Some(end))` when the value is complete, `Ok(None)` when bytes are missing.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::TooDeep`], and [`Error::TooLong`] as soon as headers declare
    /// more bytes than the limit allows. After an error the scanner must not be used again.
    #[inline]
    pub fn scan(&mut self, buf: &[u8]) -> Result<Option<usize>, Error> {
        let mut at = self.at;
        let mut pending = self.pending;
        let mut chain = self.chain;
        let mut outcome = Ok(());
        while pending > 0 {
            let Some(&first) = buf.get(at) else { break };
            if let Some(size) = short_str(buf, at, first) {
                at += size;
                pending -= 1;
                chain = 0;
                continue;
            }
            let (size, children) = match head(buf, at, first) {
                Ok(step) => step,
                Err(Error::Incomplete { .. }) => break,
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            };
            at = at.saturating_add(size);
            pending = pending - 1 + children;
            chain = if children == 0 { 0 } else { chain + 1 };
            if chain > self.max_chain {
                outcome = Err(Error::TooDeep {
                    at: at - size,
                    limit: self.max_chain,
                });
                break;
            }
        }
        self.at = at;
        self.pending = pending;
        self.chain = chain;
        // A value has at least one byte, so this number never falls: checking it first gives the
        // same error for any split of the bytes into reads.
        let needed = (at as u64).saturating_add(pending);
        if needed > self.limit as u64 {
            return Err(Error::TooLong {
                needed,
                limit: self.limit,
            });
        }
        outcome?;
        Ok((pending == 0 && at <= buf.len()).then_some(at))
    }

    /// Drops the scanned bytes from a buffer of this length and returns their number: the next
    /// [`Scanner::scan`] gets a buffer without them. The limit counts from the new start.
    pub(crate) fn forget(&mut self, len: usize) -> usize {
        let seen = self.at.min(len);
        self.at -= seen;
        seen
    }

    /// Lower bound of the buffer length at which [`Scanner::scan`] can find the end.
    pub fn needed(&self) -> usize {
        self.at
            .saturating_add(usize::try_from(self.pending).unwrap_or(usize::MAX))
    }
}

/// Returns the end of the value at `start` and the number of its non-empty containers.
#[inline]
pub(crate) fn extent(buf: &[u8], start: usize) -> Result<(usize, u32), Error> {
    let mut at = start;
    let mut pending: u64 = 1;
    let mut opened: u32 = 0;
    while pending > 0 {
        let Some(&first) = buf.get(at) else {
            return Err(Error::Incomplete { at: start });
        };
        if let Some(size) = short_str(buf, at, first) {
            at += size;
            pending -= 1;
            continue;
        }
        let (size, children) = head(buf, at, first)?;
        at = at.saturating_add(size);
        pending = pending - 1 + children;
        opened = opened.saturating_add(u32::from(children != 0));
    }
    if at > buf.len() {
        return Err(Error::Incomplete { at: start });
    }
    Ok((at, opened))
}

/// The size of a string of up to 255 bytes, and `None` for everything else. Most values are such
/// strings, and taking the length from the bytes is faster than the table: each step of a walk
/// depends on the size of the previous one.
#[inline(always)]
fn short_str(buf: &[u8], at: usize, first: u8) -> Option<usize> {
    if first & 0xe0 == 0xa0 {
        return Some(1 + usize::from(first & 0x1f));
    }
    if first == 0xd9 {
        return buf.get(at + 1).map(|len| 2 + usize::from(*len));
    }
    None
}

/// The end of the value at `at`, if its first three bytes tell it; `None`: not decided here. The
/// end may lie beyond the buffer.
#[inline]
pub(crate) fn scalar_end(buf: &[u8], at: usize) -> Option<usize> {
    let [first, low, high] = *buf.get(at..)?.first_chunk()?;
    Some(at + scalar_size(first, low, high)?)
}

/// The size of a value that begins with these three bytes, if they tell it and the value is not a
/// non-empty container. After a value of one or two bytes the rest may be anything.
#[inline(always)]
pub(crate) fn scalar_size(first: u8, second: u8, third: u8) -> Option<usize> {
    if first & 0xe0 == 0xa0 {
        return Some(1 + usize::from(first & 0x1f));
    }
    match first {
        0xd9 => Some(2 + usize::from(second)),
        0xda => Some(3 + usize::from(u16::from_be_bytes([second, third]))),
        // The number of children is above the low byte, so only empty containers match.
        _ => match TABLE[usize::from(first)] {
            size @ 1..=0xff => Some(usize::from(size)),
            _ => None,
        },
    }
}

/// Walks the value with a stack, for the rare value with many containers.
#[cold]
pub(crate) fn check_depth(buf: &[u8], start: usize, limit: u32) -> Result<(), Error> {
    let mut open: Vec<u64> = Vec::new();
    let mut at = start;
    loop {
        let Some(&first) = buf.get(at) else {
            return Err(Error::Incomplete { at });
        };
        let (size, children) = head(buf, at, first)?;
        if children > 0 {
            if open.len() >= limit as usize {
                return Err(Error::TooDeep { at, limit });
            }
            open.push(children);
        } else {
            while let Some(left) = open.last_mut() {
                *left -= 1;
                if *left > 0 {
                    break;
                }
                open.pop();
            }
        }
        at = at.saturating_add(size);
        if open.is_empty() {
            return Ok(());
        }
    }
}

/// Distance to the next value, and number of children, of the value at `at` with the first byte
/// `first`.
#[inline]
pub(crate) fn head(buf: &[u8], at: usize, first: u8) -> Result<(usize, u64), Error> {
    let step = TABLE[usize::from(first)];
    if step & 0xff != 0 {
        Ok((usize::from(step & 0xff), u64::from(step >> 8)))
    } else {
        head_with_length(buf, at, first)
    }
}

/// The same for values whose first byte is followed by a length or a count.
#[inline]
fn head_with_length(buf: &[u8], at: usize, first: u8) -> Result<(usize, u64), Error> {
    let short = Error::Incomplete { at };
    let n8 = || buf.get(at + 1).map(|n| usize::from(*n)).ok_or(short);
    let n16 = || read_u16(buf, at + 1).map(usize::from).ok_or(short);
    let n32 = || read_u32(buf, at + 1).ok_or(short);
    match first {
        0xd9 | 0xc4 => Ok((2 + n8()?, 0)),
        0xda | 0xc5 => Ok((3 + n16()?, 0)),
        0xdb | 0xc6 => Ok(((n32()? as usize).saturating_add(5), 0)),
        0xde => Ok((3, 2 * n16()? as u64)),
        0xdf => Ok((5, 2 * u64::from(n32()?))),
        0xdc => Ok((3, n16()? as u64)),
        0xdd => Ok((5, u64::from(n32()?))),
        0xc7 => Ok((3 + n8()?, 0)),
        0xc8 => Ok((4 + n16()?, 0)),
        0xc9 => Ok(((n32()? as usize).saturating_add(6), 0)),
        _ => Err(Error::Malformed { at }),
    }
}

#[inline]
pub(crate) fn read_u16(buf: &[u8], at: usize) -> Option<u16> {
    buf.get(at..)?.first_chunk().map(|b| u16::from_be_bytes(*b))
}

#[inline]
pub(crate) fn read_u32(buf: &[u8], at: usize) -> Option<u32> {
    buf.get(at..)?.first_chunk().map(|b| u32::from_be_bytes(*b))
}

#[inline]
pub(crate) fn read_u64(buf: &[u8], at: usize) -> Option<u64> {
    buf.get(at..)?.first_chunk().map(|b| u64::from_be_bytes(*b))
}

/// For each first byte: the distance to the next value in the low byte (0: see
/// [`head_with_length`]), the number of children in the high byte.
static TABLE: [u16; 256] = table();

const fn table() -> [u16; 256] {
    let mut table = [1u16; 256];
    let mut byte = 0x80;
    while byte <= 0xdf {
        let low = (byte & 0x0f) as u16;
        table[byte] = match byte {
            0x80..=0x8f => 1 | ((2 * low) << 8),
            0x90..=0x9f => 1 | (low << 8),
            0xa0..=0xbf => 1 + (byte & 0x1f) as u16,
            0xc0 | 0xc2 | 0xc3 => 1,
            0xcc | 0xd0 => 2,
            0xcd | 0xd1 | 0xd4 => 3,
            0xd5 => 4,
            0xca | 0xce | 0xd2 => 5,
            0xd6 => 6,
            0xcb | 0xcf | 0xd3 => 9,
            0xd7 => 10,
            0xd8 => 18,
            _ => 0,
        };
        byte += 1;
    }
    table
}
