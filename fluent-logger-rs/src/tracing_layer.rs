//! Layer for `tracing` (feature `tracing`): events become records with the fields of their spans.
//!
//! Owns the shape of these records and writes MessagePack directly. The fields of open spans live
//! in the extensions of the registry.

use std::error::Error;
use std::fmt::{self, Write as _};
use std::ops::Range;
use std::sync::Arc;

use forward_protocol::msgpack::{write_bool, write_f64, write_i64, write_str, write_u64};
use tracing_core::field::{Field, Visit};
use tracing_core::span::{Attributes, Id, Record};
use tracing_core::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::{Extensions, LookupSpan};

use crate::logger::Logger;
use crate::suppression::is_suppressed;

type SpanFinder = Arc<dyn Fn(&Extensions<'_>) -> Option<String> + Send + Sync>;
type ContextFinder = Arc<dyn Fn() -> Option<String> + Send + Sync>;

/// A `tracing_subscriber` layer that sends each event as a record.
///
/// A record has `level`, `target`, `message`, `span` (the name of the innermost span), the event's
/// fields and the fields of all spans around it, flattened: of fields with the same name the
/// innermost wins. A field `traceId` or `trace_id` of the event or of a span becomes the record's
/// `traceId`, by which Windrow gathers the lines of one trace into one document.
///
/// Events from inside the logger itself (its connection, TLS and callbacks) are left out. An event
/// that is refused, for example because the buffer is full, is counted in
/// [`Stats::rejected`](crate::Stats::rejected). Filter with `tracing_subscriber` filters as usual.
///
/// ```no_run
/// use tracing_subscriber::prelude::*;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let logger = fluent_logger::Logger::builder().address("127.0.0.1:24224").build()?;
/// let layer = fluent_logger::FluentLayer::new(logger.clone(), "app");
/// tracing_subscriber::registry().with(layer).init();
///
/// let span = tracing::info_span!("request", traceId = "4bf92f35", path = "/cart");
/// span.in_scope(|| tracing::info!(items = 3, "cart shown"));
///
/// let undelivered = logger.blocking_close(std::time::Duration::from_secs(5));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct FluentLayer {
    logger: Logger,
    tag: String,
    trace_key: String,
    location: bool,
    in_span: Option<SpanFinder>,
    in_context: Option<ContextFinder>,
}

impl FluentLayer {
    /// Sends with this tag.
    pub fn new(logger: Logger, tag: impl Into<String>) -> Self {
        Self {
            logger,
            tag: tag.into(),
            trace_key: "traceId".to_owned(),
            location: false,
            in_span: None,
            in_context: None,
        }
    }

    /// The key of the trace id in the record. Default: `traceId`.
    #[must_use]
    pub fn trace_id_key(mut self, key: impl Into<String>) -> Self {
        self.trace_key = key.into();
        self
    }

    /// Adds `file` and `line` of the event. Default: `false`.
    #[must_use]
    pub fn with_location(mut self, location: bool) -> Self {
        self.location = location;
        self
    }

    /// Looks for a trace id where the thread is when it logs, when neither a field nor a
    /// [span](Self::trace_id_from_span) has one. So the trace id of OpenTelemetry is found without
    /// this crate depending on a version of it, with `tracing-opentelemetry` and without:
    ///
    /// ```
    /// use opentelemetry::Context;
    /// use opentelemetry::trace::TraceContextExt as _;
    ///
    /// # fn configure(layer: fluent_logger::FluentLayer) -> fluent_logger::FluentLayer {
    /// layer.trace_id_from_context(|| {
    ///     let context = Context::current();
    ///     let span = context.span().span_context().clone();
    ///     span.is_valid().then(|| span.trace_id().to_string())
    /// })
    /// # }
    /// ```
    #[must_use]
    pub fn trace_id_from_context(
        mut self,
        finder: impl Fn() -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.in_context = Some(Arc::new(finder));
        self
    }

    /// Looks for a trace id in what another layer has put into the extensions of the spans around
    /// an event, innermost first, when no field has one. The closure must not touch the extensions
    /// of other spans.
    ///
    /// ```
    /// struct MyTrace(String);
    ///
    /// # fn configure(layer: fluent_logger::FluentLayer) -> fluent_logger::FluentLayer {
    /// layer.trace_id_from_span(|extensions| Some(extensions.get::<MyTrace>()?.0.clone()))
    /// # }
    /// ```
    #[must_use]
    pub fn trace_id_from_span(
        mut self,
        finder: impl Fn(&Extensions<'_>) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.in_span = Some(Arc::new(finder));
        self
    }
}

impl fmt::Debug for FluentLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FluentLayer")
            .field("tag", &self.tag)
            .finish_non_exhaustive()
    }
}

