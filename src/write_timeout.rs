//! Stream whose writes fail when the peer takes nothing for too long: a client that does not read
//! its responses must not keep its connection.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// A stream with a limit on the time of each write. `mark` makes a value that lives while a write is
/// pending.
pub(crate) struct WriteTimeout<T, F, M> {
    inner: T,
    timeout: Duration,
    mark: F,
    /// Runs while a write is pending.
    timer: Option<(Pin<Box<Sleep>>, M)>,
}

impl<T, F: FnMut() -> M, M> WriteTimeout<T, F, M> {
    pub(crate) fn new(inner: T, timeout: Duration, mark: F) -> Self {
        Self {
            inner,
            timeout,
            mark,
            timer: None,
        }
    }

    /// Passes on the result of a write; starts, checks or stops the timer.
    fn timed<R>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if polled.is_ready() {
            self.timer = None;
            return polled;
        }
        let (timer, _mark) = self
            .timer
            .get_or_insert_with(|| (Box::pin(tokio::time::sleep(self.timeout)), (self.mark)()));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the client does not read the response",
        )))
    }
}

impl<T: AsyncRead + Unpin, F: Unpin, M: Unpin> AsyncRead for WriteTimeout<T, F, M> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<T, F, M> AsyncWrite for WriteTimeout<T, F, M>
where
    T: AsyncWrite + Unpin,
    F: FnMut() -> M + Unpin,
    M: Unpin,
{
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.timed(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.timed(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_flush(cx);
        self.timed(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.timed(cx, polled)
    }
}
