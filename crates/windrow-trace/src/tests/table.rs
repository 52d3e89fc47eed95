//! Sealing: completion and linger time, idle timeout, age, limits; and that no record is lost.

mod destinations;
mod long_traces;
mod silent;

use serde_json::json;

use super::*;
use crate::{AddOutcome, IncomingRecord, Limits, Scratch, SealedRecords, Source, SourceId, Table};

pub(super) const SECOND: i64 = 1_000_000;

pub(super) fn limits() -> Limits {
    Limits {
        linger: SECOND,
        idle_timeout: 30 * SECOND,
        max_age: 600 * SECOND,
        max_traces: 1000,
        max_bytes: 1 << 30,
        max_trace_bytes: 1 << 20,
    }
}

pub(super) struct Fixture {
    pub(super) table: Table<u64>,
    /// Number of sources begun. The guard of each is its number.
    sources: u64,
    /// The last source, and its part.
    source: Option<(u8, SourceId)>,
    /// Guards that documents got or that were returned.
    claims: Vec<u64>,
}

impl Fixture {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            table: Table::new(limits),
            sources: 0,
            source: None,
            claims: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, now: i64, key: &str, part: u8, completes: bool) -> AddOutcome {
        self.add_text(now, key, part, completes, 100)
    }

    pub(super) fn add_text(
        &mut self,
        now: i64,
        key: &str,
        part: u8,
        completes: bool,
        len: usize,
    ) -> AddOutcome {
        let record = record(&json!({"traceId": key, "message": "x".repeat(len)}));
        let source = self.source(part, now);
        let incoming = IncomingRecord {
            id: self.table.trace_id(key.as_bytes()),
            time: now,
            source,
            position: now as u32,
            record: &record,
            metadata: b"",
            completes,
            shape: None,
            text: None,
            level: None,
            service: None,
        };
        self.table.add(
            now,
            &incoming,
            &ShapeRegistry::new(FieldNames::default(), Vec::new()),
        )
    }

    /// The last source if it is of this part, or else a new one.
    fn source(&mut self, part: u8, now: i64) -> SourceId {
        match self.source {
            Some((last, source)) if last == part => source,
            _ => {
                self.end_source();
                self.sources += 1;
                let source = self.table.begin_source(Source {
                    part: PartId([part; 12]),
                    received: now,
                    tag: tag("app"),
                    hold: self.sources,
                });
                self.source = Some((part, source));
                source
            }
        }
    }

    fn end_source(&mut self) {
        let last = self.source.take();
        self.claims
            .extend(last.and_then(|(_, source)| self.table.end_source(source)));
    }

    pub(super) fn sealed(&mut self, now: i64) -> Vec<(String, SealReason, u32)> {
        let mut all = Vec::new();
        while let Some(mut sealed) = self.table.next_sealed(now) {
            let key = String::from_utf8(sealed.id().to_vec()).unwrap();
            all.push((key, sealed.reason, sealed.lines()));
            sealed.release(1, |claim| self.claims.push(claim));
        }
        all
    }

    /// No trace is left, and every guard was handed over.
    pub(super) fn is_even(&mut self) {
        self.end_source();
        assert_eq!(
            (self.table.len(), self.table.bytes(), self.table.lines()),
            (0, 0, 0)
        );
        self.claims.sort_unstable();
        self.claims.dedup();
        assert!(
            self.claims.iter().copied().eq(1..=self.sources),
            "{:?}",
            self.claims
        );
    }
}

fn lines_in(content: &TraceContent<'_>) -> usize {
    match &content.records {
        SealedRecords::Lines { lines, .. } => lines.len(),
        SealedRecords::Joined(view) => view.count as usize,
    }
}

#[test]
fn a_complete_trace_waits_for_stragglers() {
    let mut f = Fixture::new(limits());
    assert_eq!(f.add(0, "a", 1, false), AddOutcome::Added);
    assert_eq!(f.add(10, "a", 1, true), AddOutcome::Added);
    assert_eq!(f.sealed(SECOND), []);
    assert_eq!(f.add(SECOND, "a", 2, false), AddOutcome::Added);
    assert_eq!(f.sealed(SECOND + 10), [("a".into(), SealReason::Completed, 3)]);
    assert_eq!(f.sources, 2);
    f.is_even();
}

