//! What a server says: acks, and things that are none.
//!
//! Owns the reading of answers from a stream that may bring them byte by byte or many at once.

use forward_protocol::msgpack::{Reader, Scanner, Value};

/// No answer of a server is longer than this, in bytes; an ack is below 100.
const LIMIT: usize = 64 * 1024;

/// Containers inside each other that an answer may have.
const DEPTH: u32 = 16;

/// One answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// `{"ack": id}`.
    Ack(Vec<u8>),
    /// A map without a readable ack: the server refuses (Vector sends `{}`).
    Refusal,
    /// `["HELO", …]`: the server wants a handshake.
    Helo,
    /// Something else, whole: of no concern.
    Other,
}

/// Bytes as they come, cut into answers.
#[derive(Debug)]
pub(crate) struct Answers {
    bytes: Vec<u8>,
    scanner: Scanner,
}

impl Answers {
    /// `rest` is what was read already and belongs to the answers.
    pub(crate) fn new(rest: Vec<u8>) -> Self {
        Self {
            bytes: rest,
            scanner: Scanner::new(0, LIMIT, DEPTH),
        }
    }

    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole answer; `None` when bytes are missing.
    pub(crate) fn next(&mut self) -> Result<Option<Answer>, String> {
        let Some(end) = self
            .scanner
            .scan(&self.bytes)
            .map_err(|error| error.to_string())?
        else {
            return Ok(None);
        };
        let answer = read(self.bytes.get(..end).unwrap_or_default());
        self.bytes.drain(..end);
        self.scanner = Scanner::new(0, LIMIT, DEPTH);
        Ok(Some(answer))
    }
}

fn read(bytes: &[u8]) -> Answer {
    let mut reader = Reader::new(bytes);
    match reader.value() {
        Ok(Value::Map(pairs)) => read_ack(reader, pairs).unwrap_or(Answer::Refusal),
        Ok(Value::Array(_)) if reader.str_or_bin().is_ok_and(|name| name == b"HELO") => Answer::Helo,
        _ => Answer::Other,
    }
}

fn read_ack(mut reader: Reader<'_>, pairs: u32) -> Option<Answer> {
    for _ in 0..pairs {
        let key = reader.raw(DEPTH).ok()?;
        let is_ack = matches!(
            Reader::new(key).value(),
            Ok(Value::Str(b"ack") | Value::Bin(b"ack"))
        );
        let value = reader.raw(DEPTH).ok()?;
        if is_ack {
            let id = Reader::new(value).str_or_bin().ok()?;
            return Some(Answer::Ack(id.to_vec()));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(parts: &[&[u8]]) -> Vec<Answer> {
        let mut answers = Answers::new(Vec::new());
        let mut found = Vec::new();
        for part in parts {
            answers.feed(part);
            while let Some(answer) = answers.next().unwrap() {
                found.push(answer);
            }
        }
        found
    }

    fn ack(id: &str) -> Answer {
        Answer::Ack(id.as_bytes().to_vec())
    }

    #[test]
    fn acks_in_every_shape() {
        assert_eq!(all(&[b"\x81\xa3ack\xa3abc"]), [ack("abc")]);
        assert_eq!(all(&[b"\x81\xa3ack\xc4\x03abc"]), [ack("abc")]);
        assert_eq!(all(&[b"\xdf\x00\x00\x00\x01\xa3ack\xd9\x03abc"]), [ack("abc")]);
        assert_eq!(all(&[b"\x82\xa1x\x92\x01\x02\xa3ack\xa3abc"]), [ack("abc")]);
    }

    #[test]
    fn byte_by_byte_and_glued() {
        let two = b"\x81\xa3ack\xa3abc\x81\xa3ack\xa2xy";
        let bytes: Vec<&[u8]> = two.chunks(1).collect();
        assert_eq!(all(&bytes), [ack("abc"), ack("xy")]);
        assert_eq!(all(&[two]), [ack("abc"), ack("xy")]);
    }

    #[test]
    fn what_is_no_ack() {
        assert_eq!(all(&[b"\x80"]), [Answer::Refusal]);
        assert_eq!(all(&[b"\x81\xa3ack\x01"]), [Answer::Refusal]);
        assert_eq!(all(&[b"\x92\xa4HELO\x80"]), [Answer::Helo]);
        assert_eq!(
            all(&[b"\xc0\x00\x91\xc3"]),
            [Answer::Other, Answer::Other, Answer::Other]
        );
    }

    #[test]
    fn nonsense_and_endless_answers_are_errors() {
        let mut answers = Answers::new(Vec::new());
        answers.feed(b"\xc1");
        assert!(answers.next().is_err());
        let mut answers = Answers::new(Vec::new());
        answers.feed(b"\xdb\xff\xff\xff\xff");
        assert!(answers.next().is_err());
    }
}
