//! Terms of a document for a contentless FTS5 table.
//!
//! A word of the text is a term by itself. Every other term begins with a character of a private
//! use area that says what it is, so that neither equal words nor prefixes meet. Terms consist of
//! characters that the tokenizer [`FTS5_TOKENIZER`] keeps.
//!
//! | kind | term |
//! |---|---|
//! | word | the word |
//! | word of a field | path, separator, word |
//! | number or truth value of a field | path, separator, value |
//! | order of a number | path, separator, 32 digits of base 4 that sort as the number |
//! | existence of a field | path |
//! | level, service, tag, reason, id | value |
//! | every document | nothing more |

use crate::document::{Document, Leaf};
use crate::values::Level;
use crate::words::each_word;

/// The tokenizer of the FTS5 table: an ASCII tokenizer splits at spaces and keeps all else.
pub const FTS5_TOKENIZER: &str = "ascii tokenchars '._-:/'";

/// Bytes of an exact value that are indexed; of longer ones the beginning counts.
const MAX_EXACT_BYTES: usize = 1024;

/// What a term is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    FieldWord = 1,
    Value,
    Order,
    Exists,
    Every,
    Level,
    Service,
    Tag,
    Reason,
    Id,
    /// Between two texts or two values of a field, so that no phrase reaches from one into the other.
    Gap,
    /// In no document.
    Nothing,
}

const SEPARATOR: char = '\u{f0ff}';
/// Before a character that is in the private use area itself.
const QUOTE: char = '\u{f8ff}';

impl Kind {
    fn mark(self) -> char {
        // U+F001 and the following.
        char::from_u32(0xf000 + self as u32).unwrap_or(SEPARATOR)
    }
}

/// The terms of a document, separated by spaces.
#[must_use]
pub fn index_terms(document: &Document<'_>) -> String {
    index_terms_within(document, usize::MAX)
}

/// The same; beyond `max_bytes` terms of texts and fields are left out. The name of a field is
/// repeated for each of its words, so that a document can have many times its length of terms.
#[must_use]
pub fn index_terms_within(document: &Document<'_>, max_bytes: usize) -> String {
    let mut terms = Terms {
        out: String::with_capacity(1024),
        max_bytes: max_bytes / 2,
    };
    for (n, text) in document.texts().enumerate() {
        if n > 0 {
            terms.add(Kind::Gap, "", None);
        }
        each_word(text, |_, word| {
            if terms.has_space() {
                escape(&mut terms.out, word);
                terms.out.push(' ');
            }
        });
    }
    terms.max_bytes = max_bytes;
    terms.add(Kind::Every, "", None);
    terms.add(Kind::Id, document.id(), None);
    terms.out += &level_term(document.level());
    terms.out.push(' ');
    document
        .services()
        .for_each(|service| terms.exact(Kind::Service, service));
    document.tags().for_each(|tag| terms.exact(Kind::Tag, tag));
    if let Some(reason) = document.windrow("reason").and_then(serde_json::Value::as_str) {
        terms.exact(Kind::Reason, reason);
    }
    for (name, path) in [
        ("durationMs", "windrow.durationMs"),
        ("lines", "windrow.lines"),
        ("late", "windrow.late"),
        ("parts", "windrow.parts"),
        ("truncated", "windrow.truncated"),
    ] {
        if let Some(number) = document.number(name) {
            terms.add(Kind::Exists, path, None);
            terms.add(Kind::Order, path, Some(&order_digits(number)));
        }
    }
    let mut last = String::new();
    document.each_leaf(|path, leaf, is_text| {
        if !terms.has_space() {
            return;
        }
        let repeats = path == last;
        terms.exists(path, &mut last);
        match leaf {
            _ if is_text => {}
            Leaf::Text(text) => {
                if repeats {
                    terms.add(Kind::Gap, "", None);
                }
                each_word(text, |_, word| {
                    if terms.has_space() {
                        terms.add(Kind::FieldWord, path, Some(word));
                    }
                });
            }
            Leaf::Number(number) => {
                terms.add(Kind::Value, path, Some(&number_text(number)));
                terms.add(Kind::Order, path, Some(&order_digits(number)));
            }
            Leaf::Bool(value) => {
                terms.add(Kind::Value, path, Some(if value { "true" } else { "false" }));
            }
        }
    });
    terms.out
}

/// The term of a level, or of documents without one.
#[must_use]
pub fn level_term(level: Option<Level>) -> String {
    term(Kind::Level, level.map_or("none", Level::as_str), None)
}

struct Terms {
    out: String,
    max_bytes: usize,
}

impl Terms {
    fn has_space(&self) -> bool {
        self.out.len() < self.max_bytes
    }

    fn add(&mut self, kind: Kind, path: &str, value: Option<&str>) {
        push_term(&mut self.out, kind, path, value);
        self.out.push(' ');
    }

    fn exact(&mut self, kind: Kind, value: &str) {
        self.add(kind, shortened(value), None);
    }

    /// The existence of a field and of those that it is in. `last` is the path before.
    fn exists(&mut self, path: &str, last: &mut String) {
        if path == last {
            return;
        }
        let ends = path.match_indices('.').map(|(at, _)| at).chain([path.len()]);
        for end in ends {
            let parent = path.get(..end).unwrap_or_default();
            let rest = last.strip_prefix(parent);
            if !rest.is_some_and(|rest| rest.starts_with('.')) {
                self.add(Kind::Exists, parent, None);
            }
        }
        last.clear();
        last.push_str(path);
    }
}

/// A term.
pub(crate) fn term(kind: Kind, path: &str, value: Option<&str>) -> String {
    let mut term = String::new();
    push_term(&mut term, kind, path, value);
    term
}

/// The term of an exact value.
pub(crate) fn exact_term(kind: Kind, value: &str) -> String {
    term(kind, shortened(value), None)
}

fn push_term(out: &mut String, kind: Kind, path: &str, value: Option<&str>) {
    out.push(kind.mark());
    escape(out, path);
    if let Some(value) = value {
        out.push(SEPARATOR);
        escape(out, value);
    }
}

/// Appends `text` in characters that the tokenizer keeps and does not fold.
pub(crate) fn escape(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            'a'..='z' | '0'..='9' | '.' | '_' | '-' | ':' | '/' => out.push(c),
            '\0'..='\u{7f}' => out.push(char::from_u32(0xe000 + u32::from(c)).unwrap_or(QUOTE)),
            '\u{e000}'..='\u{f8ff}' => out.extend([QUOTE, c]),
            c => out.push(c),
        }
    }
}

fn shortened(value: &str) -> &str {
    let mut end = value.len().min(MAX_EXACT_BYTES);
    while !value.is_char_boundary(end) {
        end -= 1;
    }
    value.get(..end).unwrap_or_default()
}

/// The text of a number by which it is found.
pub(crate) fn number_text(number: f64) -> String {
    // Negative zero equals zero.
    format!("{}", number + 0.0)
}

/// A key that sorts as the number.
pub(crate) fn order_key(number: f64) -> u64 {
    let bits = (number + 0.0).to_bits();
    if bits >> 63 == 1 { !bits } else { bits | 1 << 63 }
}

fn order_digits(number: f64) -> String {
    digits(order_key(number), ORDER_DIGITS)
}

/// Digits of a key, in base 4: with larger digits a range would need more prefixes.
pub(crate) const ORDER_DIGITS: u32 = 32;

/// The first `count` digits of a key.
pub(crate) fn digits(key: u64, count: u32) -> String {
    (0..count)
        .map(|n| char::from(b'0' + (key >> (62 - 2 * n) & 3) as u8))
        .collect()
}
