//! gRPC for one unary method: `LogsService/Export`.
//!
//! A request is one message after a prefix of five bytes, and the status comes in trailers. That is
//! all that a server of one method needs; HTTP/2 is hyper's.

use std::fmt::Write as _;

use bytes::{BufMut, Bytes, BytesMut};
use hyper::header::{HeaderName, HeaderValue};
use hyper::{HeaderMap, StatusCode};

use super::super::http::{Answer, Encoding, HttpServer, Incoming, Problem};

pub(super) const EXPORT_PATH: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
pub(super) const CONTENT_TYPE: &str = "application/grpc";
const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const PREFIX_BYTES: usize = 5;

/// Replaces the body of a request by its only message.
pub(super) async fn unwrap(server: &HttpServer, request: &mut Incoming<'_>) -> Result<(), Problem> {
    let mut body = std::mem::take(&mut request.body);
    let Some(&[compressed, a, b, c, d]) = body.first_chunk::<PREFIX_BYTES>() else {
        return Err(Problem::Malformed(
            "the body ends inside the prefix of the gRPC message".into(),
        ));
    };
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if body.len() - PREFIX_BYTES != length {
        return Err(Problem::Malformed(format!(
            "the gRPC message has {length} bytes by its prefix, and {} came",
            body.len() - PREFIX_BYTES
        )));
    }
    let message = body.split_off(PREFIX_BYTES);
    request.body = match compressed {
        0 => message,
        1 => {
            let name = request
                .headers
                .get("grpc-encoding")
                .and_then(|value| value.to_str().ok());
            let encoding = Encoding::named(name.unwrap_or("identity"))?.ok_or_else(|| {
                Problem::Malformed("the gRPC message is compressed, but grpc-encoding names no format".into())
            })?;
            server.decompress(encoding, message, &mut request.memory).await?
        }
        flag => {
            return Err(Problem::Malformed(format!(
                "the gRPC message has the unknown flag {flag}"
            )));
        }
    };
    Ok(())
}

/// The answer of success, with a message.
pub(super) fn success(answer: Answer, message: &[u8]) -> Answer {
    let mut body = BytesMut::with_capacity(PREFIX_BYTES + message.len());
    body.put_u8(0);
    body.put_u32(message.len() as u32);
    body.put_slice(message);
    let mut trailers = HeaderMap::new();
    trailers.insert(STATUS, HeaderValue::from_static("0"));
    answer
        .with_body(CONTENT_TYPE, body.freeze())
        .with_trailers(trailers)
}

/// The answer to a request that is not taken.
pub(super) fn failure(problem: Problem) -> Answer {
    let (code, message) = (code(&problem), problem.to_string());
    let mut answer = problem.into_answer().with_body(CONTENT_TYPE, Bytes::new());
    // The status is gRPC's.
    answer.status = StatusCode::OK;
    answer
        .with_header(STATUS, &code.to_string())
        .with_header(MESSAGE, &percent_encoded(&message))
}

/// The code of gRPC and of `google.rpc.Status`.
pub(super) fn code(problem: &Problem) -> u32 {
    match problem {
        Problem::Malformed(_) | Problem::LengthRequired => 3,
        Problem::Slow(_) | Problem::SlowWithMemory => 4,
        Problem::Origin(_) => 7,
        Problem::TooLarge { .. } => 8,
        Problem::NotFound { .. } | Problem::Method(_) | Problem::Unsupported(_) => 12,
        Problem::Unavailable(_) => 14,
        Problem::Unauthorized(_) => 16,
        Problem::Aborted(_) => 1,
    }
}

fn percent_encoded(message: &str) -> String {
    let mut encoded = String::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            // Writing into a string cannot fail.
            _ => write!(encoded, "%{byte:02X}").unwrap_or_default(),
        }
    }
    encoded
}
