//! `windrow-testkit`: the test kit's loads, fakes and real nodes on the command line.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use windrow_testkit::check::{Stored, compare};
use windrow_testkit::elasticsearch::{Client, Kind, Node};
use windrow_testkit::fake_elasticsearch::{FakeElasticsearch, Faults};
use windrow_testkit::load::{Entries, Load, Mode, Time};

#[derive(Parser)]
#[command(about = "Loads, fakes and real nodes for trying Windrow by hand")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Send a load with a ledger; with --check compare it with what an Elasticsearch holds in the
    /// end
    Send(Send),
    /// Run a fake Elasticsearch with faults, until interrupted
    FakeElasticsearch(FaultArgs),
    /// Run a real node from Maven Central, until interrupted
    Node {
        /// Which
        #[arg(value_enum, default_value = "elasticsearch")]
        kind: NodeKind,
        /// Where it listens on loopback
        #[arg(long, default_value_t = 9200)]
        port: u16,
    },
}

#[derive(clap::Args)]
struct Send {
    /// Where to; given several times, the connections are dealt over them
    #[arg(long, default_value = "127.0.0.1:24224")]
    address: Vec<SocketAddr>,
    #[arg(long, default_value_t = 1000)]
    traces: u64,
    /// Lines of one trace
    #[arg(long, default_value_t = 5)]
    lines: u32,
    #[arg(long, default_value_t = 2)]
    connections: u64,
    #[arg(long, default_value_t = 500)]
    chunk_records: u32,
    #[arg(long, value_enum, default_value = "packed")]
    mode: SendMode,
    /// Entries as Fluent Bit 5.1 sends them by default
    #[arg(long)]
    v2: bool,
    /// Times in whole seconds
    #[arg(long)]
    whole_seconds: bool,
    #[arg(long)]
    no_ack: bool,
    #[arg(long, default_value_t = 1)]
    window: usize,
    /// Every trace id begins with it
    #[arg(long, default_value = "t")]
    prefix: String,
    #[arg(long, default_value_t = 1)]
    repeat: usize,
    /// The lines of one trace go over all connections
    #[arg(long)]
    spread: bool,
    /// Records per second, 0 = no bound
    #[arg(long, default_value_t = 0)]
    rate: u64,
    /// Reconnect after this many chunks, 0 = never
    #[arg(long, default_value_t = 0)]
    reconnect: usize,
    /// Elasticsearch URL whose `--index` pattern is compared with the ledger in the end
    #[arg(long)]
    check: Option<String>,
    #[arg(long, default_value = "requests-*")]
    index: String,
}

#[derive(clap::Args)]
struct FaultArgs {
    #[arg(long, default_value_t = 0)]
    refuse_every: u64,
    #[arg(long, default_value_t = 0)]
    unavailable_every: u64,
    #[arg(long, default_value_t = 0)]
    lose_answer_every: u64,
    #[arg(long, default_value_t = 0)]
    item_429_every: u64,
    #[arg(long, default_value_t = 0)]
    delay_ms: u64,
}

#[derive(Clone, Copy, ValueEnum)]
enum SendMode {
    Message,
    Forward,
    Packed,
    Gzip,
}

#[derive(Clone, Copy, ValueEnum)]
enum NodeKind {
    Elasticsearch,
    Elasticsearch9,
    Opensearch,
}

fn main() {
    match Cli::parse().command {
        Command::Send(options) => send(&options),
        Command::FakeElasticsearch(options) => {
            let fake = FakeElasticsearch::with(Faults {
                refuse_every: options.refuse_every,
                unavailable_every: options.unavailable_every,
                lose_answer_every: options.lose_answer_every,
                item_429_every: options.item_429_every,
                delay: Duration::from_millis(options.delay_ms),
                ..Faults::default()
            });
            println!("READY {}", fake.url());
            until_interrupted(|| println!("{} documents, {:?}", fake.documents("").len(), fake.counts()));
        }
        Command::Node { kind, port } => {
            let kind = match kind {
                NodeKind::Elasticsearch => Kind::ELASTICSEARCH,
                NodeKind::Elasticsearch9 => Kind::ELASTICSEARCH_9,
                NodeKind::Opensearch => Kind::OPENSEARCH,
            };
            match Node::start_on(kind, port) {
                Ok(node) => {
                    println!("READY {}", node.url());
                    until_interrupted(|| {});
                }
                Err(missing) => {
                    eprintln!("{missing}");
                    std::process::exit(1);
                }
            }
        }
    }
}

fn send(options: &Send) {
    let Some(&first) = options.address.first() else {
        return;
    };
    let load = Load {
        addresses: options.address.clone(),
        traces: options.traces,
        lines: options.lines,
        connections: options.connections,
        chunk_records: options.chunk_records,
        mode: match options.mode {
            SendMode::Message => Mode::Message,
            SendMode::Forward => Mode::Forward,
            SendMode::Packed => Mode::Packed,
            SendMode::Gzip => Mode::Gzip,
        },
        entries: if options.v2 { Entries::V2 } else { Entries::V1 },
        time: if options.whole_seconds {
            Time::Integer
        } else {
            Time::EventTime
        },
        acks: !options.no_ack,
        window: options.window,
        repeat: options.repeat,
        spread: options.spread,
        rate: options.rate,
        reconnect: options.reconnect,
        ..Load::new(first, &options.prefix)
    };
    let report = load.run();
    println!(
        "{} acknowledged in {:.2} s, ack p50 {:.2} ms, p99 {:.2} ms, {} resent, {} connections {:?}",
        report.ledger.acknowledged(),
        report.seconds,
        report.latency_ms(0.5),
        report.latency_ms(0.99),
        report.resent,
        report.connects,
        report.refusals
    );
    if let Some(url) = &options.check {
        let client = Client::new(url.trim_end_matches('/').to_owned());
        let documents = |pattern: &str| -> Vec<Stored> { client.documents(pattern) };
        let verdict = compare(&report.ledger, &documents(&options.index));
        println!("{verdict}");
        if !verdict.is_clean() {
            std::process::exit(1);
        }
    }
}

/// Until standard input closes; a line on it shows where things stand.
fn until_interrupted(status: impl Fn()) {
    for line in std::io::stdin().lines() {
        if line.is_err() {
            return;
        }
        status();
    }
}
