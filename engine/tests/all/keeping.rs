//! What is left of closed runs on disk, and what clients see of it.

use crate::fixture::{QUEUE, WorkerShape, beside_worker, client, history, open, within};
use crate::workflows::*;
use std::time::Duration;
use steadyhand_engine::{Engine, Limits, Options, Report, Store};
use temporalio_client::{WorkflowGetResultOptions, WorkflowStartOptions};

const STEPS: u32 = 100;

fn report(engine: &Engine) -> Report {
    let report = engine.verify().expect("the store can be read");
    assert!(report.is_sound(), "{:#?}", report.problems);
    report
}

#[tokio::test]
async fn a_closed_run_takes_a_fraction_of_what_it_took_and_reads_the_same() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let options = |pack_after_ns| Options {
        limits: Limits { pack_after_ns, ..Limits::default() },
        ..Options::new(Store::Fjall(folder.path().to_owned()))
    };
    let engine = open(options(i64::MAX));
    let written = {
        let client = client(&engine).await;
        let start = WorkflowStartOptions::new(QUEUE, "steps").task_timeout(Duration::from_secs(5)).build();
        beside_worker(&client, WorkerShape::default(), async {
            let handle = client.start_workflow(Steps::run, (STEPS, false), start).await.expect("starts");
            handle.get_result(WorkflowGetResultOptions::default()).await.expect("completes");
            history(&handle).await
        })
        .await
    };
    let before = report(&engine);
    engine.shutdown().await;

    let engine = open(options(0));
    let packed = async {
        loop {
            let now = report(&engine);
            if now.history_stored_bytes < before.history_stored_bytes {
                return now;
            }
            tokio::task::yield_now().await;
        }
    };
    let packed = within(packed).await;
    let per_step = |report: &Report| report.history_stored_bytes / u64::from(STEPS);
    let (plain, packed_bytes) = (per_step(&before), per_step(&packed));
    assert!(packed_bytes * 3 <= plain, "{plain} bytes a step became {packed_bytes}");
    assert_eq!(Report { history_stored_bytes: 0, ..packed }, Report { history_stored_bytes: 0, ..before });
    let client = client(&engine).await;
    assert!(history(&client.get_workflow_handle::<Steps>("steps")).await == written);
    engine.shutdown().await;
}
