//! Client cases of the conformance suite: its scripted server against this logger, through the
//! adapter in `examples/`.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use proto_tests::client_cases::{ClientOptions, ServerTls, all, run};
use proto_tests::{Expectations, Outcome};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};

/// An authority, a server `server.example` and a client, as PEM files.
fn certificates(folder: &Path) -> ServerTls {
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let write = |name: &str, text: String| -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let make = |name: &str, usage| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([format!("{name}.example")]).unwrap();
        params.extended_key_usages = vec![usage];
        let certificate = params.signed_by(&key, &authority).unwrap();
        (
            write(&format!("{name}.pem"), certificate.pem()),
            write(&format!("{name}.key"), key.serialize_pem()),
        )
    };
    let (chain, key) = make("server", ExtendedKeyUsagePurpose::ServerAuth);
    ServerTls {
        chain,
        key,
        client: Some(make("client", ExtendedKeyUsagePurpose::ClientAuth)),
        ca: write("ca.pem", authority.pem()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_client_cases_pass() {
    let here = std::env::current_exe().unwrap();
    let adapter = here
        .ancestors()
        .nth(2)
        .unwrap()
        .join("examples/conformance_client");
    assert!(
        adapter.is_file(),
        "{} is built with the tests of this package (`cargo test -p fluent-logger-rs --all-features`)",
        adapter.display()
    );
    let folder = tempfile::tempdir().unwrap();
    let mut options = ClientOptions::new(adapter.display().to_string());
    options.tls = Some(certificates(folder.path()));
    options.reply_timeout = Duration::from_secs(30);
    let report = run(&options, &Expectations::default()).await;
    let passed = report
        .findings
        .iter()
        .filter(|finding| finding.outcome == Outcome::Pass);
    assert_eq!((passed.count(), all().len()), (40, 40), "{}", report.text());
}
