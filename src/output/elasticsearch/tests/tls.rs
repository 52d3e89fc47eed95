//! Tests of TLS: private CA, client certificate, and the errors of wrong ones.

use std::path::PathBuf;

use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use super::fake::Fake;
use super::*;

/// Made by `tests/tls/make`.
fn file(name: &str) -> PathBuf {
    [
        env!("CARGO_MANIFEST_DIR"),
        "src/output/elasticsearch/tests/tls",
        name,
    ]
    .iter()
    .collect()
}

/// A TLS front for the fake; with `ask` it wants a certificate of the test CA. Gives the port.
async fn front(fake: &Fake, ask: bool) -> u16 {
    let chain = vec![CertificateDer::from_pem_file(file("server.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(file("server.key")).unwrap();
    let builder = ServerConfig::builder();
    let builder = if ask {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(file("ca.pem")).unwrap())
            .unwrap();
        builder.with_client_cert_verifier(WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap())
    } else {
        builder.with_no_client_auth()
    };
    let acceptor = TlsAcceptor::from(Arc::new(builder.with_single_cert(chain, key).unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let behind = fake.url.trim_start_matches("http://").to_owned();
    tokio::spawn(async move {
        loop {
            let (plain, _) = listener.accept().await.unwrap();
            let (acceptor, behind) = (acceptor.clone(), behind.clone());
            tokio::spawn(async move {
                // A client that does not trust us ends the handshake; that is what some tests are
                // about.
                let Ok(mut tls) = acceptor.accept(plain).await else {
                    return;
                };
                let mut inner = TcpStream::connect(behind).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut tls, &mut inner).await;
            });
        }
    });
    port
}

async fn written(config: ElasticsearchConfig) {
    let running = Running::start(config);
    running.give(vec![running.part("a", "p", NOON)]).await;
    assert_eq!(running.finish().await.0.len(), 1);
}

/// The reason for which it waits.
async fn refused(config: ElasticsearchConfig) -> String {
    let running = Running::start(config);
    running.give(vec![running.part("a", "p", NOON)]).await;
    let health = running.output.health().clone();
    until("waiting is reported", || health.state() != OutputState::Ok).await;
    assert_eq!(running.confirmed.count(), 0);
    running.stop.cancel();
    match health.state() {
        OutputState::Waiting { reason, .. } => reason,
        OutputState::Ok => String::new(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn own_ca_and_client_certificate() {
    let fake = Fake::start().await;
    let (open, asking) = (front(&fake, false).await, front(&fake, true).await);
    let at = |port: u16| quick(&format!("https://localhost:{port}"));
    let ca_file = Some(file("ca.pem"));
    let client_cert = Some(ClientCert {
        cert: file("client.pem"),
        key: file("client.key"),
    });

    written(ElasticsearchConfig {
        ca_file: ca_file.clone(),
        ..at(open)
    })
    .await;
    written(ElasticsearchConfig {
        ca_file: ca_file.clone(),
        client_cert: client_cert.clone(),
        ..at(asking)
    })
    .await;
    written(ElasticsearchConfig {
        insecure: true,
        ..at(open)
    })
    .await;
    let both = Auth::Basic {
        user: "u".into(),
        password: Secret::new("p"),
    };
    written(ElasticsearchConfig {
        ca_file: ca_file.clone(),
        client_cert,
        auth: both,
        ..at(asking)
    })
    .await;
    assert_eq!(
        fake.with(|i| i.authorization.clone()).as_deref(),
        Some("Basic dTpw")
    );

    let reason = refused(at(open)).await;
    assert!(
        reason.contains("certificate") && reason.contains("UnknownIssuer"),
        "{reason}"
    );
    let reason = refused(ElasticsearchConfig {
        ca_file,
        ..at(asking)
    })
    .await;
    assert!(reason.contains("https://localhost"), "{reason}");
}

#[test]
fn files_that_are_no_certificates_are_named() {
    let open = |config| {
        Elasticsearch::open(config, RULES)
            .map(|_| ())
            .unwrap_err()
            .to_string()
    };
    let wrong = open(ElasticsearchConfig {
        ca_file: Some(file("make")),
        ..Default::default()
    });
    assert!(wrong.contains("CA file") && wrong.contains("tls/make"), "{wrong}");
    let client_cert = Some(ClientCert {
        cert: file("make"),
        key: file("client.key"),
    });
    let wrong = open(ElasticsearchConfig {
        client_cert,
        ..Default::default()
    });
    assert!(wrong.contains("client certificate"), "{wrong}");
}
