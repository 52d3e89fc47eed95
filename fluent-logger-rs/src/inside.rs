//! The mark "this is the logger itself", by which the `tracing` layer and the `log` adapter keep away from what
//! the worker, its TLS and its callbacks log: a logger that logged its own sending would never come to rest.
//!
//! Owns one flag per thread, set while the worker is being polled.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread runs the worker of some logger right now.
#[cfg_attr(
    not(any(feature = "log", feature = "tracing")),
    expect(dead_code, reason = "asked by the features")
)]
pub(crate) fn is_inside() -> bool {
    INSIDE.get()
}

/// A future that is marked while it runs.
pub(crate) struct Inside(Pin<Box<dyn Future<Output = ()> + Send>>);

impl Inside {
    pub(crate) fn new(future: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(Box::pin(future))
    }
}

/// Takes the mark off even if the future panics.
struct Mark(bool);

impl Drop for Mark {
    fn drop(&mut self) {
        INSIDE.set(self.0);
    }
}

impl Future for Inside {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let _mark = Mark(INSIDE.replace(true));
        self.0.as_mut().poll(context)
    }
}
