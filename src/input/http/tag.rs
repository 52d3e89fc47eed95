//! Tag of a request: from its path, the parameter `tag`, or the header `Fluent-Tag`.

use hyper::{HeaderMap, Uri};
use percent_encoding::percent_decode_str;

use super::answer::Problem;

/// Longest tag, in bytes.
const MAX_TAG_BYTES: usize = 1024;
/// The header that Fluent Bit's documentation uses for `header_tag`.
const TAG_HEADER: &str = "fluent-tag";

/// The tag, or `default`. As in Fluentd, `/a/b` is the tag `a.b`.
pub(super) fn of(uri: &Uri, headers: &HeaderMap, default: &str) -> Result<Vec<u8>, Problem> {
    let path = uri.path().trim_matches('/');
    let tag = if !path.is_empty() {
        let parts = path.split('/').filter(|part| !part.is_empty());
        let parts: Vec<Vec<u8>> = parts.map(|part| percent_decode_str(part).collect()).collect();
        parts.join(&b'.')
    } else if let Some(tag) = parameter(uri, "tag").filter(|tag| !tag.is_empty()) {
        tag.into_bytes()
    } else if let Some(tag) = headers.get(TAG_HEADER).filter(|tag| !tag.is_empty()) {
        tag.as_bytes().to_vec()
    } else {
        default.as_bytes().to_vec()
    };
    match tag.len() {
        0..=MAX_TAG_BYTES => Ok(tag),
        length => Err(Problem::Malformed(format!(
            "the tag has {length} bytes; at most {MAX_TAG_BYTES} are allowed"
        ))),
    }
}

/// The first query parameter of this name, decoded.
pub(super) fn parameter(uri: &Uri, name: &str) -> Option<String> {
    let query = uri.query()?;
    url::form_urlencoded::parse(query.as_bytes())
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_comes_first_then_the_parameter_then_the_header() {
        let mut headers = HeaderMap::new();
        let tag = |uri: &str, headers: &HeaderMap| {
            let tag = of(&uri.parse().unwrap(), headers, "http").unwrap();
            String::from_utf8(tag).unwrap()
        };
        assert_eq!(tag("/", &headers), "http");
        assert_eq!(tag("/?tag=", &headers), "http");
        headers.insert(TAG_HEADER, "from.header".parse().unwrap());
        assert_eq!(tag("/", &headers), "from.header");
        assert_eq!(tag("/?x=1&tag=a%20b", &headers), "a b");
        assert_eq!(tag("/app.log?tag=x", &headers), "app.log");
        assert_eq!(tag("/app//orders/", &headers), "app.orders");
        assert_eq!(tag("/%C3%BC%2Fx", &headers), "\u{fc}/x");
        assert_eq!(tag("http://host/app", &headers), "app");
        let long = format!("/{}", "x".repeat(MAX_TAG_BYTES + 1));
        assert!(of(&long.parse().unwrap(), &headers, "").is_err());
    }
}
