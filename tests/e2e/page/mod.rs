//! The page in a real Chromium: every view, search, zoom, live tail, login, dead letter, keyboard,
//! and that nothing of a log is ever run as a script.

mod access;
mod dead_letter;
mod hostile;
mod keyboard;
mod live;
mod look;
mod numbers;
mod peers;
mod pictures;
mod search;
mod stores;
mod trace;

use std::future::Future;
use std::io::Write as _;
use std::net::TcpStream;
use std::time::{Duration, SystemTime};

use fantoccini::key::Key;
use serde_json::{Value, json};
use windrow_testkit::browser::{Browser, ConsoleLine, Programs};
use windrow_testkit::env::Missing;
use windrow_testkit::server::Server;
use windrow_testkit::wait;

use crate::{SOON, windrow};

/// Size of the window, pixels.
const WIDTH: u32 = 1360;
const HEIGHT: u32 = 900;

/// Runs a test in a browser of its own.
fn in_browser<F: Future<Output = ()>>(programs: &Programs, test: impl FnOnce(Browser) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let browser = Browser::start(programs, WIDTH, HEIGHT).await;
        test(browser).await;
    });
}

/// The browser, if this machine has one.
fn programs() -> Result<Programs, Missing> {
    Programs::find()
}

/// Sends records over the Forward port as JSON, each as `[tag, seconds, record]`.
fn send(server: &Server, tag: &str, records: &[(f64, Value)]) {
    let mut socket = TcpStream::connect(server.forward()).unwrap();
    for (seconds, record) in records {
        let time = now() + seconds;
        let message = json!([tag, time, record]);
        writeln!(socket, "{message}").unwrap();
    }
}

fn now() -> f64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    since.as_secs_f64()
}

/// Traces of a shop: `fine` ones and one that fails.
fn send_shop(server: &Server, fine: usize) {
    let line = |id: &str, service: &str, level: &str, text: &str| json!({"traceId": id, "service": service, "level": level, "message": text, "status": 200});
    for number in 0..fine {
        let id = format!("fine-{number}");
        send(
            server,
            "shop",
            &[
                (-2.0, line(&id, "gateway", "info", "request received")),
                (-1.9, line(&id, "order", "debug", "cache miss")),
                (-1.0, line(&id, "gateway", "info", "request completed")),
            ],
        );
    }
    send(
        server,
        "shop",
        &[
            (-3.0, line("failing", "gateway", "info", "request received")),
            (-2.9, line("failing", "order", "warn", "retrying charge")),
            (-0.7, line("failing", "order", "error", "payment gateway timeout")),
            (-0.6, line("failing", "gateway", "info", "request completed")),
        ],
    );
}

/// A server with the embedded store and the traces of a shop, all of them searchable.
fn shop(fine: usize) -> Server {
    let server = windrow().sqlite().start();
    server.wait_ready();
    send_shop(&server, fine);
    wait_searchable(&server, fine + 1);
    server
}

/// Waits until a search finds this many traces.
fn wait_searchable(server: &Server, count: usize) {
    wait::until("traces to be searchable", SOON, || {
        let answer = server.get("/api/v1/traces?limit=500");
        let found = answer.json()["traces"].as_array().map_or(0, Vec::len);
        if found == count {
            Ok(())
        } else {
            Err(format!("{found} of {count}"))
        }
    });
}

/// Nothing failed in the console, and nothing came from anywhere else.
async fn assert_clean(browser: &Browser, server: &Server) {
    let severe = |line: &ConsoleLine| line.level == "SEVERE";
    let errors: Vec<_> = browser.console().await.into_iter().filter(severe).collect();
    assert!(errors.is_empty(), "{errors:?}");
    let own = format!("{}/", server.admin());
    let foreign: Vec<_> = browser
        .loaded()
        .await
        .into_iter()
        .filter(|address| !address.starts_with(&own))
        .collect();
    assert!(foreign.is_empty(), "{foreign:?}");
}

/// Moves the focus with the Tab key until it is on an element of this selector.
async fn tab_to(browser: &Browser, css: &str) {
    let on_it = format!("return document.activeElement.matches({})", json!(css));
    for _ in 0..80 {
        browser.press(&char::from(Key::Tab).to_string()).await;
        if browser.run(&on_it).await == Value::Bool(true) {
            return;
        }
    }
    panic!("the Tab key does not lead to {css}\n{}", browser.text().await);
}

/// A pause for what must not happen.
async fn for_a_while() {
    tokio::time::sleep(Duration::from_millis(700)).await;
}
