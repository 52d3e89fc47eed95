//! A minimal MessagePack encoder and decoder.
//!
//! Written from the MessagePack specification, so that the suite shares no code with a peer under
//! test. The encoder writes one value per call and values are concatenated, so that every header
//! format can be produced. The decoder reads the few small values that peers send. Neither is
//! optimised.

/// The bytes of one MessagePack value.
pub(crate) type Raw = Vec<u8>;

pub(crate) fn nil() -> Raw {
    vec![0xc0]
}

pub(crate) fn boolean(b: bool) -> Raw {
    vec![if b { 0xc3 } else { 0xc2 }]
}

/// An integer in its shortest format.
pub(crate) fn int(v: i64) -> Raw {
    match v {
        0.. => uint(v.unsigned_abs()),
        -32..0 => v.to_be_bytes()[7..].to_vec(),
        -0x80..-32 => head(0xd0, &v.to_be_bytes()[7..]),
        -0x8000..-0x80 => head(0xd1, &v.to_be_bytes()[6..]),
        -0x8000_0000..-0x8000 => head(0xd2, &v.to_be_bytes()[4..]),
        _ => head(0xd3, &v.to_be_bytes()),
    }
}

/// An unsigned integer in its shortest format.
pub(crate) fn uint(v: u64) -> Raw {
    let b = v.to_be_bytes();
    match v {
        0..0x80 => b[7..].to_vec(),
        0x80..0x100 => head(0xcc, &b[7..]),
        0x100..0x1_0000 => head(0xcd, &b[6..]),
        0x1_0000..0x1_0000_0000 => head(0xce, &b[4..]),
        _ => head(0xcf, &b),
    }
}

/// An integer as int 32 (`d2`), whatever its size.
pub(crate) fn int32(v: i32) -> Raw {
    head(0xd2, &v.to_be_bytes())
}

pub(crate) fn f64(v: f64) -> Raw {
    head(0xcb, &v.to_be_bytes())
}

pub(crate) fn f32(v: f32) -> Raw {
    head(0xca, &v.to_be_bytes())
}

/// A string in its shortest format.
pub(crate) fn s(text: &str) -> Raw {
    str_bytes(text.as_bytes())
}

/// A `str` of any bytes, UTF-8 or not, in its shortest format.
pub(crate) fn str_bytes(bytes: &[u8]) -> Raw {
    let format = match bytes.len() {
        0..32 => Format::FixStr,
        32..0x100 => Format::Str8,
        0x100..0x1_0000 => Format::Str16,
        _ => Format::Str32,
    };
    blob(format, bytes)
}

/// A `bin` in its shortest format.
pub(crate) fn bin(bytes: &[u8]) -> Raw {
    let format = match bytes.len() {
        0..0x100 => Format::Bin8,
        0x100..0x1_0000 => Format::Bin16,
        _ => Format::Bin32,
    };
    blob(format, bytes)
}

/// The header format of a `str` or `bin`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    FixStr,
    Str8,
    Str16,
    Str32,
    Bin8,
    Bin16,
    Bin32,
}

/// A `str` or `bin` with exactly this header format, shortest or not.
pub(crate) fn blob(format: Format, bytes: &[u8]) -> Raw {
    let n = bytes.len().to_be_bytes();
    let mut out = match format {
        Format::FixStr => vec![0xa0 | n[7]],
        Format::Str8 => head(0xd9, &n[7..]),
        Format::Str16 => head(0xda, &n[6..]),
        Format::Str32 => head(0xdb, &n[4..]),
        Format::Bin8 => head(0xc4, &n[7..]),
        Format::Bin16 => head(0xc5, &n[6..]),
        Format::Bin32 => head(0xc6, &n[4..]),
    };
    out.extend_from_slice(bytes);
    out
}

/// An array, shortest header.
pub(crate) fn array(items: &[Raw]) -> Raw {
    let n = items.len().to_be_bytes();
    let header = match items.len() {
        0..16 => vec![0x90 | n[7]],
        16..0x1_0000 => head(0xdc, &n[6..]),
        _ => head(0xdd, &n[4..]),
    };
    join(header, items)
}

/// An array with an array 32 header.
pub(crate) fn array32(items: &[Raw]) -> Raw {
    join(head(0xdd, &items.len().to_be_bytes()[4..]), items)
}

/// A map, shortest header.
pub(crate) fn map(pairs: &[(Raw, Raw)]) -> Raw {
    let n = pairs.len().to_be_bytes();
    let header = match pairs.len() {
        0..16 => vec![0x80 | n[7]],
        16..0x1_0000 => head(0xde, &n[6..]),
        _ => head(0xdf, &n[4..]),
    };
    pairs
        .iter()
        .fold(header, |out, (k, v)| concat(&[out, k.clone(), v.clone()]))
}

/// A map with a map 32 header, as Fluent Bit writes it.
pub(crate) fn map32(pairs: &[(Raw, Raw)]) -> Raw {
    let header = head(0xdf, &pairs.len().to_be_bytes()[4..]);
    pairs
        .iter()
        .fold(header, |out, (k, v)| concat(&[out, k.clone(), v.clone()]))
}

