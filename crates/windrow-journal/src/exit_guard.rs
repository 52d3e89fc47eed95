//! Guard of the writer thread: nobody waits for a writer that has ended.

use std::sync::Arc;

use tracing::error;

use crate::shared::Shared;
use crate::sync::lock;
use crate::usage::Blocked;

/// Refuses all appends when the writer thread ends, by a panic too.
pub(crate) struct ExitGuard(pub(crate) Arc<Shared>);

impl Drop for ExitGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            error!("the journal's writer thread panicked: nothing is accepted until Windrow is restarted");
            let text = "the journal's writer thread panicked; restart Windrow".into();
            let mut state = lock(&self.0.state);
            state.blocked = Some(Blocked::Failing(text));
            state.panicked_thread = Some("writer");
        }
        self.0.queue.close_and_refuse();
    }
}
