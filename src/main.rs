//! Entry point of the `windrow` program: runs the command of the command line. Everything else is
//! in the library.

use std::io::Write;
use std::process::ExitCode;

use windrow::cli::{self, Cli, Command};
use windrow::config::ProcessEnvironment;
use windrow::{exit, logging, serve};
use windrow_bench::Failure;

mod allocator_options;

/// Connections of the largest case of `windrow bench`.
const MAX_BENCH_CONNECTIONS: u64 = 1000;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
    let cli = match Cli::read(std::env::args_os(), &mut out, &mut err) {
        Ok(cli) => cli,
        Err(code) => return code.into(),
    };
    let (command, settings) = cli.into_parts();
    if matches!(command, Command::Serve(_)) {
        allocator_options::apply();
    }
    let code = match command {
        Command::Check(check) if check.reference => cli::reference(&mut out),
        Command::Check(check) if check.connect => {
            cli::connect(settings.load(&ProcessEnvironment), &mut out, &mut err)
        }
        Command::Check(_) => cli::check(settings.load(&ProcessEnvironment), &mut out, &mut err),
        Command::Health(health) => match settings.load(&ProcessEnvironment) {
            Ok(loaded) => cli::health(&health, &loaded.config, &mut out, &mut err),
            Err(errors) => cli::report(&errors, &mut err),
        },
        Command::Replay(replay) => match settings.load(&ProcessEnvironment) {
            Ok(loaded) => cli::replay(&replay, &loaded.config, &mut out, &mut err),
            Err(errors) => cli::report(&errors, &mut err),
        },
        Command::Search(options) => cli::search(&options, &settings, &ProcessEnvironment, &mut out, &mut err),
        Command::Trace(options) => cli::trace(&options, &settings, &ProcessEnvironment, &mut out, &mut err),
        Command::Tail(options) => cli::tail(&options, &settings, &ProcessEnvironment, &mut out, &mut err),
        Command::Top(options) => cli::top(&options, &settings, &ProcessEnvironment, &mut out, &mut err),
        Command::Demo(options) => demo(&options),
        Command::Journal(cli::Journal::Inspect { dir }) => match settings.load(&ProcessEnvironment) {
            Ok(loaded) => cli::inspect(&dir, &loaded.config, &mut out, &mut err),
            Err(errors) => cli::report(&errors, &mut err),
        },
        Command::Bench(options) => {
            serve::raise_file_limit(MAX_BENCH_CONNECTIONS);
            match windrow_bench::run(&options, &mut out, &mut err) {
                Ok(()) => exit::OK,
                Err(Failure::Usage) => exit::USAGE,
                Err(Failure::Measurement) => exit::FAILURE,
            }
        }
        Command::BenchFloor(options) => match windrow_bench::baseline::run(&options) {
            Ok(()) => exit::OK,
            Err(error) => {
                writeln!(err, "windrow bench-floor: {error}").ok();
                exit::FAILURE
            }
        },
        Command::Serve(_) => match settings.load(&ProcessEnvironment) {
            Ok(loaded) => match logging::init(&loaded.config.log) {
                Ok(logging) => {
                    logging::announce(&loaded);
                    let writer = logging.writer();
                    let secrets = loaded.config.secrets_from_files();
                    let reload = move || {
                        for secret in &secrets {
                            if let Err(reason) = secret.reload() {
                                tracing::error!(reason, "cannot reload a secret; the old one stays in use");
                            }
                        }
                        match settings.load(&ProcessEnvironment) {
                            Ok(fresh) => {
                                if let Err(error) = logging.set_level(&fresh.config.log.level) {
                                    tracing::error!(%error, "cannot set the log level; the old one stays in use");
                                }
                            }
                            Err(errors) => tracing::error!("cannot reload the configuration:\n{errors}"),
                        }
                    };
                    serve::serve(loaded.config, &writer, Box::new(reload))
                }
                Err(error) => {
                    writeln!(err, "windrow: cannot log: {error}").ok();
                    exit::FAILURE
                }
            },
            Err(errors) => cli::report(&errors, &mut err),
        },
    };
    code.into()
}

/// `windrow demo`: runs the showcase, which starts this program again as the server.
fn demo(options: &windrow_demo::showcase::Options) -> u8 {
    let shown = std::env::current_exe()
        .map_err(|error| error.to_string())
        .and_then(|windrow| {
            windrow_demo::showcase::run_to_end(&windrow, options).map_err(|error| error.to_string())
        });
    match shown {
        Ok(report) if report.is_kept() => exit::OK,
        Ok(_) => exit::FAILURE,
        Err(error) => {
            writeln!(std::io::stderr(), "windrow demo: {error}").ok();
            exit::FAILURE
        }
    }
}
