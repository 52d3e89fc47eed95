//! Serializer for the keys of maps, which are text in a record.

use std::fmt;

use forward_protocol::msgpack::write_str;
use serde::ser::{Impossible, Serialize, Serializer};

use super::SerializeError;
use crate::error::Rejected;

/// Writes a key as text; refuses keys that have no obvious text.
pub(super) struct KeySerializer<'a> {
    pub(super) out: &'a mut Vec<u8>,
}

const NOT_TEXT: SerializeError = SerializeError(Rejected::KeyNotText);

macro_rules! as_text {
    ($($method:ident: $type:ty),+) => {
        $(
            fn $method(self, key: $type) -> Result<(), SerializeError> {
                self.collect_str(&key)
            }
        )+
    };
}

impl Serializer for KeySerializer<'_> {
    type Ok = ();
    type Error = SerializeError;
    type SerializeSeq = Impossible<(), SerializeError>;
    type SerializeTuple = Impossible<(), SerializeError>;
    type SerializeTupleStruct = Impossible<(), SerializeError>;
    type SerializeTupleVariant = Impossible<(), SerializeError>;
    type SerializeMap = Impossible<(), SerializeError>;
    type SerializeStruct = Impossible<(), SerializeError>;
    type SerializeStructVariant = Impossible<(), SerializeError>;

    fn is_human_readable(&self) -> bool {
        true
    }

    as_text!(
        serialize_bool: bool,
        serialize_i8: i8,
        serialize_i16: i16,
        serialize_i32: i32,
        serialize_i64: i64,
        serialize_i128: i128,
        serialize_u8: u8,
        serialize_u16: u16,
        serialize_u32: u32,
        serialize_u64: u64,
        serialize_u128: u128,
        serialize_char: char
    );

    fn serialize_f32(self, _: f32) -> Result<(), SerializeError> {
        Err(NOT_TEXT)
    }

    fn serialize_f64(self, _: f64) -> Result<(), SerializeError> {
        Err(NOT_TEXT)
    }

    fn serialize_str(self, key: &str) -> Result<(), SerializeError> {
        write_str(self.out, key.as_bytes());
        Ok(())
    }

    fn serialize_bytes(self, _: &[u8]) -> Result<(), SerializeError> {
        Err(NOT_TEXT)
    }

    fn serialize_none(self) -> Result<(), SerializeError> {
        Err(NOT_TEXT)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, key: &T) -> Result<(), SerializeError> {
        key.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), SerializeError> {
        Err(NOT_TEXT)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), SerializeError> {
        Err(NOT_TEXT)
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
        key: &T,
    ) -> Result<(), SerializeError> {
        key.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<(), SerializeError> {
        Err(NOT_TEXT)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self::SerializeSeq, SerializeError> {
        Err(NOT_TEXT)
    }

    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, SerializeError> {
        Err(NOT_TEXT)
    }

    fn serialize_tuple_struct(
        self,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleStruct, SerializeError> {
        Err(NOT_TEXT)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, SerializeError> {
        Err(NOT_TEXT)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, SerializeError> {
        Err(NOT_TEXT)
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeStruct, SerializeError> {
        Err(NOT_TEXT)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, SerializeError> {
        Err(NOT_TEXT)
    }

    fn collect_str<T: fmt::Display + ?Sized>(self, key: &T) -> Result<(), SerializeError> {
        self.serialize_str(&key.to_string())
    }
}