/// The fields of a span or of an event, values encoded.
#[derive(Default)]
struct Fields {
    bytes: Vec<u8>,
    values: Vec<(&'static str, Range<usize>)>,
    /// What `tracing-log` says of the real target of a record of the `log` facade.
    log_target: Option<String>,
    text: String,
}

impl Fields {
    fn add(&mut self, field: &Field, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        write(&mut self.bytes);
        let range = start..self.bytes.len();
        let name = field.name();
        let name = name.strip_prefix("r#").unwrap_or(name);
        match self.values.iter_mut().find(|(known, _)| *known == name) {
            // Recorded again: the last value counts.
            Some((_, old)) => *old = range,
            None => self.values.push((name, range)),
        }
    }

    fn iter(&self) -> impl Iterator<Item = (&'static str, &[u8])> {
        self.values
            .iter()
            .map(|(name, range)| (*name, self.bytes.get(range.clone()).unwrap_or_default()))
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, |out| write_f64(out, value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, |out| write_i64(out, value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, |out| write_u64(out, value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, |out| write_bool(out, value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "log.target" => self.log_target = Some(value.to_owned()),
            "log.module_path" | "log.file" => {}
            _ => self.add(field, |out| write_str(out, value.as_bytes())),
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        let mut text = value.to_string();
        let mut cause = value.source();
        while let Some(error) = cause {
            // Writing to a String does not fail.
            let _ = write!(text, ": {error}");
            cause = error.source();
        }
        self.add(field, |out| write_str(out, text.as_bytes()));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = std::mem::take(&mut self.text);
        text.clear();
        let _ = write!(text, "{value:?}");
        self.add(field, |out| write_str(out, text.as_bytes()));
        self.text = text;
    }
}

impl<S> Layer<S> for FluentLayer
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut extensions = span.extensions_mut();
        if extensions.get_mut::<Fields>().is_none() {
            let mut fields = Fields::default();
            attributes.record(&mut fields);
            extensions.insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(fields) = span.extensions_mut().get_mut::<Fields>() {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let metadata = event.metadata();
        if is_suppressed() || metadata.target().starts_with("fluent_logger") {
            return;
        }
        let mut fields = Fields::default();
        event.record(&mut fields);
        self.logger.log_written(&self.tag, |out| {
            let mut map = MapWriter::new(out, &self.trace_key);
            map.text("level", metadata.level().as_str());
            map.text(
                "target",
                fields.log_target.as_deref().unwrap_or_else(|| metadata.target()),
            );
            if let Some((file, line)) = metadata.file().zip(metadata.line()).filter(|_| self.location) {
                map.text("file", file);
                map.pair("line", |out| write_u64(out, u64::from(line)));
            }
            for (name, value) in fields.iter().filter(|(name, _)| *name != "log.line") {
                map.raw(name, value);
            }
            let mut found = None;
            for (depth, span) in context.event_scope(event).into_iter().flatten().enumerate() {
                if depth == 0 {
                    map.text("span", span.name());
                }
                let extensions = span.extensions();
                if let Some(fields) = extensions.get::<Fields>() {
                    for (name, value) in fields.iter() {
                        map.raw(name, value);
                    }
                }
                if found.is_none() {
                    found = self.in_span.as_ref().and_then(|finder| finder(&extensions));
                }
            }
            if let Some(id) = found.or_else(|| self.in_context.as_ref().and_then(|finder| finder())) {
                map.text("traceId", &id);
            }
            map.finish();
        });
    }
}

/// Writes a map whose length is known at the end; of pairs with the same key the first stays.
struct MapWriter<'a> {
    out: &'a mut Vec<u8>,
    header: usize,
    keys: Vec<&'static str>,
    trace_key: &'a str,
}

impl<'a> MapWriter<'a> {
    fn new(out: &'a mut Vec<u8>, trace_key: &'a str) -> Self {
        let header = out.len();
        // map16, so that the length can be put in later.
        out.extend_from_slice(&[0xde, 0, 0]);
        Self {
            out,
            header,
            keys: Vec::with_capacity(16),
            trace_key,
        }
    }

    fn text(&mut self, key: &'static str, value: &str) {
        self.pair(key, |out| write_str(out, value.as_bytes()));
    }

    fn raw(&mut self, key: &'static str, value: &[u8]) {
        self.pair(key, |out| out.extend_from_slice(value));
    }

    fn pair(&mut self, key: &'static str, write: impl FnOnce(&mut Vec<u8>)) {
        let key = if key == "trace_id" { "traceId" } else { key };
        if self.keys.contains(&key) || self.keys.len() >= usize::from(u16::MAX) {
            return;
        }
        self.keys.push(key);
        let written = if key == "traceId" { self.trace_key } else { key };
        write_str(self.out, written.as_bytes());
        write(self.out);
    }

    fn finish(self) {
        let count = u16::try_from(self.keys.len()).unwrap_or(u16::MAX).to_be_bytes();
        if let Some(place) = self.out.get_mut(self.header + 1..self.header + 3) {
            place.copy_from_slice(&count);
        }
    }
}
