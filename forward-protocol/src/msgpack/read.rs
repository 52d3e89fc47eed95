//! [`Value`] and [`Reader`]: reading values in place, as a shallow borrowed view and with a cursor.

use super::Error;
use super::scan::{head, read_u16, read_u32, read_u64, skip};

/// The type of a value, given by its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `nil`.
    Nil,
    /// `true` or `false`.
    Bool,
    /// An integer of any width and sign.
    Int,
    /// A 32-bit or 64-bit float.
    Float,
    /// Text; MessagePack does not promise that it is UTF-8.
    Str,
    /// Bytes.
    Bin,
    /// An array.
    Array,
    /// A map.
    Map,
    /// An extension type.
    Ext,
    /// The byte `0xc1`, which is illegal.
    Illegal,
}

impl Kind {
    /// The type of a value that begins with `first`.
    #[inline]
    pub const fn of(first: u8) -> Self {
        match first {
            0x00..=0x7f | 0xe0..=0xff | 0xcc..=0xd3 => Self::Int,
            0x80..=0x8f | 0xde | 0xdf => Self::Map,
            0x90..=0x9f | 0xdc | 0xdd => Self::Array,
            0xa0..=0xbf | 0xd9..=0xdb => Self::Str,
            0xc0 => Self::Nil,
            0xc1 => Self::Illegal,
            0xc2 | 0xc3 => Self::Bool,
            0xc4..=0xc6 => Self::Bin,
            0xc7..=0xc9 | 0xd4..=0xd8 => Self::Ext,
            0xca | 0xcb => Self::Float,
        }
    }
}

