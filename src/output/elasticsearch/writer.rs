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

use super::batch::{Landed, Load, Parts, carry_out};
use super::bulk;
use super::cluster::Again;
use super::config::ElasticsearchConfig;
use super::flow::Flow;
use super::outcome::Problem;
use super::queue::Queue;
use super::stats::Cause;
use super::template;
use crate::output::Batch;

/// Failures of whole requests before `/ready` says so; a single 429 is nothing to report.
const FAILURES_TO_REPORT: u32 = 2;

/// A request under way.
struct Flight {
    load: Load,
    epoch: u64,
    broken: u32,
}

pub(crate) struct Writer {
    parts: Arc<Parts>,
    config: ElasticsearchConfig,
    flow: Flow,
    queue: Queue,
    flights: HashMap<Id, Flight>,
    tasks: JoinSet<Landed>,
    outstanding: usize,
    /// Items in the queue or under way that wait for an operator.
    blocked: usize,
    closed: bool,
}

impl Writer {
    pub(crate) fn new(parts: Parts, config: ElasticsearchConfig) -> Self {
        Self {
            parts: Arc::new(parts),
            flow: Flow::new(&config),
            queue: Queue::new(config.bulk_bytes, config.bulk_delay),
            config,
            flights: HashMap::new(),
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
        let (base, cap) = (self.config.backoff_base, self.config.backoff_cap);
        let wanted = self.config.template.clone();
        let mut probe = std::pin::pin!(parts.cluster.nodes.probe());
        let mut install = std::pin::pin!(async {
            if let Some(wanted) = &wanted {
                template::install_at_last(&parts.cluster, wanted, &parts.health, base, cap).await;
            }
        });
        let mut installed = false;
        let room = self
            .config
            .bulk_bytes
            .saturating_mul(self.config.max_in_flight.max(1) + 2);
        loop {
            let wake = if installed { self.dispatch() } else { None };
            self.publish();
            if self.closed && self.outstanding == 0 && self.tasks.is_empty() {
                return;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                Some(done) = self.tasks.join_next_with_id() => self.landed(done),
                received = documents.recv(), if !self.closed && self.outstanding < room => match received {
                    Some(sealed) => self.outstanding += self.queue.take(sealed),
                    None => self.closed = true,
                },
                () = sleep_until(wake), if wake.is_some() => {}
                () = &mut install, if !installed => installed = true,
                () = parts.cluster.nodes.revived.notified(), if installed => self.flow.revived(),
                () = &mut probe => {}
            }
        }
    }

    /// Sends what may be sent; says when to look again.
    fn dispatch(&mut self) -> Option<Instant> {
        let now = Instant::now();
        while self.flights.len() < self.flow.limit() {
            if let Some(until) = self.flow.paused_until().filter(|until| *until > now) {
                return Some(until);
            }
            let Some((load, broken)) = self.queue.next(now, self.closed) else {
                break;
            };
            self.send(load, broken);
        }
        if self.flights.len() >= self.flow.limit() {
            return None;
        }
        self.queue.due()
    }

    fn send(&mut self, load: Load, broken: u32) {
        if let Load::Items(items) = &load {
            let again = || items.iter().filter(|item| item.sent);
            if again().next().is_some() {
                let lines = again().map(|item| u64::from(item.sealed.lines())).sum();
                self.parts.cluster.stats.retried(again().count() as u64, lines);
            }
        }
        let task = self.tasks.spawn(carry_out(self.parts.clone(), load.clone()));
        self.flights.insert(
            task.id(),
            Flight {
                load,
                epoch: self.flow.epoch(),
                broken,
            },
        );
    }

    fn landed(&mut self, done: Result<(Id, Landed), JoinError>) {
        let now = Instant::now();
        let (id, landed) = match done {
            Ok((id, landed)) => (id, landed),
            Err(error) => {
                // A defect of ours. The documents are not lost: they go round again, slowly.
                tracing::error!(%error, "a task of the Elasticsearch output failed");
                self.parts
                    .health
                    .set(Cause::Cluster, format!("a task of the output failed: {error}"));
                let all = self
                    .flights
                    .get(&error.id())
                    .map_or(0, |flight| flight.load.len());
                let nothing = Landed {
                    problem: None,
                    whole: false,
                    again: Vec::new(),
                    blocked: (0..all).collect(),
                };
                (error.id(), nothing)
            }
        };
        let Some(Flight { load, epoch, broken }) = self.flights.remove(&id) else {
            return;
        };
        match &landed.problem {
            None if landed.again.iter().any(|(_, why)| *why == Again::TurnedAway) => self.flow.crowded(epoch),
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
                let dead = matches!(problem, Problem::Unreachable(_));
                if dead || problem.needs_operator() || self.flow.failures() >= FAILURES_TO_REPORT {
                    self.parts.health.set(Cause::Cluster, problem.reason());
                }
            }
            None => self.parts.health.clear(Cause::Cluster),
        }

        if landed.whole {
            if let Some(problem) = landed.problem {
                self.queue.again_whole(load.items(), &problem, broken, now);
            }
            return;
        }
        self.outstanding -= load.cost();
        if let Load::Whole(_) = &load
            && landed.again.is_empty()
            && landed.blocked.is_empty()
        {
            return;
        }
        let items = load.items();
        let again = landed.again.iter().map(|(at, _)| at);
        let stays = again.chain(&landed.blocked).map(|&at| bulk::cost(&items[at]));
        self.outstanding += stays.sum::<usize>();
        self.blocked -= items.iter().filter(|item| item.blocked).count();
        self.blocked += landed.blocked.len();
        if self.blocked == 0 {
            self.parts.health.clear(Cause::Blocked);
        }
        self.queue.again(&items, &landed.again, &self.flow, now);
        self.queue.blocked(&items, &landed.blocked, &self.flow, now);
    }

    fn publish(&self) {
        let (under_way, limit) = (self.flights.len(), self.flow.limit());
        self.parts
            .cluster
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
