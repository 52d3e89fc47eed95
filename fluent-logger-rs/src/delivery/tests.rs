//! Tests of the state machine, without sockets and with time as an argument.

mod reconnects;

use std::collections::HashSet;

use super::*;
use crate::options::{Mode, QueueLimits};
use crate::queue::Queue;

fn policy() -> DeliveryPolicy {
    DeliveryPolicy {
        request_ack: true,
        in_flight: 3,
        retry_wait: Duration::from_millis(100),
        max_retry_wait: Duration::from_secs(1),
        max_retry: None,
        ack_timeout: Duration::from_secs(10),
        write_timeout: Duration::from_secs(5),
        reconnect_interval: None,
        reconnect_jitter: 0.0,
        endpoints: 1,
        failover: false,
    }
}

struct Rig {
    delivery: Delivery,
    start: Instant,
    made: u64,
}

fn rig(policy: DeliveryPolicy) -> Rig {
    Rig {
        delivery: Delivery::new(policy, Random::new().unwrap()),
        start: Instant::now(),
        made: 0,
    }
}

impl Rig {
    fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    /// Seals a batch of one event and gives it to the delivery.
    fn push(&mut self) {
        let limits = QueueLimits {
            events: 100,
            bytes: 100_000,
            batch_events: 100,
            batch_bytes: 100_000,
            linger: Duration::ZERO,
            spooled: false,
        };
        let mut queue = Queue::new(limits);
        let entry = [
            &[0x92, 0x01, 0x81, 0xa1, b'n'],
            &[u8::try_from(self.made).unwrap()][..],
        ]
        .concat();
        self.made += 1;
        queue.push(self.start, "t", &entry, None, false).unwrap();
        let batch = queue.take(self.start).unwrap();
        for chunk in crate::chunk::seal(batch, Mode::Packed, true, self.delivery.random()) {
            self.delivery.push(chunk);
        }
    }

    fn connect(&mut self, ms: u64) -> usize {
        let Step::Connect { endpoint, .. } = self.delivery.step(self.at(ms), true) else {
            panic!("wants to connect");
        };
        self.delivery.connected(self.at(ms), true);
        endpoint
    }

    /// Writes what may be written and returns it.
    fn write(&mut self, ms: u64) -> Vec<u8> {
        let mut all = Vec::new();
        while let Step::Exchange { write: true, .. } = self.delivery.step(self.at(ms), false) {
            let part = self.slice(ms);
            self.delivery.wrote(self.at(ms), part.len());
            all.extend(part);
        }
        self.delivery.flushed(self.at(ms));
        all
    }

    fn slice(&self, ms: u64) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); 8];
        let used = self.delivery.to_write(self.at(ms), &mut slices);
        slices[..used].iter().flat_map(|slice| slice.to_vec()).collect()
    }

    fn ids(&self) -> Vec<forward_protocol::encode::ChunkId> {
        self.delivery.chunks.iter().map(|chunk| chunk.id).collect()
    }
}

#[test]
fn resends_the_same_bytes_in_order_after_a_loss() {
    let mut rig = rig(policy());
    for _ in 0..5 {
        rig.push();
    }
    let ids = rig.ids();
    rig.connect(0);
    let first = rig.write(0);
    assert_eq!(rig.delivery.in_flight(), 3, "the window is three chunks");
    assert!(
        matches!(rig.delivery.acked(ids[1].as_bytes()), Acked::Delivered(_)),
        "acks may come out of order"
    );
    let second = rig.write(1);
    assert!(!second.is_empty());
    rig.delivery.lost(rig.at(2));
    assert_eq!(rig.ids(), [ids[0], ids[2], ids[3], ids[4]]);
    rig.connect(3);
    let again = rig.write(3);
    let length = first.len() / 3;
    assert_eq!(again[..length], first[..length], "chunk 0 unchanged");
    assert_eq!(
        again[length..2 * length],
        first[2 * length..],
        "chunk 2 unchanged"
    );
    assert_eq!(again[2 * length..], second[..length], "chunk 3 unchanged");
    assert_eq!(rig.delivery.resent(), 3);
}

#[test]
fn a_chunk_begun_starts_anew_on_the_next_connection() {
    let mut rig = rig(policy());
    rig.push();
    rig.connect(0);
    let whole = rig.slice(0);
    rig.delivery.wrote(rig.at(0), 7);
    assert_eq!(rig.slice(0), whole[7..]);
    rig.delivery.lost(rig.at(1));
    let Step::Sleep(Some(until)) = rig.delivery.step(rig.at(1), false) else {
        panic!("a pause")
    };
    rig.delivery.step(until, false);
    rig.delivery.connected(until, true);
    assert_eq!(rig.slice(1000), whole);
}

#[test]
fn acks_for_other_things() {
    let mut rig = rig(policy());
    rig.connect(0);
    assert!(matches!(rig.delivery.acked(b"what"), Acked::NothingInFlight));
    rig.push();
    rig.write(0);
    assert!(matches!(rig.delivery.acked(b"what"), Acked::Mismatch));
    let id = rig.ids()[0];
    assert!(matches!(rig.delivery.acked(id.as_bytes()), Acked::Delivered(_)));
    assert!(matches!(
        rig.delivery.acked(id.as_bytes()),
        Acked::NothingInFlight
    ));
}

