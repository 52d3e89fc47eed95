//! What a case runs in: the target, a token of its own, connections, and a look into the sink.
//!
//! Owns connecting (TLS and handshake as the target demands) and looking into the sink. Judges only through the
//! `expect_…` helpers that the cases call.

use std::hash::{BuildHasher, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::case::{Fault, Options, Verdict, check};
use crate::handshake;
use crate::msgpack::{Raw, array, cat, event_time, map, s};
use crate::peer::Peer;
use crate::sink::Doc;
use crate::target::{Action, Target};

/// What a case gets: the target, a token of its own and the helpers.
#[derive(Clone)]
pub(crate) struct Ctx {
    pub(crate) target: Arc<Target>,
    pub(crate) options: Arc<Options>,
    /// Unique to this run of this case; the `traceId` of what it sends.
    pub(crate) token: String,
    number: u16,
    notes: Arc<Mutex<Vec<String>>>,
}

/// The event time that cases use where they do not care: 2023-11-14T22:13:20Z.
pub(crate) const T0: u32 = 1_700_000_000;

impl Ctx {
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
    pub(crate) fn sub(&self, suffix: &str) -> Self {
        self.with_token(format!("{}-{suffix}", self.token))
    }

    /// The tag of this case: its own, for servers that gather by tag and may spoil what is gathered with bad input.
    pub(crate) fn tag(&self) -> Raw {
        s(&format!("conformance.{:03}", self.number))
    }

    /// `{"traceId": token, "log": text}`
    pub(crate) fn rec(&self, text: &str) -> Raw {
        self.rec_with(text, &[])
    }

    /// The record with more pairs.
    pub(crate) fn rec_with(&self, text: &str, more: &[(Raw, Raw)]) -> Raw {
        let mut pairs = vec![(s("traceId"), s(&self.token)), (s("log"), s(text))];
        pairs.extend_from_slice(more);
        map(&pairs)
    }

    /// The `n`th event time of the case: one millisecond apart, so that order by time is order of sending.
    pub(crate) fn time(&self, n: u32) -> Raw {
        event_time(T0 + n / 1000, n % 1000 * 1_000_000)
    }

    /// `[time, record]` with the `n`th time.
    pub(crate) fn entry(&self, n: u32, text: &str) -> Raw {
        array(&[self.time(n), self.rec(text)])
    }

    /// Entries with these texts, one after the other (the payload of PackedForward).
    pub(crate) fn entries(&self, texts: &[&str]) -> Raw {
        cat(&(0..)
            .zip(texts)
            .map(|(n, text)| self.entry(n, text))
            .collect::<Vec<_>>())
    }

    /// Opens a connection; TLS as the target wants, no handshake.
    pub(crate) async fn connect_raw(&self) -> Result<Peer, Fault> {
        let patience = self.options.patience;
        let connect = TcpStream::connect(&self.target.address);
        let stream = match timeout(patience, connect).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(e)) => return Err(Fault::fail("the server accepts a connection", e)),
            Err(_) => {
                return Err(Fault::fail(
                    "the server accepts a connection",
                    format!("nothing in {patience:?}"),
                ));
            }
        };
        stream
            .set_nodelay(true)
            .map_err(|e| Fault::fail("TCP_NODELAY can be set", e))?;
        match &self.target.tls {
            None => Ok(Peer::plain(stream, patience)),
            Some(tls) => {
                let stream = timeout(patience, crate::tls::connect(tls, &self.target.address, stream))
                    .await
                    .map_err(|_| Fault::fail("TLS is set up", format!("nothing in {patience:?}")))?
                    .map_err(|e| Fault::fail("TLS is set up", e))?;
                Ok(Peer::tls(stream, patience))
            }
        }
    }

    /// Opens a connection that is ready for events.
    pub(crate) async fn connect(&self) -> Result<Peer, Fault> {
        let mut peer = self.connect_raw().await?;
        if let Some(security) = &self.target.security {
            handshake::perform(&mut peer, security).await?;
        }
        Ok(peer)
    }

    /// Proves that this connection still works: an event with a chunk id is acked.
    pub(crate) async fn alive(&self, peer: &mut Peer) -> Verdict {
        let live = self.sub("live");
        let chunk = s(&format!("live-{:016x}", random()));
        let message = array(&[
            self.tag(),
            self.time(0),
            live.rec("alive"),
            map(&[(s("chunk"), chunk.clone())]),
        ]);
        let step = |f| match f {
            Fault::Fail { seen, .. } => {
                Fault::fail("the connection still works: the next message is acked", seen)
            }
            skip => skip,
        };
        peer.send(&message).await.map_err(step)?;
        peer.expect_ack(&chunk).await.map_err(step)
    }

    /// Proves that the listener still serves others.
    pub(crate) async fn listener_alive(&self) -> Verdict {
        let mut peer = self.connect().await?;
        self.alive(&mut peer).await
    }

    /// What has arrived for this context's token once at least `records` records are there.
    async fn arrived(&self, records: u64) -> Result<Vec<Doc>, Fault> {
        let sink = &self.target.sink;
        let deadline = Instant::now() + self.options.sink_patience;
        let count = |docs: &[Doc]| docs.iter().map(|d| d.records).sum::<u64>();
        loop {
            let docs = sink
                .look(&self.token)
                .await
                .map_err(|e| Fault::fail("the sink can be read", e))?;
            if count(&docs) >= records {
                tokio::time::sleep(sink.settle()).await;
                return sink
                    .look(&self.token)
                    .await
                    .map_err(|e| Fault::fail("the sink can be read", e));
            }
            if Instant::now() > deadline {
                return Ok(docs);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn unseen(&self) -> bool {
        let unseen = !self.target.sink.looks();
        if unseen {
            self.note("no sink: judged by acks and liveness only");
        }
        unseen
    }

    /// Expects exactly these texts for the case's token, in this order.
    pub(crate) async fn expect_texts(&self, texts: &[&str]) -> Verdict {
        if self.unseen() {
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
    pub(crate) async fn expect_count(&self, records: u64) -> Verdict {
        if self.unseen() {
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

    /// The one record of this token; none when there is no sink.
    pub(crate) async fn only_record(&self) -> Result<Option<Doc>, Fault> {
        if self.unseen() {
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

    /// Expects that nothing arrived for the token: a later event of another token is awaited first.
    pub(crate) async fn expect_nothing(&self) -> Verdict {
        if self.unseen() {
            return Ok(());
        }
        let fence = self.sub("fence");
        let mut peer = fence.connect().await?;
        peer.send(&array(&[self.tag(), self.time(0), fence.rec("fence")]))
            .await?;
        fence.expect_texts(&["fence"]).await?;
        let docs = self.arrived(0).await?;
        check(
            docs.is_empty(),
            "no event",
            format!("{:?}", docs.iter().map(|d| &d.whole).collect::<Vec<_>>()),
        )
    }

    /// Runs a hook; a case that calls it has the need declared.
    pub(crate) async fn hook(&self, action: Action) -> Verdict {
        let Some(hook) = self.target.hooks.get(action) else {
            return Err(Fault::Skip(format!("hook {} is not given", action.name())));
        };
        let done = tokio::task::spawn_blocking(move || hook()).await;
        match done {
            Ok(Ok(())) => Ok(()),
            Ok(Err(e)) => Err(Fault::fail(format!("the hook {} works", action.name()), e)),
            Err(e) => Err(Fault::fail(format!("the hook {} works", action.name()), e)),
        }
    }

    /// Waits until the server accepts connections again.
    pub(crate) async fn await_listener(&self) -> Verdict {
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
            self.note("memory not judged: no --pid");
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
    pub(crate) fn expect_memory(&self, before: Option<u64>, allowed: u64) -> Verdict {
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
