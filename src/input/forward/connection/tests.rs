//! A connection over a pipe of known size, with a real journal: what is read, and when.

use std::io;
use std::pin::Pin;
use std::task::{self, Poll, ready};

use forward_protocol::encode::{ChunkId, EntryStream, write_packed};
use tokio::io::{DuplexStream, ReadBuf};

use super::*;
use crate::input::forward::context::{STOP_TIMEOUT, test_context_with};
use crate::input::forward::receive_budget::ReceiveBudget;
use crate::input::forward::security::Security;
use windrow_journal::{CommitSink, Record};

/// Bytes that fit into the pipe, as into the buffers of a socket.
const PIPE: usize = 64 << 10;
/// Time without progress after which a client considers the server to read nothing more.
const STILL: Duration = Duration::from_millis(200);

/// A server with one connection and an admission limit.
struct Scene {
    context: Arc<Context>,
    client: DuplexStream,
    _dir: tempfile::TempDir,
}

impl Scene {
    fn new(limit: usize) -> Self {
        Self::with(limit, Box::new(()))
    }

    fn with(limit: usize, sink: Box<dyn CommitSink>) -> Self {
        let (context, dir) = test_context_with(limit, sink);
        let context = Arc::new(context);
        let client = connect(&context);
        Self {
            context,
            client,
            _dir: dir,
        }
    }
}

/// Gives at most one record per read, as TLS does.
struct Records(DuplexStream);

const RECORD: usize = 1000;

