//! Documents as the server renders them, for tests on real stores.

use serde_json::Value;
use windrow_trace::{
    FieldNames, Line, PartId, PartInfo, Renderer, SealReason, SealedRecords, ShapeRegistry, Span,
    TraceContent,
};

use super::DocumentFormat;

/// The format of the server.
pub(super) const REAL: DocumentFormat = DocumentFormat {
    union: windrow_trace::union_within,
    max_bytes: 16 << 20,
    part_ids: windrow_trace::part_ids,
    unmap: windrow_trace::unmap,
};

/// The document of one part of a trace: records of JSON, a second apart, the first at `first_ns`.
pub(super) fn rendered(trace_id: &str, part: u8, first_ns: i64, records: &[Value]) -> Vec<u8> {
    rendered_with(trace_id, part, first_ns, records, &Value::Null)
}

/// [`rendered`], where the last record has event metadata.
pub(super) fn rendered_with(
    trace_id: &str,
    part: u8,
    first_ns: i64,
    records: &[Value],
    metadata: &Value,
) -> Vec<u8> {
    let mut buffer = Vec::new();
    let mut put = |bytes: &[u8]| {
        buffer.extend_from_slice(bytes);
        Span::new(buffer.len() - bytes.len(), bytes.len())
    };
    let mut lines = Vec::new();
    for (position, (record, second)) in (0..).zip(records.iter().zip(0..)) {
        let last = position as usize + 1 == records.len();
        lines.push(Line {
            time: first_ns + second * 1_000_000_000,
            part: 0,
            position,
            shape: None,
            record: put(&rmp_serde::to_vec(record).unwrap()),
            metadata: if last && !metadata.is_null() {
                put(&rmp_serde::to_vec(metadata).unwrap())
            } else {
                Span::default()
            },
            text: None,
            level: None,
            service: Span::default(),
            is_partial: false,
        });
    }
    let info = PartInfo {
        id: PartId([part; 12]),
        received: i64::from(part),
        total: records.len() as u32,
    };
    let content = TraceContent {
        id: trace_id.as_bytes(),
        parts: &[info],
        tags: ["app"].into_iter().collect(),
        reason: SealReason::Completed,
        sealed_at: i64::from(part),
        records: SealedRecords::Lines {
            buffer: &buffer,
            lines: &mut lines,
        },
    };
    let mut out = Vec::new();
    let names = FieldNames::default();
    let shapes = ShapeRegistry::new(names.clone(), Vec::new());
    Renderer::default().trace(&mut out, &names, &shapes, content, |_, _| ());
    out
}
