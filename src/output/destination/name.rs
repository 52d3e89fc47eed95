//! Index names with placeholders: `logs-{kubernetes.namespace_name|none}-%Y.%m.%d`.
//!
//! Owns their syntax, what values become in a name, and the names that two of them may share. Knows
//! nothing of records.

use std::fmt::Write as _;

/// Longest index name in bytes.
const MAX_NAME_BYTES: usize = 255;
/// Longest name of a data stream in bytes: those of its indices have 22 more.
pub(crate) const MAX_DATA_STREAM_BYTES: usize = 230;
/// Longest text of one strftime field: a year.
const MAX_DATE_FIELD_BYTES: usize = 4;
/// Digits of the hash that ends a value which was cut.
const HASH_DIGITS: usize = 8;
/// What stands for a missing value where the name does not say it.
const DEFAULT_FALLBACK: &str = "none";

/// An index name as it is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexName {
    pieces: Vec<Piece>,
    /// Longest text that takes the place of a placeholder, bytes.
    max_value_bytes: usize,
    is_data_stream: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    /// Text with strftime fields.
    Literal(String),
    Placeholder(Placeholder),
}

/// A placeholder: the value of a field, or its fallback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placeholder {
    /// What stands before the `|`.
    pub field: String,
    fallback: String,
}

impl IndexName {
    /// Parses a name. Does not check what is outside of the placeholders.
    ///
    /// # Errors
    /// A message for the operator.
    pub fn parse(text: &str) -> Result<Self, String> {
        Self::parse_within(text, MAX_NAME_BYTES)
    }

    /// Parses the name of an index or of a data stream.
    ///
    /// # Errors
    /// A message for the operator.
    pub fn of(text: &str, is_data_stream: bool) -> Result<Self, String> {
        if !is_data_stream {
            return Self::parse(text);
        }
        let name = Self::parse_within(text, MAX_DATA_STREAM_BYTES)?;
        Ok(Self {
            is_data_stream,
            ..name
        })
    }

    fn parse_within(text: &str, max_bytes: usize) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find('{') {
            let (before, after) = rest.split_at(at);
            let Some(end) = after.find('}') else {
                return Err("a { without }".into());
            };
            let inside = &after[1..end];
            let (field, fallback) = inside.split_once('|').unwrap_or((inside, DEFAULT_FALLBACK));
            if field.is_empty() {
                return Err("a placeholder without the name of a field".into());
            }
            if clean(fallback.as_bytes(), MAX_NAME_BYTES) != fallback {
                return Err(format!(
                    "the fallback {fallback:?} of {{{field}}} cannot be a part of an index name"
                ));
            }
            if !before.is_empty() {
                pieces.push(Piece::Literal(before.to_owned()));
            }
            pieces.push(Piece::Placeholder(Placeholder {
                field: field.to_owned(),
                fallback: fallback.to_owned(),
            }));
            rest = &after[end + 1..];
        }
        if rest.contains('}') {
            return Err("a } without {".into());
        }
        if !rest.is_empty() {
            pieces.push(Piece::Literal(rest.to_owned()));
        }
        if let Some(Piece::Placeholder(_)) = pieces.first() {
            return Err(
                "it begins with a placeholder, so that its template would match the indices of others; \
                 put a word before it, such as \"logs-\""
                    .into(),
            );
        }
        let fixed: usize = pieces.iter().map(Piece::max_literal_bytes).sum();
        let count = pieces
            .iter()
            .filter(|piece| matches!(piece, Piece::Placeholder(_)));
        let max_value_bytes = max_bytes.saturating_sub(fixed) / count.count().max(1);
        let parsed = Self {
            pieces,
            max_value_bytes,
            is_data_stream: false,
        };
        if parsed.has_placeholders() && max_value_bytes < 2 * HASH_DIGITS {
            return Err(format!(
                "longer than {max_bytes} bytes with the values of its placeholders"
            ));
        }
        Ok(parsed)
    }

    /// The placeholders, in order.
    pub fn placeholders(&self) -> impl Iterator<Item = &Placeholder> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Literal(_) => None,
            Piece::Placeholder(placeholder) => Some(placeholder),
        })
    }

    /// Whether it is the name of a data stream, and not of an index.
    pub fn is_data_stream(&self) -> bool {
        self.is_data_stream
    }

    /// Whether it has a placeholder.
    pub fn has_placeholders(&self) -> bool {
        self.placeholders().next().is_some()
    }

    /// Whether it ends in a placeholder and has no date: then its template matches every index that
    /// begins as it does.
    pub fn is_open(&self) -> bool {
        let has_date = |piece: &Piece| matches!(piece, Piece::Literal(text) if text.contains('%'));
        matches!(self.pieces.last(), Some(Piece::Placeholder(_))) && !self.pieces.iter().any(has_date)
    }

    /// The name without placeholders, for these values: strftime fields are left.
    pub fn resolve<'v>(&self, mut values: impl Iterator<Item = Option<&'v [u8]>>) -> String {
        let mut name = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => name.push_str(text),
                Piece::Placeholder(placeholder) => {
                    let value = values.next().flatten();
                    let cleaned = value.map(|value| clean(value, self.max_value_bytes));
                    let cleaned = cleaned.filter(|text| !text.is_empty());
                    name.push_str(cleaned.as_deref().unwrap_or(&placeholder.fallback));
                }
            }
        }
        name
    }

    /// The name with every fallback.
    pub fn fallback(&self) -> String {
        self.resolve(std::iter::empty())
    }

    /// Whether values of its placeholders can make this name.
    pub(crate) fn can_make(&self, made: &str) -> bool {
        matches_wildcard(&self.wildcard(), made)
    }

    /// The name with `*` in place of each placeholder.
    pub fn wildcard(&self) -> String {
        let mut name = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => name.push_str(text),
                Piece::Placeholder(_) if name.ends_with('*') => {}
                Piece::Placeholder(_) => name.push('*'),
            }
        }
        name
    }
}

