//! Encoding of a client's messages, detected by their first byte: MessagePack, or JSON that is
//! converted to MessagePack.

use bytes::{Buf, BytesMut};
use forward_protocol::json::{JsonCarrier, JsonViolation, is_json};

/// The encoding of one connection.
pub(super) enum Encoding {
    /// No byte has come yet.
    Undetected,
    MessagePack,
    /// JSON is converted before anything else, so that the journal holds one encoding.
    Json {
        converter: JsonCarrier,
        /// JSON text that is not converted yet.
        text: BytesMut,
    },
}

impl Encoding {
    pub(super) fn is_json(&self) -> bool {
        matches!(self, Self::Json { .. })
    }

    /// The buffer that the socket is read into; `messages` is that of MessagePack messages.
    pub(super) fn receive_buffer<'b>(&'b mut self, messages: &'b mut BytesMut) -> &'b mut BytesMut {
        match self {
            Self::Json { text, .. } => text,
            Self::Undetected | Self::MessagePack => messages,
        }
    }

    /// Bytes of a message that has begun and is not complete.
    pub(super) fn begun_bytes(&self, messages: &BytesMut) -> usize {
        match self {
            Self::Json { text, .. } => text.len() + messages.len(),
            Self::Undetected | Self::MessagePack => messages.len(),
        }
    }

    /// Detects the encoding by the first byte, and converts JSON to `messages`.
    pub(super) fn convert(&mut self, messages: &mut BytesMut, max_message: usize) -> Option<JsonViolation> {
        if matches!(self, Self::Undetected)
            && let Some(first) = messages.first()
        {
            *self = if is_json(*first) {
                Self::Json {
                    converter: JsonCarrier::new(max_message),
                    text: std::mem::take(messages),
                }
            } else {
                Self::MessagePack
            };
        }
        let Self::Json { converter, text } = self else {
            return None;
        };
        let mut converted = Vec::new();
        let result = converter.convert(text, &mut converted);
        text.advance(result.consumed);
        messages.extend_from_slice(&converted);
        result.violation
    }
}
