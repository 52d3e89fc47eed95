//! Responses of OTLP: `ExportLogsServiceResponse` with its partial success, and
//! `google.rpc.Status`, in the encoding of the request.

use bytes::Bytes;
use serde_json::json;

use super::super::http::{Answer, Problem};
use super::Encoding;
use super::entry::Taken;
use super::grpc;

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

/// Writes answers in one encoding.
pub(super) struct Reply(Encoding);

impl Reply {
    pub(super) fn of(encoding: Encoding) -> Self {
        Self(encoding)
    }

    /// `answer` says that the records are durable; what was rejected is added.
    pub(super) fn success(&self, answer: Answer, taken: &Taken) -> Answer {
        let reason = taken.reason.as_deref().unwrap_or_default();
        match self.0 {
            Encoding::Json if taken.rejected == 0 => answer.with_body(JSON, Bytes::from_static(b"{}")),
            Encoding::Json => {
                let body = json!({ "partialSuccess": {
                    "rejectedLogRecords": taken.rejected.to_string(),
                    "errorMessage": reason,
                } });
                answer.with_body(JSON, body.to_string().into())
            }
            Encoding::Protobuf => answer.with_body(PROTOBUF, response(taken.rejected, reason).into()),
            Encoding::Grpc => grpc::success(answer, &response(taken.rejected, reason)),
        }
    }

    /// The request is not taken.
    pub(super) fn failure(&self, problem: Problem) -> Answer {
        let (code, message) = (grpc::code(&problem), problem.to_string());
        match self.0 {
            Encoding::Grpc => grpc::failure(problem),
            Encoding::Json => {
                let body = json!({ "code": code, "message": message });
                problem.into_answer().with_body(JSON, body.to_string().into())
            }
            Encoding::Protobuf => {
                let mut status = Vec::new();
                put_varint(&mut status, 1 << 3);
                put_varint(&mut status, u64::from(code));
                put_bytes(&mut status, 2, message.as_bytes());
                problem.into_answer().with_body(PROTOBUF, status.into())
            }
        }
    }
}

/// An `ExportLogsServiceResponse`.
fn response(rejected: u64, reason: &str) -> Vec<u8> {
    let mut response = Vec::new();
    if rejected > 0 {
        let mut partial = Vec::new();
        put_varint(&mut partial, 1 << 3);
        put_varint(&mut partial, rejected);
        put_bytes(&mut partial, 2, reason.as_bytes());
        put_bytes(&mut response, 1, &partial);
    }
    response
}

fn put_bytes(out: &mut Vec<u8>, number: u64, bytes: &[u8]) {
    put_varint(out, number << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