impl Piece {
    fn max_literal_bytes(&self) -> usize {
        match self {
            Self::Literal(text) => text.len() + text.matches('%').count() * (MAX_DATE_FIELD_BYTES - 2),
            Self::Placeholder(_) => 0,
        }
    }
}

/// Whether a name matches a pattern with `*` for any text.
pub(crate) fn matches_wildcard(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = name.strip_prefix(parts.next().unwrap_or_default()) else {
        return false;
    };
    let Some(last) = parts.next_back() else {
        return rest.is_empty();
    };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// A value as a part of an index name: in lower case, `_` for each character that none may have, and
/// no longer than `max_bytes`. The end of a value that is cut is a hash of the whole.
fn clean(value: &[u8], max_bytes: usize) -> String {
    let text = String::from_utf8_lossy(value);
    let allowed = |c: char| {
        let forbidden = r#"\/*?"<>|,#:%{}"#.contains(c) || c.is_whitespace() || c.is_control();
        // Some capital letters have no small one.
        if forbidden || c.is_uppercase() { '_' } else { c }
    };
    let mut name: String = text.trim().to_lowercase().chars().map(allowed).collect();
    if name.len() > max_bytes {
        let mut end = max_bytes.saturating_sub(HASH_DIGITS + 1);
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        name.truncate(end);
        let hash = twox_hash::XxHash3_64::oneshot(value) as u32;
        // Writing to a string cannot fail.
        let _ = write!(name, "-{hash:0HASH_DIGITS$x}");
    }
    name
}

/// Whether two names, whose strftime fields stand for digits, can be the same on some day.
pub(super) fn can_be_equal(one: &str, other: &str) -> bool {
    let (one, other) = (tokens(one), tokens(other));
    let (rows, columns) = (one.len() + 1, other.len() + 1);
    // `reached[i * columns + j]`: names can be equal so far that go on with token `i` of `one` and `j`
    // of `other`.
    let mut reached = vec![false; rows * columns];
    reached[0] = true;
    for i in 0..one.len() {
        for j in 0..other.len() {
            if !reached[i * columns + j] || !one[i].shares_a_character_with(other[j]) {
                continue;
            }
            // Both take one character; digits may go on.
            reached[(i + 1) * columns + j + 1] = true;
            reached[(i + 1) * columns + j] |= other[j] == Token::Digits;
            reached[i * columns + j + 1] |= one[i] == Token::Digits;
        }
    }
    reached[rows * columns - 1]
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Token {
    Character(char),
    /// One digit or more.
    Digits,
}

impl Token {
    fn is_digit(self) -> bool {
        match self {
            Self::Character(c) => c.is_ascii_digit(),
            Self::Digits => true,
        }
    }

    fn shares_a_character_with(self, other: Self) -> bool {
        self == other
            || self.is_digit() && other.is_digit() && (self == Self::Digits || other == Self::Digits)
    }
}

fn tokens(name: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut chars = name.chars();
    while let Some(c) = chars.next() {
        tokens.push(if c == '%' {
            chars.next();
            Token::Digits
        } else {
            Token::Character(c)
        });
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, name, matches) in [
            ("logs-*-*", "logs-app-default", true),
            ("logs-*-*", "logs-app", false),
            ("logs-app-default", "logs-app-default", true),
            ("logs-app-default", "logs-app-default2", false),
            ("*", "", true),
            ("a*a", "a", false),
            ("a*b*c", "a-b-b-c", true),
            ("", "", true),
            ("b*", "ab", false),
        ] {
            assert_eq!(matches_wildcard(pattern, name), matches, "{pattern} {name}");
        }
        let stream = IndexName::of("logs-{app}-default", true).unwrap();
        assert!(stream.can_make("logs-shop-default") && !stream.can_make("logs-shop-test"));
    }

    fn resolve(name: &str, values: &[Option<&str>]) -> String {
        let values = values.iter().map(|value| value.map(str::as_bytes));
        IndexName::parse(name).unwrap().resolve(values)
    }

    #[test]
    fn values_take_the_place_of_placeholders() {
        let name = "logs-{kubernetes.namespace_name|unknown}-{env}-%Y.%m.%d";
        assert_eq!(
            resolve(name, &[Some("shop"), Some("prod")]),
            "logs-shop-prod-%Y.%m.%d"
        );
        assert_eq!(resolve(name, &[None, Some(" ")]), "logs-unknown-none-%Y.%m.%d");
        let parsed = IndexName::parse(name).unwrap();
        let fields: Vec<_> = parsed
            .placeholders()
            .map(|placeholder| &*placeholder.field)
            .collect();
        assert_eq!(fields, ["kubernetes.namespace_name", "env"]);
        assert_eq!(parsed.wildcard(), "logs-*-*-%Y.%m.%d");
        assert_eq!(parsed.fallback(), "logs-unknown-none-%Y.%m.%d");
        assert_eq!(IndexName::parse("a-{b}{c}").unwrap().wildcard(), "a-*");
    }

    #[test]
    fn a_value_is_cleaned_to_what_an_index_name_may_be() {
        for (value, cleaned) in [
            ("Team-A", "team-a"),
            ("a/b\\c*d?e\"f<g>h|i,j#k:l m", "a_b_c_d_e_f_g_h_i_j_k_l_m"),
            ("%Y{x}", "_y_x_"),
            ("..", ".."),
            ("-_+", "-_+"),
            ("ÄÖ", "äö"),
            ("a\u{0}\n", "a_"),
            ("\u{1d400}", "_"),
        ] {
            assert_eq!(
                resolve("x-{a}", &[Some(value)]),
                format!("x-{cleaned}"),
                "{value:?}"
            );
        }
        let name = IndexName::parse("x-{a}-%Y-%m-%d").unwrap();
        let invalid = name.resolve([Some(&b"a\xff"[..])].into_iter());
        assert_eq!(invalid, "x-a\u{fffd}-%Y-%m-%d");
    }

    #[test]
    fn a_long_value_is_cut_and_stays_different() {
        let name = "logs-{a}-{b}-%Y.%m.%d";
        let long = "ä".repeat(200);
        let (one, other) = (format!("{long}1"), format!("{long}2"));
        let made = [&one, &other].map(|value| resolve(name, &[Some(value), Some(value)]));
        assert_ne!(made[0], made[1]);
        for name in made {
            // The year has four digits, the others two.
            assert!(name.len() + 2 <= MAX_NAME_BYTES, "{}", name.len());
        }
    }

    #[test]
    fn what_would_reach_the_indices_of_others_is_said() {
        assert!(IndexName::parse("tenant-{a}").unwrap().is_open());
        assert!(!IndexName::parse("tenant-{a}-%Y").unwrap().is_open());
        assert!(!IndexName::parse("tenant-{a}-logs").unwrap().is_open());
        for (name, word) in [
            ("{a}-logs", "begins with a placeholder"),
            ("x-{a", "without }"),
            ("x-a}", "without {"),
            ("x-{|none}", "name of a field"),
            ("x-{a|A b}", "fallback"),
            (&*format!("{}-{{a}}", "x".repeat(250)), "longer"),
        ] {
            let error = IndexName::parse(name).unwrap_err();
            assert!(error.contains(word), "{name}: {error}");
        }
    }

    #[test]
    fn names_that_are_equal_on_some_day_are_recognised() {
        for (one, other, equal) in [
            ("logs-%Y-%m-%d", "logs-%Y-%m-%d", true),
            ("logs-%Y-%m-%d", "logs-2026-11-21", true),
            ("logs-2026-11-21", "logs-%Y-%m-%d", true),
            ("logs-%Y-%m-%d", "logs-shop-%Y-%m-%d", false),
            ("logs-%Y-%m-%d", "logs-2026-%m-%d", true),
            ("logs-%Y%m", "logs-202611", true),
            ("logs-%Y", "logs-", false),
            ("logs-%Y1", "logs-20261", true),
            ("a", "b", false),
            ("a-%Y-x", "a-%Y", false),
            ("a-1%Y", "a-%Y", true),
            ("a", "a", true),
        ] {
            assert_eq!(can_be_equal(one, other), equal, "{one} {other}");
            assert_eq!(can_be_equal(other, one), equal, "{other} {one}");
        }
    }
}
