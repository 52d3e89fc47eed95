//! Loads the configuration: defaults, file, environment, flags, each overriding the previous one.
//!
//! Parses every layer completely, also values that a later layer overrides, so that one run reports
//! all errors.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::path::PathBuf;

use super::Config;
use super::builder::{self, ConfigBuilder};
use super::environment::Environment;
use super::error::{ConfigError, ConfigErrors, ValueSource};
use super::file;
use super::keys::{KEYS, Key};
use super::kind::{Kind, UntypedValue};
use super::redact::hide_password;
use super::suggestion::did_you_mean;

/// Values of flags, by the path of their key. A repeated flag has several.
pub type Flags = HashMap<&'static str, Vec<String>>;

/// The sources of the configuration.
pub struct Sources<'a> {
    /// The file; `None`: that of `WINDROW_CONFIG`, else `windrow.toml` in the working folder if it
    /// exists.
    pub file: Option<PathBuf>,
    /// The flags of the command line.
    pub flags: Flags,
    /// The environment.
    pub env: &'a dyn Environment,
}

impl fmt::Debug for Sources<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources")
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

/// Result of [`load`].
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// The file that was read.
    pub file: Option<PathBuf>,
    /// Warnings, to be logged.
    pub warnings: Vec<String>,
    /// Every key with its value and the source of it, in the order of the documentation.
    pub settings: Vec<Setting>,
}

impl Loaded {
    /// Keys whose value differs from `old`, whatever its source; for a reload.
    #[must_use]
    pub fn changed_since(&self, old: &Self) -> Vec<&'static str> {
        let pairs = self.settings.iter().zip(&old.settings);
        pairs
            .filter(|(new, old)| new.raw != old.raw)
            .map(|(new, _)| new.key)
            .collect()
    }
}

/// A key with its effective value.
#[derive(Clone, PartialEq)]
pub struct Setting {
    /// Path in the file.
    pub key: &'static str,
    /// The value as TOML; hidden for a secret; `None` if it is not set.
    pub value: Option<String>,
    /// The source of the value.
    pub source: ValueSource,
    /// The value itself, secrets too.
    raw: Option<UntypedValue>,
}

impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} = {} ({})",
            self.key,
            self.value.as_deref().unwrap_or("(not set)"),
            self.source
        )
    }
}

/// File in the working folder that is read if no other one is named.
pub(super) const DEFAULT_FILE: &str = "windrow.toml";
/// Environment variable that names the file.
pub(super) const FILE_VARIABLE: &str = "WINDROW_CONFIG";

/// Environment variable of the folder with systemd's credentials.
const CREDENTIALS_VARIABLE: &str = "CREDENTIALS_DIRECTORY";

/// Variables with Windrow's prefix that belong to other programs of this project.
const OTHER_VARIABLES: [&str; 1] = ["WINDROW_ADDR"];

/// Loads the configuration from all layers.
///
/// # Errors
/// Every error of every layer.
pub fn load(sources: Sources<'_>) -> Result<Loaded, ConfigErrors> {
    let mut loader = Loader {
        builder: ConfigBuilder::empty(),
        settings: KEYS
            .iter()
            .map(|key| Setting {
                key: key.path,
                value: None,
                source: ValueSource::Default,
                raw: None,
            })
            .collect(),
        errors: Vec::new(),
        warnings: Vec::new(),
    };
    for key in KEYS {
        if let Some(raw) = key.default.raw() {
            loader.apply(key, &raw, ValueSource::Default);
        }
    }
    let file = loader.file(sources.file, sources.env);
    loader.environment(sources.env);
    loader.flags(&sources.flags, sources.env);
    loader.credentials(sources.env);
    loader.check_secret_files();
    loader.check_targets();

    let Loader {
        builder,
        settings,
        mut errors,
        mut warnings,
    } = loader;
    let (config, mut validation) = builder.build();
    errors.append(&mut validation.errors);
    if !errors.is_empty() {
        return Err(ConfigErrors(errors));
    }
    warnings.append(&mut validation.warnings);
    let by_hand: Vec<_> = settings
        .iter()
        .filter(|s| s.source != ValueSource::Default)
        .map(|s| s.key)
        .collect();
    builder::warn_unused(&config, &by_hand, &mut warnings);
    Ok(Loaded {
        config,
        file,
        warnings,
        settings,
    })
}

struct Loader {
    builder: ConfigBuilder,
    settings: Vec<Setting>,
    errors: Vec<ConfigError>,
    warnings: Vec<String>,
}

