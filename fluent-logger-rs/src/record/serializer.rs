//! MessagePack serializer for records.
//!
//! Writes a struct as a map and refuses during the walk what no server accepts: keys that are not
//! text and containers nested too deep. Differs from `rmp-serde` in what a document needs:
//!
//! * integers of 128 bits are integers if 64 bits hold them, else their decimal text,
//! * keys that are integers, booleans, characters or unit variants become text, as in JSON,
//! * types with a form for people (addresses, UUIDs, times) are serialised in that form,
//! * a unit struct is nil.

mod key;

use std::fmt;

use forward_protocol::msgpack::{
    write_array_len, write_bin, write_bool, write_f32, write_f64, write_i64, write_map_len, write_nil,
    write_str, write_u64,
};
use serde::ser::{
    Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

use super::MAX_DEPTH;
use crate::error::Rejected;
use key::KeySerializer;

/// Marker bytes of containers whose length has 32 bits.
const ARRAY32: u8 = 0xdd;
const MAP32: u8 = 0xdf;

/// Writes one value; `depth` is the number of containers around it.
pub(super) struct RecordSerializer<'a> {
    out: &'a mut Vec<u8>,
    depth: usize,
}

impl<'a> RecordSerializer<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out, depth: 0 }
    }

    /// Writes the header of a container; of unknown length it is patched at the end.
    #[inline]
    fn open(self, is_map: bool, len: Option<usize>) -> Result<Container<'a>, SerializeError> {
        if self.depth >= MAX_DEPTH {
            return Err(SerializeError(Rejected::TooDeep { limit: MAX_DEPTH }));
        }
        let header = self.out.len();
        match len {
            Some(len) => {
                let count = u32::try_from(len).map_err(|_| too_long())?;
                if is_map {
                    write_map_len(self.out, count);
                } else {
                    write_array_len(self.out, count);
                }
            }
            None => self
                .out
                .extend_from_slice(&[if is_map { MAP32 } else { ARRAY32 }, 0, 0, 0, 0]),
        }
        Ok(Container {
            out: self.out,
            depth: self.depth + 1,
            expected: len,
            written: 0,
            header,
        })
    }

    /// Writes the map of one pair around the content of an enum variant.
    #[inline]
    fn open_variant(self, variant: &'static str) -> Result<Self, SerializeError> {
        let container = self.open(true, Some(1))?;
        write_str(container.out, variant.as_bytes());
        Ok(Self {
            out: container.out,
            depth: container.depth,
        })
    }
}

impl<'a> Serializer for RecordSerializer<'a> {
    type Ok = ();
    type Error = SerializeError;
    type SerializeSeq = Container<'a>;
    type SerializeTuple = Container<'a>;
    type SerializeTupleStruct = Container<'a>;
    type SerializeTupleVariant = Container<'a>;
    type SerializeMap = Container<'a>;
    type SerializeStruct = Container<'a>;
    type SerializeStructVariant = Container<'a>;

    fn is_human_readable(&self) -> bool {
        true
    }

    fn serialize_bool(self, value: bool) -> Result<(), SerializeError> {
        write_bool(self.out, value);
        Ok(())
    }

    fn serialize_i8(self, value: i8) -> Result<(), SerializeError> {
        self.serialize_i64(i64::from(value))
    }

    fn serialize_i16(self, value: i16) -> Result<(), SerializeError> {
        self.serialize_i64(i64::from(value))
    }

    fn serialize_i32(self, value: i32) -> Result<(), SerializeError> {
        self.serialize_i64(i64::from(value))
    }

    fn serialize_i64(self, value: i64) -> Result<(), SerializeError> {
        write_i64(self.out, value);
        Ok(())
    }

    fn serialize_i128(self, value: i128) -> Result<(), SerializeError> {
        write_i128(self.out, value);
        Ok(())
    }

    fn serialize_u8(self, value: u8) -> Result<(), SerializeError> {
        self.serialize_u64(u64::from(value))
    }

    fn serialize_u16(self, value: u16) -> Result<(), SerializeError> {
        self.serialize_u64(u64::from(value))
    }

    fn serialize_u32(self, value: u32) -> Result<(), SerializeError> {
        self.serialize_u64(u64::from(value))
    }

    fn serialize_u64(self, value: u64) -> Result<(), SerializeError> {
        write_u64(self.out, value);
        Ok(())
    }

    fn serialize_u128(self, value: u128) -> Result<(), SerializeError> {
        write_u128(self.out, value);
        Ok(())
    }

    fn serialize_f32(self, value: f32) -> Result<(), SerializeError> {
        write_f32(self.out, value);
        Ok(())
    }

    fn serialize_f64(self, value: f64) -> Result<(), SerializeError> {
        write_f64(self.out, value);
        Ok(())
    }

    fn serialize_char(self, value: char) -> Result<(), SerializeError> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Result<(), SerializeError> {
        write_str(self.out, value.as_bytes());
        Ok(())
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), SerializeError> {
        write_bin(self.out, value);
        Ok(())
    }

