//! Connection to a peer: opens it again and again, asks who answers, sends shares, reads acks.
//!
//! Shares of all clients that wait are sent in one write. Acks come in the order of sending, but
//! nothing waits for the one before.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::access::Access;
use super::control::{Control, Reply, ReplyReader};
use super::peer::{Outgoing, Peer, PeerState};
use super::receipt::PeerReceipt;

/// Time for a connection, with its handshakes and the first answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Time between two attempts, at first and at most.
const FIRST_BACKOFF: Duration = Duration::from_millis(200);
const MAX_BACKOFF: Duration = Duration::from_secs(5);
/// Time between two attempts at an address that is this instance, or no member.
const RECHECK_INTERVAL: Duration = Duration::from_secs(15);
/// How often a peer is asked whether it is there.
const HELLO_INTERVAL: Duration = Duration::from_millis(500);
/// Time without an answer after which it gets nothing more.
const HELLO_TIMEOUT: Duration = Duration::from_secs(1);
/// Time without an answer after which a new connection is tried.
const DEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes that one write takes together.
const MAX_WRITE_BYTES: usize = 256 << 10;
const READ_BYTES: usize = 4 << 10;

/// Shares that were sent and are not acknowledged, by the number of their commit.
type Pending = Mutex<HashMap<u64, Sent>>;

/// Kept until the ack: the bytes count as in flight.
struct Sent {
    outgoing: Outgoing,
}

/// What the loops of a connection share.
struct Session<'a> {
    peer: &'a Peer,
    own: u64,
    pending: Pending,
    /// The hello without an answer, and when it was asked for.
    hello: Mutex<Option<(u64, Instant)>>,
    /// A hello is due.
    ask: Notify,
}

/// Keeps the peer connected until `stop`, or until it is forgotten.
pub(super) async fn keep(
    peer: Arc<Peer>,
    access: Arc<Access>,
    own: u64,
    mut outgoing: mpsc::Receiver<Outgoing>,
    stop: CancellationToken,
) {
    let mut backoff = FIRST_BACKOFF;
    loop {
        let began = Instant::now();
        let ended = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            ended = connect_and_serve(&peer, &access, own, &mut outgoing) => ended,
        };
        let pause = match (&ended, peer.state().0) {
            (Ended::NotAMember, _) => RECHECK_INTERVAL,
            (Ended::Lost(_), _) if began.elapsed() > MAX_BACKOFF => FIRST_BACKOFF,
            (Ended::Lost(_), _) => backoff,
        };
        backoff = (backoff * 2).min(MAX_BACKOFF);
        if let Ended::Lost(why) = ended {
            peer.lost(why);
        }
        // Who waits for these keeps them.
        while outgoing.try_recv().is_ok() {}
        if peer.is_forgotten.load(Ordering::Relaxed) {
            return;
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = sleep(pause) => {}
        }
        if pause == FIRST_BACKOFF {
            backoff = FIRST_BACKOFF;
        }
    }
}

enum Ended {
    Lost(String),
    /// The address is this instance, or no member.
    NotAMember,
}

/// A connection, with TLS or without.
trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Io for S {}

/// A connection on which somebody has answered.
struct Greeted {
    stream: Box<dyn Io>,
    replies: ReplyReader,
    /// The instance that answers, if it is a member.
    instance: Option<u64>,
}

/// Connects, and asks who answers.
///
/// # Errors
///
/// Why nobody does.
async fn connect(address: SocketAddr, name: Option<&str>, access: &Access) -> Result<Greeted, String> {
    let connecting = async {
        let mut stream = TcpStream::connect(address).await.map_err(in_words)?;
        stream.set_nodelay(true).ok();
        rustix::net::sockopt::set_socket_keepalive(&stream, true).ok();
        if access.proxy_protocol {
            let header = stream.write_all(b"PROXY UNKNOWN\r\n").await;
            header.map_err(in_words)?;
        }
        let local = stream.local_addr().map_err(in_words)?.ip();
        let stream: Box<dyn Io> = match access.uses_tls() {
            false => Box::new(stream),
            true => {
                let tls = access.connect_tls(stream, address, name).await;
                Box::new(tls.map_err(|error| format!("TLS: {error}"))?)
            }
        };
        greet(stream, access, local).await
    };
    let connected = timeout(CONNECT_TIMEOUT, connecting).await;
    connected.unwrap_or_else(|_| Err(format!("no answer within {} s", CONNECT_TIMEOUT.as_secs())))
}

/// Proves itself, and asks who answers.
async fn greet(mut stream: Box<dyn Io>, access: &Access, local: IpAddr) -> Result<Greeted, String> {
    access.shake_hands(&mut stream, local).await?;
    let mut hello = Vec::new();
    Control::Hello(0).write(&mut hello);
    stream.write_all(&hello).await.map_err(in_words)?;
    stream.flush().await.map_err(in_words)?;
    let mut replies = ReplyReader::new();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let read = stream.read(&mut buffer).await.map_err(in_words)?;
        if read == 0 {
            return Err("it closed the connection".into());
        }
        replies.feed(buffer.get(..read).unwrap_or_default());
        match replies.reply().map_err(|error| error.to_string())? {
            Some(Reply::Hello { instance, .. }) => {
                return Ok(Greeted {
                    stream,
                    replies,
                    instance,
                });
            }
            Some(_) => return Err("it asks for a shared key, or is no Forward server".into()),
            None => {}
        }
    }
}

