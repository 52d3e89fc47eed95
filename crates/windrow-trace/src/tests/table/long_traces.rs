//! Traces and records beyond `max_trace_bytes`.

use super::*;

#[test]
fn a_trace_beyond_its_bytes_takes_no_further_part_and_is_as_it_was() {
    let mut f = Fixture::new(Limits {
        max_trace_bytes: 500,
        ..limits()
    });
    let added: Vec<_> = (0..6).map(|now| f.add(now, "a", now as u8, false)).collect();
    assert_eq!(&added[..3], [AddOutcome::Added; 3]);
    assert_eq!(&added[3..], [AddOutcome::TraceFull; 3]);
    assert_eq!(f.table.lines(), 3);
    let mut sealed = f.table.seal(f.table.trace_id(b"a")).unwrap();
    let mut scratch = Scratch::default();
    {
        let (content, duplicates) = sealed.content(9, &mut scratch);
        let total: u32 = content.parts.iter().map(|part| part.total).sum();
        assert_eq!((lines_in(&content), total, duplicates), (3, 3, 0));
    }
    sealed.release(1, drop);
    assert_eq!(f.add(7, "a", 7, false), AddOutcome::Added);
}

#[test]
fn a_part_is_never_divided() {
    let mut f = Fixture::new(Limits {
        max_trace_bytes: 500,
        ..limits()
    });
    let tag = tag("app");
    let source = f.table.begin_source(Source {
        part: PartId([1; 12]),
        received: 0,
        tag,
        hold: 7,
    });
    let record = record(&json!({"message": "x".repeat(100)}));
    for position in 0..20 {
        let incoming = IncomingRecord {
            id: f.table.trace_id(b"a"),
            time: 0,
            source,
            position,
            record: &record,
            metadata: b"",
            completes: false,
            shape: None,
            text: None,
            level: None,
            service: None,
        };
        let shapes = ShapeRegistry::new(FieldNames::default(), Vec::new());
        assert_eq!(f.table.add(0, &incoming, &shapes), AddOutcome::Added);
    }
    assert_eq!(f.add(1, "a", 1, false), AddOutcome::TraceFull);
}

#[test]
fn a_record_beyond_the_bytes_of_a_trace_needs_one_without_records() {
    let mut f = Fixture::new(Limits {
        max_trace_bytes: 500,
        ..limits()
    });
    assert_eq!(f.add(0, "a", 1, false), AddOutcome::Added);
    assert_eq!(f.add_text(1, "a", 2, false, 500), AddOutcome::TraceFull);
    assert_eq!(f.add_text(1, "b", 2, false, 500), AddOutcome::Added);
    assert_eq!(f.add(2, "b", 3, false), AddOutcome::TraceFull);
    // A trace that lingers is reopened, and is as full.
    assert_eq!(f.add_text(1, "c", 4, true, 400), AddOutcome::Added);
    f.table.move_completed();
    assert_eq!(f.add_text(1, "c", 5, false, 400), AddOutcome::TraceFull);
    let mut sealed = f.table.seal(f.table.trace_id(b"c")).unwrap();
    assert_eq!((sealed.reason, sealed.lines()), (SealReason::Completed, 1));
    sealed.release(1, drop);
}
