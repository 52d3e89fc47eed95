//! Layer for `tracing` (feature `tracing`): events and closed spans become records.
//!
//! Owns the shape of these records and writes MessagePack directly. The state of open spans lives
//! in the extensions of the registry.

mod fields;
mod limit;
mod options;
mod span;

use std::fmt;
use std::sync::Arc;
#[cfg(feature = "opentelemetry")]
use std::sync::OnceLock;
use std::time::Instant;

use forward_protocol::msgpack::write_str;
use tracing_core::span::{Attributes, Id, Record};
use tracing_core::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::{Extensions, LookupSpan, SpanRef};

use crate::logger::Logger;
use crate::naming::Names;
use crate::record_map::RecordMap;
use crate::suppression::is_suppressed;
use fields::Fields;
use limit::{RepeatLimit, Sampling, Verdict};
pub use span::SpanRecords;
use span::SpanState;

type SpanFinder = Arc<dyn Fn(&Extensions<'_>) -> Option<String> + Send + Sync>;
type ContextFinder = Arc<dyn Fn() -> Option<String> + Send + Sync>;

/// A `tracing_subscriber` layer that sends each event as a record.
///
/// A record has `level`, `target`, `message`, `span` (the name of the innermost span), the event's
/// fields and the fields of all spans around it, flattened: of fields with the same name the
/// innermost wins. A field `traceId`, `trace_id` or `trace.id` of the event or of a span becomes
/// the record's `traceId`, by which Windrow gathers the lines of one trace into one document. An
/// application's field named like one of the layer's own (`level`, `target`, `span`) is kept as
/// `fields.level` and so on. [`Naming`](crate::Naming) changes the names.
///
/// Without a filter the layer sends everything down to level TRACE, of all crates: add one, as in
/// the example. Events from inside the logger itself (its connection, TLS and callbacks) are left
/// out. An event that is refused, for example because the buffer is full, is counted in
/// [`Stats::rejected`](crate::Stats::rejected).
///
/// ```no_run
/// use std::time::Duration;
/// use fluent_logger::{FluentLayer, Logger, SpanRecords};
/// use tracing_subscriber::filter::LevelFilter;
/// use tracing_subscriber::prelude::*;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let logger = Logger::builder().address("127.0.0.1:24224").build()?;
/// let _guard = logger.guard(Duration::from_secs(5));
/// let layer = FluentLayer::new(logger, "app")
///     .make_trace_ids(true)
///     .span_records(SpanRecords::Root)
///     .with_filter(LevelFilter::INFO);
/// tracing_subscriber::registry().with(layer).init();
///
/// // Two records: "cart shown", and when the span closes "request completed" with its duration.
/// let span = tracing::info_span!("request", path = "/cart");
/// span.in_scope(|| tracing::info!(items = 3, "cart shown"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct FluentLayer {
    logger: Logger,
    tag: String,
    names: &'static Names,
    numeric_severity: bool,
    trace_key: String,
    location: bool,
    thread: bool,
    span_ids: bool,
    span_path: bool,
    make_trace_ids: bool,
    span_records: SpanRecords,
    completion_message: String,
    sampling: Sampling,
    repeats: Option<RepeatLimit>,
    reserved: Vec<&'static str>,
    in_span: Option<SpanFinder>,
    in_context: Option<ContextFinder>,
    #[cfg(feature = "opentelemetry")]
    opentelemetry: Option<Arc<OnceLock<tracing_core::dispatcher::WeakDispatch>>>,
}

impl fmt::Debug for FluentLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FluentLayer")
            .field("tag", &self.tag)
            .finish_non_exhaustive()
    }
}

