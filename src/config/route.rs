//! Routes and the conditions that choose them.
//!
//! Owns the syntax of `when`, the one form of a condition on a record. What a condition reads is
//! resolved in `gather`.

use std::collections::BTreeMap;

use super::Config;
use super::builder::Validation;
use super::kind::UntypedValue;
use super::kind::{boolean, list_of, not_empty, outputs, table};
use super::suggestion::did_you_mean;
use super::types::{Condition, Predicate};
use crate::metrics::Output;
use crate::output::{Destinations, IndexName};
use windrow_trace::{Phrase, Severity};

/// Fields that may contain the Kubernetes namespace of a record, by precedence.
pub const NAMESPACE_NAMES: [&str; 5] = [
    "kubernetes.namespace_name",
    "kubernetes.namespace",
    "k8s.namespace.name",
    "namespace_name",
    "namespace",
];

/// Fields that may contain the environment of a record, by precedence.
pub const ENVIRONMENT_NAMES: [&str; 9] = [
    "environment",
    "env",
    "deployment.environment.name",
    "deployment.environment",
    "service.environment",
    "kubernetes.labels.environment",
    "kubernetes.labels.env",
    "kubernetes.namespace_labels.environment",
    "kubernetes.namespace_labels.env",
];

/// A route.
#[derive(Debug, Clone)]
pub struct Route {
    /// Which records take it.
    pub when: When,
    /// What happens to them.
    pub action: RouteAction,
}

/// What happens to the records of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteAction {
    /// They are dropped, and counted.
    Drop,
    /// They are written.
    Write {
        /// Index name with strftime fields and placeholders; `None`: that of the configuration.
        index: Option<String>,
        /// Whether `index` is the name of a data stream.
        data_stream: bool,
        /// The outputs; empty: all.
        outputs: Vec<Output>,
    },
}

/// Conditions: one of the inner lists holds, and each condition in it. Empty: every record.
#[derive(Debug, Clone, Default)]
pub struct When(pub Vec<Vec<Condition>>);

/// Checks routes against the outputs and each other.
pub(super) fn check(config: &Config, validation: &mut Validation) {
    let elasticsearch = &config.elasticsearch;
    let default = std::iter::once((None, (&elasticsearch.index, elasticsearch.data_stream)));
    let routes = (1..).zip(&config.routes);
    let written = routes.clone().filter_map(|(number, route)| match &route.action {
        RouteAction::Drop => None,
        RouteAction::Write {
            index, data_stream, ..
        } => Some((Some(number), (index.as_ref()?, *data_stream))),
    });
    for (route, (index, is_data_stream)) in default.chain(written) {
        let (what, key) = if is_data_stream {
            ("data stream", "elasticsearch.data_stream")
        } else {
            ("index", "elasticsearch.index")
        };
        if IndexName::parse(index).is_ok_and(|name| name.is_open()) {
            let key = route.map_or_else(|| key.to_owned(), |route: usize| format!("route {route}"));
            validation.warn(format!(
                "{key}: {index:?} ends with a placeholder, so its template matches every {what} that begins in the same way; \
                 put {}a word behind it",
                if is_data_stream { "" } else { "a date or " }
            ));
        }
    }
    for (number, route) in routes {
        if let RouteAction::Write { outputs, .. } = &route.action
            && let Some(output) = outputs.iter().find(|output| !config.outputs.contains(output))
        {
            validation.error(
                "route",
                format!("route {number} names the output {output}, which is not in output"),
            );
        }
        if route.when.0.is_empty() && number < config.routes.len() {
            validation.warn(format!(
                "route {number} has no when: no record reaches the routes after it"
            ));
        }
    }
    if !config.copies.is_empty() && !config.outputs.contains(&Output::Elasticsearch) {
        validation.warn("copy is set, but documents do not go to Elasticsearch; add --output elasticsearch");
    }
    if validation.errors.is_empty()
        && let Err(what) = Destinations::of(config)
    {
        validation.error("route", what);
    }
}

/// Which documents are written a second time, and where.
#[derive(Debug, Clone)]
pub struct Copy {
    /// The condition on the whole document.
    pub when: When,
    /// Index name with strftime fields.
    pub index: String,
    /// Whether `index` is the name of a data stream.
    pub data_stream: bool,
}

