//! The syntax tree of a query.

use crate::error::QueryError;
use crate::parser;
use crate::values::LevelSet;

/// A parsed query.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    /// `None` matches every document.
    pub(crate) root: Option<Node>,
}

/// A condition on documents.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Node {
    /// All of them hold; never empty.
    And(Vec<Self>),
    /// One of them holds; never empty.
    Or(Vec<Self>),
    /// It does not hold.
    Not(Box<Self>),
    /// A test of one value.
    Test(Test),
}

/// A test of one value of a document.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Test {
    /// The text has these words in a row, or the document has exactly this id.
    Text(Phrase),
    /// A string of the field has these words in a row, or it is this number or truth value.
    Field { name: String, phrase: Phrase },
    /// The field has a value other than null.
    Exists { name: String },
    /// A number of the field is between the bounds.
    Number { name: String, range: NumberRange },
    /// The time is between the bounds.
    Time(TimeRange),
    /// The worst level is one of these.
    Level(LevelSet),
    /// A value of the keyword field is exactly this, or begins with it.
    Keyword {
        field: Keyword,
        value: String,
        prefix: bool,
    },
    /// The keyword field has a value.
    HasKeyword(Keyword),
}

/// Words in a row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Phrase {
    /// As it was written, without quotes and without the wildcard.
    pub(crate) raw: String,
    /// Its words; never empty.
    pub(crate) words: Vec<String>,
    /// The last word is the beginning of one.
    pub(crate) prefix: bool,
}

/// Fields of exact values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keyword {
    /// The id of the document: that of its trace, if it has one.
    Id,
    Service,
    Tag,
    Reason,
}

/// Bounds of a number; either may be missing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct NumberRange {
    pub(crate) low: Option<(f64, Inclusive)>,
    pub(crate) high: Option<(f64, Inclusive)>,
}

/// Whether a bound belongs to its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Inclusive(pub(crate) bool);

/// Bounds of a time in Unix ms, both inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimeRange {
    pub(crate) from_ms: i64,
    pub(crate) to_ms: i64,
}

impl NumberRange {
    pub(crate) fn exactly(value: f64) -> Self {
        let bound = Some((value, Inclusive(true)));
        Self {
            low: bound,
            high: bound,
        }
    }

    pub(crate) fn contains(&self, value: f64) -> bool {
        let above = self
            .low
            .is_none_or(|(low, Inclusive(or_equal))| value > low || or_equal && value == low);
        let below = self
            .high
            .is_none_or(|(high, Inclusive(or_equal))| value < high || or_equal && value == high);
        above && below
    }
}

impl Query {
    /// Parses a query. `now_ns` is the time that relative times count from, Unix ns. An empty query
    /// matches every document.
    ///
    /// # Errors
    /// The first mistake, with its place.
    pub fn parse(text: &str, now_ns: i64) -> Result<Self, QueryError> {
        Ok(Self {
            root: parser::parse(text, now_ns)?,
        })
    }

    /// Whether it matches every document.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.root.is_none()
    }
}
