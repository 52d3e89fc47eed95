//! The state of a document (`windrow.state`): what it needs to be merged with another document of
//! the same trace, namely its parts, the time, part and text length of each line, and the fields
//! whose value is older than the last line.
//!
//! Owns the compact text form, base64url of varints. Does not know JSON or MessagePack.
//!
//! ```text
//! version | flags | [key name] | [text name] | reason | sealed at (µs)
//! parts:  n, then per part: id (12 bytes) | received (µs, delta) | records received of the trace
//! lines:  n, time unit, per line: time (delta) | part | position (delta) | text length + 1 or 0
//! older:  n, then per field whose value is not the last line's: location | name | line
//! renamed, in version 2:
//!         n, then per field: location | name | name in the records | its natural name or nothing
//! ```
//!
//! Version 2 is written only where fields have other names than in the records, so that versions of
//! Windrow that read version 1 only read all other documents.
//!
//! Every number is a LEB128 varint, signed ones are zigzag-encoded. A line takes 6 to 9 bytes.

mod write;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

pub(crate) use self::write::{MAX_LINE_STATE_BYTES, StateLineWriter, StateWriter};
use crate::part::PartId;

/// Name of the field with the trace id, if the state has no other.
pub(crate) const DEFAULT_KEY: &str = "traceId";
/// Name of the field with the joined text, if the state has no other.
pub(crate) const DEFAULT_TEXT: &str = "message";

const VERSION: u8 = 1;
/// With renamed fields.
const VERSION_WITH_NAMES: u8 = 2;
const HAS_KEY_NAME: u8 = 1;
const HAS_TEXT_NAME: u8 = 2;
const HAS_TEXT: u8 = 4;
/// Units of event times. The largest exact one is used, so that whole seconds take few bytes.
const TIME_UNITS_NS: [i64; 4] = [1_000_000_000, 1_000_000, 1_000, 1];

/// Why a trace was sealed, ordered by how much the reason says: a union keeps the greater one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum SealReason {
    /// Windrow stopped and was configured to write open traces.
    Shutdown = 0,
    /// There was no space for it: too many traces or bytes, or its journal segment had to be freed.
    Evicted = 1,
    /// It was open for longer than `max_age`.
    MaxAge = 2,
    /// No record came for `idle_timeout`.
    Idle = 3,
    /// A record completed it.
    Completed = 4,
}

impl SealReason {
    /// All reasons, in ascending order.
    pub const ALL: [Self; 5] = [
        Self::Shutdown,
        Self::Evicted,
        Self::MaxAge,
        Self::Idle,
        Self::Completed,
    ];

    /// The word in documents and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shutdown => "shutdown",
            Self::Evicted => "evicted",
            Self::MaxAge => "max_age",
            Self::Idle => "idle",
            Self::Completed => "completed",
        }
    }
}

/// A part in the state of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PartState {
    pub(crate) id: PartId,
    /// Time of reception, Unix µs; of several receptions the latest.
    pub(crate) received: i64,
    /// Number of records of the trace in the part. More than its lines if the trace was truncated.
    pub(crate) total: u32,
}

/// A line (one record) in the state of a document. `part` is an index into the parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LineState {
    pub(crate) time: i64,
    pub(crate) part: u32,
    /// Number of the record in its chunk.
    pub(crate) position: u32,
    /// Length of its text in bytes of unescaped UTF-8. `None` without text.
    pub(crate) text: Option<u32>,
}

/// Where a field is in the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum FieldLocation {
    TopLevel = 0,
    Metadata = 1,
}

/// A field whose value comes from a line before the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OlderField {
    pub(crate) location: FieldLocation,
    pub(crate) name: String,
    pub(crate) line: u32,
}

/// A field that has another name in the document than in the records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RenamedField {
    pub(crate) location: FieldLocation,
    pub(crate) name: String,
    /// Its name in the records.
    pub(crate) original: String,
    /// What this becomes where no other field is in its way.
    pub(crate) natural: String,
}

/// A decoded state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DocumentState {
    pub(crate) key_name: String,
    /// `None` when no line has text.
    pub(crate) text_name: Option<String>,
    pub(crate) reason: SealReason,
    pub(crate) sealed_at: i64,
    pub(crate) parts: Vec<PartState>,
    pub(crate) lines: Vec<LineState>,
    pub(crate) older: Vec<OlderField>,
    pub(crate) renamed: Vec<RenamedField>,
}

/// A state that this version cannot read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StateError {
    /// Not base64url.
    #[error("windrow.state is not base64url")]
    Base64,
    /// Written by a newer Windrow.
    #[error("windrow.state has version {0}, this Windrow reads versions 1 and 2")]
    Version(u8),
    /// Truncated or changed.
    #[error("windrow.state is damaged at byte {0}")]
    Damaged(usize),
}

