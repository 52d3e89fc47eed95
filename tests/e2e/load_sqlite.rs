//! Loads into the embedded store: every trace one document with every line once and in order, in
//! every mode a standard client may use.

use windrow_testkit::load::{Entries, Ids, Load, Mode, Time};

use crate::{assert_stored, windrow};

#[test]
fn twenty_thousand_traces() {
    let server = windrow().sqlite().start();
    let load = Load {
        traces: 20_000,
        open: 700,
        chunk_records: 1000,
        ..Load::new(server.forward(), "big")
    };
    let report = load.run();
    assert_stored(&server, &report);
    assert_eq!(server.stored().len(), 20_000, "and nothing else");
}

/// One server takes all of them, side by side, as it would in life.
#[test]
fn every_mode_and_habit_of_clients() {
    let server = windrow().sqlite().start();
    let base = |prefix: &str| Load {
        traces: 1500,
        open: 300,
        chunk_records: 200,
        ..Load::new(server.forward(), prefix)
    };
    let loads = [
        Load {
            mode: Mode::Message,
            window: 64,
            ..base("message-")
        },
        Load {
            mode: Mode::Message,
            acks: false,
            ..base("message-unacked-")
        },
        Load {
            mode: Mode::Forward,
            ..base("forward-")
        },
        Load {
            mode: Mode::Forward,
            entries: Entries::V2,
            ..base("forward-v2-")
        },
        Load {
            mode: Mode::Packed,
            entries: Entries::V2,
            window: 8,
            ..base("packed-v2-")
        },
        Load {
            mode: Mode::Packed,
            acks: false,
            ..base("packed-unacked-")
        },
        Load {
            mode: Mode::Gzip,
            ..base("gzip-")
        },
        Load {
            mode: Mode::Gzip,
            entries: Entries::V2,
            ..base("gzip-v2-")
        },
        Load {
            mode: Mode::GzipMembers,
            ..base("gzip-members-")
        },
        Load {
            time: Time::Integer,
            per_second: 5000,
            ..base("whole-seconds-")
        },
        Load {
            time: Time::Float,
            ..base("float-seconds-")
        },
        Load {
            repeat: 2,
            ..base("twice-")
        },
        Load {
            repeat: 3,
            mode: Mode::Gzip,
            reconnect: 3,
            ..base("thrice-gzip-")
        },
        Load {
            reconnect: 1,
            ..base("reconnect-1-")
        },
        Load {
            reconnect: 10,
            connections: 5,
            ..base("reconnect-10-")
        },
        Load {
            spread: true,
            connections: 4,
            ..base("spread-")
        },
        Load {
            ids: Ids::Counting,
            connections: 4,
            ..base("counting-")
        },
        Load {
            ids: Ids::Counting,
            connections: 4,
            repeat: 2,
            ..base("counting-twice-")
        },
    ];
    let running: Vec<_> = loads.into_iter().map(Load::start).collect();
    let reports: Vec<_> = running.into_iter().map(|load| load.finish()).collect();
    for report in &reports {
        report.ledger.trust_all_sent();
        assert_stored(&server, report);
    }
    assert_eq!(server.stored().len(), reports.len() * 1500, "and nothing else");
}
