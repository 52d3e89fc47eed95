//! Search, facets, zoom, and the trace behind a row.

use fantoccini::actions::{InputSource, MouseActions, PointerAction};
use std::process::Command;
use std::time::Duration;
use windrow_testkit::browser::Browser;
use windrow_testkit::need;

use super::{assert_clean, in_browser, programs, shop};
use crate::windrow;

/// Waits until the list has this many rows.
pub(super) async fn wait_for_rows(browser: &Browser, count: u64) {
    let script = format!("return document.querySelectorAll('a.row').length === {count}");
    browser.wait_until(&format!("{count} rows"), &script).await;
}

#[test]
fn a_search_leads_to_the_trace_and_its_lines() {
    let programs = need!(programs());
    let server = shop(5);
    in_browser(&programs, async |browser| {
        browser.open(&server.admin()).await;
        wait_for_rows(&browser, 6).await;
        let search = browser.find("input[type=search]").await;
        search.send_keys("timeout level:error").await.unwrap();
        wait_for_rows(&browser, 1).await;
        let marked = browser
            .run("return document.querySelector('td.t mark').textContent")
            .await;
        assert_eq!(marked, "timeout");
        let address = browser.client().current_url().await.unwrap();
        assert!(address.query().unwrap().contains("q=timeout"), "{address}");

        browser.find("a.row").await.click().await.unwrap();
        browser.wait_for_text("retrying charge").await;
        // The waterfall is drawn once its width is known.
        browser.find("circle.mark").await;
        let counts = browser
            .run("return [document.querySelectorAll('circle.mark').length, document.querySelectorAll('.lines li').length, document.querySelectorAll('text.lane').length]")
            .await;
        assert_eq!(counts, serde_json::json!([4, 4, 2]), "marks, lines, lanes");
        browser.find("circle.mark.error").await.click().await.unwrap();
        browser.find("li.chosen.error").await;
        let address = browser.client().current_url().await.unwrap();
        assert_eq!(address.query(), Some("line=3"), "a link to the line");
        browser.client().refresh().await.unwrap();
        browser.find("li.chosen.error").await;

        let filter = browser.find(".tools input[type=search]").await;
        filter.send_keys("retry").await.unwrap();
        browser.wait_for_text("1 of 4 lines").await;
        assert_clean(&browser, &server).await;
        browser.close().await;
    });
}

#[test]
fn a_mistake_is_shown_at_its_place() {
    let programs = need!(programs());
    let server = shop(1);
    in_browser(&programs, async |browser| {
        browser
            .open(&format!("{}/?q=timeout+(level%3Awarn", server.admin()))
            .await;
        let problem = browser.find(".problem .place").await;
        let text = problem.text().await.unwrap();
        assert!(
            text.contains("timeout (level:warn") && text.contains('^'),
            "{text}"
        );
        browser.close().await;
    });
}

#[test]
fn facets_and_the_histogram_narrow_the_list() {
    let programs = need!(programs());
    let server = shop(4);
    in_browser(&programs, async |browser| {
        browser.open(&format!("{}/?from=-15m", server.admin())).await;
        wait_for_rows(&browser, 5).await;
        browser
            .find("aside input[type=checkbox]")
            .await
            .click()
            .await
            .unwrap();
        wait_for_rows(&browser, 1).await;
        let address = browser.client().current_url().await.unwrap();
        assert!(address.query().unwrap().contains("level=error"), "{address}");
        browser.find("aside button").await.click().await.unwrap();
        wait_for_rows(&browser, 5).await;

        // Everything is in the last bars: a drag over the first half finds nothing.
        browser.find(".hist .bar").await;
        let svg = browser.find(".hist svg").await;
        let (x, y, width, height) = svg.rectangle().await.unwrap();
        let at = |part: f64| PointerAction::MoveTo {
            duration: Some(Duration::from_millis(50)),
            x: x + width * part,
            y: y + height / 2.0,
        };
        let drag = MouseActions::new("mouse".into())
            .then(at(0.1))
            .then(PointerAction::Down { button: 0 })
            .then(at(0.3))
            .then(at(0.5))
            .then(PointerAction::Up { button: 0 });
        browser.client().perform_actions(drag).await.unwrap();
        browser.wait_for_text("No traces match").await;
        let address = browser.client().current_url().await.unwrap();
        let query = address.query().unwrap().to_owned();
        assert!(query.contains("from=1") && query.contains("to=1"), "{query}");
        browser.client().back().await.unwrap();
        wait_for_rows(&browser, 5).await;
        assert_clean(&browser, &server).await;
        browser.close().await;
    });
}

#[test]
fn an_empty_store_says_how_to_send_the_first_trace() {
    let programs = need!(programs());
    let server = windrow().sqlite().start();
    server.wait_ready();
    in_browser(&programs, async |browser| {
        browser.open(&server.admin()).await;
        let port = server.forward().port();
        browser.wait_for_text("No traces yet").await;
        browser.wait_for_text(&format!("/dev/tcp/127.0.0.1/{port}")).await;
        let fluent_bit = browser
            .run("return [...document.querySelectorAll('pre')].at(-1).innerText")
            .await;
        let fluent_bit = fluent_bit.as_str().unwrap();
        for line in ["Name forward", "Host 127.0.0.1", &format!("Port {port}")] {
            let words: Vec<_> = line.split(' ').collect();
            let said = fluent_bit
                .lines()
                .any(|said| said.split_whitespace().eq(words.iter().copied()));
            assert!(said, "{line}: {fluent_bit}");
        }

        // What it says to do in a shell is right, and the trace appears by itself.
        let shell = browser
            .run("return document.querySelector('pre').innerText")
            .await;
        let done = Command::new("bash")
            .arg("-c")
            .arg(shell.as_str().unwrap())
            .status();
        assert!(done.unwrap().success());
        wait_for_rows(&browser, 1).await;
        browser.wait_for_text("request completed").await;

        // Nothing matches: it offers the way back.
        browser
            .open(&format!("{}/?q=nowhere&from=-1h", server.admin()))
            .await;
        browser.wait_for_text("No traces match").await;
        browser.find(".empty button").await.click().await.unwrap();
        browser
            .wait_until(
                "the search to be cleared",
                "return location.search === '?from=-1h'",
            )
            .await;
        assert_clean(&browser, &server).await;
        browser.close().await;
    });
}
