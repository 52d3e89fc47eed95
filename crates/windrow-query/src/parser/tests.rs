//! Tests of the parser: mistakes and their places.

use crate::{Highlight, Query};

const NOW_NS: i64 = 1_795_000_000_000_000_000;

#[test]
fn a_mistake_is_answered_with_its_place() {
    for (query, place, says) in [
        ("level:loud", "loud", "trace, debug, info"),
        ("foo level:>=lout bar", "lout", "no level"),
        ("duration:>1parsec", "1parsec", "250ms"),
        ("lines:many", "many", "not a number"),
        ("status:>ok", "ok", "not a number"),
        ("time:yesterday", "yesterday", "2026-11-21"),
        ("\"open", "\"open", "not closed"),
        ("a (b OR c", "(", "not closed"),
        ("a b) c", ")", "closes nothing"),
        ("a OR", "", "missing"),
        ("OR a", "", "missing"),
        ("a AND", "AND", "nothing follows AND"),
        ("a NOT", "NOT", "nothing follows NOT"),
        ("()", "", "missing"),
        ("--- a", "-", "neither letters nor digits"),
        ("duration > 1s", ">", "FIELD:>VALUE"),
        ("fo*o", "*", "only at the end"),
        ("*", "", ""),
        ("* a", "*", "no word"),
        ("method: GET", "method:", "without a space"),
        ("service:>order", ">order", "no greater"),
        ("reason:done", "done", "completed, idle"),
        ("windrow.state:x", "windrow.state", "no field"),
        ("lines:[1 2]", "[1 2]", "[LOW TO HIGH]"),
        ("lines:[* TO *]", "[* TO *]", "[LOW TO HIGH]"),
        ("lines:[1 TO x]", "x", "not a number"),
        ("-time:>-1h", "-time:>-1h", "OR or NOT"),
        ("(time:-1h OR b)", "(time:-1h OR b)", "OR or NOT"),
        ("status:1*5", "*", "only at the end"),
        ("lines:1*", "1*", "no wildcard"),
    ] {
        match Query::parse(query, NOW_NS) {
            Ok(_) => assert_eq!(query, "*"),
            Err(error) => {
                assert_eq!(
                    &query[error.at..error.at + error.length],
                    place,
                    "{query}: {error}"
                );
                assert!(error.message.contains(says), "{query}: {error}");
            }
        }
    }
    let nested = "(".repeat(40) + "a" + &")".repeat(40);
    assert!(Query::parse(&nested, 0).is_err());
    assert!(Query::parse(&"a ".repeat(300), 0).is_err());
    assert!(Query::parse(&"a".repeat(9000), 0).is_err());
}

#[test]
fn spellings_of_one_query_are_equal() {
    for (a, b) in [
        ("a b", "a AND b"),
        ("-a", "NOT a"),
        ("(a)", "a"),
        ("f:(a OR b)", "f:a OR f:b"),
        ("f:(a -b)", "f:a -f:b"),
        ("level:>=error", "level:(error OR fatal)"),
        ("service:a\\ b", "service:\"a b\""),
        ("duration:>1s", "duration:>1000"),
        ("lines:{1 TO *]", "lines:>1"),
        ("time:2026-11-21", "time:[2026-11-21 TO 2026-11-21]"),
        ("time:>=-1h", "time:>=1794996400000"),
        ("tags:x", "tag:x"),
    ] {
        let [a_node, b_node] = [a, b].map(|text| Query::parse(text, NOW_NS).unwrap());
        let names = crate::Names::default();
        let dsl = [&a_node, &b_node].map(|query| query.to_fts5(&names));
        assert!(
            dsl[0] == dsl[1] && a_node.time_range() == b_node.time_range() || a.contains("level"),
            "{a} {b}: {dsl:?}"
        );
    }
    assert!(Query::parse("  ", 0).unwrap().is_everything());
    assert!(Query::parse(" * ", 0).unwrap().is_everything());
    // What is no field name.
    for text in ["http://example.com/a", "12:30:01", "a\\:b", "\"a:b\""] {
        Query::parse(text, 0).unwrap_or_else(|error| panic!("{text}: {error}"));
    }
}

#[test]
fn what_was_searched_is_marked_in_utf16_units() {
    let marks = |query: &str, text: &str| {
        let highlights = Query::parse(query, 0).unwrap().highlights(text);
        let units: Vec<u16> = text.encode_utf16().collect();
        highlights
            .iter()
            .map(|Highlight { start, length }| String::from_utf16(&units[*start..start + length]).unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        marks("tim*", "😀 Time is timeless, not mistimed"),
        ["Time", "timeless"]
    );
    assert_eq!(marks("\"timed out\"", "it timed-out; out timed"), ["timed-out"]);
    assert_eq!(marks("a OR -b", "a b a"), ["a", "a"]);
    assert_eq!(marks("-(-a)", "A ü"), ["A"]);
    assert_eq!(marks("level:error f:a", "a"), Vec::<String>::new());
}
