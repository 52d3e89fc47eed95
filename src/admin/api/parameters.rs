//! Parameters of the search API. An unknown one is an error: a misspelt filter would show
//! everything.

use windrow_query::{Query, parse_time};

use super::ApiError;
use crate::clock;
use crate::search::{Cursor, MAX_PAGE, PageRequest, Selection, Sort};

const DEFAULT_LIMIT: usize = 50;
const DEFAULT_BUCKETS: i64 = 60;
const MAX_BUCKETS: i64 = 500;
/// How far a histogram goes back without `from`, ms.
const DEFAULT_PERIOD_MS: i64 = 24 * 3_600_000;

/// The parameters of a request, as they were sent.
#[derive(Debug, Default)]
pub(super) struct Parameters {
    q: String,
    from: Option<String>,
    to: Option<String>,
    limit: Option<String>,
    cursor: Option<String>,
    sort: Option<String>,
    buckets: Option<String>,
}

impl Parameters {
    /// Reads those that are `allowed`.
    pub(super) fn read(query: &str, allowed: &[&'static str]) -> Result<Self, ApiError> {
        let mut parameters = Self::default();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let Some(name) = allowed.iter().find(|allowed| **allowed == name) else {
                let message = format!("unknown parameter {name:?}; there are {}", allowed.join(", "));
                return Err(ApiError::new(axum::http::StatusCode::BAD_REQUEST, message));
            };
            let value = value.into_owned();
            match *name {
                "q" => parameters.q = value,
                // Empty as if it were missing: forms send both.
                _ if value.is_empty() => {}
                "from" => parameters.from = Some(value),
                "to" => parameters.to = Some(value),
                "limit" => parameters.limit = Some(value),
                "cursor" => parameters.cursor = Some(value),
                "sort" => parameters.sort = Some(value),
                "buckets" => parameters.buckets = Some(value),
                _ => {}
            }
        }
        Ok(parameters)
    }

    /// The traces that are asked for.
    pub(super) fn selection(&self) -> Result<Selection, ApiError> {
        self.selection_between(self.start_ms()?, self.end_ms()?)
    }

    /// The traces that are asked for, of a period that has an end and a start.
    pub(super) fn period(&self) -> Result<(Selection, i64, i64), ApiError> {
        let to = match self.end_ms()? {
            Some(to) => to,
            None => now_ns().div_euclid(1_000_000),
        };
        let from = self
            .start_ms()?
            .unwrap_or_else(|| to.saturating_sub(DEFAULT_PERIOD_MS));
        if from > to {
            return Err(ApiError::parameter("from", "it is later than to"));
        }
        Ok((self.selection_between(Some(from), Some(to))?, from, to))
    }

    fn selection_between(&self, from: Option<i64>, to: Option<i64>) -> Result<Selection, ApiError> {
        Ok(Selection::new(Query::parse(&self.q, now_ns())?, from, to))
    }

    fn start_ms(&self) -> Result<Option<i64>, ApiError> {
        time("from", self.from.as_deref())
    }

    fn end_ms(&self) -> Result<Option<i64>, ApiError> {
        time("to", self.to.as_deref())
    }

    pub(super) fn page(&self) -> Result<PageRequest, ApiError> {
        let sort = match &self.sort {
            None => Sort::default(),
            Some(name) => {
                let known = Sort::ALL.iter().find(|(known, _)| known == name);
                known.map(|(_, sort)| *sort).ok_or_else(|| {
                    let names = Sort::ALL.map(|(name, _)| name).join(", ");
                    ApiError::parameter("sort", format!("{name:?} is no order; there are {names}"))
                })?
            }
        };
        let cursor = self.cursor.as_deref();
        Ok(PageRequest {
            selection: self.selection()?,
            sort,
            limit: number(
                "limit",
                self.limit.as_deref(),
                DEFAULT_LIMIT as i64,
                MAX_PAGE as i64,
            )? as usize,
            after: cursor.map(|text| Cursor::decode(text, sort)).transpose()?,
        })
    }

    pub(super) fn buckets(&self) -> Result<i64, ApiError> {
        number("buckets", self.buckets.as_deref(), DEFAULT_BUCKETS, MAX_BUCKETS)
    }
}

fn now_ns() -> i64 {
    clock::unix_us().saturating_mul(1000)
}

fn time(key: &'static str, text: Option<&str>) -> Result<Option<i64>, ApiError> {
    let Some(text) = text else { return Ok(None) };
    parse_time(text, now_ns()).map(Some).ok_or_else(|| {
        let message = format!(
            "{text:?} is not a time: 2026-11-21T09:20:00Z, 2026-11-21, -15m, -24h, -7d or Unix milliseconds"
        );
        ApiError::parameter(key, message)
    })
}

fn number(key: &'static str, text: Option<&str>, default: i64, max: i64) -> Result<i64, ApiError> {
    let Some(text) = text else { return Ok(default) };
    let number = text.parse().ok().filter(|number| (1..=max).contains(number));
    number.ok_or_else(|| ApiError::parameter(key, format!("{text:?} is not a whole number from 1 to {max}")))
}
