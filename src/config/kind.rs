//! The kinds of values: what each allows, how it is read, and into which place of the [`Draft`] it goes.
//!
//! A kind carries its place, so that a key of the table cannot be read as one type and stored as another.
//! It does not know where a value came from.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use memchr::memmem::Finder;
use tracing_subscriber::EnvFilter;

use super::draft::Draft;
use super::types::{Listen, LogFormat, Network, Rule, Secret, Test, User, parse_address};
use super::units::{format_duration, format_size, parse_duration, parse_size};
use crate::metrics::Output;

/// A value as a layer gives it, before it is understood.
#[derive(Debug, Clone, PartialEq)]
pub enum Raw {
    /// A string. Flags and environment variables give only this and lists of it.
    Text(String),
    /// A whole number.
    Int(i64),
    /// `true` or `false`.
    Bool(bool),
    /// A list.
    List(Vec<Self>),
    /// A table.
    Table(BTreeMap<String, Self>),
    /// Anything else that TOML knows; named.
    Other(&'static str),
}

type Place<T> = fn(&mut Draft) -> &mut T;

/// What a key takes, and where it goes.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// `true` or `false`.
    Bool(Place<bool>),
    /// A whole number in a range.
    Count(u64, u64, Place<u64>),
    /// A whole number in a range, or 0 for none.
    CountOrNone(u64, u64, Place<Option<u64>>),
    /// A whole number in a range, which may be left out.
    CountIfSet(u64, u64, Place<Option<u64>>),
    /// A duration in a range.
    Duration(Duration, Duration, Place<Duration>),
    /// A duration in a range, or 0 for never.
    DurationOrNever(Duration, Duration, Place<Option<Duration>>),
    /// A size in a range.
    Size(u64, u64, Place<u64>),
    /// A size in a range, or 0 for no limit.
    SizeOrNone(u64, u64, Place<Option<u64>>),
    /// Any string up to so many bytes.
    Text(usize, Place<String>),
    /// A string that is not empty.
    Name(Place<Option<String>>),
    /// A string that is not shown.
    Secret(Place<Option<Secret>>),
    /// Names, at least one.
    Names(Place<Vec<String>>),
    /// Host names, or `*`; may be none.
    Hosts(Place<Vec<String>>),
    /// A path that need not exist.
    Path(Place<Option<PathBuf>>),
    /// A file that can be read.
    File(Place<Option<PathBuf>>),
    /// Permission bits, octal.
    Mode(Place<u32>),
    /// Addresses and unix sockets, at least one.
    Listen(Place<Vec<Listen>>),
    /// One address, or `none`.
    Address(Place<Option<SocketAddr>>),
    /// Outputs, at least one.
    Outputs(Place<Vec<Output>>),
    /// Base addresses of an HTTP service, at least one.
    Urls(Place<Vec<String>>),
    /// Index name with strftime fields.
    Index(Place<String>),
    /// `NAME:PASSWORD`, any number.
    Users(Place<Vec<User>>),
    /// Tables with `cidr`, `shared_key`, `users`.
    Networks(Place<Vec<Network>>),
    /// Tables with `field` and one of `contains`, `equals`, `matches`.
    Rules(Place<Vec<Rule>>),
    /// How log lines are written.
    Format(Place<LogFormat>),
    /// A filter in the syntax of `RUST_LOG`.
    Filter(Place<String>),
}

