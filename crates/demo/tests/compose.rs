//! Check of docker-compose.yml, the Dockerfile and .env.example, without Docker. The compose
//! specification is checked with its reference implementation, the library behind `docker compose
//! config`.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::{collections::BTreeSet, fs, path::Path, path::PathBuf, process::Command};

use serde_json::Value;
use windrow_testkit::{
    env::{self, Missing},
    need,
};

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(name)).unwrap()
}

/// The file with its anchors merged.
fn compose() -> Value {
    let document: Value = serde_yaml_ng::from_str(&read("docker-compose.yml")).unwrap();
    merged(document)
}

/// Takes up `<<`, also where what is taken up has one itself.
fn merged(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut map: serde_json::Map<String, Value> =
                map.into_iter().map(|(key, value)| (key, merged(value))).collect();
            if let Some(Value::Object(base)) = map.shift_remove("<<") {
                for (key, value) in base {
                    map.entry(key).or_insert(value);
                }
            }
            Value::Object(map)
        }
        Value::Array(items) => items.into_iter().map(merged).collect(),
        other => other,
    }
}

fn services(compose: &Value) -> impl Iterator<Item = (&String, &Value)> {
    compose["services"].as_object().unwrap().iter()
}

#[test]
fn every_service_is_bounded_checked_and_stops_in_its_time() {
    for (name, service) in services(&compose()) {
        let check = &service["healthcheck"];
        let one_shot = service["restart"] == "no";
        assert!(
            check["test"].is_array() || (one_shot && check["disable"] == true),
            "{name}: {check}"
        );
        assert!(service["stop_grace_period"].is_string(), "{name}");
        assert!(
            service["deploy"]["resources"]["limits"]["memory"].is_string(),
            "{name}"
        );
        assert!(one_shot || service["restart"] == "unless-stopped", "{name}");
    }
}

#[test]
fn images_have_fixed_versions() {
    let dockerfile = read("Dockerfile");
    for line in dockerfile.lines().filter(|line| line.starts_with("FROM ")) {
        let image = line.split_whitespace().nth(1).unwrap();
        assert!(image == "base" || image.contains(":${"), "{line}");
    }
    assert!(!dockerfile.contains(":latest"));
    for (name, service) in services(&compose()) {
        let image = service["image"].as_str().unwrap();
        let (_, default) = image
            .split_once(":-")
            .unwrap_or_else(|| panic!("{name}: {image} has no default version"));
        assert!(
            default.starts_with(|first: char| first.is_ascii_digit()),
            "{name}: {image}"
        );
    }
}

#[test]
fn what_is_referred_to_is_there() {
    let compose = compose();
    let dockerfile = read("Dockerfile");
    let known: BTreeSet<&String> = compose["services"].as_object().unwrap().keys().collect();
    let volumes: BTreeSet<&String> = compose["volumes"].as_object().unwrap().keys().collect();
    let mut used = BTreeSet::new();
    for (name, service) in services(&compose) {
        for (needed, how) in service["depends_on"].as_object().into_iter().flatten() {
            assert!(known.contains(needed), "{name} needs {needed}");
            assert_eq!(how["condition"], "service_healthy", "{name} needs {needed}");
            let profiles = &compose["services"][needed]["profiles"];
            assert!(
                profiles.is_null() || *profiles == service["profiles"],
                "{name} needs {needed} of another profile"
            );
        }
        for volume in service["volumes"].as_array().into_iter().flatten() {
            let volume = volume.as_str().unwrap().split(':').next().unwrap().to_owned();
            assert!(volumes.contains(&volume), "{name}: {volume}");
            used.insert(volume);
        }
        if let Some(target) = service["build"]["target"].as_str() {
            assert!(
                dockerfile.contains(&format!(" AS {target}\n")),
                "{name}: {target}"
            );
        }
    }
    assert_eq!(used.iter().collect::<BTreeSet<_>>(), volumes);
}

