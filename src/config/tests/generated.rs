//! Tests that the generated documents equal the checked-in ones.

use std::path::PathBuf;

use super::*;

/// With `WINDROW_BLESS` set the documents are written instead of compared.
fn same_as_checked_in(name: &str, made: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name);
    if std::env::var_os("WINDROW_BLESS").is_some() {
        std::fs::write(&path, made).unwrap();
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        there == made,
        "{name} is not what the table gives; write it with WINDROW_BLESS=1 cargo test config"
    );
}

#[test]
fn the_reference_page_is_current() {
    same_as_checked_in("docs/configuration.md", &reference_markdown());
}

#[test]
fn the_reference_file_is_current_and_its_values_are_the_defaults() {
    let text = reference_toml();
    same_as_checked_in("windrow.toml", &text);
    // As it stands it sets nothing.
    let loaded = load_from(&text, &[], &[]).unwrap();
    assert!(
        loaded
            .settings
            .iter()
            .all(|setting| setting.source == ValueSource::Default)
    );
    // Each key that has a default, switched on: all of them legal, and nothing changes.
    let is_key = |line: &str| line.starts_with('#') && !line.starts_with("# ") && !line.ends_with("= \"\"");
    let on: String = text
        .lines()
        .map(|line| if is_key(line) { &line[1..] } else { line })
        .fold(String::new(), |all, line| all + line + "\n");
    let loaded = load_from(&on, &[], &[]).unwrap();
    let from_file = loaded
        .settings
        .iter()
        .filter(|s| matches!(s.source, ValueSource::File { .. }))
        .count();
    let with_default = KEYS.iter().filter(|key| {
        key.default
            .raw()
            .is_some_and(|raw| raw != UntypedValue::Text(String::new()))
    });
    assert_eq!(from_file, with_default.count());
    assert_eq!(format!("{:?}", loaded.config), format!("{:?}", Config::default()));
    for key in KEYS {
        let name = key.path.rsplit('.').next().unwrap();
        assert!(
            text.lines().any(|line| line.starts_with(&format!("#{name} = "))),
            "no {}",
            key.path
        );
    }
}

#[test]
fn the_page_about_records_lists_every_default_name() {
    let page = include_str!("../../../docs/records.md").replace("\\|", "|");
    let names = windrow_trace::KEY_NAMES
        .iter()
        .chain(&windrow_trace::TEXT_NAMES)
        .chain(&windrow_trace::LEVEL_NAMES)
        .chain(&windrow_trace::SERVICE_NAMES)
        .chain(&windrow_trace::IGNORED_IDS);
    let missing: Vec<_> = names
        .filter(|name| !page.contains(&format!("`{name}`")))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}
