//! Tests of lifecycle policies: made with what the store has, never taken from somebody else.

use super::super::lifecycle::install;
use super::fake::Fake;
use super::*;
use crate::output::elasticsearch::client::Client;

const DAY: Duration = Duration::from_secs(86_400);

async fn client(fake: &Fake, index: &str) -> (Client, ElasticsearchConfig) {
    let config = ElasticsearchConfig {
        index: index.into(),
        retention: Some(30 * DAY),
        rollover_size: Some(30 << 30),
        ..quick(&fake.url)
    };
    (
        Client::open(&config, RULES, destinations(&config), Arc::default()).unwrap(),
        config,
    )
}

#[tokio::test]
async fn daily_indices_get_a_policy_that_deletes_them() {
    let fake = Fake::start().await;
    fake.with(|i| i.policies_at = "/_ilm/policy/");
    let (client, config) = client(&fake, "requests-%Y-%m-%d").await;
    let settings = install(&client, &config, false).await.settings;
    assert_eq!(settings["index.lifecycle.name"], "windrow-requests");
    let policy = fake.with(|i| i.policies["windrow-requests"].clone());
    let phases = &policy["policy"]["phases"];
    assert_eq!(phases["delete"]["min_age"], "43200m");
    assert_eq!(phases["hot"]["actions"], json!({}), "a date rolls over by itself");
    // Again, with another value: it is Windrow's own.
    let other = ElasticsearchConfig {
        retention: Some(DAY),
        ..config.clone()
    };
    assert!(!install(&client, &other, false).await.settings.is_empty());
    let policy = fake.with(|i| i.policies["windrow-requests"].clone());
    assert_eq!(policy["policy"]["phases"]["delete"]["min_age"], "1440m");
    // Somebody else's policy of this name stays as it is.
    let theirs = json!({"policy": {"phases": {}}});
    fake.with(|i| i.policies.insert("windrow-requests".into(), theirs.clone()));
    assert!(install(&client, &config, false).await.settings.is_empty());
    assert_eq!(fake.with(|i| i.policies["windrow-requests"].clone()), theirs);
}

#[tokio::test]
async fn an_alias_is_made_and_rolls_over() {
    for (at, alias_setting) in [
        ("/_ilm/policy/", "index.lifecycle.rollover_alias"),
        (
            "/_plugins/_ism/policies/",
            "index.plugins.index_state_management.rollover_alias",
        ),
    ] {
        let fake = Fake::start().await;
        fake.with(|i| i.policies_at = at);
        let (client, config) = client(&fake, "requests").await;
        let settings = install(&client, &config, false).await.settings;
        assert_eq!(settings[alias_setting], "requests");
        let policy = fake.with(|i| i.policies["windrow-requests"].clone()).to_string();
        assert!(
            policy.contains("32212254720b") && policy.contains("made by Windrow"),
            "{policy}"
        );
        let made = fake.with(|i| i.made["/requests-000001"].clone());
        assert_eq!(made["aliases"]["requests"]["is_write_index"], true);
        // The name is taken now: nothing is made again.
        fake.with(|i| {
            i.made.insert("/requests".into(), json!({}));
            i.made.remove("/requests-000001");
        });
        install(&client, &config, false).await;
        assert!(fake.with(|i| !i.made.contains_key("/requests-000001")));
    }
}

#[tokio::test]
async fn a_store_without_policies_is_used_all_the_same() {
    let fake = Fake::start().await;
    let (client, config) = client(&fake, "requests-%Y-%m-%d").await;
    assert!(install(&client, &config, false).await.settings.is_empty());
}