/// Every variable of the compose file has a default and stands in .env.example with the same value.
#[test]
fn the_example_settings_are_the_defaults() {
    let compose = read("docker-compose.yml");
    let example: BTreeSet<(String, String)> = read(".env.example")
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| line.split_once('=').unwrap())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let mut found = BTreeSet::new();
    for piece in compose.split("${").skip(1) {
        let (name, default) = piece
            .split('}')
            .next()
            .unwrap()
            .split_once(":-")
            .expect("a default");
        found.insert((name.to_owned(), default.to_owned()));
    }
    assert_eq!(found, example);
}

/// The commands and variables that the file gives to `demo` are those that it knows.
#[test]
fn the_demo_understands_its_commands() {
    for (name, service) in services(&compose()) {
        let image = service["image"].as_str().unwrap();
        let Some(command) = service["command"]
            .as_array()
            .filter(|_| image.starts_with("windrow-demo"))
        else {
            continue;
        };
        let mut arguments: Vec<&str> = command.iter().map(|word| word.as_str().unwrap()).collect();
        arguments.push("--help");
        let help = Command::new(env!("CARGO_BIN_EXE_demo"))
            .args(&arguments)
            .output()
            .unwrap();
        // The help is wrapped.
        let text = String::from_utf8(help.stdout).unwrap();
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(
            help.status.success(),
            "{name}: {arguments:?}: {}",
            String::from_utf8_lossy(&help.stderr)
        );
        for variable in service["environment"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(variable, _)| variable)
        {
            assert!(
                text.contains(&format!("[env: {variable}=")),
                "{name}: {variable} is no variable of {arguments:?}"
            );
        }
    }
}

const COMPOSE: &str = "v2.16.2";

/// `compose-spec`: reads a file as Docker does, with its variables and by the schema. Built once.
fn compose_spec() -> Result<PathBuf, Missing> {
    let go = env::program("go")?;
    let folder = env::cache(&format!("compose-spec-{COMPOSE}"));
    let binary = folder.join("compose-spec");
    env::once(&folder, || {
        env::write_same(&folder.join("go.mod"), "module check\n\ngo 1.24\n");
        let command = "github.com/compose-spec/compose-go/v2/cmd";
        let module = format!("{command}@{COMPOSE}");
        env::run(Command::new(&go).args(["get", &module]).current_dir(&folder))?;
        let arguments = ["build", "-o", "compose-spec", command];
        env::run(Command::new(&go).args(arguments).current_dir(&folder))?;
        Ok(())
    })?;
    Ok(binary)
}

#[test]
fn the_reference_implementation_of_compose_accepts_the_file() {
    let program = need!(compose_spec());
    let folder = tempfile::tempdir().unwrap();
    let run = |text: &str| {
        fs::write(folder.path().join("docker-compose.yml"), text).unwrap();
        let mut command = Command::new(&program);
        command
            .args(["--format", "json", "docker-compose.yml"])
            .current_dir(folder.path());
        env::run(&mut command)
    };
    let text = read("docker-compose.yml");
    let model = run(&text).unwrap_or_else(|error| panic!("{error}"));
    let model: Value = serde_json::from_str(&model).unwrap();
    let names = |compose: &Value| -> BTreeSet<String> {
        compose["services"].as_object().unwrap().keys().cloned().collect()
    };
    assert_eq!(names(&model), names(&compose()));
    // Variables have taken their defaults, and both Windrows have the name of one.
    assert_eq!(model["services"]["client"]["environment"]["CLIENT_COUNT"], "20");
    for windrow in ["windrow-1", "windrow-2"] {
        let aliases = &model["services"][windrow]["networks"]["default"]["aliases"];
        assert_eq!(aliases[0], "windrow", "{windrow}");
    }
    // That the check can fail: an unknown key, a wrong type. (What depends on what is checked
    // above.)
    for (from, to) in [
        ("stop_grace_period: 15s", "stop_grace: 15s"),
        ("retries: 5", "retries: many"),
    ] {
        assert!(text.contains(from), "{from}");
        assert!(run(&text.replace(from, to)).is_err(), "{to} was not noticed");
    }
}
