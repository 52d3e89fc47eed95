//! [`Sink`]: reads the events that the server under test has delivered.
//!
//! Reads Windrow's `/logs` or a file that the server (or its output) appends to, and returns
//! `Document`s. Decides nothing about them.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Where delivered events can be read.
#[derive(Clone, Debug)]
pub enum Sink {
    /// `HOST:PORT` of Windrow's admin listener: `GET /logs?traceId=…`, one document per trace.
    WindrowLogs(String),
    /// A file with one record per line: NDJSON, or Fluent Bit's file output (`tag: [time, {…}]`).
    File(PathBuf),
    /// No sink: only acks and liveness are checked, and the report says so.
    None,
}

impl FromStr for Sink {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some(("windrow-logs", url)) => {
                let host = url
                    .strip_prefix("http://")
                    .ok_or("windrow-logs wants http://HOST:PORT")?;
                Ok(Self::WindrowLogs(host.trim_end_matches('/').to_owned()))
            }
            Some(("file", path)) => Ok(Self::File(path.into())),
            None if text == "none" => Ok(Self::None),
            _ => Err(format!(
                "unknown sink {text:?}; known: windrow-logs=http://HOST:PORT, file=PATH, none"
            )),
        }
    }
}

/// A delivered record, or for Windrow the document of a trace.
#[derive(Clone, Debug)]
pub(crate) struct Document {
    /// The fields of the record, without those that the server added.
    pub(crate) fields: Map<String, Value>,
    /// The texts of its records, in order.
    pub(crate) texts: Vec<String>,
    /// How many records it holds.
    pub(crate) records: u64,
    /// Its event time as the sink shows it.
    pub(crate) time: Option<ShownTime>,
    /// The whole document, as read from the sink.
    pub(crate) whole: Value,
}

/// An event time with the number of decimals that the sink shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ShownTime {
    pub(crate) sec: i64,
    pub(crate) nsec: u32,
    pub(crate) decimals: u32,
}

impl ShownTime {
    /// Whether this is the given time, to the precision of the sink.
    pub(crate) fn is(self, sec: i64, nsec: u32) -> bool {
        let unit = 10_u32.pow(9 - self.decimals.min(9));
        self.sec == sec && self.nsec / unit == nsec / unit
    }
}

impl Sink {
    pub(crate) fn is_readable(&self) -> bool {
        !matches!(self, Self::None)
    }

    /// Whether metadata and group attributes of events can be read.
    pub(crate) fn shows_metadata(&self) -> bool {
        matches!(self, Self::WindrowLogs(_))
    }

    /// How long after the expected number of records a surplus one may still appear.
    pub(crate) fn settle_time(&self) -> Duration {
        Duration::from_millis(if matches!(self, Self::WindrowLogs(_)) {
            300
        } else {
            150
        })
    }

    /// The documents of this token, oldest first.
    pub(crate) async fn read(&self, token: &str) -> Result<Vec<Document>, String> {
        match self {
            Self::None => Ok(Vec::new()),
            Self::File(path) => read_file(path, token),
            Self::WindrowLogs(host) => {
                let body = http_get(host, &format!("/logs?traceId={token}&limit=1000")).await?;
                let docs: Vec<Value> = serde_json::from_slice(&body)
                    .map_err(|e| format!("/logs: {e}: {}", String::from_utf8_lossy(&body)))?;
                Ok(docs.into_iter().rev().filter_map(windrow_doc).collect())
            }
        }
    }
}

const TEXT_KEYS: [&str; 3] = ["message", "log", "msg"];

fn windrow_doc(whole: Value) -> Option<Document> {
    let mut fields = whole.as_object()?.clone();
    let own = fields.shift_remove("windrow").unwrap_or(Value::Null);
    let time = fields
        .shift_remove("@timestamp")
        .and_then(|t| rfc3339(t.as_str()?));
    let text = TEXT_KEYS.iter().find_map(|key| fields.get(*key)?.as_str());
    let texts = text
        .map(|t| t.split('\n').map(str::to_owned).collect())
        .unwrap_or_default();
    let records = own.get("lines").and_then(Value::as_u64).unwrap_or(1);
    Some(Document {
        fields,
        texts,
        records,
        time,
        whole,
    })
}

fn read_file(path: &Path, token: &str) -> Result<Vec<Document>, String> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(format!("{}: {e}", path.display())),
    };
    let text = String::from_utf8_lossy(&bytes);
    // The last line may be partially written; the next read finds it complete.
    let whole_lines = text.rfind('\n').map_or("", |end| &text[..end]);
    let own = format!("\"traceId\":\"{token}\"");
    let lines = whole_lines.lines().filter(|line| line.contains(&own));
    Ok(lines
        .map(|line| file_doc(line).unwrap_or_else(|| unparsed_line(line)))
        .collect())
}

/// A line with the event that is not JSON (a non-string key, a NaN): its text, if found.
fn unparsed_line(line: &str) -> Document {
    let text = line
        .split_once("\"log\":\"")
        .and_then(|(_, rest)| rest.split_once('"'))
        .map(|(text, _)| text.to_owned());
    let whole = Value::String(line.to_owned());
    Document {
        fields: Map::new(),
        texts: text.into_iter().collect(),
        records: 1,
        time: None,
        whole,
    }
}