#[test]
fn an_idle_trace_is_sealed_and_a_busy_one_is_not() {
    let mut f = Fixture::new(limits());
    for (now, key) in [(0, "a"), (1, "b"), (20 * SECOND, "a")] {
        assert_eq!(f.add(now, key, 1, false), AddOutcome::Added);
    }
    assert_eq!(f.sealed(30 * SECOND), []);
    assert_eq!(f.sealed(30 * SECOND + 1), [("b".into(), SealReason::Idle, 1)]);
    assert_eq!(f.sealed(50 * SECOND), [("a".into(), SealReason::Idle, 2)]);
}

#[test]
fn a_trace_that_never_rests_is_sealed_by_age() {
    let mut f = Fixture::new(limits());
    let mut sealed = Vec::new();
    for second in 0..=600 {
        assert_eq!(f.add(second * SECOND, "a", 1, false), AddOutcome::Added);
        sealed.extend(f.sealed(second * SECOND));
    }
    assert_eq!(sealed, [("a".into(), SealReason::MaxAge, 601)]);
}

#[test]
fn the_least_recently_used_gives_way() {
    let mut f = Fixture::new(Limits {
        max_traces: 2,
        ..limits()
    });
    for (now, key) in [(0, "a"), (1, "b"), (2, "a"), (3, "c")] {
        assert_eq!(f.add(now, key, 1, false), AddOutcome::Added);
    }
    assert_eq!(f.sealed(3), [("b".into(), SealReason::Evicted, 1)]);
    let mut f = Fixture::new(Limits {
        max_bytes: 10_000,
        ..limits()
    });
    for i in 0..100 {
        assert_eq!(f.add(i, &i.to_string(), 1, false), AddOutcome::Added);
        f.sealed(i);
        assert!(f.table.bytes() <= 10_000);
    }
    assert!(f.table.len() > 5);
}

#[test]
fn a_chunk_that_came_twice_is_in_it_once() {
    let mut f = Fixture::new(limits());
    for (now, part) in [(5, 1), (6, 2), (5, 1)] {
        assert_eq!(f.add(now, "a", part, false), AddOutcome::Added);
    }
    let mut sealed = f.table.seal_any(0, SealReason::Idle).unwrap();
    let mut scratch = Scratch::default();
    let (content, duplicates) = sealed.content(9, &mut scratch);
    assert_eq!((lines_in(&content), content.parts.len(), duplicates), (2, 2, 1));
    drop(content);
    sealed.release(1, |claim| f.claims.push(claim));
    assert_eq!(
        f.claims,
        [1, 2, 3],
        "the hold of the second reception is given back too"
    );
    f.is_even();
}

#[test]
fn traces_that_pin_something_can_be_closed_at_once() {
    let mut f = Fixture::new(limits());
    for (now, key, part) in [(0, "a", 1), (1, "b", 2), (2, "a", 3), (3, "c", 4)] {
        assert_eq!(f.add(now, key, part, false), AddOutcome::Added);
    }
    assert_eq!(f.add(4, "d", 2, true), AddOutcome::Added);
    f.table.move_completed();
    // The second source of part 2 is the fifth.
    let mut pinning = f.table.ids_holding(|hold| matches!(hold, 1 | 2 | 5));
    pinning.sort_unstable();
    assert_eq!(pinning, [b"a", b"b", b"d"].map(|id| (id.to_vec(), 0)));
    for (id, _) in pinning {
        let mut sealed = f.table.seal(f.table.trace_id(&id)).unwrap();
        assert_eq!(sealed.lines(), if id == b"a" { 2 } else { 1 });
        sealed.release(1, |claim| f.claims.push(claim));
    }
    assert_eq!(f.table.len(), 1);
    assert_eq!(f.sealed(60 * SECOND), [("c".into(), SealReason::Idle, 1)]);
    f.is_even();
}

#[test]
fn a_straggler_takes_its_trace_out_and_the_others_wait_on() {
    let mut f = Fixture::new(limits());
    for (now, key) in [(0, "a"), (10, "b"), (20, "c")] {
        assert_eq!(f.add(now, key, 1, false), AddOutcome::Added);
        assert_eq!(f.add(now, key, 1, true), AddOutcome::Added);
        f.table.move_completed();
    }
    let bytes = f.table.bytes();
    assert_eq!(f.add(30, "b", 2, false), AddOutcome::Added);
    assert!(f.table.bytes() > bytes);
    assert_eq!((f.table.len(), f.table.lines(), f.sources), (3, 7, 2));
    // Its deadline is that of its completion, not of the straggler.
    assert_eq!(f.sealed(SECOND + 5), [("a".into(), SealReason::Completed, 2)]);
    assert_eq!(f.sealed(SECOND + 15), [("b".into(), SealReason::Completed, 3)]);
    assert_eq!(f.sealed(SECOND + 25), [("c".into(), SealReason::Completed, 2)]);
    f.is_even();
}

