//! Cases that can be measured, by name. Owns their loads and which of them run without `--full`.

use super::load::{Load, Mode};
use super::system::System;

/// What a case does with its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// Send the load and wait until it has arrived.
    Send,
    /// Send the load while people have pages open and search.
    SendWatched,
    /// Send the load while the store is unavailable; measure from when it is available again.
    CatchUp,
    /// Send the load while the store is unavailable, kill the server and measure its restart.
    Restart,
    /// Send nothing.
    Idle,
}

/// A case to be measured.
#[derive(Clone, Debug)]
pub(super) struct Case {
    /// Its name on the command line and in the table.
    pub(super) name: &'static str,
    /// Description in the table.
    pub(super) about: &'static str,
    /// Which server.
    pub(super) system: System,
    /// What the server is given to do.
    pub(super) work: Work,
    /// The load that is sent.
    pub(super) load: Load,
    /// The case that its CPU time per record is compared with, besides the baseline server's.
    pub(super) base: Option<&'static str>,
    /// Further arguments of `serve`.
    pub(super) arguments: &'static [&'static str],
    /// Runs without `--full`.
    pub(super) usual: bool,
}

/// All cases in the order of the table, for loads of `records` records.
pub(super) fn all(records: u64) -> Vec<Case> {
    let load = Load {
        records,
        ..Load::default()
    };
    let ten_times = Load {
        records: records * 10,
        ..load
    };
    let many = Load {
        connections: 1000,
        open: records,
        ..load
    };
    let case = |name, about, load: Load| Case {
        name,
        about,
        system: System::Windrow,
        work: Work::Send,
        load,
        base: Some("packed"),
        arguments: &[],
        usual: false,
    };
    let usual = |case: Case| Case { usual: true, ..case };
    let of = |system, base, case: Case| Case { system, base, ..case };
    let mode = |mode| Load { mode, ..load.clone() };
    let message = Load {
        acks: false,
        connections: 1,
        window: 64,
        ..mode(Mode::Message)
    };
    vec![
        usual(of(
            System::Baseline,
            None,
            case(
                "floor",
                "a baseline server: the same I/O, no decoding",
                load.clone(),
            ),
        )),
        usual(of(
            System::Windrow,
            None,
            case("packed", "PackedForward, acks, 5 lines a trace", load.clone()),
        )),
        usual(case(
            "gzip",
            "the same, chunks compressed with gzip",
            mode(Mode::Gzip),
        )),
        usual(case("forward", "the same in Forward mode", mode(Mode::Forward))),
        usual(case(
            "message",
            "Message mode, 1 connection, no acks",
            message.clone(),
        )),
        case(
            "message-ack",
            "Message mode, an ack for each record, 8 connections x 64",
            Load {
                connections: 8,
                window: 64,
                ..mode(Mode::Message)
            },
        ),
        case(
            "lines-1",
            "packed, 1 line a trace",
            Load {
                lines: 1,
                ..load.clone()
            },
        ),
        case(
            "lines-50",
            "packed, 50 lines a trace",
            Load {
                lines: 50,
                ..load.clone()
            },
        ),
        case(
            "no-trace",
            "packed, records without a trace id",
            Load {
                traced: false,
                ..load.clone()
            },
        ),
        Case {
            arguments: &["--memory-limit", "4GiB"],
            ..case(
                "many",
                "packed, 1,000 connections, as many traces open as there are records elsewhere",
                Load {
                    records: records * 20,
                    ..many.clone()
                },
            )
        },
        Case {
            arguments: &["--memory-limit", "4GiB"],
            ..case(
                "many-once",
                "the same, from a start to when all are open once, in small chunks",
                Load {
                    records: records * 5,
                    chunk_records: 250,
                    ..many
                },
            )
        },
        case(
            "large",
            "packed, records of 2 KiB",
            Load {
                records: records / 4,
                filler: 1850,
                chunk_records: 250,
                ..load.clone()
            },
        ),
        case(
            "ten-times",
            "packed, ten times the records: shows whether memory stays flat",
            ten_times.clone(),
        ),
        of(
            System::Sqlite,
            Some("packed"),
            case("sqlite", "packed, into the embedded database", load.clone()),
        ),
        of(
            System::Sqlite,
            Some("ten-times"),
            case(
                "sqlite-ten-times",
                "packed, ten times the records into the embedded database",
                ten_times.clone(),
            ),
        ),
        Case {
            work: Work::SendWatched,
            ..of(
                System::Sqlite,
                Some("sqlite-ten-times"),
                case(
                    "sqlite-watched",
                    "the same while 20 pages are open, with 20 searches a second",
                    ten_times.clone(),
                ),
            )
        },
        Case {
            work: Work::SendWatched,
            ..of(
                System::Windrow,
                Some("ten-times"),
                case(
                    "watched",
                    "ten-times while 20 pages are open, with 20 searches a second",
                    ten_times,
                ),
            )
        },
        Case {
            work: Work::CatchUp,
            ..case(
                "catch-up",
                "four times the records from the journal, after an outage of the store",
                Load {
                    records: records * 4,
                    ..load.clone()
                },
            )
        },
        Case {
            work: Work::Restart,
            base: None,
            ..case(
                "restart",
                "from start to ready with nine times the records in the journal (1 GiB by default)",
                Load {
                    records: records * 9,
                    ..load.clone()
                },
            )
        },
        Case {
            work: Work::Idle,
            base: None,
            ..case("idle", "nothing is sent for 5 s", load.clone())
        },
        of(
            System::FluentBit,
            None,
            case(
                "fluent-bit",
                "Fluent Bit receives and discards: packed, acks",
                load.clone(),
            ),
        ),
        of(
            System::FluentBit,
            Some("fluent-bit"),
            case(
                "fluent-bit-forward",
                "the same in Forward mode",
                mode(Mode::Forward),
            ),
        ),
        of(
            System::FluentBit,
            Some("fluent-bit"),
            case(
                "fluent-bit-message",
                "the same in Message mode, 1 connection, no acks",
                message,
            ),
        ),
    ]
}
