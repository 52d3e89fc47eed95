//! Intake: bytes from clients become durable journal records, and then acknowledgements.
//!
//! * `forward`: the Forward protocol over TCP and unix sockets.
//!
//! Knows nothing of traces: what is in a message is looked at only as far as an ack depends on it.

pub mod forward;
