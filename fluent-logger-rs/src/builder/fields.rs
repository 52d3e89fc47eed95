//! Static fields, naming and the environment variables of the builder.
//!
//! Owns the order: a setter that is called later replaces an earlier one, so that an application
//! that begins with [`Builder::from_env`] decides itself what the environment may not.

use std::time::SystemTime;

use serde::Serialize;

use super::Builder;
use super::check::{Mistakes, hostname};
use crate::error::{BuildError, Rejected};
use crate::naming::{Names, Naming};
use crate::record::{self, EntryFormat};
use crate::static_fields::StaticFields;

/// Key of a static field; some depend on the naming.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum StaticKey {
    Service,
    Version,
    Environment,
    Host,
    Other(String),
}

impl StaticKey {
    fn name<'a>(&'a self, names: &'static Names) -> &'a str {
        match self {
            Self::Service => names.service,
            Self::Version => names.version,
            Self::Environment => names.environment,
            Self::Host => names.host,
            Self::Other(key) => key,
        }
    }
}

impl Builder {
    /// A builder with the options of the environment:
    ///
    /// | variable | setter |
    /// |---|---|
    /// | `FLUENT_LOGGER_ADDRESS` | [`address`](Self::address), several separated by commas |
    /// | `FLUENT_LOGGER_TAG_PREFIX` | [`tag_prefix`](Self::tag_prefix) |
    /// | `FLUENT_LOGGER_SHARED_KEY` | [`shared_key`](Self::shared_key) |
    /// | `FLUENT_LOGGER_SERVICE_NAME` | [`service_name`](Self::service_name) |
    /// | `FLUENT_LOGGER_SERVICE_VERSION` | [`service_version`](Self::service_version) |
    /// | `FLUENT_LOGGER_ENVIRONMENT` | [`environment`](Self::environment) |
    /// | `FLUENT_LOGGER_HOST` | [`host`](Self::host) |
    /// | `FLUENT_LOGGER_FIELDS` | [`field`](Self::field): `region=eu,team=shop`, values are text |
    /// | `FLUENT_LOGGER_NAMING` | [`naming`](Self::naming): `plain`, `ecs` or `otel` |
    ///
    /// A variable that is not set or empty changes nothing. [`build`](Self::build) reports values
    /// that are wrong.
    ///
    /// ```
    /// let builder = fluent_logger::Builder::from_env().tag_prefix("shop");
    /// ```
    pub fn from_env() -> Self {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Self {
        let get =
            |name: &str| variable(&format!("FLUENT_LOGGER_{name}")).filter(|value| !value.trim().is_empty());
        let mut builder = Self::default();
        for address in get("ADDRESS").iter().flat_map(|list| list.split(',')) {
            builder = builder.address(address.trim());
        }
        if let Some(prefix) = get("TAG_PREFIX") {
            builder = builder.tag_prefix(prefix);
        }
        if let Some(key) = get("SHARED_KEY") {
            builder = builder.shared_key(key);
        }
        if let Some(name) = get("SERVICE_NAME") {
            builder = builder.service_name(name);
        }
        if let Some(version) = get("SERVICE_VERSION") {
            builder = builder.service_version(version);
        }
        if let Some(environment) = get("ENVIRONMENT") {
            builder = builder.environment(environment);
        }
        if let Some(host) = get("HOST") {
            builder = builder.host(host);
        }
        for pair in get("FIELDS").iter().flat_map(|list| list.split(',')) {
            match pair.split_once('=') {
                Some((key, value)) if !key.trim().is_empty() => {
                    builder = builder.field(key.trim(), value.trim());
                }
                _ => builder.note_early("FLUENT_LOGGER_FIELDS", pair),
            }
        }
        match get("NAMING").as_deref() {
            None => {}
            Some("plain") => builder = builder.naming(Naming::Plain),
            Some("ecs") => builder = builder.naming(Naming::Ecs),
            Some("otel") => builder = builder.naming(Naming::OTel),
            Some(other) => builder.note_early("FLUENT_LOGGER_NAMING", other),
        }
        builder
    }

    fn note_early(&mut self, option: &str, value: &str) {
        self.early_mistakes.push((option.to_owned(), value.to_owned()));
    }

    /// Name of the service, added to every record: `service`, with ECS and OTel naming
    /// `service.name`.
    ///
    /// ```
    /// # fn main() -> Result<(), fluent_logger::BuildError> {
    /// let logger = fluent_logger::Logger::builder()
    ///     .service_name("checkout")
    ///     .service_version(env!("CARGO_PKG_VERSION"))
    ///     .environment("production")
    ///     .this_host()
    ///     .field("region", "eu")
    ///     .build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn service_name(self, name: impl AsRef<str>) -> Self {
        self.set_static(StaticKey::Service, name.as_ref())
    }

