//! [`Peer`]: a scripted connection to the server under test.
//!
//! Owns the socket and the received bytes. Knows MessagePack framing and acks, not the cases.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use crate::case_result::{CaseError, CaseResult};
use crate::msgpack::{Parsed, Value, hex, read};

/// A connection to the peer under test.
pub(crate) struct Peer {
    wire: Stream,
    buffer: Vec<u8>,
    reply_timeout: Duration,
    /// Sizes of the reads since the last `forget_reads`.
    pub(crate) reads: Vec<usize>,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Peer {
    pub(crate) fn plain(stream: TcpStream, reply_timeout: Duration) -> Self {
        Self {
            wire: Stream::Plain(stream),
            buffer: Vec::new(),
            reply_timeout,
            reads: Vec::new(),
        }
    }

    pub(crate) fn tls(stream: TlsStream<TcpStream>, reply_timeout: Duration) -> Self {
        Self {
            wire: Stream::Tls(Box::new(stream)),
            buffer: Vec::new(),
            reply_timeout,
            reads: Vec::new(),
        }
    }

    /// Sends all bytes; fails if the peer closes or does not read them in time.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> CaseResult {
        self.try_send(bytes)
            .await
            .map_err(|e| CaseError::fail("the peer reads what is sent", e))
    }

    /// Sends bytes after which the peer may close at any moment; false when it did.
    pub(crate) async fn send_unless_closed(&mut self, bytes: &[u8]) -> bool {
        self.try_send(bytes).await.is_ok()
    }

    async fn try_send(&mut self, bytes: &[u8]) -> Result<(), String> {
        let write = async {
            self.wire.write_all(bytes).await?;
            self.wire.flush().await
        };
        match timeout(self.reply_timeout, write).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(e)) => Err(format!("write failed: {e}")),
            Err(_) => Err(format!(
                "{} bytes not taken in {:?}",
                bytes.len(),
                self.reply_timeout
            )),
        }
    }

    /// Sends each piece as a TCP segment of its own.
    pub(crate) async fn send_segments<'a>(&mut self, pieces: impl Iterator<Item = &'a [u8]>) -> CaseResult {
        for piece in pieces {
            self.send(piece).await?;
            // TCP_NODELAY makes each write a segment; the pause keeps the receiver from reading two
            // at once.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    /// Sends one byte per segment.
    pub(crate) async fn trickle(&mut self, bytes: &[u8]) -> CaseResult {
        self.send_segments(bytes.chunks(1)).await
    }

    /// Ends the sending direction (FIN), keeps reading.
    pub(crate) async fn half_close(&mut self) -> CaseResult {
        self.wire
            .shutdown()
            .await
            .map_err(|e| CaseError::fail("the connection can be half closed", e))
    }

    /// Closes the connection with a RST.
    pub(crate) fn reset(self) {
        let stream = match self.wire {
            Stream::Plain(stream) => stream,
            Stream::Tls(stream) => stream.into_inner().0,
        };
        // A linger of zero makes the close a RST.
        let _ = stream.set_zero_linger();
    }

    /// Reads once into the buffer: the number of bytes, 0 at the end, none when nothing came in
    /// time.
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

    /// The next MessagePack value from the peer.
    pub(crate) async fn value(&mut self, expected: &str) -> Result<Value, CaseError> {
        self.value_within(expected, self.reply_timeout).await
    }

    /// The next MessagePack value from the peer within this time.
    pub(crate) async fn value_within(
        &mut self,
        expected: &str,
        within: Duration,
    ) -> Result<Value, CaseError> {
        let deadline = Instant::now() + within;
        loop {
            match read(&self.buffer) {
                Parsed::Complete(value, n) => {
                    self.buffer.drain(..n);
                    return Ok(value);
                }
                Parsed::Invalid(why) => {
                    return Err(CaseError::fail(
                        expected,
                        format!("not msgpack ({why}): {}", hex(&self.buffer)),
                    ));
                }
                Parsed::Incomplete => {}
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
            return Err(CaseError::fail(expected, format!("{seen}{}", self.rest())));
        }
    }

    fn rest(&self) -> String {
        if self.buffer.is_empty() {
            String::new()
        } else {
            format!(" after bytes {}", hex(&self.buffer))
        }
    }

    /// Expects the next value to be the ack of `chunk` (a whole MessagePack value): same type, same
    /// bytes.
    pub(crate) async fn expect_ack(&mut self, chunk: &[u8]) -> CaseResult {
        let Parsed::Complete(wanted, _) = read(chunk) else {
            return Err(CaseError::fail(
                "a chunk id that is one msgpack value",
                hex(chunk),
            ));
        };
        let expected = format!("{{\"ack\": {}}}", hex(chunk));
        let value = self.value(&expected).await?;
        match &value {
            Value::Map(pairs) if pairs.len() == 1 && pairs[0].0.bytes() == Some(b"ack") => {
                if pairs[0].1 == wanted {
                    Ok(())
                } else {
                    Err(CaseError::fail(expected, format!("{value:?}")))
                }
            }
            _ => Err(CaseError::fail(expected, format!("{value:?}"))),
        }
    }

    /// The raw bytes received within this time or until the end of the stream, and whether it
    /// ended.
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

    /// Waits for at least `n` raw bytes and takes all received ones.
    pub(crate) async fn raw(&mut self, n: usize) -> Vec<u8> {
        let deadline = Instant::now() + self.reply_timeout;
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
    pub(crate) async fn expect_silence(&mut self, for_long: Duration) -> CaseResult {
        let expected = "no bytes from the server, connection open";
        match self.drain(for_long).await {
            (bytes, false) if bytes.is_empty() => Ok(()),
            (bytes, true) => Err(CaseError::fail(
                expected,
                format!("closed, bytes {:?}", hex(&bytes)),
            )),
            (bytes, false) => Err(CaseError::fail(expected, hex(&bytes))),
        }
    }

    /// Expects the end of the connection within this time; returns the bytes received before it.
    pub(crate) async fn expect_close(&mut self, within: Duration) -> Result<Vec<u8>, CaseError> {
        match self.drain(within).await {
            (bytes, true) => Ok(bytes),
            (bytes, false) => Err(CaseError::fail(
                format!("the server closes the connection within {within:?}"),
                format!("still open, bytes received: {:?}", hex(&bytes)),
            )),
        }
    }

    /// Expects the end of the connection within this time without a byte before it.
    pub(crate) async fn expect_close_unacked(&mut self, within: Duration) -> CaseResult {
        let bytes = self.expect_close(within).await?;
        if bytes.is_empty() {
            Ok(())
        } else {
            Err(CaseError::fail("closed without an ack", hex(&bytes)))
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(s) => Pin::new(s).poll_read(cx, buf),
            Self::Tls(s) => Pin::new(s.as_mut()).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
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
