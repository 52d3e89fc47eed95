//! [`Framer`]: finds complete messages in a growing buffer.

use std::ops::Range;

use super::head::{Head, Starts, read_head};
use super::limits::Limits;
use super::message::Message;
use super::outcome::{Outcome, Violation};
use crate::msgpack::{self, Kind, Scanner, Value};

/// The result of [`Framer::scan`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// The complete messages, in order.
    pub frames: Vec<Frame>,
    /// Length of the complete messages, which begin at the buffer's start and have no gaps. The
    /// next buffer given to [`Framer::scan`] must begin here.
    pub end: usize,
    /// Lower bound of the bytes still missing from the message that begins at `end`; 0 when none
    /// has begun. A hint for how much to read, bounded by [`Limits::message`].
    pub needed: usize,
    /// Set when scanning cannot continue. The messages before it are valid. Close the connection.
    pub violation: Option<Violation>,
}

impl Run {
    /// Whether nothing has to be stored or answered: heartbeats and stray values only.
    pub fn is_idle(&self) -> bool {
        self.frames.iter().all(Frame::is_idle)
    }
}

/// One complete message: its range and its classification. Ranges count from the start of the
/// scanned buffer, and stay valid for its first [`Run::end`] bytes once these are split off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The whole message.
    pub range: Range<usize>,
    /// Its classification.
    pub outcome: Outcome,
    /// Set for arrays; for poison as far as it could be read.
    pub(super) head: Option<Head>,
}

impl Frame {
    /// The chunk id exactly as it was sent, with its MessagePack header: the value of the ack.
    /// `None` when the client does not ask for an ack. `buf` is the buffer that was scanned, or the
    /// run that was split off it.
    pub fn chunk<'a>(&self, buf: &'a [u8]) -> Option<&'a [u8]> {
        let range = self.head.as_ref()?.options.chunk.clone()?;
        buf.get(self.range.clone())?.get(range)
    }

    /// The message, as a view on the buffer that was scanned or the run that was split off it.
    /// `None` for heartbeats, bare records, stray values and poison.
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
            Outcome::Poison(_) | Outcome::Record => false,
            Outcome::Accepted => self
                .head
                .as_ref()
                .is_some_and(|head| head.body.is_empty() && head.options.chunk.is_none()),
        }
    }
}

/// Finds complete messages in the receive buffer of one connection.
#[derive(Clone, Debug)]
pub struct Framer {
    limits: Limits,
    state: ScanState,
    strays: u32,
    /// No message has been recognised on this connection yet.
    at_start: bool,
}

/// Progress in the message at the front of the buffer. Offsets count from its first byte.
#[derive(Clone, Debug)]
enum ScanState {
    /// The array header is not complete.
    Header,
    /// In a value other than an array.
    Stray(Scanner),
    /// Inside an array.
    Elements {
        scanner: Scanner,
        /// The declared number of elements.
        count: u32,
        /// Index of the element that the scanner is in.
        index: u32,
        /// Offsets of the first elements, known up to `starts[index]`.
        starts: Starts,
    },
}

/// Nesting deeper than any sender needs. [`Limits::depth`] rejects deep entries one by one; this
/// only stops an endless chain of container headers.
const MAX_CHAIN: u32 = 10_000;

