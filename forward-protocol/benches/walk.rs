//! Time per record of the server's read path: framing, walking entries, visiting pairs.
//!
//! 4096 different records of 276 bytes with 8 fields; the time per element is the time per record.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use forward_protocol::encode::{EntryStream, write_entry, write_forward, write_packed};
use forward_protocol::entries::{Entries, Key, MapPairs, Pair, Visitor, WireKey};
use forward_protocol::frame::{Framer, Limits, messages};
use forward_protocol::msgpack::{skip, write_map_len, write_str, write_u64};

const RECORDS: u32 = 4096;
const ENTRY_BYTES: usize = 276;

/// Entries of exactly [`ENTRY_BYTES`] bytes each.
fn stream(metadata: bool) -> Vec<u8> {
    let mut out = Vec::new();
    for n in 0..RECORDS {
        let message = format!("GET /api/orders/{n} answered \"200 OK\" to user {}: ", n % 97);
        let trace = format!(
            "{:032x}",
            u128::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
        );
        let mut pad = 0;
        loop {
            let mut record = Vec::new();
            write_map_len(&mut record, 8);
            for (key, value) in [
                ("traceId", trace.as_str()),
                ("spanId", &trace[..16]),
                ("level", "INFO"),
                ("logger", "com.example.orders.OrderController"),
                ("thread", "http-nio-8080-exec-7"),
                ("host", "orders-7d9f6c5b8-x2x4k"),
                ("message", &format!("{message}{}", "x".repeat(pad))),
            ] {
                write_str(&mut record, key.as_bytes());
                write_str(&mut record, value.as_bytes());
            }
            write_str(&mut record, b"durationMs");
            write_u64(&mut record, u64::from(n % 128));
            let mut entry = Vec::new();
            let time = 1_700_000_000_000_000_000 + i64::from(n) * 1_000_003;
            write_entry(&mut entry, time, metadata.then_some(&[0x80]), &record);
            let missing = (ENTRY_BYTES + 2 * usize::from(metadata)).saturating_sub(entry.len());
            if missing == 0 {
                out.extend(entry);
                break;
            }
            pad += missing;
        }
    }
    out
}

/// Keeps the trace id, as a gathering server does.
#[derive(Default)]
struct TraceId<'a>(Option<&'a [u8]>);

impl<'a> Visitor<'a, '_> for TraceId<'a> {
    fn record(&mut self, _pairs: u32) -> &'static [WireKey] {
        self.0 = None;
        &[]
    }

    #[inline]
    fn pair(&mut self, _number: usize, pair: Pair<'a>) {
        if let Key::Text(b"traceId") = pair.key {
            self.0 = Some(pair.value);
        }
    }
}

fn walk(c: &mut Criterion) {
    let v1 = stream(false);
    let v2 = stream(true);
    println!("bytes per entry: {}", v1.len() / RECORDS as usize);
    let mut group = c.benchmark_group("record");
    group.throughput(Throughput::Elements(u64::from(RECORDS)));

    group.bench_function("skip", |b| {
        b.iter(|| {
            let (mut at, mut n) = (0, 0u32);
            while at < v1.len() {
                at = skip(black_box(&v1), at, 100).expect("a value");
                n += 1;
            }
            assert_eq!(n, RECORDS);
        });
    });
    for (name, bytes) in [
        ("entries, [time, record]", &v1),
        ("entries, [[time, {}], record]", &v2),
    ] {
        group.bench_function(name, |b| {
            b.iter(|| {
                let mut sum = 0;
                for entry in Entries::new(black_box(bytes), 100) {
                    let entry = entry.expect("an entry");
                    sum += entry.record.len();
                    black_box(entry.time);
                }
                sum
            });
        });
    }
    group.bench_function("entries, visiting pairs for the trace id", |b| {
        b.iter(|| {
            let mut entries = Entries::new(black_box(&v1), 100);
            let mut trace = TraceId::default();
            let mut sum = 0;
            while let Some(entry) = entries.next_with(&mut trace) {
                black_box(entry.expect("an entry").time);
                sum += trace.0.map_or(0, <[u8]>::len);
            }
            sum
        });
    });
    group.bench_function("entries, then all pairs", |b| {
        b.iter(|| {
            let mut sum = 0;
            for entry in Entries::new(black_box(&v1), 100) {
                for pair in MapPairs::new(entry.expect("an entry").record) {
                    sum += pair.value.len();
                }
            }
            sum
        });
    });

    let entries = EntryStream {
        bytes: &v2,
        count: RECORDS,
    };
    let (mut forward, mut packed) = (Vec::new(), Vec::new());
    write_forward(&mut forward, b"app", entries, None);
    write_packed(&mut packed, b"app", entries, None);
    group.bench_function("framing Forward mode", |b| {
        b.iter(|| Framer::new(Limits::default()).scan(black_box(&forward)).end);
    });
    group.bench_function("framing and reading the head again, PackedForward", |b| {
        b.iter(|| {
            let run = Framer::new(Limits::default()).scan(black_box(&packed));
            messages(&packed[..run.end], Limits::default()).count()
        });
    });
    group.finish();
}

criterion_group!(benches, walk);
criterion_main!(benches);
