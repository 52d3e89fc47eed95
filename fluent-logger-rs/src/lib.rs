//! A logger for the Fluent Forward protocol: to Windrow, Fluent Bit, Fluentd or the OpenTelemetry Collector.
//!
//! Events are queued without blocking, gathered into chunks and sent over one connection with several chunks in
//! flight; each chunk stays in memory until the server acknowledged it, and is sent again, unchanged, over the
//! next connection until it did.
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
