//! Tests of requests: dead nodes, waiting for the template, credentials, gzip, invalid
//! configuration.

use std::sync::atomic::AtomicU64;

use super::fake::{Fake, Fault};
use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_node_is_passed_over_and_found_again() {
    let alive = Fake::start().await;
    let away = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = away.local_addr().unwrap().port();
    drop(away);
    let config = ElasticsearchConfig {
        urls: vec![format!("http://127.0.0.1:{port}"), alive.url.clone()],
        ..quick(&alive.url)
    };
    let running = Running::start(config);
    for n in 0..10 {
        running
            .give(vec![running.part(&format!("t{n}"), "p", NOON)])
            .await;
        until("confirmed", || running.confirmed.count() == n + 1).await;
    }
    assert_eq!(running.output.health().state(), OutputState::Ok);
    assert_eq!(running.output.stats().requests_failed.load(Relaxed), 0);
    let back = Fake::start_at(port).await;
    let mut n = 10;
    while back.with(|i| i.bulks) == 0 {
        running
            .give(vec![running.part(&format!("t{n}"), "p", NOON)])
            .await;
        n += 1;
        until("confirmed", || running.confirmed.count() == n).await;
        assert!(n < 10_000, "the node that came back is never used");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    running.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writing_waits_for_the_template_but_not_for_a_forbidden_one() {
    for (faults, installed) in [
        (
            vec![
                Fault::Refuse(503),
                Fault::Break,
                Fault::Refuse(401),
                Fault::Refuse(503),
            ],
            true,
        ),
        (vec![Fault::Refuse(403); 10_000], false),
        (vec![Fault::Refuse(400); 10_000], false),
    ] {
        let fake = Fake::start().await;
        fake.with(|i| {
            i.template_faults.extend(faults);
            i.before = Some(Box::new(|path, store| {
                if path == "/_bulk" {
                    store.put("seen", "bulk", json!({}));
                }
            }));
        });
        let running = Running::start(quick(&fake.url));
        running.give(vec![running.part("a", "p", NOON)]).await;
        let output = running.output.clone();
        running.finish().await;
        assert_eq!(fake.with(|i| i.template.is_some()), installed);
        assert_eq!(output.health().state(), OutputState::Ok);
    }
    // While it cannot be installed, nothing is written.
    let fake = Fake::start().await;
    fake.with(|i| i.template_faults.extend(vec![Fault::Refuse(503); 1_000_000]));
    let running = Running::start(quick(&fake.url));
    running.give(vec![running.part("a", "p", NOON)]).await;
    let health = running.output.health().clone();
    reported(&health, WaitReason::Template).await;
    assert_eq!(fake.with(|i| i.bulks), 0);
    fake.with(|i| i.template_faults.clear());
    running.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_and_gzip_go_over_the_wire() {
    let fake = Fake::start().await;
    let with_user = fake.url.replace("http://", "http://el%40stic:s3cret@");
    for (url, auth, expected) in [
        (&fake.url, Auth::None, None),
        (
            &fake.url,
            Auth::Basic {
                user: "u".into(),
                password: Secret::new("p"),
            },
            Some("Basic dTpw"),
        ),
        (
            &fake.url,
            Auth::ApiKey(Secret::new("aWQ6a2V5")),
            Some("ApiKey aWQ6a2V5"),
        ),
        (
            &fake.url,
            Auth::Bearer(Secret::new("token")),
            Some("Bearer token"),
        ),
        (&with_user, Auth::None, Some("Basic ZWxAc3RpYzpzM2NyZXQ=")),
    ] {
        let config = ElasticsearchConfig {
            auth,
            gzip_level: 1,
            ..quick(url)
        };
        let running = Running::start(config);
        assert!(!format!("{:?}", running.output).contains("s3cret"));
        running.give(vec![running.part("a", "p", NOON)]).await;
        running.finish().await;
        assert_eq!(fake.with(|i| i.authorization.clone()).as_deref(), expected);
    }
    assert_eq!(fake.documents().len(), 1);
}

#[test]
fn wrong_settings_are_explained_without_secrets() {
    let open = |config| {
        Elasticsearch::open(config, RULES)
            .map(|_| ())
            .unwrap_err()
            .to_string()
    };
    let config = |url: &str| ElasticsearchConfig {
        urls: vec![url.into()],
        ..Default::default()
    };
    let wrong = open(config("ftp://user:s3cret@host/"));
    assert!(wrong.contains("http://") && !wrong.contains("s3cret"), "{wrong}");
    let wrong = open(config("http://user:s3cret@"));
    assert!(!wrong.contains("s3cret"), "{wrong}");
    assert!(
        open(ElasticsearchConfig {
            urls: vec![],
            ..Default::default()
        })
        .contains("no Elasticsearch address")
    );
    assert!(
        open(ElasticsearchConfig {
            index: "%H".into(),
            ..Default::default()
        })
        .contains("within a day")
    );
    let wrong = open(ElasticsearchConfig {
        ca_file: Some("/nowhere/ca.pem".into()),
        ..Default::default()
    });
    assert!(wrong.contains("/nowhere/ca.pem"), "{wrong}");
    let wrong = open(ElasticsearchConfig {
        auth: Auth::Bearer(Secret::new("a\nb")),
        ..Default::default()
    });
    assert!(
        wrong.contains("credentials") && !wrong.contains("a\nb"),
        "{wrong}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_in_a_file_is_read_again_after_a_401() {
    use crate::output::elasticsearch::http::Request;
    use crate::output::elasticsearch::nodes::Nodes;
    let fake = Fake::start().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "old\n").unwrap();
    let nodes = Nodes::open(&ElasticsearchConfig {
        auth: Auth::ApiKey(Secret::from_file(file.path()).unwrap()),
        ..quick(&fake.url)
    })
    .unwrap();
    let request = Request::json(reqwest::Method::POST, "/_mget", r#"{"docs":[]}"#);
    for (key, faults, status, used) in [
        ("old\n", vec![Fault::Refuse(401)], 401, "ApiKey old"),
        ("new\n", vec![Fault::Refuse(401)], 200, "ApiKey new"),
        ("newer\n", vec![], 200, "ApiKey new"),
    ] {
        std::fs::write(file.path(), key).unwrap();
        fake.with(|i| i.mget_faults.extend(faults));
        let Ok(response) = nodes.send(&request).await else {
            panic!("no response");
        };
        assert_eq!(response.status, status);
        assert_eq!(fake.with(|i| i.authorization.clone()).as_deref(), Some(used));
    }
}

/// Forwards connections to `to`; those with a number below `forgotten` lead nowhere any more.
async fn forgetful_proxy(to: String, forgotten: Arc<AtomicU64>, opened: Arc<AtomicU64>) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        for number in 0_u64.. {
            let (client, _) = listener.accept().await.unwrap();
            opened.store(number + 1, Relaxed);
            let server = tokio::net::TcpStream::connect(to.trim_start_matches("http://"))
                .await
                .unwrap();
            let (client, server) = (client.into_split(), server.into_split());
            for (mut from, mut into) in [(client.0, server.1), (server.0, client.1)] {
                let forgotten = Arc::clone(&forgotten);
                tokio::spawn(async move {
                    let mut buffer = vec![0; 65_536];
                    while let Ok(n @ 1..) = from.read(&mut buffer).await {
                        if number >= forgotten.load(Relaxed) {
                            into.write_all(&buffer[..n]).await.ok();
                        }
                    }
                });
            }
        }
    });
    url
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_a_firewall_forgot_is_noticed() {
    let fake = Fake::start().await;
    let (forgotten, opened) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
    let url = forgetful_proxy(fake.url.clone(), Arc::clone(&forgotten), Arc::clone(&opened)).await;
    let running = Running::start(ElasticsearchConfig {
        request_timeout: 10 * LONG,
        ..quick(&url)
    });
    running.give(vec![running.part("a", "p", NOON)]).await;
    until("the first is confirmed", || running.confirmed.has("a/p")).await;
    // Those that are opened from now on work.
    forgotten.store(opened.load(Relaxed), Relaxed);
    tokio::time::sleep(Duration::from_millis(400)).await;
    running.give(vec![running.part("b", "p", NOON)]).await;
    until("the next is confirmed", || running.confirmed.has("b/p")).await;
    running.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redirect_is_not_followed_and_says_where_to() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut buffer = vec![0; 65_536];
            assert!(client.read(&mut buffer).await.is_ok());
            let answer = "HTTP/1.1 301 Moved Permanently\r\nLocation: https://elsewhere.example/\r\n\
                          Content-Length: 0\r\nConnection: close\r\n\r\n";
            client.write_all(answer.as_bytes()).await.ok();
        }
    });
    let running = Running::start(quick(&url));
    running.give(vec![running.part("a", "p", NOON)]).await;
    let health = running.output.health().clone();
    reported(&health, WaitReason::Cluster).await;
    let said = health.reasons()[0].1.clone();
    assert!(
        said.contains("301") && said.contains("moved to https://elsewhere.example/"),
        "{said}"
    );
    running.stop.cancel();
}