/// Asks once who answers at an address: a member, or another server.
///
/// # Errors
///
/// Why nobody does.
pub(super) async fn ask(
    address: SocketAddr,
    name: Option<&str>,
    access: &Access,
) -> Result<Option<u64>, String> {
    Ok(connect(address, name, access).await?.instance)
}

async fn connect_and_serve(
    peer: &Peer,
    access: &Access,
    own: u64,
    outgoing: &mut mpsc::Receiver<Outgoing>,
) -> Ended {
    let asked = Instant::now();
    let Greeted {
        stream,
        replies,
        instance,
    } = match connect(peer.address, peer.name.as_deref(), access).await {
        Ok(greeted) => greeted,
        Err(why) => return Ended::Lost(why),
    };
    peer.answered(instance, own, asked);
    if matches!(peer.state().0, PeerState::Foreign | PeerState::Myself) {
        return Ended::NotAMember;
    }
    let session = Session {
        peer,
        own,
        pending: Mutex::default(),
        hello: Mutex::new(None),
        ask: Notify::new(),
    };
    let (reader, writer) = tokio::io::split(stream);
    let ended = tokio::select! {
        ended = session.write(writer, outgoing) => ended,
        ended = session.read(reader, replies) => ended,
        ended = session.watch() => ended,
    };
    // First: what is not acknowledged is kept, and no more is sent here.
    peer.lost(ended.clone());
    Ended::Lost(ended)
}

fn in_words(error: std::io::Error) -> String {
    error.to_string()
}

impl Session<'_> {
    /// Sends what waits.
    async fn write(
        &self,
        mut writer: impl AsyncWrite + Unpin,
        outgoing: &mut mpsc::Receiver<Outgoing>,
    ) -> String {
        let mut commits = 0;
        let mut buffer = Vec::new();
        loop {
            buffer.clear();
            tokio::select! {
                next = outgoing.recv() => match next {
                    Some(next) => self.push(next, &mut commits, &mut buffer),
                    None => return "no longer used".into(),
                },
                () = self.ask.notified() => {
                    if let Some((number, _)) = *lock(&self.hello) {
                        Control::Hello(number).write(&mut buffer);
                    }
                }
            }
            while buffer.len() < MAX_WRITE_BYTES {
                match outgoing.try_recv() {
                    Ok(next) => self.push(next, &mut commits, &mut buffer),
                    Err(_) => break,
                }
            }
            let written = async {
                writer.write_all(&buffer).await?;
                writer.flush().await
            };
            if let Err(error) = written.await {
                return error.to_string();
            }
            if buffer.capacity() > 2 * MAX_WRITE_BYTES {
                buffer = Vec::new();
            }
        }
    }

    fn push(&self, outgoing: Outgoing, commits: &mut u64, buffer: &mut Vec<u8>) {
        // Who waited has kept it meanwhile.
        if outgoing.reply.is_closed() {
            return;
        }
        *commits += 1;
        buffer.extend_from_slice(&outgoing.bytes);
        Control::Commit(*commits).write(buffer);
        lock(&self.pending).insert(*commits, Sent { outgoing });
    }

    /// Reads answers.
    async fn read(&self, mut reader: impl AsyncRead + Unpin, mut replies: ReplyReader) -> String {
        let mut buffer = vec![0; READ_BYTES];
        loop {
            loop {
                match replies.reply() {
                    Err(error) => return error.to_string(),
                    Ok(None) => break,
                    Ok(Some(Reply::Unknown)) => {}
                    Ok(Some(Reply::Durable(number))) => {
                        let sent = lock(&self.pending).remove(&number);
                        if let Some(Sent { outgoing }) = sent {
                            outgoing.acknowledge(PeerReceipt::of_ack());
                        }
                    }
                    Ok(Some(Reply::Hello { number, instance })) => {
                        let mut hello = lock(&self.hello);
                        if let Some((_, asked)) = hello.take_if(|(asked, _)| *asked == number) {
                            drop(hello);
                            self.peer.answered(instance, self.own, asked);
                        }
                    }
                }
            }
            match reader.read(&mut buffer).await {
                Ok(0) => return "it closed the connection".into(),
                Ok(read) => replies.feed(buffer.get(..read).unwrap_or_default()),
                Err(error) => return error.to_string(),
            }
        }
    }

    /// Asks from time to time whether the peer is there.
    async fn watch(&self) -> String {
        let mut number = 0;
        loop {
            sleep(HELLO_INTERVAL).await;
            let unanswered = *lock(&self.hello);
            match unanswered.map(|(_, asked)| asked.elapsed()) {
                None => {
                    number += 1;
                    *lock(&self.hello) = Some((number, Instant::now()));
                    self.ask.notify_one();
                }
                Some(time) if time >= DEAD_TIMEOUT => {
                    return format!("no answer within {} s", DEAD_TIMEOUT.as_secs());
                }
                Some(time) if time >= HELLO_TIMEOUT => self.peer.too_slow(),
                Some(_) => {}
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Outgoing {
    /// Tells who waits that the peer has acknowledged.
    fn acknowledge(mut self, receipt: PeerReceipt) {
        let (closed, _) = oneshot::channel();
        let reply = std::mem::replace(&mut self.reply, closed);
        // Who waited may have kept the shares meanwhile.
        let _gone = reply.send(receipt);
    }
}
