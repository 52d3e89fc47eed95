//! Translation to the query syntax of SQLite's FTS5.

use crate::document::Names;
use crate::query::{Inclusive, Keyword, Node, NumberRange, Phrase, Query, Test, TimeRange};
use crate::terms::{
    Kind, ORDER_DIGITS, digits, escape, exact_term, level_term, number_text, order_key, term,
};

impl Query {
    /// The expression that finds the documents in a table of [`index_terms`](crate::index_terms),
    /// apart from their time; `None` for all documents.
    #[must_use]
    pub fn to_fts5(&self, names: &Names) -> Option<String> {
        let root = self.root.as_ref()?;
        let Node::And(nodes) = root else {
            return (!is_time(root)).then(|| expression(root, names));
        };
        let nodes: Vec<_> = nodes.iter().filter(|node| !is_time(node)).collect();
        (!nodes.is_empty()).then(|| conjunction(&nodes, names))
    }

    /// The first and the last millisecond, Unix ms, to which the query is limited.
    #[must_use]
    pub fn time_range(&self) -> (i64, i64) {
        let mut range = (i64::MIN, i64::MAX);
        fn narrow(node: &Node, range: &mut (i64, i64)) {
            match node {
                Node::And(nodes) => nodes.iter().for_each(|node| narrow(node, range)),
                Node::Test(Test::Time(TimeRange { from_ms, to_ms })) => {
                    *range = (range.0.max(*from_ms), range.1.min(*to_ms));
                }
                _ => {}
            }
        }
        if let Some(root) = &self.root {
            narrow(root, &mut range);
        }
        range
    }
}

/// Whether a node only limits the time. The parser lets times stand in conjunctions only.
fn is_time(node: &Node) -> bool {
    match node {
        Node::And(nodes) => nodes.iter().all(is_time),
        Node::Test(test) => matches!(test, Test::Time(_)),
        _ => false,
    }
}

fn expression(node: &Node, names: &Names) -> String {
    match node {
        Node::And(nodes) => {
            let nodes: Vec<_> = nodes.iter().filter(|node| !is_time(node)).collect();
            conjunction(&nodes, names)
        }
        Node::Or(nodes) => any(nodes.iter().map(|node| expression(node, names))),
        Node::Not(_) => conjunction(&[node], names),
        Node::Test(test) => condition(test, names),
    }
}

fn conjunction(nodes: &[&Node], names: &Names) -> String {
    let mut all: Vec<String> = Vec::new();
    let mut none: Vec<String> = Vec::new();
    for node in nodes {
        match node {
            Node::Not(inner) => none.push(expression(inner, names)),
            node => all.push(expression(node, names)),
        }
    }
    let positive = if all.is_empty() {
        quoted(&term(Kind::Every, "", None))
    } else {
        all.join(" AND ")
    };
    if none.is_empty() {
        format!("({positive})")
    } else {
        format!("(({positive}) NOT ({}))", none.join(" OR "))
    }
}

fn any(expressions: impl Iterator<Item = String>) -> String {
    let expressions: Vec<_> = expressions.collect();
    match expressions.as_slice() {
        [] => quoted(&term(Kind::Nothing, "", None)),
        [one] => one.clone(),
        many => format!("({})", many.join(" OR ")),
    }
}

fn condition(test: &Test, names: &Names) -> String {
    match test {
        Test::Text(phrase) => {
            let id = (!phrase.prefix).then(|| quoted(&exact_term(Kind::Id, &phrase.raw)));
            any([text(phrase)].into_iter().chain(id))
        }
        Test::Field { name, phrase } => {
            let words = if names.text.contains(name) {
                text(phrase)
            } else {
                row(phrase, |out, word| {
                    *out += &term(Kind::FieldWord, name, Some(word));
                })
            };
            let number = phrase.number().map(number_text);
            let is_bool = !phrase.prefix && matches!(phrase.raw.as_str(), "true" | "false");
            let value = number.or_else(|| is_bool.then(|| phrase.raw.clone()));
            let value = value.map(|value| quoted(&term(Kind::Value, name, Some(&value))));
            any([words].into_iter().chain(value))
        }
        Test::Exists { name } => quoted(&term(Kind::Exists, name, None)),
        Test::Number { name, range } => any(prefixes(range).into_iter().map(|digits| {
            let whole = digits.len() == ORDER_DIGITS as usize;
            let found = quoted(&term(Kind::Order, name, Some(&digits)));
            if whole { found } else { found + " *" }
        })),
        // The parser lets times stand where they are taken out before.
        Test::Time(_) => quoted(&term(Kind::Every, "", None)),
        Test::Level(set) => {
            let none = set.contains(None).then(|| level_term(None));
            let levels = set.levels().map(|level| level_term(Some(level)));
            any(levels.chain(none).map(|term| quoted(&term)))
        }
        Test::Keyword { field, value, prefix } => {
            let found = quoted(&exact_term(kind(*field), value));
            if *prefix { found + " *" } else { found }
        }
        Test::HasKeyword(field) => quoted(&term(kind(*field), "", None)) + " *",
    }
}

fn kind(field: Keyword) -> Kind {
    match field {
        Keyword::Id => Kind::Id,
        Keyword::Service => Kind::Service,
        Keyword::Tag => Kind::Tag,
        Keyword::Reason => Kind::Reason,
    }
}

fn text(phrase: &Phrase) -> String {
    row(phrase, escape)
}

fn row(phrase: &Phrase, write: impl Fn(&mut String, &str)) -> String {
    let mut row = String::from("\"");
    for (n, word) in phrase.words.iter().enumerate() {
        if n > 0 {
            row.push(' ');
        }
        write(&mut row, word);
    }
    row.push('"');
    if phrase.prefix {
        row += " *";
    }
    row
}

/// Terms have no quotes: they are escaped.
fn quoted(term: &str) -> String {
    format!("\"{term}\"")
}

/// The prefixes of the keys between the bounds.
fn prefixes(range: &NumberRange) -> Vec<String> {
    let low = range.low.map_or(0, |(value, Inclusive(or_equal))| {
        order_key(value).saturating_add(u64::from(!or_equal))
    });
    let high = range.high.map_or(u64::MAX, |(value, Inclusive(or_equal))| {
        order_key(value).saturating_sub(u64::from(!or_equal))
    });
    let mut prefixes = Vec::new();
    let mut at = low;
    while at <= high {
        // The largest aligned block of keys that begins here and does not reach beyond.
        let aligned = at.trailing_zeros().min(64) / 2;
        let fits = (0..=aligned).rev().find(|digits| {
            let size_minus_one = if *digits >= 32 {
                u64::MAX
            } else {
                (1u64 << (2 * digits)) - 1
            };
            at.checked_add(size_minus_one).is_some_and(|end| end <= high)
        });
        let digits_free = fits.unwrap_or(0);
        prefixes.push(digits(at, ORDER_DIGITS - digits_free));
        let size = if digits_free >= 32 {
            None
        } else {
            Some(1u64 << (2 * digits_free))
        };
        match size.and_then(|size| at.checked_add(size)) {
            Some(next) => at = next,
            None => break,
        }
    }
    prefixes
}