impl Kind {
    /// What is allowed, for people.
    #[must_use]
    pub fn allowed(&self) -> String {
        let duration = |min: &Duration, max: &Duration| {
            format!(
                "a duration from {} to {}",
                format_duration(*min),
                format_duration(*max)
            )
        };
        let size =
            |min: &u64, max: &u64| format!("a size from {} to {}", format_size(*min), format_size(*max));
        match self {
            Self::Bool(_) => "true or false".into(),
            Self::Count(min, max, _) | Self::CountIfSet(min, max, _) => format!("a whole number from {min} to {max}"),
            Self::CountOrNone(min, max, _) => format!("a whole number from {min} to {max}, or 0"),
            Self::Duration(min, max, _) => duration(min, max),
            Self::DurationOrNever(min, max, _) => format!("{}, or 0", duration(min, max)),
            Self::Size(min, max, _) => size(min, max),
            Self::SizeOrNone(min, max, _) => format!("{}, or 0", size(min, max)),
            Self::Text(max, _) => format!("a string of up to {max} bytes"),
            Self::Name(_) | Self::Secret(_) => "a string that is not empty".into(),
            Self::Names(_) => "a list of names, at least one".into(),
            Self::Hosts(_) => "a list of host names without port, or \"*\"".into(),
            Self::Path(_) => "a path".into(),
            Self::File(_) => "a file that can be read".into(),
            Self::Mode(_) => "permission bits in octal, such as \"0660\"".into(),
            Self::Listen(_) => "a list of IP:PORT, :PORT, localhost:PORT or unix:PATH, at least one".into(),
            Self::Address(_) => "IP:PORT, :PORT, localhost:PORT, or \"none\"".into(),
            Self::Outputs(_) => "a list of \"elasticsearch\", \"sqlite\", \"stdout\", at least one".into(),
            Self::Urls(_) => "a list of http:// or https:// addresses, at least one".into(),
            Self::Index(_) => {
                "an index name in lower case; of the strftime fields those of a day or longer (%Y %m %d %y %j %G %V %u)"
                    .into()
            }
            Self::Users(_) => "a list of \"NAME:PASSWORD\"".into(),
            Self::Networks(_) => {
                "a list of tables { cidr = \"10.0.0.0/8\", shared_key = \"…\", users = [\"…\"] }".into()
            }
            Self::Rules(_) => {
                "a list of tables with one of contains, equals, matches (a regular expression) and optionally field"
                    .into()
            }
            Self::Format(_) => "\"auto\", \"text\" or \"json\"".into(),
            Self::Filter(_) => "a level (error, warn, info, debug, trace) or a filter such as \"info,windrow=debug\"".into(),
        }
    }

