//! Recursive descent parser of the query language.
//!
//! ```text
//! or      = and { "OR" and }
//! and     = unary { [ "AND" ] unary }
//! unary   = { "NOT" | "-" } primary
//! primary = "(" or ")" | [ field ":" ] value
//! value   = word | word "*" | "phrase" | ( ">" | ">=" | "<" | "<=" ) word | "[" word "TO" word "]"
//!         | "(" or ")"                                   after a field: all values are of the field
//! ```

use std::ops::Range;

use crate::error::QueryError;
use crate::lexer::{Bare, Cursor};
use crate::query::{Node, Phrase, Test};
use crate::values::parse_number;
use crate::words::words;

mod fields;

/// Longest query, bytes.
const MAX_BYTES: usize = 8 << 10;
/// Most tests in a query.
const MAX_TESTS: usize = 256;
/// Deepest nesting of parentheses and negations.
const MAX_DEPTH: usize = 32;

/// A value as it was written.
#[derive(Clone, Debug)]
enum Value {
    Bare(Bare),
    Quoted(String, Range<usize>),
    /// Bounds with whether they are inclusive; one of them at least.
    Between(Option<Bound>, Option<Bound>, Range<usize>),
}

#[derive(Clone, Debug)]
struct Bound {
    text: String,
    range: Range<usize>,
    inclusive: bool,
}

impl Value {
    fn range(&self) -> Range<usize> {
        match self {
            Self::Bare(bare) => bare.range.clone(),
            Self::Quoted(_, range) | Self::Between(_, _, range) => range.clone(),
        }
    }
}

/// A field name before its colon.
#[derive(Clone, Debug)]
struct Field {
    name: String,
    range: Range<usize>,
}

struct Parser<'a> {
    cursor: Cursor<'a>,
    now_ns: i64,
    tests: usize,
    depth: usize,
}

/// The condition of a query; `None` for an empty one.
pub(crate) fn parse(text: &str, now_ns: i64) -> Result<Option<Node>, QueryError> {
    if text.len() > MAX_BYTES {
        let message = format!(
            "the query has {} bytes, at most {MAX_BYTES} are possible",
            text.len()
        );
        return Err(QueryError::new(message, MAX_BYTES..text.len()));
    }
    let mut parser = Parser {
        cursor: Cursor::new(text),
        now_ns,
        tests: 0,
        depth: 0,
    };
    parser.cursor.skip_space();
    if parser.cursor.peek().is_none() || parser.takes_everything() {
        return Ok(None);
    }
    let node = parser.or(None)?;
    if parser.cursor.peek().is_some() {
        let at = parser.cursor.at();
        return Err(QueryError::new(
            "this parenthesis closes nothing: remove it, or write \\) for a parenthesis in a word",
            at..at + 1,
        ));
    }
    Ok(Some(node))
}

