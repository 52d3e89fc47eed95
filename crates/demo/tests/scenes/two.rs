//! Scene 2: an application that logs over fluent-logger-rs to two Windrows behind one address. They
//! share nothing but the store; one of them is restarted and killed under load.

use windrow_testkit::{
    balancer::Balancer, check::Stored, elasticsearch, fake_elasticsearch::FakeElasticsearch, need,
    server::Server, wait,
};

use crate::stage::{self, App, Messages, SOON, answered, client, wait_answered};

const REQUESTS: usize = 400;

#[test]
fn with_a_fake_elasticsearch() {
    let sink = FakeElasticsearch::start();
    play(&sink.url(), || sink.documents("direct-"));
}

#[test]
fn with_a_real_elasticsearch() {
    let node = need!(elasticsearch::shared());
    let elasticsearch = node.client();
    play(&node.url(), || elasticsearch.documents("direct-*"));
}

fn play(store: &str, documents: impl Fn() -> Vec<Stored>) {
    let Some(first) = stage::windrow("scene 2") else {
        return;
    };
    let Some(second) = stage::windrow("scene 2") else {
        return;
    };
    let mut windrows = [first, second].map(|setup| setup.elasticsearch(store, "direct").start());
    let forward: Vec<_> = windrows.iter().map(Server::forward).collect();
    let balancer = Balancer::start(&forward);
    let address = balancer.address().to_string();
    let variables = [
        ("WINDROW_ADDR", &*address),
        ("RECONNECT_INTERVAL", "200ms"),
        ("ENVIRONMENT", "test"),
    ];
    let mut service = App::direct(&variables);
    let mut client = client(
        &service.url,
        REQUESTS,
        &["--concurrency", "3", "--interval", "20ms"],
    );

    wait_answered(&client, REQUESTS / 4);
    // Every connection is the other's turn: in the long run each takes half. A quarter is far from
    // chance.
    wait::until("an even load", SOON, || {
        let [one, two] = [0, 1].map(|number| windrows[number].metric("windrow_input_records_total"));
        if one.min(two) * 3.0 >= one.max(two) && one > 0.0 {
            Ok(())
        } else {
            Err(format!("{one} and {two} records"))
        }
    });
    let status = windrows[1].terminate(SOON);
    assert!(status.success(), "{status}");
    wait_answered(&client, REQUESTS / 2);
    windrows[1].start_again();
    wait_answered(&client, REQUESTS * 3 / 4);
    windrows[0].crash();
    assert!(client.wait(SOON).success(), "{}", client.last_words(30));
    // The service ends well only when every record was acknowledged.
    stage::stop(&mut service.process);

    let lines = ["direct: handler finished", "request completed"].map(str::to_owned);
    let expected: Messages = answered(&client)
        .into_iter()
        .map(|trace| (trace, lines.to_vec()))
        .collect();
    assert_eq!(expected.len(), REQUESTS);
    stage::assert_stored(&expected, documents);
}