/// One value, read shallowly: of a container only the number of its children, which follow it in
/// the buffer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// `nil`.
    Nil,
    /// A boolean.
    Bool(bool),
    /// An integer of at least 0.
    U64(u64),
    /// A negative integer.
    I64(i64),
    /// A 32-bit float.
    F32(f32),
    /// A 64-bit float.
    F64(f64),
    /// Text, not checked for UTF-8.
    Str(&'a [u8]),
    /// Bytes.
    Bin(&'a [u8]),
    /// An array and how many values follow. The number is declared by the peer: never reserve
    /// memory from it.
    Array(u32),
    /// A map and how many pairs follow. The number is declared by the peer: never reserve memory
    /// from it.
    Map(u32),
    /// Extension type and its bytes.
    Ext(i8, &'a [u8]),
}

impl<'a> Value<'a> {
    /// Reads the value at `at`; returns it and where the next one begins (the first child, for a
    /// container).
    ///
    /// # Errors
    /// [`Error::Incomplete`] or [`Error::Malformed`].
    #[inline]
    pub fn read(buf: &'a [u8], at: usize) -> Result<(Self, usize), Error> {
        let short = Error::Incomplete { at };
        let first = *buf.get(at).ok_or(short)?;
        let (size, children) = head(buf, at, first)?;
        let end = at.saturating_add(size);
        let bytes = buf.get(at..end).ok_or(short)?;
        let body = |skip: usize| bytes.get(skip..).ok_or(short);
        let value = match first {
            0x00..=0x7f => Self::U64(u64::from(first)),
            0x80..=0x8f | 0xde | 0xdf => Self::Map((children / 2) as u32),
            0x90..=0x9f | 0xdc | 0xdd => Self::Array(children as u32),
            0xa0..=0xbf => Self::Str(body(1)?),
            0xd9 => Self::Str(body(2)?),
            0xda => Self::Str(body(3)?),
            0xdb => Self::Str(body(5)?),
            0xc4 => Self::Bin(body(2)?),
            0xc5 => Self::Bin(body(3)?),
            0xc6 => Self::Bin(body(5)?),
            0xc0 => Self::Nil,
            0xc2 => Self::Bool(false),
            0xc3 => Self::Bool(true),
            0xca => Self::F32(f32::from_bits(read_u32(bytes, 1).ok_or(short)?)),
            0xcb => Self::F64(f64::from_bits(read_u64(bytes, 1).ok_or(short)?)),
            0xcc => Self::U64(u64::from(*bytes.get(1).ok_or(short)?)),
            0xcd => Self::U64(u64::from(read_u16(bytes, 1).ok_or(short)?)),
            0xce => Self::U64(u64::from(read_u32(bytes, 1).ok_or(short)?)),
            0xcf => Self::U64(read_u64(bytes, 1).ok_or(short)?),
            0xd0 => signed(i64::from(*bytes.get(1).ok_or(short)? as i8)),
            0xd1 => signed(i64::from(read_u16(bytes, 1).ok_or(short)? as i16)),
            0xd2 => signed(i64::from(read_u32(bytes, 1).ok_or(short)? as i32)),
            0xd3 => signed(read_u64(bytes, 1).ok_or(short)? as i64),
            0xe0..=0xff => Self::I64(i64::from(first as i8)),
            0xd4..=0xd8 => ext(body(1)?).ok_or(short)?,
            0xc7 => ext(body(2)?).ok_or(short)?,
            0xc8 => ext(body(3)?).ok_or(short)?,
            0xc9 => ext(body(5)?).ok_or(short)?,
            0xc1 => return Err(Error::Malformed { at }),
        };
        Ok((value, end))
    }

    /// The bytes of a string or binary.
    #[inline]
    pub fn as_bytes(&self) -> Option<&'a [u8]> {
        match *self {
            Self::Str(bytes) | Self::Bin(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// An integer that fits in an `i64`.
    #[inline]
    pub fn as_i64(&self) -> Option<i64> {
        match *self {
            Self::U64(n) => i64::try_from(n).ok(),
            Self::I64(n) => Some(n),
            _ => None,
        }
    }
}

fn signed<'a>(n: i64) -> Value<'a> {
    u64::try_from(n).map_or(Value::I64(n), Value::U64)
}

/// `bytes` begin with the extension type.
fn ext(bytes: &[u8]) -> Option<Value<'_>> {
    let (kind, data) = bytes.split_first()?;
    Some(Value::Ext(*kind as i8, data))
}

/// A cursor over MessagePack bytes.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    buf: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// A cursor at the start of `buf`.
    pub fn new(buf: &'a [u8]) -> Self {
        Self { buf, at: 0 }
    }

    /// A cursor at byte `at` of `buf`.
    pub fn at(buf: &'a [u8], at: usize) -> Self {
        Self { buf, at }
    }

    /// Where the next value begins.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Whether all bytes were read.
    pub fn is_empty(&self) -> bool {
        self.at >= self.buf.len()
    }

    /// The type of the next value, if there is one.
    pub fn kind(&self) -> Option<Kind> {
        self.buf.get(self.at).map(|first| Kind::of(*first))
    }

    /// Reads the next value shallowly: after a container come its children.
    ///
    /// # Errors
    /// [`Error::Incomplete`] or [`Error::Malformed`].
    #[inline]
    pub fn value(&mut self) -> Result<Value<'a>, Error> {
        let (value, next) = Value::read(self.buf, self.at)?;
        self.at = next;
        Ok(value)
    }

    /// Reads the next value whole and returns its bytes.
    ///
    /// # Errors
    /// Those of [`skip`].
    #[inline]
    pub fn raw(&mut self, max_depth: u32) -> Result<&'a [u8], Error> {
        let end = skip(self.buf, self.at, max_depth)?;
        let raw = self
            .buf
            .get(self.at..end)
            .ok_or(Error::Incomplete { at: self.at })?;
        self.at = end;
        Ok(raw)
    }

    /// Reads an array header and returns the declared number of values.
    ///
    /// # Errors
    /// [`Error::WrongType`] when the next value has another type; it is not consumed then.
    pub fn array_len(&mut self) -> Result<u32, Error> {
        self.typed("an array", |value| {
            if let Value::Array(n) = value {
                Some(n)
            } else {
                None
            }
        })
    }

    /// Reads a map header and returns the declared number of pairs.
    ///
    /// # Errors
    /// [`Error::WrongType`] when the next value has another type; it is not consumed then.
    pub fn map_len(&mut self) -> Result<u32, Error> {
        self.typed(
            "a map",
            |value| if let Value::Map(n) = value { Some(n) } else { None },
        )
    }

    /// Reads a string or binary.
    ///
    /// # Errors
    /// [`Error::WrongType`] when the next value has another type; it is not consumed then.
    pub fn str_or_bin(&mut self) -> Result<&'a [u8], Error> {
        self.typed("a string or binary", |value| value.as_bytes())
    }

    /// Reads an integer that fits in an `i64`.
    ///
    /// # Errors
    /// [`Error::WrongType`] when the next value has another type; it is not consumed then.
    pub fn int(&mut self) -> Result<i64, Error> {
        self.typed("an integer below 2^63", |value| value.as_i64())
    }

    fn typed<T>(
        &mut self,
        expected: &'static str,
        pick: impl FnOnce(Value<'a>) -> Option<T>,
    ) -> Result<T, Error> {
        let at = self.at;
        let (value, next) = Value::read(self.buf, at)?;
        let found = self.kind().unwrap_or(Kind::Illegal);
        let picked = pick(value).ok_or(Error::WrongType { at, expected, found })?;
        self.at = next;
        Ok(picked)
    }
}
