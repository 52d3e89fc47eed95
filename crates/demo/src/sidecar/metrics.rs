//! `demo sidecar-metrics`: scrapes the application beside it and serves its metrics with two more
//! labels.
//!
//! The last scrape is served while it is fresh. When the application does not answer, or not with
//! metrics, the page says `up 0` and has none of its samples, so that old values never pass for new
//! ones, also when scraping itself hangs.

pub mod exposition;

use std::{
    fmt::Write as _,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
    routing::get,
};
use reqwest::{Url, header::CONTENT_TYPE};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::exposition::{Label, Page};
use super::Identity;
use crate::{
    Error,
    client::{chain, direct_client, parse_url},
    web,
};

/// How the sidecar is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// The application's metrics page.
    pub app_metrics_url: String,
    /// Where to serve; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The labels to add.
    pub identity: Identity,
    /// The time from one scrape to the next.
    pub interval: Duration,
    /// How long a scrape may take; at most the interval.
    pub timeout: Duration,
}

/// A sidecar whose port is open.
#[derive(Debug)]
pub struct MetricsSidecar {
    listener: TcpListener,
    shared: Arc<Shared>,
    scraper: Scraper,
    interval: Duration,
}

#[derive(Debug)]
struct Shared {
    labels: Vec<Label>,
    /// A scrape older than this is not served.
    max_age: Duration,
    last: Mutex<Scrape>,
}

#[derive(Debug)]
struct Scraper {
    client: reqwest::Client,
    url: Url,
    labels: Vec<Label>,
}

/// One attempt to read the application's page.
#[derive(Debug)]
struct Scrape {
    at: Instant,
    took: Duration,
    result: Result<Scraped, String>,
}

#[derive(Debug)]
struct Scraped {
    page: Page,
    openmetrics: bool,
}

impl MetricsSidecar {
    /// Opens the port.
    ///
    /// # Errors
    /// [`Error::BadUrl`], [`Error::PortInUse`], [`Error::Bind`].
    pub async fn bind(options: &Options) -> Result<Self, Error> {
        let labels = vec![
            Label {
                name: "service_name",
                value: options.identity.service_name.clone(),
            },
            Label {
                name: "environment",
                value: options.identity.environment.clone(),
            },
        ];
        let timeout = options.timeout.min(options.interval);
        let scraper = Scraper {
            client: direct_client(timeout)?,
            url: parse_url("--app-metrics-url", &options.app_metrics_url)?,
            labels: labels.clone(),
        };
        let never = Scrape {
            at: Instant::now(),
            took: Duration::ZERO,
            result: Err("not scraped yet".to_owned()),
        };
        let shared = Shared {
            labels,
            max_age: options.interval * 2 + timeout,
            last: Mutex::new(never),
        };
        let listener = web::bind(options.listen, "METRICS_PORT").await?;
        Ok(Self {
            listener,
            shared: Arc::new(shared),
            scraper,
            interval: options.interval,
        })
    }

    /// Where it serves.
    ///
    /// # Errors
    /// When the system does not know.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Scrapes and serves until `stop`.
    ///
    /// # Errors
    /// When serving fails.
    pub async fn run(self, stop: CancellationToken) -> Result<(), Error> {
        let Self {
            listener,
            shared,
            scraper,
            interval,
        } = self;
        let router = Router::new()
            .route("/metrics", get(serve))
            .route("/health", get(|| async { "ok\n" }))
            .with_state(Arc::clone(&shared));
        let scraping = stop
            .clone()
            .run_until_cancelled_owned(scrape_for_ever(scraper, shared, interval));
        let scraping = tokio::spawn(scraping);
        let served = web::serve_router(listener, router, stop.clone(), STOP_GRACE, || 0).await;
        stop.cancel();
        scraping.await.ok();
        served
    }
}

