//! Cursor over the text of a query: white space, operators, quoted strings and bare values.

use std::ops::Range;

use crate::error::QueryError;

pub(crate) struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

/// A value without quotes.
#[derive(Clone, Debug)]
pub(crate) struct Bare {
    /// Without escapes and without a wildcard at the end.
    pub(crate) text: String,
    pub(crate) range: Range<usize>,
    /// A `*` stood at the end.
    pub(crate) wildcard: bool,
    /// It has a backslash, so it is no operator.
    pub(crate) escaped: bool,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// Goes back to an earlier place.
    pub(crate) fn reset(&mut self, at: usize) {
        self.at = at;
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    pub(crate) fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    /// The character after the next one.
    pub(crate) fn peek_second(&self) -> Option<char> {
        self.rest().chars().nth(1)
    }

    pub(crate) fn skip_space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    /// Takes `word` if it is next.
    pub(crate) fn take(&mut self, word: &str) -> bool {
        let found = self.rest().starts_with(word);
        if found {
            self.at += word.len();
        }
        found
    }

    /// Takes an operator word that ends at white space, a parenthesis or the end.
    pub(crate) fn take_word(&mut self, word: &str) -> bool {
        let after = self.rest().strip_prefix(word);
        let ends = after.is_some_and(|after| {
            let next = after.chars().next();
            next.is_none_or(|c| c.is_whitespace() || c == '(' || c == ')')
        });
        if ends {
            self.at += word.len();
        }
        ends
    }

    /// A string in quotes; the cursor is at the first one. `\"` and `\\` stand for `"` and `\`.
    pub(crate) fn quoted(&mut self) -> Result<(String, Range<usize>), QueryError> {
        let start = self.at;
        let mut value = String::new();
        let mut chars = self.rest().char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.at = start + at + 1;
                    return Ok((value, start..self.at));
                }
                '\\' => value.extend(chars.next().map(|(_, c)| c)),
                c => value.push(c),
            }
        }
        let message = "this quote is not closed: add \" at its end, or write \\\" for a quote in a word";
        Err(QueryError::new(message, start..self.text.len()))
    }

    /// The characters up to white space, a parenthesis or a quote.
    pub(crate) fn bare(&mut self) -> Result<Bare, QueryError> {
        let start = self.at;
        let mut bare = Bare {
            text: String::new(),
            range: start..start,
            wildcard: false,
            escaped: false,
        };
        let mut chars = self.rest().char_indices();
        let mut end = self.text.len();
        while let Some((at, c)) = chars.next() {
            if c.is_whitespace() || matches!(c, '(' | ')' | '"') {
                end = start + at;
                break;
            }
            if bare.wildcard {
                let message = "a wildcard is possible only at the end of a word: write the beginning and *";
                return Err(QueryError::new(message, start + at - 1..start + at));
            }
            match c {
                '\\' => {
                    bare.escaped = true;
                    bare.text.extend(chars.next().map(|(_, c)| c));
                }
                '*' => bare.wildcard = true,
                c => bare.text.push(c),
            }
        }
        self.at = end;
        bare.range = start..end;
        Ok(bare)
    }

    /// The characters up to one of `ends`, which is taken too.
    pub(crate) fn until(&mut self, ends: &[char]) -> Option<(&'a str, char, Range<usize>)> {
        let start = self.at;
        let rest = self.rest();
        let (length, end) = rest.char_indices().find(|(_, c)| ends.contains(c))?;
        self.at += length + end.len_utf8();
        Some((rest.get(..length).unwrap_or_default(), end, start..start + length))
    }
}
