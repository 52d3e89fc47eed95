//! Tests of the crate: documents, sealing, and the union.

mod bounded_union;
mod document;
mod field_names;
mod kept;
mod late;
mod levels;
mod loggers;
mod paths;
mod store;
mod table;
mod union;
mod union_lines;

use std::sync::Arc;

use serde_json::Value;

use crate::{
    FieldNames, Line, MadeId, PartId, PartInfo, RecordView, Renderer, SealReason, SealedRecords,
    ShapeRegistry, Span, TraceContent,
};

/// A record as MessagePack.
pub(crate) fn record(json: &Value) -> Vec<u8> {
    rmp_serde::to_vec(json).unwrap()
}

pub(crate) fn tag(name: &str) -> Arc<str> {
    Arc::from(name)
}

/// A part: records that were received together.
#[derive(Clone, Debug)]
pub(crate) struct TestPart {
    pub(crate) id: [u8; 12],
    pub(crate) received: i64,
    pub(crate) tag: &'static str,
    pub(crate) records: Vec<(i64, Vec<u8>, Vec<u8>)>,
}

/// The document of these parts.
pub(crate) fn render(key: &str, parts: &[TestPart], reason: SealReason, sealed_at: i64) -> Vec<u8> {
    render_with(&FieldNames::default(), key, parts, reason, sealed_at)
}

/// The document of these parts, with these names.
pub(crate) fn render_with(
    names: &FieldNames,
    key: &str,
    parts: &[TestPart],
    reason: SealReason,
    sealed_at: i64,
) -> Vec<u8> {
    let view = RecordView::new(names.clone());
    let infos: Vec<PartInfo> = parts
        .iter()
        .map(|part| PartInfo {
            id: PartId(part.id),
            received: part.received,
            total: part.records.len() as u32,
        })
        .collect();
    let mut buffer = Vec::new();
    let mut lines = Vec::new();
    for (number, part) in parts.iter().enumerate() {
        for (position, (time, record, metadata)) in part.records.iter().enumerate() {
            let mut made = MadeId::default();
            let facts = view.read(record, &mut made).facts;
            let mut put = |bytes: &[u8]| {
                buffer.extend_from_slice(bytes);
                Span::new(buffer.len() - bytes.len(), bytes.len())
            };
            lines.push(Line {
                time: *time,
                part: number as u32,
                position: position as u32,
                shape: None,
                record: put(record),
                metadata: put(metadata),
                text: None,
                level: facts.level,
                service: put(facts.service.unwrap_or_default()),
                is_partial: false,
            });
        }
    }
    let mut tags: Vec<_> = parts.iter().map(|part| part.tag).collect();
    tags.sort_unstable();
    tags.dedup();
    let trace = TraceContent {
        id: key.as_bytes(),
        parts: &infos,
        tags: tags.into(),
        reason,
        sealed_at,
        records: SealedRecords::Lines {
            buffer: &buffer,
            lines: &mut lines,
        },
    };
    let mut out = Vec::new();
    let shapes = ShapeRegistry::new(names.clone(), Vec::new());
    Renderer::default().trace(&mut out, names, &shapes, trace, |_, _| ());
    out
}

pub(crate) fn value(json: &[u8]) -> Value {
    serde_json::from_slice(json).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(json)))
}
