//! The state of a document (`windrow.state`): what it needs to be merged with another document of
//! the same trace, namely its parts, the time, part and text length of each line, and the fields
//! whose value is older than the last line.
//!
//! Owns the compact text form, base64url of varints. Does not know JSON or MessagePack.
//!
//! ```text
//! version 2 | flags, schema | [key name] | [text name] | reason | sealed at (µs)
//! parts:  n, then per part: id (12 bytes) | received (µs, delta) | records received of the trace
//! lines:  n, time unit, per line: time (delta) | 4 * position (delta) + flags | [part]
//!         | text length + 1 or 0 | [level + 8 * (service + 1 or 0)]
//! fields: n, then per field whose value is not the last line's, or whose rule is not the usual one
//!         for its name: location + 2 * rule | name | line
//! renamed, if a flag says so:
//!         n, then per field: location | name | name in the records | its natural name or nothing
//! ```
//!
//! Every number is a LEB128 varint, signed ones are zigzag-encoded. The first reception is relative
//! to the sealing, and the first time as well. A position is relative to that behind the last line
//! of the part. A level is 1 (trace) to 6 (fatal), or 0; a service is its index in
//! `windrow.services`. Flags: 1 if level or service differ from those of the line before, and
//! follow; 2 if the part does. A line takes 4 to 7 bytes.
//!
//! Version 1 (Windrow 0.1.0) has no levels, services, schemas, rules and names, and nothing is relative to
//! the sealing. Its lines are: time (delta) | part | position (delta) | text length + 1 or 0. Of
//! each field the newest value counts.

mod cursor;
#[cfg(test)]
mod tests;
mod write;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use self::cursor::{Cursor, unzigzag};
pub(crate) use self::write::{MAX_LINE_STATE_BYTES, StateLineWriter, StateWriter};
use super::merge_rule::MergeRule;
use super::schema::DocumentSchema;
use crate::part::PartId;
use crate::record::severity::Severity;

/// Name of the field with the trace id, if the state has no other.
pub(crate) const DEFAULT_KEY: &str = "traceId";
/// Name of the field with the joined text, if the state has no other.
pub(crate) const DEFAULT_TEXT: &str = "message";

const VERSION: u8 = 2;
const VERSION_WITHOUT_LEVELS: u8 = 1;
const HAS_KEY_NAME: u8 = 1;
const HAS_TEXT_NAME: u8 = 2;
const HAS_TEXT: u8 = 4;
const SCHEMA_SHIFT: u32 = 3;
const SCHEMA_MASK: u8 = 3;
const HAS_RENAMED: u8 = 32;
/// Flags of a line.
const CODE_DIFFERS: u64 = 1;
const PART_DIFFERS: u64 = 2;
const FLAG_BITS: u32 = 2;
/// Fields of these names have the rule `Worst` if the state says nothing else, all others `Newest`.
/// A part of the format, so it stays as it is when `LEVEL_NAMES` gets further names.
const USUALLY_WORST: [&str; 23] = [
    "level",
    "severity",
    "log.level",
    "lvl",
    "levelname",
    "level_name",
    "severity_text",
    "severityText",
    "SeverityText",
    "@l",
    "Level",
    "Severity",
    "LEVEL",
    "loglevel",
    "log_level",
    "logLevel",
    "LogLevel",
    "severity_number",
    "severityNumber",
    "SeverityNumber",
    "PRIORITY",
    "level_value",
    "levelno",
];
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
    pub(crate) level: Option<Severity>,
    /// Index in the sorted services of the document; of joined records, in the order of their first
    /// lines.
    pub(crate) service: Option<u32>,
}

impl LineState {
    /// Level and service as one number.
    #[inline]
    pub(crate) fn code(&self) -> u64 {
        line_code(self.level) | self.service.map_or(0, |service| (u64::from(service) + 1) * 8)
    }

    fn set_code(&mut self, code: u64) -> Option<()> {
        self.level = match code % 8 {
            0 => None,
            number => Some(Severity::from_u8(number as u8)?),
        };
        self.service = match code / 8 {
            0 => None,
            number => Some(u32::try_from(number - 1).ok()?),
        };
        Some(())
    }
}

/// The code of a line without service.
#[inline]
pub(crate) fn line_code(level: Option<Severity>) -> u64 {
    level.map_or(0, |level| level as u64)
}

/// Where a field is in the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum FieldLocation {
    TopLevel = 0,
    Metadata = 1,
}

/// A field whose value comes from a line before the last, or whose rule is not the usual one for
/// its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FieldState {
    pub(crate) location: FieldLocation,
    pub(crate) name: String,
    pub(crate) rule: MergeRule,
    /// The line of its value. The last one if the rule chooses by value.
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

/// The rule of a field of which the state says nothing.
#[inline]
pub(crate) fn usual_rule(name: &[u8]) -> MergeRule {
    if USUALLY_WORST.iter().any(|known| known.as_bytes() == name) {
        MergeRule::Worst
    } else {
        MergeRule::Newest
    }
}

