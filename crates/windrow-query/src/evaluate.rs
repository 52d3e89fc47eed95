//! Evaluation of a query on a document: the definition of what a query means.

use crate::document::{Document, Leaf};
use crate::query::{Keyword, Node, Phrase, Query, Test};
use crate::values::parse_number;
use crate::words::words;

impl Query {
    /// Whether the document satisfies the query.
    #[must_use]
    pub fn matches(&self, document: &Document<'_>) -> bool {
        self.root.as_ref().is_none_or(|root| holds(root, document))
    }
}

fn holds(node: &Node, document: &Document<'_>) -> bool {
    match node {
        Node::And(nodes) => nodes.iter().all(|node| holds(node, document)),
        Node::Or(nodes) => nodes.iter().any(|node| holds(node, document)),
        Node::Not(node) => !holds(node, document),
        Node::Test(test) => passes(test, document),
    }
}

fn passes(test: &Test, document: &Document<'_>) -> bool {
    match test {
        Test::Text(phrase) => {
            document.texts().any(|text| phrase.is_in(text)) || !phrase.prefix && phrase.raw == document.id()
        }
        Test::Field { name, phrase } if document.names().text.contains(name) => {
            document.texts().any(|text| phrase.is_in(text))
                || any_leaf(document, name, |leaf| phrase.equals(leaf))
        }
        Test::Field { name, phrase } => any_leaf(document, name, |leaf| match leaf {
            Leaf::Text(text) => phrase.is_in(text),
            other => phrase.equals(other),
        }),
        Test::Exists { name } if name.starts_with("windrow.") && !name.starts_with("windrow.metadata") => {
            own_number(document, name).is_some()
        }
        Test::Exists { name } => {
            let mut found = false;
            document.each_leaf(|path, _, _| {
                let rest = path.strip_prefix(name.as_str());
                found |= rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
            });
            found
        }
        Test::Number { name, range } => {
            own_number(document, name).is_some_and(|number| range.contains(number))
                || any_leaf(
                    document,
                    name,
                    |leaf| matches!(leaf, Leaf::Number(number) if range.contains(number)),
                )
        }
        Test::Time(range) => (range.from_ms..=range.to_ms).contains(&document.time_ms()),
        Test::Level(set) => set.contains(document.level()),
        Test::Keyword { field, value, prefix } => any_keyword(document, *field, |found| {
            found == value || *prefix && found.starts_with(value.as_str())
        }),
        Test::HasKeyword(field) => any_keyword(document, *field, |_| true),
    }
}

/// A number that Windrow adds.
fn own_number(document: &Document<'_>, name: &str) -> Option<f64> {
    document.number(name.strip_prefix("windrow.")?)
}

fn any_leaf(document: &Document<'_>, name: &str, mut is: impl FnMut(Leaf<'_>) -> bool) -> bool {
    let mut found = false;
    document.each_leaf(|path, leaf, _| found = found || path == name && is(leaf));
    found
}

fn any_keyword(document: &Document<'_>, field: Keyword, is: impl Fn(&str) -> bool) -> bool {
    match field {
        Keyword::Id => is(document.id()),
        Keyword::Service => document.services().any(is),
        Keyword::Tag => document.tags().any(is),
        Keyword::Reason => {
            let reason = document.windrow("reason").and_then(serde_json::Value::as_str);
            reason.is_some_and(is)
        }
    }
}

impl Phrase {
    /// Whether the text has these words in a row.
    fn is_in(&self, text: &str) -> bool {
        self.is_in_words(&words(text))
    }

    pub(crate) fn is_in_words(&self, text: &[String]) -> bool {
        text.windows(self.words.len()).any(|found| self.is_row(found))
    }

    /// Whether these are the words.
    pub(crate) fn is_row(&self, found: &[String]) -> bool {
        let last = self.words.len().saturating_sub(1);
        found.len() == self.words.len()
            && self
                .words
                .iter()
                .zip(found)
                .enumerate()
                .all(|(n, (word, found))| {
                    word == found || n == last && self.prefix && found.starts_with(word.as_str())
                })
    }

    /// Whether it is this number or truth value.
    fn equals(&self, leaf: Leaf<'_>) -> bool {
        match leaf {
            Leaf::Text(_) => false,
            Leaf::Number(number) => self.number() == Some(number),
            Leaf::Bool(value) => !self.prefix && self.raw == if value { "true" } else { "false" },
        }
    }

    /// The number that it is.
    pub(crate) fn number(&self) -> Option<f64> {
        parse_number(&self.raw).filter(|_| !self.prefix)
    }
}
