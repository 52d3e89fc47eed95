//! `demo client`: sends requests at a steady rate, each with its own trace id, and retries those
//! that may succeed later.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use reqwest::{StatusCode, Url, header::RETRY_AFTER};
use tokio::{sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{Error, id, web::TRACE_HEADER};

/// Requests, rate, timeouts and retries.
#[derive(Clone, Debug)]
pub struct Options {
    /// The address of every request.
    pub target: String,
    /// How many requests; 0: until stopped.
    pub count: u64,
    /// Requests in flight at once, at least 1.
    pub concurrency: usize,
    /// The time from the start of one request to the start of the next.
    pub interval: Duration,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// How many more attempts a request gets after its first.
    pub retries: u32,
    /// The wait before the first retry; it doubles with each, up to [`MAX_BACKOFF`].
    pub backoff: Duration,
}

/// The longest wait between two attempts, also when the server asks for more.
pub const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// How one request ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its trace id: the same for all its attempts.
    pub trace_id: String,
    /// 1 when the first attempt was the last.
    pub attempts: u32,
    /// From the start of the first attempt to the end of the last.
    pub took: Duration,
    /// The last answer, or why there was none.
    pub result: Result<u16, String>,
}

impl Outcome {
    /// Answered with a status below 400.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        matches!(self.result, Ok(status) if status < 400)
    }
}

/// All requests together.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Requests that ended, well or not.
    pub requests: u64,
    /// Those answered with a status below 400.
    pub succeeded: u64,
    /// Attempts beyond the first ones.
    pub retries: u64,
    /// How often each last status came; 0 stands for no answer.
    pub statuses: BTreeMap<u16, u64>,
    /// The sum and the largest of all times.
    pub total_time: Duration,
    /// The largest of all times.
    pub slowest: Duration,
    /// From the first request to the end of the last.
    pub elapsed: Duration,
}

impl Summary {
    fn add(&mut self, outcome: &Outcome) {
        self.requests += 1;
        self.succeeded += u64::from(outcome.is_ok());
        self.retries += u64::from(outcome.attempts - 1);
        *self
            .statuses
            .entry(*outcome.result.as_ref().unwrap_or(&0))
            .or_default() += 1;
        self.total_time += outcome.took;
        self.slowest = self.slowest.max(outcome.took);
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mean = self.total_time.div_f64((self.requests.max(1)) as f64);
        write!(
            f,
            "{} requests in {:.1} s: {} succeeded, {} failed, {} retries; latency mean {:.1} ms, max {:.1} ms; answers:",
            self.requests,
            self.elapsed.as_secs_f64(),
            self.succeeded,
            self.requests - self.succeeded,
            self.retries,
            mean.as_secs_f64() * 1e3,
            self.slowest.as_secs_f64() * 1e3,
        )?;
        for (status, count) in &self.statuses {
            match status {
                0 => write!(f, " none x {count}")?,
                status => write!(f, " {status} x {count}")?,
            }
        }
        Ok(())
    }
}

/// Sends all requests, calls `done` with the outcome of each, and returns a summary. After `stop`
/// no further request is sent; those in flight are finished.
///
/// # Errors
/// [`Error::BadUrl`], [`Error::HttpClient`]. A request that fails is no error, it is in the
/// summary.
pub async fn run(
    options: &Options,
    stop: &CancellationToken,
    mut done: impl FnMut(&Outcome),
) -> Result<Summary, Error> {
    let request = Arc::new(Request::new(options, stop.clone())?);
    let slots = Arc::new(Semaphore::new(options.concurrency.max(1)));
    let mut pace = tokio::time::interval(options.interval.max(Duration::from_nanos(1)));
    // Starts that were missed because all slots were taken are skipped, not sent in a burst.
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut running = JoinSet::new();
    let mut summary = Summary::default();
    let started = Instant::now();
    let mut begun = 0;
    while options.count == 0 || begun < options.count {
        let slot = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(ended) = running.join_next() => { finish(ended, &mut summary, &mut done); continue }
            slot = next_start(&mut pace, &slots) => slot,
        };
        begun += 1;
        let request = Arc::clone(&request);
        running.spawn(async move {
            let outcome = request.send().await;
            drop(slot);
            outcome
        });
    }
    while let Some(ended) = running.join_next().await {
        finish(ended, &mut summary, &mut done);
    }
    summary.elapsed = started.elapsed();
    Ok(summary)
}