    /// Placeholder of the value in the help.
    #[must_use]
    pub fn value_name(&self) -> &'static str {
        match self {
            Self::Bool(_) => "BOOL",
            Self::Count(..) | Self::CountOrNone(..) | Self::CountIfSet(..) => "N",
            Self::Duration(..) | Self::DurationOrNever(..) => "DURATION",
            Self::Size(..) | Self::SizeOrNone(..) => "SIZE",
            Self::Text(..) | Self::Name(_) => "TEXT",
            Self::Secret(_) => "SECRET",
            Self::Names(_) => "NAME",
            Self::Hosts(_) => "HOST",
            Self::Path(_) => "PATH",
            Self::File(_) => "FILE",
            Self::Mode(_) => "BITS",
            Self::Listen(_) | Self::Address(_) => "ADDRESS",
            Self::Outputs(_) => "OUTPUT",
            Self::Urls(_) => "URL",
            Self::Index(_) => "INDEX",
            Self::Users(_) => "NAME:PASSWORD",
            Self::Networks(_) | Self::Rules(_) => "TOML",
            Self::Format(_) => "FORMAT",
            Self::Filter(_) => "LEVEL",
        }
    }

    /// Whether the value must not be shown.
    #[must_use]
    pub fn is_secret(&self) -> bool {
        matches!(self, Self::Secret(_) | Self::Users(_) | Self::Networks(_))
    }

    /// Whether it takes several values: a flag may be repeated.
    #[must_use]
    pub fn is_list(&self) -> bool {
        self.splits_at_commas() || matches!(self, Self::Users(_) | Self::Networks(_) | Self::Rules(_))
    }

    /// Whether one string may hold several values, with commas between them.
    pub(super) fn splits_at_commas(&self) -> bool {
        matches!(
            self,
            Self::Names(_) | Self::Hosts(_) | Self::Listen(_) | Self::Outputs(_) | Self::Urls(_)
        )
    }

    /// Reads a value and puts it into its place. Nothing is put when it is not allowed.
    pub(super) fn apply(&self, raw: &Raw, draft: &mut Draft) -> Result<(), String> {
        match self {
            Self::Bool(place) => *place(draft) = boolean(raw)?,
            Self::Count(min, max, place) => *place(draft) = count(raw, *min, *max)?,
            Self::CountOrNone(min, max, place) => *place(draft) = or_zero(count(raw, 0, *max)?, &0, min)?,
            Self::CountIfSet(min, max, place) => *place(draft) = Some(count(raw, *min, *max)?),
            Self::Duration(min, max, place) => *place(draft) = in_range(duration(raw)?, min, max)?,
            Self::DurationOrNever(min, max, place) => {
                let value = in_range(duration(raw)?, &Duration::ZERO, max)?;
                *place(draft) = or_zero(value, &Duration::ZERO, min)?;
            }
            Self::Size(min, max, place) => *place(draft) = in_range(size(raw)?, min, max)?,
            Self::SizeOrNone(min, max, place) => {
                *place(draft) = or_zero(in_range(size(raw)?, &0, max)?, &0, min)?;
            }
            Self::Text(max, place) => {
                let text = text(raw)?;
                if text.len() > *max {
                    return Err(format!("it has {} bytes", text.len()));
                }
                *place(draft) = text.to_owned();
            }
            Self::Name(place) => *place(draft) = Some(not_empty(raw)?.to_owned()),
            Self::Secret(place) => *place(draft) = Some(Secret::new(not_empty(raw)?)),
            Self::Names(place) => {
                *place(draft) = at_least_one(each(raw, |raw| not_empty(raw).map(str::to_owned))?)?;
            }
            Self::Hosts(place) => *place(draft) = each(raw, host)?,
            Self::Path(place) => *place(draft) = Some(not_empty(raw)?.into()),
            Self::File(place) => *place(draft) = Some(readable_file(raw)?),
            Self::Mode(place) => *place(draft) = mode(raw)?,
            Self::Listen(place) => *place(draft) = at_least_one(each(raw, |raw| not_empty(raw)?.parse())?)?,
            Self::Address(place) => {
                let text = not_empty(raw)?;
                *place(draft) = if text == "none" {
                    None
                } else {
                    Some(parse_address(text)?)
                };
            }
            Self::Outputs(place) => *place(draft) = outputs(raw)?,
            Self::Urls(place) => *place(draft) = at_least_one(each(raw, url)?)?,
            Self::Index(place) => *place(draft) = index(not_empty(raw)?)?,
            Self::Users(place) => *place(draft) = users(raw)?,
            Self::Networks(place) => *place(draft) = each(raw, network)?,
            Self::Rules(place) => *place(draft) = each(raw, rule)?,
            Self::Format(place) => {
                *place(draft) = match text(raw)? {
                    "auto" => LogFormat::Auto,
                    "text" => LogFormat::Text,
                    "json" => LogFormat::Json,
                    _ => return Err("unknown format".into()),
                }
            }
            Self::Filter(place) => {
                let text = not_empty(raw)?;
                // tracing-subscriber 0.3.23 panics on filters that are not ASCII.
                if !text.is_ascii() {
                    return Err("not a filter (targets and levels are ASCII)".into());
                }
                EnvFilter::try_new(text).map_err(|error| format!("not a filter ({error})"))?;
                *place(draft) = text.to_owned();
            }
        }
        Ok(())
    }
}

impl Raw {
    /// The value as TOML writes it; strings with quotes.
    #[must_use]
    pub fn to_toml(&self) -> String {
        match self {
            Self::Text(text) => toml::Value::String(text.clone()).to_string(),
            Self::Int(n) => n.to_string(),
            Self::Bool(b) => b.to_string(),
            Self::List(list) => format!(
                "[{}]",
                list.iter().map(Self::to_toml).collect::<Vec<_>>().join(", ")
            ),
            Self::Table(table) => {
                let pairs: Vec<_> = table
                    .iter()
                    .map(|(key, value)| format!("{key} = {}", value.to_toml()))
                    .collect();
                format!("{{ {} }}", pairs.join(", "))
            }
            Self::Other(kind) => format!("({kind})"),
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::Int(_) => "a number",
            Self::Bool(_) => "a boolean",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Other(kind) => kind,
        }
    }
}

