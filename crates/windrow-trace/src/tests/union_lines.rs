//! Lines of a stored document.

use serde_json::json;

use super::union::joined;
use super::*;
use crate::{Severity, document_lines};

#[test]
fn a_document_is_taken_apart_into_its_lines() {
    let part = |id: u8, received, texts: &[(i64, Option<&str>)]| TestPart {
        id: [id; 12],
        received,
        tag: "app",
        records: texts
            .iter()
            .map(|(time, text)| {
                let mut map = json!({"traceId": "t"});
                if let Some(text) = text {
                    map["log"] = json!(text);
                    map["level"] = json!("WARN");
                    map["service"] = json!(["shop", "bank"][id as usize - 1]);
                }
                (*time, record(&map), Vec::new())
            })
            .collect(),
    };
    let first = part(1, 10, &[(1, Some("a\nb")), (3, None), (3, Some(""))]);
    let late = part(2, 30, &[(2, Some("\"é"))]);
    let document = joined(
        &render("t", &[first], SealReason::Idle, 20),
        &render("t", &[late], SealReason::Idle, 40),
    );
    let lines = document_lines(&document).unwrap();
    let seen: Vec<_> = lines
        .iter()
        .map(|line| {
            (
                line.time_ns,
                line.text.as_deref(),
                line.part.0[0],
                line.position,
                line.received_us,
                line.late,
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            (1, Some("a\nb"), 1, 0, 10, false),
            (2, Some("\"é"), 2, 0, 30, true),
            (3, None, 1, 1, 10, false),
            (3, Some(""), 1, 2, 10, false),
        ]
    );
    let context: Vec<_> = lines
        .iter()
        .map(|line| (line.level, line.service.as_deref()))
        .collect();
    let (warn, none) = (Some(Severity::Warn), (None, None));
    assert_eq!(
        context,
        [
            (warn, Some("shop")),
            (warn, Some("bank")),
            none,
            (warn, Some("shop"))
        ]
    );
    assert!(document_lines(b"{\"message\":\"m\",\"windrow\":{\"tags\":[\"app\"]}}").is_err());
}
