//! `demo service`: one of the three services. `GET /` greets, and calls the services it depends on
//! with the same trace id; `GET /?fail=NAME` lets the service of that name fail, `?slow=NAME` lets
//! it be slow, `?work=MS` gives each service something to do. It writes a JSON log file and serves
//! metrics. It does not know sidecars, environments or Windrow, unless it is configured to log to a
//! Forward server directly.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use axum::{
    Extension, Router,
    extract::{Query, State},
    http::StatusCode,
    routing::get,
};
use reqwest::Url;
use serde::Deserialize;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    Error,
    app_log::{AppLog, DirectLog, DirectOptions},
    client,
    web::{self, TRACE_HEADER, Telemetry, TraceId},
};

/// How a service is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its name in the greeting.
    pub name: String,
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where its log lines go.
    pub log: Log,
    /// The services that every request calls, one after the other.
    pub calls: Vec<String>,
    /// How long requests in flight may take after the stop signal.
    pub shutdown_timeout: Duration,
}

/// Where a service logs to.
#[derive(Clone, Debug)]
pub enum Log {
    /// A JSON log file.
    File(PathBuf),
    /// Straight to a Forward server.
    Direct(Box<DirectOptions>),
}

/// The port on which a service of this name listens by default: user 3000, product 3002, order
/// 3003.
#[must_use]
pub fn default_port(name: &str) -> Option<u16> {
    match base_name(name) {
        "user" => Some(3000),
        "product" => Some(3002),
        "order" => Some(3003),
        _ => None,
    }
}

/// The services that a service of this name calls by default: order calls user and product on this
/// machine.
#[must_use]
pub fn default_calls(name: &str) -> Vec<String> {
    match base_name(name) {
        "order" => vec![
            "http://127.0.0.1:3000/".to_owned(),
            "http://127.0.0.1:3002/".to_owned(),
        ],
        _ => Vec::new(),
    }
}

fn base_name(name: &str) -> &str {
    name.strip_suffix("-service").unwrap_or(name)
}

/// A service whose port and log file are open.
#[derive(Debug)]
pub struct Service {
    listener: TcpListener,
    telemetry: Arc<Telemetry>,
    business: Arc<Business>,
    shutdown_timeout: Duration,
}

#[derive(Debug)]
struct Business {
    name: String,
    calls: Vec<Url>,
    client: reqwest::Client,
}