#[test]
fn an_ack_for_a_chunk_that_was_not_written_is_none() {
    let mut rig = rig(policy());
    rig.push();
    rig.connect(0);
    let id = rig.ids()[0];
    assert!(matches!(
        rig.delivery.acked(id.as_bytes()),
        Acked::NothingInFlight
    ));
    rig.delivery.wrote(rig.at(0), 3);
    assert!(matches!(rig.delivery.acked(id.as_bytes()), Acked::Mismatch));
}

#[test]
fn ack_timeout_counts_from_the_last_byte() {
    let mut rig = rig(policy());
    rig.push();
    rig.connect(0);
    rig.delivery.wrote(rig.at(1000), 3);
    rig.write(4000);
    let Step::Exchange {
        write: false,
        until: Some(until),
    } = rig.delivery.step(rig.at(4000), false)
    else {
        panic!("waits for the ack");
    };
    assert_eq!(until, rig.at(14_000));
    assert_eq!(
        rig.delivery.step(rig.at(14_000), false),
        Step::Drop(Failure::AckTimeout)
    );
}

#[test]
fn write_timeout_counts_from_the_last_progress() {
    let mut rig = rig(policy());
    rig.connect(0);
    // A long silence before there was anything to write does not count.
    rig.push();
    let Step::Exchange {
        write: true,
        until: Some(until),
    } = rig.delivery.step(rig.at(60_000), false)
    else {
        panic!("writes");
    };
    assert_eq!(until, rig.at(65_000));
    rig.delivery.wrote(rig.at(63_000), 1);
    assert_eq!(
        rig.delivery.step(rig.at(65_000), false),
        Step::Exchange {
            write: true,
            until: Some(rig.at(68_000))
        }
    );
    assert_eq!(
        rig.delivery.step(rig.at(68_000), false),
        Step::Drop(Failure::WriteTimeout)
    );
}

#[test]
fn without_keepalive_each_chunk_has_its_connection() {
    let mut rig = rig(policy());
    for _ in 0..3 {
        rig.push();
    }
    for round in 0..3 {
        assert!(matches!(
            rig.delivery.step(rig.at(round), true),
            Step::Connect { .. }
        ));
        rig.delivery.connected(rig.at(round), false);
        rig.write(round);
        assert_eq!(rig.delivery.in_flight(), 1);
        let id = rig.ids()[0];
        assert!(matches!(rig.delivery.acked(id.as_bytes()), Acked::Delivered(_)));
        assert_eq!(rig.delivery.step(rig.at(round), true), Step::Close);
        rig.delivery.closed();
    }
    assert!(rig.delivery.is_empty());
}

#[test]
fn without_acks_a_chunk_is_done_when_it_is_flushed() {
    let mut rig = rig(DeliveryPolicy {
        request_ack: false,
        ..policy()
    });
    rig.push();
    rig.connect(0);
    let length = rig.slice(0).len();
    rig.delivery.wrote(rig.at(0), length);
    assert!(!rig.delivery.is_empty());
    assert_eq!(rig.delivery.flushed(rig.at(0)).len(), 1);
    assert!(rig.delivery.is_empty());
}

#[test]
fn chunks_are_given_up_after_max_retry_and_only_then() {
    let mut rig = rig(DeliveryPolicy {
        max_retry: Some(2),
        ..policy()
    });
    rig.push();
    let mut now = rig.at(0);
    for attempt in 1..=3 {
        assert!(matches!(rig.delivery.step(now, true), Step::Connect { .. }));
        let given_up = rig.delivery.connect_failed(now);
        assert_eq!(given_up.len(), usize::from(attempt == 3));
        if attempt == 1 {
            rig.push();
        }
        if let Step::Sleep(Some(until)) = rig.delivery.step(now, true) {
            now = until;
        }
    }
    assert_eq!(rig.ids().len(), 1, "the younger chunk has attempts left");
}

#[test]
fn a_server_that_closes_at_once_is_not_hammered() {
    for request_ack in [true, false] {
        let mut rig = rig(DeliveryPolicy {
            request_ack,
            ..policy()
        });
        rig.push();
        rig.connect(0);
        rig.delivery.lost(rig.at(1));
        assert!(matches!(rig.delivery.step(rig.at(1), true), Step::Sleep(Some(_))));
    }
}

#[test]
fn an_idle_connection_closed_by_the_server_costs_no_pause() {
    let mut rig = rig(policy());
    rig.connect(0);
    rig.delivery.lost(rig.at(60_000));
    assert!(matches!(
        rig.delivery.step(rig.at(60_000), true),
        Step::Connect { .. }
    ));
    assert_eq!(
        rig.delivery.step(rig.at(60_000), true),
        Step::Sleep(None),
        "one attempt at a time"
    );
}

#[test]
fn nothing_to_do_means_no_connection() {
    let mut rig = rig(policy());
    assert_eq!(rig.delivery.step(rig.at(0), false), Step::Sleep(None));
}
