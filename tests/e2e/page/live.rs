//! The live tail, also under a load while somebody reads.

use serde_json::json;
use windrow_testkit::load::Load;
use windrow_testkit::need;

use super::{assert_clean, for_a_while, in_browser, programs, send, send_shop, shop};
use crate::windrow;

#[test]
fn traces_appear_as_they_are_sealed_and_wait_while_paused() {
    let programs = need!(programs());
    let server = windrow().sqlite().start();
    server.wait_ready();
    in_browser(&programs, async |browser| {
        browser.open(&format!("{}/live?q=timeout", server.admin())).await;
        browser.wait_for_text("Waiting for traces").await;
        send_shop(&server, 3);
        browser.wait_for_text("payment gateway timeout").await;
        let rows = "return document.querySelectorAll('a.row').length";
        assert_eq!(browser.run(rows).await, 1, "only what matches");
        browser.find("button[aria-pressed]").await.click().await.unwrap();
        let record = json!({"traceId": "second", "message": "second timeout, request completed"});
        send(&server, "shop", &[(0.0, record)]);
        browser.wait_for_text("1 trace waiting").await;
        assert_eq!(browser.run(rows).await, 1);
        browser.find("button[aria-pressed]").await.click().await.unwrap();
        browser.wait_for_text("second timeout").await;
        assert_clean(&browser, &server).await;
        browser.close().await;
    });
}

#[test]
fn an_open_trace_is_shown_with_its_newest_text() {
    let programs = need!(programs());
    let server = windrow().sqlite().start();
    server.wait_ready();
    in_browser(&programs, async |browser| {
        let line = |text: &str| json!({"traceId": "slow", "message": text});
        send(
            &server,
            "shop",
            &[(0.0, line("first")), (0.1, line("waiting for payment"))],
        );
        browser.open(&format!("{}/open", server.admin())).await;
        browser.wait_for_text("waiting for payment").await;
        browser.wait_for_text("1 trace with 2 lines").await;
        assert_clean(&browser, &server).await;
        browser.close().await;
    });
}

#[test]
fn what_one_reads_does_not_move_under_a_load() {
    let programs = need!(programs());
    let server = shop(40);
    in_browser(&programs, async |browser| {
        browser
            .open(&format!("{}/?live=1&from=-1h", server.admin()))
            .await;
        browser.find("a.row").await;
        // Reading: scrolled down, with one row focused.
        browser
            .run("document.querySelectorAll('a.row')[20].focus({preventScroll: true}); window.scrollTo(0, 400)")
            .await;
        let place = "return [document.activeElement.getAttribute('href'), document.activeElement.getBoundingClientRect().top]";
        let before = browser.run(place).await;
        let load = Load {
            traces: 20_000,
            ..Load::new(server.forward(), "load-")
        };
        let running = load.start();
        browser.find("button.fresh").await;
        assert_eq!(browser.run(place).await, before);
        for _ in 0..3 {
            for_a_while().await;
            assert_eq!(browser.run(place).await, before);
        }
        drop(running.finish());
        assert_eq!(browser.run(place).await, before);
        browser.find("button.fresh").await.click().await.unwrap();
        browser
            .wait_until(
                "the new traces",
                "return document.querySelector('a.row').href.includes('load-')",
            )
            .await;
        assert_clean(&browser, &server).await;
        browser.close().await;
    });
}
