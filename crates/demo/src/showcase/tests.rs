//! Tests of complete documents and the report. The whole showcase runs in `tests/showcase.rs`, with
//! a real Windrow.

use serde_json::json;

use super::*;

fn order() -> Row {
    let outcome = Outcome {
        trace_id: "t".to_owned(),
        attempts: 1,
        took: Duration::ZERO,
        result: Ok(200),
    };
    row("order", &outcome)
}

const ALL: &str = "user: handler finished\nrequest completed\nproduct: handler finished\nrequest completed\n\
                   order: handler finished\nrequest completed";

#[test]
fn one_document_with_all_lines_in_any_order_is_right() {
    assert_eq!(order().fault(&[json!({"message": ALL})]), None);
    let mut lines: Vec<&str> = ALL.split('\n').collect();
    lines.reverse();
    assert_eq!(order().fault(&[json!({"message": lines.join("\n")})]), None);
}

#[test]
fn anything_else_is_a_fault() {
    let whole = json!({"message": ALL});
    let twice = json!({"message": format!("{ALL}\nrequest completed")});
    let missing = json!({"message": ALL.rsplit_once('\n').unwrap().0});
    for documents in [
        vec![],
        vec![whole.clone(), whole],
        vec![twice],
        vec![missing],
        vec![json!({})],
    ] {
        assert!(order().fault(&documents).is_some(), "{documents:?}");
    }
}

#[test]
fn a_report_without_requests_keeps_no_promise() {
    assert!(!Report::default().is_kept());
    assert!(
        Report {
            answered: 2,
            documents: 2,
            faults: vec![]
        }
        .is_kept()
    );
    assert!(
        !Report {
            answered: 2,
            documents: 1,
            faults: vec!["x".to_owned()]
        }
        .is_kept()
    );
}

#[test]
fn the_board_knows_which_requests_are_open() {
    let mut board = Board::new(false);
    board.answered(order());
    assert_eq!(board.open(), ["t"]);
    board.gathered("t", &[json!({"message": "request completed"})]);
    assert_eq!(board.open(), ["t"]);
    board.gathered("t", &[json!({"message": ALL})]);
    assert!(board.open().is_empty());
}
