//! Parsers of single values: one per kind.
//!
//! Owns the accepted forms and the error messages. Does not know keys.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::super::route::condition;
use super::super::secret::Secret;
use super::super::suggestion::did_you_mean;
use super::super::types::{Condition, Network, Predicate, User};
use super::super::units::{parse_duration, parse_size};
use super::UntypedValue;
use crate::metrics::Output;
use crate::output::{IndexName, MAX_DATA_STREAM_BYTES};
use windrow_trace::{DocumentSchema, MergeRule};

pub(super) fn text(raw: &UntypedValue) -> Result<&str, String> {
    match raw {
        UntypedValue::Text(text) => Ok(text),
        other => Err(format!("it is {}, not a string", other.kind())),
    }
}

pub(in crate::config) fn not_empty(raw: &UntypedValue) -> Result<&str, String> {
    match text(raw)? {
        "" => Err("it is empty".into()),
        text => Ok(text),
    }
}

pub(in crate::config) fn boolean(raw: &UntypedValue) -> Result<bool, String> {
    match raw {
        UntypedValue::Bool(b) => Ok(*b),
        UntypedValue::Text(text) => match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Ok(true),
            "false" | "no" | "off" | "0" => Ok(false),
            _ => Err("neither true nor false".into()),
        },
        other => Err(format!("it is {}", other.kind())),
    }
}

pub(super) fn count(raw: &UntypedValue, min: u64, max: u64) -> Result<u64, String> {
    let n = match raw {
        UntypedValue::Int(n) => u64::try_from(*n).map_err(|_| "it is negative".to_owned())?,
        UntypedValue::Text(text) => text
            .trim()
            .replace('_', "")
            .parse()
            .map_err(|_| "not a whole number".to_owned())?,
        other => return Err(format!("it is {}", other.kind())),
    };
    in_range(n, &min, &max)
}

pub(super) fn duration(raw: &UntypedValue) -> Result<Duration, String> {
    match raw {
        UntypedValue::Text(text) => parse_duration(text),
        UntypedValue::Int(0) => Ok(Duration::ZERO),
        UntypedValue::Int(n) => Err(format!("no unit; write \"{n}s\" or \"{n}ms\"")),
        other => Err(format!("it is {}, not a duration", other.kind())),
    }
}

/// `BACK..AHEAD`, or `none`.
pub(super) fn time_window(text: &str) -> Result<Option<(Duration, Duration)>, String> {
    if text == "none" {
        return Ok(None);
    }
    let (back, ahead) = text
        .split_once("..")
        .ok_or_else(|| "no \"..\" between the two durations".to_owned())?;
    Ok(Some((parse_duration(back)?, parse_duration(ahead)?)))
}

pub(super) fn size(raw: &UntypedValue) -> Result<u64, String> {
    match raw {
        UntypedValue::Text(text) => parse_size(text),
        UntypedValue::Int(n) => u64::try_from(*n).map_err(|_| "it is negative".to_owned()),
        other => Err(format!("it is {}, not a size", other.kind())),
    }
}

pub(super) fn in_range<T: PartialOrd>(value: T, min: &T, max: &T) -> Result<T, String> {
    if value < *min {
        Err("too small".into())
    } else if value > *max {
        Err("too large".into())
    } else {
        Ok(value)
    }
}

pub(super) fn or_zero<T: PartialOrd>(value: T, zero: &T, min: &T) -> Result<Option<T>, String> {
    if value == *zero {
        Ok(None)
    } else if value < *min {
        Err("too small".into())
    } else {
        Ok(Some(value))
    }
}

/// Parses a list, or a single value as a list of one. The error names the element.
pub(in crate::config) fn list_of<T>(
    raw: &UntypedValue,
    read: impl Fn(&UntypedValue) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    match raw {
        UntypedValue::List(list) if list.len() == 1 => Ok(vec![read(&list[0])?]),
        UntypedValue::List(list) => list
            .iter()
            .enumerate()
            .map(|(n, raw)| read(raw).map_err(|what| format!("element {}: {what}", n + 1)))
            .collect(),
        one => Ok(vec![read(one)?]),
    }
}

pub(super) fn non_empty_list<T>(list: Vec<T>) -> Result<Vec<T>, String> {
    if list.is_empty() {
        Err("the list is empty".into())
    } else {
        Ok(list)
    }
}

