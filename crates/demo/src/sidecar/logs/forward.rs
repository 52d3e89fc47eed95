//! Delivery with fluent-logger-rs: each chunk under the id that the sidecar has recorded, so that a
//! server which deduplicates by id and content recognises a chunk that is sent again after a crash.
//!
//! The logger connects, retries and waits for the acknowledgement; its failures are counted in
//! [`Status`].

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use fluent_logger::Logger;

use super::{Chunk, Delivery, MAX_BACKOFF, status::Status};
use crate::{Error, forward::Target};

/// A logger with one chunk in flight.
#[derive(Debug)]
pub struct ForwardDelivery {
    logger: Logger,
}

impl ForwardDelivery {
    /// Starts the logger; it connects when there is something to send. `backoff` is the first wait
    /// after a failure.
    ///
    /// # Errors
    /// [`Error::Logger`] when the target is invalid, or a file for TLS cannot be read.
    pub fn start(target: &Target, backoff: Duration, status: Arc<Status>) -> Result<Self, Error> {
        let logger = target
            .builder()?
            .retry_wait(backoff)
            .max_retry_wait(MAX_BACKOFF)
            // The sidecar bounds chunks and lines itself.
            .record_limit(MAX_RECORD_BYTES)
            .buffer_limit(super::CHUNK_LINES + 1)
            .buffer_limit_bytes(4 * MAX_RECORD_BYTES)
            .on_connection_error(move |error| status.failed(&error.to_string()))
            .build()
            .map_err(|error| Error::Logger(error.to_string()))?;
        Ok(Self { logger })
    }
}

impl Delivery for ForwardDelivery {
    async fn deliver(&mut self, chunk: &Chunk) -> Result<(), String> {
        let events = chunk
            .events
            .iter()
            .map(|event| (moment(event.time_ns), &event.record));
        let sent = self.logger.send_chunk(&chunk.id, &chunk.tag, events);
        sent.await.map_err(|error| error.to_string())
    }
}

fn moment(nanoseconds: i64) -> SystemTime {
    let distance = Duration::from_nanos(nanoseconds.unsigned_abs());
    let moment = if nanoseconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    };
    moment.unwrap_or(SystemTime::UNIX_EPOCH)
}

/// No line can become larger: a chunk of lines has at most [`super::CHUNK_BYTES`] bytes.
const MAX_RECORD_BYTES: usize = 64 << 20;

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpStream},
    };

    use super::*;
    use crate::sidecar::logs::record::Event;

    fn chunk() -> Chunk {
        let record = Map::from_iter([("log".to_owned(), "hi".into()), ("n".to_owned(), json!(-1))]);
        Chunk {
            id: "c1".to_owned(),
            tag: "t.a".to_owned(),
            events: vec![Event {
                time_ns: 1_700_000_000_123_456_789,
                record,
            }],
        }
    }

    /// Reads until the bytes end as the message of the chunk does.
    async fn message(stream: &mut TcpStream) -> Vec<u8> {
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\xa4size\x01") {
            assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0);
        }
        bytes
    }

    /// A sidecar is killed before the acknowledgement; the next one sends the same bytes.
    #[tokio::test]
    async fn the_same_chunk_is_the_same_message_from_another_process_too() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target::plain(listener.local_addr().unwrap().to_string());
        let mut seen = Vec::new();
        // A logger whose connection ends connects again, also after its delivery was aborted.
        let mut open = Vec::new();
        for answered in [false, true] {
            let mut delivery =
                ForwardDelivery::start(&target, super::super::BACKOFF, Arc::default()).unwrap();
            let delivering = tokio::spawn(async move { delivery.deliver(&chunk()).await });
            let (mut stream, _) = listener.accept().await.unwrap();
            seen.push(message(&mut stream).await);
            if answered {
                stream.write_all(b"\x81\xa3ack\xa2c1").await.unwrap();
                delivering.await.unwrap().unwrap();
            } else {
                delivering.abort();
            }
            open.push(stream);
        }
        assert_eq!(seen[0], seen[1]);
        let expected = b"\x92\xd7\x00\x65\x53\xf1\x00\x07\x5b\xcd\x15\x82\xa3log\xa2hi\xa1n\xff";
        assert!(seen[0].windows(expected.len()).any(|bytes| bytes == expected));
    }

    #[tokio::test]
    async fn a_server_that_is_away_is_told_and_waited_for() {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let status = Arc::<Status>::default();
        let target = Target::plain(address.to_string());
        let backoff = Duration::from_millis(5);
        let mut delivery = ForwardDelivery::start(&target, backoff, Arc::clone(&status)).unwrap();
        let delivering = tokio::spawn(async move { delivery.deliver(&chunk()).await });
        while status.failures() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let listener = TcpListener::bind(address).await.unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        message(&mut stream).await;
        stream.write_all(b"\x81\xa3ack\xa2c1").await.unwrap();
        delivering.await.unwrap().unwrap();
    }

    #[test]
    fn times_before_1970_are_times_too() {
        let before = SystemTime::UNIX_EPOCH - Duration::from_nanos(1_500_000_000);
        assert_eq!(moment(-1_500_000_000), before);
        assert!(moment(i64::MAX) > moment(0) && moment(i64::MIN) < moment(0));
    }
}
