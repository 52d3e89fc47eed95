//! The start of a document and its `windrow` object, as the renderer and `union` both write them.
//!
//! Does not write fields and line states.

use super::json::{write_string, write_unsigned};
use super::names::FieldNames;
use super::schema::{Derived, write_names};
use super::state::{PartState, SealReason, StateWriter};
use super::time::Rfc3339Writer;
use crate::part::PartInfo;
use crate::record::severity::Severity;

/// Maximum number of services of a document: of more the smallest are kept.
pub(crate) const MAX_SERVICES: usize = 64;
/// Maximum number of tags of a document: of more the smallest are kept.
pub(crate) const MAX_TAGS: usize = 256;

/// Number of lines of each level.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LevelCounts([u32; Severity::ALL.len()]);

impl LevelCounts {
    pub(crate) fn add(&mut self, level: Option<Severity>, lines: u32) {
        if let Some(count) = level.and_then(|level| self.0.get_mut(level as usize - 1)) {
            *count += lines;
        }
    }

    pub(crate) fn worst(&self) -> Option<Severity> {
        let worst = self.0.iter().rposition(|count| *count > 0)?;
        Severity::from_u8(worst as u8 + 1)
    }
}

/// The content of the `windrow` object, apart from its state and metadata.
pub(crate) struct WindrowObject<'a, T, S> {
    pub(crate) reason: SealReason,
    pub(crate) first: i64,
    pub(crate) last: i64,
    pub(crate) lines: usize,
    pub(crate) tags: &'a [T],
    pub(crate) parts: usize,
    pub(crate) late: u64,
    pub(crate) truncated: u64,
    pub(crate) levels: LevelCounts,
    /// Sorted.
    pub(crate) services: &'a [S],
    /// It takes no further lines: they are in documents of their own.
    pub(crate) continued: bool,
    /// `_id` of the document of the trace that had no space for this one's lines.
    pub(crate) continues: Option<&'a str>,
}

/// What the lines of a trace say together.
pub(crate) struct LineSummary<'a, S> {
    /// Event times of the first and the last line.
    pub(crate) between: (i64, i64),
    pub(crate) lines: usize,
    pub(crate) late: u64,
    pub(crate) levels: LevelCounts,
    pub(crate) services: &'a [S],
}

impl<S> LineSummary<'_, S> {
    /// What the schema says of the trace.
    pub(crate) fn derived(&self) -> Derived<'_, S> {
        Derived {
            level: self.levels.worst(),
            services: self.services,
            duration: Some(self.between.1.saturating_sub(self.between.0).unsigned_abs()),
        }
    }
}

/// What is known of a sealed trace apart from its records.
pub(crate) struct SealInfo<'a> {
    pub(crate) id: &'a [u8],
    pub(crate) parts: &'a [PartInfo],
    pub(crate) tags: &'a [&'a str],
    pub(crate) reason: SealReason,
    pub(crate) sealed_at: i64,
}

impl SealInfo<'_> {
    /// Whether any part may be late. Traces are sealed after they are received, so this needs a
    /// clock that was set back.
    pub(crate) fn any_late(&self) -> bool {
        self.parts.iter().any(|part| part.received > self.sealed_at)
    }

    /// Whether the lines of this part are late.
    pub(crate) fn is_late(&self, part: u32) -> bool {
        let part = self.parts.get(part as usize);
        part.is_some_and(|part| part.received > self.sealed_at)
    }

    pub(crate) fn write_object<S: AsRef<str>>(
        &self,
        out: &mut Vec<u8>,
        times: &mut Rfc3339Writer,
        summary: &LineSummary<'_, S>,
    ) {
        let total: u64 = self.parts.iter().map(|part| u64::from(part.total)).sum();
        let object = WindrowObject {
            reason: self.reason,
            first: summary.between.0,
            last: summary.between.1,
            lines: summary.lines,
            tags: self.tags,
            parts: self.parts.len(),
            late: summary.late,
            truncated: total.saturating_sub(summary.lines as u64),
            levels: summary.levels,
            services: summary.services,
            continued: false,
            continues: None,
        };
        write_windrow_object(out, times, &object);
    }

    /// Starts the state with the parts.
    pub(crate) fn begin_state<'w>(
        &self,
        scratch: &'w mut Vec<u8>,
        names: &FieldNames,
        text_name: Option<&str>,
    ) -> StateWriter<'w> {
        let count = self.parts.len();
        let mut writer = StateWriter::begin(
            scratch,
            names.document.schema,
            names.key(),
            text_name,
            self.reason,
            self.sealed_at,
            count,
        );
        for part in self.parts {
            writer.part(&PartState {
                id: part.id,
                received: part.received,
                total: part.total,
            });
        }
        writer
    }
}

