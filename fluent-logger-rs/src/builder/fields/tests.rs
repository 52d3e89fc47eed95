//! Tests of static fields and of the environment.

use super::*;

fn from(variables: &[(&str, &str)]) -> Builder {
    Builder::from_variables(|name| {
        let found = variables.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| (*value).to_owned())
    })
}

fn record(builder: &Builder) -> serde_json::Value {
    let options = builder.check().unwrap();
    let logged = serde_json::json!({ "region": "here", "n": 1 });
    record::with_entry(SystemTime::UNIX_EPOCH, &options.entry, &logged, |entry| {
        Ok(rmp_serde::from_slice(&entry[11..]).unwrap())
    })
    .unwrap()
}

#[test]
fn every_variable_of_the_environment_is_an_option() {
    let builder = from(&[
        ("FLUENT_LOGGER_ADDRESS", "one:1, two:2"),
        ("FLUENT_LOGGER_TAG_PREFIX", "shop"),
        ("FLUENT_LOGGER_SHARED_KEY", "k"),
        ("FLUENT_LOGGER_SERVICE_NAME", "checkout"),
        ("FLUENT_LOGGER_SERVICE_VERSION", "1.2"),
        ("FLUENT_LOGGER_ENVIRONMENT", "test"),
        ("FLUENT_LOGGER_HOST", "h1"),
        ("FLUENT_LOGGER_FIELDS", "team=shop, region=eu"),
        ("FLUENT_LOGGER_NAMING", "ecs"),
    ]);
    let options = builder.check().unwrap();
    assert_eq!(options.addresses.len(), 2);
    assert_eq!(options.tag_prefix, "shop");
    assert_eq!(options.security.shared_key.as_deref(), Some("k"));
    assert_eq!(
        record(&builder),
        serde_json::json!({
            "region": "here", "n": 1, "team": "shop", "service.name": "checkout",
            "service.version": "1.2", "service.environment": "test", "host.name": "h1"
        }),
        "the field of the record wins"
    );
}

#[test]
fn wrong_values_are_reported_by_build() {
    let builder = from(&[("FLUENT_LOGGER_FIELDS", "team"), ("FLUENT_LOGGER_NAMING", "ECS8")]);
    let Err(BuildError::Several(errors)) = builder.check() else {
        panic!("two mistakes");
    };
    let text: Vec<_> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        text,
        [
            "FLUENT_LOGGER_FIELDS has a wrong value: team",
            "FLUENT_LOGGER_NAMING has a wrong value: ECS8"
        ]
    );
}

#[test]
fn later_setters_replace_earlier_ones_and_names_follow_the_naming() {
    let builder = from(&[("FLUENT_LOGGER_SERVICE_NAME", "one")])
        .service_name("two")
        .environment("live")
        .naming(Naming::OTel)
        .field("answer", &42u128);
    assert_eq!(
        record(&builder),
        serde_json::json!({
            "region": "here", "n": 1, "service.name": "two",
            "deployment.environment.name": "live", "answer": 42
        })
    );
}

#[test]
fn many_static_fields_need_a_larger_header() {
    let builder = (0..40).fold(Builder::default(), |builder, n| {
        builder.field(format!("f{n}"), &n)
    });
    let record = record(&builder);
    assert_eq!(record.as_object().unwrap().len(), 42);
    assert_eq!((&record["f39"], &record["n"]), (&39.into(), &1.into()));
}
