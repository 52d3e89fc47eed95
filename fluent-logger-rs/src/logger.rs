//! Logger handle, the public API.
//!
//! Each call encodes on the caller's thread and copies into the queue under a short lock.

mod blocking;
mod caller_chunk;
mod guard;
#[cfg(feature = "metrics")]
mod metrics;
mod sending;
#[cfg(feature = "spool")]
mod sync;
mod when_room;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;
use tokio::sync::oneshot;

use crate::error::{FlushError, Rejected, SendError};
use crate::event::{Event, Stats};
use crate::loss_report::report_dropped_handle;
#[cfg(any(feature = "log", feature = "tracing"))]
use crate::options::AdapterSettings;
use crate::options::OnFull;
use crate::queue::Waiter;
use crate::record;
use crate::shared::{PendingFlush, Shared};
pub use guard::Guard;
use sending::SendState;
pub use sending::Sending;
pub use when_room::Queueing;
use when_room::push_when_room;

/// Longest tag that Fluent Bit takes (`FLB_INPUT_CHUNK_TAG_MAX`), in bytes.
const MAX_TAG_BYTES: usize = 65_531;

/// Sends events to a Forward server. Cheap to clone: all clones share one buffer and one
/// connection.
///
/// When the last clone is dropped, delivery continues in the background for
/// [`drop_timeout`](crate::Builder::drop_timeout); the drop itself never blocks. If `main` returns
/// meanwhile, the process ends and takes undelivered events with it: the drop says on stderr how
/// many are not delivered yet. Keep a [`guard`](Self::guard) in `main`, or call
/// [`close`](Self::close), which returns what was not delivered.
///
/// After a `fork` without `exec` the child has no worker: build a new logger in the child.
#[derive(Clone)]
pub struct Logger {
    handle: Arc<Handle>,
}

/// Ends the worker when the last clone is dropped.
struct Handle {
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        let deadline = Instant::now() + self.shared.options.drop_timeout;
        report_dropped_handle(&self.shared, deadline);
    }
}

