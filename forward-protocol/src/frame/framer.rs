//! Finding complete messages in a growing buffer.

use std::ops::Range;

use super::message::{Head, Message, Poison, read_head};
use crate::msgpack::{self, Kind, Scanner, Value};

/// What a peer may send. Every limit is a number of bytes unless it says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The longest message, default 64 MiB. Fluentd with a file buffer sends up to 256 MiB at once.
    pub message: usize,
    /// The longest tag, default 64 KiB (Fluent Bit sends up to 65 531 bytes).
    pub tag: usize,
    /// The longest chunk id, default 1 KiB. Real ids have 24 to 36 bytes.
    pub chunk: usize,
    /// The most pairs in an option map, default 64.
    pub options: u32,
    /// The most containers inside each other in an entry, default 100 (Fluentd stops at 128, Fluent Bit at 32).
    /// A deeper entry is a bad entry; its neighbours are kept.
    pub depth: u32,
    /// How many values that are no arrays a connection may send before it is closed, default 8. The specification
    /// wants them ignored; a peer that sends many of them speaks another protocol.
    pub strays: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message: 64 << 20,
            tag: 64 << 10,
            chunk: 1 << 10,
            options: 64,
            depth: 100,
            strays: 8,
        }
    }
}

/// What was found in a buffer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// The complete messages, in order.
    pub frames: Vec<Frame>,
    /// How many bytes from the buffer's start the complete messages take, without gaps. Give the next
    /// [`Framer::scan`] a buffer that begins here.
    pub end: usize,
    /// The least number of bytes that are missing behind the buffer's end to complete the message that begins at
    /// `end`; 0 when none has begun. A hint for how much room to make, bounded by [`Limits::message`].
    pub needed: usize,
    /// What makes it impossible to go on. The messages before it are good. Close the connection.
    pub violation: Option<Violation>,
}

impl Run {
    /// Whether nothing came that is worth storing or answering: heartbeats and stray values only.
    pub fn is_idle(&self) -> bool {
        self.frames.iter().all(Frame::is_idle)
    }
}

/// One complete message: where it stands and what it is. Ranges count from the start of the scanned buffer, so they
/// also fit the first [`Run::end`] bytes of it once these are split off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The whole message.
    pub range: Range<usize>,
    /// What is to be done with it.
    pub outcome: Outcome,
    /// Set for what is an array: poison has as much of it as could be read.
    pub(super) head: Option<Head>,
}

/// What is to be done with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It can be stored and acknowledged. Single entries may still be bad.
    Accepted,
    /// It can never be accepted: keep it aside and acknowledge it.
    Poison(Poison),
    /// A bare `nil`, the TCP heartbeat of the specification: ignore it.
    Heartbeat,
    /// A value that is no array: ignore it.
    Stray(Kind),
}

impl Frame {
    /// The chunk id exactly as it was sent, with its MessagePack header: the value of the ack. `None` when the client
    /// wants no ack. `buf` is the buffer that was scanned, or the run that was split off it.
    pub fn chunk<'a>(&self, buf: &'a [u8]) -> Option<&'a [u8]> {
        let range = self.head.as_ref()?.options.chunk.clone()?;
        buf.get(self.range.clone())?.get(range)
    }

    /// The message, as a view on the buffer that was scanned or the run that was split off it. `None` for
    /// heartbeats, stray values and poison.
    pub fn message<'a>(&self, buf: &'a [u8]) -> Option<Message<'a>> {
        match self.outcome {
            Outcome::Accepted => Some(
                self.head
                    .as_ref()?
                    .view(buf.get(self.range.clone())?, self.range.start),
            ),
            _ => None,
        }
    }

    fn is_idle(&self) -> bool {
        match self.outcome {
            Outcome::Heartbeat | Outcome::Stray(_) => true,
            Outcome::Poison(_) => false,
            Outcome::Accepted => self
                .head
                .as_ref()
                .is_some_and(|head| head.body.is_empty() && head.options.chunk.is_none()),
        }
    }
}

