//! The programs that the showcase starts: Windrow and Fluent Bit. Each dies with the showcase.

use std::{
    env, fs,
    fs::File,
    io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, ChildStdout, Command},
    sync::oneshot,
    task::JoinHandle,
    time::timeout,
};

use crate::Error;

/// A Windrow that can be killed and started again on the same addresses with the same data.
#[derive(Debug)]
pub(super) struct Windrow {
    program: PathBuf,
    folder: PathBuf,
    output: Vec<String>,
    forward: String,
    admin: String,
    child: Child,
}

impl Windrow {
    pub(super) async fn start(
        program: &Path,
        folder: &Path,
        elasticsearch: Option<&str>,
    ) -> Result<Self, Error> {
        let output = match elasticsearch {
            Some(url) => vec![
                "--output".into(),
                "elasticsearch".into(),
                "--elasticsearch-url".into(),
                url.into(),
            ],
            None => vec!["--output".into(), "sqlite".into()],
        };
        // It is started in another folder; a bare name is looked for on the PATH.
        let program = match program.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => {
                std::path::absolute(program).map_err(Error::io("the current folder"))?
            }
            _ => program.to_owned(),
        };
        let started = spawn(&program, folder, &output, "127.0.0.1:0", "127.0.0.1:0").await?;
        Ok(Self {
            program,
            folder: folder.to_owned(),
            output,
            forward: started.forward,
            admin: started.admin,
            child: started.child,
        })
    }

    /// `host:port` for Forward.
    pub(super) fn forward(&self) -> &str {
        &self.forward
    }

    /// The address of its pages, without a slash at the end.
    pub(super) fn admin(&self) -> &str {
        &self.admin
    }

    /// SIGKILL.
    pub(super) async fn kill(&mut self) {
        // It may have died by itself; then there is nothing to kill, and that shows in what is missing.
        let _ = self.child.kill().await;
    }

    /// On the same addresses and data.
    pub(super) async fn start_again(&mut self) -> Result<(), Error> {
        let admin = self.admin.trim_start_matches("http://").to_owned();
        let started = spawn(&self.program, &self.folder, &self.output, &self.forward, &admin).await?;
        self.child = started.child;
        Ok(())
    }

    pub(super) async fn stop(mut self) {
        terminate(&mut self.child).await;
    }
}

struct Started {
    child: Child,
    forward: String,
    admin: String,
}

async fn spawn(
    program: &Path,
    folder: &Path,
    output: &[String],
    forward: &str,
    admin: &str,
) -> Result<Started, Error> {
    let log_path = folder.join("windrow.log");
    let log = File::options().create(true).append(true).open(&log_path);
    let log = log.map_err(Error::io(format!("cannot write {}", log_path.display())))?;
    let mut command = Command::new(program);
    command
        .arg("serve")
        .args(["--listen", forward, "--admin", admin, "--data-dir"])
        .arg(folder.join("windrow"));
    command
        .args(output)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log);
    // Settings that the user has for a real Windrow are not for this one.
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("WINDROW_") {
            command.env_remove(name);
        }
    }
    let mut child = command
        // Ctrl-C is for the showcase, which stops what it has started in its own order.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(Error::io(format!("cannot start {}", program.display())))?;
    let stdout = child.stdout.take().map(BufReader::new);
    let announced = match stdout {
        Some(mut stdout) => {
            let announced = timeout(START_TIMEOUT, addresses(&mut stdout))
                .await
                .ok()
                .flatten();
            // Read on, or it would block on a full pipe.
            tokio::spawn(async move { while next_line(&mut stdout).await.is_some() {} });
            announced
        }
        None => None,
    };
    match announced {
        Some((forward, admin)) => Ok(Started {
            child,
            forward,
            admin,
        }),
        None => {
            let log = fs::read_to_string(&log_path).unwrap_or_default();
            let last: Vec<&str> = log.lines().rev().take(5).collect();
            let last: Vec<&str> = last.into_iter().rev().collect();
            let source = io::Error::other(format!(
                "it did not say where it listens; its log ends:\n{}",
                last.join("\n")
            ));
            Err(Error::Io {
                what: format!("{} serve", program.display()),
                source,
            })
        }
    }
}