    fn serialize_none(self) -> Result<(), SerializeError> {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), SerializeError> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), SerializeError> {
        write_nil(self.out);
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), SerializeError> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<(), SerializeError> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), SerializeError> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), SerializeError> {
        value.serialize(self.open_variant(variant)?)
    }

    fn serialize_seq(self, len: Option<usize>) -> Result<Container<'a>, SerializeError> {
        self.open(false, len)
    }

    fn serialize_tuple(self, len: usize) -> Result<Container<'a>, SerializeError> {
        self.open(false, Some(len))
    }

    fn serialize_tuple_struct(self, _: &'static str, len: usize) -> Result<Container<'a>, SerializeError> {
        self.open(false, Some(len))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Container<'a>, SerializeError> {
        self.open_variant(variant)?.open(false, Some(len))
    }

    fn serialize_map(self, len: Option<usize>) -> Result<Container<'a>, SerializeError> {
        self.open(true, len)
    }

    fn serialize_struct(self, _: &'static str, len: usize) -> Result<Container<'a>, SerializeError> {
        self.open(true, Some(len))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Container<'a>, SerializeError> {
        self.open_variant(variant)?.open(true, Some(len))
    }

    fn collect_str<T: fmt::Display + ?Sized>(self, value: &T) -> Result<(), SerializeError> {
        self.serialize_str(&value.to_string())
    }
}

/// An open map or array.
pub(super) struct Container<'a> {
    out: &'a mut Vec<u8>,
    depth: usize,
    /// Pairs or items that the header states, if it does.
    expected: Option<usize>,
    written: usize,
    /// Where the header begins.
    header: usize,
}

impl Container<'_> {
    #[inline]
    fn value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), SerializeError> {
        value.serialize(RecordSerializer {
            out: self.out,
            depth: self.depth,
        })
    }

    #[inline]
    fn item<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), SerializeError> {
        self.written += 1;
        self.value(value)
    }

    #[inline]
    fn field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), SerializeError> {
        self.written += 1;
        write_str(self.out, key.as_bytes());
        self.value(value)
    }

    #[inline]
    fn close(self) -> Result<(), SerializeError> {
        match self.expected {
            Some(expected) if expected == self.written => Ok(()),
            Some(expected) => Err(unserializable(format!(
                "a container of {expected} elements has {}",
                self.written
            ))),
            None => {
                let count = u32::try_from(self.written).map_err(|_| too_long())?;
                if let Some(length) = self.out.get_mut(self.header + 1..self.header + 5) {
                    length.copy_from_slice(&count.to_be_bytes());
                }
                Ok(())
            }
        }
    }
}

impl SerializeSeq for Container<'_> {
    type Ok = ();
    type Error = SerializeError;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), SerializeError> {
        self.item(value)
    }

    fn end(self) -> Result<(), SerializeError> {
        self.close()
    }
}

impl SerializeTuple for Container<'_> {
    type Ok = ();
    type Error = SerializeError;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), SerializeError> {
        self.item(value)
    }

    fn end(self) -> Result<(), SerializeError> {
        self.close()
    }
}

impl SerializeTupleStruct for Container<'_> {
    type Ok = ();
    type Error = SerializeError;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), SerializeError> {
        self.item(value)
    }

    fn end(self) -> Result<(), SerializeError> {
        self.close()
    }
}

impl SerializeTupleVariant for Container<'_> {
    type Ok = ();
    type Error = SerializeError;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), SerializeError> {
        self.item(value)
    }

    fn end(self) -> Result<(), SerializeError> {
        self.close()
    }
}

impl SerializeMap for Container<'_> {
    type Ok = ();
    type Error = SerializeError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), SerializeError> {
        self.written += 1;
        key.serialize(KeySerializer { out: self.out })
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), SerializeError> {
        self.value(value)
    }

    fn end(self) -> Result<(), SerializeError> {
        self.close()
    }
}

impl SerializeStruct for Container<'_> {
    type Ok = ();
    type Error = SerializeError;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        value: &T,
    ) -> Result<(), SerializeError> {
        self.field(key, value)
    }

    fn end(self) -> Result<(), SerializeError> {
        self.close()
    }
}

impl SerializeStructVariant for Container<'_> {
    type Ok = ();
    type Error = SerializeError;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        value: &T,
    ) -> Result<(), SerializeError> {
        self.field(key, value)
    }

    fn end(self) -> Result<(), SerializeError> {
        self.close()
    }
}

/// Writes an integer if 64 bits hold it, else its decimal text.
pub(crate) fn write_i128(out: &mut Vec<u8>, value: i128) {
    match (i64::try_from(value), u64::try_from(value)) {
        (Ok(value), _) => write_i64(out, value),
        (_, Ok(value)) => write_u64(out, value),
        _ => write_str(out, value.to_string().as_bytes()),
    }
}

/// As [`write_i128`].
pub(crate) fn write_u128(out: &mut Vec<u8>, value: u128) {
    match u64::try_from(value) {
        Ok(value) => write_u64(out, value),
        Err(_) => write_str(out, value.to_string().as_bytes()),
    }
}

/// Why a record cannot be serialised.
#[derive(Debug)]
pub(super) struct SerializeError(pub(super) Rejected);

fn unserializable(reason: String) -> SerializeError {
    SerializeError(Rejected::Unserializable { reason })
}

fn too_long() -> SerializeError {
    unserializable("a container has more than 4,294,967,295 elements".to_owned())
}

impl fmt::Display for SerializeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for SerializeError {}

impl serde::ser::Error for SerializeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        unserializable(message.to_string())
    }
}

#[cfg(test)]
mod tests;
