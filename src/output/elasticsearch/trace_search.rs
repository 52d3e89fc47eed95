//! Search API on Elasticsearch and OpenSearch: pages, histograms and facets from `_search`.
//!
//! Pages need no point in time and no scroll: a cursor has the sort key of the last trace and the
//! ids of the traces with that key, so it is exact although times are not unique.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use windrow_query::{Document, Level, Names};

use super::Elasticsearch;
use crate::output::MAX_ID_BYTES;
use crate::runtime;
use crate::search::{
    Buckets, Cursor, FacetValue, Facets, FoundDocument, Histogram, Lag, MAX_FACET_VALUES, Page, PageRequest,
    SearchError, SearchFuture, Selection, Sort, TraceSearch, TraceSummary, level_name,
};

/// Documents of one trace that are looked for: one, and a second one near midnight.
const MAX_DOCUMENTS: usize = 5;

/// Answers searches from Elasticsearch.
#[derive(Debug, Clone)]
pub struct ElasticsearchSearch {
    output: Elasticsearch,
    names: Arc<Names>,
}

impl ElasticsearchSearch {
    /// Searches the indices of an output.
    #[must_use]
    pub fn new(output: Elasticsearch, names: Names) -> Self {
        Self {
            output,
            names: Arc::new(names),
        }
    }

    async fn ask<T: for<'a> Deserialize<'a> + Send>(&self, body: Value) -> Result<T, SearchError> {
        let response = self
            .output
            .search(&body)
            .await
            .map_err(SearchError::Unavailable)?;
        runtime::block_in_place(|| serde_json::from_slice(&response))
            .map_err(|error| SearchError::Unavailable(format!("unreadable search response: {error}")))
    }

    /// The filters of a selection.
    fn filters(&self, selection: &Selection) -> Vec<Value> {
        let mut filters = Vec::new();
        if !selection.query.is_everything() {
            filters.push(selection.query.to_elasticsearch(&self.names));
        }
        let mut bounds = Map::new();
        if selection.from_ms != i64::MIN {
            bounds.insert("gte".into(), selection.from_ms.into());
        }
        if selection.to_ms != i64::MAX {
            bounds.insert("lte".into(), selection.to_ms.into());
        }
        if !bounds.is_empty() {
            bounds.insert("format".into(), "epoch_millis".into());
            filters.push(json!({"range": {"@timestamp": bounds}}));
        }
        filters
    }

    async fn find(&self, request: PageRequest) -> Result<Page, SearchError> {
        let PageRequest {
            selection,
            sort,
            limit,
            after,
        } = &request;
        let mut filters = self.filters(selection);
        filters.extend(after.as_ref().map(|cursor| behind(*sort, cursor)));
        let mut query = json!({"filter": filters});
        if *sort == Sort::Worst {
            // The score is the rank of the level, which has no number in the index.
            let ranks = levels().filter_map(|(rank, level)| {
                let level = level?.as_str();
                Some(json!({"constant_score": {"filter": {"term": {"windrow.level": level}}, "boost": rank}}))
            });
            query["should"] = ranks.collect();
            query["minimum_should_match"] = 0.into();
        }
        let mut source = vec![
            "@timestamp".to_owned(),
            "windrow.*".to_owned(),
            self.names.key.clone(),
        ];
        source.extend(self.names.text.iter().cloned());
        let body = json!({
            "size": limit + 1,
            "query": {"bool": query},
            "sort": order(*sort),
            "track_total_hits": false,
            "_source": {"includes": source, "excludes": ["windrow.state", "windrow.metadata"]},
        });
        let mut wire: Hits = self.ask(body).await?;
        let more = wire.hits.hits.len() > *limit;
        wire.hits.hits.truncate(*limit);
        let hits = wire.hits.hits;
        let next = more.then(|| next_cursor(*sort, after.as_ref(), &hits)).flatten();
        let traces = runtime::block_in_place(|| {
            let summaries = hits.into_iter().filter_map(|hit| {
                let document = Document::parse(&hit.id, hit.source.get().as_bytes(), &self.names)?;
                Some(TraceSummary::of(&document, Some(hit.index), &selection.query))
            });
            summaries.collect()
        });
        Ok(Page {
            traces,
            next: next.map(|cursor| cursor.encode()),
            lag: Lag::default(),
            partial: false,
        })
    }

