//! The schedule of the output: takes sealed documents, keeps several batches under way, waits as long as the flow
//! says. Owns every document between the channel and its confirmation.
//!
//! Memory is bounded: nothing more is received while the documents taken and not confirmed have reached
//! (`max_in_flight` + 2) x `bulk_bytes`; the bodies under way are at most as much again.

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

/// Failures of whole requests before `/ready` says so; a single 429 is nothing to report.
const FAILURES_TO_REPORT: u32 = 2;

/// A request under way.
struct InFlightRequest {
    load: BulkContent,
    epoch: u64,
    broken: u32,
}

pub(crate) struct BulkScheduler {
    parts: Arc<DeliveryContext>,
    config: ElasticsearchConfig,
    flow: CongestionControl,
    queue: BulkQueue,
    in_flight: HashMap<Id, InFlightRequest>,
    tasks: JoinSet<Completion>,
    outstanding: usize,
    /// Items in the queue or under way that wait for an operator.
    blocked: usize,
    closed: bool,
}

impl BulkScheduler {
    pub(crate) fn new(parts: DeliveryContext, config: ElasticsearchConfig) -> Self {
        Self {
            parts: Arc::new(parts),
            flow: CongestionControl::new(&config),
            queue: BulkQueue::new(to_usize(config.bulk_bytes), config.bulk_delay),
            config,
            in_flight: HashMap::new(),
            tasks: JoinSet::new(),
            outstanding: 0,
            blocked: 0,
            closed: false,
        }
    }

    /// Runs until the channel is closed and everything is confirmed, or until `stop`: then what is not confirmed
    /// stays unconfirmed, and requests under way are abandoned.
    pub(crate) async fn run(mut self, mut documents: mpsc::Receiver<Batch>, stop: CancellationToken) {
        let parts = self.parts.clone();
        let (base, cap) = (self.config.backoff_base, self.config.retry_max_wait);
        let wanted = self.config.template.clone();
        let mut probe = std::pin::pin!(parts.upserter.client.nodes.probe());
        let mut install = std::pin::pin!(async {
            if let Some(wanted) = &wanted {
                template::install_at_last(&parts.upserter.client, wanted, &parts.health, base, cap).await;
            }
        });
        let mut installed = false;
        let max_outstanding_bytes = to_usize(self.config.bulk_bytes)
            .saturating_mul(to_usize(self.config.max_in_flight).max(1).saturating_add(2));
        loop {
            let wake = if installed { self.dispatch() } else { None };
            self.publish();
            if self.closed && self.outstanding == 0 && self.tasks.is_empty() {
                return;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                Some(done) = self.tasks.join_next_with_id() => self.landed(done),
                received = documents.recv(), if !self.closed && self.outstanding < max_outstanding_bytes => match received {
                    Some(sealed) => self.outstanding += self.queue.take(sealed),
                    None => self.closed = true,
                },
                () = sleep_until(wake), if wake.is_some() => {}
                () = &mut install, if !installed => installed = true,
                () = parts.upserter.client.nodes.revived.notified(), if installed => self.flow.revived(),
                () = &mut probe => {}
            }
        }
    }

    /// Sends what may be sent; says when to look again.
    fn dispatch(&mut self) -> Option<Instant> {
        let now = Instant::now();
        while self.in_flight.len() < self.flow.limit() {
            if let Some(until) = self.flow.paused_until().filter(|until| *until > now) {
                return Some(until);
            }
            let Some((load, broken)) = self.queue.next(now, self.closed) else {
                break;
            };
            self.send(load, broken);
        }
        if self.in_flight.len() >= self.flow.limit() {
            return None;
        }
        self.queue.due()
    }

    fn send(&mut self, load: BulkContent, broken: u32) {
        if let BulkContent::Documents(items) = &load {
            let again = || items.iter().filter(|item| item.sent);
            if again().next().is_some() {
                let lines = again().map(|item| u64::from(item.sealed.lines())).sum();
                self.parts
                    .upserter
                    .client
                    .stats
                    .retried(again().count() as u64, lines);
            }
        }
        let task = self.tasks.spawn(deliver(self.parts.clone(), load.clone()));
        self.in_flight.insert(
            task.id(),
            InFlightRequest {
                load,
                epoch: self.flow.epoch(),
                broken,
            },
        );
    }

    fn landed(&mut self, done: Result<(Id, Completion), JoinError>) {
        let now = Instant::now();
        let (id, landed) = match done {
            Ok((id, landed)) => (id, landed),
            Err(error) => {
                // A defect of ours. The documents are not lost: they go round again, slowly.
                tracing::error!(%error, "a task of the Elasticsearch output failed");
                self.parts.health.set(
                    WaitReason::Cluster,
                    format!("a task of the output failed: {error}"),
                );
                let all = self
                    .in_flight
                    .get(&error.id())
                    .map_or(0, |flight| flight.load.len());
                let nothing = Completion {
                    problem: None,
                    whole: false,
                    again: Vec::new(),
                    blocked: (0..all).collect(),
                };
                (error.id(), nothing)
            }
        };
        let Some(InFlightRequest { load, epoch, broken }) = self.in_flight.remove(&id) else {
            return;
        };
        match &landed.problem {
            None if landed.again.iter().any(|(_, why)| *why == RetryReason::Throttled) => {
                self.flow.crowded(epoch)
            }
            None => self.flow.succeeded(),
            Some(problem) => {
                if !landed.whole {
                    self.flow.answered();
                }
                self.flow.failed(problem, epoch, now);
            }
        }
        match &landed.problem {
            Some(problem) => {
                let dead = matches!(problem, RequestError::Unreachable(_));
                if dead || problem.needs_operator() || self.flow.failures() >= FAILURES_TO_REPORT {
                    self.parts.health.set(WaitReason::Cluster, problem.reason());
                }
            }
            None => self.parts.health.clear(WaitReason::Cluster),
        }

        if landed.whole {
            if let Some(problem) = landed.problem {
                self.queue.again_whole(load.documents(), &problem, broken, now);
            }
            return;
        }
        self.outstanding -= load.cost();
        if let BulkContent::Rendered(_) = &load
            && landed.again.is_empty()
            && landed.blocked.is_empty()
        {
            return;
        }
        let items = load.documents();
        let again = landed.again.iter().map(|(at, _)| at);
        let stays = again.chain(&landed.blocked).map(|&at| bulk::cost(&items[at]));
        self.outstanding += stays.sum::<usize>();
        self.blocked -= items.iter().filter(|item| item.blocked).count();
        self.blocked += landed.blocked.len();
        if self.blocked == 0 {
            self.parts.health.clear(WaitReason::Blocked);
        }
        self.queue.again(&items, &landed.again, &self.flow, now);
        self.queue.blocked(&items, &landed.blocked, &self.flow, now);
    }

    fn publish(&self) {
        let (under_way, limit) = (self.in_flight.len(), self.flow.limit());
        self.parts
            .upserter
            .client
            .stats
            .under_way(under_way, limit, self.outstanding);
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