/// Answers every request with this status and a chunked body without an end.
fn endless(status: u16) -> String {
    use std::io::{Read as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let _ = stream.read(&mut [0; 4096]);
                let head = format!("HTTP/1.1 {status} X\r\nTransfer-Encoding: chunked\r\n\r\n");
                let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
                let mut sent = stream.write_all(head.as_bytes());
                while sent.is_ok() {
                    sent = stream.write_all(chunk.as_bytes());
                }
            });
        }
    });
    url
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_response_without_an_end_is_read_up_to_the_bound_of_its_request() {
    use crate::output::elasticsearch::http::{Request, SendError};
    use crate::output::elasticsearch::nodes::Nodes;
    let nodes = Nodes::open(&quick(&endless(200))).unwrap();
    let mut request = Request::json(reqwest::Method::POST, "/_bulk", "{}");
    request.max_response_bytes = 1 << 20;
    let Err(SendError::ResponseTooLarge(bytes)) = nodes.send(&request).await else {
        panic!("it was read");
    };
    assert!((1 << 20..2 << 20).contains(&bytes), "{bytes}");
    // Of an error the beginning is enough.
    let nodes = Nodes::open(&quick(&endless(503))).unwrap();
    let Ok(response) = nodes.send(&request).await else {
        panic!("no response");
    };
    assert_eq!(response.status, 503);
    assert!(response.body.len() <= 1 << 20, "{}", response.body.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_responses_have_no_end_is_named_with_the_limit() {
    let output = Elasticsearch::open(quick(&endless(200)), RULES).unwrap();
    let reason = output.recent(None, 1).await.unwrap_err();
    for part in ["_search", "33554432", "not Elasticsearch, or a proxy"] {
        assert!(reason.contains(part), "{reason}");
    }
}
