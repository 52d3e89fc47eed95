//! Forward message that is built from a request: a tag, entries, and a chunk id if the request names
//! one.

use bytes::Bytes;
use forward_protocol::msgpack::{write_map_len, write_str, write_u64};
use hyper::HeaderMap;

use super::answer::Problem;
use crate::buffer_pool::BufferPool;

/// Longest idempotency key, in bytes.
const MAX_KEY_BYTES: usize = 255;
/// Room for the options after the entries.
const OPTION_BYTES: usize = MAX_KEY_BYTES + 32;

/// A message in PackedForward mode whose entries are being appended.
#[derive(Debug)]
pub(in crate::input) struct MessageBuilder {
    /// The message so far; entries are appended here.
    pub(in crate::input) out: Vec<u8>,
    /// Where the entries begin.
    entries: usize,
}

impl MessageBuilder {
    /// Begins a message in a buffer of at least `capacity` bytes: a buffer that grows would be there
    /// twice for a moment. What is not written takes no memory.
    pub(in crate::input) fn new(tag: &[u8], capacity: usize, pool: &BufferPool) -> Self {
        let capacity = capacity + tag.len() + OPTION_BYTES;
        let pooled = pool.take(capacity).map(Vec::from);
        let mut out = pooled.unwrap_or_else(|| Vec::with_capacity(capacity));
        // An array of 2 or 3, which `finish` decides, and a binary whose length it writes.
        out.push(0);
        write_str(&mut out, tag);
        out.extend_from_slice(&[0xc6, 0, 0, 0, 0]);
        let entries = out.len();
        Self { out, entries }
    }

    /// Ends the message, which has `count` entries.
    pub(in crate::input) fn finish(self, count: u64, chunk: Option<&[u8]>) -> Bytes {
        let Self { mut out, entries } = self;
        // A body is limited to 1 GiB.
        let length = (out.len() - entries) as u32;
        if let Some(field) = out.get_mut(entries - 4..entries) {
            field.copy_from_slice(&length.to_be_bytes());
        }
        if let Some(first) = out.first_mut() {
            *first = if chunk.is_some() { 0x93 } else { 0x92 };
        }
        if let Some(chunk) = chunk {
            write_map_len(&mut out, 2);
            write_str(&mut out, b"chunk");
            write_str(&mut out, chunk);
            write_str(&mut out, b"size");
            write_u64(&mut out, count);
        }
        out.into()
    }
}

/// The chunk id that `Idempotency-Key` asks for: the key, with quotes (a string of RFC 8941) or
/// without.
///
/// `X-Request-Id` is none: proxies make a new one for each attempt, or the same one for requests
/// that differ.
pub(in crate::input) fn idempotency_key(headers: &HeaderMap) -> Result<Option<Vec<u8>>, Problem> {
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.any(|other| other != value) {
        return Err(Problem::Malformed(
            "the request has several headers Idempotency-Key, which differ; send one".into(),
        ));
    }
    let key = value.as_bytes().trim_ascii();
    let quoted = key.strip_prefix(b"\"").and_then(|key| key.strip_suffix(b"\""));
    let key = quoted.unwrap_or(key);
    match key.len() {
        1..=MAX_KEY_BYTES => Ok(Some(key.to_vec())),
        length => Err(Problem::Malformed(format!(
            "Idempotency-Key has {length} bytes; allowed: 1 to {MAX_KEY_BYTES}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use forward_protocol::frame::{Limits, messages};

    use super::*;

    #[test]
    fn a_built_message_is_a_forward_message() {
        let pool = BufferPool::default();
        for chunk in [None, Some(&b"key"[..])] {
            let mut message = MessageBuilder::new(b"app", 0, &pool);
            message.out.extend_from_slice(b"\x92\xc0\x80");
            let bytes = message.finish(1, chunk);
            let found: Vec<_> = messages(&bytes, Limits::default()).map(Result::unwrap).collect();
            assert_eq!(found.len(), 1);
            assert_eq!((found[0].tag, found[0].body), (&b"app"[..], &b"\x92\xc0\x80"[..]));
            assert_eq!(found[0].options.chunk, chunk.map(|_| &b"\xa3key"[..]));
            assert_eq!(found[0].options.size, chunk.map(|_| 1));
        }
    }

    #[test]
    fn keys_are_read_with_quotes_and_without() {
        let key = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("idempotency-key", value.parse().unwrap());
            idempotency_key(&headers)
        };
        assert_eq!(idempotency_key(&HeaderMap::new()).unwrap(), None);
        assert_eq!(key("a-b").unwrap().unwrap(), b"a-b");
        assert_eq!(key("\"a-b\"").unwrap().unwrap(), b"a-b");
        let mut several = HeaderMap::new();
        for (value, accepted) in [("a", true), ("a", true), ("b", false)] {
            several.append("idempotency-key", value.parse().unwrap());
            assert_eq!(idempotency_key(&several).is_ok(), accepted, "{several:?}");
        }
        for wrong in ["", "\"\"", &"x".repeat(256)] {
            assert!(key(wrong).is_err(), "{wrong}");
        }
    }
}
