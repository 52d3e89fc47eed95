//! Check of stored documents against a client's ledger.
//!
//! For each trace: one document, every acknowledged line in it once, lines in order of event time,
//! fields of the latest line, `@timestamp` of the first. It states the merge rules a second time on
//! purpose and shares no code with the server.

use std::collections::HashMap;
use std::fmt;

use serde_json::{Value, json};

use crate::load::{Ledger, Load, Mark, trace_number};

/// A document as found in a store.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// The index; empty where the store has none.
    pub index: String,
    /// The document's id.
    pub id: String,
    /// The document.
    pub source: Value,
}

/// One kind of fault: how often, and descriptions of the first few.
#[derive(Debug, Default, Clone)]
pub struct Fault {
    /// How many.
    pub count: u64,
    /// The first few.
    pub examples: Vec<String>,
}

impl Fault {
    fn add(&mut self, example: impl FnOnce() -> String) {
        self.count += 1;
        if self.examples.len() < 3 {
            self.examples.push(example());
        }
    }
}

/// Result of [`compare`].
#[derive(Debug, Default, Clone)]
pub struct Verdict {
    /// Documents of this load.
    pub documents: u64,
    /// Lines in them.
    pub lines: u64,
    /// Acknowledged records.
    pub acknowledged: u64,
    /// Acknowledged lines that are nowhere.
    pub lost: Fault,
    /// Lines stored more than once, or a trace in more than one document.
    pub twice: Fault,
    /// Lines that were never sent, or differ from what was sent.
    pub damaged: Fault,
    /// Documents whose lines are not in order of event time.
    pub out_of_order: Fault,
    /// Documents with other fields than the merge rules give.
    pub fields_wrong: Fault,
}

impl Verdict {
    fn faults(&self) -> [(&'static str, &Fault); 5] {
        [
            ("lost", &self.lost),
            ("twice", &self.twice),
            ("damaged", &self.damaged),
            ("out of order", &self.out_of_order),
            ("fields wrong", &self.fields_wrong),
        ]
    }

    /// There is no fault.
    pub fn is_clean(&self) -> bool {
        self.faults().iter().all(|(_, fault)| fault.count == 0)
    }

    /// Fails the test with counts and examples, unless records were acknowledged and all are stored
    /// as they must be.
    ///
    /// # Panics
    /// When the verdict is not clean, or no record was acknowledged.
    #[track_caller]
    pub fn assert_clean(&self) {
        assert!(
            self.acknowledged > 0,
            "nothing was acknowledged, so nothing is shown: {self}"
        );
        assert!(self.is_clean(), "{self}");
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} acknowledged, {} documents, {} lines",
            self.acknowledged, self.documents, self.lines
        )?;
        for (name, fault) in self.faults() {
            write!(f, ", {} {name}", fault.count)?;
        }
        for (name, fault) in self.faults() {
            for example in &fault.examples {
                write!(f, "\n  {name}: {example}")?;
            }
        }
        Ok(())
    }
}

/// Compares `documents` with `ledger`. Documents of other loads are ignored.
pub fn compare(ledger: &Ledger, documents: &[Stored]) -> Verdict {
    let load = ledger.load();
    let mut verdict = Verdict {
        acknowledged: ledger.acknowledged(),
        ..Verdict::default()
    };
    let mut seen = Seen::default();
    if load.trace_ids {
        let mut first: HashMap<u64, &str> = HashMap::new();
        for document in documents {
            let Some(trace) = document.source["traceId"]
                .as_str()
                .and_then(|id| trace_number(load, id))
            else {
                continue;
            };
            verdict.documents += 1;
            if let Some(other) = first.insert(trace, &document.index) {
                let id = load.trace_id(trace);
                verdict
                    .twice
                    .add(|| format!("{id} in two documents ({other}, {})", document.index));
            }
            judge_trace(load, ledger, trace, document, &mut seen, &mut verdict);
        }
    } else {
        judge_single_lines(load, documents, &mut seen, &mut verdict);
    }
    for trace in 0..load.traces {
        for line in 0..load.lines {
            let times = seen.get(&(trace, line)).copied().unwrap_or(0);
            if times > 1 {
                verdict
                    .twice
                    .add(|| format!("{} is there {times} times", load.text(trace, line)));
            }
            if times == 0 && ledger.mark(trace, line) == Mark::Acknowledged {
                verdict
                    .lost
                    .add(|| format!("{}: {}", load.trace_id(trace), load.text(trace, line)));
            }
            if times > 0 && ledger.mark(trace, line) == Mark::Unsent {
                verdict
                    .damaged
                    .add(|| format!("never sent: {}", load.text(trace, line)));
            }
        }
    }
    verdict
}

type Seen = HashMap<(u64, u32), u32>;

