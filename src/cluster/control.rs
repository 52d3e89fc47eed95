//! Control messages between instances, and the replies to them.
//!
//! They are Forward messages without entries, so that every Forward server can answer them: a server
//! that is no member acknowledges a hello as it does any chunk, and is not handed anything.
//!
//! * *hello* asks who answers, and whether everything before it was taken;
//! * *commit* asks for the ack of the shares before it: a connection is served in order, so one ack
//!   stands for all of them.

use forward_protocol::ack::write_ack;
use forward_protocol::frame::Message;
use forward_protocol::msgpack::{
    Reader, Scanner, Value, write_array_len, write_bin, write_map_len, write_str, write_u64,
};

/// The tag of control messages.
const TAG: &[u8] = b"windrow.cluster";
/// The field of a reply in which a member names itself.
const INSTANCE: &[u8] = b"windrow";
/// Longest reply, in bytes.
const MAX_REPLY_BYTES: usize = 4 << 10;
/// Depth of a reply.
const MAX_DEPTH: u32 = 8;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Control {
    /// Who are you? The number comes back.
    Hello(u64),
    /// Are the shares before this durable? The number comes back.
    Commit(u64),
}

/// A reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// To a hello: the instance, if the server is a member.
    Hello { number: u64, instance: Option<u64> },
    /// The shares before the commit of this number are durable.
    Durable(u64),
    /// Anything else.
    Unknown,
}

impl Control {
    /// Appends the message to `out`.
    pub(crate) fn write(self, out: &mut Vec<u8>) {
        let (kind, number) = match self {
            Self::Hello(number) => (b'h', number),
            Self::Commit(number) => (b'c', number),
        };
        write_array_len(out, 3);
        write_str(out, TAG);
        write_bin(out, b"");
        write_map_len(out, 1);
        write_str(out, b"chunk");
        let mut id = [kind, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        for (digit, shift) in id.iter_mut().skip(1).zip((0..16).rev()) {
            *digit = b"0123456789abcdef"[(number >> (4 * shift)) as usize & 15];
        }
        write_str(out, &id);
    }

    /// The control message that `message` is; `None` if it is none.
    pub(crate) fn read(message: &Message<'_>) -> Option<Self> {
        if message.tag != TAG || !message.body.is_empty() {
            return None;
        }
        let (id, _) = Value::read(message.options.chunk?, 0).ok()?;
        Self::of_id(id.as_bytes()?)
    }

    fn of_id(id: &[u8]) -> Option<Self> {
        let (kind, digits) = id.split_first()?;
        let number = u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        match kind {
            b'h' => Some(Self::Hello(number)),
            b'c' => Some(Self::Commit(number)),
            _ => None,
        }
    }
}

/// Appends the reply of member `instance` to a hello whose chunk id, as it came, is `chunk`.
pub(crate) fn write_hello_reply(out: &mut Vec<u8>, chunk: &[u8], instance: u64) {
    let begin = out.len();
    write_ack(out, chunk);
    // A map of two pairs instead of one.
    if let Some(first) = out.get_mut(begin) {
        *first = 0x82;
    }
    write_str(out, INSTANCE);
    write_u64(out, instance);
}

/// Assembles replies from any fragmentation.
#[derive(Debug)]
pub(crate) struct ReplyReader {
    buffer: Vec<u8>,
    scanner: Scanner,
}

/// The peer sent what is no reply.
#[derive(Debug, thiserror::Error)]
#[error("it sent bytes that are no reply of a Forward server")]
pub(crate) struct BadReply;

impl ReplyReader {
    pub(crate) fn new() -> Self {
        Self {
            buffer: Vec::new(),
            scanner: Scanner::new(0, MAX_REPLY_BYTES, MAX_DEPTH),
        }
    }

    /// Appends received bytes. Then call [`Self::reply`] until it returns `None`.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next complete reply.
    pub(crate) fn reply(&mut self) -> Result<Option<Reply>, BadReply> {
        let Some(end) = self.scanner.scan(&self.buffer).map_err(|_| BadReply)? else {
            return Ok(None);
        };
        let reply = self.buffer.get(..end).and_then(read_reply);
        self.buffer.drain(..end);
        self.scanner = Scanner::new(0, MAX_REPLY_BYTES, MAX_DEPTH);
        Ok(Some(reply.unwrap_or(Reply::Unknown)))
    }
}

fn read_reply(value: &[u8]) -> Option<Reply> {
    let mut reader = Reader::new(value);
    let (mut control, mut instance) = (None, None);
    for _ in 0..reader.map_len().ok()? {
        match reader.str_or_bin().ok()? {
            b"ack" => control = Control::of_id(reader.str_or_bin().ok()?),
            INSTANCE => match reader.value().ok()? {
                Value::U64(number) => instance = Some(number),
                _ => return None,
            },
            _ => {
                reader.raw(MAX_DEPTH).ok()?;
            }
        }
    }
    Some(match control? {
        Control::Hello(number) => Reply::Hello { number, instance },
        Control::Commit(number) => Reply::Durable(number),
    })
}

#[cfg(test)]
mod tests {
    use forward_protocol::frame::{Limits, messages};

    use super::*;

    #[test]
    fn questions_and_replies_are_read_as_they_were_written() {
        for control in [Control::Hello(0), Control::Hello(u64::MAX), Control::Commit(77)] {
            let mut bytes = Vec::new();
            control.write(&mut bytes);
            let message = messages(&bytes, Limits::default()).next().unwrap().unwrap();
            assert_eq!(Control::read(&message), Some(control));
            let mut plain = Vec::new();
            write_ack(&mut plain, message.options.chunk.unwrap());
            let mut named = Vec::new();
            write_hello_reply(&mut named, message.options.chunk.unwrap(), 5);
            let mut reader = ReplyReader::new();
            let all = [plain, named].concat();
            let (mut replies, (first, rest)) = (Vec::new(), all.split_at(7));
            for bytes in [first, rest] {
                reader.feed(bytes);
                while let Some(reply) = reader.reply().unwrap() {
                    replies.push(reply);
                }
            }
            let expected = match control {
                Control::Hello(number) => [None, Some(5)].map(|instance| Reply::Hello { number, instance }),
                Control::Commit(number) => [Reply::Durable(number); 2],
            };
            assert_eq!(replies, expected);
        }
    }

    #[test]
    fn what_clients_send_is_no_control_message() {
        for bytes in [
            &b"\x93\xa3app\xc4\x00\x81\xa5chunk\xb1h0000000000000000"[..],
            b"\x93\xafwindrow.cluster\xc4\x00\x81\xa5chunk\xa1x",
            b"\x93\xafwindrow.cluster\xc4\x03\x92\xc0\x80\x81\xa5chunk\xb1h0000000000000000",
            b"\x92\xafwindrow.cluster\xc4\x00",
        ] {
            let message = messages(bytes, Limits::default()).next().unwrap().unwrap();
            assert_eq!(Control::read(&message), None);
        }
    }
}
