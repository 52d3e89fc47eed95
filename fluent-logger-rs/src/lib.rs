//! A logger for the Fluent Forward protocol: to Windrow, Fluent Bit, Fluentd or the OpenTelemetry Collector.
//!
//! [`Logger::log`] encodes an event on the calling thread, copies it into a bounded buffer and returns; it does no
//! I/O and waits for nobody. One task gathers events into chunks, one per tag, and sends them over one connection
//! with several chunks in flight. A chunk stays in memory until the server acknowledged it. When a connection
//! breaks, what was not acknowledged is sent again over the next one: the same bytes with the same chunk id, in the
//! same order.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use fluent_logger::Logger;
//!
//! #[derive(serde::Serialize)]
//! struct Sale<'a> { item: &'a str, cents: u32 }
//!
//! let logger = Logger::builder().address("127.0.0.1:24224").tag_prefix("shop").build()?;
//! logger.log("sale", &Sale { item: "hat", cents: 1999 })?;          // queued
//! logger.send("sale", &Sale { item: "tie", cents: 999 }).await?;    // acknowledged
//! for event in logger.close(Duration::from_secs(5)).await {         // what could not be delivered
//!     eprintln!("lost: {event:?}");
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What is promised
//!
//! | | with `request_ack` (default) | without |
//! |---|---|---|
//! | `log` said `Ok` | delivered, or reported to the delivery callback as dropped or given up, or returned by `close` | the same |
//! | "delivered" means | the server acknowledged it | the operating system took its bytes |
//! | server or network dies | nothing is lost; a chunk whose ack was lost comes twice, **with the same chunk id**: Windrow drops the repetition, Fluent Bit and Fluentd do not | what was on its way is lost, unnoticed |
//! | order | per tag, in the order of the calls; a chunk that is sent again comes later than it would have | the same |
//! | this process dies | what waits in memory is lost: at most the bounds of the buffer | the same |
//!
//! What an ack is worth is the server's matter: Windrow acknowledges what is on its disk, Fluent Bit what is in its
//! memory (by default), Fluentd what is in its output buffer.
//!
//! Nothing is written to disk here. An application that must not lose events when it is killed awaits
//! [`Logger::send`] before it goes on.
//!
//! # Features
//!
//! `gzip` (mode `PackedGzip`), `tls` (rustls with ring), `tracing` (`FluentLayer`), `log` (`FluentLog`). None is on
//! by default.
//!
//! # Design
//!
//! * **Why is the buffer bounded in events and in bytes?** Because a bound in events alone is none for large events,
//!   and one in bytes alone is hard to reason about for small ones.
//! * **Why is there one connection and not a pool?** Several chunks are in flight on it, so that a second one would
//!   add nothing but disorder. Load spreads over servers by
//!   [`async_reconnect_interval`](Builder::async_reconnect_interval).
//! * **Why may chunks hold only half of the buffer?** So that with [`OnFull::DropOldest`] there is always something
//!   that can be dropped: what may be at the server already is never dropped.
//! * **Why does an unknown ack end the connection?** After it nobody can say which chunk is meant. Sending again is
//!   safe, guessing is not.
#![forbid(unsafe_code)]

mod builder;
mod chunk;
mod connect;
mod delivery;
mod error;
mod event;
mod handshake;
mod inside;
#[cfg(feature = "log")]
mod log_facade;
mod logger;
mod options;
mod queue;
mod random;
mod record;
mod shared;
#[cfg(feature = "tls")]
mod tls;
#[cfg(feature = "tracing")]
mod tracing_layer;
mod wire;
mod worker;

pub use builder::Builder;
pub use error::{BuildError, ConnectionError, FlushError, Rejected, SendError};
pub use event::{DecodeError, Event, Outcome, Report, Stats};
#[cfg(feature = "log")]
pub use log_facade::FluentLog;
pub use logger::{Logger, Sending};
pub use options::{Balance, Mode, OnFull};
#[cfg(feature = "tracing")]
pub use tracing_layer::FluentLayer;
