//! The live tail, also under a load while somebody reads.

use serde_json::json;
use windrow_testkit::load::Load;
use windrow_testkit::need;

use super::search::wait_for_rows;
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

/// Reads on while 200,000 traces of a line each come, 20,000 a second where the machine gives that.
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
            traces: 200_000,
            lines: 1,
            chunk_records: 1000,
            rate: 20_000,
            ..Load::new(server.forward(), "load-")
        };
        let running = load.start();
        browser.find("button.fresh").await;
        assert_eq!(browser.run(place).await, before);
        let mut looks = 0;
        while !running.is_finished() {
            for_a_while().await;
            assert_eq!(browser.run(place).await, before);
            looks += 1;
        }
        let report = running.finish();
        println!("{looks} looks, {:.0} traces/s", 200_000.0 / report.seconds);
        assert_eq!(browser.run(place).await, before);
        // More than any page shows: it says so, and keeps a bounded number.
        browser
            .wait_for_text("came faster than this page shows them")
            .await;
        // The keyboard goes on from the row that has the focus.
        browser.press("j").await;
        let moved = browser.run(place).await;
        assert_ne!(moved[0], before[0]);
        browser.find("button.fresh").await.click().await.unwrap();
        browser
            .wait_until(
                "the new traces",
                "return document.querySelector('a.row').href.includes('load-')",
            )
            .await;
        let rows = "return document.querySelectorAll('a.row').length";
        assert!(browser.run(rows).await.as_u64().unwrap() <= 1000);
        assert_clean(&browser, &server).await;
        browser.close().await;
    });
}

#[test]
fn the_live_view_stays_usable_under_a_load() {
    let programs = need!(programs());
    let server = windrow().sqlite().start();
    server.wait_ready();
    in_browser(&programs, async |browser| {
        browser.open(&format!("{}/live", server.admin())).await;
        browser.wait_for_text("Waiting for traces").await;
        let load = Load {
            traces: 100_000,
            lines: 1,
            chunk_records: 1000,
            rate: 20_000,
            ..Load::new(server.forward(), "flood-")
        };
        let running = load.start();
        browser
            .wait_for_text("came faster than this page shows them")
            .await;
        let rows = "return [...document.querySelectorAll('a.row')].map((row) => row.href)";
        browser.find("button[aria-pressed]").await.click().await.unwrap();
        browser.find("button[aria-pressed=true]").await;
        let paused = browser.run(rows).await;
        assert!((1..=500).contains(&paused.as_array().unwrap().len()), "{paused}");
        drop(running.finish());
        assert_eq!(browser.run(rows).await, paused, "a pause is a pause");
        browser.find("button[aria-pressed]").await.click().await.unwrap();
        // As long as traces of the flood fill the events, others are lost with them.
        for number in 0..20 {
            let record =
                json!({"traceId": format!("last-{number}"), "message": "after the flood, request completed"});
            send(&server, "shop", &[(0.0, record)]);
            for_a_while().await;
            if browser.text().await.contains("after the flood") {
                break;
            }
        }
        browser.wait_for_text("after the flood").await;
        assert_clean(&browser, &server).await;
        browser.close().await;
    });
}

/// Somebody who is at the top and reads nothing sees new traces at once.
#[test]
fn new_traces_come_in_at_the_top() {
    let programs = need!(programs());
    let server = shop(2);
    in_browser(&programs, async |browser| {
        browser
            .open(&format!("{}/?live=1&q=completed&from=-1h", server.admin()))
            .await;
        wait_for_rows(&browser, 3).await;
        let top = "return document.querySelector('a.row').href";
        // Nothing says when the tail is connected: one after another is sent until one appears.
        for number in 0..100 {
            let record =
                json!({"traceId": format!("newest-{number}"), "message": "at the top, request completed"});
            send(&server, "shop", &[(0.0, record)]);
            for_a_while().await;
            if browser.run(top).await.as_str().unwrap().contains("newest-") {
                break;
            }
        }
        assert!(browser.run(top).await.as_str().unwrap().contains("newest-"));
        assert_eq!(browser.run("return window.scrollY").await, 0);
        assert_clean(&browser, &server).await;
        browser.close().await;
    });
}