pub(super) fn host(raw: &UntypedValue) -> Result<String, String> {
    let text = not_empty(raw)?;
    let is_valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if text == "*" || text.chars().all(is_valid) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err(format!("{text:?} is not a host name"))
    }
}

pub(super) fn readable_file(raw: &UntypedValue) -> Result<PathBuf, String> {
    let path = PathBuf::from(not_empty(raw)?);
    match std::fs::File::open(&path).and_then(|file| file.metadata()) {
        Ok(metadata) if metadata.is_dir() => Err("it is a folder".into()),
        Ok(_) => Ok(path),
        Err(error) => Err(format!("cannot be opened ({error})")),
    }
}

pub(super) fn mode(raw: &UntypedValue) -> Result<u32, String> {
    let bits = match raw {
        UntypedValue::Text(text) => {
            u32::from_str_radix(text.trim_start_matches("0o"), 8).map_err(|_| "not octal".to_owned())?
        }
        UntypedValue::Int(n) => u32::try_from(*n).map_err(|_| "out of range".to_owned())?,
        other => return Err(format!("it is {}", other.kind())),
    };
    in_range(bits, &0, &0o777)
}

pub(in crate::config) fn outputs(raw: &UntypedValue) -> Result<Vec<Output>, String> {
    let list = non_empty_list(list_of(raw, |raw| {
        let name = not_empty(raw)?;
        let found = Output::ALL.iter().find(|output| output.as_str() == name).copied();
        found.ok_or_else(|| {
            let names = Output::ALL.iter().map(|output| output.as_str());
            format!("unknown output {name:?}{}", did_you_mean(name, names))
        })
    })?)?;
    let mut seen = Vec::new();
    for output in list {
        if seen.contains(&output) {
            return Err(format!("{output} is listed twice"));
        }
        seen.push(output);
    }
    Ok(seen)
}

pub(super) fn url(raw: &UntypedValue) -> Result<String, String> {
    let text = not_empty(raw)?;
    let parsed = url::Url::parse(text).map_err(|error| match error {
        url::ParseError::RelativeUrlWithoutBase => "it does not begin with http:// or https://".to_owned(),
        error => error.to_string(),
    })?;
    if !matches!(parsed.scheme(), "http" | "https") {
        return Err(format!("{:?} is neither http nor https", parsed.scheme()));
    }
    if parsed.host_str().is_none_or(str::is_empty) {
        return Err("no host".into());
    }
    if parsed.query().is_some() || parsed.fragment().is_some() {
        return Err("a base address has no ? and no #".into());
    }
    Ok(text.trim_end_matches('/').to_owned())
}

/// A valid index name (Elasticsearch: lower case, none of `\ / * ? " < > | , #` or space, not
/// beginning with `- _ +`, up to 255 bytes) that does not change within a day.
///
/// Placeholders such as `{kubernetes.namespace_name|none}` stand for what the field of a record has.
pub(in crate::config) fn index(text: &str) -> Result<String, String> {
    let name = IndexName::parse(text)?;
    let fallback = name.fallback();
    let mut chars = fallback.chars();
    let mut length = 0;
    while let Some(c) = chars.next() {
        length += c.len_utf8();
        match c {
            '%' => match chars.next() {
                Some('Y' | 'm' | 'd' | 'y' | 'j' | 'G' | 'V' | 'u') => length += 3,
                Some('H' | 'M' | 'S' | 'T' | 'R' | 's') => {
                    return Err(
                        "a field shorter than a day would spread one trace over several indices".into(),
                    );
                }
                Some(field) => return Err(format!("unknown field %{field}")),
                None => return Err("a % at the end".into()),
            },
            '\\' | '/' | '*' | '?' | '"' | '<' | '>' | '|' | ' ' | ',' | '#' | ':' => {
                return Err(format!("{c:?} is not allowed in an index name"));
            }
            c if c.is_uppercase() => return Err("capital letters are not allowed in an index name".into()),
            _ => {}
        }
    }
    if fallback.starts_with(['-', '_', '+', '.']) {
        return Err("an index name must not begin with - _ + or a dot".into());
    }
    if length > 255 {
        return Err("longer than 255 bytes".into());
    }
    Ok(text.to_owned())
}

