//! Embedded search: rates of storing and indexing, size of the index, times of searches.
//!
//! `cargo bench --bench search [-- DOCUMENTS [FOLDER]]`; 2,000,000 documents of 5 lines by default,
//! which take about 4 GB in FOLDER. Documents are stored as fast as the store takes them while the
//! index is filled behind it, as in the server.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use windrow::config::Config;
use windrow::output::sqlite::{SqliteReader, SqliteWriter};
use windrow::output::{Batch, BatchBuffer, DocumentMeta, DocumentSpan, LineCounters, MemoryCharge};
use windrow::search::embedded::{EmbeddedSearch, IndexConfig, IndexProgress, Indexer, index_path};
use windrow::search::{Buckets, PageRequest, Selection, Sort, TraceSearch};
use windrow_query::{Names, Query};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const DOCUMENTS_PER_TRANSACTION: u64 = 30_000;
const START_MS: i64 = 1_790_000_000_000;
/// All documents begin within a day.
const DAY_MS: i64 = 86_400_000;
const REPEATS: usize = 200;

fn main() {
    let mut arguments = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'));
    let documents: u64 = arguments
        .next()
        .map_or(2_000_000, |text| text.parse().expect("a number of documents"));
    let folder = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = tempfile::tempdir_in(folder).expect("a folder");
    let mut sqlite = Config::default().sqlite;
    sqlite.path = folder.path().join("windrow.db");
    (sqlite.retention_age, sqlite.retention_size) = (None, None);
    let config = IndexConfig {
        store: sqlite.path.clone(),
        names: Names::default(),
        buffer_bytes: IndexConfig::MAX_BUFFER_BYTES,
    };
    let progress = Arc::<IndexProgress>::default();
    let mut writer = SqliteWriter::open(sqlite.clone(), 16 << 20).expect("a store");
    writer.note_merges_for(Arc::clone(progress.merges()));
    let indexer = Indexer::open(config.clone(), Arc::clone(&progress)).expect("an index");
    let indexer = indexer.start().expect("a thread");

    let mut source = Source::new(documents);
    let began = Instant::now();
    let mut storing = Duration::ZERO;
    let mut bytes = 0;
    while let Some(batch) = source.batch() {
        bytes += batch.bytes();
        let start = Instant::now();
        let stored: Vec<_> = batch.documents().collect();
        writer
            .write(&stored, &mut |_, _| (), &mut |_, _| ())
            .expect("a transaction");
        storing += start.elapsed();
    }
    let lag = progress.lag();
    let indexed = progress.indexed();
    let stored_after = began.elapsed();
    while progress.indexed() < documents {
        std::thread::sleep(Duration::from_millis(20));
    }
    let rate = |count: u64, time: Duration| count as f64 / time.as_secs_f64();
    println!(
        "{documents} documents of 5 lines, {} bytes each\nstored {:.0}/s while they were indexed at {:.0}/s, {lag} behind at the end",
        bytes as u64 / documents,
        rate(documents, storing),
        rate(indexed, stored_after),
    );
    println!(
        "indexed {:.0}/s when nothing was stored, {:.0}/s in all",
        rate(documents - indexed, began.elapsed() - stored_after),
        rate(documents, began.elapsed()),
    );
    drop(indexer);
    let size = |path: &Path| {
        let sizes = ["", "-wal"].map(|suffix| std::fs::metadata(format!("{}{suffix}", path.display())));
        sizes
            .into_iter()
            .flatten()
            .map(|metadata| metadata.len())
            .sum::<u64>()
    };
    let (store_size, index_size) = (size(&sqlite.path), size(&index_path(&sqlite.path)));
    println!(
        "store {} MB, index {} MB: {:.2} x the documents",
        store_size >> 20,
        index_size >> 20,
        index_size as f64 / bytes as f64
    );
    let store = Arc::new(SqliteReader::open(&sqlite.path).expect("a reader"));
    measure(&EmbeddedSearch::new(&config, store, progress), documents);
}

