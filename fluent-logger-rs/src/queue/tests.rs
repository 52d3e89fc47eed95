//! Tests of bounds, batching, due times and drops.

use std::time::Duration;

use super::*;
use crate::options::Mode;

fn limits() -> QueueLimits {
    QueueLimits {
        events: 10,
        bytes: 10_000,
        batch_events: 3,
        batch_bytes: 1000,
        linger: Duration::from_millis(100),
        spooled: false,
    }
}

fn push(queue: &mut Queue, now: Instant, tag: &str, byte: u8) -> Result<Pushed, Full> {
    queue
        .push(now, tag, &[byte; 10], None, false)
        .map_err(|(full, _)| full)
}

fn bytes(batch: &Batch) -> Vec<u8> {
    let mut start = batch.start();
    let mut first = Vec::new();
    for end in batch.ends.iter().skip(batch.dropped) {
        first.push(batch.entries[start]);
        assert_eq!(*end as usize - start, 10);
        start = *end as usize;
    }
    first
}

#[test]
fn gathers_per_tag_and_keeps_the_order() {
    let now = Instant::now();
    let mut queue = Queue::new(QueueLimits {
        events: 20,
        ..limits()
    });
    for (tag, byte) in [("a", 1), ("b", 2), ("a", 3), ("b", 4), ("a", 5), ("a", 6)] {
        push(&mut queue, now, tag, byte).unwrap();
    }
    let taken = queue.take(now).unwrap();
    assert_eq!(
        (&*taken.tag, bytes(&taken)),
        ("a", vec![1, 3, 5]),
        "a full batch is due at once"
    );
    assert!(queue.take(now).is_none(), "the others wait for company");
    queue.settle(taken.events(), taken.cost());
    let later = now + Duration::from_millis(100);
    let taken = queue.take(later).unwrap();
    assert_eq!((&*taken.tag, bytes(&taken)), ("b", vec![2, 4]));
    let taken = queue.take(later).unwrap();
    assert_eq!((&*taken.tag, bytes(&taken)), ("a", vec![6]));
    assert_eq!(queue.due(later), Due::Never);
}

#[test]
fn wakes_the_worker_only_when_something_changes_for_it() {
    let now = Instant::now();
    let mut queue = Queue::new(limits());
    let wakes: Vec<bool> = ["a", "a", "b", "a", "a"]
        .iter()
        .map(|tag| push(&mut queue, now, tag, 0).unwrap().wake)
        .collect();
    assert_eq!(
        wakes,
        [true, false, true, true, true],
        "new, more, new, full, new"
    );
}

#[test]
fn due_says_when() {
    let now = Instant::now();
    let mut queue = Queue::new(limits());
    assert_eq!(queue.due(now), Due::Never);
    push(&mut queue, now, "a", 0).unwrap();
    assert_eq!(queue.due(now), Due::At(now + Duration::from_millis(100)));
    assert_eq!(queue.due(now + Duration::from_millis(100)), Due::Now);
    assert_eq!(queue.flush(), 1);
    assert_eq!(queue.due(now), Due::Now);
}

#[test]
fn somebody_who_waits_makes_a_batch_urgent() {
    let now = Instant::now();
    let mut queue = Queue::new(limits());
    let (waiter, _receiver) = Waiter::new(true);
    assert!(queue.push(now, "a", &[0; 10], Some(waiter), false).unwrap().wake);
    assert_eq!(queue.due(now), Due::Now);
}

#[test]
fn refuses_beyond_the_bound_in_events_until_something_is_settled() {
    let now = Instant::now();
    let mut queue = Queue::new(limits());
    for _ in 0..10 {
        push(&mut queue, now, "a", 0).unwrap();
    }
    assert_eq!(push(&mut queue, now, "a", 0).unwrap_err().events, 10);
    let taken = queue.take(now).unwrap();
    assert_eq!(
        push(&mut queue, now, "a", 0).unwrap_err().events,
        10,
        "taken is still held"
    );
    queue.settle(taken.events(), taken.cost());
    for _ in 0..3 {
        push(&mut queue, now, "a", 0).unwrap();
    }
    assert!(push(&mut queue, now, "a", 0).is_err());
}

#[test]
fn refuses_beyond_the_bound_in_bytes() {
    let now = Instant::now();
    let mut queue = Queue::new(QueueLimits {
        bytes: 60,
        ..limits()
    });
    for _ in 0..3 {
        push(&mut queue, now, "a", 0).unwrap();
    }
    assert_eq!(queue.bytes(), 3 * (10 + EVENT_OVERHEAD_BYTES));
    assert!(push(&mut queue, now, "a", 0).is_err());
}

