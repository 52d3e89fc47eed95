//! Translation to the query DSL of Elasticsearch and OpenSearch.

use serde_json::{Value, json};

use crate::document::Names;
use crate::query::{Inclusive, Keyword, Node, Phrase, Query, Test, TimeRange};

/// Words that the end of a phrase with a wildcard is expanded to.
const MAX_EXPANSIONS: u32 = 1000;

const SERVICES: &str = "windrow.services";
const TAGS: &str = "windrow.tags";
const REASON: &str = "windrow.reason";

impl Query {
    /// The query as JSON, for the filter of a `_search`.
    #[must_use]
    pub fn to_elasticsearch(&self, names: &Names) -> Value {
        self.root
            .as_ref()
            .map_or_else(|| json!({"match_all": {}}), |root| translate(root, names))
    }
}

fn translate(node: &Node, names: &Names) -> Value {
    let all = |nodes: &[Node]| {
        nodes
            .iter()
            .map(|node| translate(node, names))
            .collect::<Vec<_>>()
    };
    match node {
        Node::And(nodes) => json!({"bool": {"filter": all(nodes)}}),
        Node::Or(nodes) => any(&all(nodes)),
        Node::Not(node) => json!({"bool": {"must_not": [translate(node, names)]}}),
        Node::Test(test) => condition(test, names),
    }
}

fn any(queries: &[Value]) -> Value {
    match queries {
        [one] => one.clone(),
        many => json!({"bool": {"should": many, "minimum_should_match": 1}}),
    }
}

fn condition(test: &Test, names: &Names) -> Value {
    match test {
        Test::Text(phrase) => {
            let mut found = vec![words(phrase, &names.text)];
            // Elasticsearch refuses an empty id and ids beyond 512 bytes.
            if !phrase.prefix && (1..=512).contains(&phrase.raw.len()) {
                found.push(json!({"ids": {"values": [phrase.raw]}}));
            }
            any(&found)
        }
        Test::Field { name, phrase } if names.text.contains(name) => words(phrase, &names.text),
        Test::Field { name, phrase } => words(phrase, std::slice::from_ref(name)),
        Test::Exists { name } => exists(name),
        Test::Number { name, range } => {
            let mut bounds = serde_json::Map::new();
            if let Some((low, Inclusive(or_equal))) = range.low {
                bounds.insert(if or_equal { "gte" } else { "gt" }.into(), number(low));
            }
            if let Some((high, Inclusive(or_equal))) = range.high {
                bounds.insert(if or_equal { "lte" } else { "lt" }.into(), number(high));
            }
            json!({"range": {name: bounds}})
        }
        Test::Time(TimeRange { from_ms, to_ms }) => {
            let mut bounds = serde_json::Map::new();
            if *from_ms != i64::MIN {
                bounds.insert("gte".into(), (*from_ms).into());
            }
            if *to_ms != i64::MAX {
                bounds.insert("lte".into(), (*to_ms).into());
            }
            bounds.insert("format".into(), "epoch_millis".into());
            json!({"range": {"@timestamp": bounds}})
        }
        Test::Level(set) => {
            let levels: Vec<_> = set.levels().map(|level| level.as_str()).collect();
            let mut found = Vec::new();
            if !levels.is_empty() {
                found.push(json!({"terms": {"windrow.level": levels}}));
            }
            if set.contains(None) {
                found.push(json!({"bool": {"must_not": [exists("windrow.level")]}}));
            }
            any(&found)
        }
        Test::Keyword {
            field: Keyword::Id,
            value,
            prefix: false,
        } => json!({"ids": {"values": [value]}}),
        Test::Keyword { field, value, prefix } => {
            let query = if *prefix { "prefix" } else { "term" };
            let in_field = |name: &str| json!({query: {name: {"value": value}}});
            match field {
                Keyword::Id => in_key(&names.key, in_field),
                Keyword::Service => in_field(SERVICES),
                Keyword::Tag => in_field(TAGS),
                Keyword::Reason => in_field(REASON),
            }
        }
        Test::HasKeyword(Keyword::Id) => json!({"match_all": {}}),
        Test::HasKeyword(Keyword::Service) => exists(SERVICES),
        Test::HasKeyword(Keyword::Tag) => exists(TAGS),
        Test::HasKeyword(Keyword::Reason) => exists(REASON),
    }
}

/// `lenient`: a word that is no number matches no number, instead of failing the search.
fn words(phrase: &Phrase, fields: &[String]) -> Value {
    match phrase.words.as_slice() {
        [word] if phrase.prefix => json!({"query_string": {
            "query": format!("{}*", escaped(word)),
            "fields": fields,
            "lenient": true,
        }}),
        _ if phrase.prefix => json!({"multi_match": {
            "query": phrase.raw,
            "type": "phrase_prefix",
            "fields": fields,
            "lenient": true,
            "max_expansions": MAX_EXPANSIONS,
        }}),
        _ => json!({"multi_match": {
            "query": phrase.raw,
            "type": "phrase",
            "fields": fields,
            "lenient": true,
        }}),
    }
}

/// A word in the syntax of `query_string`.
fn escaped(word: &str) -> String {
    let mut out = String::new();
    for c in word.chars() {
        if !c.is_alphanumeric() {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// A field that is there, be it an object. `exists` of an object fails in OpenSearch when a field of
/// it is a `flat_object`; a range without bounds means `exists` for a field with a value, and
/// nothing for an object.
fn exists(field: &str) -> Value {
    any(&[
        json!({"range": {field: {}}}),
        json!({"exists": {"field": format!("{field}.*")}}),
    ])
}

/// The trace id, whatever mapped it: dynamic mapping has the keyword below the text, a template may
/// have it in the field itself.
fn in_key(key: &str, in_field: impl Fn(&str) -> Value) -> Value {
    let below = format!("{key}.keyword");
    let itself = json!({"bool": {
        "filter": [in_field(key)],
        "must_not": [{"exists": {"field": below}}],
    }});
    any(&[in_field(&below), itself])
}

/// Whole numbers as such: a long field refuses fractions in some places.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 9e15 {
        (value as i64).into()
    } else {
        value.into()
    }
}
