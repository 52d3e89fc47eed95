//! The way of one request: who sends it, its tag, its body, its records, the journal, the answer.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body as _, Incoming as Body};
use hyper::{HeaderMap, Method, Request, Response, Version, header};
use tokio::time::Instant;

use super::answer::{Answer, AnswerBody, Problem, counted_as};
use super::auth::Auth;
use super::commit::{Committed, commit, refuse_before_body};
use super::cors::Cors;
use super::encoding::{Encoding, decompress};
use super::listener::Protocol;
use super::media::Format;
use super::message::{MessageBuilder, idempotency_key};
use super::records::{self, RecordOptions};
use super::work_pool::WorkPool;
use super::{body, tag, time};
use crate::config::Config;
use crate::input::forward::{Context, HandshakeBackoff, Reservation, source_of, warn_about};
use crate::input::otlp;
use crate::memory::to_usize;
use crate::metrics::{Handshake, Mode};

/// What all connections of the HTTP and OTLP inputs share.
#[derive(Debug)]
pub struct HttpServer {
    pub(super) input: Arc<Context>,
    pub(super) idle_timeout: Duration,
    auth: Auth,
    backoff: HandshakeBackoff,
    cors: Cors,
    max_body: usize,
    tag: String,
    time_key: Option<String>,
    otlp_tag: String,
    work: WorkPool,
}

/// A request whose body has been read and decompressed.
pub(in crate::input) struct Incoming<'a> {
    pub(in crate::input) headers: &'a HeaderMap,
    /// As received, without its content encoding.
    pub(in crate::input) body: Bytes,
    /// Counts the body.
    pub(in crate::input) memory: Reservation<'a>,
}

impl HttpServer {
    /// Takes requests into the journal of `input`.
    pub fn new(input: Arc<Context>, config: &Config) -> Arc<Self> {
        let http = &config.http;
        Arc::new(Self {
            idle_timeout: http.idle_timeout,
            auth: Auth::new(http),
            backoff: HandshakeBackoff::new(config.forward.handshake_timeout),
            cors: Cors::new(&http.cors_origins),
            max_body: to_usize(http.max_body),
            tag: http.tag.clone(),
            time_key: http.time_key.clone(),
            otlp_tag: config.otlp.tag.clone(),
            work: WorkPool::default(),
            input,
        })
    }

    pub(in crate::input) fn context(&self) -> &Context {
        &self.input
    }

    pub(in crate::input) fn otlp_tag(&self) -> &[u8] {
        self.otlp_tag.as_bytes()
    }

    /// Answers a request, and counts the answer.
    pub(super) async fn answer(
        &self,
        request: Request<Body>,
        peer: IpAddr,
        protocol: Protocol,
    ) -> Response<AnswerBody> {
        let (head, mut body) = request.into_parts();
        let cors = self.cors.check(&head.headers);
        let answered = match &cors {
            Err(_) => None,
            Ok(_) => self.cors.preflight(&head.method, &head.headers),
        };
        let answer = match (answered, cors) {
            (_, Err(problem)) => Err(problem),
            (Some(preflight), Ok(cors)) => Ok(cors.add_to(preflight)),
            (None, Ok(cors)) => {
                let taken = match protocol {
                    Protocol::Records => self.take_records(&head, &mut body, peer).await,
                    Protocol::Otlp => otlp::take(self, &head, &mut body, peer).await,
                };
                taken.map(|answer| cors.add_to(answer))
            }
        };
        let answer = answer.unwrap_or_else(|problem| {
            self.report(&problem, peer);
            match protocol {
                Protocol::Records => problem.into_answer(),
                Protocol::Otlp => otlp::refuse(&head, problem),
            }
        });
        // A client that asks before it sends need not send it; reading would tell it to.
        let is_sent = !head.headers.contains_key(header::EXPECT);
        if !body.is_end_stream() && is_sent && head.version < Version::HTTP_2 {
            self.input.tasks.spawn(body::discard(body));
        }
        self.input.metrics.http_requests[counted_as(answer.status)].inc();
        answer.into_response()
    }

    async fn take_records(
        &self,
        head: &hyper::http::request::Parts,
        body: &mut Body,
        peer: IpAddr,
    ) -> Result<Answer, Problem> {
        if head.method != Method::POST {
            return Err(Problem::Method(head.method.to_string()));
        }
        self.authenticate(&head.headers, peer).await?;
        let tag = tag::of(&head.uri, &head.headers, &self.tag)?;
        let chunk = idempotency_key(&head.headers)?;
        let options = RecordOptions {
            time_key: self.time_key.as_deref(),
            time: time::of_request(&head.uri, &head.headers)?,
            depth: self.input.limits.depth,
        };
        let media = Format::of(&head.headers)?;
        let mut request = self.read(&head.headers, body).await?;
        self.input.metrics.input_messages[Mode::Http].inc();
        if request.body.is_empty() {
            return Err(Problem::Malformed("the body is empty".into()));
        }
        let format = media.for_body(&request.body)?;
        // A form is decoded first.
        let copies = if format == Format::Form { 1 } else { 0 };
        let converted = self.convert(&mut request, &tag, copies, |bytes, message, limit| {
            records::append(format, bytes, &options, message, limit)
        });
        let (message, count) = converted.await?;
        let Incoming { memory, .. } = request;
        let message = message.finish(count, chunk.as_deref());
        commit(
            &self.input,
            Committed {
                source: source_of(Some(peer)),
                message,
                records: count,
            },
            memory,
        )
        .await
    }

