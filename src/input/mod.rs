//! Intake: bytes from clients become durable journal records, and then acknowledgements.
//!
//! * `forward`: the Forward protocol over TCP, TLS and unix sockets;
//! * `http`: records in the bodies of HTTP requests;
//! * `otlp`: OpenTelemetry's protocol for logs, over HTTP and gRPC.
//!
//! Knows nothing of traces: a message is decoded only as far as its acknowledgement depends on it.

pub mod forward;
pub mod http;
pub mod otlp;
