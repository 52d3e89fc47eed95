//! A long outage of the server: the application's memory stays flat, its calls return, rejected
//! records are counted exactly, and accepted records arrive.

use std::path::Path;
use std::time::{Duration, Instant};

use fluent_logger::{Logger, Rejected};
use windrow_testkit::wait;

use super::{child, exactly_once, record};
use crate::{SOON, windrow};

const OUTAGE: &str = "rust_logger::outages::a_long_outage_with_a_buffer_of_1000";

/// Logs until it finds the file `stop`; numbers what was taken without gaps, and counts what was
/// refused.
fn application(folder: &Path) {
    let logger = Logger::builder()
        .address(std::env::var("CHILD_ADDRESS").unwrap())
        .buffer_limit(1000)
        .retry_wait(Duration::from_millis(20))
        .max_retry_wait(Duration::from_millis(200))
        .own_thread(true)
        .build()
        .unwrap();
    let stop = folder.join("stop");
    let (mut taken, mut refused, mut full, mut turn) = (0u64, 0u64, false, 0u64);
    while !turn.is_multiple_of(64) || !stop.is_file() {
        turn += 1;
        match logger.log("app", &record(taken)) {
            Ok(()) => {
                taken += 1;
                if taken == 1 {
                    println!("\nbegun");
                }
                if std::mem::take(&mut full) {
                    println!("\nroom again after {refused} refused");
                }
            }
            Err(Rejected::Full { events, .. }) => {
                assert_eq!(events, 1000, "the buffer holds what was asked for");
                refused += 1;
                if !std::mem::replace(&mut full, true) {
                    println!("\nfull after {taken} taken");
                }
                if refused.is_multiple_of(1000) {
                    println!("\nrefused {refused} so far");
                }
            }
            Err(other) => panic!("{other}"),
        }
        std::thread::sleep(Duration::from_micros(300));
    }
    let returned = logger.blocking_close(SOON).unwrap().len();
    let stats = logger.stats();
    assert_eq!(
        (stats.accepted, stats.rejected, stats.delivered),
        (taken, refused, taken)
    );
    println!("\nend {taken} {refused} {returned}");
}

/// Five seconds; `WINDROW_TEST_OUTAGE_SECONDS=60` for a minute.
#[test]
fn a_long_outage_with_a_buffer_of_1000() {
    if let Some(folder) = std::env::var_os("CHILD_FOLDER") {
        return application(Path::new(&folder));
    }
    let seconds = std::env::var("WINDROW_TEST_OUTAGE_SECONDS").map_or(5, |text| text.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let mut server = windrow().sqlite().start();
    let mut application = child(
        OUTAGE,
        &[
            ("CHILD_FOLDER", folder.path().to_str().unwrap()),
            ("CHILD_ADDRESS", &server.forward().to_string()),
        ],
    );
    application.line("its first record", SOON, |line| (line == "begun").then_some(()));
    wait::until_true("the first records", SOON, || {
        server.metric("windrow_input_records_total") > 500.0
    });
    server.kill();
    let number = |line: &str, after: &str| -> Option<u64> {
        line.strip_prefix(after)?.split(' ').next()?.parse().ok()
    };
    application.line("its full buffer", SOON, |line| number(line, "full after "));
    let first = application.resident_bytes().unwrap();
    let mut most = first;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(seconds) {
        std::thread::sleep(Duration::from_millis(100));
        most = most.max(application.resident_bytes().expect("it still runs"));
    }
    assert!(
        most - first < 4 << 20,
        "memory grew during the outage: {first} to {most} bytes"
    );
    // The server is still away: had a call waited for it, there would not be a thousand that
    // returned.
    application.line("calls that return", SOON, |line| number(line, "refused "));
    server.start_again();
    application.line("room in the buffer", SOON, |line| {
        number(line, "room again after ")
    });
    std::fs::write(folder.path().join("stop"), "").unwrap();
    let end = application.line("its end", SOON, |line| {
        line.strip_prefix("end ").map(str::to_owned)
    });
    assert!(application.wait(SOON).success(), "{}", application.last_words(20));
    let numbers: Vec<u64> = end.split(' ').map(|number| number.parse().unwrap()).collect();
    let &[taken, refused, returned] = &*numbers else {
        panic!("{end}")
    };
    assert_eq!(returned, 0);
    wait::until("everything that was taken", SOON, || {
        exactly_once(&server.stored(), 0..taken)
    });
    assert_eq!(
        server.stored().len() as u64,
        taken,
        "and nothing that was refused"
    );
    println!("{taken} taken and stored, {refused} refused, {first} to {most} bytes resident");
}
