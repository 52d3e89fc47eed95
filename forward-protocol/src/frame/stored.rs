//! [`messages`]: iterates over framed messages that were stored.

use super::framer::{Frame, Framer};
use super::limits::Limits;
use super::message::Message;
use super::outcome::{Outcome, Poison, Violation};

/// The messages in `buf`, which holds consecutive complete messages as found by a [`super::Run`].
/// For reading them back from storage: the length limit does not apply. Heartbeats, bare records and
/// stray values are skipped.
pub fn messages(buf: &[u8], limits: Limits) -> Messages<'_> {
    Messages {
        buf,
        at: 0,
        framer: Framer::for_stored(limits),
    }
}

/// Iterator over stored messages; see [`messages`].
#[derive(Clone, Debug)]
pub struct Messages<'a> {
    buf: &'a [u8],
    at: usize,
    framer: Framer,
}

/// A stored message that cannot be accepted, or bytes that are not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RejectedMessage<'a> {
    /// Where it begins in the buffer.
    pub offset: usize,
    /// All its bytes.
    pub bytes: &'a [u8],
    /// Its tag, when there is one.
    pub tag: Option<&'a [u8]>,
    /// The chunk id as it was sent, when there is one.
    pub chunk: Option<&'a [u8]>,
    /// What is wrong with it.
    pub reason: RejectReason,
}

/// Why a stored message is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RejectReason {
    /// It is poison.
    #[error(transparent)]
    Poison(#[from] Poison),
    /// The bytes end inside a message. The framer never lets such a run through: the storage is
    /// damaged.
    #[error("the stored bytes end inside a message")]
    Truncated,
    /// The bytes are not messages. The framer never lets such a run through: the storage is
    /// damaged.
    #[error(transparent)]
    Damaged(#[from] Violation),
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, RejectedMessage<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let offset = self.at;
            let rest = self.buf.get(offset..).filter(|rest| !rest.is_empty())?;
            let broken = |reason| RejectedMessage {
                offset,
                bytes: rest,
                tag: None,
                chunk: None,
                reason,
            };
            let frame = match self.framer.step(rest, offset) {
                Ok(Some(frame)) => frame,
                Ok(None) => {
                    self.at = self.buf.len();
                    return Some(Err(broken(RejectReason::Truncated)));
                }
                Err(violation) => {
                    self.at = self.buf.len();
                    return Some(Err(broken(RejectReason::Damaged(violation))));
                }
            };
            self.at = frame.range.end;
            if let Some(item) = stored(&frame, self.buf) {
                return Some(item);
            }
        }
    }
}

fn stored<'a>(frame: &Frame, buf: &'a [u8]) -> Option<Result<Message<'a>, RejectedMessage<'a>>> {
    let bytes = buf.get(frame.range.clone())?;
    let head = frame.head.as_ref()?;
    let offset = frame.range.start;
    match frame.outcome {
        Outcome::Accepted => Some(Ok(head.view(bytes, offset))),
        Outcome::Poison(reason) => Some(Err(RejectedMessage {
            offset,
            bytes,
            tag: head.tag.clone().and_then(|range| bytes.get(range)),
            chunk: frame.chunk(buf),
            reason: RejectReason::Poison(reason),
        })),
        Outcome::Heartbeat | Outcome::Record | Outcome::Stray(_) => None,
    }
}
