//! A real browser: Chromium, driven over chromedriver, with the console and the accessibility
//! checks of axe-core.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fantoccini::elements::Element;
use fantoccini::wd::{Capabilities, WebDriverCompatibleCommand};
use fantoccini::{Client, ClientBuilder, Locator};
use http::Method;
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use url::{ParseError, Url};

use crate::env::{self, Missing};
use crate::ports;

const AXE: &str = "axe-core@4.11.0";
/// How long a page may take to show something, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);

/// The programs of a browser.
#[derive(Debug, Clone)]
pub struct Programs {
    driver: PathBuf,
    chromium: PathBuf,
}

impl Programs {
    /// Finds chromedriver and Chromium, or Chrome.
    ///
    /// # Errors
    /// When one is missing.
    pub fn find() -> Result<Self, Missing> {
        let names = ["chromium", "chromium-browser", "google-chrome"];
        let chromium = names.iter().find_map(|name| env::program(name).ok());
        Ok(Self {
            driver: env::program("chromedriver")?,
            chromium: chromium.ok_or_else(|| Missing::new("no chromium on PATH"))?,
        })
    }
}

/// A browser with one window. Its driver ends with it.
#[derive(Debug)]
pub struct Browser {
    client: Client,
    driver: Child,
    _profile: tempfile::TempDir,
}

/// A line of the browser's console.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsoleLine {
    /// `SEVERE` for errors.
    pub level: String,
    /// Its text.
    pub message: String,
}

impl Browser {
    /// Starts a browser whose window has this size in pixels.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start(programs: &Programs, width: u32, height: u32) -> Self {
        let port = ports::free();
        let profile = tempfile::tempdir().expect("a folder");
        let driver = Command::new(&programs.driver)
            .arg(format!("--port={port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver starts");
        let arguments = [
            "--headless=new".to_owned(),
            // Chromium refuses its sandbox to root.
            "--no-sandbox".to_owned(),
            "--disable-gpu".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--disable-background-networking".to_owned(),
            format!("--user-data-dir={}", profile.path().display()),
            format!("--window-size={width},{height}"),
        ];
        let capabilities = json!({
            "goog:chromeOptions": { "args": arguments, "binary": programs.chromium },
            "goog:loggingPrefs": { "browser": "ALL" },
        });
        let capabilities: Capabilities = match capabilities {
            Value::Object(capabilities) => capabilities,
            _ => Capabilities::new(),
        };
        let mut browser = None;
        let began = std::time::Instant::now();
        while browser.is_none() && began.elapsed() < PATIENCE {
            tokio::time::sleep(POLL).await;
            let connect = ClientBuilder::new(HttpConnector::new())
                .capabilities(capabilities.clone())
                .connect(&format!("http://127.0.0.1:{port}"))
                .await;
            browser = connect.ok();
        }
        Self {
            client: browser.expect("the browser starts"),
            driver,
            _profile: profile,
        }
    }

    /// The WebDriver client, for everything that has no function here.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Loads an address.
    ///
    /// # Panics
    /// When it cannot be loaded.
    pub async fn open(&self, url: &str) {
        self.client.goto(url).await.expect("the page loads");
    }

    /// Runs a script, the body of a function, and returns its value.
    ///
    /// # Panics
    /// When it throws.
    pub async fn run(&self, script: &str) -> Value {
        let ran = self.client.execute(script, Vec::new()).await;
        ran.unwrap_or_else(|error| panic!("{script}: {error}"))
    }

    /// As [`Self::run`], for a script that awaits.
    ///
    /// # Panics
    /// When it throws.
    pub async fn run_async(&self, script: &str) -> Value {
        self.run(&format!("return (async () => {{ {script} }})()")).await
    }

    /// Sends a command of the DevTools protocol.
    ///
    /// # Panics
    /// When the browser refuses it.
    pub async fn devtools(&self, command: &str, parameters: Value) -> Value {
        let body = json!({ "cmd": command, "params": parameters });
        let sent = self
            .client
            .issue_cmd(DriverCommand("goog/cdp/execute", body))
            .await;
        sent.unwrap_or_else(|error| panic!("{command}: {error}"))
    }

    /// The text that the page shows.
    pub async fn text(&self) -> String {
        let text = self.run("return document.body.innerText").await;
        text.as_str().unwrap_or_default().to_owned()
    }

    /// Waits for an element.
    ///
    /// # Panics
    /// When it does not come, with what the page shows.
    pub async fn find(&self, css: &str) -> Element {
        let wait = self.client.wait().at_most(PATIENCE).every(POLL);
        match wait.for_element(Locator::Css(css)).await {
            Ok(element) => element,
            Err(error) => panic!("no {css}: {error}\n{}", self.text().await),
        }
    }

