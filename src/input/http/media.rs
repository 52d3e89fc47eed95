//! Media types: which format the body of a request has.

use hyper::{HeaderMap, header};

use super::answer::Problem;

/// The formats, for the answer to any other.
const ALLOWED: &str =
    "application/json, application/x-ndjson, application/msgpack, application/x-www-form-urlencoded";

/// How records are written in a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// Objects and arrays of objects, one after the other.
    Json,
    /// One of these a line.
    Lines,
    MessagePack,
    /// `json=…`, `msgpack=…`, or the fields of one record.
    Form,
}

/// What the headers say of the format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Media {
    Known(Format),
    /// The body decides: JSON, or nothing that is taken. The name, for the answer.
    JsonIfItLooksLike(String),
    /// A form, unless the body is JSON: curl calls every body a form.
    FormOrJson,
}

impl Format {
    /// The format that `Content-Type` names.
    pub(super) fn of(headers: &HeaderMap) -> Result<Media, Problem> {
        let Some(value) = headers.get(header::CONTENT_TYPE) else {
            return Ok(Media::JsonIfItLooksLike("a body without Content-Type".into()));
        };
        let text = String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase();
        let mut parts = text.split(';').map(str::trim);
        let essence = parts.next().unwrap_or_default();
        for charset in parts.filter_map(|parameter| parameter.strip_prefix("charset=")) {
            let charset = charset.trim_matches('"');
            if !matches!(charset, "utf-8" | "utf8" | "us-ascii" | "ascii") {
                return Err(Problem::Unsupported(format!(
                    "charset {charset:?} is not taken; send UTF-8"
                )));
            }
        }
        let suffix = essence.rsplit_once('+').map(|(_, suffix)| suffix);
        Ok(match (essence, suffix) {
            ("application/json" | "text/json" | "text/x-json" | "application/csp-report", _)
            | (_, Some("json")) => Media::Known(Self::Json),
            (
                "application/x-ndjson"
                | "application/ndjson"
                | "application/jsonlines"
                | "application/x-jsonlines"
                | "application/jsonl"
                | "application/x-json-stream"
                | "application/x-jsonl"
                | "application/json-lines"
                | "application/json-seq"
                | "text/x-ndjson",
                _,
            )
            | (_, Some("json-seq")) => Media::Known(Self::Lines),
            ("application/msgpack" | "application/x-msgpack" | "application/vnd.msgpack", _)
            | (_, Some("msgpack")) => Media::Known(Self::MessagePack),
            ("application/x-www-form-urlencoded", _) => Media::FormOrJson,
            ("text/plain" | "application/octet-stream" | "", _) => {
                Media::JsonIfItLooksLike(format!("Content-Type {essence:?}"))
            }
            _ => {
                return Err(Problem::Unsupported(format!(
                    "Content-Type {essence:?} is not taken; use one of {ALLOWED}"
                )));
            }
        })
    }
}

impl Media {
    /// The format of this body.
    pub(super) fn for_body(&self, body: &[u8]) -> Result<Format, Problem> {
        let text = body
            .strip_prefix(b"\xef\xbb\xbf")
            .unwrap_or(body)
            .trim_ascii_start();
        let is_json = matches!(text.first(), Some(b'{' | b'['));
        match self {
            Self::Known(format) => Ok(*format),
            Self::JsonIfItLooksLike(_) | Self::FormOrJson if is_json => Ok(Format::Json),
            Self::FormOrJson => Ok(Format::Form),
            Self::JsonIfItLooksLike(name) => Err(Problem::Unsupported(format!(
                "{name} is only taken if the body is JSON; use one of {ALLOWED}"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(content_type: &str, body: &str) -> Result<Format, u16> {
        let mut headers = HeaderMap::new();
        if !content_type.is_empty() {
            headers.insert(header::CONTENT_TYPE, content_type.parse().unwrap());
        }
        let media = Format::of(&headers).map_err(|problem| problem.status().as_u16())?;
        media
            .for_body(body.as_bytes())
            .map_err(|problem| problem.status().as_u16())
    }

    #[test]
    fn types_with_parameters_and_suffixes_are_known() {
        for json in [
            "application/json",
            "Application/JSON; charset=UTF-8",
            "application/json;charset=\"utf-8\"",
            "application/vnd.github+json",
            "application/cloudevents+json; charset=utf-8",
            "text/json",
            "application/csp-report",
            "application/reports+json",
        ] {
            assert_eq!(format(json, "x"), Ok(Format::Json), "{json}");
        }
        assert_eq!(format("application/x-ndjson", "x"), Ok(Format::Lines));
        assert_eq!(format("application/vnd.x+msgpack", "x"), Ok(Format::MessagePack));
        let form = "application/x-www-form-urlencoded";
        assert_eq!(format(form, "json=%7B%7D"), Ok(Format::Form));
        assert_eq!(format(form, " {\"a\":1}"), Ok(Format::Json), "curl -d");
        for sniffed in ["", "text/plain;charset=UTF-8", "application/octet-stream"] {
            assert_eq!(format(sniffed, "[{}]"), Ok(Format::Json), "{sniffed}");
            assert_eq!(format(sniffed, "a line"), Err(415), "{sniffed}");
        }
        for other in [
            "application/xml",
            "multipart/form-data; boundary=x",
            "application/json; charset=latin1",
        ] {
            assert_eq!(format(other, "{}"), Err(415), "{other}");
        }
    }
}
