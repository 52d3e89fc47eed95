//! [`Report`]: the outcome of each case, compared with a peer's expectations file.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

/// The outcome of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The peer met the expectation.
    Pass,
    /// The peer did not meet the expectation.
    Fail {
        /// What the case expects.
        expected: String,
        /// What the peer did; bytes in hex.
        seen: String,
    },
    /// The case was not run.
    Skip(String),
}

/// One case with its outcome.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The case's number.
    pub number: u16,
    /// The case's name.
    pub name: String,
    /// Where the expectation comes from.
    pub source: String,
    /// The expectation in words.
    pub text: String,
    /// What happened.
    pub outcome: Outcome,
    /// Remarks, for instance that a part could not be checked.
    pub notes: Vec<String>,
    /// How long it took.
    pub took: Duration,
    /// Why a failure is expected of this peer, from its expectations file.
    pub expected_failure: Option<String>,
}

impl Finding {
    fn label(&self) -> &'static str {
        match (&self.outcome, &self.expected_failure) {
            (Outcome::Pass, None) => "pass",
            (Outcome::Pass, Some(_)) => "PASS (failure was expected)",
            (Outcome::Fail { .. }, Some(_)) => "fail, expected",
            (Outcome::Fail { .. }, None) => "FAIL",
            (Outcome::Skip(_), _) => "skip",
        }
    }
}

/// The cases of a peer that are expected to fail, each with the reason.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expectations {
    /// The peer, with version and set-up.
    #[serde(default)]
    pub peer: String,
    /// Expectations by case number.
    #[serde(default)]
    pub cases: BTreeMap<String, Expected>,
}

/// The expectation for one case.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    /// The expected result.
    pub result: ExpectedResult,
    /// Why.
    pub reason: String,
}

/// An expected result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExpectedResult {
    /// The case fails, for the reason given.
    Fail,
    /// The case is not run against this peer.
    Skip,
}

impl Expectations {
    /// Parses a file. Keys must be case numbers and reasons must not be empty.
    pub fn parse(text: &str) -> Result<Self, String> {
        let parsed: Self = toml::from_str(text).map_err(|e| e.to_string())?;
        for (key, expected) in &parsed.cases {
            key.parse::<u16>()
                .map_err(|_| format!("cases.{key}: not a case number"))?;
            if expected.reason.trim().is_empty() {
                return Err(format!("cases.{key}: no reason"));
            }
        }
        Ok(parsed)
    }

    pub(crate) fn get(&self, number: u16) -> Option<&Expected> {
        self.cases.get(&number.to_string())
    }

    /// The reason for not running a case at all.
    pub(crate) fn skip(&self, number: u16) -> Option<&str> {
        self.get(number)
            .filter(|e| e.result == ExpectedResult::Skip)
            .map(|e| e.reason.as_str())
    }
}

