//! Errors of connections in words: the HTTP client and the TLS library say little.

use std::error::Error as _;

/// An error with its sources in one line; the outer errors of the HTTP client say little.
pub(super) fn with_sources(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let more = inner.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = inner.source();
    }
    text
}

/// A failure with what to do about it, where the words of the TLS library do not say.
pub(super) fn in_words(reason: &str) -> String {
    const HINTS: [(&str, &str); 7] = [
        (
            "UnknownIssuer",
            "the certificate of the server comes from an authority that is not trusted: set elasticsearch.ca_file to its certificate",
        ),
        (
            "CaUsedAsEndEntity",
            "the server uses the certificate of an authority as its own: give it one that the authority has signed, or set elasticsearch.insecure for a trial",
        ),
        (
            "NotValidForName",
            "the certificate of the server is for other names: use one of them in elasticsearch.url",
        ),
        (
            "Expired",
            "the certificate of the server, or this machine's clock, is out of date",
        ),
        (
            "InvalidContentType",
            "the server does not speak TLS on this port: write http:// in elasticsearch.url",
        ),
        (
            "CertificateRequired",
            "the server asks for a client certificate: set elasticsearch.client_cert and elasticsearch.client_key",
        ),
        ("HandshakeFailure", "the server refuses the TLS handshake"),
    ];
    let hint = HINTS
        .iter()
        .find(|(word, _)| reason.contains(word))
        .map(|(_, hint)| *hint);
    // rustls says so in words of its own.
    let hint = hint
        .or_else(|| reason.contains("not valid for name").then_some(HINTS[2].1))
        .or_else(|| {
            let garbled = [
                "invalid HTTP version",
                "invalid HTTP header",
                "connection closed before message completed",
            ];
            garbled
                .iter()
                .any(|words| reason.contains(words))
                .then_some("if the server speaks TLS on this port, write https:// in elasticsearch.url")
        });
    match hint {
        Some(hint) => format!("{reason} ({hint})"),
        None => reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::in_words;

    #[test]
    fn mistakes_with_tls_say_what_to_do() {
        for (reason, word) in [
            ("invalid peer certificate: UnknownIssuer", "elasticsearch.ca_file"),
            (
                "invalid peer certificate: certificate not valid for name \"127.0.0.1\"",
                "elasticsearch.url",
            ),
            ("received corrupt message of type InvalidContentType", "http://"),
            ("invalid HTTP version parsed", "https://"),
            ("Connection refused", "Connection refused"),
        ] {
            assert!(in_words(reason).contains(word), "{reason}");
        }
    }
}
