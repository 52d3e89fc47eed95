//! Configuration file: TOML with line numbers, and `${VAR}` in strings.
//!
//! Owns the syntax of the file. Does not interpret values.

use std::collections::BTreeMap;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::environment::Environment;
use super::error::{ConfigError, ValueSource};
use super::keys::{KEYS, Key};
use super::kind::UntypedValue;
use super::suggestion::did_you_mean;

/// A value of the file.
pub(super) struct FileValue {
    pub(super) key: &'static Key,
    pub(super) line: usize,
    /// The value, with every `${VAR}` replaced.
    pub(super) raw: UntypedValue,
}

/// Parses a file. Returns the values that could be parsed, and every error.
pub(super) fn read(path: &Path, text: &str, env: &dyn Environment) -> (Vec<FileValue>, Vec<ConfigError>) {
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut parser = FileParser {
        path,
        text,
        env,
        entries: Vec::new(),
        errors: Vec::new(),
    };
    parser.table("", table.get_ref());
    // The parser recovers from an error with an invented value: ignore what it returns for such a
    // line.
    let broken: Vec<usize> = errors
        .iter()
        .map(|error| error.span().map_or(1, |span| parser.line(span.start)))
        .collect();
    parser.entries.retain(|entry| !broken.contains(&entry.line));
    parser
        .errors
        .retain(|m| !matches!(&m.source, Some(ValueSource::File { line, .. }) if broken.contains(line)));
    for (error, line) in errors.iter().zip(broken) {
        parser.error(
            line,
            "",
            None,
            error.message().lines().collect::<Vec<_>>().join(", "),
            None,
        );
    }
    (parser.entries, parser.errors)
}

struct FileParser<'a> {
    path: &'a Path,
    text: &'a str,
    env: &'a dyn Environment,
    entries: Vec<FileValue>,
    errors: Vec<ConfigError>,
}

impl FileParser<'_> {
    fn table(&mut self, prefix: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let path = if prefix.is_empty() {
                name.get_ref().to_string()
            } else {
                format!("{prefix}.{}", name.get_ref())
            };
            let line = self.line(name.span().start);
            if let Some(key) = KEYS.iter().find(|key| key.path == path) {
                match self.raw(value.get_ref()) {
                    Ok(raw) => self.entries.push(FileValue { key, line, raw }),
                    Err(what) => self.error(line, &path, None, what, None),
                }
            } else if let (true, DeValue::Table(inner)) = (is_section(&path), value.get_ref()) {
                self.table(&path, inner);
            } else if is_section(&path) {
                self.error(
                    line,
                    &path,
                    None,
                    "this is the name of a section",
                    Some(format!("[{path}]")),
                );
            } else {
                self.unknown(line, &path, value);
            }
        }
    }

    fn unknown(&mut self, line: usize, path: &str, value: &Spanned<DeValue<'_>>) {
        let last = path.rsplit('.').next().unwrap_or(path);
        // A correct name in the wrong section is more likely than a misspelt one.
        let elsewhere = KEYS
            .iter()
            .find(|key| key.path.rsplit('.').next() == Some(last))
            .map(|key| key.path);
        let (what, hint) = if value.get_ref().is_table() {
            ("unknown section", did_you_mean(path, sections()))
        } else {
            let hint = match elsewhere {
                Some(other) => format!(", did you mean {other:?}?"),
                None => did_you_mean(path, KEYS.iter().map(|key| key.path)),
            };
            ("unknown key", hint)
        };
        self.error(line, path, None, format!("{what}{hint}"), None);
    }

    fn raw(&self, value: &DeValue<'_>) -> Result<UntypedValue, String> {
        Ok(match value {
            DeValue::String(text) => UntypedValue::Text(interpolate(text, self.env)?),
            DeValue::Integer(n) => {
                let n = i64::from_str_radix(n.as_str(), n.radix())
                    .map_err(|_| "too large a number".to_owned())?;
                UntypedValue::Int(n)
            }
            DeValue::Boolean(b) => UntypedValue::Bool(*b),
            DeValue::Array(list) => UntypedValue::List(
                list.iter()
                    .map(|value| self.raw(value.get_ref()))
                    .collect::<Result<_, _>>()?,
            ),
            DeValue::Table(table) => {
                let pairs = table
                    .iter()
                    .map(|(k, v)| Ok((k.get_ref().to_string(), self.raw(v.get_ref())?)));
                UntypedValue::Table(pairs.collect::<Result<BTreeMap<_, _>, String>>()?)
            }
            DeValue::Float(_) => UntypedValue::Other("a number with a fraction"),
            DeValue::Datetime(_) => UntypedValue::Other("a date"),
        })
    }

    fn error(
        &mut self,
        line: usize,
        key: &str,
        value: Option<String>,
        what: impl Into<String>,
        allowed: Option<String>,
    ) {
        let source = Some(ValueSource::File {
            path: self.path.to_owned(),
            line,
        });
        self.errors.push(ConfigError {
            source,
            key: key.to_owned(),
            value,
            what: what.into(),
            allowed,
        });
    }

    fn line(&self, offset: usize) -> usize {
        1 + self
            .text
            .bytes()
            .take(offset)
            .filter(|byte| *byte == b'\n')
            .count()
    }
}

/// Parses one TOML value of a flag or an environment variable.
pub(super) fn value(text: &str, env: &dyn Environment) -> Result<UntypedValue, String> {
    let document = format!("v = {text}");
    let table = DeTable::parse(&document).map_err(|error| format!("not TOML ({})", error.message()))?;
    let parser = FileParser {
        path: Path::new(""),
        text: "",
        env,
        entries: Vec::new(),
        errors: Vec::new(),
    };
    match table.get_ref().get("v") {
        Some(value) => parser.raw(value.get_ref()),
        None => Err("not one TOML value".into()),
    }
}

/// Replaces `${VAR}` and, where VAR may be unset or empty, `${VAR:-default}`; `$${` is a literal
/// `${`.
fn interpolate(text: &str, env: &dyn Environment) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, after) = rest.split_at(at);
        if let Some(before) = before.strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = &after[2..];
            continue;
        }
        out.push_str(before);
        let Some(end) = after.find('}') else {
            return Err("${ without } (write $${ for a literal ${)".into());
        };
        let inside = &after[2..end];
        let (name, default) = inside
            .split_once(":-")
            .map_or((inside, None), |(name, default)| (name, Some(default)));
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Err(format!(
                "{name:?} in ${{…}} is not a valid name of an environment variable"
            ));
        }
        match (env.get(name).filter(|value| !value.is_empty()), default) {
            (Some(value), _) => out.push_str(&value),
            (None, Some(default)) => out.push_str(default),
            (None, None) => {
                return Err(format!(
                    "environment variable {name} is not set (${{{name}:-default}} gives a default)"
                ));
            }
        }
        rest = &after[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

fn sections() -> impl Iterator<Item = &'static str> {
    KEYS.iter().filter_map(|key| Some(key.path.rsplit_once('.')?.0))
}

fn is_section(path: &str) -> bool {
    sections().any(|section| section == path)
}
