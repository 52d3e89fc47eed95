//! Log content that would like to be a script, in every field and every view.

use serde_json::json;
use windrow_testkit::browser::Browser;
use windrow_testkit::fake_elasticsearch::{FakeElasticsearch, Faults};
use windrow_testkit::{http, need, wait};

use super::{assert_clean, in_browser, programs, send, wait_searchable};
use crate::{SOON, windrow};

/// Each sets `window.hacked` where it is run.
const HOSTILE: [&str; 7] = [
    "<script>window.hacked=1</script>",
    "<img src=x onerror=window.hacked=1>",
    "\"><svg onload=window.hacked=1>",
    "javascript:window.hacked=1",
    "'-window.hacked=1-'",
    "${window.hacked=1}{{window.hacked=1}}",
    "</textarea></pre></code><iframe srcdoc=\"<script>parent.hacked=1</script>\">",
];

/// Opens everything that can be opened; nothing of it was run or became an element.
async fn assert_harmless(browser: &Browser, what: &str) {
    let shown = "document.querySelectorAll('details').forEach((one) => { one.open = true }); \
                 await new Promise((done) => setTimeout(done, 60)); return window.hacked ?? 'no'";
    assert_eq!(browser.run_async(shown).await, "no", "{what}");
    let foreign =
        "return document.querySelectorAll('main script, main img, main iframe, svg[onload]').length";
    assert_eq!(browser.run(foreign).await, 0, "{what}");
}

#[test]
fn nothing_of_a_log_is_run() {
    let programs = need!(programs());
    let server = windrow().sqlite().start();
    server.wait_ready();
    for text in HOSTILE {
        let record = json!({
            "traceId": text, "service": text, "level": "error", text: text,
            "message": format!("{text} request completed"),
        });
        send(&server, text, &[(-1.0, record)]);
        let open = json!({"traceId": format!("open {text}"), "message": text});
        send(&server, text, &[(0.0, open)]);
    }
    wait_searchable(&server, HOSTILE.len());
    let traces = server.get("/api/v1/traces?limit=100").json();
    let ids: Vec<_> = traces["traces"]
        .as_array()
        .unwrap()
        .iter()
        .map(|trace| trace["id"].as_str().unwrap().to_owned())
        .collect();
    in_browser(&programs, async |browser| {
        let mut addresses = vec!["/".to_owned(), "/live".into(), "/open".into(), "/server".into()];
        for text in HOSTILE.iter().map(|text| http::encode(text)) {
            addresses.push(format!("/?q={text}"));
            addresses.push(format!("/?service={text}&level={text}&from=-1h"));
            addresses.push(format!("/?q=%22{text}%22&sort={text}"));
        }
        addresses.extend(ids.iter().map(|id| format!("/trace/{}", http::encode(id))));
        for address in addresses {
            browser.open(&format!("{}{address}", server.admin())).await;
            browser
                .wait_until(
                    "the view",
                    "return document.querySelector('main')?.innerText.length > 3",
                )
                .await;
            assert_harmless(&browser, &address).await;
        }
        for text in HOSTILE {
            let open = json!({"traceId": format!("still open {text}"), "message": text});
            send(&server, text, &[(0.0, open)]);
        }
        // An address that is none of a trace.
        for text in HOSTILE.iter().map(|text| http::encode(text)) {
            browser
                .open(&format!("{}/trace/none-{text}", server.admin()))
                .await;
            browser.wait_for_text("No such trace").await;
            assert_harmless(&browser, "no trace").await;
        }
        browser.open(&format!("{}/open", server.admin())).await;
        browser.wait_for_text(&format!("still open {}", HOSTILE[0])).await;
        assert_harmless(&browser, "open traces").await;
        browser.open(&format!("{}/live", server.admin())).await;
        browser.wait_for_text("Waiting for traces").await;
        for text in HOSTILE {
            let record = json!({
                "traceId": format!("live {text}"), "service": text, "level": "error",
                "message": format!("{text} request completed"),
            });
            send(&server, text, &[(0.0, record)]);
        }
        let all = format!(
            "return document.querySelectorAll('a.row').length === {}",
            HOSTILE.len()
        );
        browser.wait_until("the live traces", &all).await;
        assert_harmless(&browser, "live traces").await;
        // A mistake in a query is answered with an error, which is no error of the page.
        browser.console().await;
        browser.open(&server.admin()).await;
        browser.wait_for_text("request completed").await;
        assert_clean(&browser, &server).await;
        browser.close().await;
    });
}

#[test]
fn nothing_of_a_refused_document_is_run() {
    let programs = need!(programs());
    let sink = FakeElasticsearch::with(Faults {
        // The store's reason repeats the value.
        poison: Some("hacked".to_owned()),
        ..Faults::default()
    });
    let server = windrow().elasticsearch(&sink.url(), "hostile").start();
    server.wait_ready();
    for text in HOSTILE {
        let record = json!({
            "traceId": text, "service": text, "level": "error", text: text,
            "message": format!("{text} request completed"),
        });
        send(&server, text, &[(-1.0, record)]);
    }
    wait::until("the dead letter", SOON, || {
        let page = server.get("/api/v1/dead-letter").json();
        if page["total"] == HOSTILE.len() {
            Ok(())
        } else {
            Err(page.to_string())
        }
    });
    in_browser(&programs, async |browser| {
        browser.open(&format!("{}/dead-letter", server.admin())).await;
        browser.wait_for_text("7 documents").await;
        assert_harmless(&browser, "the dead letter").await;
        browser.wait_for_text(HOSTILE[0]).await;
        browser.wait_for_text("Preview of field's value: '{").await;
        browser.find("button.primary").await.click().await.unwrap();
        browser.wait_for_text("7 refused again. First reason").await;
        assert_harmless(&browser, "the outcome of a replay").await;
        browser.open(&format!("{}/server", server.admin())).await;
        browser.wait_for_text("Audit difference").await;
        assert_harmless(&browser, "the server").await;
        assert_clean(&browser, &server).await;
        browser.close().await;
    });
}
