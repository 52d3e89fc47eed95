//! Node pool: sends a request to one of the live nodes.
//!
//! Owns the order of nodes; one node is in `node`. Knows nothing of what requests mean.

use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use reqwest::Method;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::http::{Request, Response, SendError};
use super::node::Node;
use super::outcome::RequestError;
use crate::config::ElasticsearchConfig;

/// Interval at which dead nodes are looked at.
const PROBE_INTERVAL: Duration = Duration::from_millis(500);

/// Timeout of a probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the output cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// An address is wrong.
    #[error("Elasticsearch address {url:?}: {reason}")]
    Url {
        /// The address, without credentials.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No address is given.
    #[error("no Elasticsearch address is configured")]
    NoUrl,
    /// A certificate or key file is wrong.
    #[error("{what} {}: {reason}", file.display())]
    File {
        /// What the file is for.
        what: &'static str,
        /// The file.
        file: std::path::PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The index pattern is wrong.
    #[error("{0}")]
    Index(String),
    /// Credentials are wrong.
    #[error("Elasticsearch credentials: {0}")]
    Credentials(String),
    /// The HTTP client cannot be built.
    #[error("Elasticsearch client: {0}")]
    Client(String),
}

/// The nodes of one cluster.
pub(crate) struct Nodes {
    nodes: Vec<Node>,
    next: AtomicUsize,
    timeout: Duration,
    /// Notified when a dead node is back.
    pub(crate) revived: Notify,
}

impl Nodes {
    pub(crate) fn open(config: &ElasticsearchConfig) -> Result<Self, OpenError> {
        if config.urls.is_empty() {
            return Err(OpenError::NoUrl);
        }
        let roots = config
            .ca_file
            .as_deref()
            .map(|file| read("CA file", file))
            .transpose()?;
        let identity = match &config.client_cert {
            None => None,
            Some(files) => {
                let mut pem = read("client key", &files.key)?;
                pem.push(b'\n');
                pem.extend(read("client certificate", &files.cert)?);
                Some(pem)
            }
        };
        let nodes = config
            .urls
            .iter()
            .map(|url| Node::open(url, config, roots.as_ref(), identity.as_ref()));
        Ok(Self {
            nodes: nodes.collect::<Result<_, _>>()?,
            next: AtomicUsize::new(0),
            timeout: config.request_timeout,
            revived: Notify::new(),
        })
    }

    /// Sends a request to a live node; tries the next one while nothing could be sent.
    pub(crate) async fn send(&self, request: &Request) -> Result<Response, SendError> {
        let mut last = RequestError::Unreachable("no node".into());
        for _ in 0..self.nodes.len() {
            let node = self.choose();
            match node.send(request, self.timeout).await {
                Err(SendError::Request(error)) => {
                    node.failed();
                    if !matches!(error, RequestError::Unreachable(_)) {
                        return Err(SendError::Request(error));
                    }
                    last = error;
                }
                other => {
                    // 502 to 504: a node that starts or stops, or a proxy in front of one.
                    match &other {
                        Ok(Response {
                            status: 502..=504, ..
                        }) => node.failed(),
                        _ => node.answered(),
                    }
                    return other;
                }
            }
            if self.alive() == 0 {
                break;
            }
        }
        Err(SendError::Request(last))
    }

    /// Number of nodes that are not known to be dead.
    pub(crate) fn alive(&self) -> usize {
        self.nodes.iter().filter(|node| node.probe_at().is_none()).count()
    }

    /// Round robin over the live nodes; without any, the one that is to be probed first.
    fn choose(&self) -> &Node {
        let start = self.next.fetch_add(1, Relaxed) % self.nodes.len();
        let ring = || self.nodes[start..].iter().chain(&self.nodes[..start]);
        let live = ring().find(|node| node.probe_at().is_none());
        live.or_else(|| ring().min_by_key(|node| node.probe_at()))
            .unwrap_or(&self.nodes[start])
    }

    /// Probes dead nodes; never returns.
    pub(crate) async fn probe(&self) {
        loop {
            tokio::time::sleep(PROBE_INTERVAL).await;
            for node in &self.nodes {
                if node.probe_at().is_some_and(|at| at <= Instant::now()) {
                    let request = Request::json(Method::GET, "/", Bytes::new());
                    match node.send(&request, PROBE_TIMEOUT).await {
                        Ok(Response { status, .. }) if status < 500 && status != 429 => {
                            node.answered();
                            self.revived.notify_one();
                        }
                        _ => node.failed(),
                    }
                }
            }
        }
    }
}

impl fmt::Debug for Nodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.nodes.iter().map(|node| &node.url))
            .finish()
    }
}

fn read(what: &'static str, file: &Path) -> Result<Vec<u8>, OpenError> {
    std::fs::read(file).map_err(|e| OpenError::File {
        what,
        file: file.into(),
        reason: e.to_string(),
    })
}