/// An extension value: fixext where the length has one, ext 8/16 otherwise.
pub(crate) fn ext(kind: i8, payload: &[u8]) -> Raw {
    let kind = kind.to_be_bytes();
    let n = payload.len().to_be_bytes();
    let mut out = match payload.len() {
        1 => vec![0xd4],
        2 => vec![0xd5],
        4 => vec![0xd6],
        8 => vec![0xd7],
        16 => vec![0xd8],
        0..0x100 => head(0xc7, &n[7..]),
        _ => head(0xc8, &n[6..]),
    };
    out.extend_from_slice(&kind);
    out.extend_from_slice(payload);
    out
}

/// EventTime as fixext 8 (`d7 00`), the usual format.
pub(crate) fn event_time(sec: u32, nsec: u32) -> Raw {
    ext(
        0,
        &concat(&[sec.to_be_bytes().to_vec(), nsec.to_be_bytes().to_vec()]),
    )
}

/// EventTime as ext 8 (`c7 08 00`), which the specification also allows.
pub(crate) fn event_time_ext8(sec: u32, nsec: u32) -> Raw {
    concat(&[
        vec![0xc7, 8, 0],
        sec.to_be_bytes().to_vec(),
        nsec.to_be_bytes().to_vec(),
    ])
}

/// Concatenated values.
pub(crate) fn concat(parts: &[Raw]) -> Raw {
    parts.concat()
}

fn head(byte: u8, rest: &[u8]) -> Raw {
    let mut out = vec![byte];
    out.extend_from_slice(rest);
    out
}

fn join(mut header: Raw, items: &[Raw]) -> Raw {
    for item in items {
        header.extend_from_slice(item);
    }
    header
}

/// One decoded value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Nil,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(Vec<u8>),
    Bin(Vec<u8>),
    Array(Vec<Self>),
    Map(Vec<(Self, Self)>),
    Ext(i8, Vec<u8>),
}

impl Value {
    /// The bytes of a `str` or `bin`.
    pub(crate) fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Str(b) | Self::Bin(b) => Some(b),
            _ => None,
        }
    }

    /// The text of a `str`, replaced where it is not UTF-8.
    pub(crate) fn text(&self) -> Option<String> {
        match self {
            Self::Str(b) => Some(String::from_utf8_lossy(b).into_owned()),
            _ => None,
        }
    }

    /// The value of the first pair of a map with this `str` (or `bin`) key.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Map(pairs) => pairs
                .iter()
                .find(|(k, _)| k.bytes() == Some(key.as_bytes()))
                .map(|(_, v)| v),
            _ => None,
        }
    }

    /// The items of an array.
    pub(crate) fn items(&self) -> Option<&[Self]> {
        match self {
            Self::Array(items) => Some(items),
            _ => None,
        }
    }
}

/// The result of [`read`].
#[derive(Debug, PartialEq)]
pub(crate) enum Parsed {
    /// The value and its length in bytes.
    Complete(Value, usize),
    /// More bytes are needed.
    Incomplete,
    /// Not MessagePack.
    Invalid(String),
}

/// Reads the first value of `input`.
pub(crate) fn read(input: &[u8]) -> Parsed {
    let mut cursor = Cursor { input, at: 0 };
    match cursor.value(0) {
        Ok(value) => Parsed::Complete(value, cursor.at),
        Err(None) => Parsed::Incomplete,
        Err(Some(why)) => Parsed::Invalid(why),
    }
}

/// All values of `input`, which must end with a whole value.
pub(crate) fn read_all(mut input: &[u8]) -> Result<Vec<Value>, String> {
    let mut values = Vec::new();
    while !input.is_empty() {
        match read(input) {
            Parsed::Complete(value, n) => {
                values.push(value);
                input = &input[n..];
            }
            Parsed::Incomplete => return Err(format!("ends inside a value: {}", hex(input))),
            Parsed::Invalid(why) => return Err(why),
        }
    }
    Ok(values)
}

