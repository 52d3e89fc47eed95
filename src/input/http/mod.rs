//! HTTP input: the records in the body of a request become one Forward message in the journal, and
//! the answer is built from its receipt. What OTLP shares with it is here too.
//!
//! * `listener`, `connection`: HTTP/1.1 and HTTP/2, with TLS and without;
//! * `server`: what all connections share, and the way of one request;
//! * `auth`, `cors`: who may send;
//! * `body`, `encoding`, `work_pool`: bodies, within the budget of all receive buffers;
//! * `media`, `records`, `form`, `time`, `tag`: from a body to records;
//! * `message`, `commit`: from records to a durable message;
//! * `answer`: answers and problems.
//!
//! A request is taken as a whole or not at all.

mod answer;
mod auth;
mod body;
mod commit;
mod connection;
mod cors;
mod encoding;
mod form;
#[doc(hidden)]
pub mod fuzz;
mod listener;
mod media;
mod message;
mod records;
mod server;
mod tag;
#[cfg(test)]
mod tests;
mod time;
mod work_pool;

pub(in crate::input) use self::answer::{Answer, Problem};
pub(in crate::input) use self::commit::{Committed, commit};
pub(in crate::input) use self::encoding::Encoding;
pub(in crate::input) use self::message::{MessageBuilder, idempotency_key};
pub(in crate::input) use self::server::Incoming;

pub use self::listener::{BoundHttp, Protocol, bind};
pub use self::server::HttpServer;
