//! The floor: the least work that the job allows on this machine. It reads the socket, puts the bytes on disk with
//! `fdatasync`, acknowledges, and sends as many bytes on as documents would have. It decodes nothing but the head of each
//! message, gathers nothing, and checks nothing. It is the yardstick for CPU time, which differs between machines.

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

/// Options of the floor, which `windrow bench` starts as a process of its own.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Where the bytes go.
    #[arg(long)]
    sink: SocketAddr,
    /// The file that takes the place of the journal.
    #[arg(long)]
    file: PathBuf,
    /// Bytes sent on for each byte received: what documents of 5 lines have.
    #[arg(long, default_value_t = 0.45)]
    ratio: f64,
}

/// Bytes for the disk, and who waits for them.
type ToWrite = (Bytes, oneshot::Sender<()>);

/// Serves until the process is ended.
///
/// # Errors
/// When a port, the file or the sink cannot be used.
pub fn run(options: &Options) -> io::Result<()> {
    tokio::runtime::Runtime::new()?.block_on(serve(options))
}

async fn serve(options: &Options) -> io::Result<()> {
    let file = File::create(&options.file)?;
    // One waits for each connection at the most.
    let (to_disk, writes) = sync_channel(65_536);
    std::thread::Builder::new()
        .name("disk".into())
        .spawn(move || write_to_disk(file, &writes))?;
    let (to_sink, documents) = mpsc::channel(64);
    let sink = TcpStream::connect(options.sink).await?;
    tokio::spawn(send_on(sink, documents, options.ratio));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let mut out = io::stdout();
    writeln!(out, "forward listening on {}", listener.local_addr()?)?;
    out.flush()?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(connection(stream, to_disk.clone(), to_sink.clone()));
    }
}

/// Writes whatever waits, syncs once, and says so to all.
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

/// Sends a part of what was received on, in requests as large as what waits.
async fn send_on(mut sink: TcpStream, mut documents: mpsc::Receiver<Bytes>, ratio: f64) -> io::Result<()> {
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
            "POST /floor HTTP/1.1\r\nhost: sink\r\ncontent-length: {}\r\n\r\n",
            pending.len()
        );
        sink.write_all(head.as_bytes()).await?;
        sink.write_all(&pending).await?;
        pending.clear();
        // The answer has no body.
        let mut got = 0;
        while !answer.get(..got).unwrap_or_default().ends_with(b"\r\n\r\n") {
            match sink.read(answer.get_mut(got..).unwrap_or_default()).await? {
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
    to_sink: mpsc::Sender<Bytes>,
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
        to_sink.send(bytes).await.map_err(|_| closed())?;
    }
    Ok(())
}

fn closed() -> io::Error {
    io::Error::other("the disk or the sink does not take any more")
}
