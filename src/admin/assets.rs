//! Files of the page: scripts, styles and vendored libraries, which are part of the program.
//!
//! They contain nothing of any log, so they need no token. Each is compressed once, when it is
//! first asked for.

use std::io::Write as _;
use std::sync::OnceLock;

use axum::body::Bytes;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};

use super::problem;

/// Bytes of a hash in an entity tag.
const TAG_BYTES: usize = 12;

const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// A file of the page.
struct Asset {
    path: &'static str,
    media_type: &'static str,
    content: &'static [u8],
    packed: OnceLock<Packed>,
}

/// What is computed once per file.
struct Packed {
    gzip: Bytes,
    tag: HeaderValue,
}

macro_rules! assets {
    ($($path:literal: $media_type:expr),* $(,)?) => {
        [$(Asset {
            path: $path,
            media_type: $media_type,
            content: include_bytes!(concat!("web/", $path)),
            packed: OnceLock::new(),
        }),*]
    };
}

static INDEX: Asset = Asset {
    path: "index.html",
    media_type: "text/html; charset=utf-8",
    content: include_bytes!("web/index.html"),
    packed: OnceLock::new(),
};

static ASSETS: [Asset; 27] = assets! {
    "api.js": SCRIPT,
    "app.js": SCRIPT,
    "chart.js": SCRIPT,
    "dead_letter.js": SCRIPT,
    "format.js": SCRIPT,
    "histogram.js": SCRIPT,
    "icon.svg": "image/svg+xml",
    "keys.js": SCRIPT,
    "live.js": SCRIPT,
    "login.js": SCRIPT,
    "open.js": SCRIPT,
    "parts.js": SCRIPT,
    "server.js": SCRIPT,
    "start.js": SCRIPT,
    "style.css": STYLE,
    "trace.js": SCRIPT,
    "traces.js": SCRIPT,
    "vendor/lit-html/LICENSE": TEXT,
    "vendor/lit-html/directive-helpers.js": SCRIPT,
    "vendor/lit-html/directive.js": SCRIPT,
    "vendor/lit-html/directives/repeat.js": SCRIPT,
    "vendor/lit-html/lit-html.js": SCRIPT,
    "vendor/uplot/LICENSE": TEXT,
    "vendor/uplot/uPlot.iife.min.js": SCRIPT,
    "vendor/uplot/uPlot.min.css": STYLE,
    "vendor/README.md": TEXT,
    "waterfall.js": SCRIPT,
};

/// The page, for the address of each of its views.
pub(super) async fn index(headers: HeaderMap) -> Response {
    INDEX.response(&headers)
}

/// `/assets/{path}`.
pub(super) async fn asset(Path(path): Path<String>, headers: HeaderMap) -> Response {
    match ASSETS.iter().find(|asset| asset.path == path) {
        Some(asset) => asset.response(&headers),
        None => problem(
            StatusCode::NOT_FOUND,
            "the page has no such file; reload the page, which may be of another version",
            "",
        ),
    }
}

impl Asset {
    fn packed(&self) -> &Packed {
        self.packed.get_or_init(|| {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
            // Writing to memory cannot fail.
            let gzip = encoder
                .write_all(self.content)
                .and_then(|()| encoder.finish())
                .unwrap_or_default();
            let hash = Sha256::digest(self.content);
            let hash: String = hash
                .iter()
                .take(TAG_BYTES)
                .map(|byte| format!("{byte:02x}"))
                .collect();
            let tag = HeaderValue::try_from(format!("\"{hash}\""));
            Packed {
                gzip: gzip.into(),
                tag: tag.unwrap_or_else(|_| HeaderValue::from_static("\"0\"")),
            }
        })
    }

    fn response(&self, headers: &HeaderMap) -> Response {
        let Packed { gzip, tag } = self.packed();
        let mut response = if headers.get(header::IF_NONE_MATCH) == Some(tag) {
            StatusCode::NOT_MODIFIED.into_response()
        } else if accepts_gzip(headers) && !gzip.is_empty() {
            let mut response = Response::new(gzip.clone().into());
            response
                .headers_mut()
                .insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            response
        } else {
            Response::new(Bytes::from_static(self.content).into())
        };
        let to = response.headers_mut();
        to.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.media_type));
        to.insert(header::ETAG, tag.clone());
        to.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        // Asked again each time, so that the files are those of one version.
        to.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        response
    }
}

/// Whether the client takes gzip (RFC 9110, 12.5.3; a quality of 0 is a refusal).
fn accepts_gzip(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT_ENCODING).iter();
    accepted
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|coding| {
            let (name, parameters) = coding.split_once(';').unwrap_or((coding, ""));
            let quality = parameters.trim().strip_prefix("q=").unwrap_or("1").trim();
            matches!(name.trim(), "gzip" | "*") && quality.parse::<f32>().is_ok_and(|quality| quality > 0.0)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_that_the_page_names_is_there() {
        let text = |asset: &Asset| String::from_utf8_lossy(asset.content).into_owned();
        for asset in ASSETS.iter().chain([&INDEX]) {
            if asset.path.starts_with("vendor/uplot") || !asset.media_type.starts_with("text/") {
                continue;
            }
            let text = text(asset);
            let imports = text.split(['\'', '"']).filter(|piece| {
                piece.starts_with("./") || piece.starts_with("../") || piece.starts_with("/assets/")
            });
            for import in imports {
                let base = url::Url::parse(&format!("http://page/assets/{}", asset.path)).unwrap();
                let target = base.join(import).unwrap();
                let path = target.path().trim_start_matches("/assets/").to_owned();
                assert!(
                    ASSETS.iter().any(|known| known.path == path),
                    "{} names {import}, which is {path}",
                    asset.path
                );
            }
        }
    }

    #[test]
    fn gzip_is_sent_only_to_those_who_take_it() {
        let accepts = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(value));
            accepts_gzip(&headers)
        };
        assert!(accepts("gzip, deflate, br") && accepts("br, gzip;q=0.5") && accepts("*"));
        assert!(!accepts("gzip;q=0") && !accepts("br") && !accepts("") && !accepts_gzip(&HeaderMap::new()));
    }
}
