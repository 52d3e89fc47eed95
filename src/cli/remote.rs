//! Client of the API of a running server, for the commands that look at traces.

use std::io::Write;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::time::Duration;

use clap::Args;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use serde_json::Value;
use url::Url;

use super::Settings;
use super::health::reachable;
use crate::config::{Environment, Secret};
use crate::exit;

/// The variable of the configuration key, so that the token need not be on a command line.
const TOKEN_VARIABLE: &str = "WINDROW_ADMIN_TOKEN";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longer than the server's own limit for a search.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// A stream that is silent for this long is broken: the server sends a comment every 10 s.
const STREAM_TIMEOUT: Duration = Duration::from_secs(35);
/// A year: a stream has no end.
const STREAM_LIFETIME: Duration = Duration::from_secs(31_536_000);
/// Longest event of a stream, bytes.
const MAX_EVENT_BYTES: usize = 8 << 20;

/// Which server to ask.
#[derive(Debug, Default, Args)]
pub(super) struct Remote {
    /// Address of the admin port, such as https://logs.example.com/windrow/ [default: admin.listen of
    /// the configuration].
    #[arg(long)]
    pub(super) url: Option<String>,
    /// Token of the admin port [env: WINDROW_ADMIN_TOKEN] [default: without --url admin.token of the
    /// configuration].
    #[arg(long)]
    pub(super) token: Option<String>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) message: String,
    /// The query parameter has a mistake: its first byte and its length.
    pub(super) place: Option<(usize, usize)>,
    pub(super) code: u8,
}

impl Failure {
    pub(super) fn new(message: impl Into<String>, code: u8) -> Self {
        Self {
            message: message.into(),
            place: None,
            code,
        }
    }

    /// Reports the failure of a command, with the place of a mistake in `query`.
    pub(super) fn report(&self, command: &str, query: &str, err: &mut dyn Write) -> u8 {
        // A closed pipe cannot be reported anywhere; the exit code remains.
        writeln!(err, "windrow {command}: {}", self.message).ok();
        if let Some((at, length)) = self.place {
            let before = query.get(..at).map_or(0, |text| text.chars().count());
            let marked = query
                .get(at..at + length)
                .map_or(1, |text| text.chars().count().max(1));
            writeln!(err, "  {query}\n  {}{}", " ".repeat(before), "^".repeat(marked)).ok();
        }
        self.code
    }
}

/// A connection to the API.
#[derive(Debug)]
pub(super) struct ApiClient {
    base: Url,
    token: Option<Secret>,
    client: reqwest::Client,
    runtime: tokio::runtime::Runtime,
}

