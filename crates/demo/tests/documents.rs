//! Documentation check: messages, flags, settings, metrics and files that README.md, docs/ and
//! deploy/ name must exist.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// All files with such an end below a folder.
fn files(folder: &str, ends: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root().join(folder)];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if ends.iter().any(|end| path.to_str().unwrap().ends_with(end)) {
                found.push(path);
            }
        }
    }
    found
}

const PAGES: [&str; 5] = [
    "README.md",
    "docs/operations.md",
    "docs/from-lua-to-windrow.md",
    "fluent-bit/README.md",
    "docs/metrics.md",
];

/// The text between backticks.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Windrow's program text with string literals that go over several lines made whole.
fn sources() -> String {
    let mut all = String::new();
    for folder in [
        "src",
        "forward-protocol/src",
        "crates/windrow-journal/src",
        "crates/windrow-trace/src",
    ] {
        for file in files(folder, &[".rs"]) {
            let text = fs::read_to_string(file).unwrap();
            let mut lines = text.split("\\\n");
            all.push_str(lines.next().unwrap_or_default());
            lines.for_each(|line| all.push_str(line.trim_start()));
        }
    }
    all
}

/// Messages of the system, which no source has.
const SYSTEM: [&str; 1] = ["Address already in use"];

#[test]
fn the_messages_of_the_tables_are_those_of_the_program() {
    let sources = sources();
    let readme = read("README.md");
    let table = readme.split("## Trouble").nth(1).unwrap();
    let rows = table
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.split('|').nth(1).unwrap());
    let operations = read("docs/operations.md");
    let list = operations.split("## When something is wrong").nth(1).unwrap();
    let list = list.split("\n## ").next().unwrap();
    let bold = list
        .lines()
        .filter(|line| line.starts_with("* **`"))
        .map(|line| line.split("**: ").next().unwrap());
    let mut seen = 0;
    for message in rows
        .chain(bold)
        .flat_map(code)
        .filter(|message| message.contains(' '))
    {
        for part in message.split('…').flat_map(|part| part.split(['N', 'M'])) {
            let part = part.trim_matches([' ', ',', ':']);
            if part.len() < 4 || SYSTEM.contains(&part) {
                continue;
            }
            assert!(sources.contains(part), "nothing says {part:?} of {message:?}");
            seen += 1;
        }
    }
    assert!(seen >= 20, "only {seen} parts of messages were looked for");
}

fn flags(text: &str) -> BTreeSet<&str> {
    let begin = |character: char| !character.is_ascii_alphanumeric() && character != '-';
    text.split(begin)
        .filter(|word| word.starts_with("--") && word.len() > 3 && word.as_bytes()[2].is_ascii_lowercase())
        .collect()
}

/// Flags of other programs: cargo, docker, curl, kubectl, Fluent Bit, the conformance suite; and of
/// Windrow's commands besides `serve`.
const FOREIGN: [&str; 18] = [
    "--release",
    "--workspace",
    "--build",
    "--profile",
    "--detach",
    "--signal",
    "--target",
    "--sink",
    "--test",
    "--help",
    "--dry-run",
    "--config",
    "--ready",
    "--full",
    "--json",
    "--connect",
    "--since",
    "--url",
];

#[test]
fn every_flag_is_one() {
    let configuration = read("docs/configuration.md");
    let help = Command::new(env!("CARGO_BIN_EXE_demo"))
        .args(["showcase", "--help"])
        .output()
        .unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let mut known = flags(&configuration);
    known.extend(flags(&help));
    known.extend(FOREIGN);
    for page in PAGES {
        for flag in flags(&read(page)) {
            assert!(known.contains(flag), "{page}: {flag}");
        }
    }
}

#[test]
fn every_setting_is_one() {
    let configuration = read("docs/configuration.md");
    let sections = [
        "forward.",
        "journal.",
        "trace.",
        "elasticsearch.",
        "sqlite.",
        "dead_letter.",
        "admin.",
        "log.",
    ];
    let mut seen = 0;
    for page in PAGES {
        for text in code(&read(page)) {
            let key = text.split([' ', '=']).next().unwrap();
            let setting = sections.iter().any(|section| key.starts_with(section))
                && key
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c == '_' || c == '.');
            if setting && key != "trace.id" {
                assert!(configuration.contains(&format!("| `{key}`")), "{page}: {key}");
                seen += 1;
            }
        }
    }
    assert!(seen >= 8, "only {seen} settings were looked for");
}

#[test]
fn every_metric_is_one() {
    let known = read("docs/metrics.md");
    let deployed = files("deploy", &[".yaml", ".json"]);
    assert!(deployed.len() >= 3, "{deployed:?}");
    let pages = PAGES.iter().map(|page| root().join(page)).chain(deployed);
    let mut seen = 0;
    for page in pages {
        let text = fs::read_to_string(&page).unwrap();
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for word in words.filter(|word| word.starts_with("windrow_")) {
            let name = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|end| word.strip_suffix(end))
                .unwrap_or(word);
            // The common beginning, spoken of as such.
            if name != "windrow_" {
                let row = format!("| `{name}` |");
                assert!(known.contains(&row), "{}: {word}", page.display());
                seen += 1;
            }
        }
    }
    assert!(seen >= 40, "only {seen} metrics were looked for");
}

#[test]
fn every_link_leads_somewhere() {
    for page in PAGES {
        let text = read(page);
        let folder = root().join(page).parent().unwrap().to_owned();
        for link in text
            .split("](")
            .skip(1)
            .map(|rest| rest.split(')').next().unwrap())
        {
            let file = link.split('#').next().unwrap();
            if !file.is_empty() && !file.contains("://") {
                assert!(fs::metadata(folder.join(file)).is_ok(), "{page}: {link}");
            }
        }
    }
}

#[test]
fn the_dashboard_shows_something_in_each_panel() {
    let dashboard: serde_json::Value = serde_json::from_str(&read("deploy/grafana/windrow.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "an id is there twice");
    for panel in panels {
        let title = &panel["title"];
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{title}");
        for target in targets {
            let query = target["expr"].as_str().unwrap();
            assert!(query.contains("windrow_"), "{title}: {query}");
            let balanced = ['(', ')', '{', '}'].map(|one| query.matches(one).count());
            assert!(
                balanced[0] == balanced[1] && balanced[2] == balanced[3],
                "{title}: {query}"
            );
        }
    }
}
