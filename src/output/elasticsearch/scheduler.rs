//! Scheduler of the output: receives batches, keeps several bulk requests in flight, obeys
//! congestion control.
//!
//! Owns every document between the channel and its confirmation. Memory is bounded: it stops
//! receiving at (`max_in_flight` + 2) x `bulk_bytes` of unconfirmed documents; request bodies take
//! at most as much again.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::bulk;
use super::congestion::CongestionControl;
use super::delivery::{BulkContent, Completion, DeliveryContext, deliver};
use super::drain;
use super::health::{NoteSource, WaitReason};
use super::install::install_with_retries;
use super::outcome::{RequestError, RetryReason};
use super::queue::{BulkQueue, Failures};
use super::settle;
use crate::config::ElasticsearchConfig;
use crate::memory::to_usize;
use crate::output::Batch;

/// Consecutive failed requests before `/ready` reports them; a single 429 is normal.
const FAILURES_TO_REPORT: u32 = 2;

/// How often documents are looked for that have waited for long.
const WAITING_INTERVAL: Duration = Duration::from_secs(2);

/// A request in flight.
struct InFlightRequest {
    content: BulkContent,
    epoch: u64,
    /// How it failed before.
    failures: Failures,
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
        let output = context.output;
        Self {
            context: Arc::new(context),
            congestion: CongestionControl::new(&config),
            queue: BulkQueue::new(to_usize(config.bulk_bytes), config.bulk_delay).of(output),
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
        let base = self.config.backoff_base;
        let config = self.config.clone();
        let may_send = Notify::new();
        let mut probe = std::pin::pin!(context.upserter.client.nodes.probe());
        let mut install = std::pin::pin!(install_with_retries(
            &context.upserter.client,
            &config,
            &context.health,
            &may_send
        ));
        let mut install_ended = false;
        let mut drain = std::pin::pin!(drain::run(context.clone(), base, self.config.blocked_retry));
        let mut settle = std::pin::pin!(settle::run(context.clone(), self.config.blocked_retry));
        let mut look = tokio::time::interval(WAITING_INTERVAL.min(self.config.blocked_retry));
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
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
                received = documents.recv(), if !self.closed && self.held_bytes() < max_outstanding_bytes => match received {
                    Some(sealed) => self.outstanding_bytes += self.queue.push(sealed),
                    None => self.closed = true,
                },
                () = sleep_until(wake), if wake.is_some() => {}
                () = &mut install, if !install_ended => install_ended = true,
                () = may_send.notified(), if !installed => installed = true,
                () = context.upserter.client.nodes.revived.notified(), if installed => self.congestion.revived(),
                _ = look.tick() => self.note_waiting(),
                () = &mut drain, if installed => {}
                () = &mut settle, if installed => {}
                () = &mut probe => {}
            }
        }
    }

    /// Bytes of unconfirmed documents, and of the ids of those that are not settled.
    fn held_bytes(&self) -> usize {
        self.outstanding_bytes + self.context.settling.bytes()
    }

    /// Sends what may be sent; returns when to call it again.
    fn dispatch(&mut self) -> Option<Instant> {
        let now = Instant::now();
        while self.in_flight.len() < self.congestion.limit() {
            if let Some(until) = self.congestion.paused_until().filter(|until| *until > now) {
                return Some(until);
            }
            let Some((content, failures)) = self.queue.next(now, self.closed) else {
                break;
            };
            self.send(content, failures);
        }
        if self.in_flight.len() >= self.congestion.limit() {
            return None;
        }
        self.queue.due()
    }

    fn send(&mut self, content: BulkContent, failures: Failures) {
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
        let suspect = failures.suspect && self.queue.suspects_content();
        let task = self
            .tasks
            .spawn(deliver(self.context.clone(), content.clone(), suspect));
        self.in_flight.insert(
            task.id(),
            InFlightRequest {
                content,
                epoch: self.congestion.epoch(),
                failures,
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
            failures,
        }) = self.in_flight.remove(&id)
        else {
            return;
        };
        if completion.isolated {
            self.queue.failed();
        } else if !completion.request_failed {
            self.queue.passed();
        }
        match &completion.error {
            // Its content is at fault: others pass.
            Some(error)
                if completion.request_failed
                    && failures.suspect
                    && error.may_be_content()
                    && self.queue.suspects_content() => {}
            None if completion.isolated => {}
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
                let is_cluster = !failures.suspect || !self.queue.suspects_content();
                if is_cluster
                    && (dead || error.needs_operator() || self.congestion.failures() >= FAILURES_TO_REPORT)
                {
                    self.context.health.set(WaitReason::Cluster, error.reason());
                }
            }
            None => self.context.health.clear(WaitReason::Cluster),
        }

        if completion.request_failed {
            if let Some(error) = completion.error {
                self.queue
                    .retry_request(content.documents(), &error, failures, now);
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

    /// Reports documents that have not got on for long.
    fn note_waiting(&self) {
        let client = &self.context.upserter.client;
        let mut waiting: BTreeMap<String, (u64, String)> = BTreeMap::new();
        for document in self.queue.waiting_for(self.config.blocked_retry * 2) {
            let index = client.index_of(document);
            match waiting.get_mut(&*index.index) {
                Some((count, _)) => *count += 1,
                None => {
                    let reason = client.watch.reason(&index.index);
                    let reason = reason.unwrap_or_else(|| "no request with them succeeds".into());
                    waiting.insert(index.index.to_string(), (1, reason));
                }
            }
        }
        self.context.health.set_notes(NoteSource::Queue, &waiting);
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
