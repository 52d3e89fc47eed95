//! Encoding of a client's messages, detected by their first byte: MessagePack, or JSON that is
//! converted to MessagePack.

use bytes::{Buf, Bytes, BytesMut};
use forward_protocol::json::{JsonCarrier, JsonViolation, is_json};

use crate::runtime::CpuPool;

/// From this size on, a text is converted while another thread serves this worker's sockets, and
/// its buffer is freed.
const LARGE_TEXT_BYTES: usize = 64 << 10;

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

    /// Whether the first byte has come and begins JSON.
    pub(super) fn would_be_json(&self, messages: &BytesMut) -> bool {
        matches!(self, Self::Undetected) && messages.first().is_some_and(|first| is_json(*first))
    }

    /// How many bytes of memory a message takes whose receive buffer has `buffer_bytes`: a JSON text
    /// has its message beside it in the end.
    pub(super) fn memory_bytes(&self, buffer_bytes: usize) -> usize {
        match self {
            Self::Json { .. } => 2 * buffer_bytes,
            Self::Undetected | Self::MessagePack => buffer_bytes,
        }
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
    pub(super) async fn convert(
        &mut self,
        messages: &mut BytesMut,
        max_message: usize,
        cpu_pool: &CpuPool,
    ) -> Option<JsonViolation> {
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
        let result;
        if text.len() < LARGE_TEXT_BYTES {
            result = converter.convert(text, &mut converted);
        } else {
            let mut moved = std::mem::replace(converter, JsonCarrier::new(max_message));
            let text_moved = std::mem::take(text);
            (*converter, *text, converted, result) = cpu_pool
                .run(move || {
                    let result = moved.convert(&text_moved, &mut converted);
                    (moved, text_moved, converted, result)
                })
                .await;
        }
        text.advance(result.consumed);
        if result.consumed >= LARGE_TEXT_BYTES {
            *text = BytesMut::from(text.as_ref());
        }
        if messages.is_empty() {
            // Without a copy.
            *messages = BytesMut::from(Bytes::from(converted));
        } else {
            messages.extend_from_slice(&converted);
        }
        result.violation
    }
}
