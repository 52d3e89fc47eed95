//! OTLP input: OpenTelemetry's protocol for logs, over HTTP (protobuf and JSON) and gRPC.
//!
//! Records, resources and scopes become the entries that Fluent Bit's `in_opentelemetry` sends over
//! Forward, so that one mapping serves both (module `entry`).
//!
//! * `wire`, `protobuf`, `json`: the two encodings, read in place: a declared structure takes no
//!   memory;
//! * `entry`: group headers, metadata and records;
//! * `grpc`: framing and statuses of gRPC;
//! * `response`: `ExportLogsServiceResponse` and `google.rpc.Status`.
//!
//! Connections, authentication, limits and the journal are those of the HTTP input.

mod entry;
#[doc(hidden)]
pub mod fuzz;
mod grpc;
mod json;
mod protobuf;
mod response;
#[cfg(test)]
mod tests;
mod wire;

use std::net::IpAddr;

use hyper::body::Incoming as Body;
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, header};

use self::entry::Taken;
use self::response::Reply;
use super::http::{
    Answer, Committed, HttpServer, Incoming, MessageBuilder, Problem, commit, idempotency_key,
};
use crate::input::forward::source_of;
use crate::metrics::Mode;

const HTTP_PATH: &str = "/v1/logs";
/// The paths of this input, for the answer to another one.
const ALLOWED: &str = "logs only: POST /v1/logs, or gRPC's LogsService/Export";
/// Chunk id of requests that are known by their content.
const CONTENT_CHUNK: &[u8] = b"otlp";

/// How a request is encoded, and its answer too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Protobuf,
    Json,
    Grpc,
}

impl Encoding {
    fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let value = headers.get(header::CONTENT_TYPE).map(|value| value.as_bytes());
        let text = String::from_utf8_lossy(value.unwrap_or_default()).to_ascii_lowercase();
        match text.split(';').next().unwrap_or_default().trim() {
            "application/x-protobuf" | "application/protobuf" => Ok(Self::Protobuf),
            "application/json" => Ok(Self::Json),
            "application/grpc" | "application/grpc+proto" => Ok(Self::Grpc),
            other => Err(Problem::Unsupported(format!(
                "Content-Type {other:?} is not taken; use application/x-protobuf, application/json or gRPC"
            ))),
        }
    }
}

/// Takes a request into the journal.
pub(super) async fn take(
    server: &HttpServer,
    head: &Parts,
    body: &mut Body,
    peer: IpAddr,
) -> Result<Answer, Problem> {
    let path = head.uri.path();
    let encoding = match path {
        HTTP_PATH => Encoding::of(&head.headers).and_then(|encoding| match encoding {
            Encoding::Grpc => Err(not_found(path)),
            encoding => Ok(encoding),
        }),
        grpc::EXPORT_PATH => Encoding::of(&head.headers),
        _ => return Err(not_found(path)),
    };
    if head.method != Method::POST {
        return Err(Problem::Method(head.method.to_string()));
    }
    server.authenticate(&head.headers, peer).await?;
    let encoding = encoding?;
    let key = idempotency_key(&head.headers)?;
    let mut request = server.read(&head.headers, body).await?;
    server.context().metrics.input_messages[Mode::Otlp].inc();
    if encoding == Encoding::Grpc {
        grpc::unwrap(server, &mut request).await?;
    }
    let depth = server.context().limits.depth;
    // The JSON is converted to MessagePack first.
    let copies = if encoding == Encoding::Json { 1 } else { 0 };
    let converted = server.convert(
        &mut request,
        server.otlp_tag(),
        copies,
        |bytes, message, limit| append(encoding, bytes, message, limit, depth),
    );
    let (message, taken) = converted.await?;
    let Incoming { memory, .. } = request;
    // Two requests that differ do not agree in a time that is more exact than a millisecond: an
    // equal one was sent again.
    let chunk = key.or_else(|| taken.has_exact_time.then(|| CONTENT_CHUNK.to_vec()));
    let message = message.finish(taken.records, chunk.as_deref());
    let records = taken.records;
    let committed = Committed {
        source: source_of(Some(peer)),
        message,
        records,
    };
    let answer = commit(server.context(), committed, memory).await?;
    Ok(Reply::of(encoding).success(answer, &taken))
}

fn append(
    encoding: Encoding,
    bytes: &[u8],
    message: &mut MessageBuilder,
    limit: usize,
    depth: u32,
) -> Result<Taken, Problem> {
    match encoding {
        Encoding::Protobuf | Encoding::Grpc => protobuf::append(bytes, message, limit, depth),
        Encoding::Json => json::append(bytes, message, limit, depth),
    }
}

fn not_found(path: &str) -> Problem {
    Problem::NotFound {
        path: path.into(),
        allowed: ALLOWED,
    }
}

/// The answer to a request that is not taken, in the encoding of the request.
pub(super) fn refuse(head: &Parts, problem: Problem) -> Answer {
    let encoding = Encoding::of(&head.headers).unwrap_or(Encoding::Json);
    Reply::of(encoding).failure(problem)
}