/// Keys of a test.
const TESTS: [&str; 5] = ["equals", "contains", "matches", "at_least", "exists"];

/// A route.
pub(super) fn route(raw: &UntypedValue) -> Result<Route, String> {
    let table = table(raw, &["when", "index", "data_stream", "output", "drop"])?;
    let when = match table.get("when") {
        Some(raw) => when(raw).map_err(|what| format!("when: {what}"))?,
        None => When::default(),
    };
    let drop = table.get("drop").map(boolean).transpose();
    let drop = drop.map_err(|what| format!("drop: {what}"))?.unwrap_or(false);
    let (index, data_stream) = target(table)?;
    let to = table.get("output").map(outputs).transpose();
    let outputs = to.map_err(|what| format!("output: {what}"))?.unwrap_or_default();
    let action = match (drop, index, outputs) {
        (true, None, outputs) if outputs.is_empty() => RouteAction::Drop,
        (true, ..) => return Err("with drop = true there is neither index, data_stream nor output".into()),
        (false, None, outputs) if outputs.is_empty() => {
            return Err("one of index, data_stream, output and drop = true is required".into());
        }
        (false, None, _) => {
            return Err(
                "output needs an index or data_stream of its own: documents of one index go to the same outputs".into(),
            );
        }
        (false, index, outputs) => RouteAction::Write {
            index,
            data_stream,
            outputs,
        },
    };
    Ok(Route { when, action })
}

/// A copy.
pub(super) fn copy(raw: &UntypedValue) -> Result<Copy, String> {
    let table = table(raw, &["when", "index", "data_stream"])?;
    let required = |key: &str| table.get(key).ok_or_else(|| format!("no {key}"));
    let when = when(required("when")?).map_err(|what| format!("when: {what}"))?;
    let (index, data_stream) = target(table)?;
    let index = index.ok_or("no index and no data_stream")?;
    if index.contains('{') {
        return Err("index: placeholders are not possible in the index of copies".into());
    }
    Ok(Copy {
        when,
        index,
        data_stream,
    })
}

/// The name of an index or of a data stream, and whether it is that of a data stream.
fn target(table: &BTreeMap<String, UntypedValue>) -> Result<(Option<String>, bool), String> {
    let index = table.get("index").map(|raw| super::kind::index(not_empty(raw)?));
    let index = index.transpose().map_err(|what| format!("index: {what}"))?;
    let stream = table
        .get("data_stream")
        .map(|raw| super::kind::data_stream(not_empty(raw)?));
    let stream = stream
        .transpose()
        .map_err(|what| format!("data_stream: {what}"))?;
    match (index, stream) {
        (Some(_), Some(_)) => Err("only one of index and data_stream can be set".into()),
        (None, Some(stream)) => Ok((Some(stream), true)),
        (index, None) => Ok((index, false)),
    }
}

/// `{ NAME = TEST, … }`, all of which hold, or a list of such tables, one of which holds.
pub(super) fn when(raw: &UntypedValue) -> Result<When, String> {
    let tables = list_of(raw, |raw| match raw {
        UntypedValue::Table(table) if table.is_empty() => Err("it has no condition".into()),
        UntypedValue::Table(table) if is_condition(table) => Ok(vec![condition(raw)?]),
        UntypedValue::Table(table) => table.iter().map(named).collect(),
        _ => Err("it is no table".to_owned()),
    })?;
    if tables.is_empty() {
        return Err("the list is empty".into());
    }
    Ok(When(tables))
}

/// Whether a table is one condition in the form of `trace.complete`.
fn is_condition(table: &BTreeMap<String, UntypedValue>) -> bool {
    let is_test = |name: &String| TESTS.contains(&name.as_str());
    table.contains_key("field") || table.len() == 1 && table.keys().all(is_test)
}

/// `NAME = TEST`.
fn named((name, raw): (&String, &UntypedValue)) -> Result<Condition, String> {
    let test = test(raw, name).map_err(|what| format!("{name}: {what}"))?;
    Ok(Condition {
        field: Some(name.as_str().into()),
        test,
    })
}

