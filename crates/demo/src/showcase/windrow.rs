//! The Windrow process of the showcase: started, killed, and started again on the same addresses
//! and data.

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
    time::timeout,
};

use super::process::terminate;
use crate::Error;

/// Windrow must say within this where it listens.
const START_TIMEOUT: Duration = Duration::from_secs(30);

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
        // It may have died by itself; then there is nothing to kill, and that shows in what is
        // missing.
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
        // Ctrl-C is for the showcase, which stops its processes in order.
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
