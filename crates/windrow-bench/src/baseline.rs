//! Baseline server: the same I/O as Windrow and no decoding.
//!
//! Reads the socket, writes the bytes to disk with `fdatasync`, acknowledges, and sends as many
//! bytes on as documents would have. Decodes nothing but the head of each message, gathers nothing
//! and checks nothing. Its CPU time is the yardstick, since CPU times differ between machines.

use std::fs::File;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use bytes::{Bytes, BytesMut};
use forward_protocol::ack::write_ack;
use forward_protocol::frame::{Framer, Limits};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};

/// Options of the baseline server, which `windrow bench` starts as a process of its own.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Address of the store that the bytes are sent to.
    #[arg(long)]
    store: SocketAddr,
    /// The file that takes the place of the journal.
    #[arg(long)]
    file: PathBuf,
    /// Bytes sent on for each byte received; by default the share that documents of 5 lines have.
    #[arg(long, default_value_t = 0.45)]
    ratio: f64,
}

/// Bytes for the disk, and the connection that waits until they are safe.
type ToWrite = (Bytes, oneshot::Sender<()>);

/// Serves until the process is ended.
///
/// # Errors
/// When a port, the file or the store cannot be used.
pub fn run(options: &Options) -> io::Result<()> {
    tokio::runtime::Runtime::new()?.block_on(serve(options))
}

async fn serve(options: &Options) -> io::Result<()> {
    let file = File::create(&options.file)?;
    // Each connection has at most one write in the queue.
    let (to_disk, writes) = sync_channel(65_536);
    std::thread::Builder::new()
        .name("disk".into())
        .spawn(move || write_to_disk(file, &writes))?;
    let (to_store, documents) = mpsc::channel(64);
    let store = TcpStream::connect(options.store).await?;
    tokio::spawn(send_on(store, documents, options.ratio));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let mut out = io::stdout();
    writeln!(out, "forward listening on {}", listener.local_addr()?)?;
    out.flush()?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(connection(stream, to_disk.clone(), to_store.clone()));
    }
}

/// Group commit: writes all bytes in the queue, syncs once, and wakes their connections.
fn write_to_disk(mut file: File, writes: &Receiver<ToWrite>) -> io::Result<()> {
    while let Ok(first) = writes.recv() {
        let mut group = vec![first];
        group.extend(writes.try_iter());
        for (bytes, _) in &group {
            file.write_all(bytes)?;
        }
        file.sync_data()?;
        for (_, done) in group {
            done.send(()).ok();
        }
    }
    Ok(())
}

/// Sends `ratio` of the received bytes on; one request carries all that are in the queue.
async fn send_on(mut store: TcpStream, mut documents: mpsc::Receiver<Bytes>, ratio: f64) -> io::Result<()> {
    let mut pending = Vec::new();
    let mut answer = vec![0; 4096];
    while let Some(first) = documents.recv().await {
        let mut next = Some(first);
        while let Some(bytes) = next {
            let part = (bytes.len() as f64 * ratio) as usize;
            pending.extend_from_slice(bytes.get(..part).unwrap_or(&bytes));
            next = documents.try_recv().ok();
        }
        let head = format!(
            "POST /baseline HTTP/1.1\r\nhost: store\r\ncontent-length: {}\r\n\r\n",
            pending.len()
        );
        store.write_all(head.as_bytes()).await?;
        store.write_all(&pending).await?;
        pending.clear();
        // The answer has no body.
        let mut got = 0;
        while !answer.get(..got).unwrap_or_default().ends_with(b"\r\n\r\n") {
            match store.read(answer.get_mut(got..).unwrap_or_default()).await? {
                0 => return Ok(()),
                n => got += n,
            }
        }
    }
    Ok(())
}

async fn connection(
    mut stream: TcpStream,
    to_disk: SyncSender<ToWrite>,
    to_store: mpsc::Sender<Bytes>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut framer = Framer::new(Limits::default());
    let mut buffer = BytesMut::with_capacity(1 << 20);
    let mut acks = Vec::new();
    while stream.read_buf(&mut buffer).await? > 0 {
        let run = framer.scan(&buffer);
        if run.end == 0 {
            buffer.reserve(64 << 10);
            continue;
        }
        let bytes = buffer.split_to(run.end).freeze();
        buffer.reserve(512 << 10);
        acks.clear();
        for frame in &run.frames {
            if let Some(chunk) = frame.chunk(&bytes) {
                write_ack(&mut acks, chunk);
            }
        }
        let (done, safe) = oneshot::channel();
        to_disk.send((bytes.clone(), done)).map_err(|_| closed())?;
        safe.await.map_err(|_| closed())?;
        stream.write_all(&acks).await?;
        to_store.send(bytes).await.map_err(|_| closed())?;
    }
    Ok(())
}

fn closed() -> io::Error {
    io::Error::other("the disk or the store takes no more bytes")
}
