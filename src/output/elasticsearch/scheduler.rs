//! Scheduler of the output: receives batches, keeps several bulk requests in flight, obeys
//! congestion control.
//!
//! Owns every document between the channel and its confirmation. Memory is bounded: it stops
//! receiving at (`max_in_flight` + 2) x `bulk_bytes` of unconfirmed documents; request bodies take
//! at most as much again.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::bulk;
use super::congestion::CongestionControl;
use super::delivery::{BulkContent, Completion, DeliveryContext, deliver};
use super::health::WaitReason;
use super::outcome::{RequestError, RetryReason};
use super::queue::BulkQueue;
use super::template;
use crate::config::ElasticsearchConfig;
use crate::memory::to_usize;
use crate::output::Batch;

/// Consecutive failed requests before `/ready` reports them; a single 429 is normal.
const FAILURES_TO_REPORT: u32 = 2;

/// A request in flight.
struct InFlightRequest {
    content: BulkContent,
    epoch: u64,
    /// Connections that it broke before.
    disconnects: u32,
}

/// The event loop of the output.
pub(crate) struct BulkScheduler {
    context: Arc<DeliveryContext>,
    config: ElasticsearchConfig,
    congestion: CongestionControl,
    queue: BulkQueue,
    in_flight: HashMap<Id, InFlightRequest>,
    tasks: JoinSet<Completion>,
    outstanding_bytes: usize,
    /// Documents queued or in flight that wait for an operator.
    blocked: usize,
    closed: bool,
}

impl BulkScheduler {
    pub(crate) fn new(context: DeliveryContext, config: ElasticsearchConfig) -> Self {
        Self {
            context: Arc::new(context),
            congestion: CongestionControl::new(&config),
            queue: BulkQueue::new(to_usize(config.bulk_bytes), config.bulk_delay),
            config,
            in_flight: HashMap::new(),
            tasks: JoinSet::new(),
            outstanding_bytes: 0,
            blocked: 0,
            closed: false,
        }
    }

    /// Runs until the channel is closed and everything is confirmed, or until `stop`: then requests
    /// in flight are abandoned and their documents stay unconfirmed.
    pub(crate) async fn run(mut self, mut documents: mpsc::Receiver<Batch>, stop: CancellationToken) {
        let context = self.context.clone();
        let (base, cap) = (self.config.backoff_base, self.config.retry_max_wait);
        let wanted = self.config.template.clone();
        let mut probe = std::pin::pin!(context.upserter.client.nodes.probe());
        let mut install = std::pin::pin!(async {
            if let Some(wanted) = &wanted {
                template::install_with_retries(&context.upserter.client, wanted, &context.health, base, cap)
                    .await;
            }
        });
        let mut installed = false;
        let max_outstanding_bytes = to_usize(self.config.bulk_bytes)
            .saturating_mul(to_usize(self.config.max_in_flight).max(1).saturating_add(2));
        loop {
            let wake = if installed { self.dispatch() } else { None };
            self.publish();
            if self.closed && self.outstanding_bytes == 0 && self.tasks.is_empty() {
                return;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                Some(done) = self.tasks.join_next_with_id() => self.completed(done),
                received = documents.recv(), if !self.closed && self.outstanding_bytes < max_outstanding_bytes => match received {
                    Some(sealed) => self.outstanding_bytes += self.queue.push(sealed),
                    None => self.closed = true,
                },
                () = sleep_until(wake), if wake.is_some() => {}
                () = &mut install, if !installed => installed = true,
                () = context.upserter.client.nodes.revived.notified(), if installed => self.congestion.revived(),
                () = &mut probe => {}
            }
        }
    }

    /// Sends what may be sent; returns when to call it again.
    fn dispatch(&mut self) -> Option<Instant> {
        let now = Instant::now();
        while self.in_flight.len() < self.congestion.limit() {
            if let Some(until) = self.congestion.paused_until().filter(|until| *until > now) {
                return Some(until);
            }
            let Some((content, disconnects)) = self.queue.next(now, self.closed) else {
                break;
            };
            self.send(content, disconnects);
        }
        if self.in_flight.len() >= self.congestion.limit() {
            return None;
        }
        self.queue.due()
    }

    fn send(&mut self, content: BulkContent, disconnects: u32) {
        if let BulkContent::Documents(documents) = &content {
            let resent = || documents.iter().filter(|document| document.sent);
            if resent().next().is_some() {
                let lines = resent().map(|document| u64::from(document.sealed.lines())).sum();
                self.context
                    .upserter
                    .client
                    .stats
                    .retried(resent().count() as u64, lines);
            }
        }
        let task = self.tasks.spawn(deliver(self.context.clone(), content.clone()));
        self.in_flight.insert(
            task.id(),
            InFlightRequest {
                content,
                epoch: self.congestion.epoch(),
                disconnects,
            },
        );
    }

    fn completed(&mut self, done: Result<(Id, Completion), JoinError>) {
        let now = Instant::now();
        let (id, completion) = match done {
            Ok((id, completion)) => (id, completion),
            Err(error) => {
                // A defect: a delivery task panicked. Its documents are retried slowly.
                tracing::error!(%error, "a delivery task panicked");
                self.context
                    .health
                    .set(WaitReason::Cluster, format!("a delivery task panicked: {error}"));
                let all = self
                    .in_flight
                    .get(&error.id())
                    .map_or(0, |flight| flight.content.len());
                let nothing = Completion {
                    blocked: (0..all).collect(),
                    ..Completion::default()
                };
                (error.id(), nothing)
            }
        };
        let Some(InFlightRequest {
            content,
            epoch,
            disconnects,
        }) = self.in_flight.remove(&id)
        else {
            return;
        };
        match &completion.error {
            None if completion
                .retries
                .iter()
                .any(|(_, why)| *why == RetryReason::Throttled) =>
            {
                self.congestion.throttled(epoch);
            }
            None => self.congestion.succeeded(),
            Some(error) => {
                if !completion.request_failed {
                    self.congestion.answered();
                }
                self.congestion.failed(error, epoch, now);
            }
        }
        match &completion.error {
            Some(error) => {
                let dead = matches!(error, RequestError::Unreachable(_));
                if dead || error.needs_operator() || self.congestion.failures() >= FAILURES_TO_REPORT {
                    self.context.health.set(WaitReason::Cluster, error.reason());
                }
            }
            None => self.context.health.clear(WaitReason::Cluster),
        }

        if completion.request_failed {
            if let Some(error) = completion.error {
                self.queue
                    .retry_request(content.documents(), &error, disconnects, now);
            }
            return;
        }
        self.outstanding_bytes -= content.cost();
        if let BulkContent::Rendered(_) = &content
            && completion.retries.is_empty()
            && completion.blocked.is_empty()
        {
            return;
        }
        let documents = content.documents();
        let retried = completion.retries.iter().map(|(at, _)| at);
        let remaining = retried
            .chain(&completion.blocked)
            .map(|&at| bulk::cost(&documents[at]));
        self.outstanding_bytes += remaining.sum::<usize>();
        self.blocked -= documents.iter().filter(|document| document.blocked).count();
        self.blocked += completion.blocked.len();
        if self.blocked == 0 {
            self.context.health.clear(WaitReason::Blocked);
        }
        self.queue
            .retry(&documents, &completion.retries, &self.congestion, now);
        self.queue
            .blocked(&documents, &completion.blocked, &self.congestion, now);
    }

    fn publish(&self) {
        let (in_flight, limit) = (self.in_flight.len(), self.congestion.limit());
        self.context
            .upserter
            .client
            .stats
            .set_in_flight(in_flight, limit, self.outstanding_bytes);
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