fn judge_trace(
    load: &Load,
    ledger: &Ledger,
    trace: u64,
    document: &Stored,
    seen: &mut Seen,
    verdict: &mut Verdict,
) {
    let source = &document.source;
    let text = source["message"].as_str().unwrap_or_default();
    let expected: HashMap<String, u32> = (0..load.lines)
        .map(|line| (load.text(trace, line), line))
        .collect();
    let mut lines = Vec::new();
    for line in text.split('\n') {
        verdict.lines += 1;
        match expected.get(line) {
            Some(&number) => {
                *seen.entry((trace, number)).or_default() += 1;
                lines.push(number);
            }
            None => verdict.damaged.add(|| format!("{}: {line:?}", document.id)),
        }
    }
    if !lines.is_sorted() {
        verdict
            .out_of_order
            .add(|| format!("{}: lines {lines:?}", document.id));
    }
    let Some(&last) = lines.iter().max() else { return };
    let first = *lines.iter().min().unwrap_or(&last);
    let mut wrong = Vec::new();
    for (name, value) in fields(load, trace, last) {
        if source[name] != value {
            wrong.push(format!("{name} is {}, not {value}", source[name]));
        }
    }
    let opened = if lines.contains(&0) {
        json!("first line")
    } else {
        Value::Null
    };
    if source["opened_by"] != opened {
        wrong.push(format!("opened_by is {}, not {opened}", source["opened_by"]));
    }
    if source["windrow"]["lines"] != lines.len() {
        wrong.push(format!(
            "windrow.lines is {}, not {}",
            source["windrow"]["lines"],
            lines.len()
        ));
    }
    if let Err(why) = time_fits(source, load.time_ns(trace, first)) {
        wrong.push(why);
    }
    if !wrong.is_empty() {
        let marks: Vec<Mark> = (0..load.lines).map(|line| ledger.mark(trace, line)).collect();
        verdict.fields_wrong.add(|| {
            format!(
                "{} (lines {lines:?}, {marks:?}): {}",
                document.id,
                wrong.join("; ")
            )
        });
    }
}

/// Records without a trace id: each a document of its own, told apart by its text.
fn judge_single_lines(load: &Load, documents: &[Stored], seen: &mut Seen, verdict: &mut Verdict) {
    let mut expected = HashMap::new();
    for trace in 0..load.traces {
        for line in 0..load.lines {
            expected.insert(load.text(trace, line), (trace, line));
        }
    }
    for document in documents {
        let text = document.source["message"].as_str().unwrap_or_default();
        let Some(&(trace, line)) = expected.get(text) else {
            if text.contains(&format!(" of {}", load.prefix)) {
                verdict.damaged.add(|| format!("{}: {text:?}", document.id));
            }
            continue;
        };
        verdict.documents += 1;
        verdict.lines += 1;
        *seen.entry((trace, line)).or_default() += 1;
        let mut wrong: Vec<String> = fields(load, trace, line)
            .into_iter()
            .filter(|(name, value)| document.source[*name] != *value)
            .map(|(name, value)| format!("{name} is {}, not {value}", document.source[name]))
            .collect();
        wrong.extend(time_fits(&document.source, load.time_ns(trace, line)).err());
        if !wrong.is_empty() {
            verdict
                .fields_wrong
                .add(|| format!("{}: {}", document.id, wrong.join("; ")));
        }
    }
}

/// The fields, but for text and trace id, after `line` as the latest.
fn fields(load: &Load, trace: u64, line: u32) -> Vec<(&'static str, Value)> {
    let last = line + 1 == load.lines;
    vec![
        (
            "method",
            json!(if trace.is_multiple_of(3) { "POST" } else { "GET" }),
        ),
        ("path", json!("/api/v1/orders")),
        ("status", json!(if last { 200 } else { 102 })),
        ("latencyMs", json!(f64::from(line) * 1.5 + 0.25)),
        ("level", json!("info")),
        ("service_name", json!("order-service")),
        ("context", json!({"line": -i64::from(line), "list": [last, null]})),
    ]
}

/// `@timestamp` is `expected`, to the millisecond at least.
fn time_fits(source: &Value, expected_ns: i64) -> Result<(), String> {
    let text = source["@timestamp"].as_str().unwrap_or_default();
    let time: jiff::Timestamp = text
        .parse()
        .map_err(|error| format!("@timestamp {} is no time: {error}", source["@timestamp"]))?;
    let off = (time.as_nanosecond() - i128::from(expected_ns)).abs();
    // Cut to milliseconds, and rounded either way when sent as a float.
    if off <= 1_000_000 {
        Ok(())
    } else {
        Err(format!("@timestamp {text} is {off} ns off"))
    }
}

/// Waits until the store holds every acknowledged line of the ledger, at most `limit`; returns the
/// verdict.
pub fn eventually(
    ledger: &Ledger,
    limit: std::time::Duration,
    mut documents: impl FnMut() -> Vec<Stored>,
) -> Verdict {
    let began = std::time::Instant::now();
    loop {
        let verdict = compare(ledger, &documents());
        if verdict.is_clean() || began.elapsed() >= limit {
            return verdict;
        }
        std::thread::sleep(std::time::Duration::from_millis(250));
    }
}
