//! One run of one case: starts the server, sends the load, waits until all records have arrived,
//! and takes the figures. Owns when a load has arrived and the interval that is measured.

use std::io::{self, Error};
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::cases::{Case, Work};
use super::client::{Sent, drive};
use super::figures::{Figure, Figures};
use super::load::{Load, RequestRecords, Source};
use super::process::{Usage, usage};
use super::store::{CountingStore, Sample, rate};
use super::system::{Server, Setup, System, find};
use super::watchers::Watchers;

/// A run fails when no record has arrived for this long.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(60);

/// Wait after a start and after a load, so that background work is measured with the run that
/// caused it.
const SETTLE_TIME: Duration = Duration::from_millis(300);

/// Time over which an idle server is measured.
const IDLE_TIME: Duration = Duration::from_secs(5);

const MIB: f64 = 1_048_576.0;

/// Environment of all runs.
#[derive(Debug)]
pub(super) struct Bench<'a> {
    /// Folder on the disk that is measured.
    pub(super) data_dir: &'a Path,
    /// The program of Fluent Bit.
    pub(super) fluent_bit: &'a Path,
    /// The store.
    pub(super) store: &'a CountingStore,
}

impl Bench<'_> {
    /// Runs `case` once. `run` makes its records differ from those of every other run.
    ///
    /// # Errors
    /// When the server fails, or not everything arrives.
    pub(super) async fn run(&self, case: &Case, run: u32) -> io::Result<Figures> {
        let folder = tempfile::Builder::new()
            .prefix("windrow-bench-")
            .tempdir_in(self.data_dir)?;
        let load = Load {
            run,
            ..case.load.clone()
        };
        let sources = match case.work {
            Work::Idle => Vec::new(),
            _ => tokio::task::spawn_blocking(move || load.prepare())
                .await
                .map_err(Error::other)??,
        };
        let fluent_bit = find(self.fluent_bit);
        let setup = Setup {
            system: case.system,
            store: self.store.address(),
            folder: folder.path(),
            arguments: case.arguments,
            fluent_bit: fluent_bit.as_deref(),
        };
        self.store.set_unavailable(false);
        self.store.reset();
        let server = Server::start(&setup).await?;
        sleep(SETTLE_TIME).await;
        match case.work {
            Work::Send | Work::SendWatched => self.send(case, server, sources).await,
            Work::CatchUp => self.catch_up(case, server, sources).await,
            Work::Restart => self.restart(server, sources, &setup).await,
            Work::Idle => idle(server).await,
        }
    }

    async fn send(
        &self,
        case: &Case,
        server: Server,
        sources: Vec<Source<RequestRecords>>,
    ) -> io::Result<Figures> {
        let watchers = match server.admin {
            Some(admin) if case.work == Work::SendWatched => Some(Watchers::start(admin).await?),
            _ => None,
        };
        let before = usage(server.pid)?;
        let total = case.load.total();
        let send = tokio::spawn(drive(server.forward, sources));
        let samples = match case.system {
            System::Baseline | System::FluentBit => Vec::new(),
            System::Windrow => self.arrival(total).await?,
            System::Sqlite => delivery(&server, total).await?,
        };
        let sent = send.await.map_err(Error::other)??;
        let watched = match watchers {
            Some(watchers) => Some(watchers.close().await?),
            None => None,
        };
        if case.system == System::FluentBit {
            until_idle(&server).await?;
        }
        sleep(SETTLE_TIME).await;
        let after = usage(server.pid)?;
        server.kill().await?;
        let records_per_s = match samples.last() {
            None => Some(total as f64 / sent.took.as_secs_f64()),
            Some(last) => rate(&samples, total).or_else(|| {
                let took = last.0.checked_duration_since(sent.began)?;
                Some(total as f64 / took.as_secs_f64())
            }),
        };
        let mut figures = figures(
            &case.load,
            records_per_s,
            &sent,
            &before,
            &after,
            !samples.is_empty(),
        );
        if let Some((seen, took)) = watched {
            let ms = |time: Duration| time.as_secs_f64() * 1e3;
            let rate = |number: f64| Some(number / took.as_secs_f64());
            figures.set(Figure::Searches, rate(seen.searches() as f64));
            figures.set(Figure::SearchMedian, seen.search_time(0.5).map(ms));
            figures.set(Figure::SearchHigh, seen.search_time(0.99).map(ms));
            figures.set(Figure::Tail, rate(seen.tail_bytes() as f64 / 1e6));
        }
        Ok(figures)
    }

    async fn catch_up(
        &self,
        case: &Case,
        server: Server,
        sources: Vec<Source<RequestRecords>>,
    ) -> io::Result<Figures> {
        let before = usage(server.pid)?;
        self.store.set_unavailable(true);
        let sent = drive(server.forward, sources).await?;
        self.store.set_unavailable(false);
        let total = case.load.total();
        let samples = self.arrival(total).await?;
        sleep(SETTLE_TIME).await;
        let after = usage(server.pid)?;
        server.kill().await?;
        Ok(figures(
            &case.load,
            rate(&samples, total),
            &sent,
            &before,
            &after,
            true,
        ))
    }

    async fn restart(
        &self,
        server: Server,
        sources: Vec<Source<RequestRecords>>,
        setup: &Setup<'_>,
    ) -> io::Result<Figures> {
        self.store.set_unavailable(true);
        let sent = drive(server.forward, sources).await?;
        server.kill().await?;
        self.store.set_unavailable(false);
        let server = Server::start(setup).await?;
        let mut figures = Figures::default();
        figures.set(Figure::Start, Some(server.start.as_secs_f64()));
        figures.set(Figure::Sent, Some(sent.bytes as f64 / MIB));
        server.kill().await?;
        Ok(figures)
    }

    /// Waits until `total` lines are in the store; returns the samples.
    async fn arrival(&self, total: u64) -> io::Result<Vec<Sample>> {
        let mut progress = Progress::new(total);
        while !progress.is_done(self.store.lines())? {
            sleep(Duration::from_millis(5)).await;
        }
        Ok(self.store.samples())
    }
}

