//! The schedule of the output: gathers sealed documents into batches, keeps several under way, tries again what must
//! be tried again, confirms what is written. Owns every document between the channel and its confirmation.
//!
//! Memory is bounded: nothing more is received while the documents taken and not confirmed have reached
//! (`max_in_flight` + 2) x `bulk_bytes`; the bodies under way are at most as much again.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::bulk::{self, Document};
use super::cluster::{Cluster, Done, Outcome, Rejection, Written};
use super::config::ElasticsearchConfig;
use super::flow::Flow;
use super::outcome::Problem;
use super::stats::{Cause, Health};
use super::template;
use crate::output::dead_letter::{Content, DeadLetter, Entry};
use crate::output::{OutputId, Sealed};

/// A batch whose connection broke this many times without an answer is halved: some proxies and servers close the
/// connection instead of answering 413. Not below this many bytes.
const BROKEN_BEFORE_HALVING: u32 = 3;
const SMALLEST_HALF: usize = 64 << 10;

/// After a 413 batches are not made longer than half of what was refused, down to this.
const SMALLEST_BULK: usize = 64 << 10;

/// Failures of whole requests before `/ready` says so; a single 429 is nothing to report.
const FAILURES_TO_REPORT: u32 = 2;

/// A document and how often it was tried.
#[derive(Clone)]
struct Item {
    sealed: Arc<Sealed>,
    attempts: u32,
    blocked: bool,
}

impl Document for Item {
    fn id(&self) -> &str {
        &self.sealed.id
    }
    fn is_trace(&self) -> bool {
        self.sealed.is_trace
    }
    fn first_ns(&self) -> i64 {
        self.sealed.first_ns
    }
    fn json(&self) -> &Bytes {
        &self.sealed.json
    }
    fn repeated(&self, lines: Option<u32>) {
        self.sealed.note_repeated(lines.unwrap_or(self.sealed.lines));
    }
    fn joined(&self, new_lines: u32) {
        self.sealed.note_joined(new_lines);
    }
}

/// Documents that wait to be sent again.
struct Waiting {
    items: Vec<Item>,
    due: Instant,
    /// `Some`: this batch is sent as it is; so often its connection broke.
    exact: Option<u32>,
}

/// What is shared with the tasks that carry out the requests.
pub(crate) struct Parts {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) dead_letter: Arc<DeadLetter>,
    pub(crate) health: Arc<Health>,
    pub(crate) output: OutputId,
}

/// A request under way.
struct Flight {
    items: Arc<Vec<Item>>,
    epoch: u64,
    broken: u32,
}

/// What a request's task found: the problem of the request, and what must be sent again.
struct Landed {
    problem: Option<Problem>,
    /// The first request failed as a whole: nothing is known of any item.
    whole: bool,
    again: Vec<usize>,
    blocked: Vec<usize>,
}

pub(crate) struct Writer {
    parts: Arc<Parts>,
    config: ElasticsearchConfig,
    flow: Flow,
    fresh: VecDeque<Item>,
    fresh_bytes: usize,
    /// When the oldest of `fresh` came.
    fresh_since: Option<Instant>,
    waiting: Vec<Waiting>,
    flights: HashMap<Id, Flight>,
    tasks: JoinSet<Landed>,
    outstanding: usize,
    /// Items in `waiting` or under way that wait for an operator.
    blocked: usize,
    /// At most `config.bulk_bytes`; less after a 413.
    bulk_bytes: usize,
    closed: bool,
}

impl Writer {
    pub(crate) fn new(parts: Parts, config: ElasticsearchConfig) -> Self {
        Self {
            parts: Arc::new(parts),
            flow: Flow::new(&config),
            bulk_bytes: config.bulk_bytes.max(1),
            config,
            fresh: VecDeque::new(),
            fresh_bytes: 0,
            fresh_since: None,
            waiting: Vec::new(),
            flights: HashMap::new(),
            tasks: JoinSet::new(),
            outstanding: 0,
            blocked: 0,
            closed: false,
        }
    }

