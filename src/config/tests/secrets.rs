//! Tests of secrets: hidden everywhere, read from files, and warned about.

use super::*;

#[test]
fn a_password_in_an_address_without_a_scheme_is_hidden_in_errors() {
    for url in [
        "elastic:hush@es:9200",
        "http://elastic:hush/x@es:port",
        "ftp://elastic:hush@es",
        "http://elastic:hush",
    ] {
        let text = format!("[elasticsearch]\nurl = \"{url}\"");
        let error = load_from(&text, &[], &[]).unwrap_err().to_string();
        assert!(error.contains("(hidden)") && !error.contains("hush"), "{error}");
        let error = load_from("", &[], &[("elasticsearch.url", url)]).unwrap_err();
        assert!(!error.to_string().contains("hush"), "{error}");
    }
}

#[test]
fn every_secret_can_be_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let text = format!(
        "output = \"elasticsearch\"\n[forward]\nshared_key_file = {:?}\nusers_file = {:?}\n\
         [[forward.networks]]\ncidr = \"10.0.0.0/8\"\nshared_key_file = {:?}\n\
         [elasticsearch]\nusername = \"u\"\npassword_file = {:?}\n[admin]\ntoken_file = {:?}\n",
        file("key", "hush-key\n"),
        file("users", "ann:hush-user\n"),
        file("network", "hush-network"),
        file("password", "hush-password\n"),
        file("token", "hush-token\n"),
    );
    let loaded = load_from(&text, &[], &[]).unwrap();
    assert!(!format!("{loaded:?}").contains("hush"), "{loaded:?}");
    let config = loaded.config;
    let mut secrets: Vec<_> = config
        .secrets_from_files()
        .iter()
        .map(|s| s.expose().to_string())
        .collect();
    secrets.sort();
    assert_eq!(
        secrets,
        [
            "hush-key",
            "hush-network",
            "hush-password",
            "hush-token",
            "hush-user"
        ]
    );
    for key in KEYS
        .iter()
        .filter(|key| key.kind.is_secret() && key.path != "forward.networks")
    {
        assert!(key.file_key().is_some(), "{} has no _file", key.path);
    }
    // A later layer overrides an earlier one; within one layer only one may be set.
    let token = loaded_token(&text, &[("WINDROW_ADMIN_TOKEN", "other")]);
    assert_eq!(token, "other");
    let both = format!("{text}token = \"x\"\n");
    let error = load_from(&both, &[], &[]).unwrap_err().to_string();
    assert!(error.contains("only one of it and admin.token"), "{error}");
    let error = load_from("[admin]\ntoken_file = \"/nowhere/token\"", &[], &[]).unwrap_err();
    assert!(error.to_string().contains("cannot be opened"), "{error}");
}

fn loaded_token(text: &str, vars: &[(&str, &str)]) -> String {
    let config = load_from(text, vars, &[]).unwrap().config;
    config.admin.token.unwrap().expose().to_string()
}

#[test]
fn credentials_of_systemd_are_used_where_nothing_else_is_set() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("admin.token"), "from-systemd\n").unwrap();
    let variable = [("CREDENTIALS_DIRECTORY", folder.path().to_str().unwrap())];
    assert_eq!(loaded_token("", &variable), "from-systemd");
    assert_eq!(loaded_token("[admin]\ntoken = \"x\"", &variable), "x");
}

#[test]
fn a_public_admin_address_without_a_token_is_warned_about() {
    let warned = |text: &str| {
        let warnings = load_from(text, &[], &[]).unwrap().warnings;
        warnings
            .iter()
            .any(|warning| warning.contains("admin.token_file"))
    };
    assert!(warned("[admin]\nlisten = \"0.0.0.0:2020\""));
    assert!(!warned("[admin]\nlisten = \"0.0.0.0:2020\"\ntoken = \"x\""));
    assert!(!warned("[admin]\nlisten = \"127.0.0.1:2020\""));
    assert!(!warned("[admin]\nlisten = \"none\""));
}

#[test]
fn a_secret_in_a_flag_is_warned_about() {
    for (key, value) in [("admin.token", "hush"), ("elasticsearch.url", "http://u:hush@es")] {
        let warnings = load_from("", &[], &[(key, value)]).unwrap().warnings;
        let found = warnings.iter().find(|warning| warning.contains("(ps)"));
        assert!(
            found.is_some_and(|warning| !warning.contains("hush")),
            "{warnings:?}"
        );
    }
}
