//! Trace context of a request: W3C `traceparent` or `X-Trace-Id`, taken from and put into headers.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{HeaderMap, HeaderName, HeaderValue};
use pin_project_lite::pin_project;

use crate::trace_id::{new_span_id, new_trace_id};

/// Header of W3C Trace Context.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Header with the bare trace id.
pub(crate) const X_TRACE_ID: HeaderName = HeaderName::from_static("x-trace-id");

/// Longest trace id that is taken from `X-Trace-Id`, in bytes.
const MAX_ID_BYTES: usize = 128;

thread_local! {
    static CURRENT: RefCell<Option<TraceContext>> = const { RefCell::new(None) };
}

/// The trace that a request belongs to, and the span of its handling.
///
/// [`RequestLayer`](crate::RequestLayer) makes one for each request, puts it into the extensions of
/// the request, and makes it the current one while the request is handled. Outgoing requests pass
/// it on:
///
/// ```no_run
/// use fluent_logger::TraceContext;
///
/// # fn example(mut outgoing: http::Request<()>) {
/// if let Some(context) = TraceContext::current() {
///     context.inject(outgoing.headers_mut());
/// }
/// # }
/// ```
///
/// With `reqwest`: `client.get(url).headers(TraceContext::current_headers())`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: String,
    span_id: String,
    parent_span_id: Option<String>,
    /// The flags of `traceparent`, two hexadecimal digits.
    flags: String,
}

impl TraceContext {
    /// A new trace with a random id of 32 hexadecimal digits.
    pub fn new() -> Self {
        Self::of(new_trace_id(), None, "01")
    }

    fn of(trace_id: String, parent_span_id: Option<String>, flags: &str) -> Self {
        Self {
            trace_id,
            span_id: new_span_id(),
            parent_span_id,
            flags: flags.to_owned(),
        }
    }

    /// The trace of a request: that of a valid `traceparent`, else of `X-Trace-Id` (1 to 128
    /// letters, digits, `-`, `_`, `.` and `:`). The span id is new. `None`: neither is there.
    pub fn extract(headers: &HeaderMap) -> Option<Self> {
        let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        if let Some((trace_id, parent, flags)) = text(TRACEPARENT).and_then(parse_traceparent) {
            return Some(Self::of(trace_id.to_owned(), Some(parent.to_owned()), flags));
        }
        let id = text(X_TRACE_ID)?.trim();
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
        ((1..=MAX_ID_BYTES).contains(&id.len()) && id.bytes().all(legal))
            .then(|| Self::of(id.to_owned(), None, "01"))
    }

    /// The trace id.
    pub fn trace_id(&self) -> &str {
        &self.trace_id
    }

    /// The id of the span of this request: 16 hexadecimal digits.
    pub fn span_id(&self) -> &str {
        &self.span_id
    }

    /// The id of the caller's span, if the caller sent a `traceparent`.
    pub fn parent_span_id(&self) -> Option<&str> {
        self.parent_span_id.as_deref()
    }

    /// Sets `X-Trace-Id`, and `traceparent` if the trace id has the form of W3C.
    pub fn inject(&self, headers: &mut HeaderMap) {
        if let Ok(id) = HeaderValue::from_str(&self.trace_id) {
            headers.insert(X_TRACE_ID, id);
        }
        let parent = format!("00-{}-{}-{}", self.trace_id, self.span_id, self.flags);
        if parse_traceparent(&parent).is_some() {
            if let Ok(parent) = HeaderValue::from_str(&parent) {
                headers.insert(TRACEPARENT, parent);
            }
        }
    }

    /// The trace of the request that is handled on this thread at the moment. A spawned task has
    /// none: [`scope`](Self::scope) gives it one.
    pub fn current() -> Option<Self> {
        CURRENT.with_borrow(Clone::clone)
    }

    /// The headers for an outgoing request in the current trace; none outside of a request.
    pub fn current_headers() -> HeaderMap {
        let mut headers = HeaderMap::new();
        CURRENT.with_borrow(|current| {
            if let Some(context) = current {
                context.inject(&mut headers);
            }
        });
        headers
    }

    /// The current trace id, without copying the rest.
    pub(crate) fn current_trace_id() -> Option<String> {
        CURRENT.with_borrow(|current| current.as_ref().map(|context| context.trace_id.clone()))
    }

