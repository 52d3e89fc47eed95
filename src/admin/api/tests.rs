//! Tests of the search API: its answers are as `openapi.json` says, and mistakes are answered with
//! their place.

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use windrow_query::Names;

use super::OPENAPI;
use crate::admin::{AdminState, Readiness, router};
use crate::config::Config;
use crate::metrics::{Metrics, Output};
use crate::output::sqlite::{SqliteReader, SqliteWriter};
use crate::search::TraceSearch;
use crate::search::embedded::{EmbeddedSearch, IndexConfig, IndexProgress, Indexer, RunningIndexer};

/// An embedded store of the shared documents, with its index.
struct Fixture {
    search: Option<Arc<dyn TraceSearch>>,
    _indexer: Option<RunningIndexer>,
    _folder: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut sqlite = Config::default().sqlite;
        sqlite.path = folder.path().join("windrow.db");
        drop(SqliteWriter::open(sqlite.clone(), 16 << 20).unwrap());
        let rows = rusqlite::Connection::open(&sqlite.path).unwrap();
        let documents = include_str!("../../../crates/windrow-query/testdata/documents.ndjson");
        for line in documents.lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            rows.execute(
                "INSERT INTO documents (written, first, id, document) VALUES (0, 0, ?1, ?2)",
                (line["_id"].as_str().unwrap(), line["document"].to_string()),
            )
            .unwrap();
        }
        let config = IndexConfig {
            store: sqlite.path.clone(),
            names: Names::default(),
            buffer_bytes: IndexConfig::MAX_BUFFER_BYTES,
        };
        let progress = Arc::<IndexProgress>::default();
        let indexer = Indexer::open(config.clone(), Arc::clone(&progress)).unwrap();
        let indexer = indexer.start().unwrap();
        while progress.indexed() < documents.lines().count() as u64 {
            std::thread::yield_now();
        }
        let store = Arc::new(SqliteReader::open(&sqlite.path).unwrap());
        Self {
            search: Some(Arc::new(EmbeddedSearch::new(&config, store, progress))),
            _indexer: Some(indexer),
            _folder: folder,
        }
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        let state = AdminState {
            metrics: Arc::new(Metrics::new(&[Output::Sqlite])),
            peers: Arc::new(|| None),
            readiness: Arc::new(Readiness::default),
            store: None,
            search: self.search.clone(),
            names: Names::default(),
            outputs: vec![Output::Sqlite],
            forward_address: None,
            open_traces: None,
            dead_letter: None,
            tail: None,
        };
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        let response = router(state, &Config::default().admin, &CancellationToken::new())
            .oneshot(request)
            .await
            .unwrap();
        let status = response.status();
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        let value = serde_json::from_slice(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body:?}"));
        (status, value)
    }
}

pub(in crate::admin) fn description() -> Value {
    serde_json::from_str(OPENAPI).unwrap()
}

