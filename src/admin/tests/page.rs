//! Tests of the page's files, of logging in, and of the API that the page reads.

use serde_json::json;

use super::*;
use crate::admin::api::tests::{description, violations};
use crate::cluster::PeerView;
use crate::gather::{OpenTraces, OpenTracesProbe};
use crate::output::dead_letter::{DeadLetter, DeadLetterBrowser, Entry, EntryContent};
use crate::output::replay::ReplaySummary;

/// A router that keeps its sessions.
struct Browser(Router);

impl Browser {
    fn new(fixture: &Fixture) -> Self {
        Self(fixture.router())
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> (StatusCode, HeaderMap, String) {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let (parts, body) = self.0.clone().oneshot(request).await.unwrap().into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        (
            parts.status,
            parts.headers,
            String::from_utf8_lossy(&body).into_owned(),
        )
    }
}

/// The body is as the API's description says.
#[track_caller]
fn assert_described(path: &str, body: &str) {
    let described = &description()["paths"][path]["get"]["responses"]["200"];
    let schema = &described["content"]["application/json"]["schema"];
    let mut found = Vec::new();
    violations(schema, &value(body), path, &mut found);
    assert!(found.is_empty(), "{}", found.join("\n"));
}

const HOST: (&str, &str) = ("host", "127.0.0.1:2020");
const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test]
async fn every_view_is_the_page_which_loads_only_its_own_files() {
    let fixture = Fixture::new();
    for path in ["/", "/live", "/open", "/dead-letter", "/server", "/trace/a%2Fb"] {
        let (status, headers, body) = fixture.ask(Method::GET, path, &[HOST]).await;
        assert_eq!(status, StatusCode::OK, "{path}");
        assert_eq!(headers[header::CONTENT_TYPE], "text/html; charset=utf-8");
        let policy = headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(
            policy.starts_with("default-src 'none'; script-src 'self';"),
            "{policy}"
        );
        assert!(!policy.contains("unsafe") && !policy.contains("http"), "{policy}");
        assert!(
            body.contains("/assets/app.js") && !body.contains("<script>"),
            "{body}"
        );
    }
    let (status, headers, body) = fixture.ask(Method::GET, "/assets/app.js", &[HOST]).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(headers[header::CONTENT_TYPE], "text/javascript; charset=utf-8");
    assert_eq!(headers[header::CACHE_CONTROL], "no-cache");
    assert!(body.contains("import"));
    let tag = headers[header::ETAG].to_str().unwrap();
    let known = [HOST, ("if-none-match", tag)];
    let (status, _, body) = fixture.ask(Method::GET, "/assets/app.js", &known).await;
    assert_eq!((status, &*body), (StatusCode::NOT_MODIFIED, ""));
    for path in ["/assets/../mod.rs", "/assets/none.js", "/assets/"] {
        assert_eq!(fixture.get(path).await.0, StatusCode::NOT_FOUND, "{path}");
    }
    let foreign = [("host", "evil.example")];
    assert_eq!(
        fixture.ask(Method::GET, "/", &foreign).await.0,
        StatusCode::FORBIDDEN
    );
}