fn text(raw: &Raw) -> Result<&str, String> {
    match raw {
        Raw::Text(text) => Ok(text),
        other => Err(format!("it is {}, not a string", other.kind())),
    }
}

fn not_empty(raw: &Raw) -> Result<&str, String> {
    match text(raw)? {
        "" => Err("it is empty".into()),
        text => Ok(text),
    }
}

fn boolean(raw: &Raw) -> Result<bool, String> {
    match raw {
        Raw::Bool(b) => Ok(*b),
        Raw::Text(text) => match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Ok(true),
            "false" | "no" | "off" | "0" => Ok(false),
            _ => Err("neither true nor false".into()),
        },
        other => Err(format!("it is {}", other.kind())),
    }
}

fn count(raw: &Raw, min: u64, max: u64) -> Result<u64, String> {
    let n = match raw {
        Raw::Int(n) => u64::try_from(*n).map_err(|_| "it is negative".to_owned())?,
        Raw::Text(text) => text
            .trim()
            .replace('_', "")
            .parse()
            .map_err(|_| "not a whole number".to_owned())?,
        other => return Err(format!("it is {}", other.kind())),
    };
    in_range(n, &min, &max)
}

fn duration(raw: &Raw) -> Result<Duration, String> {
    match raw {
        Raw::Text(text) => parse_duration(text),
        Raw::Int(0) => Ok(Duration::ZERO),
        Raw::Int(n) => Err(format!("no unit; write \"{n}s\" or \"{n}ms\"")),
        other => Err(format!("it is {}, not a duration", other.kind())),
    }
}

fn size(raw: &Raw) -> Result<u64, String> {
    match raw {
        Raw::Text(text) => parse_size(text),
        Raw::Int(n) => u64::try_from(*n).map_err(|_| "it is negative".to_owned()),
        other => Err(format!("it is {}, not a size", other.kind())),
    }
}

fn in_range<T: PartialOrd>(value: T, min: &T, max: &T) -> Result<T, String> {
    if value < *min {
        Err("too small".into())
    } else if value > *max {
        Err("too large".into())
    } else {
        Ok(value)
    }
}

fn or_zero<T: PartialOrd>(value: T, zero: &T, min: &T) -> Result<Option<T>, String> {
    if value == *zero {
        Ok(None)
    } else if value < *min {
        Err("too small".into())
    } else {
        Ok(Some(value))
    }
}

/// A list, or one value as a list of one. The mistake names the element.
fn each<T>(raw: &Raw, read: impl Fn(&Raw) -> Result<T, String>) -> Result<Vec<T>, String> {
    match raw {
        Raw::List(list) if list.len() == 1 => Ok(vec![read(&list[0])?]),
        Raw::List(list) => list
            .iter()
            .enumerate()
            .map(|(n, raw)| read(raw).map_err(|what| format!("element {}: {what}", n + 1)))
            .collect(),
        one => Ok(vec![read(one)?]),
    }
}

fn at_least_one<T>(list: Vec<T>) -> Result<Vec<T>, String> {
    if list.is_empty() {
        Err("the list is empty".into())
    } else {
        Ok(list)
    }
}

fn host(raw: &Raw) -> Result<String, String> {
    let text = not_empty(raw)?;
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if text == "*" || text.chars().all(legal) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err(format!("{text:?} is no host name"))
    }
}

fn readable_file(raw: &Raw) -> Result<PathBuf, String> {
    let path = PathBuf::from(not_empty(raw)?);
    match std::fs::File::open(&path).and_then(|file| file.metadata()) {
        Ok(metadata) if metadata.is_dir() => Err("it is a folder".into()),
        Ok(_) => Ok(path),
        Err(error) => Err(format!("cannot be opened ({error})")),
    }
}

fn mode(raw: &Raw) -> Result<u32, String> {
    let bits = match raw {
        Raw::Text(text) => {
            u32::from_str_radix(text.trim_start_matches("0o"), 8).map_err(|_| "not octal".to_owned())?
        }
        Raw::Int(n) => u32::try_from(*n).map_err(|_| "out of range".to_owned())?,
        other => return Err(format!("it is {}", other.kind())),
    };
    in_range(bits, &0, &0o777)
}

