//! Tests of the sidecar with a delivery that fails on demand, and with crashes between any two
//! steps.

use std::{
    fs::{self, File},
    io::Write as _,
    path::Path,
    sync::Mutex,
};

use super::*;

/// What the server got, by chunk id: a chunk that came twice counts once, and must be the same.
#[derive(Clone, Default)]
struct Server {
    received: Arc<Mutex<Vec<Chunk>>>,
    /// How many deliveries fail before they arrive, and how many arrive without an answer.
    refuse: Arc<Mutex<usize>>,
    mute: Arc<Mutex<usize>>,
}

impl Server {
    fn messages(&self) -> Vec<String> {
        let mut seen: Vec<Chunk> = Vec::new();
        for chunk in self.received.lock().unwrap().iter() {
            match seen.iter().find(|other| other.id == chunk.id) {
                Some(other) => assert_eq!(other, chunk, "one id for two contents"),
                None => seen.push(chunk.clone()),
            }
        }
        let message = |event: &Event| event.record["message"].as_str().unwrap().to_owned();
        seen.iter()
            .flat_map(|chunk| chunk.events.iter().map(message))
            .collect()
    }

    async fn has(&self, count: usize) -> Vec<String> {
        let waited = tokio::time::timeout(Duration::from_secs(20), async {
            while self.messages().len() < count {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
        waited.await.unwrap();
        self.messages()
    }
}

fn take_one(count: &Mutex<usize>) -> bool {
    let mut count = count.lock().unwrap();
    let some = *count > 0;
    *count = count.saturating_sub(1);
    some
}

impl Delivery for Server {
    async fn deliver(&mut self, chunk: &Chunk) -> Result<(), String> {
        if take_one(&self.refuse) {
            return Err("refused".to_owned());
        }
        self.received.lock().unwrap().push(chunk.clone());
        if take_one(&self.mute) {
            Err("no answer".to_owned())
        } else {
            Ok(())
        }
    }
}

fn options(folder: &Path) -> Options {
    Options {
        log_path: folder.join("app.log"),
        state_path: folder.join("state/position.json"),
        tag: "app.order".to_owned(),
        identity: Identity {
            service_name: "order".to_owned(),
            environment: "demo".to_owned(),
        },
        poll: Duration::from_millis(2),
        rotate_wait: Duration::from_secs(3600),
        chunk_bytes: 1024,
        stop_grace: Duration::from_secs(20),
        backoff: Duration::from_millis(1),
    }
}

fn append(path: &Path, lines: std::ops::Range<usize>) {
    let mut file = File::options().create(true).append(true).open(path).unwrap();
    for line in lines {
        writeln!(file, "{{\"message\":\"{line}\"}}").unwrap();
    }
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

#[tokio::test]
async fn all_lines_arrive_once_through_refusals_lost_answers_and_a_rotation() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(folder.path());
    let server = Server::default();
    *server.refuse.lock().unwrap() = 3;
    *server.mute.lock().unwrap() = 3;
    append(&options.log_path, 0..200);
    let status = Arc::<Status>::default();
    let sidecar = LogSidecar::open(options.clone(), Arc::clone(&status), server.clone()).unwrap();
    let stop = CancellationToken::new();
    let running = tokio::spawn(sidecar.run(stop.clone()));
    server.has(200).await;
    append(&options.log_path, 200..210);
    fs::rename(&options.log_path, folder.path().join("app.log.1")).unwrap();
    append(&options.log_path, 210..300);
    assert_eq!(server.has(300).await, numbers(0..300));
    append(&options.log_path, 300..310);
    stop.cancel();
    running.await.unwrap();
    assert_eq!(
        server.messages(),
        numbers(0..310),
        "a stop delivers what is there"
    );
    assert_eq!(status.lines(), 310);
    let first = &server.received.lock().unwrap()[0];
    assert_eq!(first.tag, "app.order");
    assert_eq!(first.events[0].record["service_name"], "order");
}

/// The worker without the sidecar around it can be dropped between any two steps: a kill -9.
#[test]
fn a_crash_between_any_two_steps_loses_and_doubles_nothing() {
    for crash_at in 0..12 {
        let folder = tempfile::tempdir().unwrap();
        let mut options = options(folder.path());
        options.chunk_bytes = 40;
        let server = Server::default();
        append(&options.log_path, 0..8);
        let mut worker = Worker::open(&options).unwrap();
        let mut step = 0;
        let mut crash = |worker: &mut Worker| {
            if step == crash_at {
                append(&options.log_path, 8..10);
                *worker = Worker::open(&options).unwrap();
            }
            step += 1;
            step == crash_at + 1
        };
        while let Some(chunk) = worker.prepare().unwrap() {
            if crash(&mut worker) {
                continue;
            }
            server.received.lock().unwrap().push(chunk);
            if crash(&mut worker) {
                continue;
            }
            worker.confirm().unwrap();
            if crash(&mut worker) {
                continue;
            }
        }
        assert_eq!(server.messages(), numbers(0..10), "crash at step {crash_at}");
    }
}

#[tokio::test]
async fn after_the_stop_signal_a_dead_server_is_not_waited_for_beyond_the_grace() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(folder.path());
    options.stop_grace = Duration::from_millis(1);
    append(&options.log_path, 0..3);
    let server = Server::default();
    *server.refuse.lock().unwrap() = usize::MAX;
    let stop = CancellationToken::new();
    let running = tokio::spawn(
        LogSidecar::open(options.clone(), Arc::default(), server.clone())
            .unwrap()
            .run(stop.clone()),
    );
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(20), running)
        .await
        .unwrap()
        .unwrap();
    assert!(server.messages().is_empty());
    *server.refuse.lock().unwrap() = 0;
    let sidecar = LogSidecar::open(options, Arc::default(), server.clone()).unwrap();
    tokio::spawn(sidecar.run(CancellationToken::new()));
    assert_eq!(server.has(3).await, numbers(0..3));
}

#[tokio::test]
async fn a_log_file_that_appears_later_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(folder.path());
    let server = Server::default();
    tokio::spawn(
        LogSidecar::open(options.clone(), Arc::default(), server.clone())
            .unwrap()
            .run(CancellationToken::new()),
    );
    tokio::task::yield_now().await;
    append(&options.log_path, 0..1);
    assert_eq!(server.has(1).await, numbers(0..1));
}
