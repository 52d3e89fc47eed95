//! Counting store: an Elasticsearch that takes every document and keeps a count.
//!
//! It looks for nothing in a document but the number of its lines, so that it costs little on the
//! machine that is measured. The tests' store keeps documents and plays faults in front of its
//! [`router`].

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use memchr::memmem;

/// Lines that had arrived, and when.
pub(super) type Sample = (Instant, u64);

/// A running counting store.
#[derive(Debug)]
pub struct CountingStore {
    address: SocketAddr,
    counts: Arc<Counts>,
}

/// What a counting store has counted.
#[derive(Debug, Default)]
pub struct Counts {
    unavailable: AtomicBool,
    documents: AtomicU64,
    lines: AtomicU64,
    bytes: AtomicU64,
    samples: Mutex<Vec<Sample>>,
}

impl CountingStore {
    /// Starts one on a free port of the loopback interface.
    ///
    /// # Errors
    /// When no port is free.
    pub async fn start() -> io::Result<Self> {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let counts = Arc::<Counts>::default();
        let router = router(Arc::clone(&counts));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(Self { address, counts })
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets all counts to zero.
    pub fn reset(&self) {
        for count in [&self.counts.documents, &self.counts.lines, &self.counts.bytes] {
            count.store(0, Ordering::Relaxed);
        }
        self.lock().clear();
    }

    /// While it is unavailable it refuses everything with status 503.
    pub fn set_unavailable(&self, unavailable: bool) {
        self.counts.unavailable.store(unavailable, Ordering::Relaxed);
    }

    /// Documents stored.
    pub fn documents(&self) -> u64 {
        self.counts.documents.load(Ordering::Relaxed)
    }

    /// Lines of the stored documents.
    pub fn lines(&self) -> u64 {
        self.counts.lines.load(Ordering::Relaxed)
    }

    /// Bytes received.
    pub fn bytes(&self) -> u64 {
        self.counts.bytes.load(Ordering::Relaxed)
    }

    /// Lines after each request.
    pub(super) fn samples(&self) -> Vec<Sample> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Sample>> {
        self.counts.samples.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The store's whole API, which counts into `counts`.
pub fn router(counts: Arc<Counts>) -> Router {
    Router::new().fallback(answer).with_state(counts)
}

async fn answer(State(counts): State<Arc<Counts>>, uri: Uri, body: Body) -> Response {
    let Ok(body) = to_bytes(body, usize::MAX).await else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    if counts.unavailable.load(Ordering::Relaxed) {
        return respond(
            StatusCode::SERVICE_UNAVAILABLE,
            r#"{"error":{"type":"unavailable"},"status":503}"#,
        );
    }
    counts.bytes.fetch_add(body.len() as u64, Ordering::Relaxed);
    match uri.path() {
        // The baseline server sends bytes that are no documents.
        "/baseline" => StatusCode::NO_CONTENT.into_response(),
        path if path.ends_with("/_bulk") => {
            let (documents, lines) = count(&body);
            counts.documents.fetch_add(documents, Ordering::Relaxed);
            let before = counts.lines.fetch_add(lines, Ordering::Relaxed);
            let mut samples = counts.samples.lock().unwrap_or_else(PoisonError::into_inner);
            samples.push((Instant::now(), before + lines));
            respond(StatusCode::OK, r#"{"took":1,"errors":false,"items":[]}"#)
        }
        "/" => respond(
            StatusCode::OK,
            concat!(
                r#"{"name":"store","cluster_name":"store","cluster_uuid":"store","version":{"number":"8.18.8","#,
                r#""build_flavor":"default","lucene_version":"9.12.1","#,
                r#""minimum_wire_compatibility_version":"7.17.0","#,
                r#""minimum_index_compatibility_version":"7.0.0"},"tagline":"You Know, for Search"}"#
            ),
        ),
        // Nothing is found, at once: what a search costs the store is not measured.
        path if path.ends_with("/_search") => respond(
            StatusCode::OK,
            r#"{"took":1,"timed_out":false,"hits":{"total":{"value":0,"relation":"eq"},"hits":[]}}"#,
        ),
        _ => respond(StatusCode::OK, r#"{"acknowledged":true}"#),
    }
}

/// An answer with a JSON body as Elasticsearch gives it: clients check the header that names the
/// product.
pub fn respond(status: StatusCode, body: impl Into<Body>) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (
            header::HeaderName::from_static("x-elastic-product"),
            "Elasticsearch",
        ),
    ];
    (status, headers, body.into()).into_response()
}

/// Documents of a bulk body, and their lines. Every other row is an action.
fn count(body: &[u8]) -> (u64, u64) {
    let about = memmem::Finder::new(b",\"windrow\":{");
    let (mut documents, mut lines, mut from) = (0, 0, 0);
    for (row, end) in memchr::memchr_iter(b'\n', body).enumerate() {
        if row % 2 == 1 {
            let document = body.get(from..end).unwrap_or_default();
            documents += 1;
            lines += about
                .find(document)
                .and_then(|at| lines_of(document.get(at..)?))
                .unwrap_or(1);
        }
        from = end + 1;
    }
    (documents, lines)
}

/// The value of `lines`, one of the first members of the object that begins here.
fn lines_of(about: &[u8]) -> Option<u64> {
    let head = about.get(..about.len().min(96))?;
    let at = memmem::find(head, b"\"lines\":")? + 8;
    let digits = about.get(at..)?.iter().take_while(|byte| byte.is_ascii_digit());
    Some(digits.fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

/// Records a second while most of `total` arrived: from the first sample to the last one below 85
/// %, so that neither the last traces' wait for stragglers nor the last, partly filled request
/// counts. `None` when there are too few samples.
pub(super) fn rate(samples: &[Sample], total: u64) -> Option<f64> {
    let first = samples.first()?;
    let last = samples.iter().rev().find(|(_, n)| *n <= total / 100 * 85)?;
    let (n, took) = (
        last.1.checked_sub(first.1)?,
        last.0.checked_duration_since(first.0)?,
    );
    // A rate over less than a third of the load says little.
    (n > total / 3 && !took.is_zero()).then(|| n as f64 / took.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn documents_and_their_lines_are_counted() {
        let body = concat!(
            "{\"create\":{\"_index\":\"i\",\"_id\":\"a\"}}\n",
            r#"{"@timestamp":"x","message":"\"windrow\":{\"lines\":7","windrow":{"reason":"completed","lines":12,"last":"x"}}"#,
            "\n{\"create\":{\"_index\":\"i\",\"_id\":\"b\"}}\n",
            r#"{"@timestamp":"x","message":"alone","windrow":{"tags":["app"]}}"#,
            "\n",
        );
        assert_eq!(count(body.as_bytes()), (2, 13));
        assert_eq!(count(b""), (0, 0));
    }

    #[test]
    fn the_rate_is_that_of_the_middle() {
        let now = Instant::now();
        let at = |ms, n| (now + Duration::from_millis(ms), n);
        let samples = [at(1000, 100), at(1100, 200), at(1900, 850), at(5000, 1000)];
        let rate = rate(&samples, 1000).unwrap();
        assert!((rate - 750.0 / 0.9).abs() < 1e-6, "{rate}");
        assert_eq!(super::rate(&samples[3..], 1000), None);
        assert_eq!(super::rate(&[], 1000), None);
    }
}
