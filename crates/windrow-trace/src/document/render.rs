//! The renderer: a sealed trace becomes a JSON document, straight from the received bytes.
//!
//! Owns the order of the document (`ARCHITECTURE.md`, "The document"): time and trace id, the
//! joined text, the newest value of every other field, and the `windrow` object at the end. `union`
//! writes the same order. Does not decide when a trace is sealed.

use std::borrow::Cow;

use smallvec::SmallVec;

use super::content::{JoinedView, Line, RenderedDocument, SealedRecords, TraceContent, UntracedRecord};
use super::fields::MergedFields;
use super::json::{self, write_escaped, write_string};
use super::msgpack::{Token, after_scalar, read_token};
use super::names::FieldNames;
use super::shape::{Shape, ShapeRegistry};
use super::state::{FieldLocation, LineState, StateWriter, decode_lines};
use super::time::Rfc3339Writer;
use super::windrow_object::{SealInfo, begin_document, trace_id_prefix};
use crate::part::PartInfo;

/// Renders documents. Keeps its buffers for reuse.
#[derive(Debug, Default)]
pub struct Renderer {
    times: Rfc3339Writer,
    state: Vec<u8>,
    text_lengths: Vec<Option<u32>>,
}

impl Renderer {
    /// Appends the document of a trace to `out`, without a newline. Before that, calls `head` with
    /// `out` and the time of the first event, to write what the output's protocol puts before a
    /// document. `shapes` is the registry of the records' shapes.
    pub fn trace(
        &mut self,
        out: &mut Vec<u8>,
        names: &FieldNames,
        shapes: &ShapeRegistry,
        trace: TraceContent<'_>,
        head: impl FnOnce(&mut Vec<u8>, i64),
    ) -> RenderedDocument {
        let TraceContent {
            id,
            parts,
            tags,
            reason,
            sealed_at,
            records,
        } = trace;
        let seal = SealInfo {
            id,
            parts,
            tags: &tags,
            reason,
            sealed_at,
        };
        match records {
            SealedRecords::Joined(view) => {
                head(out, view.first);
                self.joined(out, names, shapes, &seal, &view)
            }
            SealedRecords::Lines { buffer, lines } => {
                sort(lines, parts);
                head(out, lines.first().map_or(0, |line| line.time));
                self.lines(out, names, shapes, &seal, buffer, lines)
            }
        }
    }

    /// Renders joined records.
    fn joined(
        &mut self,
        out: &mut Vec<u8>,
        names: &FieldNames,
        shapes: &ShapeRegistry,
        seal: &SealInfo<'_>,
        view: &JoinedView<'_>,
    ) -> RenderedDocument {
        let at = out.len();
        let shape = shapes.get(view.shape);
        let known = shape.map(|shape| Cow::Borrowed(shape.trace_id_prefix()));
        let head = known.unwrap_or_else(|| trace_id_prefix(names.key()).into());
        begin_document(out, &mut self.times, view.first, &head, seal.id);
        let text_name = shape.and_then(|shape| names.text.get(shape.text_rank()?));
        if let Some(shape) = shape {
            if text_name.is_some() {
                out.extend_from_slice(shape.text_prefix());
                out.extend_from_slice(view.text);
                out.push(b'"');
            }
            write_fields(out, shape, view.newest);
        }
        let count = view.count as usize;
        let late = if seal.any_late() {
            let lines = decode_lines(view.line_states, view.time_unit);
            lines.filter(|line| seal.is_late(line.part)).count() as u64
        } else {
            0
        };
        seal.write_object(out, &mut self.times, (view.first, view.last), count, late);
        out.extend_from_slice(b",\"state\":\"");
        let mut writer = seal.begin_state(&mut self.state, names, text_name.map(String::as_str));
        writer.encoded_lines(view.count, view.time_unit, view.line_states);
        writer.older_count(0);
        writer.finish(out);
        out.extend_from_slice(b"\"}}");
        RenderedDocument {
            at,
            first: view.first,
            last: view.last,
            lines: view.count,
        }
    }