/// A decoded state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DocumentState {
    pub(crate) schema: DocumentSchema,
    pub(crate) key_name: String,
    /// `None` when no line has text.
    pub(crate) text_name: Option<String>,
    pub(crate) reason: SealReason,
    pub(crate) sealed_at: i64,
    pub(crate) parts: Vec<PartState>,
    pub(crate) lines: Vec<LineState>,
    pub(crate) fields: Vec<FieldState>,
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
            self.schema,
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
        writer.field_count(self.fields.len());
        for field in &self.fields {
            writer.field(field.location, field.rule, field.name.as_bytes(), field.line);
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
        let has_levels = match from.byte()? {
            VERSION => true,
            VERSION_WITHOUT_LEVELS => false,
            other => return Err(StateError::Version(other)),
        };
        let flags = from.byte()?;
        let schema = *DocumentSchema::ALL
            .get(usize::from(flags >> SCHEMA_SHIFT & SCHEMA_MASK))
            .ok_or(StateError::Damaged(from.at))?;
        let key_name = if flags & HAS_KEY_NAME != 0 {
            from.text()?
        } else {
            default_key(schema).to_owned()
        };
        let text_name = match (flags & HAS_TEXT != 0, flags & HAS_TEXT_NAME != 0) {
            (false, _) => None,
            (true, true) => Some(from.text()?),
            (true, false) => Some(default_text(schema).to_owned()),
        };
        let reason = from.byte()?;
        let reason = *SealReason::ALL
            .get(usize::from(reason))
            .ok_or(StateError::Damaged(from.at))?;
        let sealed_at = unzigzag(from.varint()?);
        let count = from.count(14)?;
        let mut parts = Vec::with_capacity(count);
        let mut received = if has_levels { sealed_at } else { 0 };
        for _ in 0..count {
            let id = PartId(from.array()?);
            received = received.wrapping_add(unzigzag(from.varint()?));
            parts.push(PartState {
                id,
                received,
                total: from.small()?,
            });
        }
        let count = from.count(3)?;
        let unit = *TIME_UNITS_NS
            .get(usize::from(from.byte()?))
            .ok_or(StateError::Damaged(from.at))?;
        let mut lines = Vec::with_capacity(count);
        let mut next_position = vec![0u32; parts.len()];
        let mut time = if has_levels { base_time(sealed_at, unit) } else { 0 };
        let (mut part, mut code) = (0, 0);
        for _ in 0..count {
            time = time.wrapping_add(unzigzag(from.varint()?));
            let (position, changed) = if has_levels {
                let number = from.varint()?;
                if number & PART_DIFFERS != 0 {
                    part = from.small()?;
                }
                (number >> FLAG_BITS, number & CODE_DIFFERS != 0)
            } else {
                part = from.small()?;
                (from.varint()?, false)
            };
            let next = next_position
                .get_mut(part as usize)
                .ok_or(StateError::Damaged(from.at))?;
            let position = i64::from(*next).wrapping_add(unzigzag(position));
            let position = u32::try_from(position).map_err(|_| StateError::Damaged(from.at))?;
            *next = position.wrapping_add(1);
            let text = from.small()?.checked_sub(1);
            if changed {
                code = from.varint()?;
            }
            let mut line = LineState {
                time: time.checked_mul(unit).ok_or(StateError::Damaged(from.at))?,
                part,
                position,
                text,
                level: None,
                service: None,
            };
            line.set_code(code).ok_or(StateError::Damaged(from.at))?;
            lines.push(line);
        }
        let count = from.count(3)?;
        let mut fields = Vec::with_capacity(count);
        for _ in 0..count {
            let byte = from.byte()?;
            let location = match byte & 1 {
                0 => FieldLocation::TopLevel,
                _ => FieldLocation::Metadata,
            };
            let name = from.text()?;
            let rule = match byte >> 1 {
                0 if !has_levels => usual_rule(name.as_bytes()),
                rule => *MergeRule::ALL
                    .get(usize::from(rule))
                    .filter(|_| has_levels)
                    .ok_or(StateError::Damaged(from.at))?,
            };
            let line = from.small()?;
            if line as usize >= lines.len() {
                return Err(StateError::Damaged(from.at));
            }
            fields.push(FieldState {
                location,
                name,
                rule,
                line,
            });
        }
        let has_renamed = has_levels && flags & HAS_RENAMED != 0;
        let count = if has_renamed { from.count(4)? } else { 0 };
        let mut renamed = Vec::with_capacity(count);
        for _ in 0..count {
            let location = match from.byte()? {
                0 => FieldLocation::TopLevel,
                1 => FieldLocation::Metadata,
                _ => return Err(StateError::Damaged(from.at)),
            };
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
            schema,
            key_name,
            text_name,
            reason,
            sealed_at,
            parts,
            lines,
            fields,
            renamed,
        })
    }
}

/// What the first time of a state is relative to, in units of this many ns.
fn base_time(sealed_at: i64, unit: i64) -> i64 {
    sealed_at.wrapping_mul(1_000) / unit
}

fn default_key(schema: DocumentSchema) -> &'static str {
    schema.key().unwrap_or(DEFAULT_KEY)
}

fn default_text(schema: DocumentSchema) -> &'static str {
    schema.text().unwrap_or(DEFAULT_TEXT)
}

/// Decodes the lines that a [`StateLineWriter`] wrote in this time unit.
pub(crate) fn decode_lines(bytes: &[u8], unit: u8) -> impl Iterator<Item = LineState> {
    let unit = TIME_UNITS_NS.get(usize::from(unit)).copied().unwrap_or(1);
    let mut from = Cursor { bytes, at: 0 };
    let (mut time, mut part, mut next_position, mut code) = (0i64, 0, 0u32, 0);
    std::iter::from_fn(move || {
        time = time.wrapping_add(unzigzag(from.varint().ok()?));
        let number = from.varint().ok()?;
        if number & PART_DIFFERS != 0 {
            (part, next_position) = (from.small().ok()?, 0);
        }
        let position = i64::from(next_position).wrapping_add(unzigzag(number >> FLAG_BITS)) as u32;
        next_position = position.wrapping_add(1);
        let text = from.small().ok()?.checked_sub(1);
        if number & CODE_DIFFERS != 0 {
            code = from.varint().ok()?;
        }
        let mut line = LineState {
            time: time.wrapping_mul(unit),
            part,
            position,
            text,
            level: None,
            service: None,
        };
        line.set_code(code)?;
        Some(line)
    })
}