/// The peer broke the protocol so badly that the connection must be closed. `at` counts from the start of the
/// scanned buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// These bytes are no MessagePack.
    #[error("the peer sent the byte 0xc1, which MessagePack never uses, at byte {at}")]
    Malformed {
        /// Where the illegal byte stands.
        at: usize,
    },
    /// An array with less than two elements can be no Forward message.
    #[error("the peer sent an array of {elements} at byte {at}; every Forward mode has at least 2 elements")]
    TooShort {
        /// Where the array begins.
        at: usize,
        /// How many elements it has.
        elements: u32,
    },
    /// The message is longer than [`Limits::message`], as its headers say. A retry cannot help: raise the limit.
    #[error("the message at byte {at} has at least {needed} bytes, the limit is {limit}")]
    TooLarge {
        /// Where the message begins.
        at: usize,
        /// The least length that it can have.
        needed: u64,
        /// [`Limits::message`].
        limit: usize,
    },
    /// A chain of containers opens inside each other without end.
    #[error("more than {limit} containers open inside each other at byte {at}")]
    TooDeep {
        /// Where the last of them opens.
        at: usize,
        /// How many are let through.
        limit: u32,
    },
    /// The chunk id is longer than [`Limits::chunk`].
    #[error("the message at byte {at} has a chunk id of {len} bytes, the limit is {limit}")]
    ChunkTooLong {
        /// Where the message begins.
        at: usize,
        /// The length of the id.
        len: usize,
        /// [`Limits::chunk`].
        limit: usize,
    },
    /// The option map has more pairs than [`Limits::options`].
    #[error("the message at byte {at} has {pairs} options, the limit is {limit}")]
    TooManyOptions {
        /// Where the message begins.
        at: usize,
        /// How many pairs it has.
        pairs: u32,
        /// [`Limits::options`].
        limit: u32,
    },
    /// More than [`Limits::strays`] values that are no arrays.
    #[error("the peer sent {count} values that are no Forward messages; it speaks another protocol")]
    TooManyStrays {
        /// How many came.
        count: u32,
    },
    /// The connection begins like TLS: the client has TLS switched on and the listener has not.
    #[error("the peer speaks TLS to a listener without TLS")]
    Tls,
    /// The connection begins like an HTTP request.
    #[error("the peer speaks HTTP")]
    Http,
}

/// Finds complete messages in the receive buffer of one connection.
#[derive(Clone, Debug)]
pub struct Framer {
    limits: Limits,
    part: Part,
    strays: u32,
    /// Nothing was recognised on this connection yet.
    fresh: bool,
}

/// How far the message at the front of the buffer has been scanned. Offsets count from its first byte.
#[derive(Clone, Debug)]
enum Part {
    /// Its header is not complete.
    Header,
    /// Some value that is no array.
    Stray(Scanner),
    /// Inside an array.
    Elements {
        scanner: Scanner,
        /// The declared number of elements.
        count: u32,
        /// The element that the scanner is in.
        index: u32,
        /// Where the first elements begin: `starts[index]` and those before it are known.
        starts: Starts,
    },
}

/// Where the elements 0 to 3 begin, and where element 3 ends.
pub(super) type Starts = [usize; 5];

/// More container headers in one chain than any sender needs. Deep entries are refused one by one by
/// [`Limits::depth`]; this only stops a chain that never ends.
const MAX_CHAIN: u32 = 10_000;