/// All findings of a run, in order of number.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The findings.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Marks the expected failures of this peer.
    pub fn mark_expected(&mut self, expectations: &Expectations) {
        for finding in &mut self.findings {
            let expected = expectations
                .get(finding.number)
                .filter(|e| e.result == ExpectedResult::Fail);
            finding.expected_failure = expected.map(|e| e.reason.clone());
        }
    }

    /// Findings that fail the run: failures that were not expected.
    pub fn failures(&self) -> impl Iterator<Item = &Finding> {
        self.findings
            .iter()
            .filter(|f| f.expected_failure.is_none() && matches!(f.outcome, Outcome::Fail { .. }))
    }

    /// The numbers of all cases that failed, expected or not.
    pub fn failed(&self) -> Vec<u16> {
        let failed = self
            .findings
            .iter()
            .filter(|f| matches!(f.outcome, Outcome::Fail { .. }));
        failed.map(|f| f.number).collect()
    }

    /// Whether the run is good: no failure that was not expected.
    pub fn is_good(&self) -> bool {
        self.failures().next().is_none()
    }

    fn count(&self, word: &str) -> usize {
        self.findings.iter().filter(|f| f.label() == word).count()
    }

    /// One line: how many of each.
    pub fn summary(&self) -> String {
        let mut text = format!(
            "{} cases: {} passed, {} failed, {} failed as expected, {} skipped",
            self.findings.len(),
            self.count("pass") + self.count("PASS (failure was expected)"),
            self.count("FAIL"),
            self.count("fail, expected"),
            self.count("skip"),
        );
        let unexpected_passes = self.count("PASS (failure was expected)");
        if unexpected_passes > 0 {
            let _ = write!(
                text,
                "; {unexpected_passes} passed that were expected to fail: the expectations file is out of date"
            );
        }
        text
    }

    /// The table, the failures with expected and seen, and the summary.
    pub fn text(&self) -> String {
        let mut out = String::new();
        for f in &self.findings {
            let _ = write!(
                out,
                "{:>3}  {:<34} {:<15} {:>7.2} s",
                f.number,
                f.name,
                f.label(),
                f.took.as_secs_f64()
            );
            let remark = match (&f.outcome, &f.expected_failure) {
                (Outcome::Skip(reason), _) | (_, Some(reason)) => Some(reason.as_str()),
                _ => None,
            };
            for text in remark.into_iter().chain(f.notes.iter().map(String::as_str)) {
                let _ = write!(out, "  {text}");
            }
            out.push('\n');
        }
        for f in self.failures() {
            if let Outcome::Fail { expected, seen } = &f.outcome {
                let _ = write!(
                    out,
                    "\ncase {} {} ({})\n  {}\n  expected: {expected}\n  seen:     {seen}\n",
                    f.number, f.name, f.source, f.text
                );
            }
        }
        let _ = writeln!(out, "\n{}", self.summary());
        out
    }

    /// The report as JSON.
    pub fn json(&self) -> Value {
        let findings: Vec<Value> = self
            .findings
            .iter()
            .map(|f| {
                let (result, expected, seen, reason) = match &f.outcome {
                    Outcome::Pass => ("pass", None, None, None),
                    Outcome::Fail { expected, seen } => ("fail", Some(expected), Some(seen), None),
                    Outcome::Skip(reason) => ("skip", None, None, Some(reason)),
                };
                json!({
                    "number": f.number, "name": f.name, "source": f.source, "text": f.text, "result": result,
                    "expected": expected, "seen": seen, "skipped_because": reason, "expected_failure": f.expected_failure,
                    "notes": f.notes, "seconds": f.took.as_secs_f64(),
                })
            })
            .collect();
        json!({ "good": self.is_good(), "summary": self.summary(), "cases": findings })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(number: u16, outcome: Outcome) -> Finding {
        Finding {
            number,
            name: "n".into(),
            source: "s".into(),
            text: "t".into(),
            outcome,
            notes: Vec::new(),
            took: Duration::ZERO,
            expected_failure: None,
        }
    }

    #[test]
    fn an_expected_failure_is_no_failure_and_an_unexpected_pass_is_told() {
        let fail = Outcome::Fail {
            expected: "a".into(),
            seen: "b".into(),
        };
        let mut report = Report {
            findings: vec![
                finding(1, fail.clone()),
                finding(2, Outcome::Pass),
                finding(3, fail),
            ],
        };
        let text = "[cases.1]\nresult = 'fail'\nreason = 'so'\n[cases.2]\nresult = 'fail'\nreason = 'so'\n";
        report.mark_expected(&Expectations::parse(text).unwrap());
        assert_eq!(report.failures().map(|f| f.number).collect::<Vec<_>>(), [3]);
        assert!(
            report.summary().contains("1 passed that were expected to fail"),
            "{}",
            report.summary()
        );
        assert!(!report.is_good());
    }

    #[test]
    fn an_expectation_without_a_reason_is_refused() {
        assert!(Expectations::parse("[cases.1]\nresult = 'fail'\nreason = ' '").is_err());
        assert!(Expectations::parse("[cases.x]\nresult = 'fail'\nreason = 'so'").is_err());
        assert!(Expectations::parse("[cases.1]\nresult = 'pass'\nreason = 'so'").is_err());
    }
}