impl ApiClient {
    /// The client for a command. The configuration is read only if it says which server.
    pub(super) fn new(remote: &Remote, settings: &Settings, env: &dyn Environment) -> Result<Self, Failure> {
        let given = remote
            .token
            .clone()
            .or_else(|| env.get(TOKEN_VARIABLE))
            .map(Secret::new);
        let (base, token) = match &remote.url {
            Some(url) => (url.clone(), given),
            None => {
                let config = settings
                    .load(env)
                    .map_err(|errors| Failure::new(errors.to_string(), exit::USAGE))?;
                let admin = config.config.admin;
                let address: Option<SocketAddr> = admin.listen.map(reachable);
                let address = address.ok_or_else(|| {
                    Failure::new(
                        "there is no admin port: admin.listen is \"none\"; give --url",
                        exit::USAGE,
                    )
                })?;
                (format!("http://{address}"), given.or(admin.token))
            }
        };
        let wrong = |why: String| Failure::new(format!("--url {base:?}: {why}"), exit::USAGE);
        let mut url = Url::parse(&base).map_err(|error| wrong(error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong("it must begin with http:// or https://".into()));
        }
        // Paths are joined to a folder.
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        let failed = |error: String| Failure::new(error, exit::FAILURE);
        Ok(Self {
            base: url,
            token,
            client: reqwest::Client::builder()
                .connect_timeout(CONNECT_TIMEOUT)
                .timeout(REQUEST_TIMEOUT)
                // The token is for this server only.
                .redirect(reqwest::redirect::Policy::none())
                .build()
                .map_err(|error| failed(error.to_string()))?,
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|error| failed(error.to_string()))?,
        })
    }

    /// The answer to a request.
    pub(super) fn get(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Value, Failure> {
        let request = self.request(path, query)?;
        let response = self.runtime.block_on(async {
            let response = request.send().await?;
            let status = response.status().as_u16();
            Ok::<_, reqwest::Error>((status, response.bytes().await?))
        });
        let (status, body) = response.map_err(|error| self.unreachable(&error))?;
        self.answer(status, &body)
    }

    /// Gives `each` the data of every server-sent event of an answer, and first `None` when it has
    /// begun. `Continue` when the server ended it, `Break` when `each` did.
    pub(super) fn events(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        each: &mut dyn FnMut(Option<&str>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Failure> {
        let request = self.request(path, query)?.timeout(STREAM_LIFETIME);
        self.runtime.block_on(async {
            let mut response = request.send().await.map_err(|error| self.unreachable(&error))?;
            let status = response.status().as_u16();
            if status != 200 {
                let body = response.bytes().await.map_err(|error| self.unreachable(&error))?;
                return self.answer(status, &body).map(|_| ControlFlow::Continue(()));
            }
            if each(None).is_break() {
                return Ok(ControlFlow::Break(()));
            }
            let mut received = Vec::new();
            loop {
                let Ok(chunk) = tokio::time::timeout(STREAM_TIMEOUT, response.chunk()).await else {
                    let why = format!("{} is silent", self.shown());
                    return Err(Failure::new(why, exit::FAILURE));
                };
                match chunk.map_err(|error| self.unreachable(&error))? {
                    None => return Ok(ControlFlow::Continue(())),
                    Some(chunk) => received.extend_from_slice(&chunk),
                }
                while let Some(data) = next_event(&mut received) {
                    if !data.is_empty() && each(Some(&data)).is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
                if received.len() > MAX_EVENT_BYTES {
                    let why = format!("{} sends an event that does not end", self.shown());
                    return Err(Failure::new(why, exit::FAILURE));
                }
            }
        })
    }

    /// The address of the server, for messages.
    pub(super) fn shown(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    fn request(&self, path: &[&str], query: &[(&str, &str)]) -> Result<reqwest::RequestBuilder, Failure> {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        url.query_pairs_mut().extend_pairs(query);
        let mut request = self.client.get(url);
        if let Some(token) = &self.token {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose()))
                .map_err(|_| Failure::new("the token has characters that no header may have", exit::USAGE))?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        Ok(request)
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let mut why = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            why = cause.to_string();
            source = cause.source();
        }
        let message = format!(
            "{} does not answer: {why}; is Windrow running there?",
            self.shown()
        );
        Failure::new(message, exit::FAILURE)
    }

    fn answer(&self, status: u16, body: &[u8]) -> Result<Value, Failure> {
        let shown = self.shown();
        let value: Option<Value> = serde_json::from_slice(body).ok();
        match (status, value) {
            (200, Some(value)) => Ok(value),
            (401, _) => Err(Failure::new(
                format!(
                    "{shown} needs its token: give --token or WINDROW_ADMIN_TOKEN (admin.token of the server)"
                ),
                exit::FAILURE,
            )),
            (_, Some(value)) => Err(failure_of(status, &value)),
            (_, None) => Err(Failure::new(
                format!("{shown} answers with status {status} and no JSON; is it Windrow's admin port?"),
                exit::FAILURE,
            )),
        }
    }
}

/// Takes the first complete event out of `received`, and returns its data.
fn next_event(received: &mut Vec<u8>) -> Option<String> {
    let end = received.windows(2).position(|pair| pair == b"\n\n")?;
    let event: Vec<u8> = received.drain(..end + 2).collect();
    let event = String::from_utf8_lossy(&event);
    let data: Vec<&str> = event
        .lines()
        .filter_map(|line| line.strip_prefix("data:"))
        .map(|data| data.strip_prefix(' ').unwrap_or(data))
        .collect();
    Some(data.join("\n"))
}

/// The error that an answer has.
fn failure_of(status: u16, answer: &Value) -> Failure {
    let error = &answer["error"];
    let message = error["message"].as_str().or_else(|| error.as_str());
    let number = |name: &str| {
        error[name]
            .as_u64()
            .and_then(|number| usize::try_from(number).ok())
    };
    Failure {
        message: message.map_or_else(|| format!("status {status}"), str::to_owned),
        place: number("at").zip(number("length")),
        code: if status == 400 { exit::USAGE } else { exit::FAILURE },
    }
}

#[cfg(test)]
mod tests {
    use super::next_event;

    #[test]
    fn events_are_taken_apart_wherever_they_are_cut() {
        let stream = b"retry: 2000\n\n:\n\nevent: traces\ndata: {\"a\":1}\n\ndata: x\ndata:y\n\ndata: half";
        let (mut received, mut events) = (Vec::new(), Vec::new());
        for byte in stream {
            received.push(*byte);
            events.extend(next_event(&mut received));
        }
        assert_eq!(events, ["", "", "{\"a\":1}", "x\ny"]);
        assert_eq!(received, b"data: half");
    }
}
