//! [`Case`]: one server case, with its source, its needs and its function.

use crate::case_result::RunningCase;
use crate::context::CaseContext;
use crate::need::Need;

/// A server case: one expectation of the protocol.
#[derive(Clone)]
pub struct Case {
    /// The number in the list of cases; stable.
    pub number: u16,
    /// A short name; stable.
    pub name: &'static str,
    /// Where the expectation comes from (keys: README).
    pub source: &'static str,
    /// The expectation in words.
    pub text: &'static str,
    /// Whether it runs exclusively, because it affects others (restarts, thousands of connections,
    /// memory).
    pub exclusive: bool,
    pub(crate) needs: &'static [Need],
    pub(crate) run: fn(CaseContext) -> RunningCase,
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Case")
            .field("number", &self.number)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
