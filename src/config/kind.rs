//! Kinds of values: type and range of a key's value, and the field of the [`ConfigBuilder`] that it
//! sets.
//!
//! A kind carries its field, so that a key cannot be parsed as one type and stored as another. Does
//! not know from which layer a value comes.

mod read;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tracing_subscriber::EnvFilter;

pub(super) use self::read::{boolean, data_stream, index, list_of, not_empty, outputs, table};
use self::read::{
    complete, count, duration, host, in_range, merge_rules, mode, network, non_empty_list, or_zero,
    readable_file, schema, size, text, time_window, url, users,
};
use super::builder::ConfigBuilder;
use super::elasticsearch::OnConflict;
use super::route::{Copy, Route, copy, route};
use super::secret::{Secret, passwords_from_file};
use super::types::{Condition, Listen, LogFormat, Network, ParseJson, PeerAddress, User, parse_address};
use super::units::{format_duration, format_size};
use crate::metrics::Output;
use windrow_trace::{DocumentSchema, MergeRule};

/// A value of a layer before its kind is checked.
#[derive(Debug, Clone, PartialEq)]
pub enum UntypedValue {
    /// A string. Flags and environment variables have only this and lists of it.
    Text(String),
    /// A whole number.
    Int(i64),
    /// `true` or `false`.
    Bool(bool),
    /// A list.
    List(Vec<Self>),
    /// A table.
    Table(BTreeMap<String, Self>),
    /// Another TOML type; its name.
    Other(&'static str),
}

type FieldAccessor<T> = fn(&mut ConfigBuilder) -> &mut T;

/// Type and range of a key's value, and the field that it sets.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// `true` or `false`.
    Bool(FieldAccessor<bool>),
    /// `true` or `false`, which may be left out.
    BoolIfSet(FieldAccessor<Option<bool>>),
    /// A whole number in a range.
    Count(u64, u64, FieldAccessor<u64>),
    /// A whole number in a range, or 0 for none.
    CountOrNone(u64, u64, FieldAccessor<Option<u64>>),
    /// A whole number in a range, which may be left out.
    CountIfSet(u64, u64, FieldAccessor<Option<u64>>),
    /// A duration in a range.
    Duration(Duration, Duration, FieldAccessor<Duration>),
    /// A duration in a range, or 0 for never.
    DurationOrNever(Duration, Duration, FieldAccessor<Option<Duration>>),
    /// Two durations, `BACK..AHEAD`, or `none`.
    TimeWindow(FieldAccessor<Option<(Duration, Duration)>>),
    /// A size in a range.
    Size(u64, u64, FieldAccessor<u64>),
    /// A size in a range, or 0 for no limit.
    SizeOrNone(u64, u64, FieldAccessor<Option<u64>>),
    /// A string of at most this many bytes.
    Text(usize, FieldAccessor<String>),
    /// A string that is not empty.
    Name(FieldAccessor<Option<String>>),
    /// A string that is never shown.
    Secret(FieldAccessor<Option<Secret>>),
    /// A file with a secret.
    SecretFile(FieldAccessor<Option<Secret>>),
    /// Names, at least one.
    Names(FieldAccessor<Vec<String>>),
    /// Names, or none.
    NamesOrNone(FieldAccessor<Vec<String>>),
    /// Host names, or `*`; may be none.
    Hosts(FieldAccessor<Vec<String>>),
    /// A path that need not exist.
    Path(FieldAccessor<Option<PathBuf>>),
    /// A file that can be read.
    File(FieldAccessor<Option<PathBuf>>),
    /// Permission bits, octal.
    Mode(FieldAccessor<u32>),
    /// Addresses and unix sockets, at least one.
    Listen(FieldAccessor<Vec<Listen>>),
    /// TCP addresses; may be none.
    Addresses(FieldAccessor<Vec<SocketAddr>>),
    /// Addresses of other instances, and names with ports; may be none.
    Peers(FieldAccessor<Vec<PeerAddress>>),
    /// One address, or `none`.
    Address(FieldAccessor<Option<SocketAddr>>),
    /// Outputs, at least one.
    Outputs(FieldAccessor<Vec<Output>>),
    /// Base addresses of an HTTP service, at least one.
    Urls(FieldAccessor<Vec<String>>),
    /// Index name with strftime fields.
    Index(FieldAccessor<String>),
    /// Name of a data stream.
    DataStream(FieldAccessor<Option<String>>),
    /// `NAME:PASSWORD`, any number.
    Users(FieldAccessor<Vec<User>>),
    /// A file with one `NAME:PASSWORD` a line.
    UsersFile(FieldAccessor<Vec<User>>),
    /// Tables with `cidr`, `shared_key`, `users`.
    Networks(FieldAccessor<Vec<Network>>),
    /// Tables with `field` and one test.
    Conditions(FieldAccessor<Vec<Condition>>),
    /// Tables with `when` and `index`.
    Copies(FieldAccessor<Vec<Copy>>),
    /// Tables with `when` and where records go.
    Routes(FieldAccessor<Vec<Route>>),
    /// A table of field names and merge rules.
    Merge(FieldAccessor<Vec<(String, MergeRule)>>),
    /// The names in documents.
    Schema(FieldAccessor<DocumentSchema>),
    /// Which JSON objects in texts become records.
    ParseJson(FieldAccessor<ParseJson>),
    /// What becomes of a document with a refused field.
    OnConflict(FieldAccessor<OnConflict>),
    /// How log lines are written.
    Format(FieldAccessor<LogFormat>),
    /// A filter in the syntax of `RUST_LOG`.
    Filter(FieldAccessor<String>),
}

