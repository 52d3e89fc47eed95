//! Everything by keyboard: no pointer, and no focus that a script sets.

use fantoccini::key::Key;
use windrow_testkit::browser::Browser;
use windrow_testkit::fake_elasticsearch::{FakeElasticsearch, Faults};
use windrow_testkit::need;

use super::dead_letter::{refused, send_refused};
use super::search::wait_for_rows;
use super::{assert_clean, in_browser, programs, shop, tab_to};

async fn press(browser: &Browser, key: Key) {
    browser.press(&char::from(key).to_string()).await;
}

#[test]
fn the_keyboard_finds_filters_zooms_and_reads() {
    let programs = need!(programs());
    let server = shop(2);
    in_browser(&programs, async |browser| {
        browser.open(&server.admin()).await;
        wait_for_rows(&browser, 3).await;
        // The first stop leads past the header.
        press(&browser, Key::Tab).await;
        let first = browser.run("return document.activeElement.textContent").await;
        assert_eq!(first, "Skip to content");

        tab_to(&browser, "aside input[type=checkbox]").await;
        browser.press(" ").await;
        wait_for_rows(&browser, 1).await;
        let still = "return document.activeElement.matches('aside input[type=checkbox]')";
        assert_eq!(browser.run(still).await, true, "the focus stays");
        browser.press(" ").await;
        wait_for_rows(&browser, 3).await;
        tab_to(&browser, "aside input[type=range]").await;
        press(&browser, Key::End).await;
        browser.wait_for_text("No traces match").await;
        press(&browser, Key::Home).await;
        wait_for_rows(&browser, 3).await;

        browser.press("/").await;
        browser.press("timeout").await;
        wait_for_rows(&browser, 1).await;
        press(&browser, Key::Escape).await;
        browser.press("j").await;
        let focused = browser.run("return document.activeElement.className").await;
        assert_eq!(focused, "row");
        press(&browser, Key::Enter).await;
        browser.wait_for_text("retrying charge").await;
        tab_to(&browser, "ol.lines a.offset").await;
        press(&browser, Key::Enter).await;
        browser.find("li.chosen").await;
        tab_to(&browser, "details.raw summary").await;
        press(&browser, Key::Enter).await;
        browser.find("details.raw[open]").await;
        browser.press("u").await;
        wait_for_rows(&browser, 1).await;

        // To the last bar of the histogram, which comes on its own, and into it.
        browser.find(".hist .bar").await;
        tab_to(&browser, ".hist svg").await;
        press(&browser, Key::Left).await;
        press(&browser, Key::Enter).await;
        browser
            .wait_until("the zoom", "return location.search.includes('from=1')")
            .await;
        press(&browser, Key::Backspace).await;
        browser
            .wait_until("the way back", "return !location.search.includes('from=')")
            .await;
        assert_clean(&browser, &server).await;
        browser.close().await;
    });
}

#[test]
fn the_keyboard_goes_to_every_view() {
    let programs = need!(programs());
    let server = shop(1);
    in_browser(&programs, async |browser| {
        browser.open(&server.admin()).await;
        wait_for_rows(&browser, 2).await;
        for (letter, text) in [
            ("s", "Audit difference"),
            ("d", "Nothing was refused"),
            ("o", "No trace is open"),
            ("l", "Waiting for traces"),
        ] {
            // In one go: the second key belongs to the first for a second only.
            browser.press(&format!("g{letter}")).await;
            browser.wait_for_text(text).await;
        }
        tab_to(&browser, "button[aria-pressed]").await;
        browser.press(" ").await;
        browser.find("button[aria-pressed=true]").await;
        press(&browser, Key::Enter).await;
        browser.find("button[aria-pressed=false]").await;
        browser.press("?").await;
        browser.find("dialog[open]").await;
        press(&browser, Key::Escape).await;
        browser
            .wait_until(
                "the help to close",
                "return !document.querySelector('dialog[open]')",
            )
            .await;
        browser.press("gt").await;
        wait_for_rows(&browser, 2).await;
        assert_clean(&browser, &server).await;
        browser.close().await;
    });
}

#[test]
fn the_keyboard_replays_the_dead_letter() {
    let programs = need!(programs());
    let sink = FakeElasticsearch::with(refused("keys-1"));
    let server = send_refused(&sink, "keys-");
    in_browser(&programs, async |browser| {
        browser.open(&format!("{}/dead-letter", server.admin())).await;
        browser.wait_for_text("11 documents").await;
        tab_to(&browser, "table button").await;
        press(&browser, Key::Enter).await;
        browser.wait_for_text("Documents with this reason").await;
        tab_to(&browser, "details summary").await;
        press(&browser, Key::Enter).await;
        browser.wait_for_text("of keys-1").await;
        sink.set(Faults::default());
        tab_to(&browser, "button.primary").await;
        press(&browser, Key::Enter).await;
        browser.wait_for_text("11 of 11 documents were written").await;
        assert_clean(&browser, &server).await;
        browser.close().await;
    });
}
