//! A MessagePack pull reader: one token at a time from a byte slice.
//!
//! Checks bounds only. `forward_protocol` validates every record when it is received.

/// A MessagePack value without its elements.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Token<'a> {
    /// `nil`.
    Nil,
    /// A boolean.
    Bool(bool),
    /// An unsigned integer.
    Unsigned(u64),
    /// An integer in a signed encoding.
    Signed(i64),
    /// A `float 32`.
    UntracedRecord(f32),
    /// A `float 64`.
    Double(f64),
    /// The bytes of a string, which need not be UTF-8.
    Str(&'a [u8]),
    /// The bytes of a binary value.
    Bin(&'a [u8]),
    /// The number of elements of an array.
    Array(u32),
    /// The number of pairs of a map.
    Map(u32),
    /// The type and the bytes of an extension.
    Ext(i8, &'a [u8]),
}

/// The token at offset `at`, and the offset behind it (of an array or a map: that of its first
/// element).
#[inline]
pub fn read_token(buf: &[u8], at: usize) -> Option<(Token<'_>, usize)> {
    let marker = *buf.get(at)?;
    let body = at + 1;
    Some(match marker {
        0x00..=0x7f => (Token::Unsigned(u64::from(marker)), body),
        0x80..=0x8f => (Token::Map(u32::from(marker & 0x0f)), body),
        0x90..=0x9f => (Token::Array(u32::from(marker & 0x0f)), body),
        0xa0..=0xbf => {
            let end = body + usize::from(marker & 0x1f);
            (Token::Str(buf.get(body..end)?), end)
        }
        0xc0 | 0xc1 => (Token::Nil, body),
        0xc2 => (Token::Bool(false), body),
        0xc3 => (Token::Bool(true), body),
        0xc4..=0xc6 => {
            let (bytes, end) = sized(buf, body, marker - 0xc4, 0)?;
            (Token::Bin(bytes), end)
        }
        0xc7..=0xc9 => {
            let (bytes, end) = sized(buf, body, marker - 0xc7, 1)?;
            let (kind, data) = bytes.split_first()?;
            (Token::Ext(*kind as i8, data), end)
        }
        0xca => (
            Token::UntracedRecord(f32::from_be_bytes(array(buf, body)?)),
            body + 4,
        ),
        0xcb => (Token::Double(f64::from_be_bytes(array(buf, body)?)), body + 8),
        0xcc => (Token::Unsigned(u64::from(*buf.get(body)?)), body + 1),
        0xcd => (
            Token::Unsigned(u64::from(u16::from_be_bytes(array(buf, body)?))),
            body + 2,
        ),
        0xce => (
            Token::Unsigned(u64::from(u32::from_be_bytes(array(buf, body)?))),
            body + 4,
        ),
        0xcf => (Token::Unsigned(u64::from_be_bytes(array(buf, body)?)), body + 8),
        0xd0 => (
            Token::Signed(i64::from(i8::from_be_bytes(array(buf, body)?))),
            body + 1,
        ),
        0xd1 => (
            Token::Signed(i64::from(i16::from_be_bytes(array(buf, body)?))),
            body + 2,
        ),
        0xd2 => (
            Token::Signed(i64::from(i32::from_be_bytes(array(buf, body)?))),
            body + 4,
        ),
        0xd3 => (Token::Signed(i64::from_be_bytes(array(buf, body)?)), body + 8),
        0xd4..=0xd8 => {
            let end = body + 1 + (1usize << (marker - 0xd4));
            (Token::Ext(*buf.get(body)? as i8, buf.get(body + 1..end)?), end)
        }
        0xd9..=0xdb => {
            let (bytes, end) = sized(buf, body, marker - 0xd9, 0)?;
            (Token::Str(bytes), end)
        }
        0xdc => (
            Token::Array(u32::from(u16::from_be_bytes(array(buf, body)?))),
            body + 2,
        ),
        0xdd => (Token::Array(u32::from_be_bytes(array(buf, body)?)), body + 4),
        0xde => (
            Token::Map(u32::from(u16::from_be_bytes(array(buf, body)?))),
            body + 2,
        ),
        0xdf => (Token::Map(u32::from_be_bytes(array(buf, body)?)), body + 4),
        0xe0..=0xff => (Token::Signed(i64::from(marker as i8)), body),
    })
}

#[inline]
pub(crate) fn array<const N: usize>(buf: &[u8], at: usize) -> Option<[u8; N]> {
    buf.get(at..at + N)?.try_into().ok()
}

/// Bytes with a length prefix of 1, 2 or 4 bytes (`width` 0, 1, 2). `extra` bytes follow that the
/// length does not count.
#[inline]
fn sized(buf: &[u8], at: usize, width: u8, extra: usize) -> Option<(&[u8], usize)> {
    let (length, from) = match width {
        0 => (usize::from(*buf.get(at)?), at + 1),
        1 => (usize::from(u16::from_be_bytes(array(buf, at)?)), at + 2),
        _ => (u32::from_be_bytes(array(buf, at)?) as usize, at + 4),
    };
    let end = from.checked_add(length)?.checked_add(extra)?;
    Some((buf.get(from..end)?, end))
}

/// The offset behind the value at `at`, which is not an array or a map. Fast for strings of up to
/// 255 bytes.
#[inline]
pub(crate) fn after_scalar(buf: &[u8], at: usize) -> Option<usize> {
    match *buf.get(at)? {
        marker @ 0xa0..=0xbf => Some(at + 1 + usize::from(marker & 0x1f)),
        0xd9 => Some(at + 2 + usize::from(*buf.get(at + 1)?)),
        _ => read_token(buf, at).map(|(_, next)| next),
    }
}

/// The offset behind the value at `at`.
pub(crate) fn skip(buf: &[u8], at: usize) -> Option<usize> {
    let mut at = at;
    let mut left = 1u64;
    while left > 0 {
        let (token, next) = read_token(buf, at)?;
        at = next;
        left -= 1;
        match token {
            Token::Array(n) => left += u64::from(n),
            Token::Map(n) => left += 2 * u64::from(n),
            _ => {}
        }
    }
    Some(at)
}