/// What of `value` is not as `schema` says. Knows the keywords that the description uses.
pub(in crate::admin) fn violations(schema: &Value, value: &Value, path: &str, found: &mut Vec<String>) {
    if let Some(name) = schema["$ref"].as_str() {
        let description = description();
        let target = description.pointer(name.trim_start_matches('#'));
        return violations(
            target.unwrap_or_else(|| panic!("{name} is missing")),
            value,
            path,
            found,
        );
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let is = |name: &Value| name == kind || name == "number" && kind == "integer";
    let types = &schema["type"];
    if !types
        .as_array()
        .map_or_else(|| is(types), |types| types.iter().any(is))
    {
        return found.push(format!("{path} is {value}, not {types}"));
    }
    if let Some(allowed) = schema["enum"]
        .as_array()
        .filter(|allowed| !allowed.contains(value))
    {
        found.push(format!("{path} is {value}, not one of {allowed:?}"));
    }
    match value {
        Value::Array(items) => {
            for (n, item) in items.iter().enumerate() {
                violations(&schema["items"], item, &format!("{path}[{n}]"), found);
            }
        }
        Value::Object(fields) => {
            let required = schema["required"].as_array().cloned().unwrap_or_default();
            for name in required.iter().filter_map(Value::as_str) {
                if !fields.contains_key(name) {
                    found.push(format!("{path}.{name} is missing"));
                }
            }
            for (name, field) in fields {
                let path = format!("{path}.{name}");
                match (&schema["properties"][name], &schema["additionalProperties"]) {
                    (Value::Null, Value::Bool(false)) => found.push(format!("{path} is not described")),
                    (Value::Null, Value::Null) => {}
                    (Value::Null, other) => violations(other, field, &path, found),
                    (known, _) => violations(known, field, &path, found),
                }
            }
        }
        _ => {}
    }
}

#[tokio::test]
async fn answers_are_as_the_description_says() {
    let fixture = Fixture::new();
    let description = description();
    let (status, served) = fixture.get("/api/v1/openapi.json").await;
    assert_eq!((status, &served), (StatusCode::OK, &description));
    let mut found = Vec::new();
    let mut asked = 0;
    for (path, query, status) in [
        ("/api/v1/traces", "", 200),
        (
            "/api/v1/traces",
            "?q=level:%3E%3Dwarn&limit=1&sort=worst&from=2026-01-01&to=2027-01-01T00:00:00Z",
            200,
        ),
        ("/api/v1/traces", "?q=level:loud", 400),
        ("/api/v1/traces", "?cursor=x", 400),
        ("/api/v1/traces/{id}", "a2", 200),
        ("/api/v1/traces/{id}", "nobody", 404),
        (
            "/api/v1/histogram",
            "?from=2026-11-20&to=2026-11-23&buckets=10",
            200,
        ),
        (
            "/api/v1/histogram",
            "?from=2026-11-20&to=2026-11-23&q=request",
            200,
        ),
        ("/api/v1/histogram", "?from=soon", 400),
        ("/api/v1/facets", "", 200),
        ("/api/v1/facets", "?q=request&from=-1d", 200),
        ("/api/v1/facets", "?q=(", 400),
    ] {
        let wanted = &description["paths"][path]["get"]["responses"][status.to_string()];
        let uri = path.replace("{id}", "") + query;
        let (given, body) = fixture.get(&uri).await;
        assert_eq!(given.as_u16(), status, "{uri}: {body}");
        violations(
            &wanted["content"]["application/json"]["schema"],
            &body,
            &uri,
            &mut found,
        );
        asked += 1;
    }
    assert!(found.is_empty() && asked > 0, "{}", found.join("\n"));
}

#[tokio::test]
async fn exactly_the_described_parameters_are_read() {
    let fixture = Fixture::new();
    let description = description();
    let all = ["q", "from", "to", "limit", "cursor", "sort", "buckets"];
    let paths = description["paths"].as_object().unwrap();
    let searched = ["traces", "traces/{id}", "histogram", "facets"].map(|name| format!("/api/v1/{name}"));
    for (path, item) in paths.iter().filter(|(path, _)| searched.contains(*path)) {
        let parameters = item["get"]["parameters"].as_array().unwrap();
        let described: Vec<_> = parameters
            .iter()
            .filter(|parameter| parameter["in"] == "query")
            .map(|parameter| parameter["name"].as_str().unwrap())
            .collect();
        for name in all {
            // Empty is valid for each.
            let (status, body) = fixture
                .get(&format!("{}?{name}=", path.replace("{id}", "a1")))
                .await;
            let wanted = if described.contains(&name) { 200 } else { 400 };
            assert_eq!(status.as_u16(), wanted, "{path} {name}: {body}");
        }
        // Bounds and names are those of the description.
        for parameter in parameters {
            let (name, schema) = (parameter["name"].as_str().unwrap(), &parameter["schema"]);
            let ask = async |value: &str| fixture.get(&format!("{path}?{name}={value}")).await.0.as_u16();
            if let (Some(least), Some(most)) = (schema["minimum"].as_i64(), schema["maximum"].as_i64()) {
                let found = [least - 1, least, most, most + 1];
                let mut statuses = Vec::new();
                for value in found {
                    statuses.push(ask(&value.to_string()).await);
                }
                assert_eq!(statuses, [400, 200, 200, 400], "{path} {name}");
            }
            for value in schema["enum"].as_array().into_iter().flatten() {
                assert_eq!(ask(value.as_str().unwrap()).await, 200, "{path} {name} {value}");
            }
        }
    }
}

#[tokio::test]
async fn pages_traces_and_counts() {
    let fixture = Fixture::new();
    let (_, page) = fixture.get("/api/v1/traces?q=timed%20order*&limit=10").await;
    assert_eq!(page["traces"], json!([]), "\"order\" is not in that text");
    let (_, page) = fixture.get("/api/v1/traces?q=request&limit=2").await;
    let keys = |page: &Value| {
        let traces = page["traces"].as_array().unwrap().clone();
        traces
            .iter()
            .map(|trace| trace["key"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(keys(&page), ["a2", "a1"]);
    let shown = &page["traces"][0];
    assert_eq!(
        shown["text"],
        "request failed: TimeoutException in java.sql.Driver"
    );
    assert_eq!(shown["highlights"], json!([[0, 7]]));
    assert_eq!(
        (&shown["level"], &shown["services"]),
        (&json!("error"), &json!(["order", "payment"]))
    );
    let cursor = page["next"].as_str().unwrap();
    let (_, page) = fixture
        .get(&format!("/api/v1/traces?q=request&limit=2&cursor={cursor}"))
        .await;
    assert_eq!(
        (keys(&page), &page["next"]),
        (vec!["a5".to_owned()], &Value::Null)
    );
    let (status, error) = fixture
        .get(&format!("/api/v1/traces?sort=oldest&cursor={cursor}"))
        .await;
    assert_eq!(
        (status, &error["error"]["key"]),
        (StatusCode::BAD_REQUEST, &json!("cursor"))
    );

    let (_, trace) = fixture.get("/api/v1/traces/a2").await;
    assert_eq!(trace["traces"][0]["document"]["status"], 504);
    let (_, counts) = fixture
        .get("/api/v1/histogram?from=2026-11-21&to=2026-11-21T23:59:59.999Z&buckets=24")
        .await;
    assert_eq!(counts["bucketMs"], 3_600_000);
    assert_eq!(counts["buckets"].as_array().unwrap().len(), 24);
    assert_eq!(
        counts["buckets"][9]["counts"],
        json!({"debug": 1, "error": 1, "info": 1})
    );
    let (_, facets) = fixture.get("/api/v1/facets?q=request").await;
    assert_eq!(
        facets["services"],
        json!([{"value": "order", "count": 2}, {"value": "payment", "count": 1}])
    );
}

#[tokio::test]
async fn a_mistake_in_the_query_has_its_place() {
    let fixture = Fixture::new();
    for path in ["/api/v1/traces", "/api/v1/histogram", "/api/v1/facets"] {
        let (status, body) = fixture.get(&format!("{path}?q=%C3%BC%20level:loud")).await;
        let error = &body["error"];
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert_eq!(
            (&error["key"], &error["at"], &error["length"]),
            (&json!("q"), &json!(9), &json!(4))
        );
    }
    let nothing = Fixture {
        search: None,
        _indexer: None,
        _folder: tempfile::tempdir().unwrap(),
    };
    let (status, body) = nothing.get("/api/v1/traces").await;
    assert_eq!(status, StatusCode::NOT_IMPLEMENTED);
    assert!(
        body["error"]["message"]
            .as_str()
            .unwrap()
            .contains("sqlite.search"),
        "{body}"
    );
}