impl FluentLayer {
    /// Level, target and the options that every record has.
    fn write_head<'keys>(&self, map: &mut RecordMap<'_, 'keys>, metadata: &Metadata<'_>, target: &str) {
        let names = self.names;
        map.own_text(names.level, metadata.level().as_str());
        if self.numeric_severity {
            map.own_number(names.severity, names.severities[severity_index(metadata.level())]);
        }
        map.own_text(names.target, target);
        if let Some((file, line)) = metadata.file().zip(metadata.line()).filter(|_| self.location) {
            map.own_text(names.file, file);
            map.own_number(names.line, u64::from(line));
        }
        if self.thread {
            let thread = std::thread::current();
            if let Some(name) = thread.name() {
                map.own_text(names.thread_name, name);
            }
            map.own_text(names.thread_id, &format!("{:?}", thread.id()));
        }
    }

    /// The fields of a span and of those around it, innermost first, and what belongs to them.
    fn write_spans<'a, S>(&self, map: &mut RecordMap<'_, '_>, innermost: &SpanRef<'a, S>)
    where
        S: Subscriber + for<'b> LookupSpan<'b>,
    {
        let names = self.names;
        map.own_text(names.span, innermost.name());
        let mut path = Vec::new();
        let mut found = None;
        let mut made = None;
        for (depth, span) in innermost.scope().enumerate() {
            path.push(span.name());
            let extensions = span.extensions();
            if let Some(state) = extensions.get::<SpanState>() {
                for (name, value) in state.fields.iter() {
                    map.field(name, value);
                }
                if let Some(id) = state.id().filter(|_| self.span_ids) {
                    match depth {
                        0 => map.own_text(names.span_id, id),
                        1 => map.own_text(names.parent_span_id, id),
                        _ => {}
                    }
                }
                if found.is_none() {
                    found = state.otel.as_ref().map(|ids| ids.trace_id.clone());
                }
                if made.is_none() {
                    made.clone_from(&state.made_trace_id);
                }
            }
            if found.is_none() {
                found = self.in_span.as_ref().and_then(|finder| finder(&extensions));
            }
        }
        if self.span_path {
            path.reverse();
            map.own_text(names.span_path, &path.join(":"));
        }
        if !map.has_trace_id() {
            if let Some(id) = found.or_else(|| self.context_trace_id()).or(made) {
                map.trace_id(&id);
            }
        }
    }

    /// The trace id of where the thread is: the closure's, else that of the request that the
    /// `tower` layer handles, whose span a filter may have left out.
    fn context_trace_id(&self) -> Option<String> {
        let found = self.in_context.as_ref().and_then(|finder| finder());
        #[cfg(feature = "tower")]
        let found = found.or_else(crate::trace_context::TraceContext::current_trace_id);
        found
    }

    /// Notes an error in all spans around an event.
    fn mark_failed<'a, S>(&self, spans: impl Iterator<Item = SpanRef<'a, S>>)
    where
        S: LookupSpan<'a> + 'a,
    {
        for span in spans {
            if let Some(state) = span.extensions_mut().get_mut::<SpanState>() {
                state.failed = true;
            }
        }
    }

    #[cfg(feature = "opentelemetry")]
    fn note_opentelemetry<'a, S>(&self, span: &SpanRef<'a, S>)
    where
        S: LookupSpan<'a>,
    {
        use opentelemetry::trace::TraceContextExt as _;
        let known = |span: &SpanRef<'a, S>| {
            let extensions = span.extensions();
            extensions
                .get::<SpanState>()
                .is_none_or(|state| state.otel.is_some())
        };
        let Some(dispatch) = self.opentelemetry.as_ref().and_then(|weak| weak.get()?.upgrade()) else {
            return;
        };
        if known(span) {
            return;
        }
        let Some(context) = tracing_opentelemetry::get_otel_context(&span.id(), &dispatch) else {
            return;
        };
        let found = context.span().span_context().clone();
        if found.is_valid() {
            if let Some(state) = span.extensions_mut().get_mut::<SpanState>() {
                state.otel = Some(span::OtelIds {
                    trace_id: found.trace_id().to_string(),
                    span_id: found.span_id().to_string(),
                });
            }
        }
    }

    #[cfg(not(feature = "opentelemetry"))]
    #[expect(clippy::unused_self, reason = "as with the feature")]
    fn note_opentelemetry<'a, S>(&self, _: &SpanRef<'a, S>)
    where
        S: LookupSpan<'a>,
    {
    }

    fn is_own(metadata: &Metadata<'_>) -> bool {
        is_suppressed() || metadata.target().starts_with("fluent_logger")
    }
}

