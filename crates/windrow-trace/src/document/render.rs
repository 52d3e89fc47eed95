//! The renderer: a sealed trace becomes a JSON document, straight from the received bytes.
//!
//! Owns the order of the document (`ARCHITECTURE.md`, "The document"): time and trace id, the
//! joined text, the newest value of every other field, and the `windrow` object at the end. `union`
//! writes the same order. Does not decide when a trace is sealed.

use std::borrow::Cow;

use smallvec::SmallVec;

use super::content::{JoinedView, Line, RenderedDocument, SealedRecords, TraceContent};
use super::fields::{DocumentNames, MergedFields};
use super::json::{self, write_escaped, write_string};
use super::kept::{KeptRecord, document_values, write_kept};
use super::msgpack::{Token, after_scalar, read_token, skip};
use super::names::FieldNames;
use super::services::{JoinedServices, LastService, LineServices};
use super::shape::{Shape, ShapeField, ShapeRegistry};
use super::state::{FieldLocation, LineState, StateWriter, decode_lines};
use super::time::Rfc3339Writer;
use super::windrow_object::{LevelCounts, LineSummary, SealInfo, begin_document, trace_id_prefix};
use crate::part::PartInfo;
use crate::record::severity::Severity;

/// Renders documents. Keeps its buffers for reuse.
#[derive(Debug, Default)]
pub struct Renderer {
    pub(super) times: Rfc3339Writer,
    state: Vec<u8>,
    text_lengths: Vec<Option<u32>>,
    last_service: LastService,
}

impl Renderer {
    /// Frees memory that is kept for reuse. For idle times.
    pub fn shrink(&mut self) {
        (self.state, self.text_lengths) = (Vec::new(), Vec::new());
    }

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
        let services = JoinedServices::of(&view.context, &mut self.last_service);
        let mut levels = LevelCounts::default();
        if view.context.mixed_levels {
            for line in decode_lines(view.line_states, view.time_unit) {
                levels.add(line.level, 1);
            }
        } else {
            levels.add(Severity::from_u8(view.last_code % 8), view.count);
        }
        let late = if seal.any_late() {
            let lines = decode_lines(view.line_states, view.time_unit);
            lines.filter(|line| seal.is_late(line.part)).count() as u64
        } else {
            0
        };
        let summary = LineSummary {
            between: (view.first, view.last),
            lines: view.count as usize,
            late,
            levels,
            services: &services.sorted,
        };
        let text_name = shape.and_then(|shape| names.text_name(shape.text_rank()?));
        if let Some(shape) = shape.filter(|_| text_name.is_some()) {
            out.extend_from_slice(shape.text_prefix());
            out.extend_from_slice(view.text);
            out.push(b'"');
        }
        names.document.schema.write_derived(out, &summary.derived());
        if let Some(shape) = shape {
            write_fields(out, shape, view.newest, view.context.worst);
        }
        seal.write_object(out, &mut self.times, &summary);
        out.extend_from_slice(b",\"state\":\"");
        let mut writer = seal.begin_state(&mut self.state, names, text_name);
        if services.is_in_order {
            writer.encoded_lines(view.count, view.time_unit, view.first, view.line_states);
        } else {
            services.write_lines(&mut writer, view, seal.parts.len());
        }
        write_joined_fields(&mut writer, shape, view);
        if let Some(shape) = shape {
            let renamed = shape.renamed();
            writer.renamed_count(renamed.len());
            for (name, field) in renamed {
                writer.renamed_field(FieldLocation::TopLevel, name, &field.original, &field.natural);
            }
        }
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
        let services = LineServices::of(buffer, lines);
        let mut levels = LevelCounts::default();
        for line in lines {
            levels.add(line.level, 1);
        }
        let late = if seal.any_late() {
            lines.iter().filter(|line| seal.is_late(line.part)).count() as u64
        } else {
            0
        };
        let summary = LineSummary {
            between: (first, last),
            lines: lines.len(),
            late,
            levels,
            services: &services.sorted,
        };