    async fn count_by_time(&self, selection: Selection, buckets: Buckets) -> Result<Histogram, SearchError> {
        let body = json!({
            "size": 0,
            "query": {"bool": {"filter": self.filters(&selection)}},
            "aggs": {"times": {
                "date_histogram": {
                    "field": "@timestamp",
                    "fixed_interval": format!("{}ms", buckets.width_ms),
                    "min_doc_count": 1,
                },
                "aggs": {"levels": level_aggregation()},
            }},
        });
        let wire: Aggregated<Times> = self.ask(body).await?;
        let mut histogram = Histogram::default();
        let times = wire.aggregations.map(|aggregations| aggregations.times.buckets);
        for bucket in times.unwrap_or_default() {
            for (level, count) in bucket.levels.counts() {
                histogram.add(buckets.start_of(bucket.key as i64), level, count);
            }
        }
        Ok(histogram)
    }

    async fn count_by_value(&self, selection: Selection) -> Result<Facets, SearchError> {
        let terms = |field: &str| json!({"terms": {"field": field, "size": MAX_FACET_VALUES}});
        let body = json!({
            "size": 0,
            "query": {"bool": {"filter": self.filters(&selection)}},
            "aggs": {
                "levels": level_aggregation(),
                "services": terms("windrow.services"),
                "tags": terms("windrow.tags"),
            },
        });
        let wire: Aggregated<Values> = self.ask(body).await?;
        let Some(values) = wire.aggregations else {
            return Ok(Facets::default());
        };
        let top = |terms: Terms| {
            let counts = terms
                .buckets
                .into_iter()
                .map(|bucket| (bucket.key, bucket.doc_count));
            FacetValue::top(counts)
        };
        let levels = values.levels.counts();
        Ok(Facets {
            levels: FacetValue::top(levels.map(|(level, count)| (level_name(level).to_owned(), count))),
            services: top(values.services),
            tags: top(values.tags),
            partial: false,
        })
    }

    async fn by_id(&self, id: String) -> Result<Vec<FoundDocument>, SearchError> {
        // Longer ids are hashed in `_id`, and found by their field.
        let query = if id.len() <= MAX_ID_BYTES {
            json!({"ids": {"values": [id]}})
        } else {
            json!({"bool": {"should": [{"term": {"traceId": id}}, {"term": {"trace_id": id}}]}})
        };
        let body = json!({
            "size": MAX_DOCUMENTS,
            "query": query,
            "sort": order(Sort::Oldest),
            "track_total_hits": false,
        });
        let wire: Hits = self.ask(body).await?;
        let documents = wire.hits.hits.into_iter().map(|hit| FoundDocument {
            id: hit.id,
            index: Some(hit.index),
            json: hit.source,
        });
        Ok(documents.collect())
    }
}

/// The levels from none to the worst, with their ranks.
fn levels() -> impl Iterator<Item = (i64, Option<Level>)> {
    let levels = Level::ALL
        .into_iter()
        .map(|level| (level as i64 + 1, Some(level)));
    [(0, None)].into_iter().chain(levels)
}

fn level_filter(level: Option<Level>) -> Value {
    match level {
        Some(level) => json!({"term": {"windrow.level": level.as_str()}}),
        None => json!({"bool": {"must_not": [{"exists": {"field": "windrow.level"}}]}}),
    }
}

fn level_aggregation() -> Value {
    let filters: Map<String, Value> = levels()
        .map(|(_, level)| (level_name(level).to_owned(), level_filter(level)))
        .collect();
    json!({"filters": {"filters": filters}})
}

fn order(sort: Sort) -> Value {
    let time = |order: &str| json!({"@timestamp": {"order": order, "unmapped_type": "date"}});
    match sort {
        Sort::Newest => json!([time("desc")]),
        Sort::Oldest => json!([time("asc")]),
        Sort::Slowest => json!([
            {"windrow.durationMs": {"order": "desc", "unmapped_type": "double", "missing": 0}},
            time("desc"),
        ]),
        Sort::Worst => json!([{"_score": {"order": "desc"}}, time("desc")]),
    }
}

