//! Every view: what it shows, its accessibility, and every width and colour scheme.

use serde_json::json;
use windrow_testkit::browser::axe_core;
use windrow_testkit::need;

use super::{assert_clean, in_browser, programs, shop};

/// Address of each view, and a text that it shows.
const VIEWS: [(&str, &str); 7] = [
    ("/", "request received"),
    ("/?q=timeout&from=-1h&level=error", "payment gateway timeout"),
    ("/trace/failing", "retrying charge"),
    ("/live", "Waiting for traces"),
    ("/open", "No trace is open"),
    ("/dead-letter", "Nothing was refused"),
    ("/server", "Audit difference"),
];

#[test]
fn every_view_shows_its_content_without_an_error_or_a_foreign_request() {
    let programs = need!(programs());
    let server = shop(3);
    in_browser(&programs, async |browser| {
        for (path, text) in VIEWS {
            browser.open(&format!("{}{path}", server.admin())).await;
            browser.wait_for_text(text).await;
            assert_clean(&browser, &server).await;
        }
        browser.open(&format!("{}/trace/none-such", server.admin())).await;
        browser.wait_for_text("No such trace").await;
        browser.close().await;
    });
}

#[test]
fn every_view_is_accessible_in_both_colour_schemes() {
    let programs = need!(programs());
    let axe = need!(axe_core());
    let server = shop(3);
    in_browser(&programs, async |browser| {
        for scheme in ["light", "dark"] {
            let feature = json!({"name": "prefers-color-scheme", "value": scheme});
            let features = json!({"features": [feature]});
            browser.devtools("Emulation.setEmulatedMedia", features).await;
            for (path, text) in VIEWS {
                browser.open(&format!("{}{path}", server.admin())).await;
                browser.wait_for_text(text).await;
                let violations = browser.accessibility_violations(&axe).await;
                assert!(violations.is_empty(), "{scheme} {path}: {violations:#?}");
            }
        }
        browser.close().await;
    });
}

#[test]
fn no_view_is_wider_than_the_window() {
    let programs = need!(programs());
    let server = shop(3);
    in_browser(&programs, async |browser| {
        for (width, height) in [(360, 740), (1024, 768), (3840, 2160)] {
            let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
            browser.devtools("Emulation.setDeviceMetricsOverride", size).await;
            for (path, text) in VIEWS {
                browser.open(&format!("{}{path}", server.admin())).await;
                browser.wait_for_text(text).await;
                let wide = browser
                    .run("return document.documentElement.scrollWidth - document.documentElement.clientWidth")
                    .await;
                assert_eq!(wide, 0, "{path} at {width} px");
            }
        }
        browser.close().await;
    });
}