/// The two addresses that `windrow serve` prints; none when its output ends before.
async fn addresses(stdout: &mut BufReader<ChildStdout>) -> Option<(String, String)> {
    let (mut forward, mut admin) = (None, None);
    while forward.is_none() || admin.is_none() {
        let line = next_line(stdout).await?;
        if let Some(address) = line.strip_prefix("forward listening on ") {
            forward = Some(address.trim().to_owned());
        }
        if let Some(address) = line.strip_prefix("admin listening on ") {
            admin = Some(address.trim().trim_end_matches('/').to_owned());
        }
    }
    forward.zip(admin)
}

async fn next_line(stdout: &mut BufReader<ChildStdout>) -> Option<String> {
    let mut line = String::new();
    match stdout.read_line(&mut line).await {
        Ok(0) | Err(_) => None,
        Ok(_) => Some(line),
    }
}

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

/// A Fluent Bit with `fluent-bit/sidecar.conf`, the very file that users copy. One that ends by itself is started again
/// with the state that it left, as a container's supervisor would do.
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
        forward: &str,
    ) -> Result<Self, Error> {
        let about = |what: &str| Error::io(format!("Fluent Bit of {service}: {what}"));
        let home = folder.join(format!("fluent-bit-{service}"));
        fs::create_dir_all(home.join("state")).map_err(about("its folder"))?;
        fs::write(
            home.join("sidecar.conf"),
            include_str!("../../fluent-bit/sidecar.conf"),
        )
        .and_then(|()| {
            fs::write(
                home.join("parsers.conf"),
                include_str!("../../fluent-bit/parsers.conf"),
            )
        })
        .map_err(about("its configuration"))?;
        let (host, port) = forward.rsplit_once(':').unwrap_or((forward, "24224"));
        let mut command = Command::new(program);
        command
            .args(["-c", "sidecar.conf"])
            .env("LOG_PATH", log)
            .env("STATE_DIR", home.join("state"))
            .envs([("WINDROW_HOST", host), ("WINDROW_PORT", port)])
            .envs([
                ("SERVICE_NAME", service),
                ("ENVIRONMENT", super::apps::ENVIRONMENT),
            ])
            .current_dir(&home)
            .stdin(Stdio::null())
            .process_group(0)
            .kill_on_drop(true);
        let output = home.join("fluent-bit.log");
        let child =
            begin(&mut command, &output).map_err(about(&format!("cannot start {}", program.display())))?;
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(keep(child, command, output, service.to_owned(), stopped));
        Ok(Self { stop, running })
    }

    pub(super) async fn stop(self) {
        let _ = self.stop.send(());
        let _ = self.running.await;
    }
}

/// Starts it; each time with another port of its own, since somebody else may have taken the last one.
fn begin(command: &mut Command, output: &Path) -> io::Result<Child> {
    let output = File::options().create(true).append(true).open(output)?;
    command
        .env("HTTP_PORT", free_port()?.to_string())
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()
}

/// Starts it again whenever it ends, until it is told to stop.
async fn keep(
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
                tokio::time::sleep(RESTART).await;
                match begin(&mut command, &output) {
                    Ok(again) => child = again,
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

/// SIGTERM, and SIGKILL when that does not help.
async fn terminate(child: &mut Child) {
    let pid = child
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid
        && rustix::process::kill_process(pid, rustix::process::Signal::TERM).is_ok()
        && timeout(STOP_TIMEOUT, child.wait()).await.is_ok()
    {
        return;
    }
    let _ = child.kill().await;
}

/// Before a Fluent Bit that ended is started again.
const RESTART: Duration = Duration::from_secs(1);
const START_TIMEOUT: Duration = Duration::from_secs(30);
const STOP_TIMEOUT: Duration = Duration::from_secs(15);
