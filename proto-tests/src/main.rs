//! The command line program `forward-conformance`: runs the suite and prints the report.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use proto_tests::client_cases::{self, ClientOptions, ServerTls};
use proto_tests::{Action, Expectations, Hooks, Options, Report, Security, Sink, Target, Tls};

/// Runs the Forward protocol conformance cases against a server (or, with `serve-cases`, a client).
#[derive(Parser)]
#[command(
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the client cases: scripted servers to which an adapter program connects.
    ServeCases(ClientArgs),
}

#[derive(Args)]
struct ClientArgs {
    /// Adapter program, run by `sh -c` once for each client of a case (contract: README.md).
    #[arg(long, value_name = "CMD", required_unless_present = "list")]
    client: Option<String>,
    /// Certificate chain of the scripted server, PEM, for the name server.example.
    #[arg(long, requires = "tls_key", requires = "ca")]
    tls_cert: Option<PathBuf>,
    /// Key of the scripted server, PEM.
    #[arg(long)]
    tls_key: Option<PathBuf>,
    /// Certificate authority that the client trusts, PEM.
    #[arg(long)]
    ca: Option<PathBuf>,
    /// Client certificate chain, PEM, signed by --ca; the scripted server then requires it.
    #[arg(long, requires = "client_key")]
    client_cert: Option<PathBuf>,
    /// Client key, PEM.
    #[arg(long)]
    client_key: Option<PathBuf>,
    /// Only these cases: numbers, ranges and name globs, separated by commas.
    #[arg(long, default_value = "")]
    filter: String,
    /// How many cases run at once.
    #[arg(long, default_value_t = 4)]
    parallel: usize,
    /// Seconds to wait for an expected action of the client.
    #[arg(long, alias = "patience", default_value_t = 10)]
    reply_timeout: u64,
    /// TOML file with the failures that are expected of this client, each with its reason.
    #[arg(long)]
    expectations: Option<PathBuf>,
    /// Write the report as JSON to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// List the cases and exit.
    #[arg(long)]
    list: bool,
}

#[derive(Args)]
struct ServerArgs {
    /// Forward listener of the server under test.
    #[arg(long, value_name = "HOST:PORT", required_unless_present = "list")]
    target: Option<String>,
    /// Address that answers UDP heartbeats.
    #[arg(long, value_name = "HOST:PORT")]
    udp: Option<String>,
    /// Shared key of the server; without it the suite does no handshake.
    #[arg(long)]
    shared_key: Option<String>,
    /// A configured user (repeatable).
    #[arg(long, value_name = "NAME:PASSWORD", requires = "shared_key")]
    user: Vec<String>,
    /// The key that the server has configured for this machine's network instead of --shared-key.
    #[arg(long, requires = "shared_key")]
    network_key: Option<String>,
    /// Speak TLS.
    #[arg(long)]
    tls: bool,
    /// Certificate authority of the server, PEM; without it the certificate is not verified.
    #[arg(long, requires = "tls")]
    ca: Option<PathBuf>,
    /// Client certificate chain, PEM.
    #[arg(long, requires = "tls", requires = "client_key")]
    client_cert: Option<PathBuf>,
    /// Client key, PEM.
    #[arg(long, requires = "client_cert")]
    client_key: Option<PathBuf>,
    /// Name in the server's certificate, when it is not the host of --target.
    #[arg(long, requires = "tls")]
    server_name: Option<String>,
    /// Where delivered events can be read: windrow-logs=http://HOST:PORT, file=PATH, none.
    #[arg(long, default_value = "none")]
    sink: Sink,
    /// Process id of the server, to watch its memory.
    #[arg(long)]
    pid: Option<u32>,
    /// Command that acts on the server (repeatable): kill-restart, stop-restart, starve, feed.
    #[arg(long, value_name = "NAME=CMD")]
    hook: Vec<String>,
    /// The server's limit on one message, in bytes.
    #[arg(long)]
    message_limit: Option<usize>,
    /// The server's limit on a decompressed payload, in bytes.
    #[arg(long)]
    decompressed_limit: Option<u64>,
    /// The server's limit on connections.
    #[arg(long)]
    connection_limit: Option<usize>,
    /// Seconds after which the server closes a connection whose partial message makes no progress.
    #[arg(long)]
    progress_timeout: Option<u64>,
    /// Seconds after which the server closes an unfinished handshake [default: 10].
    #[arg(long)]
    handshake_timeout: Option<u64>,
    /// The server deduplicates chunks.
    #[arg(long)]
    dedupe: bool,
    /// Only these cases: numbers, ranges and name globs, separated by commas.
    #[arg(long, default_value = "")]
    filter: String,
    /// How many cases run at once.
    #[arg(long, default_value_t = 8)]
    parallel: usize,
    /// Seconds to wait for a reply.
    #[arg(long, alias = "patience", default_value_t = 5)]
    reply_timeout: u64,
    /// Seconds to wait for events to appear in the sink.
    #[arg(long, alias = "sink-patience", default_value_t = 15)]
    sink_timeout: u64,
    /// Also run the cases that take a minute or more.
    #[arg(long)]
    slow: bool,
    /// Number of connections in the case many-connections.
    #[arg(long, default_value_t = 10_000)]
    many_connections: usize,
    /// TOML file with the failures that are expected of this server, each with its reason.
    #[arg(long)]
    expectations: Option<PathBuf>,
    /// Write the report as JSON to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// List the cases and exit.
    #[arg(long)]
    list: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Some(Command::ServeCases(args)) => client(args).await,
        None => server(cli.server).await,
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("forward-conformance: {e}");
            ExitCode::from(2)
        }
    }
}