#[test]
fn many_linger_and_each_is_found() {
    let mut f = Fixture::new(limits());
    let key = |n: i64| format!("trace {n}");
    for n in 0..20_000 {
        assert_eq!(f.add(n, &key(n), 1, true), AddOutcome::Added);
        if n % 7 == 0 {
            f.table.move_completed();
        }
    }
    // The few that the index forgot are opened a second time.
    for n in (0..20_000).step_by(3) {
        assert_eq!(f.add(20_000, &key(n), 2, false), AddOutcome::Added);
    }
    let duplicates = f.table.len() - 20_000;
    assert!(duplicates < 200, "{duplicates}");
    let sealed = f.sealed(60 * SECOND);
    assert_eq!(sealed.len(), 20_000 + duplicates);
    let lines: u32 = sealed.iter().map(|(_, _, lines)| lines).sum();
    assert_eq!(lines, 20_000 + 6_667);
    assert_eq!((f.table.len(), f.table.bytes(), f.table.lines()), (0, 0, 0));
    // Memory kept for reuse can be freed at any time.
    f.table.shrink();
    let now = 60 * SECOND;
    assert_eq!(f.add(now, "a", 1, true), AddOutcome::Added);
    f.table.move_completed();
    f.table.shrink();
    assert_eq!(f.add(now, "a", 2, false), AddOutcome::Added);
    assert_eq!(f.sealed(now + SECOND), [("a".into(), SealReason::Completed, 2)]);
}

#[test]
fn what_is_complete_goes_before_what_is_open() {
    let mut f = Fixture::new(Limits {
        max_traces: 3,
        ..limits()
    });
    for (now, key, completes) in [
        (0, "open", false),
        (1, "a", true),
        (2, "b", true),
        (3, "c", false),
    ] {
        assert_eq!(f.add(now, key, 1, completes), AddOutcome::Added);
    }
    assert_eq!(f.sealed(3), [("a".into(), SealReason::Completed, 1)]);
    for (now, key) in [(4, "d"), (5, "e")] {
        assert_eq!(f.add(now, key, 1, false), AddOutcome::Added);
    }
    let expected = [
        ("b".into(), SealReason::Completed, 1),
        ("open".into(), SealReason::Evicted, 1),
    ];
    assert_eq!(f.sealed(5), expected);
}

#[test]
fn a_clock_that_is_set_back_holds_nothing_up() {
    let mut f = Fixture::new(limits());
    assert_eq!(f.add(1000 * SECOND, "a", 1, true), AddOutcome::Added);
    assert_eq!(f.sealed(1000 * SECOND), []);
    assert_eq!(f.sealed(SECOND), [("a".into(), SealReason::Completed, 1)]);
}

#[test]
fn as_many_wait_for_stragglers_as_is_worth_it() {
    let mut f = Fixture::new(Limits {
        linger: 10 * SECOND,
        max_bytes: 64 << 20,
        max_traces: 1_000_000,
        ..limits()
    });
    let open = |f: &mut Fixture, now: i64, traces: u32| -> usize {
        for n in 0..traces {
            let key = format!("{now}-{n}");
            assert_eq!(f.add_text(now, &key, 0, true, 1000), AddOutcome::Added);
        }
        let sealed = f.sealed(now);
        assert!(
            sealed
                .iter()
                .all(|(_, reason, _)| *reason == SealReason::Completed)
        );
        assert_eq!(f.table.take_sealed_early(), sealed.len());
        sealed.len()
    };
    assert_eq!(open(&mut f, 1, 300), 0);
    assert!(open(&mut f, 2, 900) > 500, "nothing is known of stragglers yet");
    // Some lingering traces get a straggler, and linger further as open ones.
    let again = 9;
    for n in (0..900).rev().step_by(50).take(again) {
        assert_eq!(f.add_text(2, &format!("2-{n}"), 1, false, 10), AddOutcome::Added);
    }
    assert!(open(&mut f, 3, 3000) < 600, "so more may wait");
    assert!(open(&mut f, 4, 7000) > 5000);
    let before = f.table.bytes();
    assert!((3 << 20..5 << 20).contains(&before), "{before}");
    // So many traces get no stragglers.
    let waiting = f.table.len();
    assert_eq!(open(&mut f, 5, 9000), waiting - again + 9000);
    assert_eq!(f.table.len(), again, "no other waits any more");
    // Stragglers of sealed traces: the budget grows when they miss their traces.
    for n in 0..9000 {
        assert_eq!(f.add_text(6, &format!("5-{n}"), 1, false, 10), AddOutcome::Added);
    }
    open(&mut f, 7, 20_000);
    assert!(f.table.bytes() > before, "{}", f.table.bytes());
    let late = f.sealed(7 + 11 * SECOND);
    let stragglers = late.iter().filter(|(_, reason, _)| *reason == SealReason::Idle);
    assert!(
        stragglers.count() > 8900,
        "they did not wait for the idle timeout"
    );
    assert_eq!(f.table.take_sealed_early(), 0, "those were due");
    f.sealed(100 * SECOND);
    f.is_even();
}