fn outputs(raw: &Raw) -> Result<Vec<Output>, String> {
    let list = at_least_one(each(raw, |raw| {
        let name = not_empty(raw)?;
        let found = Output::ALL.iter().find(|output| output.as_str() == name).copied();
        found.ok_or_else(|| {
            let names = Output::ALL.iter().map(|output| output.as_str());
            format!(
                "unknown output {name:?}{}",
                super::load::did_you_mean(name, names)
            )
        })
    })?)?;
    let mut seen = Vec::new();
    for output in list {
        if seen.contains(&output) {
            return Err(format!("{output} stands there twice"));
        }
        seen.push(output);
    }
    Ok(seen)
}

fn url(raw: &Raw) -> Result<String, String> {
    let text = not_empty(raw)?;
    let parsed = url::Url::parse(text).map_err(|error| match error {
        url::ParseError::RelativeUrlWithoutBase => "no http:// or https:// in front".to_owned(),
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

/// A legal name (Elasticsearch: lower case, none of `\ / * ? " < > | , #` or space, not beginning with `- _ +`,
/// up to 255 bytes) that does not change within a day.
fn index(text: &str) -> Result<String, String> {
    let mut chars = text.chars();
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
    if text.starts_with(['-', '_', '+', '.']) {
        return Err("an index name must not begin with - _ + or a dot".into());
    }
    if length > 255 {
        return Err("longer than 255 bytes".into());
    }
    Ok(text.to_owned())
}

fn users(raw: &Raw) -> Result<Vec<User>, String> {
    let users: Vec<User> = each(raw, |raw| text(raw)?.parse())?;
    for (n, user) in users.iter().enumerate() {
        if users.iter().take(n).any(|other| other.name == user.name) {
            return Err(format!("user {:?} stands there twice", user.name));
        }
    }
    Ok(users)
}

fn network(raw: &Raw) -> Result<Network, String> {
    let table = table(raw, &["cidr", "shared_key", "users"])?;
    let cidr = table.get("cidr").ok_or("no cidr")?;
    Ok(Network {
        cidr: not_empty(cidr)?.parse().map_err(|what| format!("cidr: {what}"))?,
        shared_key: table
            .get("shared_key")
            .map(|raw| not_empty(raw).map(Secret::new))
            .transpose()?,
        users: match table.get("users") {
            Some(list) => each(list, |raw| not_empty(raw).map(str::to_owned))?,
            None => Vec::new(),
        },
    })
}

fn rule(raw: &Raw) -> Result<Rule, String> {
    let table = table(raw, &["field", "contains", "equals", "matches"])?;
    let field = table
        .get("field")
        .map(|raw| not_empty(raw).map(Box::from))
        .transpose()?;
    let mut tests = ["contains", "equals", "matches"]
        .into_iter()
        .filter_map(|name| Some((name, table.get(name)?)));
    let (Some((name, value)), None) = (tests.next(), tests.next()) else {
        return Err("exactly one of contains, equals, matches must stand there".into());
    };
    let value = not_empty(value).map_err(|what| format!("{name}: {what}"))?;
    let test = match name {
        "contains" => Test::Contains(Box::new(Finder::new(value).into_owned())),
        "equals" => Test::Equals(value.into()),
        _ => Test::Matches(regex::bytes::Regex::new(value).map_err(|error| {
            // The library draws the pattern with a mark below, over several lines; the last says what is wrong.
            let text = error.to_string();
            format!(
                "matches: {}",
                text.lines().last().unwrap_or("not a regular expression").trim()
            )
        })?),
    };
    Ok(Rule { field, test })
}

fn table<'a>(raw: &'a Raw, known: &[&str]) -> Result<&'a BTreeMap<String, Raw>, String> {
    let Raw::Table(table) = raw else {
        return Err(format!("it is {}, not a table", raw.kind()));
    };
    match table.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(format!(
            "unknown key {key:?}{}",
            super::load::did_you_mean(key, known.iter().copied())
        )),
        None => Ok(table),
    }
}
