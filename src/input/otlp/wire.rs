//! Protobuf wire format, read in place: fields of a message, one after the other.
//!
//! Takes no memory: a declared length is only compared with what there is.

/// A message, and where it begins in the body of the request.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Message<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) offset: usize,
}

/// The value of a field.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    /// A string, bytes or a message.
    Bytes(Message<'a>),
}

/// Bytes that are not protobuf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body is no protobuf message: {what} at byte {at}")]
pub(super) struct Malformed {
    what: &'static str,
    at: usize,
}

impl<'a> Value<'a> {
    /// An integer of any wire type; 0 for others.
    pub(super) fn number(self) -> u64 {
        match self {
            Self::Varint(n) | Self::Fixed64(n) => n,
            Self::Fixed32(n) => u64::from(n),
            Self::Bytes(_) => 0,
        }
    }

    /// A string, bytes or a message; empty for others.
    pub(super) fn message(self) -> Message<'a> {
        match self {
            Self::Bytes(message) => message,
            _ => Message::default(),
        }
    }
}

impl<'a> Message<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: 0 }
    }

    /// Its fields: number and value.
    pub(super) fn fields(self) -> Fields<'a> {
        Fields { message: self, at: 0 }
    }

    /// The messages of the repeated field of this number.
    pub(super) fn repeated(self, number: u32) -> impl Iterator<Item = Result<Self, Malformed>> {
        self.fields().filter_map(move |field| match field {
            Ok((found, Value::Bytes(message))) if found == number => Some(Ok(message)),
            Ok(_) => None,
            Err(malformed) => Some(Err(malformed)),
        })
    }
}

/// Iterator over the fields of a message.
#[derive(Clone, Debug)]
pub(super) struct Fields<'a> {
    message: Message<'a>,
    at: usize,
}

impl<'a> Fields<'a> {
    fn malformed(&self, what: &'static str) -> Malformed {
        let at = self.message.offset + self.at;
        Malformed { what, at }
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let rest = self.message.bytes.get(self.at..).unwrap_or_default();
        let mut value = 0;
        for (n, byte) in rest.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * n);
            if byte & 0x80 == 0 {
                self.at += n + 1;
                return Ok(value);
            }
        }
        Err(self.malformed(if rest.len() < 10 {
            "it ends inside a number"
        } else {
            "a number is too long"
        }))
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], Malformed> {
        let end = usize::try_from(length)
            .ok()
            .and_then(|length| self.at.checked_add(length));
        let taken = end.and_then(|end| Some((end, self.message.bytes.get(self.at..end)?)));
        let (end, bytes) = taken.ok_or_else(|| self.malformed("a field is longer than its message"))?;
        self.at = end;
        Ok(bytes)
    }

    fn field(&mut self) -> Result<(u32, Value<'a>), Malformed> {
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).ok().filter(|number| *number > 0);
        let number = number.ok_or_else(|| self.malformed("a field has an impossible number"))?;
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => {
                let bytes = self.take(8)?.first_chunk().copied().unwrap_or_default();
                Value::Fixed64(u64::from_le_bytes(bytes))
            }
            2 => {
                let length = self.varint()?;
                let offset = self.message.offset + self.at;
                let bytes = self.take(length)?;
                Value::Bytes(Message { bytes, offset })
            }
            5 => {
                let bytes = self.take(4)?.first_chunk().copied().unwrap_or_default();
                Value::Fixed32(u32::from_le_bytes(bytes))
            }
            _ => return Err(self.malformed("a field has an unknown type")),
        };
        Ok((number, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.message.bytes.len() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.at = self.message.bytes.len();
        }
        Some(field)
    }
}