    /// Renders lines, which are sorted.
    fn lines(
        &mut self,
        out: &mut Vec<u8>,
        names: &FieldNames,
        shapes: &ShapeRegistry,
        seal: &SealInfo<'_>,
        buffer: &[u8],
        lines: &[Line],
    ) -> RenderedDocument {
        let first = lines.first().map_or(0, |line| line.time);
        let last = lines.last().map_or(0, |line| line.time);
        let at = out.len();
        begin_document(
            out,
            &mut self.times,
            first,
            &trace_id_prefix(names.key()),
            seal.id,
        );

        let mut fields = MergedFields::default();
        let mut metadata = MergedFields::default();
        let mut texts = Vec::with_capacity(lines.len());
        let mut best = usize::MAX;
        for (number, line) in lines.iter().enumerate() {
            let record = line.record.of(buffer);
            let text = if record.is_empty() {
                let rank = line
                    .shape
                    .and_then(|id| shapes.get(id))
                    .and_then(Shape::text_rank);
                rank.zip(line.text.map(|text| text.of(buffer)))
            } else {
                fields.add_record(names, record, number as u32, true)
            };
            if let Some((rank, _)) = text {
                best = best.min(rank);
            }
            texts.push(text.map(|(_, bytes)| bytes));
            if !line.metadata.is_empty() {
                metadata.add_map(line.metadata.of(buffer), number as u32);
            }
        }
        let text_name = names.text.get(best);
        self.texts(out, text_name, texts.iter().copied());
        for field in &fields.list {
            out.push(b',');
            write_string(out, &field.name);
            out.push(b':');
            json::write_json_value(out, field.map, field.value);
        }

        let late = if seal.any_late() {
            lines.iter().filter(|line| seal.is_late(line.part)).count() as u64
        } else {
            0
        };
        seal.write_object(out, &mut self.times, (first, last), lines.len(), late);
        if !metadata.list.is_empty() {
            out.extend_from_slice(b",\"metadata\":{");
            for (number, field) in metadata.list.iter().enumerate() {
                if number > 0 {
                    out.push(b',');
                }
                write_string(out, &field.name);
                out.push(b':');
                json::write_json_value(out, field.map, field.value);
            }
            out.push(b'}');
        }
        out.extend_from_slice(b",\"state\":\"");
        let mut writer = seal.begin_state(&mut self.state, names, text_name.map(String::as_str));
        write_lines(&mut writer, seal.parts.len(), lines, &self.text_lengths);
        let newest = (lines.len() as u32).saturating_sub(1);
        let older =
            |fields: &MergedFields<'_>| fields.list.iter().filter(|field| field.line != newest).count();
        writer.older_count(older(&fields) + older(&metadata));
        for (location, fields) in [
            (FieldLocation::TopLevel, &fields),
            (FieldLocation::Metadata, &metadata),
        ] {
            for field in fields.list.iter().filter(|field| field.line != newest) {
                writer.older_field(location, &field.name, field.line);
            }
        }
        writer.finish(out);
        out.extend_from_slice(b"\"}}");
        RenderedDocument {
            at,
            first,
            last,
            lines: lines.len() as u32,
        }
    }