/// Appends `{"@timestamp":"…","traceId":"…"`. For `prefix` see [`trace_id_prefix`].
pub(crate) fn begin_document(
    out: &mut Vec<u8>,
    times: &mut Rfc3339Writer,
    first: i64,
    prefix: &[u8],
    id: &[u8],
) {
    out.extend_from_slice(b"{\"@timestamp\":\"");
    times.write(out, first);
    out.extend_from_slice(prefix);
    write_string(out, id);
}

/// What is between the time and the trace id of this name: `","traceId":`.
pub(crate) fn trace_id_prefix(name: &str) -> Vec<u8> {
    let mut prefix = b"\",".to_vec();
    write_string(&mut prefix, name.as_bytes());
    prefix.push(b':');
    prefix
}

/// Appends `,"windrow":{"reason":"…",…`, still open for metadata and state.
pub(crate) fn write_windrow_object<T: AsRef<str>, S: AsRef<str>>(
    out: &mut Vec<u8>,
    times: &mut Rfc3339Writer,
    object: &WindrowObject<'_, T, S>,
) {
    let number = |out: &mut Vec<u8>, name: &[u8], value: u64| {
        out.extend_from_slice(name);
        write_unsigned(out, value);
    };
    out.extend_from_slice(b",\"windrow\":{\"reason\":\"");
    out.extend_from_slice(object.reason.as_str().as_bytes());
    out.push(b'"');
    number(out, b",\"lines\":", object.lines as u64);
    out.extend_from_slice(b",\"last\":\"");
    times.write(out, object.last);
    number(
        out,
        b"\",\"durationMs\":",
        (object.last.saturating_sub(object.first) / 1_000_000) as u64,
    );
    out.extend_from_slice(b",\"tags\":");
    write_names(out, object.tags);
    number(out, b",\"parts\":", object.parts as u64);
    number(out, b",\"late\":", object.late);
    if object.truncated > 0 {
        number(out, b",\"truncated\":", object.truncated);
    }
    write_levels(out, &object.levels);
    if !object.services.is_empty() {
        out.extend_from_slice(b",\"services\":");
        write_names(out, object.services);
    }
    if object.continued {
        out.extend_from_slice(b",\"continued\":true");
    }
    if let Some(main) = object.continues {
        out.extend_from_slice(b",\"continues\":");
        write_string(out, main.as_bytes());
    }
}

/// Appends the worst level, and the number of lines of each.
#[inline]
fn write_levels(out: &mut Vec<u8>, levels: &LevelCounts) {
    let Some(worst) = levels.worst() else { return };
    let count = levels.0[worst as usize - 1];
    if count == levels.0.iter().sum::<u32>() {
        out.extend_from_slice(one_level(worst));
        write_unsigned(out, u64::from(count));
        out.push(b'}');
    } else {
        write_several_levels(out, worst, levels);
    }
}

/// What precedes the number of lines if all of them that have a level have this one.
fn one_level(level: Severity) -> &'static [u8] {
    match level {
        Severity::Trace => b",\"level\":\"trace\",\"levels\":{\"trace\":",
        Severity::Debug => b",\"level\":\"debug\",\"levels\":{\"debug\":",
        Severity::Info => b",\"level\":\"info\",\"levels\":{\"info\":",
        Severity::Warn => b",\"level\":\"warn\",\"levels\":{\"warn\":",
        Severity::Error => b",\"level\":\"error\",\"levels\":{\"error\":",
        Severity::Fatal => b",\"level\":\"fatal\",\"levels\":{\"fatal\":",
    }
}

#[inline(never)]
fn write_several_levels(out: &mut Vec<u8>, worst: Severity, levels: &LevelCounts) {
    write_level(out, worst);
    out.extend_from_slice(b",\"levels\":");
    let mut separator = b'{';
    for (level, count) in Severity::ALL.iter().zip(levels.0) {
        if count > 0 {
            out.extend_from_slice(&[separator, b'"']);
            separator = b',';
            out.extend_from_slice(level.as_str().as_bytes());
            out.extend_from_slice(b"\":");
            write_unsigned(out, u64::from(count));
        }
    }
    out.push(b'}');
}

/// Appends `,"level":"…"`.
pub(crate) fn write_level(out: &mut Vec<u8>, level: Severity) {
    out.extend_from_slice(b",\"level\":\"");
    out.extend_from_slice(level.as_str().as_bytes());
    out.push(b'"');
}