impl Framer {
    /// A framer for a new connection.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            state: ScanState::Header,
            strays: 0,
            at_start: true,
        }
    }

    /// A framer for stored messages, which passed the length limit when they were received.
    pub(super) fn for_stored(limits: Limits) -> Self {
        let limits = Limits {
            message: usize::MAX,
            strays: u32::MAX,
            ..limits
        };
        Self {
            limits,
            state: ScanState::Header,
            strays: 0,
            at_start: false,
        }
    }

    /// Finds the complete messages at the front of `buf`, which holds the bytes after the last
    /// run's `end`, followed by newly received bytes.
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

    /// The tag of the incomplete message, if it has been received. `rest` begins where the last run
    /// ended. For log messages about messages that are too large or never complete.
    pub fn unfinished_tag<'a>(&self, rest: &'a [u8]) -> Option<&'a [u8]> {
        match &self.state {
            ScanState::Elements {
                index: 1.., starts, ..
            } => Value::read(rest, starts[0]).ok()?.0.as_bytes(),
            _ => None,
        }
    }

    fn needed(&self) -> usize {
        match &self.state {
            ScanState::Header => 1,
            ScanState::Stray(scanner) => scanner.needed(),
            ScanState::Elements {
                scanner,
                count,
                index,
                ..
            } => scanner
                .needed()
                .saturating_add(count.saturating_sub(index + 1) as usize),
        }
    }

    /// The message at the front of `rest`, if it is complete. `base` is where `rest` begins in the
    /// caller's buffer.
    pub(super) fn step(&mut self, rest: &[u8], base: usize) -> Result<Option<Frame>, Violation> {
        if matches!(self.state, ScanState::Header) && !self.read_header(rest, base)? {
            return Ok(None);
        }
        let limit = self.limits.message;
        let frame = match &mut self.state {
            ScanState::Header => return Ok(None),
            ScanState::Stray(scanner) => {
                let Some(end) = scanner
                    .scan(rest)
                    .map_err(|error| violation_of(error, base, limit))?
                else {
                    return Ok(None);
                };
                let kind = rest.first().map_or(Kind::Illegal, |first| Kind::of(*first));
                let outcome = match kind {
                    Kind::Nil => Outcome::Heartbeat,
                    Kind::Map => Outcome::Record,
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
            ScanState::Elements {
                scanner,
                count,
                index,
                starts,
            } => {
                let end = loop {
                    let Some(end) = scanner
                        .scan(rest)
                        .map_err(|error| violation_of(error, base, limit))?
                    else {
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
        self.state = ScanState::Header;
        self.at_start = false;
        Ok(Some(frame))
    }

    /// Reads the header of a message; false when bytes are missing.
    fn read_header(&mut self, rest: &[u8], base: usize) -> Result<bool, Violation> {
        if self.at_start {
            match detect_other_protocol(rest) {
                OtherProtocol::None => {}
                OtherProtocol::Undecided => return Ok(false),
                OtherProtocol::Tls => return Err(Violation::Tls),
                OtherProtocol::Http => return Err(Violation::Http),
                OtherProtocol::Proxy => return Err(Violation::ProxyProtocol),
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
                self.state = ScanState::Stray(Scanner::new(0, limit, MAX_CHAIN));
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
        self.state = ScanState::Elements {
            scanner: Scanner::new(start, limit, MAX_CHAIN),
            count,
            index: 0,
            starts,
        };
        Ok(true)
    }
}

fn violation_of(error: msgpack::Error, base: usize, limit: usize) -> Violation {
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

enum OtherProtocol {
    None,
    /// More bytes are needed to decide.
    Undecided,
    Tls,
    Http,
    Proxy,
}

/// Whether a connection begins like TLS, HTTP or the PROXY protocol. Their first bytes are small integers in
/// MessagePack, which no Forward client sends first.
fn detect_other_protocol(start: &[u8]) -> OtherProtocol {
    const METHODS: [&[u8]; 7] = [b"GET ", b"HEAD", b"POST", b"PUT ", b"OPTI", b"DELE", b"CONN"];
    /// A TLS record of type handshake, version 3.x (RFC 8446, section 5.1).
    const HELLO: &[u8] = &[0x16, 0x03];
    /// PROXY protocol, sections 2.1 and 2.2.
    const PROXY_1: &[u8] = b"PROXY ";
    const PROXY_2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
    let begins = |full: &[u8]| full.starts_with(start) || start.starts_with(full);
    for header in [PROXY_1, PROXY_2] {
        if start.starts_with(header) {
            return OtherProtocol::Proxy;
        }
        if begins(header) {
            return OtherProtocol::Undecided;
        }
    }
    if begins(HELLO) {
        return if start.len() < HELLO.len() {
            OtherProtocol::Undecided
        } else {
            OtherProtocol::Tls
        };
    }
    if METHODS.into_iter().any(begins) {
        return if start.len() < 4 {
            OtherProtocol::Undecided
        } else {
            OtherProtocol::Http
        };
    }
    OtherProtocol::None
}