impl Loader {
    fn file(&mut self, asked: Option<PathBuf>, env: &dyn Environment) -> Option<PathBuf> {
        let variable = || {
            env.get(FILE_VARIABLE)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let (path, must) = match asked.or_else(variable) {
            Some(path) => (path, true),
            None => (PathBuf::from(DEFAULT_FILE), false),
        };
        let text = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if !must && error.kind() == std::io::ErrorKind::NotFound => return None,
            Err(error) => {
                self.whole_file(format!("{}: cannot be read ({error})", path.display()));
                return None;
            }
        };
        let Ok(text) = String::from_utf8(text) else {
            self.whole_file(format!("{}: not UTF-8 text", path.display()));
            return None;
        };
        let (entries, mut errors) = file::read(&path, &text, env);
        self.errors.append(&mut errors);
        for entry in entries {
            self.apply(
                entry.key,
                &entry.raw,
                ValueSource::File {
                    path: path.clone(),
                    line: entry.line,
                },
            );
        }
        // In the order of the file; unknown keys, invalid values and syntax errors are found in
        // different steps.
        self.errors.sort_by_key(|error| match &error.source {
            Some(ValueSource::File { line, .. }) => *line,
            _ => 0,
        });
        Some(path)
    }

    fn whole_file(&mut self, what: String) {
        self.errors.push(ConfigError {
            source: None,
            key: String::new(),
            value: None,
            what,
            allowed: None,
        });
    }

    fn environment(&mut self, env: &dyn Environment) {
        let mut known: BTreeSet<String> = OTHER_VARIABLES.iter().map(|name| (*name).to_owned()).collect();
        known.insert(FILE_VARIABLE.into());
        for key in KEYS {
            let own = key.environment();
            let names = std::iter::once(own.as_str()).chain(key.aliases.iter().copied());
            // An empty variable counts as unset: compose files set variables that the user left
            // out.
            let found = names
                .filter_map(|name| Some((name, env.get(name).filter(|value| !value.is_empty())?)))
                .next();
            if let Some((name, value)) = found {
                self.text(key, &[value], ValueSource::Environment(name.to_owned()), env);
            }
            known.insert(own);
        }
        let mut unknown: Vec<_> = env
            .names()
            .into_iter()
            .filter(|name| name.starts_with("WINDROW_") && !known.contains(name))
            .collect();
        unknown.sort();
        for name in unknown {
            let hint = did_you_mean(&name, known.iter().map(String::as_str));
            self.warnings
                .push(format!("environment {name}: unknown{hint}; it is ignored"));
        }
    }

    fn flags(&mut self, flags: &Flags, env: &dyn Environment) {
        for key in KEYS {
            if let (Some(flag), Some(values)) = (key.flag, flags.get(key.path)) {
                let has_secret = match key.kind {
                    Kind::Urls(_) => values.iter().any(|url| url.contains('@')),
                    _ => key.kind.is_secret(),
                };
                if has_secret {
                    self.warnings.push(format!(
                        "--{flag}: every user of this machine can see a secret on the command line (ps); use a file{}",
                        key.file_key().map_or_else(String::new, |file| format!(" ({})", file.path))
                    ));
                }
                self.text(key, values, ValueSource::Flag(format!("--{flag}")), env);
            }
        }
    }

    /// Secrets that systemd has loaded (`LoadCredential=admin.token:/path`), by the path of their
    /// key, where nothing else sets it.
    fn credentials(&mut self, env: &dyn Environment) {
        let Some(dir) = env.get(CREDENTIALS_VARIABLE).filter(|dir| !dir.is_empty()) else {
            return;
        };
        for (key, file_key) in KEYS.iter().filter_map(|key| Some((key, key.file_key()?))) {
            let path = PathBuf::from(&dir).join(key.path);
            if !self.is_set(key) && !self.is_set(file_key) && !matches!(path.try_exists(), Ok(false)) {
                let raw = UntypedValue::Text(path.to_string_lossy().into_owned());
                self.apply(
                    file_key,
                    &raw,
                    ValueSource::Environment(CREDENTIALS_VARIABLE.to_owned()),
                );
            }
        }
    }

