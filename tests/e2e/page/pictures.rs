//! The pictures of the README, from the data of `windrow demo`.
//!
//! `WINDROW_BLESS=1 cargo test --test e2e pictures` writes them to `docs/images/`.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use windrow_testkit::browser::Browser;
use windrow_testkit::need;

use super::{in_browser, programs};

/// Largest picture, bytes.
const MAX_BYTES: usize = 200_000;

/// A demo that goes on running until it is dropped.
struct Demo {
    process: std::process::Child,
    address: String,
}

impl Demo {
    fn start() -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_windrow"))
            .args([
                "demo",
                "--plain",
                "--no-fluent-bit",
                "--keep",
                "--requests",
                "160",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut address = String::new();
        for line in lines.by_ref().map_while(Result::ok) {
            if let Some((_, found)) = line.split_once("look at it: ") {
                address = found.trim_end_matches('/').to_owned();
            }
            if line.contains("goes on running") {
                break;
            }
        }
        // Whatever it still says must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        assert!(address.starts_with("http://"), "{address}");
        Self { process, address }
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let pid = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            kill_process(pid, Signal::TERM).ok();
        }
        self.process.wait().ok();
    }
}

async fn keep(browser: &Browser, name: &str) {
    let picture = browser.picture().await;
    assert!(picture.starts_with(b"\x89PNG"), "{name}");
    assert!(picture.len() <= MAX_BYTES, "{name}: {} bytes", picture.len());
    if std::env::var_os("WINDROW_BLESS").is_some() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/images");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(name), picture).unwrap();
    }
}

#[test]
fn pictures_of_the_demo() {
    let programs = need!(programs());
    let demo = Demo::start();
    in_browser(&programs, async |browser| {
        let size = json!({"width": 1200, "height": 720, "deviceScaleFactor": 1, "mobile": false});
        browser.devtools("Emulation.setDeviceMetricsOverride", size).await;
        browser
            .open(&format!("{}/?from=-40s&q=slow+OR+failed", demo.address))
            .await;
        browser
            .wait_until(
                "the traces",
                "return document.querySelectorAll('a.row').length >= 20",
            )
            .await;
        browser.find(".hist .bar").await;
        keep(&browser, "traces.png").await;

        browser
            .open(&format!("{}/?from=-5m&q=failed&sort=worst", demo.address))
            .await;
        browser.find("a.row").await.click().await.unwrap();
        browser.find("circle.mark").await;
        keep(&browser, "trace.png").await;
        browser.close().await;
    });
}
