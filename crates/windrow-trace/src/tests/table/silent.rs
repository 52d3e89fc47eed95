//! Silent traces: which are looked up, how often, and which are sealed.

use super::*;
use crate::SilentTrace;

const SILENCE: i64 = 2 * SECOND;

fn found(fixture: &mut Fixture, now: i64, limit: usize) -> Vec<String> {
    let found = fixture.table.find_silent(now, SILENCE, limit);
    let id = |silent: SilentTrace| String::from_utf8(silent.id).unwrap();
    found.into_iter().map(id).collect()
}

#[test]
fn silent_traces_are_found_the_oldest_first_and_then_after_twice_the_time() {
    let mut fixture = Fixture::new(limits());
    for (at, key) in ["a", "b", "c", "d"].into_iter().enumerate() {
        let _ = fixture.add(at as i64 * SECOND / 10, key, 1, key == "b");
    }
    assert!(found(&mut fixture, SILENCE - 1, 10).is_empty());
    assert_eq!(
        found(&mut fixture, SILENCE, 10),
        ["a"],
        "the others got records later"
    );
    let _ = fixture.add(SILENCE, "d", 2, false);
    assert_eq!(
        found(&mut fixture, 3 * SECOND, 10),
        ["c"],
        "b is complete, d is not silent"
    );
    assert!(found(&mut fixture, 2 * SILENCE - 1, 9).is_empty());
    assert_eq!(
        found(&mut fixture, 2 * SILENCE, 1),
        ["a"],
        "again, after twice the silence"
    );
    assert_eq!(
        found(&mut fixture, 3 * SILENCE - 1, 9),
        ["d"],
        "goes on behind the last one"
    );
    assert_eq!(found(&mut fixture, 3 * SILENCE - 1, 9), ["c"]);
    assert!(found(&mut fixture, 3 * SILENCE - 1, 9).is_empty());
    assert_eq!(
        found(&mut fixture, 9 * SECOND, 9),
        ["a", "c", "d"],
        "8, 8 and 4 seconds"
    );
}

#[test]
fn a_search_goes_on_at_the_begin_when_its_place_is_gone() {
    let mut fixture = Fixture::new(limits());
    for key in ["a", "b", "c"] {
        let _ = fixture.add(0, key, 1, false);
    }
    assert_eq!(found(&mut fixture, SILENCE, 1), ["a"]);
    let id = fixture.table.trace_id(b"b");
    let mut sealed = fixture.table.seal_silent(SILENCE, SILENCE, id).unwrap();
    assert_eq!((sealed.id(), sealed.reason), (&b"b"[..], SealReason::Idle));
    sealed.release(1, |_| ());
    assert_eq!(found(&mut fixture, SILENCE, 1), ["c"]);
    assert_eq!(fixture.table.len(), 2);
}

#[test]
fn only_a_trace_that_is_still_silent_is_sealed() {
    let mut fixture = Fixture::new(limits());
    let _ = fixture.add(0, "a", 1, false);
    let _ = fixture.add(0, "b", 1, false);
    assert_eq!(found(&mut fixture, SILENCE, 9), ["a", "b"]);
    let _ = fixture.add(SILENCE, "a", 2, false);
    let _ = fixture.add(SILENCE, "b", 2, true);
    for key in ["a", "b", "c"] {
        let id = fixture.table.trace_id(key.as_bytes());
        assert!(
            fixture.table.seal_silent(SILENCE + 1, SILENCE, id).is_none(),
            "{key}"
        );
    }
    let id = fixture.table.trace_id(b"a");
    let sealed = fixture.table.seal_silent(2 * SILENCE, SILENCE, id);
    sealed.unwrap().release(1, |_| ());
    // Its document exists: a further line waits no longer than a late one.
    let _ = fixture.add(2 * SILENCE, "a", 3, false);
    assert!(found(&mut fixture, 9 * SILENCE, 9).is_empty());
}

#[test]
fn the_first_event_is_the_earliest() {
    let mut fixture = Fixture::new(limits());
    for time in [50, 20, 90] {
        let _ = fixture.add(time, "a", 1, false);
    }
    let found = fixture.table.find_silent(1000 * SECOND, SILENCE, 9);
    assert_eq!(found[0].first_ns, 20);
}
