//! The dead letter in the page: by reason, and its replay with the outcome.

use windrow_testkit::fake_elasticsearch::{FakeElasticsearch, Faults};
use windrow_testkit::load::Load;
use windrow_testkit::{need, wait};

use super::{assert_clean, in_browser, programs};
use crate::{SOON, windrow};

#[test]
fn refused_documents_are_replayed_with_a_click() {
    let programs = need!(programs());
    let sink = FakeElasticsearch::with(Faults {
        poison: Some("of poison-1".to_owned()),
        ..Faults::default()
    });
    let server = windrow().elasticsearch(&sink.url(), "poison").start();
    let load = Load {
        traces: 20,
        ..Load::new(server.forward(), "poison-")
    };
    drop(load.run());
    // 1 and 10 to 19.
    wait::until("the dead letter", SOON, || {
        let page = server.get("/api/v1/dead-letter").json();
        if page["total"] == 11 {
            Ok(())
        } else {
            Err(page.to_string())
        }
    });
    in_browser(&programs, async |browser| {
        browser.open(&format!("{}/dead-letter", server.admin())).await;
        browser.wait_for_text("11 documents").await;
        browser.find("details summary").await.click().await.unwrap();
        browser.wait_for_text("of poison-1").await;
        sink.set(Faults::default());
        browser.find("button.primary").await.click().await.unwrap();
        browser.wait_for_text("11 of 11 documents were written").await;
        browser.wait_for_text("Nothing was refused").await;
        assert_clean(&browser, &server).await;
        browser.close().await;
    });
    assert_eq!(sink.documents("poison-").len(), 20);
}
