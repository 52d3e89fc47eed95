//! Flags that set configuration keys, generated from the table of keys.
//!
//! Their values are text, which `config` parses together with the other layers, so that the errors
//! of all layers are reported at once.

use std::path::PathBuf;

use clap::builder::ValueParser;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use crate::config::{Flags, KEYS, Key, Kind};

/// The settings of a command line.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// `--config`.
    pub config: Option<PathBuf>,
    /// Every other flag, by the path of its key.
    pub flags: Flags,
}

impl Settings {
    /// These, with `inner` over them.
    pub(super) fn overridden_by(mut self, inner: Self) -> Self {
        self.flags.extend(inner.flags);
        Self {
            config: inner.config.or(self.config),
            flags: self.flags,
        }
    }
}

impl Args for Settings {
    fn augment_args(command: Command) -> Command {
        let config = Arg::new("config")
            .long("config")
            .short('c')
            .value_name("FILE")
            .value_parser(ValueParser::path_buf())
            .help("Configuration file [env: WINDROW_CONFIG] [default: windrow.toml if it is there]");
        KEYS.iter().filter_map(|key| Some((key, key.flag?))).fold(
            command.next_help_heading("Settings").arg(config),
            |command, (key, flag)| command.arg(arg(key, flag)),
        )
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Settings {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut settings = Self::default();
        settings.update_from_arg_matches(matches)?;
        Ok(settings)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        if let Some(path) = matches.get_one::<PathBuf>("config") {
            self.config = Some(path.clone());
        }
        for key in KEYS.iter().filter(|key| key.flag.is_some()) {
            if let Some(values) = matches.get_many::<String>(key.path) {
                self.flags.insert(key.path, values.cloned().collect());
            }
        }
        Ok(())
    }
}

fn arg(key: &'static Key, flag: &'static str) -> Arg {
    let arg = Arg::new(key.path).long(flag).value_name(key.kind.value_name());
    let arg = match key.kind {
        // `--flag` alone switches it on, `--flag=false` off.
        Kind::Bool(_) => arg
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .action(ArgAction::Set),
        _ if key.kind.is_list() => arg.action(ArgAction::Append),
        _ => arg.action(ArgAction::Set),
    };
    let default = key
        .default_toml()
        .map_or_else(String::new, |default| format!(" [default: {default}]"));
    let repeat = if key.kind.is_list() {
        " Can be repeated."
    } else {
        ""
    };
    let env = key.environment();
    let first = key.doc.split_inclusive(". ").next().unwrap_or(key.doc).trim_end();
    arg.help(format!("{first}{default} [env: {env}]"))
        .long_help(format!(
            "{}{repeat}\nAllowed: {}.{default} [env: {env}]",
            key.doc,
            key.kind.allowed()
        ))
}
