//! Search, facets, zoom, the trace behind a row, and the same by keyboard alone.

use fantoccini::actions::{InputSource, MouseActions, PointerAction};
use fantoccini::key::Key;
use std::time::Duration;
use windrow_testkit::browser::Browser;
use windrow_testkit::need;

use super::{assert_clean, for_a_while, in_browser, programs, shop};

/// Number of rows in the list.
async fn rows(browser: &Browser) -> u64 {
    let count = browser
        .run("return document.querySelectorAll('a.row').length")
        .await;
    count.as_u64().unwrap()
}

async fn wait_for_rows(browser: &Browser, count: u64) {
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
fn the_keyboard_is_enough() {
    let programs = need!(programs());
    let server = shop(2);
    let key = |key: Key| char::from(key).to_string();
    in_browser(&programs, async |browser| {
        browser.open(&server.admin()).await;
        wait_for_rows(&browser, 3).await;
        browser.press("/").await;
        browser.press("timeout").await;
        wait_for_rows(&browser, 1).await;
        browser.press(&key(Key::Escape)).await;
        browser.press("j").await;
        let focused = browser.run("return document.activeElement.className").await;
        assert_eq!(focused, "row");
        browser.press(&key(Key::Enter)).await;
        browser.wait_for_text("retrying charge").await;
        browser.press("u").await;
        wait_for_rows(&browser, 1).await;

        // The histogram, which comes on its own: to its last bar, and into it.
        browser.find(".hist .bar").await;
        let focus = "document.querySelector('.hist svg').focus(); return document.activeElement.tagName";
        assert_eq!(browser.run(focus).await, "svg");
        browser.press(&key(Key::Left)).await;
        browser.press(&key(Key::Enter)).await;
        browser
            .wait_until("the zoom", "return location.search.includes('from=1')")
            .await;
        for (letter, text) in [("s", "Audit difference"), ("o", "Open traces"), ("l", "Live")] {
            browser.run("document.activeElement.blur()").await;
            browser.press("g").await;
            browser.press(letter).await;
            browser.wait_for_text(text).await;
        }
        browser.press("?").await;
        browser.find("dialog[open]").await;
        browser.press(&key(Key::Escape)).await;
        for_a_while().await;
        assert_eq!(rows(&browser).await, 0);
        assert_clean(&browser, &server).await;
        browser.close().await;
    });
}