impl Parser<'_> {
    /// A query `*` alone.
    fn takes_everything(&mut self) -> bool {
        let start = self.cursor.at();
        if self.cursor.take("*") {
            self.cursor.skip_space();
            if self.cursor.peek().is_none() {
                return true;
            }
        }
        self.cursor.reset(start);
        false
    }

    fn or(&mut self, field: Option<&Field>) -> Result<Node, QueryError> {
        let mut nodes = vec![self.and(field)?];
        while self.cursor.take_word("OR") {
            nodes.push(self.and(field)?);
        }
        Ok(only_or(nodes, Node::Or))
    }

    fn and(&mut self, field: Option<&Field>) -> Result<Node, QueryError> {
        let mut nodes = Vec::new();
        loop {
            self.cursor.skip_space();
            let start = self.cursor.at();
            let explicit = !nodes.is_empty() && self.cursor.take_word("AND");
            self.cursor.skip_space();
            let at = self.cursor.at();
            let ends = match self.cursor.peek() {
                None | Some(')') => true,
                Some(_) => {
                    let is_or = self.cursor.take_word("OR");
                    self.cursor.reset(at);
                    is_or
                }
            };
            if ends {
                if explicit || nodes.is_empty() {
                    let (message, range) = if explicit {
                        (
                            "nothing follows AND: add a condition, or write \"AND\" for the word",
                            start..at,
                        )
                    } else {
                        ("a condition is missing here", at..at)
                    };
                    return Err(QueryError::new(message, range));
                }
                return Ok(only_or(nodes, Node::And));
            }
            nodes.push(self.unary(field)?);
        }
    }

    fn unary(&mut self, field: Option<&Field>) -> Result<Node, QueryError> {
        let at = self.cursor.at();
        let is_word = self.cursor.take_word("NOT");
        let is_sign = !is_word
            && self.cursor.peek() == Some('-')
            && self.cursor.peek_second().is_some_and(|c| !c.is_whitespace());
        if !is_word && !is_sign {
            return self.primary(field);
        }
        if is_sign {
            self.cursor.take("-");
        }
        self.cursor.skip_space();
        if matches!(self.cursor.peek(), None | Some(')')) {
            let message = "nothing follows NOT: add a condition, or write \"NOT\" for the word";
            return Err(QueryError::new(message, at..self.cursor.at()));
        }
        self.enter(at)?;
        let node = self.unary(field)?;
        self.depth -= 1;
        if contains_time(&node) {
            return Err(time_is_misplaced(at..self.cursor.at()));
        }
        Ok(Node::Not(Box::new(node)))
    }

    fn enter(&mut self, at: usize) -> Result<(), QueryError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            let message = format!("parentheses and negations are nested more than {MAX_DEPTH} deep");
            return Err(QueryError::new(message, at..at + 1));
        }
        Ok(())
    }

    fn primary(&mut self, field: Option<&Field>) -> Result<Node, QueryError> {
        let start = self.cursor.at();
        if self.cursor.take("(") {
            return self.group(start, field);
        }
        if field.is_none()
            && let Some(field) = self.field_name()?
        {
            if matches!(self.cursor.peek(), None | Some(')'))
                || self.cursor.peek().is_some_and(char::is_whitespace)
            {
                let message = format!(
                    "a value must follow the colon without a space: {name}:VALUE, or {name}:* for any",
                    name = field.name
                );
                return Err(QueryError::new(message, field.range.start..self.cursor.at()));
            }
            let start = self.cursor.at();
            if self.cursor.take("(") {
                return self.group(start, Some(&field));
            }
            let value = self.value()?;
            return self.test(Some(&field), &value);
        }
        let value = if field.is_some() {
            self.value()?
        } else if self.cursor.peek() == Some('"') {
            let (text, range) = self.cursor.quoted()?;
            Value::Quoted(text, range)
        } else {
            Value::Bare(self.cursor.bare()?)
        };
        self.test(field, &value)
    }

    /// The rest of a group; its parenthesis at `start` is taken.
    fn group(&mut self, start: usize, field: Option<&Field>) -> Result<Node, QueryError> {
        self.enter(start)?;
        let node = self.or(field)?;
        self.depth -= 1;
        if !self.cursor.take(")") {
            let message = "this parenthesis is not closed: add ), or write \\( for a parenthesis in a word";
            return Err(QueryError::new(message, start..start + 1));
        }
        if matches!(node, Node::Or(_)) && contains_time(&node) {
            return Err(time_is_misplaced(start..self.cursor.at()));
        }
        Ok(node)
    }

    /// Takes a name and its colon, if they are next.
    fn field_name(&mut self) -> Result<Option<Field>, QueryError> {
        let start = self.cursor.at();
        let mut name = String::new();
        let mut is_number = true;
        loop {
            match self.cursor.peek() {
                Some(c) if c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '@' | '/') => {
                    is_number &= c.is_ascii_digit();
                    name.push(c);
                    self.cursor.reset(self.cursor.at() + c.len_utf8());
                }
                Some(':') if !name.is_empty() && !is_number => {
                    let range = start..self.cursor.at();
                    self.cursor.take(":");
                    // The colon of a URL.
                    if self.cursor.take("//") {
                        break;
                    }
                    return Ok(Some(Field { name, range }));
                }
                _ => break,
            }
        }
        self.cursor.reset(start);
        Ok(None)
    }

    /// A value after the colon of a field.
    fn value(&mut self) -> Result<Value, QueryError> {
        let start = self.cursor.at();
        if self.cursor.peek() == Some('"') {
            let (text, range) = self.cursor.quoted()?;
            return Ok(Value::Quoted(text, range));
        }
        for (open, inclusive) in [("[", true), ("{", false)] {
            if self.cursor.take(open) {
                return self.bracketed(start, inclusive);
            }
        }
        for (operator, is_low, inclusive) in [
            (">=", true, true),
            (">", true, false),
            ("<=", false, true),
            ("<", false, false),
        ] {
            if !self.cursor.take(operator) {
                continue;
            }
            let (text, range) = if self.cursor.peek() == Some('"') {
                self.cursor.quoted()?
            } else {
                let bare = self.cursor.bare()?;
                (bare.text, bare.range)
            };
            if text.is_empty() {
                let message = format!("a value must follow {operator} without a space");
                return Err(QueryError::new(message, start..range.end));
            }
            let bound = Some(Bound {
                text,
                range: range.clone(),
                inclusive,
            });
            let whole = start..range.end;
            return Ok(if is_low {
                Value::Between(bound, None, whole)
            } else {
                Value::Between(None, bound, whole)
            });
        }
        Ok(Value::Bare(self.cursor.bare()?))
    }

    /// The rest of `[low TO high]`.
    fn bracketed(&mut self, start: usize, low_inclusive: bool) -> Result<Value, QueryError> {
        let wrong = |end| {
            let message = "a range is written [LOW TO HIGH], with * for no bound and {} for exclusive ones";
            QueryError::new(message, start..end)
        };
        let Some((inside, end, inner)) = self.cursor.until(&[']', '}']) else {
            return Err(wrong(self.cursor.at()));
        };
        let whole = start..self.cursor.at();
        let (low, high) = inside.split_once(" TO ").ok_or_else(|| wrong(whole.end))?;
        let bound = |text: &str, from: usize, inclusive| {
            let lead = text.len() - text.trim_start().len();
            let text = text.trim();
            (text != "*").then(|| Bound {
                range: from + lead..from + lead + text.len(),
                text: text.to_owned(),
                inclusive,
            })
        };
        let low_bound = bound(low, inner.start, low_inclusive);
        let high_bound = bound(high, inner.start + low.len() + " TO ".len(), end == ']');
        let is_empty = |bound: &Option<Bound>| bound.as_ref().is_some_and(|bound| bound.text.is_empty());
        if low_bound.is_none() && high_bound.is_none() || is_empty(&low_bound) || is_empty(&high_bound) {
            return Err(wrong(whole.end));
        }
        Ok(Value::Between(low_bound, high_bound, whole))
    }

    fn test(&mut self, field: Option<&Field>, value: &Value) -> Result<Node, QueryError> {
        self.tests += 1;
        if self.tests > MAX_TESTS {
            let message = format!("the query has more than {MAX_TESTS} conditions");
            return Err(QueryError::new(message, value.range()));
        }
        Ok(Node::Test(match field {
            Some(field) => fields::test(field, value, self.now_ns)?,
            None => Test::Text(phrase(value)?),
        }))
    }
}