/// A value, a list of values, or a table with one test.
fn test(raw: &UntypedValue, name: &str) -> Result<Predicate, String> {
    match raw {
        UntypedValue::Table(tests) => {
            let mut found = TESTS
                .into_iter()
                .filter_map(|test| Some((test, tests.get(test)?)));
            let unknown = tests.keys().find(|key| !TESTS.contains(&key.as_str()));
            if let Some(unknown) = unknown {
                let hint = did_you_mean(unknown, TESTS);
                return Err(format!(
                    "unknown test {unknown:?}{hint}; the name of a field with dots needs quotes"
                ));
            }
            match (found.next(), found.next()) {
                (Some((test, value)), None) => predicate(test, value),
                _ => Err("exactly one of equals, contains, matches, at_least, exists is required".into()),
            }
        }
        UntypedValue::Bool(_) | UntypedValue::Int(_) | UntypedValue::Text(_) | UntypedValue::List(_) => {
            if name == "tag" {
                return Ok(Predicate::Glob(
                    texts(raw)?.iter().map(|text| glob(text)).collect(),
                ));
            }
            predicate("equals", raw)
        }
        UntypedValue::Other(kind) => Err(format!("it is {kind}")),
    }
}

/// `{ field = …, TEST = … }`; without a field the text of the record is tested.
pub(super) fn condition(raw: &UntypedValue) -> Result<Condition, String> {
    let known = [&["field"][..], &TESTS].concat();
    let table: &BTreeMap<_, _> = table(raw, &known)?;
    let field = table
        .get("field")
        .map(|raw| not_empty(raw).map(Box::from))
        .transpose()?;
    let mut tests = TESTS
        .into_iter()
        .filter_map(|test| Some((test, table.get(test)?)));
    let (Some((name, value)), None) = (tests.next(), tests.next()) else {
        return Err("exactly one of equals, contains, matches, at_least, exists is required".into());
    };
    let test = predicate(name, value)?;
    if field.is_none() && matches!(test, Predicate::AtLeast(_) | Predicate::Exists(_)) {
        return Err(format!("{name} needs a field"));
    }
    Ok(Condition { field, test })
}

fn predicate(test: &str, raw: &UntypedValue) -> Result<Predicate, String> {
    let text = || not_empty(raw);
    let made = match test {
        "contains" => text().map(|text| Predicate::Contains(Box::new(Phrase::new(text)))),
        "equals" => texts(raw).map(|texts| match <[String; 1]>::try_from(texts) {
            Ok([text]) => Predicate::Equals(text.into()),
            Err(texts) => Predicate::OneOf(texts),
        }),
        "matches" => text().and_then(|text| {
            regex::bytes::Regex::new(text)
                .map(Predicate::Matches)
                .map_err(|error| {
                    // The message of the library spans several lines; the last one names the error.
                    let text = error.to_string();
                    text.lines()
                        .last()
                        .unwrap_or("not a regular expression")
                        .trim()
                        .to_owned()
                })
        }),
        "at_least" => text().and_then(|text| {
            let level = Severity::from_text(text.as_bytes());
            let names = Severity::ALL.map(Severity::as_str).join(", ");
            level
                .map(Predicate::AtLeast)
                .ok_or_else(|| format!("{text:?} is no level ({names})"))
        }),
        _ => boolean(raw).map(Predicate::Exists),
    };
    made.map_err(|what| format!("{test}: {what}"))
}

/// A value, or several, as they are written in JSON.
fn texts(raw: &UntypedValue) -> Result<Vec<String>, String> {
    let all = list_of(raw, |raw| match raw {
        UntypedValue::Text(text) if text.is_empty() => Err("it is empty".into()),
        UntypedValue::Text(text) => Ok(text.clone()),
        UntypedValue::Int(number) => Ok(number.to_string()),
        UntypedValue::Bool(value) => Ok(value.to_string()),
        _ => Err("neither a string nor a number".to_owned()),
    })?;
    if all.is_empty() {
        Err("the list is empty".into())
    } else {
        Ok(all)
    }
}

/// The literal parts between the `*` of a pattern.
fn glob(pattern: &str) -> Vec<Box<str>> {
    pattern.split('*').map(Box::from).collect()
}