struct Cursor<'a> {
    input: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn take(&mut self, n: usize) -> Result<Vec<u8>, Option<String>> {
        if n > 1 << 30 {
            return Err(Some(format!("{n} bytes in one value")));
        }
        let end = self.at.checked_add(n).ok_or(None)?;
        let bytes = self.input.get(self.at..end).ok_or(None)?.to_vec();
        self.at = end;
        Ok(bytes)
    }

    fn number(&mut self, n: usize) -> Result<u64, Option<String>> {
        Ok(self.take(n)?.iter().fold(0, |v, b| v << 8 | u64::from(*b)))
    }

    fn length(&mut self, n: usize) -> Result<usize, Option<String>> {
        usize::try_from(self.number(n)?).map_err(|e| Some(e.to_string()))
    }

    fn signed(&mut self, n: usize) -> Result<Value, Option<String>> {
        let shift = 64 - 8 * n as u32;
        let bits = self.number(n)? << shift;
        Ok(Value::Int(i128::from(bits.cast_signed() >> shift)))
    }

    fn array(&mut self, n: usize, depth: usize) -> Result<Value, Option<String>> {
        (0..n)
            .map(|_| self.value(depth + 1))
            .collect::<Result<_, _>>()
            .map(Value::Array)
    }

    fn map(&mut self, n: usize, depth: usize) -> Result<Value, Option<String>> {
        (0..n)
            .map(|_| Ok((self.value(depth + 1)?, self.value(depth + 1)?)))
            .collect::<Result<_, _>>()
            .map(Value::Map)
    }

    fn ext(&mut self, n: usize) -> Result<Value, Option<String>> {
        let kind = self.number(1)? as u8;
        Ok(Value::Ext(kind.cast_signed(), self.take(n)?))
    }

    fn value(&mut self, depth: usize) -> Result<Value, Option<String>> {
        if depth > 1000 {
            return Err(Some("nested deeper than 1000".into()));
        }
        let head = self.number(1)? as u8;
        Ok(match head {
            0x00..=0x7f => Value::Int(head.into()),
            0x80..=0x8f => self.map(usize::from(head & 15), depth)?,
            0x90..=0x9f => self.array(usize::from(head & 15), depth)?,
            0xa0..=0xbf => Value::Str(self.take(usize::from(head & 31))?),
            0xc0 => Value::Nil,
            0xc1 => return Err(Some("byte c1, which msgpack never uses".into())),
            0xc2 | 0xc3 => Value::Bool(head == 0xc3),
            0xc4..=0xc6 => {
                let n = self.length(1 << (head - 0xc4))?;
                Value::Bin(self.take(n)?)
            }
            0xc7..=0xc9 => {
                let n = self.length(1 << (head - 0xc7))?;
                self.ext(n)?
            }
            0xca => Value::Float(f64::from(f32::from_bits(self.number(4)? as u32))),
            0xcb => Value::Float(f64::from_bits(self.number(8)?)),
            0xcc..=0xcf => Value::Int(self.number(1 << (head - 0xcc))?.into()),
            0xd0..=0xd3 => self.signed(1 << (head - 0xd0))?,
            0xd4..=0xd8 => self.ext(1 << (head - 0xd4))?,
            0xd9..=0xdb => {
                let n = self.length(1 << (head - 0xd9))?;
                Value::Str(self.take(n)?)
            }
            0xdc | 0xdd => {
                let n = self.length(if head == 0xdc { 2 } else { 4 })?;
                self.array(n, depth)?
            }
            0xde | 0xdf => {
                let n = self.length(if head == 0xde { 2 } else { 4 })?;
                self.map(n, depth)?
            }
            0xe0..=0xff => Value::Int(i128::from(head.cast_signed())),
        })
    }
}

/// Lower-case hex of the first 96 bytes, with the length when there are more.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let shown: String = bytes.iter().take(96).map(|b| format!("{b:02x}")).collect();
    if bytes.len() > 96 {
        format!("{shown}… ({} bytes)", bytes.len())
    } else {
        shown
    }
}

/// The bytes of a hex literal.
pub(crate) fn unhex(text: &str) -> Vec<u8> {
    let digit = |b: u8| (b as char).to_digit(16).unwrap_or_default() as u8;
    text.as_bytes()
        .chunks(2)
        .map(|pair| pair.iter().fold(0, |v, b| v << 4 | digit(*b)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_values_have_the_bytes_of_the_specification() {
        assert_eq!(hex(&int(-1)), "ff");
        assert_eq!(hex(&int(-33)), "d0df");
        assert_eq!(hex(&int(-129)), "d1ff7f");
        assert_eq!(hex(&int(-2_147_483_649)), "d3ffffffff7fffffff");
        assert_eq!(hex(&uint(127)), "7f");
        assert_eq!(hex(&uint(128)), "cc80");
        assert_eq!(hex(&uint(65_536)), "ce00010000");
        assert_eq!(hex(&uint(u64::MAX)), "cfffffffffffffffff");
        assert_eq!(hex(&s("hi")), "a26869");
        assert_eq!(hex(&bin(b"hi")), "c4026869");
        assert_eq!(
            hex(&event_time(1_700_000_000, 123_456_789)),
            "d7006553f100075bcd15"
        );
        assert_eq!(hex(&map32(&[])), "df00000000");
    }

    #[test]
    fn what_is_written_is_read_back() {
        let value = array(&[
            int(-129),
            uint(u64::MAX),
            s("a"),
            bin(&[0xff]),
            map(&[(s("k"), nil())]),
            f64(1.5),
        ]);
        let expected = Value::Array(vec![
            Value::Int(-129),
            Value::Int(u64::MAX.into()),
            Value::Str(b"a".to_vec()),
            Value::Bin(vec![0xff]),
            Value::Map(vec![(Value::Str(b"k".to_vec()), Value::Nil)]),
            Value::Float(1.5),
        ]);
        assert_eq!(read(&value), Parsed::Complete(expected, value.len()));
        for end in 0..value.len() {
            assert_eq!(read(&value[..end]), Parsed::Incomplete, "cut at {end}");
        }
        assert!(matches!(read(&[0xc1]), Parsed::Invalid(_)));
    }
}