impl DocumentState {
    /// Appends the text form of the whole state to `json`.
    pub(crate) fn write(&self, json: &mut Vec<u8>) {
        let mut scratch = Vec::new();
        let mut writer = StateWriter::begin(
            &mut scratch,
            &self.key_name,
            self.text_name.as_deref(),
            self.reason,
            self.sealed_at,
            self.parts.len(),
        );
        for part in &self.parts {
            writer.part(part);
        }
        writer.lines(self.lines.iter().map(|line| line.time));
        let mut next_position = vec![0u32; self.parts.len()];
        for line in &self.lines {
            if let Some(next) = next_position.get_mut(line.part as usize) {
                writer.line(line, *next);
                *next = line.position.wrapping_add(1);
            }
        }
        writer.older_count(self.older.len());
        for field in &self.older {
            writer.older_field(field.location, field.name.as_bytes(), field.line);
        }
        writer.renamed_count(self.renamed.len());
        for field in &self.renamed {
            writer.renamed_field(field.location, &field.name, &field.original, &field.natural);
        }
        writer.finish(json);
    }

    /// Decodes the text form.
    pub(crate) fn read(text: &str) -> Result<Self, StateError> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| StateError::Base64)?;
        let mut from = Cursor { bytes: &bytes, at: 0 };
        let has_names = match from.byte()? {
            VERSION => false,
            VERSION_WITH_NAMES => true,
            other => return Err(StateError::Version(other)),
        };
        let flags = from.byte()?;
        let key_name = if flags & HAS_KEY_NAME != 0 {
            from.text()?
        } else {
            DEFAULT_KEY.to_owned()
        };
        let text_name = match (flags & HAS_TEXT != 0, flags & HAS_TEXT_NAME != 0) {
            (false, _) => None,
            (true, true) => Some(from.text()?),
            (true, false) => Some(DEFAULT_TEXT.to_owned()),
        };
        let reason = from.byte()?;
        let reason = *SealReason::ALL
            .get(usize::from(reason))
            .ok_or(StateError::Damaged(from.at))?;
        let sealed_at = unzigzag(from.varint()?);
        let count = from.count(14)?;
        let mut parts = Vec::with_capacity(count);
        let mut received = 0i64;
        for _ in 0..count {
            let id = PartId(from.array()?);
            received = received.wrapping_add(unzigzag(from.varint()?));
            parts.push(PartState {
                id,
                received,
                total: from.small()?,
            });
        }
        let count = from.count(4)?;
        let unit = *TIME_UNITS_NS
            .get(usize::from(from.byte()?))
            .ok_or(StateError::Damaged(from.at))?;
        let mut lines = Vec::with_capacity(count);
        let mut next_position = vec![0u32; parts.len()];
        let mut time = 0i64;
        for _ in 0..count {
            time = time.wrapping_add(unzigzag(from.varint()?));
            let part = from.small()?;
            let next = next_position
                .get_mut(part as usize)
                .ok_or(StateError::Damaged(from.at))?;
            let position = i64::from(*next).wrapping_add(unzigzag(from.varint()?));
            let position = u32::try_from(position).map_err(|_| StateError::Damaged(from.at))?;
            *next = position.wrapping_add(1);
            let text = from.small()?.checked_sub(1);
            let time = time.checked_mul(unit).ok_or(StateError::Damaged(from.at))?;
            lines.push(LineState {
                time,
                part,
                position,
                text,
            });
        }
        let count = from.count(3)?;
        let mut older = Vec::with_capacity(count);
        for _ in 0..count {
            let location = from.location()?;
            let name = from.text()?;
            let line = from.small()?;
            if line as usize >= lines.len() {
                return Err(StateError::Damaged(from.at));
            }
            older.push(OlderField { location, name, line });
        }
        let count = if has_names { from.count(4)? } else { 0 };
        let mut renamed = Vec::with_capacity(count);
        for _ in 0..count {
            let location = from.location()?;
            let (name, original, natural) = (from.text()?, from.text()?, from.text()?);
            renamed.push(RenamedField {
                location,
                natural: if natural.is_empty() { name.clone() } else { natural },
                name,
                original,
            });
        }
        if from.at != bytes.len() {
            return Err(StateError::Damaged(from.at));
        }
        Ok(Self {
            key_name,
            text_name,
            reason,
            sealed_at,
            parts,
            lines,
            older,
            renamed,
        })
    }
}

