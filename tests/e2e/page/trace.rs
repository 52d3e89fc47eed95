//! The Trace view: copying, wrapping, the raw document, late and truncated lines, links that last.

use serde_json::{Value, json};
use windrow_testkit::{need, wait};

use super::{assert_clean, in_browser, programs, send, shop, wait_searchable};
use crate::{SOON, windrow};

/// What the page would put on the clipboard, which a headless browser may not have.
const COPIED: &str = "
    let text = '';
    Object.defineProperty(navigator, 'clipboard', {
      configurable: true,
      value: { writeText: async (given) => { text = given } },
    });
    const buttons = [...document.querySelectorAll('.actions button')];
    buttons.find((button) => button.textContent.trim() === arguments[0]).click();
    await new Promise((done) => setTimeout(done, 50));
    return text";

#[test]
fn a_trace_is_copied_as_text_and_json_and_wraps() {
    let programs = need!(programs());
    let server = shop(1);
    in_browser(&programs, async |browser| {
        let address = format!("{}/trace/failing", server.admin());
        browser.open(&address).await;
        browser.wait_for_text("retrying charge").await;
        let copy = async |what: &str| {
            let script = COPIED.replace("arguments[0]", &json!(what).to_string());
            let text = browser.run_async(&script).await;
            text.as_str().unwrap().to_owned()
        };
        assert_eq!(copy("Copy link").await, address);
        let text = copy("Copy text").await;
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        assert!(
            lines[2].contains(" error order payment gateway timeout"),
            "{text}"
        );
        let document: Value = serde_json::from_str(&copy("Copy JSON").await).unwrap();
        assert_eq!(document["traceId"], "failing");
        assert_eq!(document["windrow"]["services"], json!(["gateway", "order"]));

        let space = "return getComputedStyle(document.querySelector('.lines .text')).whiteSpace";
        assert_eq!(browser.run(space).await, "pre-wrap");
        browser
            .find(".tools input[type=checkbox]")
            .await
            .click()
            .await
            .unwrap();
        browser
            .wait_until("lines that do not wrap", &format!("{space} === 'pre'"))
            .await;
        browser.find("details.raw summary").await.click().await.unwrap();
        let raw = browser.find("details.raw pre").await.text().await.unwrap();
        let raw: Value = serde_json::from_str(&raw).unwrap();
        assert_eq!(raw, document);
        assert_clean(&browser, &server).await;
        browser.close().await;
    });
}

#[test]
fn late_and_truncated_lines_are_marked_and_links_last() {
    let programs = need!(programs());
    let server = windrow().sqlite().start();
    server.wait_ready();
    let line = |text: &str| json!({"traceId": "a/b ?#%", "service": "shop", "message": text});
    send(
        &server,
        "shop",
        &[(-5.0, line("first")), (-4.0, line("request completed"))],
    );
    wait_searchable(&server, 1);
    send(&server, "shop", &[(-3.0, line("straggler came late"))]);
    wait::until("the late line", SOON, || {
        let page = server.get("/api/v1/traces?q=straggler").json();
        let found = page["traces"].as_array().map_or(0, Vec::len);
        if found == 1 { Ok(()) } else { Err(page.to_string()) }
    });
    in_browser(&programs, async |browser| {
        browser.open(&server.admin()).await;
        browser.wait_for_text("1 late").await;
        browser.find("a.row").await.click().await.unwrap();
        browser.wait_for_text("straggler came late").await;
        let late = browser.find("ol.lines li .flag").await.text().await.unwrap();
        assert_eq!(late, "late");
        browser.find("circle.mark.late").await;
        // An id with everything that an address could misread.
        browser.client().refresh().await.unwrap();
        browser.wait_for_text("straggler came late").await;
        assert_clean(&browser, &server).await;

        // What the API says of a trace that was too long.
        let truncate = "const { app } = window.windrow; app.view.data.traces[0].lines[2].truncated = true; \
                        app.view.data.traces[0].summary.truncated = 7; app.update()";
        browser.run(truncate).await;
        browser.wait_for_text("7 lines too many").await;
        browser.wait_for_text("truncated").await;
        browser.close().await;
    });
}