    /// Appends the joined text as the field `name`, if there is one, and notes the length of each
    /// line's text.
    fn texts<'a>(
        &mut self,
        out: &mut Vec<u8>,
        name: Option<&String>,
        texts: impl Iterator<Item = Option<&'a [u8]>>,
    ) {
        self.text_lengths.clear();
        let Some(name) = name else {
            self.text_lengths.extend(texts.map(|_| None));
            return;
        };
        out.push(b',');
        write_string(out, name.as_bytes());
        out.extend_from_slice(b":\"");
        let mut some = false;
        self.text_lengths.extend(texts.map(|text| {
            text.map(|text| {
                if some {
                    out.extend_from_slice(b"\\n");
                }
                some = true;
                write_escaped(out, text) as u32
            })
        }));
        out.push(b'"');
    }

    /// Appends the document of a record without a trace id to `out`, without a newline.
    pub fn untraced(
        &mut self,
        out: &mut Vec<u8>,
        names: &FieldNames,
        untraced: &UntracedRecord<'_>,
    ) -> RenderedDocument {
        let UntracedRecord {
            shape,
            time,
            tag,
            record,
            metadata,
            ..
        } = *untraced;
        let at = out.len();
        out.extend_from_slice(b"{\"@timestamp\":\"");
        self.times.write(out, time);
        out.push(b'"');
        if let Some(shape) = shape {
            write_all_fields(out, shape, record);
        } else {
            let mut fields = MergedFields::default();
            fields.add_record(names, record, 0, false);
            for field in &fields.list {
                out.push(b',');
                write_string(out, &field.name);
                out.push(b':');
                json::write_json_value(out, field.map, field.value);
            }
        }
        out.extend_from_slice(b",\"windrow\":{\"tags\":[");
        write_string(out, tag.as_bytes());
        out.push(b']');
        if !metadata.is_empty() {
            out.extend_from_slice(b",\"metadata\":");
            json::write_json_value(out, metadata, 0);
        }
        out.extend_from_slice(b"}}");
        RenderedDocument {
            at,
            first: time,
            last: time,
            lines: 1,
        }
    }
}

/// Writes the line states.
fn write_lines(writer: &mut StateWriter<'_>, parts: usize, lines: &[Line], text_lengths: &[Option<u32>]) {
    writer.lines(lines.iter().map(|line| line.time));
    let mut next_positions = NextPositions::new(parts);
    for (line, text) in lines.iter().zip(text_lengths) {
        let state = LineState {
            time: line.time,
            part: line.part,
            position: line.position,
            text: *text,
        };
        writer.line(&state, next_positions.next(line.part, line.position));
    }
}

/// Appends the fields of a record of this shape, except those with a place of their own.
fn write_fields(out: &mut Vec<u8>, shape: &Shape, record: &[u8]) {
    let Some((Token::Map(_), mut at)) = read_token(record, 0) else {
        return;
    };
    for field in shape.fields() {
        let Some(value) = after_scalar(record, at) else {
            return;
        };
        at = if field.role().is_outside_fields() {
            match after_scalar(record, value) {
                Some(next) => next,
                None => return,
            }
        } else {
            out.extend_from_slice(field.json_prefix());
            json::write_json_value(out, record, value)
        };
    }
}

/// Appends all fields of a record of this shape.
fn write_all_fields(out: &mut Vec<u8>, shape: &Shape, record: &[u8]) {
    let Some((Token::Map(_), mut at)) = read_token(record, 0) else {
        return;
    };
    for field in shape.fields() {
        let Some(value) = after_scalar(record, at) else {
            return;
        };
        out.extend_from_slice(field.json_prefix());
        at = json::write_json_value(out, record, value);
    }
}

/// The next expected position in each part. Most traces have few parts.
struct NextPositions(SmallVec<[u32; 8]>);

impl NextPositions {
    fn new(parts: usize) -> Self {
        Self(SmallVec::from_elem(0, parts))
    }

    fn next(&mut self, part: u32, position: u32) -> u32 {
        let slot = self.0.get_mut(part as usize);
        slot.map_or(0, |slot| std::mem::replace(slot, position.wrapping_add(1)))
    }
}

/// Sorts by event time, reception, part id and position: a total order that does not depend on
/// which instance gathered the records.
fn sort(lines: &mut [Line], parts: &[PartInfo]) {
    let key = |line: &Line| {
        let part = parts.get(line.part as usize);
        (
            line.time,
            part.map(|part| (part.received, part.id)),
            line.position,
        )
    };
    // Nearly always sorted already, which the times alone show.
    if !lines.is_sorted_by(|a, b| a.time < b.time || (a.time == b.time && key(a) <= key(b))) {
        lines.sort_by_key(key);
    }
}