        let known = (levels.worst().is_some(), !services.sorted.is_empty());
        let merged = |location| MergedFields::new(names, location, lines, seal.parts, known);
        let mut fields = merged(FieldLocation::TopLevel);
        let mut metadata = merged(FieldLocation::Metadata);
        let mut texts = Vec::with_capacity(lines.len());
        let mut best = usize::MAX;
        let keeps = names.document.keep_fields;
        let mut kept: Vec<Option<KeptRecord>> = Vec::new();
        for (number, line) in lines.iter().enumerate() {
            let record = line.record.of(buffer);
            let rank = line
                .shape
                .and_then(|id| shapes.get(id))
                .and_then(Shape::text_rank);
            let of_shape = rank.zip(line.text.map(|text| text.of(buffer)));
            let mut text = None;
            if !record.is_empty() {
                text = fields.add_record(shapes.view(), record, number as u32, seal.id, of_shape);
            }
            if line.is_partial {
                text = of_shape.map(|(rank, text)| (rank, Cow::Borrowed(text)));
            }
            if let Some((rank, _)) = &text {
                best = best.min(*rank);
            }
            if keeps {
                let (metadata, text) = (line.metadata.of(buffer), text.as_ref().map(|(_, text)| &**text));
                let whole = || KeptRecord::of(shapes.view(), seal.id, record, metadata, text);
                kept.push((!line.is_partial).then(whole));
            }
            texts.push(text.map(|(_, bytes)| bytes));
            if !line.metadata.is_empty() {
                metadata.add_map(line.metadata.of(buffer), number as u32);
            }
        }
        let text_name = names.text_name(best);
        self.texts(out, text_name, texts.iter().map(Option::as_deref));
        names.document.schema.write_derived(out, &summary.derived());
        let field_names = fields.names(names.own(text_name));
        write_merged(out, &fields, &field_names);
        seal.write_object(out, &mut self.times, &summary);
        let metadata_names = metadata.names([]);
        if !metadata.list.is_empty() {
            out.extend_from_slice(b",\"metadata\":");
            let from = out.len();
            write_merged(out, &metadata, &metadata_names);
            // In place of the first comma.
            if let Some(first) = out.get_mut(from) {
                *first = b'{';
            }
            out.push(b'}');
        }
        let all = [
            (FieldLocation::TopLevel, &fields, &field_names),
            (FieldLocation::Metadata, &metadata, &metadata_names),
        ];
        if keeps {
            write_kept(out, kept.iter().map(Option::as_ref), &document_values(all));
        }
        out.extend_from_slice(b",\"state\":\"");
        let mut writer = seal.begin_state(&mut self.state, names, text_name);
        write_lines(
            &mut writer,
            seal.parts.len(),
            lines,
            &self.text_lengths,
            &services,
        );
        let newest = (lines.len() as u32).saturating_sub(1);
        let noted = all
            .iter()
            .map(|(_, fields, names)| fields.to_note(names, newest).count());
        writer.field_count(noted.sum());
        for (location, fields, names) in all {
            for (name, rule, line) in fields.to_note(names, newest) {
                writer.field(location, rule, name, line);
            }
        }
        writer.renamed_count(all.iter().map(|(_, _, names)| names.renamed().count()).sum());
        for (location, _, names) in all {
            for (name, field) in names.renamed() {
                writer.renamed_field(location, name, &field.original, &field.natural);
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
        name: Option<&str>,
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
}

/// Writes the line states.
fn write_lines(
    writer: &mut StateWriter<'_>,
    parts: usize,
    lines: &[Line],
    text_lengths: &[Option<u32>],
    services: &LineServices<'_>,
) {
    writer.lines(lines.iter().map(|line| line.time));
    let mut next_positions = NextPositions::new(parts);
    for ((line, text), service) in lines.iter().zip(text_lengths).zip(&services.of_lines) {
        let state = LineState {
            time: line.time,
            part: line.part,
            position: line.position,
            text: *text,
            level: line.level,
            service: *service,
        };
        writer.line(&state, next_positions.next(line.part, line.position));
    }
}

/// Writes the fields of joined records whose value is not the newest, or whose rule is not usual.
fn write_joined_fields(writer: &mut StateWriter<'_>, shape: Option<&Shape>, view: &JoinedView<'_>) {
    let has_worst = !view.context.worst.is_empty();
    let Some(shape) = shape.filter(|shape| has_worst || shape.has_unusual_rules()) else {
        writer.field_count(0);
        return;
    };
    let is_noted = |field: &&ShapeField| (field.is_worst() && has_worst) || field.has_unusual_rule();
    writer.field_count(shape.fields().iter().filter(is_noted).count());
    for field in shape.fields().iter().filter(is_noted) {
        let line = if field.is_worst() && has_worst {
            view.context.worst_line
        } else {
            view.count - 1
        };
        writer.field(
            FieldLocation::TopLevel,
            field.rule(),
            shape.document_name(field),
            line,
        );
    }
}

/// Appends fields, each with a comma before it.
pub(super) fn write_merged(out: &mut Vec<u8>, fields: &MergedFields<'_>, names: &DocumentNames<'_>) {
    for (number, field) in fields.list.iter().enumerate() {
        out.push(b',');
        let name = names.get(number, field);
        write_string(out, name);
        out.push(b':');
        field.write_value(name, out);
    }
}

/// Appends the fields of a record of this shape, except those with a place of their own. `worst`:
/// the fields of the worst line, in the same order; empty if the record is the worst.
fn write_fields(out: &mut Vec<u8>, shape: &Shape, record: &[u8], worst: &[u8]) {
    let Some((Token::Map(_), mut at)) = read_token(record, 0) else {
        return;
    };
    let mut worst_at = read_token(worst, 0).map_or(0, |(_, first)| first);
    for field in shape.fields() {
        let Some(value) = after_scalar(record, at) else {
            return;
        };
        if field.role().is_outside_fields() {
            match after_scalar(record, value) {
                Some(next) => at = next,
                None => return,
            }
            continue;
        }
        out.extend_from_slice(field.json_prefix());
        if field.is_worst()
            && let Some(of_worst) = after_scalar(worst, worst_at)
        {
            worst_at = json::write_value_in(out, field.is_flattened(), worst, of_worst);
            match skip(record, value) {
                Some(next) => at = next,
                None => return,
            }
            continue;
        }
        at = json::write_value_in(out, field.is_flattened(), record, value);
    }
}

/// The next expected position in each part. Most traces have few parts.
pub(super) struct NextPositions(SmallVec<[u32; 8]>);

impl NextPositions {
    pub(super) fn new(parts: usize) -> Self {
        Self(SmallVec::from_elem(0, parts))
    }

    pub(super) fn next(&mut self, part: u32, position: u32) -> u32 {
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
