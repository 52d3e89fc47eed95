//! The client cases against a client that does nearly everything wrong.

use std::time::Duration;

use proto_tests::client_cases::{ClientOptions, run};
use proto_tests::{Expectations, Outcome};

#[tokio::test(flavor = "multi_thread")]
async fn a_naive_client_fails() {
    let here = std::env::current_exe().unwrap();
    let adapter = here
        .parent()
        .unwrap()
        .parent()
        .unwrap()
        .join("examples")
        .join("naive_client");
    assert!(
        adapter.is_file(),
        "{} is built with the tests of this package",
        adapter.display()
    );
    let mut options = ClientOptions::new(adapter.display().to_string());
    options.reply_timeout = Duration::from_secs(2);
    options.parallel = 16;
    let report = run(&options, &Expectations::default()).await;
    let must_fail = [
        1, 2, 3, 4, 5, 8, 10, 11, 12, 13, 14, 15, 17, 18, 19, 21, 22, 24, 25, 26, 27, 28, 29, 30, 31, 32, 35,
        36, 37, 38, 39,
    ];
    let failed = report.failed();
    for number in must_fail {
        assert!(
            failed.contains(&number),
            "case {number} does not fail\n{}",
            report.text()
        );
    }
    // The suite does not fail everything: case 40 passes.
    let passed = |number| {
        report
            .findings
            .iter()
            .any(|f| f.number == number && f.outcome == Outcome::Pass)
    };
    assert!(passed(40), "{}", report.text());
    let skipped = |number| {
        report
            .findings
            .iter()
            .any(|f| f.number == number && matches!(f.outcome, Outcome::Skip(_)))
    };
    assert!(skipped(33) && skipped(34), "{}", report.text());
}