/// The words of a value.
fn phrase(value: &Value) -> Result<Phrase, QueryError> {
    let (raw, prefix) = match value {
        Value::Bare(bare) => (&bare.text, bare.wildcard),
        Value::Quoted(text, _) => (text, false),
        Value::Between(_, _, range) => {
            return Err(QueryError::new(
                "a range needs a field: duration:>1s",
                range.clone(),
            ));
        }
    };
    let mut found = words(raw);
    if found.is_empty() {
        let message = if matches!(raw.as_str(), ">" | "<" | ">=" | "<=") {
            format!("write a comparison as FIELD:{raw}VALUE, without spaces")
        } else {
            "there is no word to search for: it has neither letters nor digits".to_owned()
        };
        return Err(QueryError::new(message, value.range()));
    }
    // The wildcard belongs to the last word only if it follows it at once.
    if prefix && !raw.ends_with(|c: char| c.is_alphanumeric() || c == '_') {
        let message = "a wildcard must follow a letter or a digit";
        return Err(QueryError::new(message, value.range()));
    }
    // A word of the longest length is a piece; its beginning would be another one.
    found.truncate(MAX_TESTS);
    Ok(Phrase {
        raw: raw.clone(),
        words: found,
        prefix,
    })
}

/// The number of a bound.
fn number(bound: &Bound, read: impl Fn(&str) -> Option<f64>, what: &str) -> Result<f64, QueryError> {
    read(&bound.text)
        .ok_or_else(|| QueryError::new(format!("{:?} is not {what}", bound.text), bound.range.clone()))
}

fn plain_number(text: &str) -> Option<f64> {
    parse_number(text)
}

fn only_or(mut nodes: Vec<Node>, combine: impl Fn(Vec<Node>) -> Node) -> Node {
    match nodes.len() {
        1 => nodes.remove(0),
        _ => combine(nodes),
    }
}

fn contains_time(node: &Node) -> bool {
    match node {
        Node::And(nodes) | Node::Or(nodes) => nodes.iter().any(contains_time),
        Node::Not(node) => contains_time(node),
        Node::Test(test) => matches!(test, Test::Time(_)),
    }
}

fn time_is_misplaced(range: Range<usize>) -> QueryError {
    QueryError::new(
        "time narrows the whole search: it cannot stand in OR or NOT; use two queries, or from and to",
        range,
    )
}

#[cfg(test)]
mod tests;