#[tokio::test]
async fn a_login_gives_a_cookie_that_scripts_and_foreign_pages_do_not_get() {
    let mut fixture = Fixture::new();
    fixture.config.token = Some(Secret::new("s3cret"));
    let browser = Browser::new(&fixture);
    assert_eq!(
        browser.send(Method::GET, "/", &[HOST], "").await.0,
        StatusCode::OK
    );
    let asked = browser.send(Method::GET, "/api/v1/stats", &[HOST], "").await;
    assert_eq!(asked.0, StatusCode::UNAUTHORIZED);

    let login = async |headers: &[(&str, &str)], body: &str| {
        browser.send(Method::POST, "/api/v1/login", headers, body).await
    };
    let token = r#"{"token":"s3cret"}"#;
    assert_eq!(login(&[HOST], token).await.0, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let foreign = [HOST, JSON, ("origin", "http://evil.example")];
    assert_eq!(login(&foreign, token).await.0, StatusCode::FORBIDDEN);
    assert_eq!(login(&[HOST, JSON], "{}").await.0, StatusCode::BAD_REQUEST);
    assert_eq!(
        login(&[HOST, JSON], r#"{"token":"other"}"#).await.0,
        StatusCode::FORBIDDEN
    );

    let own = [HOST, JSON, ("origin", "http://127.0.0.1:2020")];
    let (status, headers, _) = login(&own, token).await;
    assert_eq!(status, StatusCode::OK);
    let cookie = headers[header::SET_COOKIE].to_str().unwrap().to_owned();
    for attribute in ["HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(cookie.contains(attribute), "{cookie}");
    }
    assert!(!cookie.contains("s3cret"), "{cookie}");
    let pair = cookie.split(';').next().unwrap();
    let with_cookie = [HOST, ("cookie", pair)];
    for path in ["/api/v1/stats", "/logs"] {
        let (status, ..) = browser.send(Method::GET, path, &with_cookie, "").await;
        assert_eq!(status, StatusCode::OK, "{path}");
    }
    let logout = [HOST, JSON, ("cookie", pair)];
    browser.send(Method::POST, "/api/v1/logout", &logout, "").await;
    let (status, ..) = browser.send(Method::GET, "/logs", &with_cookie, "").await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn wrong_tokens_are_slowed_down() {
    let mut fixture = Fixture::new();
    fixture.config.token = Some(Secret::new("s3cret"));
    let browser = Browser::new(&fixture);
    let mut statuses = Vec::new();
    for _ in 0..30 {
        let body = r#"{"token":"guess"}"#;
        let answer = browser
            .send(Method::POST, "/api/v1/login", &[HOST, JSON], body)
            .await;
        statuses.push(answer.0);
    }
    assert_eq!(statuses.first(), Some(&StatusCode::FORBIDDEN));
    assert_eq!(statuses.last(), Some(&StatusCode::TOO_MANY_REQUESTS));
}

#[tokio::test]
async fn stats_have_every_number_and_the_last_hour_when_asked() {
    let fixture = Fixture::new();
    fixture.metrics.input_records.inc_by(42);
    fixture.readiness.lock().unwrap().reasons.push("away".into());
    let (status, body) = fixture.get("/api/v1/stats").await;
    let stats = value(&body);
    assert_eq!(status, StatusCode::OK);
    assert_described("/api/v1/stats", &body);
    assert_eq!(stats["input"]["records"], 42);
    assert_eq!(
        stats["readiness"],
        json!({"ready": false, "reasons": ["away"], "notes": []})
    );
    assert_eq!(stats["listen"]["forward"], "0.0.0.0:24224");
    assert_eq!(stats["outputs"][0]["name"], "sqlite");
    assert_eq!(stats["series"], serde_json::Value::Null);
    let (_, body) = fixture.get("/api/v1/stats?series=1").await;
    assert_described("/api/v1/stats", &body);
    let with_series = value(&body);
    assert!(
        with_series["series"]["recordsPerSecond"].is_array(),
        "{with_series}"
    );
}

#[tokio::test]
async fn stats_have_the_peers() {
    let fixture = Fixture::new();
    fixture.metrics.cluster.messages_taken.inc_by(7);
    let peer = PeerView {
        address: "10.0.0.2:24224".into(),
        name: None,
        instance: None,
        state: "away",
        reason: Some("connection refused".into()),
        seconds: 4,
        records_handed_over: 5,
        kept: [("slow", 2)].into(),
    };
    let state = AdminState {
        peers: Arc::new(move || Some(vec![peer.clone()])),
        ..fixture.state()
    };
    let browser = Browser(router(state, &fixture.config, &CancellationToken::new()));
    let (_, _, body) = browser.send(Method::GET, "/api/v1/stats", &[HOST], "").await;
    assert_described("/api/v1/stats", &body);
    let cluster = &value(&body)["cluster"];
    assert_eq!(cluster["messagesTaken"], 7);
    assert_eq!(cluster["peers"][0]["kept"], json!({"slow": 2}));
}

#[tokio::test]
async fn open_traces_are_those_that_gathering_answers_with() {
    let fixture = Fixture::new();
    assert_eq!(fixture.get("/api/v1/open").await.0, StatusCode::NOT_IMPLEMENTED);
    let probe = Arc::<OpenTracesProbe>::default();
    let state = AdminState {
        open_traces: Some(Arc::clone(&probe)),
        ..fixture.state()
    };
    let browser = Browser(router(state, &fixture.config, &CancellationToken::new()));
    let answer = async {
        loop {
            probe.answer_for_tests(|| OpenTraces {
                total: 3,
                lines: 5,
                now: 9_000_000,
                traces: vec![windrow_trace::TraceOverview {
                    id: b"<b>".to_vec(),
                    opened_at: 2_000_000,
                    last_seen: 8_500_000,
                    lines: 2,
                    is_complete: false,
                    text: b"hi \xff".to_vec(),
                }],
            });
            tokio::task::yield_now().await;
        }
    };
    let (_, _, body) = tokio::select! {
        answered = browser.send(Method::GET, "/api/v1/open", &[HOST], "") => answered,
        () = answer => unreachable!("it does not end"),
    };
    assert_described("/api/v1/open", &body);
    assert_eq!(
        value(&body),
        json!({"total": 3, "lines": 5, "traces": [
            {"id": "<b>", "ageMs": 7000, "idleMs": 500, "lines": 2, "completed": false, "text": "hi \u{fffd}"}
        ]})
    );
}

#[tokio::test]
async fn the_dead_letter_is_shown_by_reason_and_replayed_from_the_page_only() {
    let folder = tempfile::tempdir().unwrap();
    let dead = DeadLetter::open(folder.path(), 1 << 20, 1 << 30).unwrap();
    for number in 0..60 {
        let document = format!(r#"{{"n":{number},"big":123456789012345678901234567890}}"#);
        dead.put(&Entry {
            time: jiff::Timestamp::UNIX_EPOCH,
            source: "elasticsearch".into(),
            status: Some(400),
            kind: "mapping".into(),
            reason: "<script>".into(),
            index: None,
            destination: None,
            id: Some(number.to_string()),
            is_trace: Some(true),
            first_ns: None,
            lines: Some(1),
            parts: Vec::new(),
            content: EntryContent::Document(document.into()),
        })
        .unwrap();
    }
    let fixture = Fixture::new();
    let replays = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&replays);
    let replay = move || -> Replaying {
        *counted.lock().unwrap() += 1;
        let summary = ReplaySummary {
            entries: 60,
            written: 58,
            refused: 2,
            first_reason: Some("still".into()),
            ..ReplaySummary::default()
        };
        Box::pin(std::future::ready(Ok(summary)))
    };
    let browser = DeadLetterBrowser::new(folder.path());
    let state = AdminState {
        dead_letter: Some(DeadLetterAccess::new(browser, Some(Arc::new(replay)))),
        ..fixture.state()
    };
    let browser = Browser(router(state, &fixture.config, &CancellationToken::new()));
    let get = async |path: &str| browser.send(Method::GET, path, &[HOST], "").await;
    let (status, _, body) = get("/api/v1/dead-letter").await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert_described("/api/v1/dead-letter", &body);
    let page = value(&body);
    assert_eq!(
        (&page["total"], &page["reasons"][0]["count"]),
        (&json!(60), &json!(60))
    );
    assert_eq!(page["entries"].as_array().unwrap().len(), 50);
    assert!(
        body.contains("123456789012345678901234567890"),
        "numbers keep their digits"
    );
    let next = page["next"].as_str().unwrap();
    let rest = value(&get(&format!("/api/v1/dead-letter?cursor={next}")).await.2);
    assert_eq!(rest["entries"].as_array().unwrap().len(), 10);
    assert_eq!(rest["next"], json!(null));
    assert_eq!(
        get("/api/v1/dead-letter?cursor=x").await.0,
        StatusCode::BAD_REQUEST
    );

    let path = "/api/v1/dead-letter/replay";
    let foreign = [HOST, JSON, ("sec-fetch-site", "cross-site")];
    assert_eq!(
        browser.send(Method::POST, path, &foreign, "{}").await.0,
        StatusCode::FORBIDDEN
    );
    assert_eq!(*replays.lock().unwrap(), 0);
    let (status, _, body) = browser.send(Method::POST, path, &[HOST, JSON], "{}").await;
    assert_eq!(status, StatusCode::OK);
    let message = "58 of 60 documents were written, 2 refused again. First reason: still";
    assert_eq!(value(&body)["message"], message);
    assert_eq!(*replays.lock().unwrap(), 1);
}