/// Decodes the lines that a [`StateLineWriter`] wrote in this time unit.
pub(crate) fn decode_lines(bytes: &[u8], unit: u8) -> impl Iterator<Item = LineState> {
    let unit = TIME_UNITS_NS.get(usize::from(unit)).copied().unwrap_or(1);
    let mut from = Cursor { bytes, at: 0 };
    let (mut time, mut part, mut next_position) = (0i64, 0, 0u32);
    std::iter::from_fn(move || {
        time = time.wrapping_add(unzigzag(from.varint().ok()?));
        let its = from.small().ok()?;
        if its != part {
            (part, next_position) = (its, 0);
        }
        let position = i64::from(next_position).wrapping_add(unzigzag(from.varint().ok()?)) as u32;
        next_position = position.wrapping_add(1);
        let text = from.small().ok()?.checked_sub(1);
        Some(LineState {
            time: time.wrapping_mul(unit),
            part,
            position,
            text,
        })
    })
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn byte(&mut self) -> Result<u8, StateError> {
        let byte = *self.bytes.get(self.at).ok_or(StateError::Damaged(self.at))?;
        self.at += 1;
        Ok(byte)
    }

    fn location(&mut self) -> Result<FieldLocation, StateError> {
        match self.byte()? {
            0 => Ok(FieldLocation::TopLevel),
            1 => Ok(FieldLocation::Metadata),
            _ => Err(StateError::Damaged(self.at)),
        }
    }

    fn varint(&mut self) -> Result<u64, StateError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(StateError::Damaged(self.at))
    }

    fn small(&mut self) -> Result<u32, StateError> {
        u32::try_from(self.varint()?).map_err(|_| StateError::Damaged(self.at))
    }

    /// A count of items of at least `least` bytes each. At most what the remaining bytes can hold,
    /// so that a damaged count allocates nothing.
    fn count(&mut self, least: usize) -> Result<usize, StateError> {
        let count = self.varint()?;
        let room = (self.bytes.len() - self.at) / least;
        usize::try_from(count)
            .ok()
            .filter(|&count| count <= room)
            .ok_or(StateError::Damaged(self.at))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], StateError> {
        let piece = self
            .bytes
            .get(self.at..self.at + N)
            .ok_or(StateError::Damaged(self.at))?;
        self.at += N;
        piece.try_into().map_err(|_| StateError::Damaged(self.at))
    }

    fn text(&mut self) -> Result<String, StateError> {
        let length = self.count(1)?;
        let piece = self
            .bytes
            .get(self.at..self.at + length)
            .ok_or(StateError::Damaged(self.at))?;
        self.at += length;
        String::from_utf8(piece.to_vec()).map_err(|_| StateError::Damaged(self.at))
    }
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn states() -> impl Strategy<Value = DocumentState> {
        let parts = prop::collection::vec((any::<[u8; 12]>(), any::<i64>(), any::<u32>()), 1..4);
        (
            parts,
            any::<bool>(),
            0..5usize,
            any::<i64>(),
            prop::option::of("[a-z]{0,9}"),
        )
            .prop_flat_map(|(parts, key, reason, sealed_at, text_name)| {
                let n = parts.len() as u32;
                let line = (
                    any::<i64>(),
                    0..n,
                    any::<u32>(),
                    prop::option::of(0..u32::MAX - 1),
                );
                let renamed = prop::collection::vec(("[a-z._]{1,9}", "[a-z._]{0,9}", any::<bool>()), 0..3);
                (prop::collection::vec(line, 0..20), renamed).prop_map(move |(lines, renamed)| {
                    DocumentState {
                        key_name: if key {
                            DEFAULT_KEY.into()
                        } else {
                            "trace.id".into()
                        },
                        text_name: text_name.clone(),
                        reason: SealReason::ALL[reason],
                        sealed_at,
                        parts: parts
                            .iter()
                            .map(|&(id, received, total)| PartState {
                                id: PartId(id),
                                received,
                                total,
                            })
                            .collect(),
                        older: lines
                            .iter()
                            .enumerate()
                            .filter(|(i, _)| i % 3 == 1)
                            .map(|(i, _)| OlderField {
                                location: if i % 2 == 0 {
                                    FieldLocation::TopLevel
                                } else {
                                    FieldLocation::Metadata
                                },
                                name: format!("field {i}"),
                                line: i as u32,
                            })
                            .collect(),
                        renamed: renamed
                            .into_iter()
                            .map(|(name, original, same)| RenamedField {
                                location: FieldLocation::TopLevel,
                                natural: if same { name.clone() } else { format!("{name}_") },
                                name,
                                original,
                            })
                            .collect(),
                        lines: lines
                            .into_iter()
                            .map(|(time, part, position, text)| LineState {
                                time,
                                part,
                                position,
                                text,
                            })
                            .collect(),
                    }
                })
            })
    }

    proptest! {
        #[test]
        fn reads_what_it_wrote(state in states()) {
            let mut text = Vec::new();
            state.write(&mut text);
            prop_assert_eq!(DocumentState::read(std::str::from_utf8(&text).unwrap()).unwrap(), state);
        }

        #[test]
        fn damage_is_an_error_or_another_state_but_never_a_panic(state in states(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut text = Vec::new();
            state.write(&mut text);
            let mut bytes = URL_SAFE_NO_PAD.decode(&text).unwrap();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            DocumentState::read(&URL_SAFE_NO_PAD.encode(&bytes)).ok();
            prop_assert!(DocumentState::read(&URL_SAFE_NO_PAD.encode(&bytes[..at])).is_err());
        }
    }

    #[test]
    fn a_newer_version_is_said_to_be_one() {
        assert_eq!(
            DocumentState::read(&URL_SAFE_NO_PAD.encode([9, 0])),
            Err(StateError::Version(9))
        );
        assert_eq!(DocumentState::read("!"), Err(StateError::Base64));
    }
}
