//! The other instances in the Server view: what they took, and one that is gone.

use windrow_testkit::load::Load;
use windrow_testkit::{need, ports, wait};

use super::{assert_clean, in_browser, programs};
use crate::{SOON, windrow};

#[test]
fn the_server_view_shows_the_other_instances() {
    let programs = need!(programs());
    let ports = [ports::free(), ports::free()];
    let mut servers = ports.map(|port| {
        let setup = windrow().sqlite().port(port);
        let peers = ports.iter().map(|port| format!("127.0.0.1:{port}"));
        peers
            .fold(setup, |setup, peer| setup.arg("--cluster-peers", peer))
            .start()
    });
    wait::until("its peer", SOON, || {
        match servers[0].metric("windrow_cluster_peers_reachable") {
            1.0 => Ok(()),
            _ => Err(servers[0].get("/ready").text),
        }
    });
    drop(Load::new(servers[0].forward(), "peer-").run());
    let handed = servers[0].metric("windrow_cluster_records_handed_over_total");
    assert!(handed > 0.0);
    in_browser(&programs, async |browser| {
        browser.open(&format!("{}/server", servers[0].admin())).await;
        browser.wait_for_text("Other instances").await;
        browser.wait_for_text(&format!("127.0.0.1:{}", ports[1])).await;
        browser.wait_for_text("takes records").await;
        let shown =
            "return document.querySelector('.peers tbody td:nth-of-type(3)').innerText.replace(/\\D/g, '')";
        assert_eq!(browser.run(shown).await, handed.to_string());
        assert_clean(&browser, &servers[0]).await;
        let is_away = "return document.querySelector('.peers .dot.bad') !== null";
        assert_eq!(browser.run(is_away).await, false);
        servers[1].kill();
        browser
            .wait_until(
                "the other to be away",
                &is_away.replacen("return", "window.windrow.app.loadStats?.(); return", 1),
            )
            .await;
        browser.close().await;
    });
}
