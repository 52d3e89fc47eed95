//! Fluent Bit processes of the showcase: started with the shipped configuration, restarted when
//! they end.

use std::{
    env, fs,
    fs::File,
    io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{
    process::{Child, Command},
    sync::oneshot,
    task::JoinHandle,
};

use super::process::terminate;
use crate::Error;

/// Wait before a Fluent Bit that ended is started again.
const RESTART_DELAY: Duration = Duration::from_secs(1);

/// Time in which a trial must serve its HTTP port.
const TRIAL_TIMEOUT: Duration = Duration::from_secs(15);
const TRIAL_POLL: Duration = Duration::from_millis(50);
/// Lines of its log that are shown when it does not start.
const LAST_LINES: usize = 5;

/// The Fluent Bit to use: the named one, else the first on the PATH.
pub(super) fn find_fluent_bit(named: Option<&Path>) -> Option<PathBuf> {
    if let Some(named) = named.filter(|named| !named.as_os_str().is_empty()) {
        return Some(named.to_owned());
    }
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|folder| folder.join("fluent-bit"))
        .find(|file| file.is_file())
}

/// A Fluent Bit with `fluent-bit/sidecar.conf`, the file that users copy. One that ends by itself
/// is started again with the state that it left, as a container's supervisor does.
#[derive(Debug)]
pub(super) struct FluentBit {
    stop: oneshot::Sender<()>,
    running: JoinHandle<()>,
}

impl FluentBit {
    pub(super) fn start(
        program: &Path,
        folder: &Path,
        log: &Path,
        service: &str,
        environment: &str,
        forward: &str,
    ) -> Result<Self, Error> {
        let (mut command, output) = prepare(program, folder, log, service, environment, forward)?;
        let (child, _) = spawn(&mut command, &output).map_err(Error::io(format!(
            "Fluent Bit of {service}: cannot start {}",
            program.display()
        )))?;
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(supervise(child, command, output, service.to_owned(), stopped));
        Ok(Self { stop, running })
    }

    pub(super) async fn stop(self) {
        let _ = self.stop.send(());
        let _ = self.running.await;
    }
}

/// Starts the program once with the shipped configuration, to learn whether it runs: a build may
/// lack a plugin.
///
/// # Errors
/// Why not, with the last lines of its log.
pub(super) async fn try_out(program: &Path, folder: &Path, forward: &str) -> Result<(), String> {
    let log = folder.join("fluent-bit-trial/app.log");
    let (mut command, output) =
        prepare(program, folder, &log, "trial", "demo", forward).map_err(|error| error.to_string())?;
    let (mut child, port) = spawn(&mut command, &output).map_err(|error| error.to_string())?;
    let serves = async {
        while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            tokio::time::sleep(TRIAL_POLL).await;
        }
    };
    let why = tokio::select! {
        () = serves => None,
        ended = child.wait() => Some(ended.map_or_else(|error| error.to_string(), |status| status.to_string())),
        () = tokio::time::sleep(TRIAL_TIMEOUT) => {
            Some(format!("it did not start within {} s", TRIAL_TIMEOUT.as_secs()))
        }
    };
    terminate(&mut child).await;
    let Some(why) = why else { return Ok(()) };
    let said = fs::read_to_string(&output).unwrap_or_default();
    let lines: Vec<_> = said.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = lines
        .get(lines.len().saturating_sub(LAST_LINES)..)
        .unwrap_or_default();
    Err(format!("{why}\n{}", last.join("\n")))
}

/// The command with its files, and the file of its output.
fn prepare(
    program: &Path,
    folder: &Path,
    log: &Path,
    service: &str,
    environment: &str,
    forward: &str,
) -> Result<(Command, PathBuf), Error> {
    let about = |what: &str| Error::io(format!("Fluent Bit of {service}: {what}"));
    let home = folder.join(format!("fluent-bit-{service}"));
    fs::create_dir_all(home.join("state")).map_err(about("its folder"))?;
    for (name, content) in [
        ("sidecar.conf", include_str!("../../fluent-bit/sidecar.conf")),
        ("parsers.conf", include_str!("../../fluent-bit/parsers.conf")),
    ] {
        fs::write(home.join(name), content).map_err(about("its configuration"))?;
    }
    let (host, port) = forward.rsplit_once(':').unwrap_or((forward, "24224"));
    let mut command = Command::new(program);
    command
        .args(["-c", "sidecar.conf"])
        .env("LOG_PATH", log)
        .env("STATE_DIR", home.join("state"))
        .envs([("WINDROW_HOST", host), ("WINDROW_PORT", port)])
        .envs([("SERVICE_NAME", service), ("ENVIRONMENT", environment)])
        .current_dir(&home)
        .stdin(Stdio::null())
        .process_group(0)
        .kill_on_drop(true);
    Ok((command, home.join("fluent-bit.log")))
}

/// Starts it with a new port for its own HTTP server, since another process may have taken the last
/// one. Returns the port.
fn spawn(command: &mut Command, output: &Path) -> io::Result<(Child, u16)> {
    let output = File::options().create(true).append(true).open(output)?;
    let port = free_port()?;
    let child = command
        .env("HTTP_PORT", port.to_string())
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()?;
    Ok((child, port))
}

/// Starts it again whenever it ends, until it is told to stop.
async fn supervise(
    mut child: Child,
    mut command: Command,
    output: PathBuf,
    service: String,
    mut stopped: oneshot::Receiver<()>,
) {
    loop {
        tokio::select! {
            _ = &mut stopped => {
                terminate(&mut child).await;
                return;
            }
            status = child.wait() => {
                let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
                tracing::warn!("the Fluent Bit of {service} ended ({status}); it is started again");
                tokio::time::sleep(RESTART_DELAY).await;
                match spawn(&mut command, &output) {
                    Ok((again, _)) => child = again,
                    Err(error) => {
                        tracing::error!("the Fluent Bit of {service} cannot be started again: {error}");
                        return;
                    }
                }
            }
        }
    }
}

fn free_port() -> io::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
