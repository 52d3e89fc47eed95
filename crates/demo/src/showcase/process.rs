//! Ending of child processes.

use std::time::Duration;

use tokio::{process::Child, time::timeout};

/// A process that has not ended this long after SIGTERM is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);

/// Sends SIGTERM, and SIGKILL when the process does not end in time.
pub(super) async fn terminate(child: &mut Child) {
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