/// Times of searches.
fn measure(search: &EmbeddedSearch, documents: u64) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let mut random = Random(11);
    let report = |name: &str, repeats: usize, run: &mut dyn FnMut() -> usize| {
        let mut times = Vec::with_capacity(repeats);
        let mut found = 0;
        for _ in 0..repeats {
            let start = Instant::now();
            found = run();
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
        times.sort_by(f64::total_cmp);
        let at = |part: f64| {
            times
                .get(((times.len() - 1) as f64 * part) as usize)
                .copied()
                .unwrap_or_default()
        };
        println!(
            "{name:<44} {found:>7} {:>9.2} {:>9.2} {:>9.2}",
            at(0.5),
            at(0.99),
            at(1.0)
        );
    };
    println!(
        "{:<44} {:>7} {:>9} {:>9} {:>9}",
        "search", "found", "p50 ms", "p99 ms", "max ms"
    );
    report("by id", REPEATS, &mut || {
        let id = trace_id(random.below(documents));
        let found = runtime.block_on(search.documents(id, usize::MAX));
        found.expect("an answer").len()
    });
    let page = |text: &str, sort: Sort| {
        let request = PageRequest {
            selection: Selection::new(Query::parse(text, 0).expect("a query"), None, None),
            sort,
            limit: 50,
            after: None,
        };
        let page = runtime.block_on(search.page(request)).expect("an answer");
        page.traces.len()
    };
    let mut random = Random(12);
    report("a rare word, first page", REPEATS, &mut || {
        page(&format!("rare{}", random.below(RARE_WORDS)), Sort::Newest)
    });
    report("everything, first page", REPEATS, &mut || page("", Sort::Newest));
    for text in [
        "handler",
        "level:error",
        "level:>=warn service:svc3",
        "\"handler step 3\"",
        "han* -level:error",
        "duration:>2s",
        "status:>=500",
        "u4711*",
        "r*",
    ] {
        report(&format!("{text}, first page"), 20, &mut || {
            page(text, Sort::Newest)
        });
    }
    for (sort, name) in [(Sort::Slowest, "slowest"), (Sort::Worst, "worst")] {
        report(&format!("everything, {name}"), 5, &mut || page("", sort));
        report(&format!("level:error, {name}"), 5, &mut || {
            page("level:error", sort)
        });
    }
    for text in ["", "level:error", "rare7", "handler"] {
        let selection = || {
            let query = Query::parse(text, 0).expect("a query");
            Selection::new(query, Some(START_MS), Some(START_MS + DAY_MS))
        };
        let repeats = if text.is_empty() { REPEATS } else { 5 };
        report(&format!("histogram of a day of {text:?}"), repeats, &mut || {
            let buckets = Buckets::covering(START_MS, START_MS + DAY_MS, 60);
            let histogram = runtime
                .block_on(search.histogram(selection(), buckets))
                .expect("an answer");
            histogram
                .counts
                .values()
                .flat_map(|counts| counts.values())
                .sum::<u64>() as usize
        });
        report(&format!("facets of a day of {text:?}"), repeats, &mut || {
            let facets = runtime.block_on(search.facets(selection())).expect("an answer");
            facets.levels.iter().map(|level| level.count as usize).sum()
        });
    }
}

/// Each is in about one of 100,000 documents.
const RARE_WORDS: u64 = 5_000;

/// Documents as a renderer writes them.
struct Source {
    random: Random,
    words: Vec<String>,
    next: u64,
    count: u64,
}

impl Source {
    fn new(count: u64) -> Self {
        let mut random = Random(88_172_645_463_325_252);
        let word = |random: &mut Random| {
            let length = 3 + random.below(7);
            (0..length)
                .map(|_| char::from(b'a' + random.below(26) as u8))
                .collect()
        };
        Self {
            words: (0..20_000).map(|_| word(&mut random)).collect(),
            random,
            next: 0,
            count,
        }
    }

