//! The dead letter in the page: by reason, and its replay with the outcome.

use windrow_testkit::fake_elasticsearch::{FakeElasticsearch, Faults};
use windrow_testkit::load::Load;
use windrow_testkit::server::Server;
use windrow_testkit::{need, wait};

use super::{assert_clean, in_browser, programs};
use crate::{SOON, windrow};

/// A store that refuses documents with this text.
pub(super) fn refused(text: &str) -> Faults {
    Faults {
        poison: Some(format!("of {text}")),
        ..Faults::default()
    }
}

/// A server that has sent 20 traces to the store, of which the numbers 1 and 10 to 19 are refused.
pub(super) fn send_refused(sink: &FakeElasticsearch, prefix: &str) -> Server {
    let server = windrow()
        .elasticsearch(&sink.url(), prefix.trim_end_matches('-'))
        .start();
    let load = Load {
        traces: 20,
        ..Load::new(server.forward(), prefix)
    };
    drop(load.run());
    wait::until("the dead letter", SOON, || {
        let page = server.get("/api/v1/dead-letter").json();
        if page["total"] == 11 {
            Ok(())
        } else {
            Err(page.to_string())
        }
    });
    server
}

#[test]
fn refused_documents_are_replayed_with_a_click() {
    let programs = need!(programs());
    let sink = FakeElasticsearch::with(refused("poison-1"));
    let server = send_refused(&sink, "poison-");
    in_browser(&programs, async |browser| {
        browser.open(&format!("{}/dead-letter", server.admin())).await;
        browser.wait_for_text("11 documents").await;
        let reasons = "return [...document.querySelectorAll('table[aria-label=Reasons] tbody tr')].map((row) => [...row.cells].slice(0, 3).map((cell) => cell.innerText))";
        assert_eq!(
            browser.run(reasons).await,
            serde_json::json!([["document_parsing_exception", "elasticsearch", "11"]])
        );
        browser.find("details summary").await.click().await.unwrap();
        browser.wait_for_text("of poison-1").await;
        browser.wait_for_text("failed to parse field").await;

        // The reason is still there: the outcome says so, and nothing is lost.
        browser.find("button.primary").await.click().await.unwrap();
        browser
            .wait_for_text("0 of 11 documents were written, 11 refused again")
            .await;
        browser.wait_for_text("11 documents").await;
        sink.set(Faults::default());
        browser.find("button.primary").await.click().await.unwrap();
        browser.wait_for_text("11 of 11 documents were written").await;
        browser.wait_for_text("Nothing was refused").await;
        assert_clean(&browser, &server).await;
        browser.close().await;
    });
    assert_eq!(sink.documents("poison-").len(), 20);
}
