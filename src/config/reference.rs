//! Reference documentation generated from the table of keys: a page and an annotated file. Tests
//! compare both with the checked-in files.

use std::fmt::Write;

use super::keys::KEYS;

const INTRODUCTION: &str = "\
# Configuration

<!-- Generated from src/config/keys.rs and checked by a test; regenerate with
WINDROW_BLESS=1 cargo test config. -->

Every key can be set in a file (TOML) and in the environment, the common ones on the command line
too. A flag overrides the environment, the environment the file, the file the default. `windrow
check` shows each value with its source, or all errors at once.

* The file is `--config FILE`, else `WINDROW_CONFIG`, else `windrow.toml` in the working folder if
  it exists. The annotated [windrow.toml](../windrow.toml) has every key.
* `${VAR}` and `${VAR:-default}` in a string of the file are replaced from the environment; `$${`
  is a literal `${`.
* Durations: `500ms`, `30s`, `1h30m`, `7d` (`ns us ms s m h d`). Sizes: `64MiB`, `10GB` (`KiB MiB
  GiB TiB`, `kB MB GB TB`, `B`).
* A list in the environment is separated by commas or written as a TOML array. A flag with a list
  can be repeated.
* An unknown key in the file is an error, an unknown `WINDROW_` variable is a warning. An empty
  variable counts as unset.
";

/// `docs/configuration.md`.
#[must_use]
pub fn reference_markdown() -> String {
    let mut out = String::from(INTRODUCTION);
    let mut section = None;
    for key in KEYS {
        let here = key.path.rsplit_once('.').map(|(section, _)| section);
        if section != Some(here) {
            let title = here.map_or_else(|| "General".to_owned(), |name| format!("`[{name}]`"));
            push(
                &mut out,
                format_args!("\n## {title}\n\n| key | default | meaning |\n|---|---|---|\n"),
            );
            section = Some(here);
        }
        let mut names = format!("`{}`", key.path);
        if let Some(flag) = key.flag {
            push(&mut names, format_args!("<br>`--{flag}`"));
        }
        push(&mut names, format_args!("<br>`{}`", key.environment()));
        for alias in key.aliases {
            push(&mut names, format_args!("<br>`{alias}`"));
        }
        let default = match key.default_toml() {
            Some(default) => format!("`{}`", default.replace('|', "\\|")),
            None => "-".into(),
        };
        let (doc, allowed) = (cell(key.doc), cell(&key.kind.allowed()));
        push(
            &mut out,
            format_args!("| {names} | {default} | {doc} Allowed: {allowed}. |\n"),
        );
    }
    out
}

/// `windrow.toml`: every key with its default, commented out by a `#` without a space.
#[must_use]
pub fn reference_toml() -> String {
    let mut out = String::from(
        "# The reference configuration of Windrow: every key with its default.\n\
         # Remove the \"#\" before a key to set it. `windrow check --config windrow.toml` checks a file.\n\
         # Every key can also be set in the environment, the common ones by flags; both override this\n\
         # file.\n\
         # ${VAR} and ${VAR:-default} in strings are replaced from the environment.\n\
         # Generated from src/config/keys.rs and checked by a test.\n",
    );
    let mut section = None;
    for key in KEYS {
        let (here, name) = key
            .path
            .rsplit_once('.')
            .map_or((None, key.path), |(section, name)| (Some(section), name));
        if section != Some(here) {
            if let Some(here) = here {
                push(&mut out, format_args!("\n[{here}]\n"));
            }
            section = Some(here);
        }
        out.push('\n');
        wrap(&mut out, key.doc);
        wrap(&mut out, &format!("Allowed: {}.", key.kind.allowed()));
        let flag = key.flag.map_or_else(String::new, |flag| format!("--{flag}, "));
        wrap(
            &mut out,
            &format!(
                "Also: {flag}{}{}",
                key.environment(),
                key.aliases.iter().fold(String::new(), |all, a| all + ", " + a)
            ),
        );
        let value = key.default_toml().unwrap_or_else(|| "\"\"".into());
        push(&mut out, format_args!("#{name} = {value}\n"));
    }
    out
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;")
}

/// Comment lines of at most 100 characters.
fn wrap(out: &mut String, text: &str) {
    let mut line = String::from("#");
    for word in text.split(' ') {
        if line.len() + 1 + word.len() > 100 {
            push(out, format_args!("{line}\n"));
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    push(out, format_args!("{line}\n"));
}

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing into a `String` cannot fail.
    let _ = out.write_fmt(text);
}