#[test]
fn those_that_nobody_waits_for_are_sealed_from_where_they_were_open() {
    let mut f = Fixture::new(Limits {
        linger: 10 * SECOND,
        max_traces: 1_000_000,
        ..limits()
    });
    let mut sealed = 0;
    for now in 0..30_000 {
        let key = (now / 2).to_string();
        assert_eq!(
            f.add_text(now, &key, (now % 7) as u8, now % 2 == 1, 1000),
            AddOutcome::Added
        );
        if now % 100 == 99 {
            for (_, reason, lines) in f.sealed(now) {
                assert_eq!((reason, lines), (SealReason::Completed, 2));
                sealed += 1;
            }
        }
    }
    assert_eq!(
        (sealed, f.table.len(), f.table.take_sealed_early()),
        (15_000, 0, 15_000)
    );
    // A single trace is sealed at once as well.
    assert_eq!(f.add(360 * SECOND, "14999", 1, false), AddOutcome::Added);
    assert_eq!(f.add(360 * SECOND, "14999", 1, true), AddOutcome::Added);
    // Its sealing shows that the rate is low.
    assert_eq!(
        f.sealed(360 * SECOND),
        [("14999".into(), SealReason::Completed, 2)]
    );
    assert_eq!(f.add(361 * SECOND, "few", 1, false), AddOutcome::Added);
    assert_eq!(f.add(361 * SECOND, "few", 1, true), AddOutcome::Added);
    assert_eq!(f.sealed(370 * SECOND), []);
    assert_eq!(f.sealed(371 * SECOND), [("few".into(), SealReason::Completed, 2)]);
    f.is_even();
}

#[test]
fn whatever_comes_in_goes_out_once() {
    for (linger, max_traces) in [
        (SECOND, 1_000_000),
        (SECOND, 2000),
        (0, 1_000_000),
        (1000 * SECOND, 1_000_000),
    ] {
        let mut f = Fixture::new(Limits {
            linger,
            max_traces,
            ..limits()
        });
        let (mut random, mut first, mut out) = (1_u64, 0_u64, 0);
        let mut next = |most: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) % most
        };
        let count = 60_000;
        for now in 0..count {
            // Records of some thousand traces, older ones rarely. Some complete more than once.
            let open = if now / 10_000 % 2 == 0 { 4000 } else { 300 };
            let key = (first + next(open)).to_string();
            first += u64::from(next(5) == 0);
            let len = if next(3000) == 0 {
                70_000
            } else {
                next(1200) as usize
            };
            let part = (now / 500 % 250) as u8;
            assert_eq!(f.add_text(now, &key, part, next(4) == 0, len), AddOutcome::Added);
            if now % 250 == 0 {
                out += f.sealed(now).iter().map(|(_, _, lines)| lines).sum::<u32>();
            }
            if now % 9000 == 0 {
                for (id, _) in f.table.ids_holding(|hold| *hold % 50 == 0) {
                    let mut sealed = f.table.seal(f.table.trace_id(&id)).expect("an id of it");
                    out += sealed.lines();
                    sealed.release(1, |claim| f.claims.push(claim));
                }
            }
            assert_eq!(f.table.lines(), u64::from(now as u32 + 1 - out));
        }
        out += f
            .sealed(100 * count + 2000 * SECOND)
            .iter()
            .map(|(_, _, lines)| lines)
            .sum::<u32>();
        assert_eq!(i64::from(out), count);
        f.is_even();
    }
}