async fn server(args: ServerArgs) -> Result<bool, String> {
    if args.list {
        for case in proto_tests::server_cases() {
            println!(
                "{:>3}  {:<34} {}  [{}]",
                case.number, case.name, case.text, case.source
            );
        }
        return Ok(true);
    }
    let expectations = read_expectations(args.expectations.as_ref())?;
    let options = Options {
        filter: args.filter.clone(),
        parallel: args.parallel,
        reply_timeout: Duration::from_secs(args.reply_timeout),
        sink_timeout: Duration::from_secs(args.sink_timeout),
        slow: args.slow,
        many_connections: args.many_connections,
        ..Options::default()
    };
    let json = args.json.clone();
    let target = target(args)?;
    let report = proto_tests::run_expecting(&target, &options, &expectations).await;
    finish(&report, json)
}

async fn client(args: ClientArgs) -> Result<bool, String> {
    if args.list {
        for case in client_cases::all() {
            println!(
                "{:>3}  {:<24} {}  [{}]",
                case.number, case.name, case.text, case.source
            );
        }
        return Ok(true);
    }
    let expectations = read_expectations(args.expectations.as_ref())?;
    let mut options = ClientOptions::new(args.client.unwrap_or_default());
    options.filter = args.filter;
    options.parallel = args.parallel;
    options.reply_timeout = Duration::from_secs(args.reply_timeout);
    if let (Some(chain), Some(key), Some(ca)) = (args.tls_cert, args.tls_key, args.ca) {
        options.tls = Some(ServerTls {
            chain,
            key,
            ca,
            client: args.client_cert.zip(args.client_key),
        });
    }
    let report = client_cases::run(&options, &expectations).await;
    finish(&report, args.json)
}

fn target(args: ServerArgs) -> Result<Target, String> {
    let mut target = Target::new(args.target.unwrap_or_default());
    target.udp = args.udp;
    target.sink = args.sink;
    target.pid = args.pid;
    target.declared.message_bytes = args.message_limit;
    target.declared.decompressed_bytes = args.decompressed_limit;
    target.declared.connections = args.connection_limit;
    target.declared.progress_timeout = args.progress_timeout.map(Duration::from_secs);
    target.declared.handshake_timeout = args.handshake_timeout.map(Duration::from_secs);
    target.declared.dedupe = args.dedupe;
    if let Some(shared_key) = args.shared_key {
        let user = |text: &String| {
            let pair = text
                .split_once(':')
                .ok_or_else(|| format!("--user {text}: want NAME:PASSWORD"))?;
            Ok::<_, String>((pair.0.to_owned(), pair.1.to_owned()))
        };
        let users = args.user.iter().map(user).collect::<Result<_, _>>()?;
        target.security = Some(Security {
            shared_key,
            users,
            network_key: args.network_key,
        });
    }
    if args.tls {
        let client = args.client_cert.zip(args.client_key);
        target.tls = Some(Tls {
            ca: args.ca,
            client,
            server_name: args.server_name,
        });
    }
    for hook in args.hook {
        let (name, command) = hook
            .split_once('=')
            .ok_or_else(|| format!("--hook {hook}: want NAME=CMD"))?;
        let action = Action::NAMES.iter().find(|(known, _)| *known == name);
        let (_, action) = action.ok_or_else(|| format!("--hook {name}: no such hook"))?;
        target.hooks.set(*action, Hooks::shell(command.to_owned()));
    }
    Ok(target)
}

fn read_expectations(path: Option<&PathBuf>) -> Result<Expectations, String> {
    let Some(path) = path else {
        return Ok(Expectations::default());
    };
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    Expectations::parse(&text).map_err(|e| format!("{}: {e}", path.display()))
}

fn finish(report: &Report, json: Option<PathBuf>) -> Result<bool, String> {
    print!("{}", report.text());
    if let Some(path) = json {
        let text = format!("{:#}\n", report.json());
        std::fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(report.is_good())
}
