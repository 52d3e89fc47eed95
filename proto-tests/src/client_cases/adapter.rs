//! [`Adapter`]: the adapter process of a client under test; commands in, events out, as JSON lines.
//!
//! Owns the process, which is killed on drop, and the log of its events and stderr.

use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::Notify;

use crate::case_result::{CaseError, CaseResult, check};

/// A running adapter with an open client in it.
pub(super) struct Adapter {
    child: Child,
    stdin: Option<ChildStdin>,
    log: Arc<AdapterLog>,
    reply_timeout: Duration,
}

#[derive(Default)]
struct AdapterLog {
    events: Mutex<Vec<Value>>,
    stderr: Mutex<String>,
    changed: Notify,
}

impl AdapterLog {
    fn events(&self) -> Vec<Value> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Adapter {
    pub(super) async fn start(
        command: &str,
        endpoints: &[String],
        open: Value,
        reply_timeout: Duration,
    ) -> Result<Self, CaseError> {
        let first = endpoints.first().map_or("", String::as_str);
        let (host, port) = first.rsplit_once(':').unwrap_or((first, ""));
        let mut child = Command::new("sh")
            .arg("-c")
            .arg(format!("exec {command}"))
            .env("FORWARD_HOST", host)
            .env("FORWARD_PORT", port)
            .env("CASE", open.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| CaseError::Skip(format!("the adapter cannot be started: {e}")))?;
        let (Some(stdin), Some(stdout), Some(mut stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(CaseError::Skip("the adapter has no pipes".into()));
        };
        let log = Arc::new(AdapterLog::default());
        tokio::spawn({
            let log = log.clone();
            async move {
                let mut lines = BufReader::new(stdout).lines();
                while let Ok(Some(line)) = lines.next_line().await {
                    let event = serde_json::from_str(&line)
                        .unwrap_or_else(|_| json!({ "event": "noise", "line": line }));
                    log.events
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(event);
                    log.changed.notify_waiters();
                }
                let end = json!({ "event": "exited" });
                log.events
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(end);
                log.changed.notify_waiters();
            }
        });
        tokio::spawn({
            let log = log.clone();
            async move {
                let mut part = [0; 4096];
                while let Ok(n) = stderr.read(&mut part).await {
                    if n == 0 {
                        break;
                    }
                    let text = String::from_utf8_lossy(&part[..n]).into_owned();
                    log.stderr
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push_str(&text);
                }
            }
        });
        let mut adapter = Self {
            child,
            stdin: Some(stdin),
            log,
            reply_timeout,
        };
        adapter.command(&open).await?;
        let answer = adapter
            .wait("opened", |e| matches!(kind(e), "opened" | "unsupported"))
            .await?;
        if kind(&answer) == "unsupported" {
            return Err(CaseError::Skip(format!(
                "the client does not support {}",
                text(&answer, "what")
            )));
        }
        Ok(adapter)
    }

    /// Sends one command.
    pub(super) async fn command(&mut self, command: &Value) -> CaseResult {
        let Some(stdin) = &mut self.stdin else {
            return Err(CaseError::fail("an open adapter", "stdin closed"));
        };
        let line = format!("{command}\n");
        let result = stdin.write_all(line.as_bytes()).await;
        result.map_err(|e| {
            CaseError::fail(
                "the adapter reads its stdin",
                format!("{e}{}", self.recent_events()),
            )
        })
    }

    /// Waits for the first event, old or new, that `wanted` accepts.
    pub(super) async fn wait(&self, name: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value, CaseError> {
        self.wait_within(name, self.reply_timeout, wanted).await
    }

    pub(super) async fn wait_within(
        &self,
        name: &str,
        within: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<Value, CaseError> {
        let deadline = Instant::now() + within;
        loop {
            let changed = self.log.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let events = self.log.events();
            if let Some(event) = events.iter().find(|e| wanted(e)) {
                return Ok(event.clone());
            }
            let exited = events.iter().any(|e| kind(e) == "exited");
            let left = deadline.saturating_duration_since(Instant::now());
            if exited || tokio::time::timeout(left, changed).await.is_err() {
                let why = if exited {
                    "the adapter ended"
                } else {
                    "no such event"
                };
                return Err(CaseError::fail(
                    format!("{name} within {within:?}"),
                    format!("{why}{}", self.recent_events()),
                ));
            }
        }
    }

    /// The latest events and stderr, for reports.
    fn recent_events(&self) -> String {
        let events = self.log.events();
        let last: Vec<String> = events
            .iter()
            .rev()
            .take(6)
            .rev()
            .map(|e| e.to_string().chars().take(200).collect())
            .collect();
        let stderr = self
            .log
            .stderr
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let tail: String = stderr
            .chars()
            .rev()
            .take(400)
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
            .collect();
        format!("; its last events: [{}]; stderr: {tail:?}", last.join(", "))
    }

    /// Sends one event through the client; returns its reply, `sent` or `rejected`.
    pub(super) async fn send(&mut self, id: i64, record: Value) -> Result<Value, CaseError> {
        self.send_at(id, Some(super::TIME), record).await
    }

    pub(super) async fn send_at(
        &mut self,
        id: i64,
        time: Option<[i64; 2]>,
        record: Value,
    ) -> Result<Value, CaseError> {
        let mut command = json!({ "do": "send", "id": id, "record": record });
        if let Some(time) = time {
            command["time"] = json!(time);
        }
        self.command(&command).await?;
        let mine = |e: &Value| matches!(kind(e), "sent" | "rejected") && e["id"] == id;
        let answer = self.wait("`sent` or `rejected`", mine).await?;
        Ok(answer)
    }

    /// Waits until these ids are reported delivered, and checks that each was reported once and
    /// none failed.
    pub(super) async fn expect_delivered(&self, ids: &[i64]) -> CaseResult {
        for id in ids {
            let mine = |e: &Value| kind(e) == "delivered" && ids_of(e).contains(id);
            self.wait(&format!("delivery of event {id}"), mine).await?;
        }
        let all = self.delivered();
        let again = ids.iter().find(|id| all.iter().filter(|d| d == id).count() != 1);
        check(
            again.is_none(),
            "each event reported delivered once",
            format!("{all:?}"),
        )?;
        let failed = self.failed();
        check(
            !ids.iter().any(|id| failed.contains(id)),
            "no failure reported",
            format!("{failed:?}"),
        )
    }

    fn ids(&self, name: &str) -> Vec<i64> {
        self.log
            .events()
            .iter()
            .filter(|e| kind(e) == name)
            .flat_map(ids_of)
            .collect()
    }

    /// All ids reported delivered so far.
    pub(super) fn delivered(&self) -> Vec<i64> {
        self.ids("delivered")
    }

    /// All ids reported failed or rejected so far.
    pub(super) fn failed(&self) -> Vec<i64> {
        let events = self.log.events();
        let refused = events
            .iter()
            .filter(|e| kind(e) == "rejected")
            .filter_map(|e| e["id"].as_i64());
        let of_bursts = events
            .iter()
            .filter_map(|e| e["rejected"].as_array())
            .flatten()
            .filter_map(Value::as_i64);
        self.ids("failed")
            .into_iter()
            .chain(refused)
            .chain(of_bursts)
            .collect()
    }

    /// Waits for an asynchronous error report.
    pub(super) async fn expect_error(&self) -> Result<String, CaseError> {
        let failed = |e: &Value| matches!(kind(e), "error" | "failed");
        Ok(text(&self.wait("an error report", failed).await?, "error"))
    }

    /// Runs a burst to its end.
    pub(super) async fn burst(
        &mut self,
        first: i64,
        count: i64,
        threads: u32,
        pad: u32,
    ) -> Result<Value, CaseError> {
        let command =
            json!({ "do": "burst", "first_id": first, "count": count, "threads": threads, "pad": pad });
        self.command(&command).await?;
        self.wait_within("burst_done", Duration::from_secs(40), |e| kind(e) == "burst_done")
            .await
    }

    /// Closes the client with this deadline; returns the reply and the time it took.
    pub(super) async fn close(&mut self, timeout_ms: u64) -> Result<(Value, Duration), CaseError> {
        let started = Instant::now();
        self.command(&json!({ "do": "close", "timeout_ms": timeout_ms }))
            .await?;
        let within = Duration::from_millis(timeout_ms) + self.reply_timeout;
        let answer = self
            .wait_within("closed", within, |e| kind(e) == "closed")
            .await?;
        Ok((answer, started.elapsed()))
    }

    /// Ends the adapter's stdin and waits for its exit.
    pub(super) async fn close_stdin(&mut self, within: Duration) -> CaseResult {
        self.stdin = None;
        match tokio::time::timeout(within, self.child.wait()).await {
            Ok(_) => Ok(()),
            Err(_) => Err(CaseError::fail(
                format!("the process ends within {within:?}"),
                format!("it runs on{}", self.recent_events()),
            )),
        }
    }
}

/// The kind of an event.
pub(super) fn kind(event: &Value) -> &str {
    event["event"].as_str().unwrap_or_default()
}

fn ids_of(event: &Value) -> Vec<i64> {
    event["ids"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_i64)
        .collect()
}

fn text(event: &Value, key: &str) -> String {
    event[key].as_str().unwrap_or_default().to_owned()
}
