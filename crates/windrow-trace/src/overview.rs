//! Overview of the traces in a table, for people who look at them.

use crate::lingering::queue::PoppedTrace;
use crate::open::trace::OpenTrace;
use crate::table::Table;
use crate::trace_id::TraceId;

/// Bytes of a text that are copied.
const MAX_TEXT_BYTES: usize = 400;

/// What a person sees of a trace that is not sealed yet. Times in µs, as given to the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceOverview {
    /// The trace id.
    pub id: Vec<u8>,
    /// When it was opened.
    pub opened_at: i64,
    /// When it got its last record.
    pub last_seen: i64,
    /// Number of records.
    pub lines: u32,
    /// Whether it is complete and waits for stragglers.
    pub is_complete: bool,
    /// The text that was added last, at most 400 bytes of it.
    pub text: Vec<u8>,
}

impl TraceOverview {
    fn new(id: TraceId<'_>, trace: &OpenTrace) -> Self {
        let text = trace.newest_text().unwrap_or_default();
        Self {
            id: id.bytes().to_vec(),
            opened_at: trace.opened_at,
            last_seen: trace.last_seen,
            lines: trace.count(),
            is_complete: trace.is_complete,
            text: text.get(..MAX_TEXT_BYTES).unwrap_or(text).to_vec(),
        }
    }

    fn of_lingering(packed: &PoppedTrace<'_>) -> Self {
        let (id, trace) = packed.unpack();
        Self {
            last_seen: trace.opened_at,
            ..Self::new(id.as_id(), &trace)
        }
    }
}

impl<H: Clone> Table<H> {
    /// At most `limit` traces: open ones, the least recently promoted first, then lingering ones.
    #[must_use]
    pub fn overview(&self, limit: usize) -> Vec<TraceOverview> {
        let open = self
            .open_traces()
            .map(|(id, trace)| TraceOverview::new(id, trace));
        let lingering = self
            .lingering_traces()
            .map(|packed| TraceOverview::of_lingering(&packed));
        open.chain(lingering).take(limit).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::tests::record;
    use crate::{AddOutcome, FieldNames, IncomingRecord, Limits, PartId, ShapeRegistry, Source, Table};

    #[test]
    fn open_traces_come_before_lingering_ones_and_the_oldest_first() {
        let mut table = Table::new(Limits {
            linger: 1_000_000,
            idle_timeout: 30_000_000,
            max_age: 600_000_000,
            max_traces: 100,
            max_bytes: 1 << 20,
            max_trace_bytes: 1 << 16,
        });
        let shapes = ShapeRegistry::new(FieldNames::default(), Vec::new());
        let source = table.begin_source(Source {
            part: PartId([1; 12]),
            received: 0,
            tag: "app".into(),
            hold: (),
        });
        for (now, id, text, completes) in [
            (1, "a", "first", false),
            (2, "b", "done", true),
            (3, "c", "other", false),
            (4, "a", "second", false),
        ] {
            let record = record(&json!({"traceId": id, "message": text}));
            let start = record.len() - text.len();
            let added = table.add(
                now,
                &IncomingRecord {
                    id: table.trace_id(id.as_bytes()),
                    time: now * 1000,
                    source,
                    position: now as u32,
                    record: &record,
                    metadata: b"",
                    completes,
                    shape: None,
                    text: record.get(start..),
                    level: None,
                    service: None,
                },
                &shapes,
            );
            assert_eq!(added, AddOutcome::Added);
        }
        table.move_completed();
        let seen: Vec<_> = table
            .overview(10)
            .into_iter()
            .map(|one| {
                (
                    String::from_utf8(one.id).unwrap(),
                    one.lines,
                    one.is_complete,
                    one.opened_at,
                )
            })
            .collect();
        assert_eq!(
            seen,
            [
                ("a".into(), 2, false, 1),
                ("c".into(), 1, false, 3),
                ("b".into(), 1, true, 2)
            ]
        );
        assert_eq!(table.overview(1).len(), 1);
        assert_eq!(table.len(), 3, "looking changes nothing");
    }
}