    /// Runs until the channel is closed and everything is confirmed, or until `stop`: then what is not confirmed
    /// stays unconfirmed, and requests under way are abandoned.
    pub(crate) async fn run(
        mut self,
        mut documents: mpsc::Receiver<Vec<Arc<Sealed>>>,
        stop: CancellationToken,
    ) {
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
                    Some(sealed) => self.take(sealed),
                    None => self.closed = true,
                },
                () = sleep_until(wake), if wake.is_some() => {}
                () = &mut install, if !installed => installed = true,
                () = parts.cluster.nodes.revived.notified(), if installed => self.flow.revived(),
                () = &mut probe => {}
            }
        }
    }

    fn take(&mut self, sealed: Vec<Arc<Sealed>>) {
        for sealed in sealed {
            let item = Item {
                sealed,
                attempts: 0,
                blocked: false,
            };
            let bytes = bulk::cost(&item);
            self.fresh_bytes += bytes;
            self.outstanding += bytes;
            self.fresh.push_back(item);
        }
        if self.fresh_since.is_none() && !self.fresh.is_empty() {
            self.fresh_since = Some(Instant::now());
        }
    }

    /// Sends what may be sent; says when to look again.
    fn dispatch(&mut self) -> Option<Instant> {
        let now = Instant::now();
        while self.flights.len() < self.flow.limit() {
            if let Some(until) = self.flow.paused_until().filter(|until| *until > now) {
                return Some(until);
            }
            let Some((items, broken)) = self.next_batch(now) else {
                break;
            };
            self.send(items, broken);
        }
        if self.flights.len() >= self.flow.limit() {
            return None;
        }
        let fresh = self.fresh_since.map(|since| since + self.config.bulk_delay);
        self.waiting.iter().map(|waiting| waiting.due).chain(fresh).min()
    }

    /// The next batch that is due, older troubles first.
    fn next_batch(&mut self, now: Instant) -> Option<(Vec<Item>, u32)> {
        if let Some(at) = self
            .waiting
            .iter()
            .position(|waiting| waiting.exact.is_some() && waiting.due <= now)
        {
            let waiting = self.waiting.remove(at);
            return Some((waiting.items, waiting.exact.unwrap_or(0)));
        }
        let mut items = Vec::new();
        let mut bytes = 0;
        let mut at = 0;
        while at < self.waiting.len() && bytes < self.bulk_bytes {
            if self.waiting[at].due > now {
                at += 1;
                continue;
            }
            let all = &mut self.waiting[at].items;
            let fits = prefix(all.iter(), self.bulk_bytes - bytes, items.is_empty());
            if fits == 0 {
                break;
            }
            bytes += all[..fits].iter().map(bulk::cost).sum::<usize>();
            items.extend(all.drain(..fits));
            if all.is_empty() {
                self.waiting.remove(at);
            } else {
                break;
            }
        }
        let old_enough = self
            .fresh_since
            .is_some_and(|since| since + self.config.bulk_delay <= now);
        if !self.fresh.is_empty() && (self.fresh_bytes >= self.bulk_bytes || old_enough || self.closed) {
            let fits = prefix(
                self.fresh.iter(),
                self.bulk_bytes.saturating_sub(bytes),
                items.is_empty(),
            );
            items.reserve(fits);
            for item in self.fresh.drain(..fits) {
                self.fresh_bytes -= bulk::cost(&item);
                items.push(item);
            }
            self.fresh_since = (!self.fresh.is_empty()).then_some(if fits > 0 {
                now
            } else {
                self.fresh_since.unwrap_or(now)
            });
        }
        (!items.is_empty()).then_some((items, 0))
    }

    fn send(&mut self, items: Vec<Item>, broken: u32) {
        let again = || items.iter().filter(|item| item.attempts > 0);
        if again().next().is_some() {
            let lines = again().map(|item| u64::from(item.sealed.lines)).sum();
            self.parts.cluster.stats.retried(again().count() as u64, lines);
        }
        let items = Arc::new(items);
        let task = self.tasks.spawn(carry_out(self.parts.clone(), items.clone()));
        self.flights.insert(
            task.id(),
            Flight {
                items,
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
                    .map_or(0, |flight| flight.items.len());
                let nothing = Landed {
                    problem: None,
                    whole: false,
                    again: Vec::new(),
                    blocked: (0..all).collect(),
                };
                (error.id(), nothing)
            }
        };
        let Some(Flight { items, epoch, broken }) = self.flights.remove(&id) else {
            return;
        };
        let stays = |at: &[usize]| at.iter().map(|&at| bulk::cost(&items[at])).sum::<usize>();

        match &landed.problem {
            None if landed.again.is_empty() => self.flow.succeeded(),
            None => self.flow.crowded(epoch),
            Some(problem) => self.flow.failed(problem, epoch, now),
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
                self.again_whole(items, &problem, broken, now);
            }
            return;
        }
        let total: usize = items.iter().map(bulk::cost).sum();
        self.outstanding -= total - stays(&landed.again) - stays(&landed.blocked);
        self.blocked -= items.iter().filter(|item| item.blocked).count();
        self.blocked += landed.blocked.len();
        if self.blocked == 0 {
            self.parts.health.clear(Cause::Blocked);
        }
        self.queue(&items, &landed.again, false, now);
        self.queue(&items, &landed.blocked, true, now);
    }

    fn queue(&mut self, from: &[Item], at: &[usize], blocked: bool, now: Instant) {
        let items: Vec<Item> = at
            .iter()
            .map(|&at| Item {
                attempts: from[at].attempts.saturating_add(1),
                blocked,
                ..from[at].clone()
            })
            .collect();
        if let Some(most) = items.iter().map(|item| item.attempts).max() {
            let due = if blocked {
                self.flow.due_slowly(now)
            } else {
                self.flow.due(most, now)
            };
            self.waiting.push(Waiting {
                items,
                due,
                exact: None,
            });
        }
    }

    /// A batch of which nothing is known goes again as it is, or in halves when its length may be what is wrong.
    fn again_whole(&mut self, items: Arc<Vec<Item>>, problem: &Problem, broken: u32, now: Instant) {
        let mut items = Arc::unwrap_or_clone(items);
        for item in &mut items {
            item.attempts = item.attempts.saturating_add(1);
        }
        let bytes: usize = items.iter().map(bulk::cost).sum();
        let broken = if matches!(problem, Problem::Broken(_)) {
            broken + 1
        } else {
            0
        };
        let halve = match problem {
            Problem::TooLarge(_) => {
                self.bulk_bytes = self.bulk_bytes.min((bytes / 2).max(SMALLEST_BULK));
                true
            }
            // Something in the batch may be what the server does not understand; halving finds it.
            Problem::Malformed(_) => true,
            Problem::Broken(_) => broken >= BROKEN_BEFORE_HALVING && bytes / 2 >= SMALLEST_HALF,
            _ => false,
        };
        if halve && items.len() > 1 {
            let second = items.split_off(items.len() / 2);
            tracing::debug!(
                documents = items.len() + second.len(),
                bytes,
                kind = problem.label(),
                "batch halved"
            );
            self.waiting.push(Waiting {
                items,
                due: now,
                exact: Some(0),
            });
            self.waiting.push(Waiting {
                items: second,
                due: now,
                exact: Some(0),
            });
        } else {
            self.waiting.push(Waiting {
                items,
                due: now,
                exact: Some(broken),
            });
        }
    }

    fn publish(&self) {
        let (under_way, limit) = (self.flights.len(), self.flow.limit());
        self.parts
            .cluster
            .stats
            .under_way(under_way, limit, self.outstanding);
    }
}

