//! Equal answers: the evaluator and SQLite's FTS5 find what `testdata/` says, and the same as each
//! other on random documents and queries.
#![expect(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;
use rusqlite::Connection;
use serde_json::{Value, json};
use windrow_query::{Document, FTS5_TOKENIZER, Names, Query, index_terms};

/// A table of terms with documents numbered from 1.
struct Table(Connection);

impl Table {
    fn new(documents: &[Document<'_>]) -> Self {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch(&format!(
                "CREATE VIRTUAL TABLE terms USING fts5(body, content='', contentless_delete=1, tokenize=\"{FTS5_TOKENIZER}\")"
            ))
            .unwrap();
        for (n, document) in (1i64..).zip(documents) {
            connection
                .execute(
                    "INSERT INTO terms (rowid, body) VALUES (?1, ?2)",
                    (n, index_terms(document)),
                )
                .unwrap();
        }
        Self(connection)
    }

    fn find(&self, query: &Query, documents: &[Document<'_>]) -> Vec<usize> {
        let (from, to) = query.time_range();
        let in_time = |n: &usize| (from..=to).contains(&documents[*n].time_ms());
        let Some(expression) = query.to_fts5(&Names::default()) else {
            return (0..documents.len()).filter(in_time).collect();
        };
        let mut read = self
            .0
            .prepare("SELECT rowid FROM terms WHERE terms MATCH ?1 ORDER BY rowid")
            .unwrap();
        let rows = read.query_map([&expression], |row| row.get::<_, i64>(0));
        let rows = rows
            .unwrap()
            .map(|row| row.unwrap_or_else(|error| panic!("{expression}: {error}")));
        rows.map(|row| row as usize - 1).filter(in_time).collect()
    }
}

