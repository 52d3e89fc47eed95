//! A metric for each value of a label.

use std::fmt;
use std::ops::Index;

use super::{Counter, Label};

/// One metric per value of a label: `metrics.input_messages[Mode::Forward].inc()`.
pub struct PerLabel<L, M> {
    pub(super) each: Vec<M>,
    pub(super) label: std::marker::PhantomData<fn(L)>,
}

impl<L: Label, M> Index<L> for PerLabel<L, M> {
    type Output = M;

    fn index(&self, label: L) -> &M {
        &self.each[label.index()]
    }
}

impl<L: Label, M> PerLabel<L, M> {
    /// Every value of the label with its metric.
    pub fn iter(&self) -> impl Iterator<Item = (L, &M)> {
        L::ALL.iter().copied().zip(&self.each)
    }
}

impl<L: Label> PerLabel<L, Counter> {
    /// The sum over all values of the label.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.each.iter().map(Counter::get).sum()
    }
}

impl<L, M> fmt::Debug for PerLabel<L, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerLabel")
            .field("len", &self.each.len())
            .finish_non_exhaustive()
    }
}
