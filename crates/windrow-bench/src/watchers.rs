//! People who look at the measured server while it works: open pages, and searches at a steady
//! rate, over its admin port.
//!
//! A page asks what the page of Windrow asks in that view, and as often. A request that is not
//! answered with 200 fails the run.

use std::io::{self, Error};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{interval, sleep};

use super::system::get;

/// Open pages, by view.
const PAGES: [(View, usize); 4] = [
    (View::Traces, 10),
    (View::Live, 4),
    (View::Open, 3),
    (View::Server, 3),
];

/// Time between two searches: 20 a second.
const SEARCH_INTERVAL: Duration = Duration::from_millis(50);
/// How often a page asks for numbers, and for the histogram and the facets.
const REFRESH_INTERVAL: Duration = Duration::from_secs(5);
const OPEN_INTERVAL: Duration = Duration::from_secs(2);

/// The days of the load's records.
const PERIOD: &str = "from=2026-09-20&to=2026-09-26";

/// What people search for: words that are frequent, in few traces and in none, beginnings, phrases,
/// levels, durations, everything.
const SEARCHES: [&str; 8] = [
    "handler",
    "t00000000000000000000000000000007",
    "timeout",
    "requ*+-level:error",
    "%22request+completed%22",
    "level:%3E%3Dwarn+service:order-service",
    "duration:%3E1s+status:200",
    "",
];

/// What a page shows.
#[derive(Clone, Copy, Debug)]
enum View {
    /// The list with histogram and facets, new traces coming in.
    Traces,
    /// The live tail with a filter.
    Live,
    /// The open traces.
    Open,
    /// Numbers with the series of the last hour.
    Server,
}

/// Pages and searches in progress; they end when this is dropped.
#[derive(Debug)]
pub(super) struct Watchers {
    tasks: JoinSet<()>,
    seen: Arc<Mutex<Seen>>,
    began: Instant,
}

/// What the watchers saw.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Times of searches, unsorted.
    searches: Vec<Duration>,
    /// Bytes of the live tail.
    tail_bytes: u64,
    failure: Option<Error>,
}

impl Seen {
    /// The time below which `share` (0 to 1) of the searches were answered.
    pub(super) fn search_time(&self, share: f64) -> Option<Duration> {
        let mut times = self.searches.clone();
        times.sort_unstable();
        let last = times.len().checked_sub(1)?;
        times.get((last as f64 * share) as usize).copied()
    }

    /// Number of searches that were answered.
    pub(super) fn searches(&self) -> usize {
        self.searches.len()
    }

    /// Bytes of the live tail.
    pub(super) fn tail_bytes(&self) -> u64 {
        self.tail_bytes
    }
}

type Shared = Arc<Mutex<Seen>>;

impl Watchers {
    /// Opens the pages, and begins to search once all of them are open.
    ///
    /// # Errors
    /// When a page cannot be opened.
    pub(super) async fn start(admin: SocketAddr) -> io::Result<Self> {
        let seen = Shared::default();
        let mut tasks = JoinSet::new();
        let views = PAGES
            .iter()
            .flat_map(|(view, count)| std::iter::repeat_n(*view, *count));
        for (number, view) in views.enumerate() {
            open(admin, view).await?;
            for (path, every) in repeated(view) {
                // Pages are not opened in the same instant.
                let phase = every.mul_f64(number as f64 / 20.0);
                tasks.spawn(keep_asking(admin, path, every, phase, Arc::clone(&seen)));
            }
            if let Some(path) = tail(view) {
                tasks.spawn(follow(admin, path, Arc::clone(&seen)));
            }
        }
        tasks.spawn(search(admin, Arc::clone(&seen)));
        Ok(Self {
            tasks,
            seen,
            began: Instant::now(),
        })
    }

    /// Closes the pages, and returns what they saw and how long they were open.
    ///
    /// # Errors
    /// The first request that failed.
    pub(super) async fn close(mut self) -> io::Result<(Seen, Duration)> {
        let took = self.began.elapsed();
        self.tasks.shutdown().await;
        let mut seen = std::mem::take(&mut *lock(&self.seen));
        match seen.failure.take() {
            Some(failure) => Err(failure),
            None => Ok((seen, took)),
        }
    }
}

fn lock(seen: &Shared) -> std::sync::MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a view loads first.
async fn open(admin: SocketAddr, view: View) -> io::Result<()> {
    for path in ["/", "/assets/app.js", "/assets/style.css", "/api/v1/stats"] {
        ask(admin, path).await?;
    }
    match view {
        View::Traces => ask(admin, &format!("/api/v1/traces?limit=50&{PERIOD}")).await,
        _ => Ok(()),
    }
}

/// What a view asks again and again, and how often.
fn repeated(view: View) -> Vec<(String, Duration)> {
    let stats = ("/api/v1/stats".to_owned(), REFRESH_INTERVAL);
    match view {
        View::Traces => vec![
            (format!("/api/v1/histogram?buckets=80&{PERIOD}"), REFRESH_INTERVAL),
            (format!("/api/v1/facets?{PERIOD}"), REFRESH_INTERVAL),
            stats,
        ],
        View::Live => vec![stats],
        View::Open => vec![("/api/v1/open".to_owned(), OPEN_INTERVAL), stats],
        View::Server => vec![("/api/v1/stats?series=1".to_owned(), REFRESH_INTERVAL)],
    }
}

/// The live tail of a view.
fn tail(view: View) -> Option<&'static str> {
    match view {
        View::Traces => Some("/api/v1/tail"),
        View::Live => Some("/api/v1/tail?q=level:%3E%3Dwarn+OR+duration:%3E1s"),
        View::Open | View::Server => None,
    }
}

async fn keep_asking(admin: SocketAddr, path: String, every: Duration, phase: Duration, seen: Shared) {
    sleep(phase).await;
    let mut ticks = interval(every);
    loop {
        ticks.tick().await;
        if let Err(error) = ask(admin, &path).await {
            lock(&seen).failure.get_or_insert(error);
        }
    }
}

async fn follow(admin: SocketAddr, path: &'static str, seen: Shared) {
    let followed = async {
        let mut stream = TcpStream::connect(admin).await?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: {admin}\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut buffer = vec![0; 64 << 10];
        loop {
            match stream.read(&mut buffer).await? {
                0 => return Err(Error::other("the live tail has ended")),
                bytes => lock(&seen).tail_bytes += bytes as u64,
            }
        }
    };
    let ended: io::Result<()> = followed.await;
    if let Err(error) = ended {
        lock(&seen).failure.get_or_insert(error);
    }
}

/// Searches at a steady rate, however long the answers take.
async fn search(admin: SocketAddr, seen: Shared) {
    let mut ticks = interval(SEARCH_INTERVAL);
    let mut running = JoinSet::new();
    for query in SEARCHES.iter().cycle() {
        ticks.tick().await;
        while running.try_join_next().is_some() {}
        let seen = Arc::clone(&seen);
        running.spawn(async move {
            let began = Instant::now();
            let asked = ask(admin, &format!("/api/v1/traces?limit=50&q={query}&{PERIOD}")).await;
            let mut seen = lock(&seen);
            match asked {
                Ok(()) => seen.searches.push(began.elapsed()),
                Err(error) => drop(seen.failure.get_or_insert(error)),
            }
        });
    }
}

async fn ask(admin: SocketAddr, path: &str) -> io::Result<()> {
    match get(admin, path).await? {
        (200, _) => Ok(()),
        (status, answer) => {
            let body = answer.rsplit("\r\n\r\n").next().unwrap_or_default();
            Err(Error::other(format!("{path} was answered with {status}: {body}")))
        }
    }
}