/// Waits until the server has delivered `total` records; returns samples of its counter.
async fn delivery(server: &Server, total: u64) -> io::Result<Vec<Sample>> {
    let mut progress = Progress::new(total);
    let mut samples = Vec::new();
    loop {
        let delivered = server.delivered().await?;
        if delivered > 0 {
            samples.push((Instant::now(), delivered));
        }
        if progress.is_done(delivered)? {
            return Ok(samples);
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until the server uses no more CPU time.
async fn until_idle(server: &Server) -> io::Result<()> {
    let mut last = usage(server.pid)?.cpu;
    let began = Instant::now();
    while began.elapsed() < ARRIVAL_TIMEOUT {
        sleep(Duration::from_millis(500)).await;
        let now = usage(server.pid)?.cpu;
        if now.saturating_sub(last) < Duration::from_millis(5) {
            break;
        }
        last = now;
    }
    Ok(())
}

async fn idle(server: Server) -> io::Result<Figures> {
    sleep(Duration::from_secs(1)).await;
    let before = usage(server.pid)?;
    sleep(IDLE_TIME).await;
    let after = usage(server.pid)?;
    server.kill().await?;
    let cpu = after.cpu.saturating_sub(before.cpu);
    let mut figures = Figures::default();
    figures.set(Figure::IdleMemory, Some(after.resident as f64 / MIB));
    figures.set(
        Figure::IdleCpu,
        Some(cpu.as_secs_f64() * 1000.0 / IDLE_TIME.as_secs_f64()),
    );
    Ok(figures)
}

/// Detects that no more records arrive.
struct Progress {
    total: u64,
    arrived: u64,
    since: Instant,
}

impl Progress {
    fn new(total: u64) -> Self {
        Self {
            total,
            arrived: 0,
            since: Instant::now(),
        }
    }

    fn is_done(&mut self, arrived: u64) -> io::Result<bool> {
        let total = self.total;
        if arrived > total {
            return Err(Error::other(format!(
                "{arrived} records arrived of {total} that were sent"
            )));
        }
        if arrived != self.arrived {
            (self.arrived, self.since) = (arrived, Instant::now());
        }
        if self.since.elapsed() > ARRIVAL_TIMEOUT {
            let seconds = ARRIVAL_TIMEOUT.as_secs();
            return Err(Error::other(format!(
                "{arrived} of {total} records have arrived, and no more for {seconds} s"
            )));
        }
        Ok(arrived == total)
    }
}

fn figures(
    load: &Load,
    records_per_s: Option<f64>,
    sent: &Sent,
    before: &Usage,
    after: &Usage,
    documents: bool,
) -> Figures {
    let total = load.total() as f64;
    let each = |time: Duration| time.as_secs_f64() * 1e6 / total;
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let mut figures = Figures::default();
    figures.set(Figure::Records, records_per_s);
    let per_record = |n: f64| records_per_s.map(|rate| rate * n / total);
    figures.set(
        Figure::Documents,
        per_record(load.documents() as f64).filter(|_| documents),
    );
    figures.set(Figure::Megabytes, per_record(sent.bytes as f64 / 1e6));
    figures.set(Figure::Cpu, Some(each(after.cpu.saturating_sub(before.cpu))));
    figures.set(Figure::AckMedian, sent.latency(0.5).map(ms));
    figures.set(Figure::AckHigh, sent.latency(0.99).map(ms));
    figures.set(Figure::Peak, Some(after.peak as f64 / MIB));
    for (name, time) in &after.threads {
        let earlier = before.threads.get(name).copied().unwrap_or_default();
        figures
            .threads
            .insert(name.clone(), each(time.saturating_sub(earlier)));
    }
    figures
}
