//! Cost of the stages of gathering, in nanoseconds per record: walking, looking for trace id and completion, appending, sealing
//! and rendering (with and without a known shape), bulk framing; and the union and gzip beside them.
//!
//! `cargo bench --bench gather [-- NAME]`; 1000 divided by the Melem/s is nanoseconds per record. The records are those of
//! `windrow bench`: 5 lines a trace, 700 traces open.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use forward_protocol::entries::{Decompressor, Entries};
use forward_protocol::frame::{Limits as FrameLimits, Payload, messages};
use windrow::config::{Condition, ElasticsearchConfig, Predicate};
use windrow::gather::classify_entries;
use windrow::output::DestinationId;
use windrow::output::document_id;
use windrow::output::elasticsearch::{DocumentFormat, Elasticsearch};
use windrow_bench::load::{Load, Mode};
use windrow_trace::{
    AddOutcome, FieldNames, IncomingRecord, Limits, PartId, Phrase, Renderer, Scratch, SealReason, ShapeId,
    ShapeRegistry, Source, SourceId, Table, part_ids, union, union_within,
};

/// Records of the traces that are open at once.
const RECORDS_OPEN: usize = 5 * 700;

const NOW: i64 = 1_790_000_000_000_000;

/// So that traces that are complete are packed, as in a server.
const LINGER: i64 = 1;

/// As in the server, since some of the stages allocate.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const RULES: DocumentFormat = DocumentFormat {
    union: union_within,
    part_ids,
    max_bytes: usize::MAX,
    unmap: windrow_trace::unmap,
};

fn load(mode: Mode) -> Load {
    Load {
        mode,
        records: 50_000,
        connections: 1,
        ..Load::default()
    }
}

/// The chunks of a load, as they are sent.
fn chunks(mode: Mode) -> Vec<Vec<u8>> {
    let mut sources = load(mode).prepare().expect("a load");
    let mut out = Vec::new();
    while let Some(chunk) = sources[0].next_chunk().expect("a chunk") {
        out.push(chunk.bytes);
    }
    out
}

/// The entries of all packed chunks.
fn bodies() -> Vec<Vec<u8>> {
    let body = |chunk: &Vec<u8>| {
        let mut all = messages(chunk, FrameLimits::default());
        all.next().expect("a message").expect("a good one").body.to_vec()
    };
    chunks(Mode::Packed).iter().map(body).collect()
}

fn rules() -> Vec<Condition> {
    vec![Condition {
        field: None,
        test: Predicate::Contains(Box::new(Phrase::new("request completed"))),
    }]
}

fn shapes() -> ShapeRegistry {
    ShapeRegistry::new(FieldNames::default(), Vec::new())
}

/// A record as it is when it reaches the table.
struct Routed {
    key: Vec<u8>,
    record: Vec<u8>,
    /// Ever later, 10 µs each, as in the load.
    time: i64,
    chunk: usize,
    position: u32,
    completes: bool,
    shape: Option<ShapeId>,
    /// Where it lies in the record.
    text: Option<(usize, usize)>,
}

/// All records of `bodies`, with the shapes that they taught.
fn routed(bodies: &[Vec<u8>]) -> (ShapeRegistry, Vec<Routed>) {
    let (mut shapes, rules) = (shapes(), rules());
    let mut out = Vec::new();
    for (number, body) in bodies.iter().enumerate() {
        let mut position = 0;
        classify_entries(
            &mut shapes,
            &rules,
            body,
            &mut |record, key, completes, shape, text| {
                out.push(Routed {
                    key: key.expect("a trace id").to_vec(),
                    record: record.to_vec(),
                    time: NOW * 1000 + 10_000 * out.len() as i64,
                    chunk: number,
                    position,
                    completes,
                    shape,
                    text: text.map(|text| (text.as_ptr() as usize - record.as_ptr() as usize, text.len())),
                });
                position += 1;
            },
        );
    }
    (shapes, out)
}