    /// A later layer overrides an earlier one; within one layer it is unclear which one is meant.
    fn check_secret_files(&mut self) {
        for (key, file_key) in KEYS.iter().filter_map(|key| Some((key, key.file_key()?))) {
            let layer = |key: &Key| {
                let setting = self.settings.iter().find(|setting| setting.key == key.path);
                setting.map(|setting| std::mem::discriminant(&setting.source))
            };
            if self.is_set(key) && self.is_set(file_key) && layer(key) == layer(file_key) {
                self.errors.push(ConfigError {
                    source: None,
                    key: file_key.path.into(),
                    value: None,
                    what: format!("only one of it and {} can be set", key.path),
                    allowed: None,
                });
            }
        }
    }

    /// Of the keys that name the target of documents, that of the later layer counts.
    fn check_targets(&mut self) {
        let layer = |path: &str| {
            let setting = self.settings.iter().find(|setting| setting.key == path);
            setting.map_or(0, |setting| match setting.source {
                ValueSource::Default => 0,
                ValueSource::File { .. } => 1,
                ValueSource::Environment(_) => 2,
                ValueSource::Flag(_) => 3,
            })
        };
        let (index, data_stream) = (layer("elasticsearch.index"), layer("elasticsearch.data_stream"));
        if data_stream > 0 && index == data_stream {
            self.errors.push(ConfigError {
                source: None,
                key: "elasticsearch.data_stream".into(),
                value: None,
                what: "only one of it and elasticsearch.index can be set".into(),
                allowed: None,
            });
        }
        if index > data_stream {
            self.builder.data_stream = None;
        }
    }

    fn is_set(&self, key: &Key) -> bool {
        let mut settings = self.settings.iter();
        settings.any(|setting| setting.key == key.path && setting.source != ValueSource::Default)
    }

    /// A value of a flag or an environment variable.
    fn text(&mut self, key: &'static Key, values: &[String], source: ValueSource, env: &dyn Environment) {
        match from_text(&key.kind, values, &source, env) {
            Ok(raw) => self.apply(key, &raw, source),
            Err(what) => self.error(key, Some(&UntypedValue::Text(values.join(","))), source, what),
        }
    }

    fn apply(&mut self, key: &'static Key, raw: &UntypedValue, source: ValueSource) {
        match key.kind.apply(raw, &mut self.builder) {
            Ok(()) => {
                if let Some(setting) = self.settings.iter_mut().find(|setting| setting.key == key.path) {
                    setting.value = Some(shown(key, raw));
                    setting.source = source;
                    setting.raw = Some(raw.clone());
                }
            }
            Err(what) => self.error(key, Some(raw), source, what),
        }
    }

    fn error(&mut self, key: &Key, raw: Option<&UntypedValue>, source: ValueSource, what: String) {
        self.errors.push(ConfigError {
            source: Some(source),
            key: key.path.into(),
            value: raw.map(|raw| shown(key, raw)),
            what,
            allowed: Some(key.kind.allowed()),
        });
    }
}

/// Converts the text of a flag or a variable to the form that a file would have.
fn from_text(
    kind: &Kind,
    values: &[String],
    source: &ValueSource,
    env: &dyn Environment,
) -> Result<UntypedValue, String> {
    if !kind.is_list() {
        return Ok(UntypedValue::Text(values.last().cloned().unwrap_or_default()));
    }
    let mut list = Vec::new();
    for value in values {
        // `[::1]:24224` begins like a TOML array, but does not end like one.
        let array = value.trim_start().starts_with('[') && value.trim_end().ends_with(']');
        if array || kind.is_toml() {
            match file::value(value, env)? {
                UntypedValue::List(more) => list.extend(more),
                one => list.push(one),
            }
        } else if kind.splits_at_commas() || matches!(source, ValueSource::Environment(_)) {
            list.extend(
                value
                    .split(',')
                    .map(str::trim)
                    .filter(|s| !s.is_empty())
                    .map(|s| UntypedValue::Text(s.into())),
            );
        } else {
            list.push(UntypedValue::Text(value.clone()));
        }
    }
    Ok(UntypedValue::List(list))
}

fn shown(key: &Key, raw: &UntypedValue) -> String {
    if key.kind.is_secret() {
        return "(hidden)".into();
    }
    match key.kind {
        Kind::Urls(_) => hide_in_urls(raw).to_toml(),
        _ => raw.to_toml(),
    }
}

fn hide_in_urls(raw: &UntypedValue) -> UntypedValue {
    match raw {
        UntypedValue::Text(text) => UntypedValue::Text(hide_password(text)),
        UntypedValue::List(list) => UntypedValue::List(list.iter().map(hide_in_urls).collect()),
        // No address; it is reported, and what it holds is not known.
        UntypedValue::Table(_) => UntypedValue::Other("a table"),
        other => other.clone(),
    }
}
