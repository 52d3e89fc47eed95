//! The search API on a real Elasticsearch 8, Elasticsearch 9 and OpenSearch: the shared queries find
//! what `testdata/` of `windrow-query` says, as in the embedded search and the evaluator; pages,
//! histograms and facets are those of the shared documents.

use windrow_query::{Names, Query};
use windrow_testkit::elasticsearch::{Kind, Node};
use windrow_testkit::{elasticsearch as testkit, http, need};

use super::*;
use crate::search::{Buckets, Cursor, Page, PageRequest, Selection, Sort, TraceSearch};

fn selection(query: &str) -> Selection {
    Selection::new(Query::parse(query, 0).unwrap(), None, None)
}

fn testdata(name: &str) -> String {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/windrow-query/testdata");
    std::fs::read_to_string(folder.join(name)).unwrap()
}

/// The shared documents in indices by day, with Windrow's template if it is configured.
fn fill(url: &str, config: &ElasticsearchConfig) {
    if let Some(template) = &config.template {
        install(url, config, template);
    }
    for line in testdata("documents.ndjson").lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let day = &line["document"]["@timestamp"].as_str().unwrap()[..10];
        let (index, id) = (
            config.index.replace("%Y-%m-%d", day),
            line["_id"].as_str().unwrap(),
        );
        let answer =
            http::send_json("PUT", &format!("{url}/{index}/_create/{id}"), &line["document"]).unwrap();
        assert!(answer.status < 300, "{}", answer.text);
    }
    let all = config.index.replace("%Y-%m-%d", "*");
    http::request("POST", &format!("{url}/{all}/_refresh"), None).unwrap();
}

fn install(url: &str, config: &ElasticsearchConfig, template: &IndexTemplate) {
    let patterns = [config.index.replace("%Y-%m-%d", "*")];
    // The type of moved fields has another name in OpenSearch.
    let installed = template::variants(false).iter().any(|variant| {
        let lifecycle = Default::default();
        let body = template::body(
            template,
            &lifecycle,
            &patterns,
            template::TEMPLATE_PRIORITY,
            variant,
        );
        let path = format!("{url}/_index_template/{}", template.name);
        http::send_json("PUT", &path, &body).unwrap().status < 300
    });
    assert!(installed);
}

async fn pages(search: &ElasticsearchSearch, query: &str, sort: Sort, limit: usize) -> Vec<Page> {
    let mut pages: Vec<Page> = Vec::new();
    loop {
        let after = pages
            .last()
            .map(|page| Cursor::decode(page.next.as_deref().unwrap(), sort).unwrap());
        let request = PageRequest {
            selection: selection(query),
            sort,
            limit,
            after,
        };
        let page = search
            .page(request)
            .await
            .unwrap_or_else(|error| panic!("{query}: {error}"));
        let ends = page.next.is_none();
        pages.push(page);
        if ends {
            return pages;
        }
    }
}

fn keys(pages: &[Page]) -> Vec<String> {
    pages
        .iter()
        .flat_map(|page| &page.traces)
        .map(|trace| trace.key.clone())
        .collect()
}

