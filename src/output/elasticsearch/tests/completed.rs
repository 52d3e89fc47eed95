//! Tests of the question which silent traces have a complete document.

use windrow_trace::SilentTrace;

use super::fake::Fake;
use super::*;
use crate::output::silent::{Answer, Asking, channel};

const SECOND: i64 = 1_000_000_000;

fn silent(id: &str, first_ns: i64) -> SilentTrace {
    SilentTrace {
        id: id.into(),
        destination: 0,
        first_ns,
    }
}

/// Starts to answer.
fn answering(running: &Running, output: u8) -> Asking {
    let (asking, answering) = channel();
    let answer = running
        .output
        .clone()
        .answer(OutputId(output), answering, running.stop.clone());
    tokio::spawn(answer);
    asking
}

/// Ids of those that are complete; `None` if the question was refused.
async fn ask(asking: &mut Asking, silent: Vec<SilentTrace>) -> Option<Vec<String>> {
    asking.questions.send(silent).await.unwrap();
    match asking.answers.recv().await.unwrap() {
        Answer::Complete(complete) => {
            let id = |trace: SilentTrace| String::from_utf8(trace.id).unwrap();
            Some(complete.into_iter().map(id).collect())
        }
        Answer::Refused => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_the_store_has_complete_is_said() {
    let fake = Fake::start().await;
    let running = Running::start(quick(&fake.url));
    let document = |id: &str, reason: &str, first_ns: i64| {
        let json = json!({"traceId": id, "parts": {"p": 1}, "windrow": {"reason": reason}});
        running.sealed(id, "p", first_ns, &json, true)
    };
    let before_midnight = MIDNIGHT - 5 * SECOND;
    let all = vec![
        document("done", "completed", NOON),
        document("idle", "idle", NOON),
        document("night", "completed", before_midnight),
    ];
    running.give(all).await;
    until("confirmed", || running.confirmed.count() == 3).await;
    let mut asking = answering(&running, 0);
    let complete = ask(
        &mut asking,
        vec![
            silent("idle", NOON),
            silent("done", NOON),
            silent("nowhere", NOON),
            // Its first line here came after midnight.
            silent("night", MIDNIGHT + SECOND),
        ],
    )
    .await;
    assert_eq!(complete.unwrap(), ["done", "night"]);
    assert_eq!(ask(&mut asking, Vec::new()).await.unwrap(), Vec::<String>::new());
    running.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_in_trouble_is_not_asked() {
    let fake = Fake::start().await;
    let running = Running::start(quick(&fake.url));
    let mut asking = answering(&running, 0);
    until("the output runs", || {
        running.output.stats().limit.load(Relaxed) > 0
    })
    .await;
    assert!(ask(&mut asking, vec![silent("t", NOON)]).await.is_some());
    let asked = fake.with(|i| i.mgets);
    running.output.health().set(WaitReason::Cluster, "it is away");
    assert!(ask(&mut asking, vec![silent("t", NOON)]).await.is_none());
    assert_eq!(fake.with(|i| i.mgets), asked);
    running.finish().await;
}
