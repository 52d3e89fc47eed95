//! [`CaseResult`]: the result of a case or of a step of one.

use std::pin::Pin;

/// Why a case ended early.
#[derive(Clone, Debug)]
pub(crate) enum CaseError {
    /// The peer did not meet the expectation.
    Fail { expected: String, seen: String },
    /// The case cannot run here, for this reason.
    Skip(String),
}

impl CaseError {
    pub(crate) fn fail(expected: impl Into<String>, seen: impl std::fmt::Display) -> Self {
        Self::Fail {
            expected: expected.into(),
            seen: seen.to_string(),
        }
    }
}

/// The result of a case or of a step of one.
pub(crate) type CaseResult = Result<(), CaseError>;

/// A running case.
pub(crate) type RunningCase = Pin<Box<dyn Future<Output = CaseResult> + Send>>;

/// `Ok` when `holds`, else a failure with these texts.
pub(crate) fn check(holds: bool, expected: impl Into<String>, seen: impl std::fmt::Display) -> CaseResult {
    if holds {
        Ok(())
    } else {
        Err(CaseError::fail(expected, seen))
    }
}
