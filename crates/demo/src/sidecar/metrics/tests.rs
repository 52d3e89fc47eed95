//! The sidecar beside an application that comes, goes and misbehaves.

use super::*;

struct App {
    url: String,
    address: SocketAddr,
    task: tokio::task::JoinHandle<std::io::Result<()>>,
}

async fn app(address: SocketAddr, content_type: &'static str, page: &'static str) -> App {
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route(
        "/metrics",
        get(move || async move { ([(CONTENT_TYPE, content_type)], page) }),
    );
    let task = tokio::spawn(async move { axum::serve(listener, router).await });
    App {
        url: format!("http://{address}/metrics"),
        address,
        task,
    }
}

async fn sidecar(app_metrics_url: &str) -> String {
    let options = Options {
        app_metrics_url: app_metrics_url.to_owned(),
        listen: ([127, 0, 0, 1], 0).into(),
        identity: Identity {
            service_name: "order".to_owned(),
            environment: "demo".to_owned(),
        },
        interval: Duration::from_millis(20),
        timeout: Duration::from_secs(20),
    };
    let sidecar = MetricsSidecar::bind(&options).await.unwrap();
    let url = format!("http://{}/metrics", sidecar.local_addr().unwrap());
    tokio::spawn(sidecar.run(CancellationToken::new()));
    url
}

/// The page once it says the wanted `up`.
async fn page_when_up_is(url: &str, up: u8) -> (String, String) {
    let client = direct_client(Duration::from_secs(20)).unwrap();
    let wanted = format!("up{{service_name=\"order\",environment=\"demo\"}} {up}");
    let waited = tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            let answer = client.get(url).send().await.unwrap();
            let kind = answer.headers()["content-type"].to_str().unwrap().to_owned();
            let text = answer.text().await.unwrap();
            if text.lines().any(|line| line == wanted) {
                return (kind, text);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.unwrap()
}

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);
const SAMPLE: &str = "# TYPE r counter\nr_total{p=\"/\"} 5\n";
const RELABELLED: &str = "r_total{service_name=\"order\",environment=\"demo\",p=\"/\"} 5";

#[tokio::test]
async fn samples_carry_the_labels_and_an_application_that_went_away_leaves_none() {
    let first = app(ANY, "text/plain; version=0.0.4", SAMPLE).await;
    let url = sidecar(&first.url).await;
    let (kind, text) = page_when_up_is(&url, 1).await;
    assert!(
        kind.starts_with("text/plain") && !text.contains("# EOF"),
        "{kind}"
    );
    assert!(
        text.contains(RELABELLED) && text.contains("# TYPE r counter"),
        "{text}"
    );

    first.task.abort();
    let (_, text) = page_when_up_is(&url, 0).await;
    assert!(!text.contains("r_total"), "stale samples:\n{text}");
    assert!(text.contains("scrape_samples_scraped{service_name=\"order\",environment=\"demo\"} 0"));

    let _second = app(first.address, "text/plain; version=0.0.4", SAMPLE).await;
    let (_, text) = page_when_up_is(&url, 1).await;
    assert!(text.contains(RELABELLED));
}

#[tokio::test]
async fn openmetrics_stays_openmetrics_with_one_end() {
    let page = "# TYPE r counter\nr_total{p=\"/\"} 5\n# EOF\n";
    let app = app(ANY, OPENMETRICS, page).await;
    let (kind, text) = page_when_up_is(&sidecar(&app.url).await, 1).await;
    assert!(kind.starts_with("application/openmetrics-text"), "{kind}");
    assert!(text.contains(RELABELLED));
    assert!(
        text.ends_with("\n# EOF\n") && text.matches("# EOF").count() == 1,
        "{text}"
    );
}

#[tokio::test]
async fn a_page_that_is_nonsense_or_cut_short_counts_as_down() {
    let nonsense = app(ANY, "text/html", "<html>sorry</html>").await;
    let cut = app(ANY, OPENMETRICS, SAMPLE).await;
    for app in [nonsense, cut] {
        let (_, text) = page_when_up_is(&sidecar(&app.url).await, 0).await;
        assert!(!text.contains("r_total"));
    }
}

#[tokio::test]
async fn a_scrape_that_is_too_old_is_not_served() {
    let old = Scrape {
        at: Instant::now(),
        took: Duration::ZERO,
        result: Ok(Scraped {
            page: Page {
                text: "r 1\n".to_owned(),
                samples: 1,
            },
            openmetrics: false,
        }),
    };
    let shared = Arc::new(Shared {
        labels: vec![],
        max_age: Duration::ZERO,
        last: Mutex::new(old),
    });
    while shared.last.lock().unwrap().at.elapsed().is_zero() {}
    let answer = serve(State(shared)).await;
    let body = axum::body::to_bytes(answer.into_body(), MAX_PAGE_BYTES)
        .await
        .unwrap();
    let text = String::from_utf8(body.to_vec()).unwrap();
    assert!(text.contains("up{} 0") && !text.contains("r 1"), "{text}");
}