    /// Checks the credentials; guessing them is slow.
    pub(in crate::input) async fn authenticate(
        &self,
        headers: &HeaderMap,
        peer: IpAddr,
    ) -> Result<(), Problem> {
        if self.auth.is_open() {
            return Ok(());
        }
        let checked = self.auth.check(headers);
        match checked {
            Ok(()) => self.backoff.reset(Some(peer)),
            Err(_) => {
                self.input.metrics.handshakes[Handshake::User].inc();
                tokio::time::sleep(self.backoff.record_failure(Some(peer), Instant::now())).await;
            }
        }
        checked
    }

    /// Reads the body and decompresses it.
    pub(in crate::input) async fn read<'a>(
        &'a self,
        headers: &'a HeaderMap,
        body: &mut Body,
    ) -> Result<Incoming<'a>, Problem> {
        let has_length =
            headers.contains_key(header::CONTENT_LENGTH) || headers.contains_key(header::TRANSFER_ENCODING);
        if !has_length && body.is_end_stream() {
            return Err(Problem::LengthRequired);
        }
        let encoding = Encoding::of(headers)?;
        refuse_before_body(&self.input.journal, body.size_hint().exact())?;
        let mut memory = self.input.receive_budget.reservation();
        let received = body::read(body, self.max_body, &self.input, &mut memory).await?;
        self.input.metrics.input_bytes.inc_by(received.len() as u64);
        let body = match encoding {
            None => received,
            Some(encoding) => self.decompress(encoding, received, &mut memory).await?,
        };
        Ok(Incoming {
            headers,
            body,
            memory,
        })
    }

    /// Decompresses a body, which is freed.
    pub(in crate::input) async fn decompress(
        &self,
        encoding: Encoding,
        received: Bytes,
        memory: &mut Reservation<'_>,
    ) -> Result<Bytes, Problem> {
        let plain = decompress(
            encoding,
            &received,
            self.max_body,
            &self.input,
            &self.work,
            memory,
        )
        .await?;
        self.input.buffer_pool.put(received);
        Ok(plain)
    }

    /// Converts the body into entries of a message, beside the reactor if it is large. `append`
    /// gets the body, the message and the length that it may reach.
    ///
    /// Mostly a message is no longer than its body, so memory is acquired for that first, and for
    /// as many copies of the body as `append` makes.
    pub(in crate::input) async fn convert<T>(
        &self,
        request: &mut Incoming<'_>,
        tag: &[u8],
        copies: usize,
        mut append: impl FnMut(&[u8], &mut MessageBuilder, usize) -> Result<T, Problem>,
    ) -> Result<(MessageBuilder, T), Problem> {
        let body = std::mem::take(&mut request.body);
        let length = body.len();
        let mut limit = (length + length / 8 + 1024).min(self.max_body);
        loop {
            body::grow(&mut request.memory, length * (1 + copies) + limit, &self.input).await?;
            let (message, appended) = self
                .work
                .run(length, || {
                    let mut message = MessageBuilder::new(tag, limit, &self.input.buffer_pool);
                    let limit = message.out.len() + limit;
                    let appended = append(&body, &mut message, limit);
                    (message, appended)
                })
                .await;
            match appended {
                Ok(appended) => {
                    self.input.buffer_pool.put(body);
                    return Ok((message, appended));
                }
                Err(Problem::TooLarge { .. }) if limit < self.max_body => limit = self.max_body,
                Err(Problem::TooLarge { what, .. }) => {
                    let limit = self.max_body;
                    return Err(Problem::TooLarge { what, limit });
                }
                Err(problem) => return Err(problem),
            }
        }
    }

    /// Logs a problem, up to a limit.
    fn report(&self, problem: &Problem, peer: IpAddr) {
        let status = problem.status().as_u16();
        let is_gone = matches!(problem, Problem::Aborted(_));
        if !is_gone && warn_about(&self.input, "http_request", Some(peer)) {
            tracing::warn!(%peer, status, %problem, "request refused");
        } else {
            tracing::debug!(%peer, status, %problem, "request refused");
        }
    }
}