/// Waits for a free slot and then for the next tick; cancelled between the two it has lost nothing.
async fn next_start(
    pace: &mut tokio::time::Interval,
    slots: &Arc<Semaphore>,
) -> Option<tokio::sync::OwnedSemaphorePermit> {
    let slot = Arc::clone(slots).acquire_owned().await.ok();
    pace.tick().await;
    slot
}

fn finish(
    ended: Result<Outcome, tokio::task::JoinError>,
    summary: &mut Summary,
    done: &mut impl FnMut(&Outcome),
) {
    // A request's task neither panics nor is aborted; if it did, the summary would be one short.
    if let Ok(outcome) = ended {
        summary.add(&outcome);
        done(&outcome);
    }
}

struct Request {
    client: reqwest::Client,
    target: Url,
    retries: u32,
    backoff: Duration,
    stop: CancellationToken,
}

impl Request {
    fn new(options: &Options, stop: CancellationToken) -> Result<Self, Error> {
        let target = parse_url("--target", &options.target)?;
        let client = direct_client(options.timeout)?;
        Ok(Self {
            client,
            target,
            retries: options.retries,
            backoff: options.backoff,
            stop,
        })
    }

    async fn send(&self) -> Outcome {
        let trace_id = id::trace_id();
        let started = Instant::now();
        let mut attempts = 0;
        loop {
            attempts += 1;
            let attempt = self.attempt(&trace_id).await;
            let wait = match &attempt {
                Attempt::Final(_) => None,
                Attempt::Again { after, .. } => {
                    let doubled = self.backoff.saturating_mul(1 << (attempts - 1).min(16));
                    let spread = doubled.min(MAX_BACKOFF).mul_f64(0.5 + id::fraction() / 2.0);
                    Some(after.unwrap_or(spread).min(MAX_BACKOFF))
                }
            };
            let (Attempt::Final(result) | Attempt::Again { result, .. }) = attempt;
            let Some(wait) = wait.filter(|_| attempts <= self.retries) else {
                return Outcome {
                    trace_id,
                    attempts,
                    took: started.elapsed(),
                    result,
                };
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.stop.cancelled() => {
                    return Outcome { trace_id, attempts, took: started.elapsed(), result };
                }
            }
        }
    }

    async fn attempt(&self, trace_id: &str) -> Attempt {
        let sent = self
            .client
            .get(self.target.clone())
            .header(TRACE_HEADER, trace_id)
            .send()
            .await;
        let answer = match sent {
            Ok(answer) => answer,
            Err(error) => {
                let retryable = !error.is_builder() && !error.is_redirect();
                let result = Err(chain(&error));
                return if retryable {
                    Attempt::Again { result, after: None }
                } else {
                    Attempt::Final(result)
                };
            }
        };
        let status = answer.status();
        let after = answer
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.parse().ok());
        // The body is read to its end: a connection can be used again only then, and an answer cut
        // short is no answer.
        if let Err(error) = answer.bytes().await {
            return Attempt::Again {
                result: Err(chain(&error)),
                after: None,
            };
        }
        if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() {
            return Attempt::Again {
                result: Ok(status.as_u16()),
                after: after.map(Duration::from_secs),
            };
        }
        Attempt::Final(Ok(status.as_u16()))
    }
}

enum Attempt {
    Final(Result<u16, String>),
    /// May succeed later: a network error, 429 or 5xx. `after` is what the server asked for.
    Again {
        result: Result<u16, String>,
        after: Option<Duration>,
    },
}

/// An HTTP client that uses no proxy: the demo's traffic stays on this machine.
///
/// # Errors
/// [`Error::HttpClient`].
pub fn direct_client(timeout: Duration) -> Result<reqwest::Client, Error> {
    reqwest::Client::builder()
        .no_proxy()
        .timeout(timeout)
        .build()
        .map_err(Error::HttpClient)
}

/// Reads an address given as `option`.
///
/// # Errors
/// [`Error::BadUrl`] unless it is an absolute http or https URL.
pub fn parse_url(option: &'static str, value: &str) -> Result<Url, Error> {
    match Url::parse(value) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => Ok(url),
        _ => Err(Error::BadUrl {
            option,
            value: value.to_owned(),
        }),
    }
}

/// The error with its causes: "error sending request" alone says nothing.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests;