impl Framer {
    /// A framer for a new connection.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            part: Part::Header,
            strays: 0,
            fresh: true,
        }
    }

    /// A framer for stored messages: they passed the limit on length when they came.
    pub(super) fn for_stored(limits: Limits) -> Self {
        let limits = Limits {
            message: usize::MAX,
            strays: u32::MAX,
            ..limits
        };
        Self {
            limits,
            part: Part::Header,
            strays: 0,
            fresh: false,
        }
    }

    /// Finds the complete messages at the front of `buf`, which holds what was not part of an earlier run, followed
    /// by whatever came since. Call it again when more bytes have come.
    pub fn scan(&mut self, buf: &[u8]) -> Run {
        let mut run = Run::default();
        while let Some(rest) = buf.get(run.end..).filter(|rest| !rest.is_empty()) {
            match self.step(rest, run.end) {
                Ok(Some(frame)) => {
                    run.end = frame.range.end;
                    run.frames.push(frame);
                }
                Ok(None) => {
                    run.needed = self.needed().saturating_sub(rest.len()).max(1);
                    break;
                }
                Err(violation) => {
                    run.violation = Some(violation);
                    break;
                }
            }
        }
        run
    }

    /// The tag of the message that is not complete yet, as far as it is known. `rest` begins where the last run
    /// ended. For log lines about messages that are too large or never end.
    pub fn unfinished_tag<'a>(&self, rest: &'a [u8]) -> Option<&'a [u8]> {
        match &self.part {
            Part::Elements {
                index: 1.., starts, ..
            } => Value::read(rest, starts[0]).ok()?.0.as_bytes(),
            _ => None,
        }
    }

    fn needed(&self) -> usize {
        match &self.part {
            Part::Header => 1,
            Part::Stray(scanner) => scanner.needed(),
            Part::Elements {
                scanner,
                count,
                index,
                ..
            } => scanner
                .needed()
                .saturating_add(count.saturating_sub(index + 1) as usize),
        }
    }

    /// The message at the front of `rest`, if it is complete. `base` is where `rest` begins in the caller's buffer.
    pub(super) fn step(&mut self, rest: &[u8], base: usize) -> Result<Option<Frame>, Violation> {
        if matches!(self.part, Part::Header) && !self.begin(rest, base)? {
            return Ok(None);
        }
        let limit = self.limits.message;
        let frame = match &mut self.part {
            Part::Header => return Ok(None),
            Part::Stray(scanner) => {
                let Some(end) = scanner.scan(rest).map_err(|error| lost(error, base, limit))? else {
                    return Ok(None);
                };
                let kind = rest.first().map_or(Kind::Illegal, |first| Kind::of(*first));
                let outcome = match kind {
                    Kind::Nil => Outcome::Heartbeat,
                    kind => {
                        self.strays = self.strays.saturating_add(1);
                        if self.strays > self.limits.strays {
                            return Err(Violation::TooManyStrays { count: self.strays });
                        }
                        Outcome::Stray(kind)
                    }
                };
                Frame {
                    range: base..base + end,
                    outcome,
                    head: None,
                }
            }
            Part::Elements {
                scanner,
                count,
                index,
                starts,
            } => {
                let end = loop {
                    let Some(end) = scanner.scan(rest).map_err(|error| lost(error, base, limit))? else {
                        return Ok(None);
                    };
                    *index += 1;
                    if let Some(start) = starts.get_mut(*index as usize) {
                        *start = end;
                    }
                    if index == count {
                        break end;
                    }
                    *scanner = Scanner::new(end, limit, MAX_CHAIN);
                };
                let message = rest.get(..end).unwrap_or(rest);
                let (head, outcome) = read_head(message, *count, starts, &self.limits, base)?;
                Frame {
                    range: base..base + end,
                    outcome,
                    head: Some(head),
                }
            }
        };
        self.part = Part::Header;
        self.fresh = false;
        Ok(Some(frame))
    }

    /// Reads the header of a message. False when bytes are missing.
    fn begin(&mut self, rest: &[u8], base: usize) -> Result<bool, Violation> {
        if self.fresh {
            match foreign(rest) {
                Foreign::No => {}
                Foreign::Perhaps => return Ok(false),
                Foreign::Tls => return Err(Violation::Tls),
                Foreign::Http => return Err(Violation::Http),
            }
        }
        let limit = self.limits.message;
        let (count, start) = match Value::read(rest, 0) {
            Ok((Value::Array(count), next)) => (count, next),
            Err(msgpack::Error::Incomplete { .. })
                if rest.first().map(|b| Kind::of(*b)) == Some(Kind::Array) =>
            {
                return Ok(false);
            }
            _ => {
                self.part = Part::Stray(Scanner::new(0, limit, MAX_CHAIN));
                return Ok(true);
            }
        };
        if count < 2 {
            return Err(Violation::TooShort {
                at: base,
                elements: count,
            });
        }
        let needed = start as u64 + u64::from(count);
        if needed > limit as u64 {
            return Err(Violation::TooLarge {
                at: base,
                needed,
                limit,
            });
        }
        let mut starts = Starts::default();
        starts[0] = start;
        self.part = Part::Elements {
            scanner: Scanner::new(start, limit, MAX_CHAIN),
            count,
            index: 0,
            starts,
        };
        Ok(true)
    }
}

fn lost(error: msgpack::Error, base: usize, limit: usize) -> Violation {
    match error {
        msgpack::Error::TooLong { needed, .. } => Violation::TooLarge {
            at: base,
            needed,
            limit,
        },
        msgpack::Error::TooDeep { at, limit } => Violation::TooDeep { at: base + at, limit },
        msgpack::Error::Malformed { at }
        | msgpack::Error::Incomplete { at }
        | msgpack::Error::WrongType { at, .. } => Violation::Malformed { at: base + at },
    }
}

enum Foreign {
    No,
    /// More bytes will tell.
    Perhaps,
    Tls,
    Http,
}

/// Whether a connection begins like another protocol. All these first bytes are small integers in MessagePack, which
/// no Forward client sends first.
fn foreign(start: &[u8]) -> Foreign {
    const METHODS: [&[u8]; 7] = [b"GET ", b"HEAD", b"POST", b"PUT ", b"OPTI", b"DELE", b"CONN"];
    /// A TLS record of type handshake, version 3.x (RFC 8446, section 5.1).
    const HELLO: &[u8] = &[0x16, 0x03];
    let begins = |full: &[u8]| full.starts_with(start) || start.starts_with(full);
    if begins(HELLO) {
        return if start.len() < HELLO.len() {
            Foreign::Perhaps
        } else {
            Foreign::Tls
        };
    }
    if METHODS.into_iter().any(begins) {
        return if start.len() < 4 {
            Foreign::Perhaps
        } else {
            Foreign::Http
        };
    }
    Foreign::No
}