async fn scrape_for_ever(scraper: Scraper, shared: Arc<Shared>, interval: Duration) {
    let mut pace = tokio::time::interval(interval.max(Duration::from_millis(1)));
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut was_up = None;
    loop {
        pace.tick().await;
        let started = Instant::now();
        let result = scraper.scrape().await;
        if was_up != Some(result.is_ok()) {
            was_up = Some(result.is_ok());
            match &result {
                Ok(_) => tracing::info!("{} is up", scraper.url),
                Err(error) => tracing::warn!("{} is down: {error}", scraper.url),
            }
        }
        let scrape = Scrape {
            at: Instant::now(),
            took: started.elapsed(),
            result,
        };
        *shared.last.lock().unwrap_or_else(PoisonError::into_inner) = scrape;
    }
}

impl Scraper {
    async fn scrape(&self) -> Result<Scraped, String> {
        let request = self.client.get(self.url.clone()).header(header::ACCEPT, ACCEPT);
        let mut answer = request
            .send()
            .await
            .and_then(reqwest::Response::error_for_status)
            .map_err(|e| chain(&e))?;
        let content_type = answer
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok());
        let openmetrics = content_type.is_some_and(|value| value.starts_with("application/openmetrics-text"));
        let mut body = Vec::new();
        while let Some(piece) = answer.chunk().await.map_err(|e| chain(&e))? {
            if body.len() + piece.len() > MAX_PAGE_BYTES {
                return Err(format!("the metrics page is larger than {MAX_PAGE_BYTES} bytes"));
            }
            body.extend_from_slice(&piece);
        }
        let text = String::from_utf8(body).map_err(|_| "the metrics page is not UTF-8".to_owned())?;
        if openmetrics && text.lines().next_back().map(str::trim_end) != Some("# EOF") {
            return Err("the metrics page was cut short: no # EOF at its end".to_owned());
        }
        let page = exposition::relabel(&text, &self.labels, OWN_FAMILIES).map_err(|e| e.to_string())?;
        Ok(Scraped { page, openmetrics })
    }
}

async fn serve(State(shared): State<Arc<Shared>>) -> Response {
    let last = shared.last.lock().unwrap_or_else(PoisonError::into_inner);
    let fresh = last
        .result
        .as_ref()
        .ok()
        .filter(|_| last.at.elapsed() <= shared.max_age);
    let mut text = String::new();
    if let Some(scraped) = fresh {
        text.push_str(&scraped.page.text);
    }
    let samples = fresh.map_or(0, |scraped| scraped.page.samples);
    let own = [
        (
            "1 when the last scrape of the application succeeded and is fresh.",
            u8::from(fresh.is_some()).to_string(),
        ),
        (
            "How long the last scrape took.",
            last.took.as_secs_f64().to_string(),
        ),
        ("Samples that the last scrape brought.", samples.to_string()),
    ];
    for (family, (help, value)) in OWN_FAMILIES.iter().zip(own) {
        write_gauge(&mut text, family, help, &shared.labels, &value);
    }
    let content_type = if fresh.is_none_or(|scraped| scraped.openmetrics) {
        text.push_str("# EOF\n");
        OPENMETRICS
    } else {
        PLAIN
    };
    ([(CONTENT_TYPE, content_type)], text).into_response()
}

fn write_gauge(text: &mut String, family: &str, help: &str, labels: &[Label], value: &str) {
    // Writing to a String cannot fail.
    let _ = write!(text, "# HELP {family} {help}\n# TYPE {family} gauge\n{family}{{");
    for (index, label) in labels.iter().enumerate() {
        text.push_str(if index == 0 { "" } else { "," });
        text.push_str(label.name);
        text.push('=');
        exposition::write_value(text, &label.value);
    }
    let _ = writeln!(text, "}} {value}");
}

/// The families that the sidecar itself serves, by the names that Prometheus gives them for a
/// target.
const OWN_FAMILIES: &[&str] = &["up", "scrape_duration_seconds", "scrape_samples_scraped"];

/// A larger page is rejected, so that memory is bounded.
const MAX_PAGE_BYTES: usize = 16 << 20;

/// How long requests in flight may take after the stop signal.
const STOP_GRACE: Duration = Duration::from_secs(5);

const ACCEPT: &str = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8";

#[cfg(test)]
mod tests;
