//! Tests of the report of wrong options.

use std::time::Duration;

use super::*;

#[test]
fn all_mistakes_are_reported_at_once() {
    let error = Builder::default()
        .address("ftp://logs")
        .address("logs:0")
        .flush_interval(Duration::from_secs(7200))
        .in_flight(0)
        .user("ann", "secret")
        .build()
        .unwrap_err();
    let BuildError::Several(errors) = &error else {
        panic!("{error}");
    };
    assert_eq!(errors.len(), 5, "{error}");
    let text = error.to_string();
    assert!(
        text.starts_with("5 options are wrong; address \"ftp://logs\""),
        "{text}"
    );
    assert!(
        text.contains("in_flight is 0") && !text.contains("secret"),
        "{text}"
    );
}

#[test]
fn a_single_mistake_is_reported_as_itself() {
    let error = Builder::default().in_flight(0).build().unwrap_err();
    assert!(
        matches!(
            error,
            BuildError::OutOfRange {
                option: "in_flight",
                ..
            }
        ),
        "{error}"
    );
}