#[test]
fn the_evaluator_and_fts5_find_what_the_shared_set_says() {
    let names = Names::default();
    let lines: Vec<Value> = include_str!("../testdata/documents.ndjson")
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let documents: Vec<_> = lines
        .iter()
        .map(|line| {
            let json = line["document"].to_string();
            Document::parse(line["_id"].as_str().unwrap(), json.as_bytes(), &names).unwrap()
        })
        .collect();
    let table = Table::new(&documents);
    let mut wrong = Vec::new();
    for line in include_str!("../testdata/queries.txt").lines() {
        let (text, wanted) = line.split_once('\t').unwrap();
        let mut wanted: Vec<_> = if wanted == "*" {
            documents.iter().map(Document::id).collect()
        } else {
            wanted.split_whitespace().collect()
        };
        wanted.sort_unstable();
        let query = Query::parse(text, 0).unwrap_or_else(|error| panic!("{text}: {error}"));
        let ids = |found: Vec<usize>| {
            let mut ids: Vec<_> = found.into_iter().map(|n| documents[n].id()).collect();
            ids.sort_unstable();
            ids
        };
        let evaluated = ids((0..documents.len())
            .filter(|n| query.matches(&documents[*n]))
            .collect());
        let searched = ids(table.find(&query, &documents));
        if evaluated != wanted || searched != wanted {
            wrong.push(format!(
                "{text}: {wanted:?}, evaluated {evaluated:?}, searched {searched:?}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[abAB]{1,2}",
        1 => "[0-9]{1,2}(\\.[0-9])?",
        1 => prop::sample::select(vec!["Ü", "a.b", "a'b", "ß_", "東京", "\u{e001}", "\u{f005}x", "true", "x:y"]).prop_map(str::to_owned),
    ]
}

fn text() -> impl Strategy<Value = String> {
    prop::collection::vec(
        (
            word(),
            prop::sample::select(vec![" ", "-", "\n", ", ", "\"", "/"]),
        ),
        0..6,
    )
    .prop_map(|words| words.into_iter().map(|(word, after)| word + after).collect())
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        text().prop_map(Value::from),
        (-20i64..20).prop_map(Value::from),
        (-40i32..40).prop_map(|quarters| json!(f64::from(quarters) / 4.0)),
        any::<bool>().prop_map(Value::from),
        Just(Value::Null),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::vec(("[fg]", inner), 0..3)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn documents() -> impl Strategy<Value = Vec<Value>> {
    let level = prop::option::of(prop::sample::select(vec!["trace", "info", "warn", "error"]));
    let services = prop::collection::vec(word(), 0..3);
    let document = (text(), value(), value(), level, services, 0..5i64).prop_map(
        |(text, f, g, level, services, lines)| {
            let mut document = json!({
                "@timestamp": format!("2026-11-21T00:00:00.00{lines}Z"),
                "message": text, "f": f, "g.f": g,
                "windrow": {"services": services, "tags": ["t"], "reason": "idle", "lines": lines, "durationMs": lines * 500},
            });
            if let Some(level) = level {
                document["windrow"]["level"] = level.into();
            }
            document
        },
    );
    prop::collection::vec(document, 1..6)
}

fn query() -> impl Strategy<Value = String> {
    let quoted = || text().prop_map(|text| format!("\"{}\"", text.replace('"', "")));
    let number = || (-40i32..40).prop_map(|quarters| f64::from(quarters) / 4.0);
    let operator = || prop::sample::select(vec!["", ">", ">=", "<", "<="]);
    let field = || prop::sample::select(vec!["f", "g.f", "f.g", "f.f", "g", "message", "nothing"]);
    let test = prop_oneof![
        3 => word(),
        1 => word().prop_map(|word| word + "*"),
        2 => quoted(),
        2 => (field(), word()).prop_map(|(field, word)| format!("{field}:{word}")),
        1 => (field(), word()).prop_map(|(field, word)| format!("{field}:{word}*")),
        1 => (field(), quoted()).prop_map(|(field, words)| format!("{field}:{words}")),
        2 => (field(), operator(), number()).prop_map(|(field, operator, number)| format!("{field}:{operator}{number}")),
        1 => (field(), number(), number()).prop_map(|(field, a, b)| format!("{field}:[{a} TO {b}}}")),
        1 => field().prop_map(|field| format!("{field}:*")),
        1 => (operator(), prop::sample::select(vec!["info", "warn", "fatal"])).prop_map(|(operator, level)| format!("level:{operator}{level}")),
        1 => Just("level:none".to_owned()),
        1 => word().prop_map(|word| format!("service:{word}")),
        1 => (operator(), 0..5u8).prop_map(|(operator, lines)| format!("lines:{operator}{lines}")),
        1 => (operator(), 0..5u8).prop_map(|(operator, half)| format!("duration:{operator}{}ms", u16::from(half) * 500)),
    ];
    test.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a} {b}")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} OR {b})")),
            inner.clone().prop_map(|a| format!("-({a})")),
            inner.prop_map(|a| format!("NOT {a}")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn fts5_finds_what_the_evaluator_finds(documents in documents(), queries in prop::collection::vec(query(), 1..8)) {
        let names = Names::default();
        let documents: Vec<_> = documents
            .iter()
            .enumerate()
            .map(|(n, document)| Document::parse(&format!("b{n}"), document.to_string().as_bytes(), &names).unwrap())
            .collect();
        let table = Table::new(&documents);
        for text in queries {
            let Ok(query) = Query::parse(&text, 0) else { continue };
            let evaluated: Vec<_> = (0..documents.len()).filter(|n| query.matches(&documents[*n])).collect();
            let searched = table.find(&query, &documents);
            prop_assert_eq!(&evaluated, &searched, "{}: {:?}", text, query.to_fts5(&names));
        }
    }

    /// Whatever is typed gives a query or an error with a place in it, and never a panic; what it
    /// gives can be translated.
    #[test]
    fn anything_is_a_query_or_an_error_with_its_place(text in "[ -~äß\u{200b}]{0,40}") {
        match Query::parse(&text, 0) {
            Ok(query) => {
                let names = Names::default();
                let _ = query.to_elasticsearch(&names);
                let _ = query.highlights(&text);
                if let Some(expression) = query.to_fts5(&names) {
                    let table = Table::new(&[]);
                    let sql = "SELECT rowid FROM terms WHERE terms MATCH ?1";
                    let found = table.0.prepare(sql).unwrap().exists([&expression]);
                    prop_assert!(matches!(found, Ok(false)), "{}: {}: {:?}", text, expression, found);
                }
            }
            Err(error) => {
                prop_assert!(error.at + error.length <= text.len(), "{text}: {error:?}");
                prop_assert!(text.is_char_boundary(error.at), "{text}: {error:?}");
            }
        }
    }
}