impl Service {
    /// Opens the log file and the port.
    ///
    /// # Errors
    /// [`Error::LogFile`], [`Error::PortInUse`], [`Error::Bind`], [`Error::BadUrl`].
    pub async fn bind(options: &Options) -> Result<Self, Error> {
        let calls = options
            .calls
            .iter()
            .map(|url| client::parse_url("--calls", url))
            .collect::<Result<_, _>>()?;
        let business = Business {
            name: options.name.clone(),
            calls,
            client: client::direct_client(CALL_TIMEOUT)?,
        };
        let log = match &options.log {
            Log::File(path) => AppLog::open(path)?,
            Log::Direct(direct) => AppLog::Direct(DirectLog::start(direct.as_ref().clone())?),
        };
        let telemetry = Arc::new(Telemetry::new(log));
        let listener = web::bind(options.listen, "SERVICE_PORT").await?;
        Ok(Self {
            listener,
            telemetry,
            business: Arc::new(business),
            shutdown_timeout: options.shutdown_timeout,
        })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the system does not know.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop`.
    ///
    /// # Errors
    /// See [`web::serve`].
    pub async fn run(self, stop: CancellationToken) -> Result<(), Error> {
        let routes = Router::new()
            .route("/", get(greet))
            .layer(Extension(self.business));
        let router = web::instrument(routes, Arc::clone(&self.telemetry));
        web::serve(self.listener, router, self.telemetry, stop, self.shutdown_timeout).await
    }
}

/// How long a called service may take: longer than a slow answer, shorter than a client's timeout.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a service takes that is to be slow.
const SLOW_ANSWER: Duration = Duration::from_millis(900);

/// Longest work that a request can ask for.
const MAX_WORK_MS: u64 = 1000;

/// The query of a request.
#[derive(Debug, Default, Deserialize)]
struct Wishes {
    /// The service that is to fail.
    fail: Option<String>,
    /// The service that is to be slow.
    slow: Option<String>,
    /// How long every service works at most, ms.
    work: Option<u64>,
}

impl Wishes {
    /// The address of a service that is called, with the same wishes.
    fn passed_on(&self, url: &Url) -> Url {
        let mut url = url.clone();
        let work = self.work.map(|ms| ms.to_string());
        let wishes = [("fail", &self.fail), ("slow", &self.slow), ("work", &work)];
        for (name, value) in wishes {
            if let Some(value) = value {
                url.query_pairs_mut().append_pair(name, value);
            }
        }
        url
    }

    /// How long a service works on this request: not the same for all.
    fn work(&self, trace: &TraceId, service: &str) -> Duration {
        let most = self.work.unwrap_or(0).min(MAX_WORK_MS);
        let mixed = trace.0.bytes().chain(service.bytes()).fold(7_u64, |mixed, byte| {
            mixed.wrapping_mul(31).wrapping_add(byte.into())
        });
        Duration::from_millis(mixed % (most + 1))
    }
}

async fn greet(
    State(telemetry): State<Arc<Telemetry>>,
    Extension(business): Extension<Arc<Business>>,
    Extension(trace): Extension<TraceId>,
    Query(wishes): Query<Wishes>,
) -> (StatusCode, String) {
    tokio::time::sleep(wishes.work(&trace, &business.name)).await;
    if wishes.slow.as_deref() == Some(base_name(&business.name)) {
        tokio::time::sleep(SLOW_ANSWER).await;
        let text = format!("{}: slow query, {} ms", business.name, SLOW_ANSWER.as_millis());
        telemetry.log("warn", &trace, &text, &[]);
    }
    if wishes.fail.as_deref() == Some(base_name(&business.name)) {
        telemetry.log(
            "error",
            &trace,
            &format!("{}: failed on demand", business.name),
            &[],
        );
        let body = format!("{} fails, as it was told to\n", business.name);
        return (StatusCode::SERVICE_UNAVAILABLE, body);
    }
    for url in &business.calls {
        if let Err(error) = call(&business.client, &wishes.passed_on(url), &trace).await {
            let fields: [(&str, Value); 2] = [
                ("upstream", url.as_str().into()),
                ("error", error.as_str().into()),
            ];
            telemetry.log(
                "error",
                &trace,
                &format!("{}: call failed", business.name),
                &fields,
            );
            return (
                StatusCode::BAD_GATEWAY,
                format!("{} cannot reach {url}: {error}\n", business.name),
            );
        }
    }
    telemetry.log(
        "info",
        &trace,
        &format!("{}: handler finished", business.name),
        &[],
    );
    (StatusCode::OK, format!("Hello from {}\n", business.name))
}

async fn call(client: &reqwest::Client, url: &Url, trace: &TraceId) -> Result<(), String> {
    let answer = client
        .get(url.clone())
        .header(TRACE_HEADER, &*trace.0)
        .send()
        .await;
    let answer = answer.map_err(|error| client::chain(&error))?;
    match answer.error_for_status() {
        Ok(answer) => answer
            .bytes()
            .await
            .map(drop)
            .map_err(|error| client::chain(&error)),
        Err(error) => Err(client::chain(&error)),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    async fn start(folder: &Path, name: &str, calls: Vec<String>) -> (String, PathBuf) {
        let options = Options {
            name: name.to_owned(),
            listen: ([127, 0, 0, 1], 0).into(),
            log: Log::File(folder.join(format!("{name}.log"))),
            calls,
            shutdown_timeout: Duration::from_secs(30),
        };
        let service = Service::bind(&options).await.unwrap();
        let url = format!("http://{}/", service.local_addr().unwrap());
        tokio::spawn(service.run(CancellationToken::new()));
        (url, folder.join(format!("{name}.log")))
    }

    fn lines(path: &Path) -> Vec<Value> {
        let text = fs::read_to_string(path).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    #[tokio::test]
    async fn an_order_calls_user_and_product_with_the_same_trace_id() {
        let folder = tempfile::tempdir().unwrap();
        let (user, user_log) = start(folder.path(), "user", vec![]).await;
        let (product, product_log) = start(folder.path(), "product", vec![]).await;
        let (order, order_log) = start(folder.path(), "order", vec![user, product]).await;
        let client = client::direct_client(Duration::from_secs(20)).unwrap();
        let answer = client
            .get(order)
            .header(TRACE_HEADER, "trace-1")
            .send()
            .await
            .unwrap();
        assert_eq!(answer.text().await.unwrap(), "Hello from order\n");
        for log in [user_log, product_log, order_log] {
            let lines = lines(&log);
            assert_eq!(lines.len(), 2, "{}", log.display());
            assert!(lines.iter().all(|line| line["traceId"] == "trace-1"));
            assert_eq!(lines[1]["message"], "request completed");
        }
    }

    #[tokio::test]
    async fn a_dependency_that_fails_on_demand_is_an_error_line_of_both() {
        let folder = tempfile::tempdir().unwrap();
        let (user, _) = start(folder.path(), "user", vec![]).await;
        let (product, product_log) = start(folder.path(), "product", vec![]).await;
        let (order, order_log) = start(folder.path(), "order", vec![user, product]).await;
        let client = client::direct_client(Duration::from_secs(20)).unwrap();
        let answer = client.get(format!("{order}?fail=product")).send().await.unwrap();
        assert_eq!(answer.status(), 502);
        let said = |log: &Path| -> Vec<(Value, Value)> {
            let lines = lines(log).into_iter();
            lines
                .map(|line| (line["level"].clone(), line["message"].clone()))
                .collect()
        };
        let error = |message: &str| ("error".into(), message.into());
        let expected = [error("product: failed on demand"), error("request completed")];
        assert_eq!(said(&product_log), expected);
        assert_eq!(said(&order_log)[0], error("order: call failed"));
    }

    #[tokio::test]
    async fn a_slow_dependency_is_a_warning() {
        let folder = tempfile::tempdir().unwrap();
        let (product, log) = start(folder.path(), "product", vec![]).await;
        let (order, _) = start(folder.path(), "order", vec![product]).await;
        let client = client::direct_client(Duration::from_secs(20)).unwrap();
        let answer = client
            .get(format!("{order}?slow=product&work=5"))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(lines(&log)[0]["level"], "warn");
        assert_eq!(lines(&log)[0]["message"], "product: slow query, 900 ms");
    }

    #[tokio::test]
    async fn a_dead_dependency_is_an_error_line_and_a_502() {
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let (order, log) = start(folder.path(), "order", vec![format!("http://127.0.0.1:{port}/")]).await;
        let client = client::direct_client(Duration::from_secs(20)).unwrap();
        assert_eq!(client.get(order).send().await.unwrap().status(), 502);
        let lines = lines(&log);
        assert_eq!(
            (&lines[0]["level"], &lines[1]["status"]),
            (&"error".into(), &502.into())
        );
    }

    #[test]
    fn the_three_services_have_their_ports() {
        assert_eq!(default_port("user"), Some(3000));
        assert_eq!(default_port("product-service"), Some(3002));
        assert_eq!(default_port("order"), Some(3003));
        assert_eq!(default_port("else"), None);
        assert_eq!(default_calls("order").len(), 2);
    }
}
