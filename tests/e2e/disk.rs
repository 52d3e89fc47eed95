//! A full disk: nothing is acknowledged that is not durable, log and admin API say why, and the
//! server continues by itself when there is space again.

use std::fs;
use std::time::Duration;

use windrow_testkit::check;
use windrow_testkit::disk::SmallDisk;
use windrow_testkit::fake_elasticsearch::FakeElasticsearch;
use windrow_testkit::load::Load;
use windrow_testkit::need;
use windrow_testkit::server::Server;
use windrow_testkit::wait;

use crate::{SOON, windrow};

#[track_caller]
fn wait_full(server: &Server) {
    wait::until("/ready to say that the disk is full", SOON, || {
        let answer = server.get("/ready");
        let blocked = server.metric("windrow_journal_blocked");
        if answer.status == 503 && answer.text.contains("no space") && blocked > 0.5 {
            Ok(())
        } else {
            Err(format!("{} {}, blocked {blocked}", answer.status, answer.text))
        }
    });
}

#[test]
fn a_full_disk_stops_acknowledging_and_space_is_enough_to_go_on() {
    let disk = need!(SmallDisk::mount(24 << 20));
    // Somebody else's file takes a part of it.
    let other = disk.outside().join("other");
    fs::write(&other, vec![1; 10 << 20]).unwrap();
    let mut sink = FakeElasticsearch::stopped();
    let mut server = windrow().on(&disk).elasticsearch(&sink.url(), "disk").start();
    // About 20 MB of messages.
    let running = Load {
        traces: 12_000,
        open: 300,
        chunk_records: 100,
        ack_timeout: Duration::from_secs(300),
        give_up: 3 * SOON,
        ..Load::new(server.forward(), "disk-")
    }
    .start();
    wait_full(&server);
    let acks = || running.ledger().acknowledged();
    let first = wait::settled("acks", Duration::from_secs(1), SOON, acks);
    assert!((1000..55_000).contains(&first), "{first} acknowledged");
    let said = server.process().stderr().join("\n");
    assert!(said.contains("no space"), "{said}");
    assert_eq!(server.get("/health").status, 200, "a new start would not help");

    // It starts on a full disk too, and then still acknowledges nothing that has no room.
    server.crash();
    wait_full(&server);
    let second = wait::settled("acks", Duration::from_secs(1), SOON, acks);
    assert!(second < 55_000, "{second} acknowledged");

    // Some space, and it goes on without a restart.
    fs::remove_file(&other).unwrap();
    running.wait_acknowledged(second + 1000);
    sink.start_again();
    let report = running.finish();
    check::eventually(&report.ledger, 2 * SOON, || sink.documents("disk-")).assert_clean();
    server.wait_ready();
    assert_eq!(server.get("/health").status, 200);
    assert!(server.terminate(SOON).success());
    check::compare(&report.ledger, &sink.documents("disk-")).assert_clean();
}

/// Everything on the full disk: the embedded store cannot write either, and goes on as well.
#[test]
fn the_embedded_store_on_a_full_disk() {
    let disk = need!(SmallDisk::mount(24 << 20));
    let other = disk.outside().join("other");
    let mut server = windrow().on(&disk).sqlite().start();
    fs::write(&other, vec![1; 8 << 20]).unwrap();
    let running = Load {
        traces: 3000,
        open: 300,
        chunk_records: 100,
        rate: 5000,
        ack_timeout: Duration::from_secs(300),
        give_up: 3 * SOON,
        ..Load::new(server.forward(), "stored-")
    }
    .start();
    running.wait_acknowledged(1000);
    // To the brim.
    let mut rest = vec![2; 16 << 20];
    while rest.len() > 4096 && fs::write(disk.outside().join("rest"), &rest).is_err() {
        rest.truncate(rest.len() * 3 / 4);
    }
    wait::until("the store to fail", SOON, || {
        match server.metric("windrow_output_errors_total") {
            none if none < 0.5 => Err(server.get("/ready").text),
            _ => Ok(()),
        }
    });
    for name in ["other", "rest"] {
        fs::remove_file(disk.outside().join(name)).unwrap();
    }
    let report = running.finish();
    server.wait_ready();
    wait::until_true("everything to be stored", SOON, || {
        server.metric("windrow_records_open") < 0.5
            && server.metric("windrow_records_delivered_total") > 14_999.5
    });
    assert!(server.terminate(SOON).success());
    // SQLite opens no file of another mount namespace: a copy.
    let copy = tempfile::tempdir().unwrap();
    for name in ["windrow.db", "windrow.db-wal"] {
        let from = disk.outside().join("data").join(name);
        if from.try_exists().unwrap() {
            fs::copy(from, copy.path().join(name)).unwrap();
        }
    }
    let stored = windrow_testkit::sqlite::documents(&copy.path().join("windrow.db"));
    check::compare(&report.ledger, &stored).assert_clean();
}
