//! Tests of gathering: what the document of a trace is, when a trace is sealed, and that the union is a join.

mod document;
mod table;
mod union;

use std::sync::Arc;

use serde_json::Value;

use super::{Gathered, Line, Names, PartId, PartInfo, Reason, Renderer};

/// A record as MessagePack.
pub(super) fn record(json: &Value) -> Vec<u8> {
    rmp_serde::to_vec(json).unwrap()
}

pub(super) fn tag(name: &str) -> Arc<str> {
    Arc::from(name)
}

/// A part for tests: what was received together.
#[derive(Clone, Debug)]
pub(super) struct TestPart {
    pub(super) id: [u8; 12],
    pub(super) received: i64,
    pub(super) tag: &'static str,
    pub(super) records: Vec<(i64, Vec<u8>, Vec<u8>)>,
}

/// The document of these parts.
pub(super) fn render(key: &str, parts: &[TestPart], reason: Reason, sealed_at: i64) -> Vec<u8> {
    let infos: Vec<PartInfo> = parts
        .iter()
        .map(|part| PartInfo {
            id: PartId(part.id),
            received: part.received,
            total: part.records.len() as u32,
        })
        .collect();
    let lines = parts.iter().zip(0..).flat_map(|(part, number)| {
        part.records
            .iter()
            .zip(0..)
            .map(move |((time, record, metadata), position)| Line {
                time: *time,
                part: number,
                position,
                record,
                metadata,
            })
    });
    let mut tags: Vec<&str> = parts.iter().map(|part| part.tag).collect();
    tags.sort_unstable();
    tags.dedup();
    let trace = Gathered {
        key: key.as_bytes(),
        parts: &infos,
        lines: lines.collect(),
        tags,
        reason,
        sealed_at,
    };
    let mut out = Vec::new();
    Renderer::default().trace(&mut out, &Names::default(), trace);
    out
}

pub(super) fn value(json: &[u8]) -> Value {
    serde_json::from_slice(json).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(json)))
}
