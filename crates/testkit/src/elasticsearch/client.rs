//! Blocking client for an Elasticsearch, real or fake, with the requests that checks need.

use std::time::Duration;

use serde_json::{Value, json};

use crate::check::Stored;
use crate::http::{self, Answer};
use crate::wait;

/// Blocking requests to one node; a node that does not answer, or refuses, ends the test.
#[derive(Debug, Clone)]
pub struct Client {
    url: String,
}

impl Client {
    /// For a node at `url`, without a slash at the end.
    pub fn new(url: String) -> Self {
        Self { url }
    }

    /// The URL of a path.
    pub fn url_of(&self, path: &str) -> String {
        format!("{}/{path}", self.url)
    }

    /// Any request.
    ///
    /// # Errors
    /// When no answer came.
    pub fn request(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Answer, String> {
        let url = self.url_of(path);
        match body {
            Some(body) => http::send_json(method, &url, body),
            None => http::request(method, &url, None),
        }
    }

    /// The answer to a request that must succeed. It is repeated after a 503: shards of a new index
    /// take a moment.
    #[track_caller]
    fn must(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let answer = wait::until(
            &format!("{method} {path}"),
            Duration::from_secs(30),
            || match self.request(method, path, body)? {
                answer if answer.status == 503 => Err(answer.text),
                answer => Ok(answer),
            },
        );
        assert!(
            answer.status < 300,
            "{method} {path}: {} {}",
            answer.status,
            answer.text
        );
        answer.json()
    }

    /// Refreshes: makes written documents visible to searches.
    ///
    /// # Panics
    /// When the node fails, as in every method here.
    #[track_caller]
    pub fn refresh(&self, pattern: &str) {
        self.must(
            "POST",
            &format!("{pattern}/_refresh?ignore_unavailable=true&allow_no_indices=true"),
            None,
        );
    }

    /// Number of documents, after a refresh.
    #[track_caller]
    pub fn count(&self, pattern: &str) -> u64 {
        self.refresh(pattern);
        let answer = self.must(
            "GET",
            &format!("{pattern}/_count?ignore_unavailable=true&allow_no_indices=true"),
            None,
        );
        answer["count"]
            .as_u64()
            .unwrap_or_else(|| panic!("no count in {answer}"))
    }

    /// All documents with `term field = value`, after a refresh; at most 1,000.
    #[track_caller]
    pub fn term(&self, pattern: &str, field: &str, value: &str) -> Vec<Stored> {
        self.refresh(pattern);
        let query = json!({"size": 1000, "query": {"term": {field: value}}});
        let path = format!("{pattern}/_search?ignore_unavailable=true&allow_no_indices=true");
        hits(&self.must("POST", &path, Some(&query)))
    }

    /// Every document of an index pattern, after a refresh.
    #[track_caller]
    pub fn documents(&self, pattern: &str) -> Vec<Stored> {
        self.refresh(pattern);
        let path = format!("{pattern}/_search?scroll=1m&ignore_unavailable=true&allow_no_indices=true");
        let mut page = self.must("POST", &path, Some(&json!({"size": 5000, "sort": ["_doc"]})));
        let mut all = Vec::new();
        loop {
            let found = hits(&page);
            if found.is_empty() {
                break;
            }
            all.extend(found);
            let next = json!({"scroll": "1m", "scroll_id": page["_scroll_id"]});
            page = self.must("POST", "_search/scroll", Some(&next));
        }
        // Scrolls that were read to their end are gone already in some versions.
        self.request(
            "DELETE",
            "_search/scroll",
            Some(&json!({"scroll_id": [page["_scroll_id"]]})),
        )
        .ok();
        all
    }

    /// Names of the indices of a pattern, sorted.
    #[track_caller]
    pub fn indices(&self, pattern: &str) -> Vec<String> {
        let answer = self.must("GET", &format!("_cat/indices/{pattern}?format=json"), None);
        let mut names: Vec<String> = answer
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|row| Some(row["index"].as_str()?.to_owned()))
            .collect();
        names.sort();
        names
    }

    /// Deletes indices by name or pattern.
    #[track_caller]
    pub fn delete(&self, pattern: &str) {
        for index in self.indices(pattern) {
            self.must("DELETE", &index, None);
        }
    }
}

fn hits(answer: &Value) -> Vec<Stored> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let hits = answer["hits"]["hits"].as_array().map_or(&[][..], Vec::as_slice);
    hits.iter()
        .map(|hit| Stored {
            index: text(&hit["_index"]),
            id: text(&hit["_id"]),
            source: hit["_source"].clone(),
        })
        .collect()
}