impl AsyncRead for Records {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut record = [0; RECORD];
        let mut record = ReadBuf::new(&mut record[..out.remaining().min(RECORD)]);
        ready!(Pin::new(&mut self.0).poll_read(cx, &mut record))?;
        out.put_slice(record.filled());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Records {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

fn connect(context: &Arc<Context>) -> DuplexStream {
    let (client, server) = tokio::io::duplex(PIPE);
    let (mut server, context) = (Records(server), Arc::clone(context));
    tokio::spawn(async move { serve(&mut server, None, &context).await });
    client
}

/// A message of slightly more than `bytes`, and its ack.
fn message(bytes: usize) -> (Vec<u8>, Vec<u8>) {
    let id = ChunkId::from_text("a chunk").unwrap();
    let entries = vec![0xc0; bytes];
    let stream = EntryStream {
        bytes: &entries,
        count: bytes as u32,
    };
    let mut message = Vec::new();
    write_packed(&mut message, b"tag", stream, Some(&id));
    (message, b"\x81\xa3ack\xa7a chunk".to_vec())
}

/// Sends until nothing more is read; gives how many bytes were.
async fn send_while_taken(client: &mut DuplexStream, bytes: &[u8]) -> usize {
    let mut sent = 0;
    while sent < bytes.len() {
        match timeout(STILL, client.write(&bytes[sent..])).await {
            Ok(taken) => sent += taken.unwrap(),
            Err(_) => break,
        }
    }
    sent
}

async fn expect(client: &mut DuplexStream, ack: &[u8]) {
    let mut read = vec![0; ack.len()];
    client.read_exact(&mut read).await.unwrap();
    assert_eq!(read, ack);
}

#[tokio::test]
async fn most_of_a_large_message_is_not_read_while_gathering_is_busy() {
    let mut scene = Scene::new(1000);
    let (message, ack) = message(4 * PIPE);
    scene.context.admission.set_queued_bytes(1000);
    let sent = send_while_taken(&mut scene.client, &message).await;
    assert!(
        (PIPE..PIPE + DEFER_READ_BYTES).contains(&sent),
        "{sent} bytes were taken"
    );
    scene.context.admission.set_queued_bytes(0);
    scene.client.write_all(&message[sent..]).await.unwrap();
    expect(&mut scene.client, &ack).await;
    assert!(scene.context.admission.would_admit(), "the permit is released");
}

#[tokio::test]
async fn a_small_message_is_read_at_once() {
    let mut scene = Scene::new(1000);
    let (message, ack) = message(DEFER_READ_BYTES / 2);
    scene.context.admission.set_queued_bytes(1000);
    assert_eq!(send_while_taken(&mut scene.client, &message).await, message.len());
    scene.context.admission.set_queued_bytes(0);
    expect(&mut scene.client, &ack).await;
}

#[tokio::test]
async fn a_client_that_stops_inside_a_message_blocks_no_other() {
    let mut scene = Scene::new(MAX_READ_BYTES);
    scene.context.admission.set_queued_bytes(MAX_READ_BYTES);
    let (large, _) = message(4 * MAX_READ_BYTES);
    let sent = send_while_taken(&mut scene.client, &large[..PIPE / 2]).await;
    assert_eq!(sent, PIPE / 2);
    // It gets a permit for all the capacity, and sends nothing more.
    scene.context.admission.set_queued_bytes(0);
    let mut other = connect(&scene.context);
    let (small, ack) = message(1000);
    other.write_all(&small).await.unwrap();
    expect(&mut other, &ack).await;
    while !scene.context.admission.would_admit() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn what_a_client_had_sent_is_read_at_shutdown() {
    let mut scene = Scene::new(MAX_READ_BYTES);
    // Each in a record of its own.
    let (message, ack) = message(RECORD - (message(RECORD).0.len() - RECORD));
    assert_eq!(message.len(), RECORD);
    scene.client.write_all(&message).await.unwrap();
    expect(&mut scene.client, &ack).await;
    let sent = message.repeat(PIPE / message.len());
    scene.client.write_all(&sent).await.unwrap();
    scene.context.stop.cancel();
    let mut acks = Vec::new();
    scene.client.read_to_end(&mut acks).await.unwrap();
    assert_eq!(acks, ack.repeat(PIPE / message.len()));
}

#[tokio::test]
async fn a_client_that_goes_on_sending_is_closed_at_shutdown() {
    let scene = Scene::new(MAX_READ_BYTES);
    let (message, _) = message(1000);
    let (mut acks, mut client) = tokio::io::split(scene.client);
    scene.context.stop.cancel();
    let sends = async { while client.write_all(&message).await.is_ok() {} };
    let reads = async { tokio::io::copy(&mut acks, &mut tokio::io::sink()).await };
    let ended = timeout(Duration::from_secs(60), async { tokio::join!(sends, reads) }).await;
    assert!(ended.is_ok(), "it is still read from");
}

#[tokio::test]
async fn gathering_owns_the_buffer_of_a_large_acknowledged_message() {
    struct Sink(std::sync::mpsc::SyncSender<Record>);
    impl CommitSink for Sink {
        fn committed(&mut self, records: Vec<Record>) {
            records
                .into_iter()
                .for_each(|record| self.0.send(record).unwrap());
        }
    }
    let (sender, records) = std::sync::mpsc::sync_channel(1);
    let mut scene = Scene::with(usize::MAX, Box::new(Sink(sender)));
    let (message, ack) = message(100_000);
    for _ in 0..3 {
        scene.client.write_all(&message).await.unwrap();
        expect(&mut scene.client, &ack).await;
        let payload = records.recv().unwrap().payload;
        assert_eq!(payload, message);
        assert_eq!(payload.as_ptr().align_offset(windrow_journal::BLOCK_BYTES), 0);
        scene.context.buffer_pool.put(payload);
        let buffer = scene.context.buffer_pool.take(buffer_pool::MIN_BUFFER_BYTES);
        assert!(buffer.is_some(), "another handle is alive");
    }
}

#[tokio::test]
async fn half_received_messages_are_all_acknowledged_beyond_the_receive_budget() {
    const CLIENTS: usize = 20;
    let (mut context, _dir) = test_context_with(usize::MAX, Box::new(()));
    context.receive_budget = ReceiveBudget::new(MAX_READ_BYTES);
    let context = Arc::new(context);
    let (message, ack) = message(4 * MAX_READ_BYTES);
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| connect(&context)).collect();
    // All are inside their messages.
    let mut sent = Vec::new();
    for client in &mut clients {
        sent.push(send_while_taken(client, &message[..message.len() / 2]).await);
    }
    let taken = sent.iter().filter(|sent| **sent >= message.len() / 2).count();
    assert!((1..=4).contains(&taken), "{taken} halves were read: {sent:?}");
    let sending = clients.into_iter().zip(sent).map(|(mut client, sent)| {
        let (message, ack) = (message.clone(), ack.clone());
        tokio::spawn(async move {
            client.write_all(&message[sent..]).await.unwrap();
            expect(&mut client, &ack).await;
        })
    });
    for client in sending.collect::<Vec<_>>() {
        timeout(Duration::from_secs(60), client).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_client_that_stands_still_with_memory_is_dropped_for_those_that_wait() {
    let (mut context, _dir) = test_context_with(usize::MAX, Box::new(()));
    context.receive_budget = ReceiveBudget::new(1);
    context.progress_timeout = 2 * STILL;
    let context = Arc::new(context);
    let mut slow = connect(&context);
    let (message, ack) = message(2 * MAX_READ_BYTES);
    slow.write_all(&message[..PIPE]).await.unwrap();
    let mut other = connect(&context);
    other.write_all(&message).await.unwrap();
    expect(&mut other, &ack).await;
    expect_closed(&mut slow).await;
}

#[tokio::test]
async fn a_small_message_needs_no_receive_budget() {
    let (mut context, _dir) = test_context_with(usize::MAX, Box::new(()));
    context.receive_budget = ReceiveBudget::new(1);
    let context = Arc::new(context);
    let (large, _) = message(2 * MAX_READ_BYTES);
    let mut waiting = [connect(&context), connect(&context)];
    for client in &mut waiting {
        client.write_all(&large[..PIPE / 2]).await.unwrap();
    }
    tokio::time::sleep(STILL).await;
    let mut other = connect(&context);
    let (small, ack) = message(500);
    other.write_all(&small).await.unwrap();
    timeout(STILL, expect(&mut other, &ack)).await.unwrap();
}

#[tokio::test]
async fn json_is_refused_when_it_is_switched_off() {
    for json in [true, false] {
        let (mut context, _dir) = test_context_with(usize::MAX, Box::new(()));
        context.json = json;
        let mut client = connect(&Arc::new(context));
        client
            .write_all(br#"["tag",[[1,{}]],{"chunk":"x"}]"#)
            .await
            .unwrap();
        client.shutdown().await.unwrap();
        let mut acks = Vec::new();
        client.read_to_end(&mut acks).await.unwrap();
        assert_eq!(acks, if json { &br#"{"ack":"x"}"#[..] } else { b"" });
    }
}

/// The server has closed the connection, soon after it began to stop.
async fn expect_closed(client: &mut DuplexStream) {
    let mut rest = Vec::new();
    timeout(2 * STOP_TIMEOUT, client.read_to_end(&mut rest))
        .await
        .expect("closed soon after the stop")
        .unwrap();
}

#[tokio::test]
async fn a_message_without_progress_does_not_delay_a_stop() {
    let mut scene = Scene::new(usize::MAX);
    let mut late = connect(&scene.context);
    scene.client.write_all(b"\x93").await.unwrap();
    tokio::time::sleep(STILL).await;
    scene.context.stop.cancel();
    // A byte now and then is no progress, and neither is a message that begins late.
    late.write_all(b"\x93").await.ok();
    for _ in 0..8 {
        tokio::time::sleep(STILL).await;
        scene.client.write_all(b"\xa3").await.ok();
    }
    expect_closed(&mut scene.client).await;
    expect_closed(&mut late).await;
}

#[tokio::test]
async fn a_client_that_reads_no_acks_does_not_delay_a_stop() {
    let mut scene = Scene::new(usize::MAX);
    let (message, _) = message(1);
    let messages = message.repeat(1000);
    let sending = async {
        // Ends when the server closes.
        while scene.client.write_all(&messages).await.is_ok() {}
    };
    let stopping = async {
        tokio::time::sleep(STILL).await;
        scene.context.stop.cancel();
        tokio::time::sleep(2 * STOP_TIMEOUT).await;
    };
    tokio::select! {
        () = sending => assert!(scene.context.stop.is_cancelled()),
        () = stopping => panic!("the connection is still open"),
    }
}

#[tokio::test]
async fn a_client_inside_its_handshake_does_not_delay_a_stop() {
    let (mut context, _dir) = test_context_with(usize::MAX, Box::new(()));
    context.security = Some(Security::with_shared_key("key"));
    let context = Arc::new(context);
    let mut client = connect(&context);
    tokio::time::sleep(STILL).await;
    context.stop.cancel();
    expect_closed(&mut client).await;
}