/// A valid name of a data stream: that of an index without strftime fields.
pub(in crate::config) fn data_stream(text: &str) -> Result<String, String> {
    let fallback = IndexName::of(text, true)?.fallback();
    if fallback.contains('%') {
        return Err("a data stream has no date in its name: its generations take the place of days".into());
    }
    if fallback.len() > MAX_DATA_STREAM_BYTES {
        return Err(format!("longer than {MAX_DATA_STREAM_BYTES} bytes"));
    }
    index(text)
}

pub(super) fn users(raw: &UntypedValue) -> Result<Vec<User>, String> {
    let users: Vec<User> = list_of(raw, |raw| text(raw)?.parse())?;
    for (n, user) in users.iter().enumerate() {
        if users.iter().take(n).any(|other| other.name == user.name) {
            return Err(format!("user {:?} is listed twice", user.name));
        }
    }
    Ok(users)
}

pub(super) fn network(raw: &UntypedValue) -> Result<Network, String> {
    let table = table(raw, &["cidr", "shared_key", "shared_key_file", "users"])?;
    let cidr = table.get("cidr").ok_or("no cidr")?;
    Ok(Network {
        cidr: not_empty(cidr)?.parse().map_err(|what| format!("cidr: {what}"))?,
        shared_key: match (table.get("shared_key"), table.get("shared_key_file")) {
            (None, None) => None,
            (Some(key), None) => Some(Secret::new(not_empty(key)?)),
            (None, Some(file)) => {
                let key = Secret::from_file(not_empty(file)?.as_ref());
                Some(key.map_err(|what| format!("shared_key_file: {what}"))?)
            }
            (Some(_), Some(_)) => return Err("only one of shared_key and shared_key_file can be set".into()),
        },
        users: match table.get("users") {
            Some(list) => list_of(list, |raw| not_empty(raw).map(str::to_owned))?,
            None => Vec::new(),
        },
    })
}

/// A condition that completes a trace.
pub(super) fn complete(raw: &UntypedValue) -> Result<Condition, String> {
    let condition = condition(raw)?;
    match condition.test {
        Predicate::Exists(false) => Err("exists: what a record lacks completes no trace".into()),
        _ => Ok(condition),
    }
}

/// Merge rules by field: one table, or several of which the later one counts.
pub(super) fn merge_rules(raw: &UntypedValue) -> Result<Vec<(String, MergeRule)>, String> {
    let mut rules = BTreeMap::new();
    let tables = list_of(raw, |raw| match raw {
        UntypedValue::Table(table) => table
            .iter()
            .map(|(name, rule)| Ok((name.clone(), merge_rule(name, rule)?)))
            .collect::<Result<Vec<_>, String>>(),
        other => Err(format!("it is {}, not a table", other.kind())),
    })?;
    rules.extend(tables.into_iter().flatten());
    Ok(rules.into_iter().collect())
}

fn merge_rule(name: &str, raw: &UntypedValue) -> Result<MergeRule, String> {
    if let UntypedValue::Table(_) = raw {
        return Err(format!("{name:?} is a table; put a name with dots in quotes"));
    }
    let rule = not_empty(raw).map_err(|what| format!("{name:?}: {what}"))?;
    let names = MergeRule::ALL.map(MergeRule::as_str);
    let found = MergeRule::ALL.iter().find(|known| known.as_str() == rule);
    found.copied().ok_or_else(|| {
        format!(
            "{name:?}: unknown rule {rule:?}{}",
            did_you_mean(rule, names.into_iter())
        )
    })
}

pub(super) fn schema(raw: &UntypedValue) -> Result<DocumentSchema, String> {
    let name = text(raw)?;
    let names = DocumentSchema::ALL.map(DocumentSchema::as_str);
    let found = DocumentSchema::ALL.iter().find(|known| known.as_str() == name);
    found
        .copied()
        .ok_or_else(|| format!("unknown schema {name:?}{}", did_you_mean(name, names.into_iter())))
}

pub(in crate::config) fn table<'a>(
    raw: &'a UntypedValue,
    known: &[&str],
) -> Result<&'a BTreeMap<String, UntypedValue>, String> {
    let UntypedValue::Table(table) = raw else {
        return Err(format!("it is {}, not a table", raw.kind()));
    };
    match table.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(format!(
            "unknown key {key:?}{}",
            did_you_mean(key, known.iter().copied())
        )),
        None => Ok(table),
    }
}