fn table() -> Table<()> {
    Table::new(Limits {
        linger: LINGER,
        idle_timeout: i64::MAX,
        max_age: i64::MAX,
        max_traces: usize::MAX,
        max_bytes: usize::MAX,
        max_trace_bytes: usize::MAX,
    })
}

/// Appends records; the source of each chunk begins with its first.
struct Appender {
    table: Table<()>,
    /// Records have no level, so no shape is looked up.
    shapes: ShapeRegistry,
    shaped: bool,
    source: Option<(usize, SourceId)>,
}

impl Appender {
    fn new(shaped: bool) -> Self {
        Self {
            table: table(),
            shapes: ShapeRegistry::new(FieldNames::default(), Vec::new()),
            shaped,
            source: None,
        }
    }

    fn append(&mut self, routed: &Routed) {
        let source = match self.source {
            Some((chunk, source)) if chunk == routed.chunk => source,
            before => {
                before.and_then(|(_, source)| self.table.end_source(source));
                let source = self.table.begin_source(Source {
                    part: PartId::of_position(1, routed.chunk as u64),
                    received: NOW,
                    tag: Arc::from("app"),
                    hold: (),
                });
                self.source = Some((routed.chunk, source));
                source
            }
        };
        let incoming = IncomingRecord {
            id: self.table.trace_id(&routed.key),
            time: routed.time,
            source,
            position: routed.position,
            record: &routed.record,
            metadata: &[],
            completes: routed.completes,
            shape: routed.shape.filter(|_| self.shaped),
            text: routed
                .text
                .filter(|_| self.shaped)
                .map(|(at, len)| &routed.record[at..at + len]),
            level: None,
            service: None,
        };
        assert_eq!(self.table.add(NOW, &incoming, &self.shapes), AddOutcome::Added);
    }
}

/// A table with all records.
fn filled(records: &[Routed], shaped: bool) -> Table<()> {
    let mut appender = Appender::new(shaped);
    records.iter().for_each(|routed| appender.append(routed));
    appender.table
}

/// Seals and renders everything that is due; `frame` writes what stands before a document.
fn render(
    table: &mut Table<()>,
    shapes: &ShapeRegistry,
    out: &mut Vec<u8>,
    mut frame: impl FnMut(&mut Vec<u8>, &[u8], i64),
) -> u32 {
    let (mut renderer, mut scratch, names) = (Renderer::default(), Scratch::default(), FieldNames::default());
    let mut lines = 0;
    while let Some(mut closed) = table.next_sealed(NOW + LINGER) {
        if out.len() > 1 << 20 {
            out.clear();
        }
        let (gathered, _) = closed.content(NOW, &mut scratch);
        let key = gathered.id;
        let head = |out: &mut Vec<u8>, first| frame(out, key, first);
        lines += renderer.trace(out, &names, shapes, gathered, head).lines;
        closed.release(1, |()| ());
    }
    lines
}