    /// A future in which this is the current trace.
    ///
    /// ```no_run
    /// # use fluent_logger::TraceContext;
    /// # async fn work() {}
    /// # fn example() {
    /// let context = TraceContext::current().unwrap_or_default();
    /// tokio::spawn(context.scope(work()));
    /// # }
    /// ```
    pub fn scope<F: Future>(self, future: F) -> Scope<F> {
        Scope {
            future,
            context: self,
        }
    }

    /// Makes this the current trace until the guard is dropped.
    pub(crate) fn enter(&self) -> Entered {
        Entered(CURRENT.replace(Some(self.clone())))
    }
}

impl Default for TraceContext {
    fn default() -> Self {
        Self::new()
    }
}

/// Restores the trace that was current before.
pub(crate) struct Entered(Option<TraceContext>);

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.set(self.0.take());
    }
}

pin_project! {
    /// The future of [`TraceContext::scope`].
    #[must_use = "a future does nothing unless it is awaited"]
    #[derive(Debug)]
    pub struct Scope<F> {
        #[pin]
        future: F,
        context: TraceContext,
    }
}

impl<F: Future> Future for Scope<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let _entered = this.context.enter();
        this.future.poll(context)
    }
}

/// Trace id, span id and flags of a `traceparent` (W3C Trace Context, "traceparent Header").
fn parse_traceparent(text: &str) -> Option<(&str, &str, &str)> {
    let hex = |text: &str, len: usize| {
        text.len() == len
            && text
                .bytes()
                .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    let mut parts = text.trim().split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_zero = |text: &str| text.bytes().all(|byte| byte == b'0');
    // A later version may have more parts; version 00 has four.
    let legal = hex(version, 2)
        && version != "ff"
        && (version != "00" || parts.next().is_none())
        && hex(trace, 32)
        && !is_zero(trace)
        && hex(span, 16)
        && !is_zero(span)
        && hex(flags, 2);
    legal.then_some((trace, span, flags))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn a_traceparent_comes_first_and_is_passed_on() {
        let both = headers(&[("traceparent", PARENT), ("x-trace-id", "other")]);
        let context = TraceContext::extract(&both).unwrap();
        assert_eq!(context.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(context.parent_span_id(), Some("00f067aa0ba902b7"));
        let mut out = HeaderMap::new();
        context.inject(&mut out);
        let again = TraceContext::extract(&out).unwrap();
        assert_eq!(again.trace_id(), context.trace_id());
        assert_eq!(again.parent_span_id(), Some(context.span_id()));
        assert!(
            out["traceparent"].to_str().unwrap().ends_with("-00"),
            "the flags stay"
        );
    }

    #[test]
    fn what_is_no_traceparent_is_not_taken() {
        for bad in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
        ] {
            assert_eq!(parse_traceparent(bad), None, "{bad}");
            let context = TraceContext::extract(&headers(&[("traceparent", bad), ("x-trace-id", "a-1")]));
            assert_eq!(context.unwrap().trace_id(), "a-1");
        }
        assert!(parse_traceparent("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x").is_some());
    }

    #[test]
    fn a_trace_id_of_another_form_is_passed_on_without_traceparent() {
        let context = TraceContext::extract(&headers(&[("x-trace-id", "order-17")])).unwrap();
        let mut out = HeaderMap::new();
        context.inject(&mut out);
        assert_eq!(out["x-trace-id"], "order-17");
        assert!(!out.contains_key("traceparent"));
        for bad in ["", "a b", "a\"b", &"x".repeat(129)] {
            assert_eq!(TraceContext::extract(&headers(&[("x-trace-id", bad)])), None);
        }
    }

    #[test]
    fn a_new_trace_has_the_form_of_w3c_and_is_current_in_its_scope_only() {
        let context = TraceContext::new();
        let mut out = HeaderMap::new();
        context.inject(&mut out);
        assert!(out.contains_key("traceparent"));
        assert_ne!(TraceContext::new().trace_id(), context.trace_id());
        assert_eq!(TraceContext::current(), None);
        {
            let _outer = context.enter();
            assert_eq!(TraceContext::current().as_ref(), Some(&context));
            {
                let _inner = TraceContext::new().enter();
                assert_ne!(TraceContext::current().as_ref(), Some(&context));
            }
            assert_eq!(TraceContext::current().as_ref(), Some(&context));
            assert_eq!(TraceContext::current_headers().len(), 2);
        }
        assert_eq!(TraceContext::current(), None);
    }
}