impl<S> Layer<S> for FluentLayer
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    #[cfg(feature = "opentelemetry")]
    fn on_register_dispatch(&self, dispatch: &tracing_core::Dispatch) {
        if let Some(weak) = &self.opentelemetry {
            // A second dispatcher with a clone of this layer keeps the first.
            let _ = weak.set(dispatch.downgrade());
        }
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let is_root = span.parent().is_none();
        let mut extensions = span.extensions_mut();
        if extensions.get_mut::<SpanState>().is_none() {
            let mut fields = Fields::default();
            attributes.record(&mut fields);
            let mut state = SpanState::new(fields);
            if self.make_trace_ids && is_root {
                state.make_trace_id();
            }
            if self.span_ids {
                state.make_span_id();
            }
            extensions.insert(state);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(state) = span.extensions_mut().get_mut::<SpanState>() {
            values.record(&mut state.fields);
        }
    }

    fn on_enter(&self, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            self.note_opentelemetry(&span);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let metadata = event.metadata();
        if Self::is_own(metadata) {
            return;
        }
        if self.span_records != SpanRecords::None && *metadata.level() == Level::ERROR {
            self.mark_failed(context.event_scope(event).into_iter().flatten());
        }
        if !self.sampling.keeps(metadata) {
            return self.logger.count_sampled_out();
        }
        let mut fields = Fields::default();
        event.record(&mut fields);
        let mut repeated = 0;
        if let Some(repeats) = &self.repeats {
            let text = fields.get("message").unwrap_or_default();
            match repeats.check(metadata.target(), text, Instant::now()) {
                Verdict::Suppress => return self.logger.count_suppressed(),
                Verdict::Send { suppressed } => repeated = suppressed,
            }
        }
        let innermost = context.event_span(event);
        if let Some(span) = &innermost {
            self.note_opentelemetry(span);
        }
        self.logger.log_written(&self.tag, |out| {
            let mut map = RecordMap::new(out, self.names, &self.trace_key, &self.reserved);
            let target = fields.log_target.as_deref().unwrap_or_else(|| metadata.target());
            self.write_head(&mut map, metadata, target);
            for (name, value) in fields.iter().filter(|(name, _)| *name != "log.line") {
                map.field(name, value);
            }
            if repeated > 0 {
                map.own_number("repeated", repeated);
            }
            match &innermost {
                Some(span) => self.write_spans(&mut map, span),
                None => {
                    if let Some(id) = self.context_trace_id() {
                        map.trace_id(&id);
                    }
                }
            }
            map.finish();
        });
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let Some(span) = context.span(&id) else { return };
        let is_root = span.parent().is_none();
        let wanted = match self.span_records {
            SpanRecords::None => false,
            SpanRecords::Root => is_root,
            SpanRecords::All => true,
        };
        if !wanted || Self::is_own(span.metadata()) {
            return;
        }
        let (opened, failed) = {
            let extensions = span.extensions();
            let Some(state) = extensions.get::<SpanState>() else {
                return;
            };
            (state.opened, state.failed || state.fields.get("error").is_some())
        };
        let names = self.names;
        let mut reserved = self.reserved.clone();
        reserved.extend([names.message, names.duration]);
        self.logger.log_written(&self.tag, |out| {
            let mut map = RecordMap::new(out, names, &self.trace_key, &reserved);
            self.write_head(&mut map, span.metadata(), span.metadata().target());
            let message = if is_root {
                &self.completion_message
            } else {
                "span closed"
            };
            map.own(names.message, |out| write_str(out, message.as_bytes()));
            map.own_duration(names.duration, opened.elapsed());
            self.write_spans(&mut map, &span);
            // Last, so that an outcome that the application recorded in the span wins.
            map.own_text(names.outcome, if failed { names.failure } else { names.success });
            map.finish();
        });
    }
}

fn severity_index(level: &Level) -> usize {
    match *level {
        Level::TRACE => 0,
        Level::DEBUG => 1,
        Level::INFO => 2,
        Level::WARN => 3,
        Level::ERROR => 4,
    }
}