impl Kind {
    /// Description of the valid values.
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
            Self::Bool(_) | Self::BoolIfSet(_) => "true or false".into(),
            Self::Count(min, max, _) | Self::CountIfSet(min, max, _) => format!("a whole number from {min} to {max}"),
            Self::CountOrNone(min, max, _) => format!("a whole number from {min} to {max}, or 0"),
            Self::Duration(min, max, _) => duration(min, max),
            Self::DurationOrNever(min, max, _) => format!("{}, or 0", duration(min, max)),
            Self::TimeWindow(_) => "two durations such as \"30d..1d\", or \"none\"".into(),
            Self::Size(min, max, _) => size(min, max),
            Self::SizeOrNone(min, max, _) => format!("{}, or 0", size(min, max)),
            Self::Text(max, _) => format!("a string of up to {max} bytes"),
            Self::Name(_) | Self::Secret(_) => "a string that is not empty".into(),
            Self::SecretFile(_) => "a file that can be read and is not empty".into(),
            Self::Names(_) => "a list of names, at least one".into(),
            Self::NamesOrNone(_) => "a list of names".into(),
            Self::Hosts(_) => "a list of host names without port, or \"*\"".into(),
            Self::Path(_) => "a path".into(),
            Self::File(_) => "a file that can be read".into(),
            Self::Mode(_) => "permission bits in octal, such as \"0660\"".into(),
            Self::Listen(_) => "a list of IP:PORT, :PORT, localhost:PORT or unix:PATH, at least one".into(),
            Self::Address(_) => "IP:PORT, :PORT, localhost:PORT, or \"none\"".into(),
            Self::Addresses(_) => "a list of IP:PORT, :PORT or localhost:PORT".into(),
            Self::Peers(_) => "a list of IP:PORT and dns:NAME:PORT".into(),
            Self::Outputs(_) => "a list of \"elasticsearch\", \"sqlite\", \"stdout\", at least one".into(),
            Self::Urls(_) => "a list of http:// or https:// addresses, at least one".into(),
            Self::Index(_) => {
                "an index name in lower case; of the strftime fields those of a day or longer (%Y %m %d %y %j %G %V %u); \
                 placeholders {FIELD|FALLBACK} behind its first letters"
                    .into()
            }
            Self::DataStream(_) => {
                "the name of a data stream in lower case, without a date; placeholders {FIELD|FALLBACK} behind its first letters"
                    .into()
            }
            Self::Users(_) => "a list of \"NAME:PASSWORD\"".into(),
            Self::UsersFile(_) => "a file with one NAME:PASSWORD a line".into(),
            Self::Networks(_) => {
                "a list of tables { cidr = \"10.0.0.0/8\", shared_key = \"…\" or shared_key_file = \"…\", users = [\"…\"] }"
                    .into()
            }
            Self::Conditions(_) => {
                "a list of tables with one of contains, equals, matches (a regular expression) and optionally field; \
                 with field also at_least (a level) and exists"
                    .into()
            }
            Self::Copies(_) => "a list of tables { when = {…}, index = \"…\" }".into(),
            Self::Routes(_) => {
                "a list of tables { when = {…}, index = \"…\", output = [\"…\"] } or { when = {…}, drop = true }".into()
            }
            Self::Merge(_) => {
                "a table of field = \"newest\", \"oldest\", \"max\", \"min\", \"set\" or \"worst\"; a name with dots in quotes".into()
            }
            Self::Schema(_) => "\"plain\", \"ecs\" or \"otel\"".into(),
            Self::ParseJson(_) => "\"auto\", \"always\" or \"never\"".into(),
            Self::OnConflict(_) => "\"unmapped\" or \"dead_letter\"".into(),
            Self::Format(_) => "\"auto\", \"text\" or \"json\"".into(),
            Self::Filter(_) => "a level (error, warn, info, debug, trace) or a filter such as \"info,windrow=debug\"".into(),
        }
    }

    /// Placeholder of the value in the help.
    #[must_use]
    pub fn value_name(&self) -> &'static str {
        match self {
            Self::Bool(_) | Self::BoolIfSet(_) => "BOOL",
            Self::Count(..) | Self::CountOrNone(..) | Self::CountIfSet(..) => "N",
            Self::Duration(..) | Self::DurationOrNever(..) => "DURATION",
            Self::TimeWindow(_) => "BACK..AHEAD",
            Self::Size(..) | Self::SizeOrNone(..) => "SIZE",
            Self::Text(..) | Self::Name(_) => "TEXT",
            Self::Secret(_) => "SECRET",
            Self::Names(_) | Self::NamesOrNone(_) => "NAME",
            Self::Hosts(_) => "HOST",
            Self::Path(_) => "PATH",
            Self::File(_) | Self::SecretFile(_) | Self::UsersFile(_) => "FILE",
            Self::Mode(_) => "BITS",
            Self::Listen(_) | Self::Address(_) | Self::Addresses(_) | Self::Peers(_) => "ADDRESS",
            Self::Outputs(_) => "OUTPUT",
            Self::Urls(_) => "URL",
            Self::Index(_) => "INDEX",
            Self::DataStream(_) => "STREAM",
            Self::Users(_) => "NAME:PASSWORD",
            Self::Networks(_) | Self::Conditions(_) | Self::Routes(_) | Self::Copies(_) | Self::Merge(_) => {
                "TOML"
            }
            Self::Schema(_) => "SCHEMA",
            Self::ParseJson(_) => "WHEN",
            Self::OnConflict(_) => "ACTION",
            Self::Format(_) => "FORMAT",
            Self::Filter(_) => "LEVEL",
        }
    }

    /// Whether the value must never be shown.
    #[must_use]
    pub fn is_secret(&self) -> bool {
        matches!(self, Self::Secret(_) | Self::Users(_) | Self::Networks(_))
    }

    /// Whether it is a list; its flag may be repeated.
    #[must_use]
    pub fn is_list(&self) -> bool {
        self.splits_at_commas() || matches!(self, Self::Users(_)) || self.is_toml()
    }

    /// Whether a flag or an environment variable has its value as TOML.
    pub(super) fn is_toml(&self) -> bool {
        matches!(
            self,
            Self::Networks(_) | Self::Conditions(_) | Self::Routes(_) | Self::Copies(_) | Self::Merge(_)
        )
    }

    /// Whether one string may contain several values, separated by commas.
    pub(super) fn splits_at_commas(&self) -> bool {
        matches!(
            self,
            Self::Names(_)
                | Self::NamesOrNone(_)
                | Self::Hosts(_)
                | Self::Listen(_)
                | Self::Addresses(_)
                | Self::Peers(_)
                | Self::Outputs(_)
                | Self::Urls(_)
        )
    }

    /// Parses a value and sets its field. On an error nothing is set.
    pub(super) fn apply(&self, raw: &UntypedValue, builder: &mut ConfigBuilder) -> Result<(), String> {
        match self {
            Self::Bool(field) => *field(builder) = boolean(raw)?,
            Self::BoolIfSet(field) => *field(builder) = Some(boolean(raw)?),
            Self::Count(min, max, field) => *field(builder) = count(raw, *min, *max)?,
            Self::CountOrNone(min, max, field) => *field(builder) = or_zero(count(raw, 0, *max)?, &0, min)?,
            Self::CountIfSet(min, max, field) => *field(builder) = Some(count(raw, *min, *max)?),
            Self::Duration(min, max, field) => *field(builder) = in_range(duration(raw)?, min, max)?,
            Self::DurationOrNever(min, max, field) => {
                let value = in_range(duration(raw)?, &Duration::ZERO, max)?;
                *field(builder) = or_zero(value, &Duration::ZERO, min)?;
            }
            Self::TimeWindow(field) => *field(builder) = time_window(not_empty(raw)?)?,
            Self::Size(min, max, field) => *field(builder) = in_range(size(raw)?, min, max)?,
            Self::SizeOrNone(min, max, field) => {
                *field(builder) = or_zero(in_range(size(raw)?, &0, max)?, &0, min)?;
            }
            Self::Text(max, field) => {
                let text = text(raw)?;
                if text.len() > *max {
                    return Err(format!("it has {} bytes", text.len()));
                }
                *field(builder) = text.to_owned();
            }
            Self::Name(field) => *field(builder) = Some(not_empty(raw)?.to_owned()),
            Self::Secret(field) => *field(builder) = Some(Secret::new(not_empty(raw)?)),
            Self::Names(field) => {
                *field(builder) = non_empty_list(list_of(raw, |raw| not_empty(raw).map(str::to_owned))?)?;
            }
            Self::NamesOrNone(field) => {
                *field(builder) = list_of(raw, |raw| not_empty(raw).map(str::to_owned))?;
            }
            Self::Hosts(field) => *field(builder) = list_of(raw, host)?,
            Self::Path(field) => *field(builder) = Some(not_empty(raw)?.into()),
            Self::File(field) => *field(builder) = Some(readable_file(raw)?),
            Self::Mode(field) => *field(builder) = mode(raw)?,
            Self::Listen(field) => {
                *field(builder) = non_empty_list(list_of(raw, |raw| not_empty(raw)?.parse())?)?;
            }
            Self::Address(field) => {
                let text = not_empty(raw)?;
                *field(builder) = if text == "none" {
                    None
                } else {
                    Some(parse_address(text)?)
                };
            }
            Self::Addresses(field) => *field(builder) = list_of(raw, |raw| parse_address(not_empty(raw)?))?,
            Self::Peers(field) => *field(builder) = list_of(raw, |raw| not_empty(raw)?.parse())?,
            Self::Outputs(field) => *field(builder) = outputs(raw)?,
            Self::Urls(field) => *field(builder) = non_empty_list(list_of(raw, url)?)?,
            Self::Index(field) => *field(builder) = index(not_empty(raw)?)?,
            Self::DataStream(field) => *field(builder) = Some(data_stream(not_empty(raw)?)?),
            Self::SecretFile(field) => *field(builder) = Some(Secret::from_file(not_empty(raw)?.as_ref())?),
            Self::UsersFile(field) => {
                let passwords = passwords_from_file(not_empty(raw)?.as_ref())?;
                let users = passwords
                    .into_iter()
                    .map(|(name, password)| User { name, password });
                *field(builder) = users.collect();
            }
            Self::Users(field) => *field(builder) = users(raw)?,
            Self::Networks(field) => *field(builder) = list_of(raw, network)?,
            Self::Conditions(field) => *field(builder) = list_of(raw, complete)?,
            Self::Copies(field) => *field(builder) = list_of(raw, copy)?,
            Self::Routes(field) => *field(builder) = list_of(raw, route)?,
            Self::Merge(field) => *field(builder) = merge_rules(raw)?,
            Self::Schema(field) => *field(builder) = schema(raw)?,
            Self::ParseJson(field) => {
                *field(builder) = match text(raw)? {
                    "auto" => ParseJson::Auto,
                    "always" => ParseJson::Always,
                    "never" => ParseJson::Never,
                    _ => return Err("unknown value".into()),
                }
            }
            Self::OnConflict(field) => {
                *field(builder) = match text(raw)? {
                    "unmapped" => OnConflict::Unmapped,
                    "dead_letter" => OnConflict::DeadLetter,
                    _ => return Err("unknown action".into()),
                }
            }
            Self::Format(field) => {
                *field(builder) = match text(raw)? {
                    "auto" => LogFormat::Auto,
                    "text" => LogFormat::Text,
                    "json" => LogFormat::Json,
                    _ => return Err("unknown format".into()),
                }
            }
            Self::Filter(field) => {
                let text = not_empty(raw)?;
                // tracing-subscriber 0.3.23 panics on filters that are not ASCII.
                if !text.is_ascii() {
                    return Err("not a filter (targets and levels are ASCII)".into());
                }
                EnvFilter::try_new(text).map_err(|error| format!("not a filter ({error})"))?;
                *field(builder) = text.to_owned();
            }
        }
        Ok(())
    }
}

impl UntypedValue {
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
            Self::Table(table) if table.is_empty() => "{}".into(),
            Self::Table(table) => {
                let pairs: Vec<_> = table
                    .iter()
                    .map(|(key, value)| format!("{} = {}", toml_key(key), value.to_toml()))
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

/// A key as TOML writes it.
fn toml_key(key: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if !key.is_empty() && key.chars().all(is_bare) {
        key.to_owned()
    } else {
        toml::Value::String(key.to_owned()).to_string()
    }
}
