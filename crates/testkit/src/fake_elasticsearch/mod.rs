//! A fake Elasticsearch with faults: the counting store of `windrow bench`, with documents and
//! faults in front of it.
//!
//! It refuses, delays, loses answers after it has stored, rejects single items, cuts connections,
//! stops and starts again. It stores documents by the real rules of `create`, `index` with
//! `if_seq_no`, and `delete`.

mod answer;
mod api;
mod bulk;
mod documents;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Runtime;

use crate::check::Stored;
use crate::elasticsearch::Client;
use crate::ports;
use documents::Documents;

/// Faults to play. Counts are of bulk requests (or items) since the faults were set; 0 = never.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// Every n-th bulk request is refused whole with 429.
    pub refuse_every: u64,
    /// Every n-th bulk request is refused whole with 503.
    pub unavailable_every: u64,
    /// Every n-th bulk request: the connection ends before anything is stored.
    pub drop_before_every: u64,
    /// Every n-th bulk request: everything is stored, then the connection ends without an answer.
    pub lose_answer_every: u64,
    /// Every n-th bulk request: everything is stored, then half of an answer comes.
    pub cut_answer_every: u64,
    /// Every n-th item is rejected with 429.
    pub item_429_every: u64,
    /// Every n-th item is rejected with 503.
    pub item_503_every: u64,
    /// Documents that contain this text are rejected with 400 `document_parsing_exception`, always.
    pub poison: Option<String>,
    /// A bulk body of more bytes is refused with 413.
    pub limit_bytes: u64,
    /// Wait before each answer.
    pub delay: Duration,
    /// All requests but `GET /` are refused with this status, if not 0: 401, 403, 503…
    pub refuse_all: u16,
}

/// What the fake has counted.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// Bulk requests.
    pub bulks: u64,
    /// Items in them that reached the store.
    pub items: u64,
    /// Documents created.
    pub created: u64,
    /// Documents written again.
    pub updated: u64,
    /// 409 answers.
    pub conflicts: u64,
    /// `_mget` requests.
    pub mgets: u64,
    /// Index templates put.
    pub templates: u64,
    /// Faults that were played.
    pub faults: u64,
}

/// A fake Elasticsearch on loopback. Dropping it stops it.
#[derive(Debug)]
pub struct FakeElasticsearch {
    port: u16,
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
}

type Shares = axum::extract::State<Arc<Shared>>;

#[derive(Debug, Default)]
struct State {
    faults: Faults,
    since_faults: Counts,
    counts: Counts,
    documents: Documents,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FakeElasticsearch {
    /// Starts one without faults on a free port.
    pub fn start() -> Self {
        let mut fake = Self::stopped();
        fake.start_again();
        fake
    }

    /// One with a known port that does not listen yet.
    pub fn stopped() -> Self {
        Self {
            port: ports::free(),
            shared: Arc::default(),
            runtime: None,
        }
    }

    /// [`Self::start`] with faults.
    pub fn with(faults: Faults) -> Self {
        let fake = Self::start();
        fake.set(faults);
        fake
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// A client for it.
    pub fn client(&self) -> Client {
        Client::new(self.url())
    }

    /// Replaces the faults and restarts their counts.
    pub fn set(&self, faults: Faults) {
        let mut state = self.shared.state();
        state.faults = faults;
        state.since_faults = Counts::default();
    }

    /// The counts so far.
    pub fn counts(&self) -> Counts {
        self.shared.state().counts.clone()
    }

    /// All documents whose index begins with `prefix`.
    pub fn documents(&self, prefix: &str) -> Vec<Stored> {
        self.shared.state().documents.matching(prefix)
    }

    /// The ids of documents whose index begins with `prefix`, in the order in which they were last
    /// written.
    pub fn order(&self, prefix: &str) -> Vec<String> {
        self.shared.state().documents.order(prefix)
    }

    /// Removes a document, as a user may.
    pub fn delete(&self, index: &str, id: &str) -> bool {
        self.shared.state().documents.delete(index, id)
    }

    /// Stops: no listener, all connections cut. What is stored stays.
    pub fn stop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// Starts again on the same port.
    ///
    /// # Panics
    /// When the port was taken meanwhile.
    pub fn start_again(&mut self) {
        self.stop();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("fake-es")
            .enable_all()
            .build()
            .expect("a runtime");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        // The sockets of a runtime that is being shut down may take a moment to go.
        let listener = crate::wait::until(
            "the port of the fake Elasticsearch",
            Duration::from_secs(10),
            || TcpListener::bind(address).map_err(|error| error.to_string()),
        );
        listener.set_nonblocking(true).expect("a socket");
        let app = api::router(Arc::clone(&self.shared));
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a socket of this runtime");
            axum::serve(listener, app)
                .await
                .expect("axum serves until its runtime goes");
        });
        self.runtime = Some(runtime);
    }
}

impl Drop for FakeElasticsearch {
    fn drop(&mut self) {
        self.stop();
    }
}
