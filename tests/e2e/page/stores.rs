//! The same page on Elasticsearch: search, facets, histogram, trace.

use windrow_testkit::{elasticsearch, need};

use super::search::wait_for_rows;
use super::{assert_clean, in_browser, programs, send_shop, wait_searchable};
use crate::windrow;

#[test]
fn the_page_works_on_elasticsearch() {
    let programs = need!(programs());
    let node = need!(elasticsearch::shared());
    let server = windrow().elasticsearch(&node.url(), "page-of-a-shop").start();
    server.wait_ready();
    send_shop(&server, 3);
    wait_searchable(&server, 4);
    in_browser(&programs, async |browser| {
        browser.open(&format!("{}/?from=-1h", server.admin())).await;
        wait_for_rows(&browser, 4).await;
        browser.find(".hist .bar.error").await;
        browser.wait_for_text("gateway").await;
        browser
            .find("aside input[type=checkbox]")
            .await
            .click()
            .await
            .unwrap();
        wait_for_rows(&browser, 1).await;
        let search = browser.find("input[type=search]").await;
        search.send_keys("timeo*").await.unwrap();
        browser.find("td.t mark").await;
        browser.find("a.row").await.click().await.unwrap();
        browser.wait_for_text("retrying charge").await;
        browser.find("circle.mark.error").await;
        browser.wait_for_text("page-of-a-shop-").await;
        browser.open(&format!("{}/server", server.admin())).await;
        browser.wait_for_text("Output elasticsearch").await;
        assert_clean(&browser, &server).await;
        browser.close().await;
    });
}