    /// Waits until a script returns true.
    ///
    /// # Panics
    /// When it does not, with what the page shows.
    pub async fn wait_until(&self, what: &str, script: &str) {
        let began = std::time::Instant::now();
        while self.run(script).await != Value::Bool(true) {
            if began.elapsed() > PATIENCE {
                panic!("waited for {what}\n{}", self.text().await);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until the page shows a text.
    ///
    /// # Panics
    /// When it does not, with what it shows.
    pub async fn wait_for_text(&self, text: &str) {
        let script = format!("return document.body.innerText.includes({})", json!(text));
        self.wait_until(text, &script).await;
    }

    /// Sends keys to the focused element; [`fantoccini::key::Key`] has the special ones.
    ///
    /// # Panics
    /// When there is none.
    pub async fn press(&self, keys: &str) {
        let focused = self.client.active_element().await.expect("a focused element");
        focused.send_keys(keys).await.expect("keys are sent");
    }

    /// The console since the last call.
    ///
    /// # Panics
    /// When the driver does not give it.
    pub async fn console(&self) -> Vec<ConsoleLine> {
        let read = DriverCommand("se/log", json!({ "type": "browser" }));
        let lines = self.client.issue_cmd(read).await.expect("the console");
        let lines = lines.as_array().cloned().unwrap_or_default();
        let text = |line: &Value, name: &str| line[name].as_str().unwrap_or_default().to_owned();
        lines
            .iter()
            .map(|line| ConsoleLine {
                level: text(line, "level"),
                message: text(line, "message"),
            })
            .collect()
    }

    /// Addresses that the page loaded, from wherever.
    pub async fn loaded(&self) -> Vec<String> {
        let script = "return performance.getEntriesByType('resource').map((entry) => entry.name)";
        let names = self.run(script).await;
        let names = names.as_array().cloned().unwrap_or_default();
        names
            .iter()
            .filter_map(|name| name.as_str().map(str::to_owned))
            .collect()
    }

    /// A picture of the window, PNG.
    ///
    /// # Panics
    /// When the driver takes none.
    pub async fn picture(&self) -> Vec<u8> {
        self.client.screenshot().await.expect("a picture")
    }

    /// What axe-core finds on the page: a line per violation. `axe` from [`axe_core`].
    ///
    /// # Panics
    /// When the check does not run.
    pub async fn accessibility_violations(&self, axe: &str) -> Vec<String> {
        self.run(axe).await;
        let script = "const done = arguments[arguments.length - 1]; axe.run().then(done);";
        let result = self
            .client
            .execute_async(script, Vec::new())
            .await
            .expect("axe runs");
        let violations = result["violations"].as_array().cloned().unwrap_or_default();
        violations
            .iter()
            .map(|violation| {
                let nodes = violation["nodes"].as_array().cloned().unwrap_or_default();
                let first = nodes.first().map(|node| node["html"].to_string());
                format!(
                    "{} ({}): {} places, first {}",
                    violation["id"],
                    violation["help"],
                    nodes.len(),
                    first.unwrap_or_default()
                )
            })
            .collect()
    }

    /// Ends the browser.
    pub async fn close(self) {
        self.client.clone().close().await.ok();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        self.driver.kill().ok();
        self.driver.wait().ok();
    }
}

/// The source of axe-core, from npm, once for all runs.
///
/// # Errors
/// When npm is missing or cannot install it.
pub fn axe_core() -> Result<String, Missing> {
    let npm = env::program("npm")?;
    let folder = env::cache("axe-core-4.11.0");
    env::once(&folder, || {
        let install = ["install", "--no-audit", "--no-fund", "--no-save", AXE, "--prefix"];
        env::run(Command::new(&npm).args(install).arg(&folder)).map(drop)
    })?;
    let file = folder.join("node_modules/axe-core/axe.min.js");
    std::fs::read_to_string(&file).map_err(|error| Missing::new(format!("{}: {error}", file.display())))
}

/// A command of chromedriver beyond the WebDriver standard: its path and body.
#[derive(Debug)]
struct DriverCommand(&'static str, Value);

impl WebDriverCompatibleCommand for DriverCommand {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Result<Url, ParseError> {
        base.join(&format!("session/{}/{}", session.unwrap_or_default(), self.0))
    }

    fn method_and_body(&self, _: &Url) -> (Method, Option<String>) {
        (Method::POST, Some(self.1.to_string()))
    }
}