fn file_doc(line: &str) -> Option<Document> {
    let start = line.find('{')?;
    let end = line.rfind('}')?;
    let whole: Value = serde_json::from_str(line.get(start..=end)?).ok()?;
    let mut fields = whole.as_object()?.clone();
    let shown = match line[..start].rsplit_once('[') {
        Some((_, before)) => Some(before.trim_end_matches([',', ' ']).to_owned()),
        None => fields
            .shift_remove("date")
            .map(|d| d.as_str().map_or_else(|| d.to_string(), str::to_owned)),
    };
    let text = TEXT_KEYS
        .iter()
        .find_map(|key| fields.get(*key)?.as_str())
        .map(str::to_owned);
    Some(Document {
        texts: text.into_iter().collect(),
        records: 1,
        time: shown.and_then(|t| decimal(&t)),
        fields,
        whole,
    })
}

/// `1700000000.123456789`
fn decimal(text: &str) -> Option<ShownTime> {
    let (sec, part) = text.split_once('.').unwrap_or((text, ""));
    let decimals = part.len().min(9);
    let nsec = format!("{:0<9}", &part[..decimals]).parse().ok()?;
    Some(ShownTime {
        sec: sec.parse().ok()?,
        nsec,
        decimals: decimals as u32,
    })
}

/// `2026-11-21T09:20:00.123Z`, UTC only.
fn rfc3339(text: &str) -> Option<ShownTime> {
    let (date, clock) = text.strip_suffix('Z')?.split_once('T')?;
    let numbers = |s: &str, by: char| -> Option<Vec<i64>> { s.split(by).map(|n| n.parse().ok()).collect() };
    let (clock, part) = clock.split_once('.').unwrap_or((clock, ""));
    let [year, month, day] = numbers(date, '-')?.try_into().ok()?;
    let [h, m, s] = numbers(clock, ':')?.try_into().ok()?;
    let stamp = decimal(&format!("0.{part}"))?;
    Some(ShownTime {
        sec: days(year, month, day) * 86_400 + h * 3600 + m * 60 + s,
        ..stamp
    })
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar (years from March, so that the leap
/// day is the last).
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + day_of_year - 719_468
}

async fn http_get(host: &str, path: &str) -> Result<Vec<u8>, String> {
    let ask = async {
        let mut stream = TcpStream::connect(host).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = tokio::time::timeout(Duration::from_secs(20), ask)
        .await
        .map_err(|_| format!("http://{host}{path}: no answer in 20 s"))?
        .map_err(|e| format!("http://{host}{path}: {e}"))?;
    let split = answer
        .windows(4)
        .position(|w| w == b"\r\n\r\n")
        .ok_or("answer without an HTTP head")?;
    let head = String::from_utf8_lossy(&answer[..split]).to_ascii_lowercase();
    let body = &answer[split + 4..];
    let status = head.split(' ').nth(1).unwrap_or("?");
    if status != "200" {
        return Err(format!(
            "http://{host}{path}: status {status}: {}",
            String::from_utf8_lossy(body)
        ));
    }
    Ok(if head.contains("transfer-encoding: chunked") {
        unchunk(body)?
    } else {
        body.to_vec()
    })
}

fn unchunk(mut body: &[u8]) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    loop {
        let end = body
            .windows(2)
            .position(|w| w == b"\r\n")
            .ok_or("chunked body without a size line")?;
        let size = String::from_utf8_lossy(&body[..end]);
        let size = usize::from_str_radix(size.trim(), 16).map_err(|e| format!("chunk size {size:?}: {e}"))?;
        if size == 0 {
            return Ok(out);
        }
        let data = body
            .get(end + 2..end + 2 + size)
            .ok_or("chunked body ends early")?;
        out.extend_from_slice(data);
        body = body.get(end + 4 + size..).ok_or("chunked body ends early")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_every_form() {
        let stamp = rfc3339("2023-11-14T22:13:20.123Z").unwrap();
        assert_eq!(
            stamp,
            ShownTime {
                sec: 1_700_000_000,
                nsec: 123_000_000,
                decimals: 3
            }
        );
        assert!(stamp.is(1_700_000_000, 123_456_789) && !stamp.is(1_700_000_000, 124_000_000));
        assert_eq!(rfc3339("2040-02-29T00:00:00Z").unwrap().sec, 2_214_086_400);
        assert_eq!(rfc3339("1969-12-31T23:59:59Z").unwrap().sec, -1);
        assert_eq!(decimal("1700000000.000000001").unwrap().nsec, 1);
    }

    #[test]
    fn lines_of_files_are_read_in_both_forms() {
        let bit = file_doc(r#"t.a: [1700000000.123456789, {"traceId":"x","log":"hi"}]"#).unwrap();
        assert_eq!(bit.texts, ["hi"]);
        assert!(bit.time.unwrap().is(1_700_000_000, 123_456_789));
        let json = file_doc(r#"{"date":1700000000.5,"traceId":"x","message":"hi"}"#).unwrap();
        assert!(json.time.unwrap().is(1_700_000_000, 500_000_000));
        assert!(!json.fields.contains_key("date"));
    }

    #[test]
    fn chunked_bodies_are_joined() {
        assert_eq!(unchunk(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n").unwrap(), b"abcde");
        assert!(unchunk(b"9\r\nabc").is_err());
    }
}
