//! The Server view: every number that the API has is on it, and it says why the server is not ready.

use windrow_testkit::need;

use super::{assert_clean, in_browser, programs, shop};
use crate::windrow;

/// Gives every number of the API's answer a value of its own, shows them, and returns those that the
/// view does not show. Rates are in the header and in charts.
const MISSING: &str = "
    const { app, bytes } = window.windrow;
    const stats = structuredClone(app.stats);
    const shown = [];
    const next = () => 101 + shown.length;
    const number = (of) => {
      for (const [name, value] of Object.entries(of)) {
        if (value && typeof value === 'object') number(value);
        else if (typeof value === 'number') {
          const size = name.toLowerCase().endsWith('bytes');
          of[name] = size ? next() * 1048576 : next();
          shown.push([name, size ? bytes(of[name]) : String(of[name])]);
        }
      }
    };
    const { now, uptimeSeconds, series, ...counted } = stats;
    counted.outputs[0].errors = { timeout: 1 };
    number(counted);
    app.stats = { ...stats, ...counted };
    app.update();
    await new Promise((done) => setTimeout(done, 200));
    const words = document.querySelector('main').innerText.split(/[^0-9.A-Za-z]+/).join(' ');
    return [shown.length, shown.filter(([, text]) => !` ${words} `.includes(` ${text} `)).map(([name]) => name)]";

#[test]
fn every_number_of_the_server_is_shown() {
    let programs = need!(programs());
    let server = shop(3);
    in_browser(&programs, async |browser| {
        browser.open(&format!("{}/server", server.admin())).await;
        browser.wait_for_text("Search index").await;
        browser.wait_for_text("Output sqlite").await;
        let answer = browser.run_async(MISSING).await;
        assert_eq!(answer[1], serde_json::json!([]), "{answer}");
        // Those of intake, gathering, journal, memory, output, index, dead letter, rejected, audit.
        assert!(answer[0].as_u64().unwrap() >= 30, "{answer}");
        assert_clean(&browser, &server).await;
        browser.close().await;
    });
}

#[test]
fn the_charts_have_the_last_hour_and_health_its_reasons() {
    let programs = need!(programs());
    // Nobody listens there.
    let server = windrow().elasticsearch("http://127.0.0.1:9", "away").start();
    in_browser(&programs, async |browser| {
        browser.open(&format!("{}/server", server.admin())).await;
        browser.wait_for_text("Not ready").await;
        let reason = browser.find(".health .problem").await.text().await.unwrap();
        assert!(reason.contains("elasticsearch"), "{reason}");
        browser
            .wait_until(
                "six charts",
                "return document.querySelectorAll('.chart canvas').length === 6",
            )
            .await;
        let label = "return document.querySelector('.chart [role=img]').getAttribute('aria-label')";
        let label = browser.run(label).await;
        assert!(
            label
                .as_str()
                .unwrap()
                .starts_with("Records of the last hour; now "),
            "{label}"
        );
        let state = browser.find(".state").await.text().await.unwrap();
        assert!(state.starts_with("not ready"), "{state}");
        browser.close().await;
    });
}
