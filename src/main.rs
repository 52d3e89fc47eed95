//! The `windrow` program: a table of contents. Everything else is in the library.

use std::io::Write;
use std::process::ExitCode;

use windrow::cli::{self, Cli, Command};
use windrow::config::ProcessEnvironment;
use windrow::{exit, logging, serve};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
    let cli = match Cli::read(std::env::args_os(), &mut out, &mut err) {
        Ok(cli) => cli,
        Err(code) => return code.into(),
    };
    let (command, settings) = cli.into_parts();
    let loaded = || settings.load(&ProcessEnvironment);
    let code = match command {
        Command::Check(check) if check.reference => cli::reference(&mut out),
        Command::Check(_) => cli::check(loaded(), &mut out, &mut err),
        Command::Health(health) => match loaded() {
            Ok(loaded) => cli::health(&health, &loaded.config, &mut out, &mut err),
            Err(mistakes) => cli::report(&mistakes, &mut err),
        },
        Command::Serve(_) => match loaded() {
            Ok(loaded) => match logging::init(&loaded.config.log) {
                Ok(_) => {
                    logging::announce(&loaded);
                    serve::serve(loaded.config)
                }
                Err(error) => {
                    writeln!(err, "windrow: cannot log: {error}").ok();
                    exit::FAILURE
                }
            },
            Err(mistakes) => cli::report(&mistakes, &mut err),
        },
    };
    code.into()
}