/// How many of `items` fit into `room` bytes; one at least when nothing is in the batch yet.
fn prefix<'a>(items: impl Iterator<Item = &'a Item>, room: usize, empty: bool) -> usize {
    let mut bytes = 0;
    let fits = items.take_while(|item| {
        bytes += bulk::cost(*item);
        bytes <= room
    });
    fits.count().max(usize::from(empty))
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Writes a batch and settles each document: confirmed, in the dead letter, or to be sent again.
async fn carry_out(parts: Arc<Parts>, items: Arc<Vec<Item>>) -> Landed {
    let nothing = Landed {
        problem: None,
        whole: false,
        again: Vec::new(),
        blocked: Vec::new(),
    };
    let (outcomes, problem) = match parts.cluster.write(&items[..]).await {
        Written::All => {
            parts.confirm(Done::Created, items.iter());
            return nothing;
        }
        // No document can be made shorter: alone it can never be written.
        Written::Failed(Problem::TooLarge(reason)) if items.len() == 1 => {
            let kind = "document_too_large".into();
            (
                vec![Outcome::Rejected(Rejection {
                    status: 413,
                    kind,
                    reason,
                })],
                None,
            )
        }
        // Neither a mistake of this document's content (that is an item's 400) nor of all documents: an operator
        // must look. It waits alone and holds up nothing else.
        Written::Failed(Problem::Malformed(reason)) if items.len() == 1 => {
            (vec![Outcome::Blocked(reason)], None)
        }
        Written::Failed(problem) => {
            return Landed {
                problem: Some(problem),
                whole: true,
                ..nothing
            };
        }
        Written::Each(outcomes, problem) => (outcomes, problem),
    };
    let mut landed = Landed { problem, ..nothing };
    let mut rejected = Vec::new();
    for (at, outcome) in outcomes.into_iter().enumerate() {
        match outcome {
            Outcome::Done(done) => parts.confirm(done, std::iter::once(&items[at])),
            Outcome::Again => landed.again.push(at),
            Outcome::Blocked(reason) => {
                parts.health.set(Cause::Blocked, reason);
                landed.blocked.push(at);
            }
            Outcome::Rejected(rejection) => rejected.push((at, rejection)),
        }
    }
    if !rejected.is_empty() {
        parts.bury(&items, rejected, &mut landed.blocked).await;
    }
    landed
}

impl Parts {
    fn confirm<'a>(&self, done: Done, items: impl Iterator<Item = &'a Item>) {
        let (mut documents, mut lines) = (0, 0);
        for item in items {
            documents += 1;
            lines += u64::from(item.sealed.lines);
            item.sealed.confirm(self.output);
        }
        self.cluster.stats.confirmed(done, documents, lines);
    }

    /// Writes documents to the dead letter, and confirms them when they are durable there. While it takes nothing
    /// they go round again: nothing is dropped, and a mapping that is mended meanwhile takes them.
    async fn bury(
        &self,
        items: &Arc<Vec<Item>>,
        rejected: Vec<(usize, Rejection)>,
        blocked: &mut Vec<usize>,
    ) {
        let entries = rejected
            .iter()
            .map(|(at, rejection)| self.entry(&items[*at], rejection))
            .collect::<Vec<_>>();
        let dead_letter = self.dead_letter.clone();
        let put = tokio::task::spawn_blocking(move || dead_letter.put_all(&entries)).await;
        match put.map_err(std::io::Error::other).flatten() {
            Ok(()) => {
                self.health.clear(Cause::DeadLetter);
                let (_, first) = &rejected[0];
                tracing::warn!(
                    documents = rejected.len(), status = first.status, kind = %first.kind,
                    "Elasticsearch will never accept these documents as they are; they are in the dead letter"
                );
                for (at, rejection) in rejected {
                    let sealed = &items[at].sealed;
                    self.cluster.stats.buried(&rejection, u64::from(sealed.lines));
                    sealed.confirm_dead(self.output);
                }
            }
            Err(error) => {
                self.health.set(
                    Cause::DeadLetter,
                    format!("the dead letter takes nothing: {error}"),
                );
                blocked.extend(rejected.iter().map(|(at, _)| *at));
            }
        }
    }

    fn entry(&self, item: &Item, rejection: &Rejection) -> Entry {
        let sealed = &item.sealed;
        Entry {
            time: jiff::Timestamp::now(),
            source: "elasticsearch".into(),
            status: Some(rejection.status).filter(|status| *status != 0),
            kind: rejection.kind.clone(),
            reason: rejection.reason.clone(),
            index: Some(self.cluster.indices.of(sealed.first_ns).index.to_string()),
            id: Some(sealed.id.to_string()),
            is_trace: Some(sealed.is_trace),
            first_ns: Some(sealed.first_ns),
            lines: Some(sealed.lines),
            parts: (self.cluster.rules.part_ids)(&sealed.json),
            content: Content::Document(sealed.json.clone()),
        }
    }
}