    /// Version of the service, added to every record: `version`, with ECS and OTel naming
    /// `service.version`.
    ///
    /// ```
    /// let builder = fluent_logger::Logger::builder().service_version(env!("CARGO_PKG_VERSION"));
    /// ```
    pub fn service_version(self, version: impl AsRef<str>) -> Self {
        self.set_static(StaticKey::Version, version.as_ref())
    }

    /// Deployment environment, added to every record: `environment`, with ECS naming
    /// `service.environment`, with OTel naming `deployment.environment.name`.
    ///
    /// ```
    /// let builder = fluent_logger::Logger::builder().environment("production");
    /// ```
    pub fn environment(self, environment: impl AsRef<str>) -> Self {
        self.set_static(StaticKey::Environment, environment.as_ref())
    }

    /// Name of the host, added to every record: `host`, with ECS and OTel naming `host.name`.
    ///
    /// ```
    /// let builder = fluent_logger::Logger::builder().host("shop-1");
    /// ```
    pub fn host(self, name: impl AsRef<str>) -> Self {
        self.set_static(StaticKey::Host, name.as_ref())
    }

    /// [`host`](Self::host) with the name of this machine.
    ///
    /// ```
    /// let builder = fluent_logger::Logger::builder().this_host();
    /// ```
    pub fn this_host(self) -> Self {
        self.host(hostname())
    }

    /// A field that is added to every record that has no field of this name. The value is anything
    /// that serde can serialise.
    ///
    /// ```
    /// let builder = fluent_logger::Logger::builder().field("region", "eu").field("shard", &3);
    /// ```
    pub fn field<T: Serialize + ?Sized>(self, key: impl Into<String>, value: &T) -> Self {
        self.set_static(StaticKey::Other(key.into()), value)
    }

    fn set_static<T: Serialize + ?Sized>(mut self, key: StaticKey, value: &T) -> Self {
        match encode(value) {
            Ok(value) => {
                self.static_fields.retain(|(known, _)| *known != key);
                self.static_fields.push((key, value));
            }
            Err(error) => self.note_early("field", &format!("{key:?}: {error}")),
        }
        self
    }

    /// How the fields that the logger itself writes are named: static fields, and those of the
    /// `log`, `tracing` and `tower` adapters. Default: [`Naming::Plain`].
    ///
    /// ```
    /// let builder = fluent_logger::Logger::builder().naming(fluent_logger::Naming::Ecs);
    /// ```
    pub fn naming(mut self, naming: Naming) -> Self {
        self.naming = naming;
        self
    }

    /// Whether the records of the `log` and `tracing` adapters have their level as a number, too:
    /// `severity`, with OTel naming `severity_number` (both TRACE 1, DEBUG 5, INFO 9, WARN 13,
    /// ERROR 17), with ECS naming `log.syslog.severity.code` (7, 7, 6, 4, 3). Default: `false`.
    ///
    /// ```
    /// let builder = fluent_logger::Logger::builder().numeric_severity(true);
    /// ```
    pub fn numeric_severity(mut self, numeric: bool) -> Self {
        self.numeric_severity = numeric;
        self
    }

    pub(super) fn check_static_fields(&self, mistakes: &mut Mistakes) -> StaticFields {
        for (option, value) in &self.early_mistakes {
            mistakes.add(BuildError::BadField {
                option: option.clone(),
                value: value.clone(),
            });
        }
        let names = self.naming.names();
        let mut fields = StaticFields::default();
        for (key, value) in &self.static_fields {
            fields.set(key.name(names), value);
        }
        fields
    }
}

/// The value in MessagePack, encoded as the only value of a record.
fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, Rejected> {
    /// `[0` and the header of a map of one pair with the key `v`, before the value.
    const HEADER_BYTES: usize = 5;
    let format = EntryFormat {
        sub_second: false,
        limit: usize::MAX,
        static_fields: StaticFields::default(),
    };
    let record = std::collections::BTreeMap::from([("v", value)]);
    record::with_entry(SystemTime::UNIX_EPOCH, &format, &record, |entry| {
        Ok(entry.get(HEADER_BYTES..).unwrap_or_default().to_vec())
    })
}

#[cfg(test)]
mod tests;
