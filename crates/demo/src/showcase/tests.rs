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
    row("order", Kind::Fine, &outcome)
}

fn document(message: &str) -> serde_json::Value {
    json!({"message": message, "windrow": {"level": "info", "services": ["order", "product", "user"]}})
}

const ALL: &str = "user: handler finished\nrequest completed\nproduct: handler finished\nrequest completed\n\
                   order: handler finished\nrequest completed";

#[test]
fn one_document_with_all_lines_in_any_order_is_right() {
    assert_eq!(order().fault(&[document(ALL)]), None);
    let mut lines: Vec<&str> = ALL.split('\n').collect();
    lines.reverse();
    assert_eq!(order().fault(&[document(&lines.join("\n"))]), None);
}

#[test]
fn anything_else_is_a_fault() {
    let whole = document(ALL);
    let twice = document(&format!("{ALL}\nrequest completed"));
    let missing = document(ALL.rsplit_once('\n').unwrap().0);
    let mut one_service = whole.clone();
    one_service["windrow"]["services"] = json!(["order"]);
    for documents in [
        vec![],
        vec![whole.clone(), whole],
        vec![twice],
        vec![missing],
        vec![one_service],
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
    board.gathered("t", &[document("request completed")]);
    assert_eq!(board.open(), ["t"]);
    board.gathered("t", &[document(ALL)]);
    assert!(board.open().is_empty());
}