    fn batch(&mut self) -> Option<Batch> {
        let (mut text, mut ids, mut rows) = (String::new(), String::new(), Vec::new());
        for _ in 0..DOCUMENTS_PER_TRANSACTION.min(self.count - self.next) {
            let (id_start, start) = (ids.len(), text.len());
            ids += &trace_id(self.next);
            let first_ms = self.write(&mut text);
            let span = DocumentSpan::new(start, start, text.len());
            rows.push(DocumentMeta::new(
                id_start..ids.len(),
                true,
                first_ms * 1_000_000,
                5,
                span,
            ));
            self.next += 1;
        }
        if rows.is_empty() {
            return None;
        }
        let charge = MemoryCharge::new(text.len(), &Arc::default());
        let buffer = BatchBuffer::new(Bytes::from(text), ids, rows);
        let account = Arc::<LineCounters>::default();
        Some(Batch::new(buffer, false, Vec::new(), charge, &account, 1))
    }

    /// Appends a document, and returns its time.
    fn write(&mut self, out: &mut String) -> i64 {
        // Traces are sealed in another order than they begin in.
        let jitter = self.random.below(2000) as i64;
        let first_ms = START_MS + (self.next as i64 * DAY_MS / self.count as i64 - jitter).max(0);
        let duration = if self.random.below(50) == 0 {
            self.random.below(5000)
        } else {
            self.random.below(300)
        } as i64;
        let time = |ms: i64| format!("{:.3}", jiff::Timestamp::from_millisecond(ms).unwrap_or_default());
        let mut message = String::new();
        for line in 0..5 {
            write!(
                message,
                "handler step {line} of order {}",
                self.random.below(5_000_000)
            )
            .ok();
            for _ in 0..5 {
                // Small numbers are frequent, as words are in any text.
                let rank = (0..3).map(|_| self.random.below(20_000)).min().unwrap_or(0);
                message.push(' ');
                message += self.words.get(rank as usize).map_or("", String::as_str);
            }
            message += if line < 4 { "\\n" } else { "" };
        }
        if self.random.below(20) == 0 {
            write!(message, " rare{}", self.random.below(RARE_WORDS)).ok();
        }
        let (level, status) = match self.random.below(1000) {
            0..10 => ("error", 500),
            10..50 => ("warn", 404),
            _ => ("info", 200),
        };
        let service = self.random.below(10);
        let method = if self.random.below(3) == 0 { "POST" } else { "GET" };
        write!(
            out,
            "{{\"@timestamp\":\"{}\",\"traceId\":\"{}\",\"message\":\"{message}\",\"method\":\"{method}\",\
             \"path\":\"/api/v1/orders\",\"status\":{status},\"latencyMs\":{}.5,\"level\":\"{level}\",\
             \"service_name\":\"svc{service}\",\"userId\":\"u{}\",\"windrow\":{{\"reason\":\"completed\",\"lines\":5,\
             \"last\":\"{}\",\"durationMs\":{duration},\"tags\":[\"app.svc{service}\"],\"parts\":1,\"late\":0,\
             \"level\":\"{level}\",\"levels\":{{\"info\":4,\"{level}\":1}},\"services\":[\"svc{service}\",\"svc{}\"],\"state\":\"{}\"}}}}",
            time(first_ms),
            trace_id(self.next),
            self.random.below(500),
            self.random.below(100_000),
            time(first_ms + duration),
            (service + 1) % 10,
            "AQQEkP9Zt5w0vNmxYQ2c".repeat(5),
        )
        .ok();
        first_ms
    }
}

fn trace_id(number: u64) -> String {
    // Neighbours differ in every digit.
    format!(
        "{:016x}{:016x}",
        number.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        number
    )
}

/// xorshift.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}