impl Logger {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            handle: Arc::new(Handle { shared }),
        }
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.handle.shared
    }

    /// Queues an event with the present time. Returns as soon as it is queued; does no I/O and
    /// does not wait (unless the policy is [`OnFull::Wait`]).
    ///
    /// `Ok` means queued, not delivered: it will be delivered, reported to the delivery callback as
    /// dropped or given up, or returned by [`close`](Self::close).
    ///
    /// ```no_run
    /// # use std::error::Error;
    /// # async fn example(logger: fluent_logger::Logger) -> Result<(), Box<dyn Error>> {
    /// logger.log("cart", &serde_json::json!({ "items": 3 }))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Rejected`] says why the event was not queued: full, closed, too large, or no map with text
    /// keys.
    pub fn log<T: Serialize + ?Sized>(&self, tag: &str, record: &T) -> Result<(), Rejected> {
        self.log_at(SystemTime::now(), tag, record)
    }

    /// As [`log`](Self::log), with the time of the event. Times before 1970 and after 2106-02-07
    /// are sent as whole seconds, since EventTime has 32 unsigned bits of seconds.
    ///
    /// ```no_run
    /// # use std::error::Error;
    /// # async fn example(logger: fluent_logger::Logger) -> Result<(), Box<dyn Error>> {
    /// use std::time::SystemTime;
    /// logger.log_at(SystemTime::UNIX_EPOCH, "cart", &serde_json::json!({ "items": 3 }))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`log`](Self::log).
    pub fn log_at<T: Serialize + ?Sized>(
        &self,
        time: SystemTime,
        tag: &str,
        record: &T,
    ) -> Result<(), Rejected> {
        let shared = self.shared();
        let options = &shared.options;
        let result = with_tag(&options.tag_prefix, tag, |tag| {
            record::with_entry(time, &options.entry, record, |entry| {
                shared.push(tag, entry, None)
            })
        });
        self.count(result)
    }

    /// As [`log_at`](Self::log_at), and gives a future that resolves when the event is delivered.
    /// Unlike with [`send`](Self::send) the event waits for more events (see
    /// [`flush_interval`](crate::Builder::flush_interval)), and with [`OnFull::Wait`] the call
    /// waits for room: for applications that queue many events and learn later whether each was
    /// delivered.
    ///
    /// ```no_run
    /// # use std::error::Error;
    /// # async fn example(logger: fluent_logger::Logger) -> Result<(), Box<dyn Error>> {
    /// use std::time::SystemTime;
    /// let record = serde_json::json!({ "items": 3 });
    /// let delivery = logger.log_tracked(SystemTime::now(), "cart", &record)?;
    /// delivery.await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`log`](Self::log); the future gives [`SendError`].
    pub fn log_tracked<T: Serialize + ?Sized>(
        &self,
        time: SystemTime,
        tag: &str,
        record: &T,
    ) -> Result<Sending, Rejected> {
        let shared = self.shared();
        let options = &shared.options;
        let (waiter, receiver) = Waiter::new(false);
        let result = with_tag(&options.tag_prefix, tag, |tag| {
            record::with_entry(time, &options.entry, record, |entry| {
                shared.push(tag, entry, Some(waiter))
            })
        });
        self.count(result).map(|()| Sending(SendState::Queued(receiver)))
    }

    /// As [`log_at`](Self::log_at), for a record that is MessagePack already: one map with text
    /// keys. Its strings need not be UTF-8; they are sent as they are.
    ///
    /// ```no_run
    /// # use std::error::Error;
    /// # async fn example(logger: fluent_logger::Logger) -> Result<(), Box<dyn Error>> {
    /// use std::time::SystemTime;
    /// // {"n": 1}
    /// logger.log_encoded(SystemTime::now(), "cart", b"\x81\xa1n\x01")?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`log`](Self::log); [`Rejected::Unserializable`] if it is not exactly one MessagePack
    /// value.
    pub fn log_encoded(&self, time: SystemTime, tag: &str, record: &[u8]) -> Result<(), Rejected> {
        let shared = self.shared();
        let options = &shared.options;
        let write = |out: &mut Vec<u8>| {
            record::check(record)?;
            out.extend_from_slice(record);
            Ok(())
        };
        let result = with_tag(&options.tag_prefix, tag, |tag| {
            record::with_written(time, &options.entry, write, |entry| shared.push(tag, entry, None))
        });
        self.count(result)
    }

    /// Queues an event whose record `write` writes as MessagePack. Refusals are counted and
    /// otherwise silent: the caller cannot handle them.
    #[cfg(any(feature = "log", feature = "tracing"))]
    pub(crate) fn log_written(&self, tag: &str, write: impl FnOnce(&mut Vec<u8>)) {
        let shared = self.shared();
        let options = &shared.options;
        let write = |out: &mut Vec<u8>| {
            write(out);
            Ok(())
        };
        let result = with_tag(&options.tag_prefix, tag, |tag| {
            record::with_written(SystemTime::now(), &options.entry, write, |entry| {
                shared.push(tag, entry, None)
            })
        });
        let _ = self.count(result);
    }

    #[cfg(feature = "tracing")]
    pub(crate) fn count_sampled_out(&self) {
        self.shared().counters.sampled_out.fetch_add(1, Relaxed);
    }

    #[cfg(feature = "tracing")]
    pub(crate) fn count_suppressed(&self) {
        self.shared().counters.suppressed.fetch_add(1, Relaxed);
    }

    /// What the adapters take from the options.
    #[cfg(any(feature = "log", feature = "tracing"))]
    pub(crate) fn settings(&self) -> AdapterSettings {
        self.shared().options.settings
    }

    /// Makes everything queued due at once, without waiting for it.
    #[cfg(feature = "log")]
    pub(crate) fn flush_soon(&self) {
        self.shared().lock().queue.flush();
        self.shared().wake.notify_one();
    }

    fn count<T>(&self, result: Result<T, Rejected>) -> Result<T, Rejected> {
        if result.is_err() {
            self.shared().counters.rejected.fetch_add(1, Relaxed);
        }
        result
    }

    /// Queues an event with the present time at once and gives a future that resolves when it is
    /// delivered: acknowledged, or without acks written. The event does not wait for
    /// `flush_interval`.
    ///
    /// The future needs no tokio; dropping it does not take the event back. With [`OnFull::Wait`]
    /// and a full buffer the event is queued when the future is awaited and there is room.
    ///
    /// ```no_run
    /// # use std::error::Error;
    /// # async fn example(logger: fluent_logger::Logger) -> Result<(), Box<dyn Error>> {
    /// logger.send("sale", &serde_json::json!({ "cents": 1999 })).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The future gives [`SendError`]: refused, dropped, given up, or the logger was closed.
    pub fn send<T: Serialize + ?Sized>(&self, tag: &str, record: &T) -> Sending {
        self.send_at(SystemTime::now(), tag, record)
    }

    /// As [`send`](Self::send), with the time of the event.
    ///
    /// ```no_run
    /// # use std::error::Error;
    /// # async fn example(logger: fluent_logger::Logger) -> Result<(), Box<dyn Error>> {
    /// use std::time::SystemTime;
    /// logger.send_at(SystemTime::now(), "sale", &serde_json::json!({ "cents": 1999 })).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_at<T: Serialize + ?Sized>(&self, time: SystemTime, tag: &str, record: &T) -> Sending {
        let shared = self.shared();
        let options = &shared.options;
        let may_wait = matches!(options.on_full, OnFull::Wait(_));
        let (waiter, receiver) = Waiter::new(true);
        let mut delayed = None;
        let result = with_tag(&options.tag_prefix, tag, |tag| {
            record::with_entry(time, &options.entry, record, |entry| {
                match shared.try_push(tag, entry, Some(waiter)) {
                    Err((Rejected::Full { .. }, Some(waiter))) if may_wait => {
                        delayed = Some((tag.to_owned(), entry.to_vec(), waiter));
                        Ok(())
                    }
                    Err((rejected, _)) => Err(rejected),
                    Ok(()) => Ok(()),
                }
            })
        });
        let future: Pin<Box<dyn Future<Output = _> + Send>> = match (self.count(result), delayed) {
            (Err(rejected), _) => return Sending(SendState::Refused(Some(rejected))),
            (Ok(()), None) => return Sending(SendState::Queued(receiver)),
            (Ok(()), Some((tag, entry, waiter))) => {
                let shared = Arc::clone(shared);
                Box::pin(async move {
                    push_when_room(&shared, &tag, &entry, Some(waiter))
                        .await
                        .map_err(SendError::Rejected)?;
                    receiver.await.unwrap_or(Err(SendError::Closed))
                })
            }
        };
        Sending(SendState::Waiting(future))
    }

    /// Makes everything queued due at once, and resolves when every event that was queued before
    /// the call is delivered. Waits as long as that takes: put a timeout around it if there is a
    /// limit. Needs no tokio.
    ///
    /// ```no_run
    /// # use std::error::Error;
    /// # async fn example(logger: fluent_logger::Logger) -> Result<(), Box<dyn Error>> {
    /// use std::time::Duration;
    /// tokio::time::timeout(Duration::from_secs(5), logger.flush()).await??;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`FlushError::Lost`] if events were dropped or given up meanwhile, [`FlushError::Closed`] if
    /// the logger ended first.
    pub async fn flush(&self) -> Result<(), FlushError> {
        self.wait_settled(false).await
    }

    async fn wait_settled(&self, spool_only: bool) -> Result<(), FlushError> {
        let receiver = {
            let mut inner = self.shared().lock();
            if inner.worker_ended {
                return Err(FlushError::Closed);
            }
            let (done, receiver) = oneshot::channel();
            let mark = inner.queue.flush();
            inner.flushes.push(PendingFlush {
                mark,
                spool_only,
                lost_before: self.shared().lost(),
                done,
            });
            receiver
        };
        self.shared().wake.notify_one();
        receiver.await.unwrap_or(Err(FlushError::Closed))
    }

    /// Takes no more events, delivers what is queued, and resolves when all is delivered or
    /// `timeout` is over, whichever comes first. Returns the events that were not delivered, oldest
    /// first per tag: an empty vector means that everything was. Needs no tokio. Of several
    /// concurrent calls the first gets the events.
    ///
    /// With a spool (`Builder::spool`) what was not delivered is written there, which may take up
    /// to five seconds more, and is sent by the next logger with the same folder; only what the
    /// disk refused is returned.
    ///
    /// ```no_run
    /// # use std::error::Error;
    /// # async fn example(logger: fluent_logger::Logger) -> Result<(), Box<dyn Error>> {
    /// use std::time::Duration;
    /// for event in logger.close(Duration::from_secs(5)).await {
    ///     eprintln!("not delivered: {event:?}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn close(&self, timeout: Duration) -> Vec<Event> {
        let now = Instant::now();
        let deadline = now
            .checked_add(timeout)
            .unwrap_or(now + Duration::from_secs(30 * 24 * 3600));
        let (done, receiver) = oneshot::channel();
        if let Some(undelivered) = self.shared().begin_close(deadline, Some(done)) {
            return undelivered;
        }
        match receiver.await {
            Ok(events) => events,
            // The worker ended between the two steps and left the events in `Shared`.
            Err(_) => std::mem::take(&mut self.shared().lock().undelivered),
        }
    }

    /// The state of the logger in numbers. Cheap: a lock and a few loads.
    ///
    /// ```no_run
    /// # use std::error::Error;
    /// # async fn example(logger: fluent_logger::Logger) -> Result<(), Box<dyn Error>> {
    /// let stats = logger.stats();
    /// println!("{} events wait, {} were refused", stats.buffered_events, stats.rejected);
    /// # Ok(())
    /// # }
    /// ```
    pub fn stats(&self) -> Stats {
        let shared = self.shared();
        let inner = shared.lock();
        let counters = &shared.counters;
        Stats {
            accepted: inner.queue.next_event() - counters.recovered.load(Relaxed),
            rejected: counters.rejected.load(Relaxed),
            delivered: counters.delivered_events.load(Relaxed),
            dropped: counters.dropped.load(Relaxed),
            given_up: counters.given_up.load(Relaxed),
            sampled_out: counters.sampled_out.load(Relaxed),
            suppressed: counters.suppressed.load(Relaxed),
            buffered_events: inner.queue.events(),
            buffered_bytes: inner.queue.bytes(),
            in_flight: counters.in_flight_chunks.load(Relaxed),
            chunks: counters.delivered_chunks.load(Relaxed),
            resent: counters.resent_chunks.load(Relaxed),
            connections: counters.connections.load(Relaxed),
            connect_failures: counters.connect_failures.load(Relaxed),
            connection_losses: counters.connection_losses.load(Relaxed),
            callback_panics: counters.callback_panics.load(Relaxed),
            recovered: counters.recovered.load(Relaxed),
            spooled_chunks: counters.spooled_chunks.load(Relaxed),
            spool_failures: counters.spool_failures.load(Relaxed),
            connected: counters.connected.load(Relaxed),
            address: inner.address.clone(),
            last_error: inner.last_error.clone(),
        }
    }
}

impl fmt::Debug for Logger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Logger").field("stats", &self.stats()).finish()
    }
}

/// The tag with its prefix; allocates only if there is a prefix.
fn with_tag<R>(
    prefix: &str,
    tag: &str,
    then: impl FnOnce(&str) -> Result<R, Rejected>,
) -> Result<R, Rejected> {
    let bytes = prefix.len() + usize::from(!prefix.is_empty()) + tag.len();
    if bytes > MAX_TAG_BYTES {
        return Err(Rejected::TagTooLong { bytes });
    }
    if prefix.is_empty() {
        return then(tag);
    }
    if tag.is_empty() {
        return then(prefix);
    }
    let mut full = String::with_capacity(bytes);
    full.push_str(prefix);
    full.push('.');
    full.push_str(tag);
    then(&full)
}
