//! Log writer: a bounded buffer, and a thread that writes it to standard error.
//!
//! Logging never waits for the reader of standard error: while the buffer is full, lines are dropped
//! and counted.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// Bytes of lines that wait to be written; as many can be on their way.
const MAX_PENDING_BYTES: usize = 1 << 20;

/// Writer of the log. Clones share its buffer and thread.
#[derive(Debug, Clone)]
pub struct LogWriter(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    filled: Condvar,
    written: Condvar,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    pending: Vec<u8>,
    writing: bool,
}

/// Takes the lines of one event.
#[derive(Debug)]
pub struct EventWriter<'a>(&'a Shared);

impl LogWriter {
    /// Starts the thread, which writes to `out`.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(out: impl Write + Send + 'static) -> io::Result<Self> {
        let writer = Self(Arc::default());
        let shared = Arc::clone(&writer.0);
        std::thread::Builder::new()
            .name("log".into())
            .spawn(move || shared.write_to(out))?;
        Ok(writer)
    }

    /// Lines that were dropped because the buffer was full or could not be written.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    /// Waits until everything is written, for at most `limit`; whether it is.
    pub fn flush(&self, limit: Duration) -> bool {
        let unwritten = |state: &mut State| state.writing || !state.pending.is_empty();
        let waited = self.0.written.wait_timeout_while(self.0.lock(), limit, unwritten);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        !unwritten(&mut state)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_to(&self, mut out: impl Write) {
        let mut batch = Vec::new();
        let mut reported = 0;
        loop {
            let mut state = self.lock();
            state.writing = false;
            while state.pending.is_empty() {
                self.written.notify_all();
                state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            std::mem::swap(&mut state.pending, &mut batch);
            state.writing = true;
            drop(state);
            let result = out.write_all(&batch);
            if result.is_err() {
                let lines = batch.iter().filter(|byte| **byte == b'\n').count();
                self.dropped.fetch_add(lines as u64, Ordering::Relaxed);
            }
            batch.clear();
            // Not after an error: the message would fail as well, and bring the next one.
            let dropped = self.dropped.load(Ordering::Relaxed);
            if result.is_ok() && dropped > reported {
                let lines = dropped - reported;
                reported = dropped;
                tracing::warn!(
                    lines,
                    "lines of the log were dropped: standard error was not read in time"
                );
            }
        }
    }
}

impl Write for EventWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.0.lock();
        if state.pending.len() + bytes.len() <= MAX_PENDING_BYTES {
            state.pending.extend_from_slice(bytes);
            drop(state);
            self.0.filled.notify_one();
        } else {
            drop(state);
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = EventWriter<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        EventWriter(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

    use super::*;

    const SOON: Duration = Duration::from_secs(10);
    const SHORT: Duration = Duration::from_millis(50);

    /// A pipe whose reader takes a write only when it is told to.
    struct SlowPipe {
        permits: Receiver<()>,
        read: SyncSender<Vec<u8>>,
    }

    impl Write for SlowPipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.permits.recv().map_err(|_| io::ErrorKind::BrokenPipe)?;
            self.read.send(bytes.to_vec()).ok();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn slow() -> (LogWriter, SyncSender<()>, Receiver<Vec<u8>>) {
        let ((permit, permits), (read, lines)) = (sync_channel(10), sync_channel(10));
        let writer = LogWriter::start(SlowPipe { permits, read }).unwrap();
        (writer, permit, lines)
    }

    #[test]
    fn a_stalled_reader_blocks_nobody_and_dropped_lines_are_counted() {
        let (writer, permit, lines) = slow();
        let line = [&[b'x'; 1023][..], b"\n"].concat();
        let many = 3 * MAX_PENDING_BYTES / line.len();
        for _ in 0..many {
            writer.make_writer().write_all(&line).unwrap();
        }
        let dropped = writer.dropped();
        assert!(dropped >= many as u64 / 3, "{dropped} of {many}");
        assert!(!writer.flush(SHORT), "nobody reads");
        for _ in 0..3 {
            permit.send(()).unwrap();
        }
        assert!(writer.flush(SOON));
        let read: usize = lines.try_iter().map(|written| written.len()).sum();
        assert_eq!(read / line.len() + dropped as usize, many);
        writer.make_writer().write_all(b"the last line\n").unwrap();
        assert!(writer.flush(SOON));
        assert_eq!(lines.try_recv().unwrap(), b"the last line\n");
    }

    #[test]
    fn a_reader_that_has_gone_costs_its_lines_only() {
        let (writer, permit, _) = slow();
        drop(permit);
        writer.make_writer().write_all(b"one\ntwo\n").unwrap();
        assert!(writer.flush(SOON));
        assert_eq!(writer.dropped(), 2);
    }
}