#[test]
fn a_batch_never_exceeds_its_bytes_unless_one_event_does() {
    let now = Instant::now();
    let mut queue = Queue::new(QueueLimits {
        batch_bytes: 25 + "a".len() + MAX_FRAME_BYTES,
        ..limits()
    });
    for byte in 0..5 {
        push(&mut queue, now, "a", byte).unwrap();
    }
    queue.push(now, "a", &[9; 40], None, false).unwrap();
    queue.flush();
    let mut sizes = Vec::new();
    while let Some(batch) = queue.take(now) {
        sizes.push(batch.entries.len());
        queue.settle(batch.events(), batch.cost());
    }
    assert_eq!(sizes, [20, 20, 10, 40]);
}

#[test]
fn a_message_never_exceeds_the_bytes_of_a_batch() {
    let now = Instant::now();
    let limits = QueueLimits {
        events: 1000,
        bytes: 100_000,
        batch_events: 1000,
        batch_bytes: 300,
        ..limits()
    };
    let mut random = crate::random::Random::new().unwrap();
    for mode in [Mode::Forward, Mode::Packed] {
        for size in 1..100 {
            let mut queue = Queue::new(limits.clone());
            for _ in 0..50 {
                queue
                    .push(now, "app.web", &vec![0x80; size], None, false)
                    .unwrap();
            }
            queue.flush();
            while let Some(batch) = queue.take(now) {
                let chunks = crate::chunk::seal(batch, mode, true, &mut random);
                assert!(chunks[0].message.len() <= 300, "{mode:?} {size}");
                queue.settle(chunks[0].events, chunks[0].cost);
            }
        }
    }
}

#[test]
fn drops_the_oldest_and_says_which() {
    let now = Instant::now();
    let mut queue = Queue::new(limits());
    let (waiter, mut receiver) = Waiter::new(true);
    queue.push(now, "old", &[0; 10], Some(waiter), true).unwrap();
    for byte in 1..10 {
        queue.push(now, "a", &[byte; 10], None, true).unwrap();
    }
    let mut dropped = Vec::new();
    for byte in 10..15 {
        let pushed = queue.push(now, "a", &[byte; 10], None, true).unwrap();
        dropped.extend(pushed.dropped.iter().map(|tag| tag.to_string()));
    }
    assert_eq!(dropped, ["old", "a", "a", "a", "a"]);
    assert_eq!(receiver.try_recv().unwrap(), Err(SendError::Dropped));
    assert_eq!(queue.events(), 10);
    queue.flush();
    let mut left = Vec::new();
    while let Some(batch) = queue.take(now) {
        left.extend(bytes(&batch));
        queue.settle(batch.events(), batch.cost());
    }
    assert_eq!(left, (5..15).collect::<Vec<u8>>());
    assert_eq!((queue.events(), queue.bytes()), (0, 0));
}

#[test]
fn what_is_in_flight_is_never_dropped_and_leaves_room_for_newcomers() {
    let now = Instant::now();
    let mut queue = Queue::new(limits());
    for byte in 0..10 {
        queue.push(now, "a", &[byte; 10], None, true).unwrap();
    }
    queue.flush();
    let mut held = Vec::new();
    while let Some(batch) = queue.take(now) {
        held.extend(bytes(&batch));
    }
    assert_eq!(held, [0, 1, 2], "no more than half of ten");
    for byte in 10..30 {
        queue.push(now, "a", &[byte; 10], None, true).unwrap();
    }
    assert_eq!(queue.events(), 10);
}

#[test]
fn a_record_that_can_never_fit_drops_nothing_for_ever() {
    let now = Instant::now();
    let mut queue = Queue::new(limits());
    push(&mut queue, now, "a", 0).unwrap();
    assert!(queue.push(now, "a", &[0; 20_000], None, true).is_err());
}

#[test]
fn many_tags_many_batches_and_holes_do_not_confuse_it() {
    let now = Instant::now();
    let mut queue = Queue::new(QueueLimits {
        events: 100_000,
        bytes: 100_000_000,
        ..limits()
    });
    let mut taken = 0;
    for round in 0..20_000u32 {
        push(&mut queue, now, &format!("t{}", round % 97), 1).unwrap();
        if round % 3 == 0 {
            if let Some(batch) = queue.take(now) {
                taken += batch.events();
                queue.settle(batch.events(), batch.cost());
            }
        }
    }
    queue.flush();
    while let Some(batch) = queue.take(now) {
        taken += batch.events();
        queue.settle(batch.events(), batch.cost());
    }
    assert_eq!(taken, 20_000);
    assert_eq!((queue.events(), queue.bytes(), queue.oldest()), (0, 0, None));
}
