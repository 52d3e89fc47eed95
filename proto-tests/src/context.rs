//! [`CaseContext`]: gives a server case its target, its token, connections, and the sink.
//!
//! Owns connecting (with TLS and handshake as configured) and reading the sink. Decides on failure
//! only in the `expect_…` methods that the cases call.

use std::hash::{BuildHasher, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::case_result::{CaseError, CaseResult, check};
use crate::handshake;
use crate::msgpack::{Raw, array, concat, event_time, map, s};
use crate::options::Options;
use crate::peer::Peer;
use crate::sink::Document;
use crate::target::{Action, Target};

/// The context of one run of a server case.
#[derive(Clone)]
pub(crate) struct CaseContext {
    pub(crate) target: Arc<Target>,
    pub(crate) options: Arc<Options>,
    /// Unique to this run of this case; the `traceId` of what it sends.
    pub(crate) token: String,
    number: u16,
    notes: Arc<Mutex<Vec<String>>>,
}

/// Default event time of the cases: 2023-11-14T22:13:20Z.
pub(crate) const T0: u32 = 1_700_000_000;

impl CaseContext {
    pub(crate) fn new(target: Arc<Target>, options: Arc<Options>, number: u16) -> Self {
        let token = format!("c{number:03}-{:016x}", random());
        Self {
            target,
            options,
            token,
            number,
            notes: Arc::default(),
        }
    }

    /// Adds a remark to the report of this case.
    pub(crate) fn note(&self, text: impl Into<String>) {
        let text = text.into();
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        if !notes.contains(&text) {
            notes.push(text);
        }
    }

    pub(crate) fn notes(&self) -> Vec<String> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A context with exactly this token.
    pub(crate) fn with_token(&self, token: String) -> Self {
        Self {
            token,
            ..self.clone()
        }
    }

    /// A context with another token, for events that must not mix with the case's own.
    pub(crate) fn with_suffix(&self, suffix: &str) -> Self {
        self.with_token(format!("{}-{suffix}", self.token))
    }

    /// The tag of this case. Unique, for servers that buffer by tag and may lose a buffer with bad
    /// input.
    pub(crate) fn tag(&self) -> Raw {
        s(&format!("conformance.{:03}", self.number))
    }

    /// `{"traceId": token, "log": text}`
    pub(crate) fn record(&self, text: &str) -> Raw {
        self.record_with(text, &[])
    }

    /// The record with additional pairs.
    pub(crate) fn record_with(&self, text: &str, more: &[(Raw, Raw)]) -> Raw {
        let mut pairs = vec![(s("traceId"), s(&self.token)), (s("log"), s(text))];
        pairs.extend_from_slice(more);
        map(&pairs)
    }

    /// The `n`th event time of the case: one millisecond apart, so that order by time is order of
    /// sending.
    pub(crate) fn time(&self, n: u32) -> Raw {
        event_time(T0 + n / 1000, n % 1000 * 1_000_000)
    }

    /// `[time, record]` with the `n`th time.
    pub(crate) fn entry(&self, n: u32, text: &str) -> Raw {
        array(&[self.time(n), self.record(text)])
    }

    /// Entries with these texts, one after the other (the payload of PackedForward).
    pub(crate) fn entries(&self, texts: &[&str]) -> Raw {
        concat(
            &(0..)
                .zip(texts)
                .map(|(n, text)| self.entry(n, text))
                .collect::<Vec<_>>(),
        )
    }

    /// Opens a connection, with TLS if configured, without handshake.
    pub(crate) async fn connect_raw(&self) -> Result<Peer, CaseError> {
        let reply_timeout = self.options.reply_timeout;
        let connect = TcpStream::connect(&self.target.address);
        let stream = match timeout(reply_timeout, connect).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(e)) => return Err(CaseError::fail("the server accepts a connection", e)),
            Err(_) => {
                return Err(CaseError::fail(
                    "the server accepts a connection",
                    format!("nothing in {reply_timeout:?}"),
                ));
            }
        };
        stream
            .set_nodelay(true)
            .map_err(|e| CaseError::fail("TCP_NODELAY can be set", e))?;
        match &self.target.tls {
            None => Ok(Peer::plain(stream, reply_timeout)),
            Some(tls) => {
                let stream = timeout(
                    reply_timeout,
                    crate::tls::connect(tls, &self.target.address, stream),
                )
                .await
                .map_err(|_| CaseError::fail("TLS is set up", format!("nothing in {reply_timeout:?}")))?
                .map_err(|e| CaseError::fail("TLS is set up", e))?;
                Ok(Peer::tls(stream, reply_timeout))
            }
        }
    }

    /// Opens a connection that is ready for events.
    pub(crate) async fn connect(&self) -> Result<Peer, CaseError> {
        let mut peer = self.connect_raw().await?;
        if let Some(security) = &self.target.security {
            handshake::perform(&mut peer, security).await?;
        }
        Ok(peer)
    }

    /// Expects that the connection still works: an event with a chunk id is acked.
    pub(crate) async fn expect_alive(&self, peer: &mut Peer) -> CaseResult {
        let live = self.with_suffix("live");
        let chunk = s(&format!("live-{:016x}", random()));
        let message = array(&[
            self.tag(),
            self.time(0),
            live.record("alive"),
            map(&[(s("chunk"), chunk.clone())]),
        ]);
        let step = |f| match f {
            CaseError::Fail { seen, .. } => {
                CaseError::fail("the connection still works: the next message is acked", seen)
            }
            skip => skip,
        };
        peer.send(&message).await.map_err(step)?;
        peer.expect_ack(&chunk).await.map_err(step)
    }

    /// Expects that the listener still serves new connections.
    pub(crate) async fn expect_listener_alive(&self) -> CaseResult {
        let mut peer = self.connect().await?;
        self.expect_alive(&mut peer).await
    }

    /// The documents of this context's token, once they hold at least `records` records.
    async fn arrived(&self, records: u64) -> Result<Vec<Document>, CaseError> {
        let sink = &self.target.sink;
        let deadline = Instant::now() + self.options.sink_timeout;
        let count = |docs: &[Document]| docs.iter().map(|d| d.records).sum::<u64>();
        loop {
            let docs = sink
                .read(&self.token)
                .await
                .map_err(|e| CaseError::fail("the sink can be read", e))?;
            if count(&docs) >= records {
                tokio::time::sleep(sink.settle_time()).await;
                return sink
                    .read(&self.token)
                    .await
                    .map_err(|e| CaseError::fail("the sink can be read", e));
            }
            if Instant::now() > deadline {
                return Ok(docs);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn sink_missing(&self) -> bool {
        let sink_missing = !self.target.sink.is_readable();
        if sink_missing {
            self.note("no sink: only acks and liveness are checked");
        }
        sink_missing
    }

    /// Expects exactly these texts for the case's token, in this order.
    pub(crate) async fn expect_texts(&self, texts: &[&str]) -> CaseResult {
        if self.sink_missing() {
            return Ok(());
        }
        let docs = self.arrived(texts.len() as u64).await?;
        let seen: Vec<&String> = docs.iter().flat_map(|d| &d.texts).collect();
        let shown = |list: &[String]| {
            let head: Vec<_> = list.iter().take(8).collect();
            format!(
                "{} events {head:?}{}",
                list.len(),
                if list.len() > 8 { " …" } else { "" }
            )
        };
        let expected: Vec<String> = texts.iter().map(|&t| t.to_owned()).collect();
        let same = seen.iter().map(|t| t.as_str()).eq(texts.iter().copied());
        check(
            same,
            shown(&expected),
            shown(&seen.into_iter().cloned().collect::<Vec<_>>()),
        )
    }

    /// Expects exactly `records` records for the case's token, whatever they hold.
    pub(crate) async fn expect_count(&self, records: u64) -> CaseResult {
        if self.sink_missing() {
            return Ok(());
        }
        let docs = self.arrived(records).await?;
        let seen: u64 = docs.iter().map(|d| d.records).sum();
        check(
            seen == records,
            format!("{records} events"),
            format!("{seen} events"),
        )
    }

    /// The only record of this token; none when there is no sink.
    pub(crate) async fn only_record(&self) -> Result<Option<Document>, CaseError> {
        if self.sink_missing() {
            return Ok(None);
        }
        let mut docs = self.arrived(1).await?;
        check(
            docs.len() == 1 && docs[0].records == 1,
            "exactly one event",
            format!("{docs:?}"),
        )?;
        Ok(docs.pop())
    }

    /// Expects that nothing arrived for the token, after a later event of another token has
    /// arrived.
    pub(crate) async fn expect_nothing(&self) -> CaseResult {
        if self.sink_missing() {
            return Ok(());
        }
        let fence = self.with_suffix("fence");
        let mut peer = fence.connect().await?;
        peer.send(&array(&[self.tag(), self.time(0), fence.record("fence")]))
            .await?;
        fence.expect_texts(&["fence"]).await?;
        let docs = self.arrived(0).await?;
        check(
            docs.is_empty(),
            "no event",
            format!("{:?}", docs.iter().map(|d| &d.whole).collect::<Vec<_>>()),
        )
    }

    /// Runs a hook. The case must declare the need.
    pub(crate) async fn hook(&self, action: Action) -> CaseResult {
        let Some(hook) = self.target.hooks.get(action) else {
            return Err(CaseError::Skip(format!("hook {} is not given", action.name())));
        };
        let done = tokio::task::spawn_blocking(move || hook()).await;
        match done {
            Ok(Ok(())) => Ok(()),
            Ok(Err(e)) => Err(CaseError::fail(format!("the hook {} works", action.name()), e)),
            Err(e) => Err(CaseError::fail(format!("the hook {} works", action.name()), e)),
        }
    }

    /// Waits until the server accepts connections again.
    pub(crate) async fn await_listener(&self) -> CaseResult {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            match self.connect().await {
                Ok(_) => return Ok(()),
                Err(fault) if Instant::now() > deadline => return Err(fault),
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    /// Resident memory of the server in bytes; none when its process is not known.
    pub(crate) fn memory(&self) -> Option<u64> {
        let Some(pid) = self.target.pid else {
            self.note("memory not checked: no --pid");
            return None;
        };
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
        line.trim()
            .strip_suffix(" kB")?
            .trim()
            .parse::<u64>()
            .ok()
            .map(|kib| kib * 1024)
    }

    /// Expects that memory grew by at most `allowed` bytes since `before`.
    pub(crate) fn expect_memory(&self, before: Option<u64>, allowed: u64) -> CaseResult {
        let (Some(before), Some(now)) = (before, self.memory()) else {
            return Ok(());
        };
        let grown = now.saturating_sub(before);
        check(
            grown <= allowed,
            format!("memory grows by at most {allowed} bytes"),
            format!("{grown} bytes"),
        )
    }
}

/// A random number; every `RandomState` is seeded by the operating system.
pub(crate) fn random() -> u64 {
    std::collections::hash_map::RandomState::new()
        .build_hasher()
        .finish()
}
