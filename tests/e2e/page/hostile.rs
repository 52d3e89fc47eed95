//! Log content that would like to be a script, in every field and every view.

use serde_json::json;
use windrow_testkit::{http, need};

use super::{assert_clean, in_browser, programs, send, wait_searchable};
use crate::windrow;

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
            let shown = "document.querySelectorAll('details').forEach((one) => { one.open = true }); \
                         await new Promise((done) => setTimeout(done, 60)); return window.hacked ?? 'no'";
            assert_eq!(browser.run_async(shown).await, "no", "{address}");
            let foreign =
                "return document.querySelectorAll('main script, main img, main iframe, svg[onload]').length";
            assert_eq!(browser.run(foreign).await, 0, "{address}");
        }
        // A mistake in a query is answered with an error, which is no error of the page.
        browser.console().await;
        browser.open(&server.admin()).await;
        browser.wait_for_text("request completed").await;
        assert_clean(&browser, &server).await;
        browser.close().await;
    });
}
