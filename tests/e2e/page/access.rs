//! Logging in: the page asks for the token, keeps it out of addresses, and remembers the session.

use windrow_testkit::need;

use super::{in_browser, programs, send_shop};
use crate::windrow;

#[test]
fn the_token_is_asked_for_once_and_is_in_no_address() {
    let programs = need!(programs());
    let server = windrow().sqlite().arg("--admin-token", "s3cret").start();
    send_shop(&server, 1);
    in_browser(&programs, async |browser| {
        // As in a bookmark: the page neither takes the token from there nor leaves it there.
        let bookmark = format!("{}/trace/failing?token=s3cret", server.admin());
        browser.open(&bookmark).await;
        browser.wait_for_text("Log in").await;
        let address = browser.client().current_url().await.unwrap();
        assert_eq!(address.query(), None, "{address}");
        browser.find("#token").await.send_keys("wrong").await.unwrap();
        browser.press("\u{e007}").await;
        browser.wait_for_text("wrong token").await;
        let field = browser.find("#token").await;
        field.clear().await.unwrap();
        field.send_keys("s3cret").await.unwrap();
        browser.press("\u{e007}").await;
        // Stored and searchable, at the latest after a while: asked again until then.
        browser
            .wait_until("the trace", "if (!document.body.innerText.includes('retrying charge')) { window.windrow.app.view.load?.(); return false } return true")
            .await;
        let address = browser.client().current_url().await.unwrap();
        assert_eq!(address.path(), "/trace/failing");
        let loaded = browser.loaded().await;
        assert!(
            loaded.iter().all(|address| !address.contains("s3cret")),
            "{loaded:?}"
        );
        assert_eq!(
            browser.run("return document.cookie").await,
            "",
            "no script sees it"
        );
        browser.client().refresh().await.unwrap();
        browser.wait_for_text("retrying charge").await;
        browser.close().await;
    });
}