async fn check(url: String) {
    let name = format!("search-{}", std::process::id());
    let template = IndexTemplate {
        name: name.clone(),
        shards: Some(2),
        replicas: Some(0),
        trace_id_keyword: true,
        ..Default::default()
    };
    let config = ElasticsearchConfig {
        index: format!("{name}-%Y-%m-%d"),
        template: Some(template),
        ..quick(&url)
    };
    let output = Elasticsearch::open(config.clone(), RULES).unwrap();
    let search = ElasticsearchSearch::new(output, Names::default());
    // Without an index there is nothing, and no error.
    assert!(keys(&pages(&search, "a", Sort::Newest, 10).await).is_empty());
    let nothing = search.facets(selection("")).await.unwrap();
    assert!(
        nothing.services.is_empty() && nothing.levels.is_empty(),
        "{nothing:?}"
    );
    fill(&url, &config);

    let all = keys(&pages(&search, "", Sort::Oldest, 100).await);
    assert_eq!(all, ["a5", "a1", "a6", "a2", "a3", "4f1e-00000000-7", "a4"]);
    let mut wrong = Vec::new();
    for line in testdata("queries.txt").lines() {
        let (query, wanted) = line.split_once('\t').unwrap();
        let mut wanted: Vec<_> = if wanted == "*" {
            all.clone()
        } else {
            wanted.split_whitespace().map(str::to_owned).collect()
        };
        let mut found = keys(&pages(&search, query, Sort::Newest, 100).await);
        wanted.sort();
        found.sort();
        if found != wanted {
            wrong.push(format!("{query}: {wanted:?}, found {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    let by_sort = |sort| pages(&search, "", sort, 2);
    assert_eq!(
        keys(&by_sort(Sort::Newest).await),
        ["a4", "4f1e-00000000-7", "a3", "a2", "a6", "a1", "a5"]
    );
    let slowest = keys(&by_sort(Sort::Slowest).await);
    assert_eq!(slowest, ["a4", "a2", "a3", "a1", "4f1e-00000000-7", "a6", "a5"]);
    let worst = keys(&by_sort(Sort::Worst).await);
    assert_eq!(worst, ["a4", "a2", "a3", "a1", "a6", "4f1e-00000000-7", "a5"]);
    // Traces with one time on several pages.
    for n in 0..7 {
        let document = json!({"@timestamp": "2026-11-21T15:00:00.000Z", "message": "equal", "windrow": {"durationMs": 5, "level": "warn"}});
        let index = config.index.replace("%Y-%m-%d", "2026-11-21");
        http::send_json("PUT", &format!("{url}/{index}/_create/e{n}"), &document).unwrap();
    }
    http::request("POST", &format!("{url}/{name}-*/_refresh"), None).unwrap();
    for (_, sort) in Sort::ALL {
        let mut found = keys(&pages(&search, "equal", sort, 2).await);
        found.sort();
        assert_eq!(
            found,
            (0..7).map(|n| format!("e{n}")).collect::<Vec<_>>(),
            "{sort:?}"
        );
    }

    let first = &pages(&search, "request failed", Sort::Newest, 10).await[0].traces[0];
    assert_eq!(first.text, "request failed: TimeoutException in java.sql.Driver");
    assert_eq!(
        (first.highlights.len(), first.index.as_deref()),
        (2, Some(format!("{name}-2026-11-21").as_str()))
    );
    let document = &search.documents("a2".into(), usize::MAX).await.unwrap()[0];
    let json: Value = serde_json::from_str(document.json.get()).unwrap();
    assert_eq!((document.id.as_str(), &json["status"]), ("a2", &json!(504)));
    assert!(
        search
            .documents("nobody".into(), usize::MAX)
            .await
            .unwrap()
            .is_empty()
    );

    let day = 20_778 * 86_400_000;
    let buckets = Buckets::covering(day, day + 86_399_999, 24);
    let period = Selection {
        from_ms: day,
        to_ms: day + 86_399_999,
        ..selection("-equal")
    };
    let histogram = search.histogram(period.clone(), buckets).await.unwrap();
    let hour = |hour: i64| {
        histogram
            .counts
            .get(&(day + hour * 3_600_000))
            .cloned()
            .unwrap_or_default()
    };
    assert_eq!(hour(9), BTreeMap::from([("debug", 1), ("error", 1), ("info", 1)]));
    assert_eq!(
        (histogram.counts.len(), hour(12)),
        (3, BTreeMap::from([("trace", 1)]))
    );
    let facets = search
        .facets(Selection {
            from_ms: i64::MIN,
            to_ms: i64::MAX,
            ..period
        })
        .await
        .unwrap();
    let values = |values: &[crate::search::FacetValue]| {
        values
            .iter()
            .map(|value| format!("{} {}", value.value, value.count))
            .collect::<Vec<_>>()
            .join(", ")
    };
    assert_eq!(
        values(&facets.services),
        "order 2, Order 1, geo-search 1, payment 1, scheduler 1"
    );
    assert_eq!(
        values(&facets.levels),
        "debug 1, error 1, fatal 1, info 1, none 1, trace 1, warn 1"
    );
    assert_eq!(
        values(&facets.tags),
        "app.web 4, app.db 1, kube.pod 1, old 1, system 1"
    );
    let client = windrow_testkit::elasticsearch::Client::new(url.clone());
    client.delete(&format!("{name}-*"));
    http::request("DELETE", &format!("{url}/_index_template/{name}"), None).unwrap();
}

/// Trace ids are found by their beginning, whatever mapped them.
async fn check_ids(url: &str) {
    let client = windrow_testkit::elasticsearch::Client::new(url.to_owned());
    for (kind, template) in [
        ("none", None),
        ("keyword", Some(IndexTemplate::default())),
        (
            "both",
            Some(IndexTemplate {
                trace_id_keyword: true,
                ..Default::default()
            }),
        ),
    ] {
        let name = format!("ids-{kind}-{}", std::process::id());
        let template = template.map(|template| IndexTemplate {
            name: name.clone(),
            ..template
        });
        let config = ElasticsearchConfig {
            index: format!("{name}-%Y-%m-%d"),
            template,
            ..quick(url)
        };
        let output = Elasticsearch::open(config.clone(), RULES).unwrap();
        let search = ElasticsearchSearch::new(output, Names::default());
        fill(url, &config);
        let document =
            json!({"@timestamp": "2026-11-21T15:00:00.000Z", "traceId": "Order-4711", "message": "x"});
        let index = config.index.replace("%Y-%m-%d", "2026-11-21");
        let path = format!("{url}/{index}/_create/Order-4711?refresh=true");
        assert!(http::send_json("PUT", &path, &document).unwrap().status < 300);
        for (query, wanted) in [
            ("traceId:a*", &["a1", "a2", "a3", "a4", "a5", "a6"][..]),
            ("id:Order-47*", &["Order-4711"]),
            ("id:Order-4711", &["Order-4711"]),
            ("id:order*", &[]),
            ("id:47*", &[]),
        ] {
            let mut found = keys(&pages(&search, query, Sort::Newest, 100).await);
            found.sort();
            assert_eq!(found, wanted, "{query} with template {kind}");
        }
        client.delete(&format!("{name}-*"));
        http::request("DELETE", &format!("{url}/_index_template/{name}"), None).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_search_on_elasticsearch_8() {
    let url = match std::env::var("WINDROW_TEST_ELASTICSEARCH") {
        Ok(url) => url,
        Err(_) => need!(testkit::shared()).url(),
    };
    check_ids(&url).await;
    check(url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_search_on_elasticsearch_9() {
    let node = need!(Node::start(Kind::ELASTICSEARCH_9));
    check_ids(&node.url()).await;
    check(node.url()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_search_on_opensearch() {
    let node = need!(Node::start(Kind::OPENSEARCH));
    check_ids(&node.url()).await;
    check(node.url()).await;
}
