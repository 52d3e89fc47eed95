//! Addresses without their credentials, for output and messages.
//!
//! An address may be wrong, so nothing is taken for granted: a scheme can be missing, and a password
//! can contain any character. Rather too much is hidden than a part of a password shown.

/// `http://user:password@host` becomes `http://user:(hidden)@host`, with or without a scheme.
pub(super) fn hide_password(url: &str) -> String {
    let (scheme, rest) = split_scheme(url);
    match rest.rsplit_once('@') {
        Some((login, host)) => match login.split_once(':') {
            Some((user, _)) => format!("{scheme}{user}:(hidden)@{host}"),
            None => format!("{scheme}(hidden)@{host}"),
        },
        // A password with a comma or a quote was cut off before its host.
        None => match rest.split_once(':') {
            Some((host, port)) if !host.starts_with('[') && !is_port_and_path(port) => {
                format!("{scheme}{host}:(hidden)")
            }
            _ => url.to_owned(),
        },
    }
}

/// An address without `user:password@`.
pub(crate) fn without_credentials(url: &str) -> String {
    let (scheme, rest) = split_scheme(url);
    match rest.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}{host}"),
        None => hide_password(url),
    }
}

fn split_scheme(url: &str) -> (&str, &str) {
    let end = url.find("://").map_or(0, |at| at + 3);
    // A `://` within a password is none.
    let is_scheme = |text: &str| {
        text.chars()
            .all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    };
    match url.split_at(end) {
        (scheme, rest) if end > 3 && is_scheme(&scheme[..end - 3]) => (scheme, rest),
        _ => ("", url),
    }
}

fn is_port_and_path(text: &str) -> bool {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    text.len() == digits || (digits > 0 && text.as_bytes()[digits] == b'/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_part_of_a_password_is_shown() {
        for (url, shown, bare) in [
            (
                "http://es:9200/path",
                "http://es:9200/path",
                "http://es:9200/path",
            ),
            ("es:9200", "es:9200", "es:9200"),
            ("http://[::1]:9200", "http://[::1]:9200", "http://[::1]:9200"),
            ("https://u:hush@es/p", "https://u:(hidden)@es/p", "https://es/p"),
            ("u:hush@es:9200", "u:(hidden)@es:9200", "es:9200"),
            ("u:hush://x@es", "u:(hidden)@es", "es"),
            ("http://u:hu/s@h@es", "http://u:(hidden)@es", "http://es"),
            ("http://hush@es", "http://(hidden)@es", "http://es"),
            ("http://u:hush", "http://u:(hidden)", "http://u:(hidden)"),
            ("//u:hush@es", "//u:(hidden)@es", "es"),
        ] {
            assert_eq!(
                (&*hide_password(url), &*without_credentials(url)),
                (shown, bare),
                "{url}"
            );
        }
    }
}
