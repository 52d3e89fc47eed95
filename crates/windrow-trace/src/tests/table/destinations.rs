//! Destinations: one id in several of them is several traces.

use super::*;

#[test]
fn of_one_id_the_traces_for_different_destinations_are_different() {
    let mut table = Table::<u64>::new(limits());
    let shapes = ShapeRegistry::new(FieldNames::default(), Vec::new());
    let source = table.begin_source(Source {
        part: PartId([1; 12]),
        received: 0,
        tag: "app".into(),
        hold: 1,
    });
    for (position, destination, completes) in [
        (0, 0, false),
        (1, 7, false),
        (2, 0, true),
        (3, 7, true),
        (4, 300, true),
    ] {
        let incoming = IncomingRecord {
            id: table.trace_id(b"t").with_destination(destination),
            time: 0,
            source,
            position,
            record: b"\x80",
            metadata: b"",
            completes,
            shape: None,
            text: None,
            level: None,
            service: None,
        };
        assert_eq!(table.add(0, &incoming, &shapes), AddOutcome::Added);
    }
    table.move_completed();
    assert_eq!(table.len(), 3, "lingering ones keep apart too");
    let mut holding = table.ids_holding(|_| true);
    holding.sort_unstable();
    assert_eq!(
        holding,
        [0, 7, 300].map(|destination| (b"t".to_vec(), destination))
    );
    let id = table.trace_id(b"t").with_destination(7);
    let mut sealed = table.seal(id).expect("it lingers");
    assert_eq!(
        (sealed.destination(), sealed.lines(), sealed.id()),
        (7, 2, &b"t"[..])
    );
    sealed.release(1, |_| ());
    let mut rest = Vec::new();
    while let Some(mut sealed) = table.seal_any(0, SealReason::Evicted) {
        rest.push((sealed.destination(), sealed.lines()));
        sealed.release(1, |_| ());
    }
    rest.sort_unstable();
    assert_eq!(rest, [(0, 2), (300, 1)]);
}
