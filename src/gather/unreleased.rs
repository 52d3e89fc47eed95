//! Summary of the unreleased records of a journal: how many lines of how many traces, and how many
//! traces are open.
//!
//! Counts a repeated chunk once, as gathering does, and leaves out what gathering would reject.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ops::ControlFlow;

use forward_protocol::entries::{Decompressor, Entries, Piece};
use forward_protocol::frame::{Payload, messages};

use super::classifier::{classify_slow, completion_fields};
use super::rewrite::{JsonText, RootNames};
use super::settings::field_names;
use crate::config::Config;
use windrow_trace::{MadeId, PartId, ShapeRegistry};

/// Counts of unreleased lines and traces; its `Display` is the sentence that `windrow journal
/// inspect` prints.
#[derive(Debug)]
pub struct UnreleasedSummary {
    shapes: ShapeRegistry,
    complete: Vec<crate::config::Condition>,
    limits: forward_protocol::frame::Limits,
    max_record_bytes: usize,
    root_names: RootNames,
    json_text: JsonText,
    decompressor: Decompressor,
    chunks: HashSet<u128>,
    /// Hash of the trace id -> whether one of the trace's lines completes it.
    traces: HashMap<u128, bool>,
    lines: u64,
    lines_without_trace: u64,
}

impl UnreleasedSummary {
    /// An empty summary that uses the field names and completion rules of `config`.
    pub fn new(config: &Config) -> Self {
        let complete = config.trace.complete.clone();
        Self {
            shapes: ShapeRegistry::new(field_names(&config.trace), completion_fields(&complete)),
            root_names: RootNames::new(&field_names(&config.trace)),
            complete,
            limits: crate::input::forward::frame_limits(&config.forward),
            max_record_bytes: super::settings::max_record_bytes(config),
            json_text: JsonText::new(
                config.trace.parse_json,
                crate::input::forward::frame_limits(&config.forward).depth,
            ),
            decompressor: Decompressor::new(),
            chunks: HashSet::new(),
            traces: HashMap::new(),
            lines: 0,
            lines_without_trace: 0,
        }
    }

    /// Adds the lines of one journal record.
    pub fn add_record(&mut self, payload: &[u8]) {
        for message in messages(payload, self.limits).flatten() {
            if let Some(chunk) = message.options.chunk {
                let (hash, _) = PartId::of_chunk(message.tag, chunk, message.body);
                if !self.chunks.insert(hash) {
                    continue;
                }
            }
            let depth = self.limits.depth;
            match message.payload(depth) {
                Payload::Entries(mut entries) => self.count(&mut entries),
                Payload::Compressed { compression, bytes } => {
                    let mut decompressor = std::mem::take(&mut self.decompressor);
                    let longest = super::settings::max_entry_bytes(self.max_record_bytes);
                    let _damage = decompressor.walk(compression, bytes, depth, longest, |piece| {
                        if let Piece::Entries(entries) = piece {
                            self.count(entries);
                        }
                        ControlFlow::Continue(())
                    });
                    self.decompressor = decompressor;
                }
                Payload::Opaque(_) => {}
            }
        }
    }

    fn count(&mut self, entries: &mut Entries<'_>) {
        while let Some(next) = entries.next() {
            let (Ok(entry), group) = (next, entries.group()) else {
                continue;
            };
            if entry.record.len() > self.max_record_bytes {
                continue;
            }
            self.lines += 1;
            let mut made = MadeId::default();
            let (shapes, complete) = (&mut self.shapes, &self.complete);
            let has_id = |record: &[u8]| {
                let mut made = MadeId::default();
                classify_slow(shapes, complete, record, &mut made)
                    .id(&made)
                    .is_some()
            };
            let means = self.json_text.record(&self.root_names, entry.record, has_id);
            let record = means.unwrap_or(entry.record);
            let mut classification = classify_slow(&mut self.shapes, complete, record, &mut made);
            if entry.metadata.is_some() || group.is_some() {
                classification.read_metadata(self.shapes.view(), entry.metadata, group, &mut made);
            }
            match classification.id(&made) {
                Some(id) => {
                    let completed = self
                        .traces
                        .entry(twox_hash::XxHash3_128::oneshot(id))
                        .or_default();
                    *completed |= classification.completes;
                }
                None => self.lines_without_trace += 1,
            }
        }
    }
}

impl fmt::Display for UnreleasedSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let open = self.traces.values().filter(|completed| !**completed).count();
        write!(
            f,
            "not released: {} lines of {} traces, {open} of them open (no line completes them)",
            self.lines - self.lines_without_trace,
            self.traces.len(),
        )?;
        match self.lines_without_trace {
            0 => Ok(()),
            single => write!(f, ", and {single} lines without a trace"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn message(chunk: &str, records: &[Value]) -> Vec<u8> {
        let entries: Vec<_> = records.iter().map(|record| (1, record)).collect();
        rmp_serde::to_vec(&("app", entries, json!({ "chunk": chunk }))).unwrap()
    }

    #[test]
    fn open_and_completed_traces_and_lines_without_one() {
        let mut summary = UnreleasedSummary::new(&Config::default());
        let line = |id: &str, text: &str| json!({"traceId": id, "message": text});
        let first = message(
            "c1",
            &[
                line("a", "step"),
                line("b", "step"),
                json!({"message": "no trace"}),
            ],
        );
        let second = message(
            "c2",
            &[json!({"log": line("a", "request completed").to_string()})],
        );
        summary.add_record(&[first.clone(), second].concat());
        // A repeated chunk, and bytes that are no message.
        summary.add_record(&first);
        summary.add_record(b"\x01");
        assert_eq!(
            summary.to_string(),
            "not released: 3 lines of 2 traces, 1 of them open (no line completes them), and 1 lines without a trace"
        );
    }
}
