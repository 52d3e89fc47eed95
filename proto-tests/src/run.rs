//! [`run`]: selects the server cases and runs them, first in parallel, then those that need
//! exclusivity.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::case::Case;
use crate::case_result::{CaseError, RunningCase};
use crate::context::CaseContext;
use crate::need::Need;
use crate::options::Options;
use crate::report::{Expectations, Finding, Outcome, Report};
use crate::target::Target;

/// A case that takes longer fails.
const CASE_TIMEOUT: Duration = Duration::from_secs(240);

/// Runs the cases that the options select against the target.
pub async fn run(target: &Target, options: &Options) -> Report {
    run_expecting(target, options, &Expectations::default()).await
}

/// Like [`run`], with the expectations of a known peer, which skip cases and mark failures.
pub async fn run_expecting(target: &Target, options: &Options, expectations: &Expectations) -> Report {
    let target = Arc::new(target.clone());
    let options = Arc::new(options.clone());
    let mut findings = Vec::new();
    let mut parallel = JoinSet::new();
    let mut exclusive = Vec::new();
    let permits = Arc::new(Semaphore::new(options.parallel.max(1)));
    for case in crate::cases::all()
        .into_iter()
        .filter(|c| selected(&options.filter, c.number, c.name))
    {
        let missing = case.needs.iter().find_map(|need| need.missing(&target, &options));
        if let Some(reason) = expectations.skip(case.number).or(missing) {
            findings.push(finding(
                &case,
                Outcome::Skip(reason.to_owned()),
                Vec::new(),
                Duration::ZERO,
            ));
            continue;
        }
        if case.exclusive {
            exclusive.push(case);
            continue;
        }
        let (target, options, permits) = (target.clone(), options.clone(), permits.clone());
        parallel.spawn(async move {
            let _permit = permits.acquire().await;
            run_one(case, target, options).await
        });
    }
    findings.extend(parallel.join_all().await);
    // Cases that restart the server run late: its process id changes.
    let rank = |case: &Case| {
        let hook = case.needs.iter().any(|need| matches!(need, Need::Hook(_)));
        (case.needs.contains(&Need::Last), hook)
    };
    exclusive.sort_by_key(rank);
    for case in exclusive {
        findings.push(run_one(case, target.clone(), options.clone()).await);
    }
    findings.sort_by_key(|f| f.number);
    let mut report = Report { findings };
    report.mark_expected(expectations);
    report
}

async fn run_one(case: Case, target: Arc<Target>, options: Arc<Options>) -> Finding {
    let started = Instant::now();
    let ctx = CaseContext::new(target, options, case.number);
    let outcome = run_to_outcome((case.run)(ctx.clone()), CASE_TIMEOUT).await;
    finding(&case, outcome, ctx.notes(), started.elapsed())
}

/// Runs a case to its outcome; one that takes longer than `limit` or panics fails.
pub(crate) async fn run_to_outcome(case: RunningCase, limit: Duration) -> Outcome {
    // A separate task, so that a panic fails the case and not the run.
    let mut task = tokio::spawn(case);
    match timeout(limit, &mut task).await {
        Ok(Ok(Ok(()))) => Outcome::Pass,
        Ok(Ok(Err(CaseError::Skip(reason)))) => Outcome::Skip(reason),
        Ok(Ok(Err(CaseError::Fail { expected, seen }))) => Outcome::Fail { expected, seen },
        Ok(Err(e)) => Outcome::Fail {
            expected: "the case runs to its end".into(),
            seen: e.to_string(),
        },
        Err(_) => {
            task.abort();
            Outcome::Fail {
                expected: format!("the case ends within {limit:?}"),
                seen: "still running".into(),
            }
        }
    }
}

fn finding(case: &Case, outcome: Outcome, notes: Vec<String>, took: Duration) -> Finding {
    Finding {
        number: case.number,
        name: case.name.into(),
        source: case.source.into(),
        text: case.text.into(),
        outcome,
        notes,
        took,
        expected_failure: None,
    }
}

/// Whether a filter (numbers, ranges, name globs, separated by commas; empty: all) selects a case.
pub(crate) fn selected(filter: &str, number: u16, name: &str) -> bool {
    let mut parts = filter
        .split(',')
        .map(str::trim)
        .filter(|p| !p.is_empty())
        .peekable();
    if parts.peek().is_none() {
        return true;
    }
    parts.any(|part| {
        match part
            .split_once('-')
            .map(|(a, b)| (a.parse::<u16>(), b.parse::<u16>()))
        {
            Some((Ok(from), Ok(to))) => (from..=to).contains(&number),
            _ => part.parse() == Ok(number) || glob(part.as_bytes(), name.as_bytes()),
        }
    })
}

/// Matches `*` with any text, every other byte with itself.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => (0..=text.len()).any(|n| glob(rest, &text[n..])),
        Some((byte, rest)) => text
            .split_first()
            .is_some_and(|(first, text)| first == byte && glob(rest, text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_select_by_number_range_and_name() {
        assert!(selected("", 7, "x") && selected("7", 7, "x") && selected("1, 5-9", 7, "x"));
        assert!(selected("gzip-*", 7, "gzip-bin") && selected("*bin", 7, "gzip-bin"));
        assert!(!selected("8,10-20,zstd*", 7, "gzip-bin"));
    }
}
