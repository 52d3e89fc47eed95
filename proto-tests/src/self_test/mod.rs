//! Tests of the suite itself: a correct server passes, and a server with an injected fault fails
//! the cases for it.

mod reference_server;

use std::time::Duration;

use crate::report::{Expectations, Report};
use crate::sink::Sink;
use crate::target::{Security, Target};
use crate::{Options, run, run_expecting};
use reference_server::{Fault, ReferenceServer};

async fn target(fault: Fault, security: Option<Security>, folder: &tempfile::TempDir) -> Target {
    let file = folder.path().join("out.ndjson");
    let mut target = Target::new(ReferenceServer::start(fault, security.clone(), file.clone()).await);
    target.security = security;
    target.sink = Sink::File(file);
    target.declared.handshake_timeout = Some(Duration::from_secs(1));
    target
}

fn options(filter: &str) -> Options {
    Options {
        filter: filter.into(),
        reply_timeout: Duration::from_secs(6),
        sink_timeout: Duration::from_secs(6),
        many_connections: 200,
        bomb_bytes: 1 << 30,
        ..Options::default()
    }
}

fn security(users: &[(&str, &str)]) -> Option<Security> {
    let users = users
        .iter()
        .map(|(name, password)| ((*name).to_owned(), (*password).to_owned()))
        .collect();
    Some(Security {
        shared_key: "secret".into(),
        users,
        network_key: None,
    })
}

/// Cases for features that the reference server does not have.
const NOT_IMPLEMENTED: &str = "
    [cases.52]
    result = 'skip'
    reason = 'the reference server closes at once at the end of its input, which is valid but not distinguished here'
    [cases.99]
    result = 'skip'
    reason = 'the reference server has no limit on decompression'
    [cases.100]
    result = 'skip'
    reason = 'the reference server keeps every value in memory'
";

async fn correct_server(security: Option<Security>) -> Report {
    let folder = tempfile::tempdir().unwrap();
    let target = target(Fault::None, security, &folder).await;
    run_expecting(
        &target,
        &options(""),
        &Expectations::parse(NOT_IMPLEMENTED).unwrap(),
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_correct_server_passes() {
    let report = correct_server(None).await;
    assert!(report.is_good(), "{}", report.text());
    assert!(
        report.findings.len() == 110 && report.summary().contains("0 failed"),
        "{}",
        report.summary()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_correct_server_with_a_key_passes() {
    let report = correct_server(security(&[])).await;
    assert!(report.is_good(), "{}", report.text());
    let report = correct_server(security(&[("alice", "pass"), ("bob", "word")])).await;
    assert!(report.is_good(), "{}", report.text());
}

/// Each fault with the cases to run and the cases that must fail; the others must pass.
const FAULTS: [(Fault, &str, &[u16]); 20] = [
    (Fault::AckTrimmed, "47,49", &[47]),
    (Fault::AckAlwaysStr, "47,49", &[49]),
    (Fault::AckReversed, "6,50", &[50]),
    (Fault::AckInTwoWrites, "6,51", &[51]),
    (Fault::AckLost, "1,6,13,57", &[1, 6, 13, 57]),
    (Fault::AnswersUnasked, "6,58", &[58]),
    (Fault::LosesLastEntry, "1,8,15", &[8, 15]),
    (Fault::DoublesEvents, "1,8,19", &[1, 8, 19]),
    (Fault::FirstGzipMemberOnly, "19,21-23", &[21, 22, 23]),
    (Fault::NoSniffing, "19,28", &[28]),
    (Fault::NilCloses, "1,65", &[65]),
    (Fault::Milliseconds, "1,2,3", &[2, 3]),
    (Fault::SignedSeconds, "2,62", &[62]),
    (Fault::MetadataInRecord, "1,7,10", &[7, 10]),
    (Fault::MarkersAreEvents, "10,45", &[45]),
    (Fault::IgnoresSignal, "39-41", &[40, 41]),
    (Fault::BadEntryCloses, "1,103", &[103]),
    (Fault::GarbageIgnored, "1,101", &[101]),
    (Fault::StopsAtPartial, "1,68,69", &[68, 69]),
    (Fault::JsonAckInMsgpack, "74,76", &[74, 76]),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_is_found() {
    for (fault, filter, expected) in FAULTS {
        let folder = tempfile::tempdir().unwrap();
        let report = run(&target(fault, None, &folder).await, &options(filter)).await;
        assert_eq!(report.failed(), expected, "{fault:?}: {}", report.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_of_the_handshake_is_found() {
    let users: &[(&str, &str)] = &[("alice", "pass")];
    for (fault, filter, expected) in [
        (Fault::AnyKey, "80,83,84", &[83][..]),
        (Fault::AnyUser, "80,83,84", &[84]),
        (Fault::StaleNonce, "80,92", &[92]),
        (Fault::WrongPong, "79,80,81,92", &[80, 81]),
        (Fault::NoPingNeeded, "80,89", &[89]),
        (Fault::StaysAfterRefusal, "80,83", &[83]),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let report = run(&target(fault, security(users), &folder).await, &options(filter)).await;
        assert_eq!(report.failed(), expected, "{fault:?}: {}", report.text());
    }
}