/// The filter for what comes after a cursor.
fn behind(sort: Sort, cursor: &Cursor) -> Value {
    let time =
        |operator: &str| json!({"range": {"@timestamp": {operator: cursor.time, "format": "epoch_millis"}}});
    let all = |filters: Vec<Value>| json!({"bool": {"filter": filters}});
    let any = |filters: Vec<Value>| json!({"bool": {"should": filters, "minimum_should_match": 1}});
    let at_time = json!({"bool": {
        "filter": [time("gte"), time("lte")],
        "must_not": [{"ids": {"values": cursor.ids}}],
    }});
    let later = any(vec![
        time(if sort == Sort::Oldest { "gt" } else { "lt" }),
        at_time,
    ]);
    match sort {
        Sort::Newest | Sort::Oldest => later,
        Sort::Slowest => {
            let duration = |operator: &str| json!({"range": {"windrow.durationMs": {operator: cursor.rank}}});
            any(vec![
                duration("lt"),
                all(vec![duration("gte"), duration("lte"), later]),
            ])
        }
        Sort::Worst => {
            let of = |wanted: &dyn Fn(i64) -> bool| -> Vec<Value> {
                let levels = levels().filter(|(rank, _)| wanted(*rank));
                levels.map(|(_, level)| level_filter(level)).collect()
            };
            let mut filters = of(&|rank| rank < cursor.rank);
            let mut same = of(&|rank| rank == cursor.rank);
            same.push(later);
            filters.push(all(same));
            any(filters)
        }
    }
}

/// The cursor after these hits: the key of the last, and the ids of all that have it.
fn next_cursor(sort: Sort, after: Option<&Cursor>, hits: &[Hit]) -> Option<Cursor> {
    let key = |hit: &Hit| -> Option<(i64, i64)> {
        let mut numbers = hit
            .sort
            .iter()
            .map(|value| value.as_f64().map_or(0, |number| number as i64));
        match sort {
            Sort::Newest | Sort::Oldest => Some((0, numbers.next()?)),
            Sort::Slowest | Sort::Worst => Some((numbers.next()?, numbers.next()?)),
        }
    };
    let last = key(hits.last()?)?;
    let same = hits.iter().rev().take_while(|hit| key(hit) == Some(last));
    let mut ids: Vec<String> = same.map(|hit| hit.id.clone()).collect();
    // A page may be full of one key, and not the first.
    if let Some(after) = after.filter(|after| (after.rank, after.time) == last) {
        ids.extend(after.ids.iter().cloned());
    }
    Some(Cursor::new(sort, last.0, last.1, ids))
}

impl TraceSearch for ElasticsearchSearch {
    fn page(&self, request: PageRequest) -> SearchFuture<'_, Page> {
        Box::pin(self.find(request))
    }

    fn documents(&self, id: String, max_bytes: usize) -> SearchFuture<'_, Vec<FoundDocument>> {
        Box::pin(async move {
            let mut documents = self.by_id(id).await?;
            let mut bytes = 0;
            documents.retain(|document| {
                bytes += document.json.get().len();
                bytes <= max_bytes
            });
            Ok(documents)
        })
    }

    fn histogram(&self, selection: Selection, buckets: Buckets) -> SearchFuture<'_, Histogram> {
        Box::pin(self.count_by_time(selection, buckets))
    }

    fn facets(&self, selection: Selection) -> SearchFuture<'_, Facets> {
        Box::pin(self.count_by_value(selection))
    }
}

#[derive(Deserialize)]
struct Hits {
    hits: InnerHits,
}

#[derive(Deserialize)]
struct InnerHits {
    hits: Vec<Hit>,
}

#[derive(Deserialize)]
struct Hit {
    #[serde(rename = "_index")]
    index: String,
    #[serde(rename = "_id")]
    id: String,
    #[serde(rename = "_source")]
    source: Box<RawValue>,
    #[serde(default)]
    sort: Vec<Value>,
}

/// Without an index there are no aggregations.
#[derive(Deserialize)]
struct Aggregated<T> {
    aggregations: Option<T>,
}

#[derive(Deserialize)]
struct Times {
    times: TimeBuckets,
}

#[derive(Deserialize)]
struct TimeBuckets {
    buckets: Vec<TimeBucket>,
}

#[derive(Deserialize)]
struct TimeBucket {
    key: f64,
    levels: LevelCounts,
}

#[derive(Deserialize)]
struct Values {
    levels: LevelCounts,
    services: Terms,
    tags: Terms,
}

#[derive(Deserialize)]
struct LevelCounts {
    buckets: Map<String, Value>,
}

impl LevelCounts {
    fn counts(&self) -> impl Iterator<Item = (Option<Level>, u64)> {
        levels().map(|(_, level)| {
            let bucket = self.buckets.get(level_name(level));
            let count = bucket.and_then(|bucket| bucket.get("doc_count")?.as_u64());
            (level, count.unwrap_or(0))
        })
    }
}

#[derive(Deserialize)]
struct Terms {
    #[serde(default)]
    buckets: Vec<TermBucket>,
}

#[derive(Deserialize)]
struct TermBucket {
    key: String,
    doc_count: u64,
}