fn stages(c: &mut Criterion) {
    let bodies = bodies();
    let (shapes, records) = routed(&bodies);
    let total = records.len() as u64;
    assert_eq!(total, load(Mode::Packed).total());
    let mut group = c.benchmark_group("record");
    group.sample_size(20).throughput(Throughput::Elements(total));

    group.bench_function("walk", |b| {
        b.iter(|| {
            let all = bodies.iter().flat_map(|body| Entries::new(black_box(body), 100));
            all.map(|entry| entry.expect("an entry").record.len())
                .sum::<usize>()
        });
    });
    group.bench_function("walk and route", |b| {
        let (mut shapes, rules) = (self::shapes(), rules());
        b.iter(|| {
            let (mut keys, mut completed) = (0, 0);
            for body in &bodies {
                classify_entries(
                    &mut shapes,
                    &rules,
                    black_box(body),
                    &mut |_, key, completes, _, _| {
                        keys += key.map_or(0, <[u8]>::len);
                        completed += usize::from(completes);
                    },
                );
            }
            (keys, completed)
        });
    });
    for (name, shaped) in [("append", true), ("append, shape unknown", false)] {
        group.bench_function(name, |b| {
            // Sealed as it goes, so that as many are open as in a server.
            b.iter_batched_ref(
                || Appender::new(shaped),
                |appender| {
                    for routed in &records {
                        appender.append(black_box(routed));
                        if routed.completes
                            && let Some(closed) = appender.table.next_sealed(NOW + LINGER)
                        {
                            black_box(closed).release(1, |()| ());
                        }
                    }
                },
                BatchSize::PerIteration,
            );
        });
    }
    // As many traces as are open in a server under this load, so that they are as warm in its caches.
    let open = records.get(..RECORDS_OPEN).expect("as many records");
    group.throughput(Throughput::Elements(open.len() as u64));
    for (name, shaped) in [
        ("seal and render", true),
        ("seal and render, shape unknown", false),
    ] {
        group.bench_function(name, |b| {
            b.iter_batched_ref(
                || (filled(open, shaped), Vec::with_capacity(2 << 20)),
                |(table, out)| {
                    assert_eq!(
                        u64::from(render(table, &shapes, out, |_, _, _| ())),
                        open.len() as u64
                    );
                },
                BatchSize::LargeInput,
            );
        });
    }
    group.bench_function("seal, render and frame for _bulk", |b| {
        let output = Elasticsearch::open(ElasticsearchConfig::default(), RULES).expect("an output");
        let mut framing = output.framing();
        b.iter_batched_ref(
            || (filled(open, true), Vec::with_capacity(2 << 20)),
            |(table, out)| {
                render(table, &shapes, out, |out, key, first| {
                    framing.write_prefix(out, &document_id(key), first, DestinationId::DEFAULT);
                })
            },
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

/// Two documents of one trace, of its first and its last lines.
fn halves() -> (Vec<u8>, Vec<u8>) {
    let (shapes, records) = routed(&bodies());
    let key = &records[0].key;
    let mine: Vec<_> = records.iter().filter(|routed| routed.key == *key).collect();
    let (first, last) = mine.split_at(mine.len() / 2);
    let document = |lines: &[&Routed]| {
        let mut appender = Appender::new(true);
        lines.iter().for_each(|routed| appender.append(routed));
        let mut closed = appender
            .table
            .seal_any(0, SealReason::Completed)
            .expect("a trace");
        let (mut out, mut scratch) = (Vec::new(), Scratch::default());
        let (gathered, _) = closed.content(NOW, &mut scratch);
        Renderer::default().trace(&mut out, &FieldNames::default(), &shapes, gathered, |_, _| ());
        closed.release(1, |()| ());
        out
    };
    (document(first), document(last))
}

fn beside(c: &mut Criterion) {
    let (a, b) = halves();
    c.bench_function("document/union of two", |bench| {
        bench.iter(|| union(black_box(&a), black_box(&b)).expect("ours"));
    });
    let chunks = chunks(Mode::Gzip);
    let mut group = c.benchmark_group("record");
    group
        .sample_size(20)
        .throughput(Throughput::Elements(load(Mode::Gzip).total()));
    group.bench_function("decompress gzip", |bench| {
        let mut decompressor = Decompressor::new();
        bench.iter(|| {
            let mut bytes = 0;
            for chunk in &chunks {
                for message in messages(chunk, FrameLimits::default()) {
                    if let Payload::Compressed {
                        compression,
                        bytes: small,
                    } = message.expect("a message").payload(100)
                    {
                        bytes += decompressor
                            .decompress(compression, small, 1 << 30)
                            .expect("in bounds")
                            .bytes
                            .len();
                    }
                }
            }
            bytes
        });
    });
    group.finish();
}

criterion_group!(benches, stages, beside);
criterion_main!(benches);
