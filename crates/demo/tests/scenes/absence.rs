//! Scene 3 with faults: orders continue at a steady rate while log files are rotated, one is
//! truncated, Windrow is stopped for twenty seconds, and a sidecar is killed and restarted
//! meanwhile. What was logged is what is stored: nothing missing, nothing twice. Once over `demo
//! sidecar-logs`, once over the real Fluent Bit.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use windrow_testkit::{process::Process, wait};

use crate::{
    fluent_bit::{self, Place, Running},
    stage::{self, App, SOON, answered, client, demo, wait_answered},
};

/// How long Windrow is away. The load goes on.
const AWAY: Duration = Duration::from_secs(20);

/// What carries an application's lines to Windrow.
enum Carrier<'a> {
    Sidecar {
        process: Process,
        start: Box<dyn Fn() -> Process + 'a>,
    },
    FluentBit {
        running: Running,
        place: Place,
        program: &'a Path,
    },
}

impl<'a> Carrier<'a> {
    fn sidecar(app: &'a App, name: &'a str, folder: &'a Path, forward: &'a str) -> Self {
        let start = move || {
            let state = folder.join(format!("{name}.position/position.json"));
            let variables = [
                ("SERVICE_NAME", name),
                ("ENVIRONMENT", "test"),
                ("LOG_PATH", app.log.to_str().unwrap()),
                ("STATE_PATH", state.to_str().unwrap()),
                ("WINDROW_ADDR", forward),
            ];
            demo("sidecar", &["sidecar-logs"], &variables)
        };
        Self::Sidecar {
            process: start(),
            start: Box::new(start),
        }
    }

    fn fluent_bit(program: &'a Path, app: &App, name: &str, forward: &str) -> Self {
        let port = forward.rsplit_once(':').unwrap().1.parse().unwrap();
        let place = Place::towards(port)
            .with("LOG_PATH", app.log.to_str().unwrap())
            .with("SERVICE_NAME", name);
        let running = place.start(program, &["-c", "sidecar.conf"], "fluent-bit.out");
        Self::FluentBit {
            running,
            place,
            program,
        }
    }

    /// Our own is killed with -9 at whatever it does. Fluent Bit is stopped: killed between storing
    /// a chunk and noting the position it would read lines twice, and promises nothing else.
    fn restart(&mut self) {
        match self {
            Self::Sidecar { process, start } => {
                process.kill();
                *process = start();
            }
            Self::FluentBit {
                running,
                place,
                program,
            } => {
                running.terminate();
                *running = place.start(program, &["-c", "sidecar.conf"], "fluent-bit-2.out");
            }
        }
    }

    fn stop(self) {
        match self {
            Self::Sidecar { mut process, .. } => stage::stop(&mut process),
            Self::FluentBit { mut running, .. } => running.terminate(),
        }
    }
}

#[test]
fn over_the_sidecar() {
    play(None);
}

#[test]
fn over_fluent_bit() {
    if let Some(program) = fluent_bit::fluent_bit("scene 3 on a bad day") {
        play(Some(&program));
    }
}

fn play(fluent_bit: Option<&Path>) {
    let Some(setup) = stage::windrow("scene 3 on a bad day") else {
        return;
    };
    let root = tempfile::tempdir().unwrap();
    let logs = root.path();
    let mut windrow = setup.sqlite().start();
    let forward = windrow.forward().to_string();
    let [server, user, product] = [
        App::server(logs),
        App::service(logs, "user", &[]),
        App::service(logs, "product", &[]),
    ];
    let order = App::service(logs, "order", &[&user, &product]);
    let apps = [
        (&server, "server"),
        (&user, "user"),
        (&product, "product"),
        (&order, "order"),
    ];
    let mut carriers = apps.map(|(app, name)| match fluent_bit {
        None => Carrier::sidecar(app, name, logs, &forward),
        Some(program) => Carrier::fluent_bit(program, app, name, &forward),
    });

    let mut orders = client(&order.url, 0, &["--concurrency", "3", "--interval", "60ms"]);
    let hello = format!("{}hello", server.url);
    let ask_server = || {
        let mut asking = client(&hello, 30, &["--concurrency", "3", "--interval", "20ms"]);
        assert!(asking.wait(SOON).success(), "{}", asking.last_words(30));
        answered(&asking)
    };

    // A file that is renamed goes on to be read, and so does the new one.
    wait_answered(&orders, 20);
    let user_before = user.rotate();

    // The server's file is truncated once its lines are stored; the others are written all the
    // time.
    let traces = ask_server();
    wait::until("the server's first requests", SOON, || {
        let stored = windrow.stored();
        let missing = traces
            .iter()
            .filter(|trace| !stored.iter().any(|one| one.id == **trace))
            .count();
        if missing == 0 {
            Ok(())
        } else {
            Err(format!("{missing} are missing"))
        }
    });
    let server_before = server.truncate();
    ask_server();

    let status = windrow.terminate(SOON);
    assert!(status.success(), "{status}");
    let (gone, before) = (Instant::now(), answered(&orders).len());
    let product_before = product.rotate();
    ask_server();
    wait_answered(&orders, before + 50);
    carriers[3].restart();
    wait_answered(&orders, before + 100);
    // The one wait for a time in these tests: how long Windrow is away is what is tried.
    thread::sleep(AWAY.saturating_sub(gone.elapsed()));
    windrow.start_again();
    let back = answered(&orders).len();
    wait_answered(&orders, back + 20);
    stage::stop(&mut orders);

    let logged = stage::logged(logs);
    let six: Vec<_> = logged.values().filter(|lines| lines.len() == 6).collect();
    assert_eq!(
        six.len(),
        answered(&orders).len(),
        "an order is six lines of three services"
    );
    assert_eq!(logged.len(), six.len() + 90);
    for file in [user_before, product_before, server_before] {
        assert!(fs::metadata(&file).unwrap().len() > 0, "{}", file.display());
    }
    stage::assert_stored(&logged, || windrow.stored());
    for document in windrow.stored() {
        let source = &document.source;
        assert!(source["service_name"].is_string(), "{source}");
        assert!(source["environment"].is_string(), "{source}");
    }
    for carrier in carriers {
        carrier.stop();
    }
    stage::assert_stored(&logged, || windrow.stored());
}
