//! Runs server cases: filter, needs, several at once, the disturbing ones by themselves at the end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::case::{Case, Fault, Need, Options};
use crate::context::Ctx;
use crate::report::{Expectations, Finding, Outcome, Report};
use crate::target::Target;

/// No case takes longer than this; it fails when it does.
const CASE_LIMIT: Duration = Duration::from_secs(240);

/// Runs the cases that the options select against the target.
pub async fn run(target: &Target, options: &Options) -> Report {
    run_expecting(target, options, &Expectations::default()).await
}

/// As [`run`], with the expectations of a known peer: its skips are honoured and its failures marked.
pub async fn run_expecting(target: &Target, options: &Options, expectations: &Expectations) -> Report {
    let target = Arc::new(target.clone());
    let options = Arc::new(options.clone());
    let mut findings = Vec::new();
    let mut together = JoinSet::new();
    let mut by_themselves = Vec::new();
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
        if case.alone {
            by_themselves.push(case);
            continue;
        }
        let (target, options, permits) = (target.clone(), options.clone(), permits.clone());
        together.spawn(async move {
            let _permit = permits.acquire().await;
            run_one(case, target, options).await
        });
    }
    findings.extend(together.join_all().await);
    // Those that restart the server come late: the process that is watched is gone then.
    let rank = |case: &Case| {
        let hook = case.needs.iter().any(|need| matches!(need, Need::Hook(_)));
        (case.needs.contains(&Need::Last), hook)
    };
    by_themselves.sort_by_key(rank);
    for case in by_themselves {
        findings.push(run_one(case, target.clone(), options.clone()).await);
    }
    findings.sort_by_key(|f| f.number);
    let mut report = Report { findings };
    report.excuse(expectations);
    report
}

async fn run_one(case: Case, target: Arc<Target>, options: Arc<Options>) -> Finding {
    let started = Instant::now();
    let ctx = Ctx::new(target, options, case.number);
    // A task of its own, so that a panic in one case is its failure and not the end of the run.
    let mut task = tokio::spawn((case.run)(ctx.clone()));
    let outcome = match timeout(CASE_LIMIT, &mut task).await {
        Ok(Ok(Ok(()))) => Outcome::Pass,
        Ok(Ok(Err(Fault::Skip(reason)))) => Outcome::Skip(reason),
        Ok(Ok(Err(Fault::Fail { expected, seen }))) => Outcome::Fail { expected, seen },
        Ok(Err(e)) => Outcome::Fail {
            expected: "the case runs to its end".into(),
            seen: e.to_string(),
        },
        Err(_) => {
            task.abort();
            Outcome::Fail {
                expected: format!("the case ends within {CASE_LIMIT:?}"),
                seen: "still running".into(),
            }
        }
    };
    finding(&case, outcome, ctx.notes(), started.elapsed())
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
        excuse: None,
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

/// `*` is any text, everything else itself.
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
