//! Tests of backoff, the choice of addresses and the age of connections.

use super::*;

#[test]
fn pauses_double_up_to_the_cap_and_end_with_success() {
    let mut rig = rig(policy());
    rig.push();
    let mut now = rig.at(0);
    for full in [100u64, 200, 400, 800, 1000, 1000, 1000] {
        assert!(matches!(rig.delivery.step(now, false), Step::Connect { .. }));
        rig.delivery.connect_failed(now);
        let Step::Sleep(Some(until)) = rig.delivery.step(now, false) else {
            panic!("a pause")
        };
        let pause = until - now;
        let full = Duration::from_millis(full);
        assert!(pause >= full / 2 && pause <= full, "{pause:?} of {full:?}");
        now = until;
    }
    rig.delivery.step(now, false);
    rig.delivery.connected(now, true);
    let id = rig.ids()[0];
    let length = rig.slice(0).len();
    rig.delivery.wrote(now, length);
    assert!(matches!(rig.delivery.acked(id.as_bytes()), Acked::Delivered(_)));
    rig.push();
    // After a good connection the next attempt is immediate, and the pause after it is short again.
    rig.delivery.lost(now);
    assert!(matches!(rig.delivery.step(now, false), Step::Connect { .. }));
    rig.delivery.connect_failed(now);
    let Step::Sleep(Some(until)) = rig.delivery.step(now, false) else {
        panic!("a pause")
    };
    assert!(until - now <= Duration::from_millis(100));
}

#[test]
fn closing_cuts_a_pause_short() {
    let mut rig = rig(policy());
    rig.push();
    rig.delivery.step(rig.at(0), false);
    rig.delivery.connect_failed(rig.at(0));
    assert!(matches!(
        rig.delivery.step(rig.at(1), false),
        Step::Sleep(Some(_))
    ));
    rig.delivery.skip_backoff();
    assert!(matches!(
        rig.delivery.step(rig.at(1), false),
        Step::Connect { .. }
    ));
}

#[test]
fn all_addresses_are_tried_before_a_pause() {
    let mut rig = rig(DeliveryPolicy {
        endpoints: 3,
        ..policy()
    });
    rig.push();
    let mut tried = HashSet::new();
    for _ in 0..3 {
        let Step::Connect { endpoint, .. } = rig.delivery.step(rig.at(0), false) else {
            panic!("no pause yet")
        };
        tried.insert(endpoint);
        rig.delivery.connect_failed(rig.at(0));
    }
    assert_eq!(tried.len(), 3);
    assert!(matches!(
        rig.delivery.step(rig.at(0), false),
        Step::Sleep(Some(_))
    ));
}

#[test]
fn round_robin_takes_turns_at_each_reconnect() {
    let interval = Some(Duration::from_secs(1));
    let mut rig = rig(DeliveryPolicy {
        endpoints: 3,
        reconnect_interval: interval,
        ..policy()
    });
    let mut used = Vec::new();
    for round in 0..6u64 {
        let ms = round * 1000;
        used.push(rig.connect(ms));
        assert_eq!(rig.delivery.step(rig.at(ms + 1000), false), Step::Close);
        rig.delivery.closed();
    }
    for window in used.windows(3) {
        assert_eq!(window.iter().collect::<HashSet<_>>().len(), 3, "{used:?}");
    }
}

#[test]
fn failover_leaves_the_first_address_only_when_it_fails_and_returns_to_it() {
    let interval = Some(Duration::from_secs(1));
    let mut rig = rig(DeliveryPolicy {
        endpoints: 2,
        failover: true,
        reconnect_interval: interval,
        ..policy()
    });
    assert_eq!(rig.connect(0), 0);
    rig.delivery.closed();
    assert_eq!(rig.connect(1), 0);
    rig.delivery.lost(rig.at(2));
    assert_eq!(rig.connect(2), 1);
    assert_eq!(rig.delivery.step(rig.at(1002), false), Step::Close);
    rig.delivery.closed();
    assert_eq!(rig.connect(1003), 0);
}

#[test]
fn an_old_connection_awaits_its_acks_and_gets_no_new_chunks() {
    let interval = Some(Duration::from_secs(1));
    let mut rig = rig(DeliveryPolicy {
        reconnect_interval: interval,
        ..policy()
    });
    rig.push();
    rig.push();
    rig.connect(0);
    rig.write(0);
    rig.push();
    let ids = rig.ids();
    let wait = rig.delivery.step(rig.at(1500), true);
    assert!(matches!(wait, Step::Exchange { write: false, .. }), "{wait:?}");
    assert!(!rig.delivery.wants_more(rig.at(1500)));
    rig.delivery.acked(ids[0].as_bytes());
    assert!(matches!(
        rig.delivery.step(rig.at(1500), true),
        Step::Exchange { write: false, .. }
    ));
    rig.delivery.acked(ids[1].as_bytes());
    assert_eq!(rig.delivery.step(rig.at(1500), true), Step::Close);
    rig.delivery.closed();
    assert_eq!(rig.delivery.resent(), 0);
    rig.connect(1501);
    assert!(!rig.write(1501).is_empty());
}

#[test]
fn an_old_connection_still_finishes_the_chunk_it_has_begun() {
    let interval = Some(Duration::from_secs(1));
    let mut rig = rig(DeliveryPolicy {
        reconnect_interval: interval,
        ..policy()
    });
    rig.push();
    rig.push();
    rig.connect(0);
    let whole = rig.slice(0);
    rig.delivery.wrote(rig.at(0), 5);
    let rest = rig.slice(1500);
    assert_eq!(
        rest,
        whole[5..whole.len() / 2],
        "the begun chunk and nothing behind it"
    );
    rig.delivery.wrote(rig.at(1500), rest.len());
    rig.delivery.flushed(rig.at(1500));
    assert!(matches!(
        rig.delivery.step(rig.at(1500), false),
        Step::Exchange { write: false, .. }
    ));
}

#[test]
fn reconnects_vary_by_their_jitter() {
    let interval = Duration::from_secs(100);
    let mut seen = HashSet::new();
    for _ in 0..50 {
        let mut rig = rig(DeliveryPolicy {
            reconnect_interval: Some(interval),
            reconnect_jitter: 0.1,
            ..policy()
        });
        rig.connect(0);
        let Step::Exchange {
            until: Some(until), ..
        } = rig.delivery.step(rig.at(0), false)
        else {
            panic!("has an age");
        };
        let age = until - rig.at(0);
        assert!(
            age >= interval.mul_f64(0.899) && age <= interval.mul_f64(1.101),
            "{age:?}"
        );
        seen.insert(age);
    }
    assert!(seen.len() > 40);
}
