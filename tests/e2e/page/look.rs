//! Every view: what it shows, its accessibility, and every width and colour scheme.

use serde_json::json;
use windrow_testkit::browser::{Browser, axe_core};
use windrow_testkit::fake_elasticsearch::FakeElasticsearch;
use windrow_testkit::need;
use windrow_testkit::server::Server;

use super::dead_letter::{refused, send_refused};
use super::{assert_clean, in_browser, programs, send, send_shop, wait_searchable};
use crate::windrow;

/// Address of each view, and a text that it shows.
const VIEWS: [(&str, &str); 7] = [
    ("/", "request received"),
    ("/?q=timeout&from=-1h&level=error", "payment gateway timeout"),
    ("/trace/failing", "retrying charge"),
    ("/live", "Waiting for traces"),
    ("/open", "still waiting for the payment"),
    ("/dead-letter", "Nothing was refused"),
    ("/server", "Audit difference"),
];

/// A shop with an open trace, whose id and text are long.
fn busy_shop() -> Server {
    let server = windrow().sqlite().arg("--idle-timeout", "10m").start();
    server.wait_ready();
    send_shop(&server, 3);
    let id = "4bf92f3577b34da6a3ce929d0e0e4736";
    let text = format!("still waiting for the payment {}", "of an order ".repeat(20));
    let line = |text: &str| json!({"traceId": id, "message": text});
    send(
        &server,
        "shop",
        &[(-1.0, line("order received")), (0.0, line(&text))],
    );
    wait_searchable(&server, 4);
    server
}

#[test]
fn every_view_shows_its_content_without_an_error_or_a_foreign_request() {
    let programs = need!(programs());
    let server = busy_shop();
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

/// With headers, and with what the views load when they are opened.
#[test]
fn all_views_together_load_less_than_100_kilobytes() {
    let programs = need!(programs());
    let server = busy_shop();
    in_browser(&programs, async |browser| {
        let mut files = std::collections::BTreeMap::new();
        for (path, text) in VIEWS {
            browser.open(&format!("{}{path}", server.admin())).await;
            browser.wait_for_text(text).await;
            if path == "/server" {
                browser.find(".chart canvas").await;
            }
            let loaded = "return [...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')].map((entry) => [new URL(entry.name).pathname, entry.transferSize])";
            for entry in browser.run(loaded).await.as_array().unwrap() {
                let (path, bytes) = (entry[0].as_str().unwrap(), entry[1].as_u64().unwrap());
                if !path.starts_with("/api/") {
                    let most = files.entry(path.to_owned()).or_insert(0);
                    *most = bytes.max(*most);
                }
            }
        }
        let sum: u64 = files.values().sum();
        println!("{sum} bytes");
        assert!(
            files.contains_key("/assets/vendor/uplot/uPlot.iife.min.js"),
            "{files:?}"
        );
        assert!((10_000..100_000).contains(&sum), "{sum} bytes: {files:#?}");
        browser.close().await;
    });
}

#[test]
fn every_view_is_accessible_in_both_colour_schemes() {
    let programs = need!(programs());
    let axe = need!(axe_core());
    let server = busy_shop();
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
    let server = busy_shop();
    in_browser(&programs, async |browser| {
        for (width, height) in [(360, 740), (1024, 768), (3840, 2160)] {
            resize(&browser, width, height).await;
            for (path, text) in VIEWS {
                browser.open(&format!("{}{path}", server.admin())).await;
                browser.wait_for_text(text).await;
                assert_fits(&browser, &format!("{path} at {width} px")).await;
            }
        }
        browser.close().await;
    });
}

/// Gives the window this size, in CSS pixels.
async fn resize(browser: &Browser, width: u32, height: u32) {
    let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
    browser.devtools("Emulation.setDeviceMetricsOverride", size).await;
}

/// Nothing is wider than the window.
async fn assert_fits(browser: &Browser, what: &str) {
    let wide = browser
        .run("return document.documentElement.scrollWidth - document.documentElement.clientWidth")
        .await;
    assert_eq!(wide, 0, "{what}");
}

/// The views that need a server of their own: a dead letter with documents, and the login.
#[test]
fn the_dead_letter_and_the_login_are_accessible_and_fit() {
    let programs = need!(programs());
    let axe = need!(axe_core());
    let sink = FakeElasticsearch::with(refused("look-1"));
    let full = send_refused(&sink, "look-");
    let closed = windrow().sqlite().arg("--admin-token", "s3cret").start();
    closed.wait_ready();
    in_browser(&programs, async |browser| {
        for width in [360, 3840] {
            resize(&browser, width, 900).await;
            for (server, path, text) in [
                (&full, "/dead-letter", "11 documents"),
                (&full, "/server", "11 from elasticsearch"),
                (&closed, "/", "Log in"),
            ] {
                browser.open(&format!("{}{path}", server.admin())).await;
                browser.wait_for_text(text).await;
                let open = "document.querySelectorAll('details').forEach((one) => { one.open = true })";
                browser.run(open).await;
                let violations = browser.accessibility_violations(&axe).await;
                assert!(violations.is_empty(), "{path}: {violations:#?}");
                assert_fits(&browser, &format!("{path} at {width} px")).await;
            }
        }
        browser.close().await;
    });
}

#[test]
fn a_narrow_window_shows_the_filters_on_demand() {
    let programs = need!(programs());
    let server = busy_shop();
    in_browser(&programs, async |browser| {
        resize(&browser, 360, 740).await;
        browser.open(&format!("{}/?from=-1h", server.admin())).await;
        browser.wait_for_text("request received").await;
        let shown = "return getComputedStyle(document.querySelector('#filters')).display";
        assert_eq!(browser.run(shown).await, "none");
        browser.find("button.narrow").await.click().await.unwrap();
        browser
            .find("#filters input[type=checkbox]")
            .await
            .click()
            .await
            .unwrap();
        browser.wait_for_text("Filters (1)").await;
        browser.wait_for_text("1 trace").await;
        assert_clean(&browser, &server).await;
        browser.close().await;
    });
}
