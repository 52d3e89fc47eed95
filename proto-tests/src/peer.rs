//! One connection to the peer under test, as a scripted handle: send, trickle, expect an ack, expect a close, tear.
//!
//! Owns the socket and what was read but not yet judged. Knows msgpack framing, not what a case wants to prove.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use crate::case::{Fault, Verdict};
use crate::msgpack::{Read, Value, hex, read};

/// A connection to the peer under test.
pub(crate) struct Peer {
    wire: Wire,
    buffer: Vec<u8>,
    patience: Duration,
    /// Sizes of the reads since the last `forget_reads`.
    pub(crate) reads: Vec<usize>,
}

enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Peer {
    pub(crate) fn plain(stream: TcpStream, patience: Duration) -> Self {
        Self {
            wire: Wire::Plain(stream),
            buffer: Vec::new(),
            patience,
            reads: Vec::new(),
        }
    }

    pub(crate) fn tls(stream: TlsStream<TcpStream>, patience: Duration) -> Self {
        Self {
            wire: Wire::Tls(Box::new(stream)),
            buffer: Vec::new(),
            patience,
            reads: Vec::new(),
        }
    }

    /// Sends all of it; fails if the peer refuses it or does not read it in time.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> Verdict {
        self.try_send(bytes)
            .await
            .map_err(|e| Fault::fail("the peer reads what is sent", e))
    }

    /// Sends what the peer will take. For bytes after which it may close at any moment.
    pub(crate) async fn offer(&mut self, bytes: &[u8]) -> bool {
        self.try_send(bytes).await.is_ok()
    }

    async fn try_send(&mut self, bytes: &[u8]) -> Result<(), String> {
        let write = async {
            self.wire.write_all(bytes).await?;
            self.wire.flush().await
        };
        match timeout(self.patience, write).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(e)) => Err(format!("write failed: {e}")),
            Err(_) => Err(format!("{} bytes not taken in {:?}", bytes.len(), self.patience)),
        }
    }

    /// Sends the pieces as segments of their own.
    pub(crate) async fn pieces<'a>(&mut self, pieces: impl Iterator<Item = &'a [u8]>) -> Verdict {
        for piece in pieces {
            self.send(piece).await?;
            // With TCP_NODELAY each write is a segment of its own; the pause keeps the receiver from reading two at once.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    /// Sends one byte per segment.
    pub(crate) async fn trickle(&mut self, bytes: &[u8]) -> Verdict {
        self.pieces(bytes.chunks(1)).await
    }

    /// Ends the sending direction (FIN), keeps reading.
    pub(crate) async fn half_close(&mut self) -> Verdict {
        self.wire
            .shutdown()
            .await
            .map_err(|e| Fault::fail("the connection can be half closed", e))
    }

    /// Tears the connection down with a reset.
    pub(crate) fn tear(self) {
        let stream = match self.wire {
            Wire::Plain(stream) => stream,
            Wire::Tls(stream) => stream.into_inner().0,
        };
        // A linger of zero makes the close a RST.
        let _ = stream.set_zero_linger();
    }

    /// Reads once into the buffer: the number of bytes, 0 at the end, none when nothing came in time.
    async fn fill(&mut self, within: Duration) -> Option<io::Result<usize>> {
        let mut part = vec![0; 64 * 1024];
        let result = timeout(within, self.wire.read(&mut part)).await.ok()?;
        if let Ok(n) = result {
            self.buffer.extend_from_slice(&part[..n]);
            if n > 0 {
                self.reads.push(n);
            }
        }
        Some(result)
    }

    /// The next msgpack value that the peer sends.
    pub(crate) async fn value(&mut self, expected: &str) -> Result<Value, Fault> {
        self.value_within(expected, self.patience).await
    }

    /// The next msgpack value that the peer sends within this time.
    pub(crate) async fn value_within(&mut self, expected: &str, within: Duration) -> Result<Value, Fault> {
        let deadline = Instant::now() + within;
        loop {
            match read(&self.buffer) {
                Read::Whole(value, n) => {
                    self.buffer.drain(..n);
                    return Ok(value);
                }
                Read::Broken(why) => {
                    return Err(Fault::fail(
                        expected,
                        format!("not msgpack ({why}): {}", hex(&self.buffer)),
                    ));
                }
                Read::Partial => {}
            }
            let seen = match self
                .fill(deadline.saturating_duration_since(Instant::now()))
                .await
            {
                Some(Ok(n)) if n > 0 => continue,
                Some(Ok(_)) => "the peer closed the connection".to_owned(),
                Some(Err(e)) => format!("the peer broke the connection: {e}"),
                None => format!("nothing in {within:?}"),
            };
            return Err(Fault::fail(expected, format!("{seen}{}", self.rest())));
        }
    }

    fn rest(&self) -> String {
        if self.buffer.is_empty() {
            String::new()
        } else {
            format!(" after bytes {}", hex(&self.buffer))
        }
    }

    /// Expects the next value to be the ack of `chunk` (a whole msgpack value): same type, same bytes.
    pub(crate) async fn expect_ack(&mut self, chunk: &[u8]) -> Verdict {
        let Read::Whole(wanted, _) = read(chunk) else {
            return Err(Fault::fail("a chunk id that is one msgpack value", hex(chunk)));
        };
        let expected = format!("{{\"ack\": {}}}", hex(chunk));
        let value = self.value(&expected).await?;
        match &value {
            Value::Map(pairs) if pairs.len() == 1 && pairs[0].0.bytes() == Some(b"ack") => {
                if pairs[0].1 == wanted {
                    Ok(())
                } else {
                    Err(Fault::fail(expected, format!("{value:?}")))
                }
            }
            _ => Err(Fault::fail(expected, format!("{value:?}"))),
        }
    }

    /// The raw bytes that come within `within` or until the end; and whether it was the end.
    pub(crate) async fn drain(&mut self, within: Duration) -> (Vec<u8>, bool) {
        let deadline = Instant::now() + within;
        loop {
            match self
                .fill(deadline.saturating_duration_since(Instant::now()))
                .await
            {
                Some(Ok(n)) if n > 0 => {}
                Some(_) => return (std::mem::take(&mut self.buffer), true),
                None => return (std::mem::take(&mut self.buffer), false),
            }
        }
    }

    /// Waits for at least `n` raw bytes and takes all that is there.
    pub(crate) async fn raw(&mut self, n: usize) -> Vec<u8> {
        let deadline = Instant::now() + self.patience;
        while self.buffer.len() < n {
            match self
                .fill(deadline.saturating_duration_since(Instant::now()))
                .await
            {
                Some(Ok(got)) if got > 0 => {}
                _ => break,
            }
        }
        std::mem::take(&mut self.buffer)
    }

    /// Expects that the peer writes nothing for this long and keeps the connection.
    pub(crate) async fn expect_silence(&mut self, for_long: Duration) -> Verdict {
        let expected = "no bytes from the server, connection open";
        match self.drain(for_long).await {
            (bytes, false) if bytes.is_empty() => Ok(()),
            (bytes, true) => Err(Fault::fail(expected, format!("closed, bytes {:?}", hex(&bytes)))),
            (bytes, false) => Err(Fault::fail(expected, hex(&bytes))),
        }
    }

    /// Expects the end of the connection within this time and gives what came before it.
    pub(crate) async fn expect_close(&mut self, within: Duration) -> Result<Vec<u8>, Fault> {
        match self.drain(within).await {
            (bytes, true) => Ok(bytes),
            (bytes, false) => Err(Fault::fail(
                format!("the server closes the connection within {within:?}"),
                format!("still open, bytes received: {:?}", hex(&bytes)),
            )),
        }
    }

    /// Expects the end of the connection within this time without a byte before it.
    pub(crate) async fn expect_close_unacked(&mut self, within: Duration) -> Verdict {
        let bytes = self.expect_close(within).await?;
        if bytes.is_empty() {
            Ok(())
        } else {
            Err(Fault::fail("closed without an ack", hex(&bytes)))
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(s) => Pin::new(s).poll_read(cx, buf),
            Self::Tls(s) => Pin::new(s.as_mut()).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(s) => Pin::new(s).poll_write(cx, buf),
            Self::Tls(s) => Pin::new(s.as_mut()).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(s) => Pin::new(s).poll_flush(cx),
            Self::Tls(s) => Pin::new(s.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(s) => Pin::new(s).poll_shutdown(cx),
            Self::Tls(s) => Pin::new(s.as_mut()).poll_shutdown(cx),
        }
    }
}
