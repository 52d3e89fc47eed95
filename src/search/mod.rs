//! Search of stored traces: what can be asked, and the answers, whatever store has the documents.
//!
//! * `summary`: the summary of a document, and its lines
//! * `cursor`: where a page ends
//! * `buckets`: times of a histogram
//! * `embedded`: an index beside the embedded store, filled behind its writer
//!
//! The Elasticsearch output answers the same questions (`crate::output::elasticsearch`). Does not
//! know HTTP.

pub mod buckets;
pub mod cursor;
pub mod embedded;
pub mod summary;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;

use serde::Serialize;
use serde_json::value::RawValue;
use windrow_query::{Level, Query};

pub use self::buckets::Buckets;
pub use self::cursor::Cursor;
pub use self::summary::TraceSummary;

/// Summaries of one page at most.
pub const MAX_PAGE: usize = 500;
/// Values of one facet at most.
pub const MAX_FACET_VALUES: usize = 100;

/// The future result of a search.
pub type SearchFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, SearchError>> + Send + 'a>>;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SearchError {
    /// The store does not answer, or not now.
    #[error("{0}")]
    Unavailable(String),
    /// The request cannot be answered: a cursor of another request.
    #[error("{message}")]
    Invalid {
        /// The parameter.
        key: &'static str,
        /// What is wrong with it.
        message: String,
    },
}

impl SearchError {
    /// The store does not answer.
    pub fn unavailable(error: impl std::fmt::Display) -> Self {
        Self::Unavailable(error.to_string())
    }
}

/// Which traces are asked for.
#[derive(Debug, Clone)]
pub struct Selection {
    /// The query.
    pub query: Query,
    /// First event not before this, Unix ms.
    pub from_ms: i64,
    /// First event not after this, Unix ms.
    pub to_ms: i64,
}

impl Selection {
    /// A selection by query and time; the times of the query narrow it.
    #[must_use]
    pub fn new(query: Query, from_ms: Option<i64>, to_ms: Option<i64>) -> Self {
        let (from, to) = query.time_range();
        Self {
            query,
            from_ms: from_ms.unwrap_or(i64::MIN).max(from),
            to_ms: to_ms.unwrap_or(i64::MAX).min(to),
        }
    }
}

/// Order of a page.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Sort {
    /// By time, descending.
    #[default]
    Newest,
    /// By time, ascending.
    Oldest,
    /// By duration, then time, descending.
    Slowest,
    /// By level, then time, descending; those without a level last.
    Worst,
}

impl Sort {
    /// Every order with its name.
    pub const ALL: [(&'static str, Self); 4] = [
        ("newest", Self::Newest),
        ("oldest", Self::Oldest),
        ("slowest", Self::Slowest),
        ("worst", Self::Worst),
    ];
}

/// A page of traces.
#[derive(Debug, Clone)]
pub struct PageRequest {
    /// Which traces.
    pub selection: Selection,
    /// Their order.
    pub sort: Sort,
    /// How many, 1 to [`MAX_PAGE`].
    pub limit: usize,
    /// After which one.
    pub after: Option<Cursor>,
}

/// An answer to a [`PageRequest`].
#[derive(Debug, Clone, Default, Serialize)]
pub struct Page {
    /// The traces.
    pub traces: Vec<TraceSummary>,
    /// The cursor of the next page, if there is one.
    pub next: Option<String>,
    /// How far the index is behind.
    pub lag: Lag,
    /// Whether the search was ended before it had seen everything.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
}

/// What is stored and not searchable yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Lag {
    /// Documents.
    pub documents: u64,
}

/// Number of traces per bucket and level.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Histogram {
    /// By start of the bucket, Unix ms: the count of each level that occurs.
    pub counts: BTreeMap<i64, BTreeMap<&'static str, u64>>,
    /// Whether counting was ended before it had seen everything.
    pub partial: bool,
}

impl Histogram {
    /// Counts traces of a bucket.
    pub fn add(&mut self, start_ms: i64, level: Option<Level>, count: u64) {
        let name = level_name(level);
        if count > 0 {
            *self.counts.entry(start_ms).or_default().entry(name).or_default() += count;
        }
    }
}

/// The name of a level in answers; `none` for traces without one.
#[must_use]
pub fn level_name(level: Option<Level>) -> &'static str {
    level.map_or("none", Level::as_str)
}

/// Values of services, levels and tags with the number of traces that have them, the most frequent
/// first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Facets {
    /// Services.
    pub services: Vec<FacetValue>,
    /// Levels; `none` for traces without one.
    pub levels: Vec<FacetValue>,
    /// Tags.
    pub tags: Vec<FacetValue>,
    /// Whether counting was ended before it had seen everything.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
}

/// A value and the number of traces that have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FacetValue {
    /// The value.
    pub value: String,
    /// Traces.
    pub count: u64,
}

impl FacetValue {
    /// The most frequent values, in descending order of their count.
    pub fn top(counts: impl IntoIterator<Item = (String, u64)>) -> Vec<Self> {
        let mut values: Vec<Self> = counts
            .into_iter()
            .filter(|(_, count)| *count > 0)
            .map(|(value, count)| Self { value, count })
            .collect();
        values.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.value.cmp(&b.value)));
        values.truncate(MAX_FACET_VALUES);
        values
    }
}

/// A whole document.
#[derive(Debug)]
pub struct FoundDocument {
    /// Its `_id`.
    pub id: String,
    /// The index that it is in; `None` in the embedded store.
    pub index: Option<String>,
    /// The document.
    pub json: Box<RawValue>,
}

/// A store that can be searched.
pub trait TraceSearch: Send + Sync + 'static {
    /// A page of summaries.
    fn page(&self, request: PageRequest) -> SearchFuture<'_, Page>;

    /// The documents of a trace id, or with this `_id`; at most `max_bytes` of them.
    fn documents(&self, id: String, max_bytes: usize) -> SearchFuture<'_, Vec<FoundDocument>>;

    /// Counts by time and level.
    fn histogram(&self, selection: Selection, buckets: Buckets) -> SearchFuture<'_, Histogram>;

    /// Counts by service, level and tag.
    fn facets(&self, selection: Selection) -> SearchFuture<'_, Facets>;
}
