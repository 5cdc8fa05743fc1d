//! One scenario, two servers: the histories that a real Temporal server (1.32.0) wrote for these scenarios are kept in
//! `golden/`, and ours must be the same, event by event.
//!
//! To record them again, run these tests one at a time (they share a task queue) with
//! `STEADYHAND_ENGINE_REFERENCE=HOST:PORT` naming such a server.

mod families;
mod render;
mod versions;

use crate::fixture::{QUEUE, WorkerShape, beside_worker, client, connect, happened, history, memory};
use crate::workflows::*;
use std::path::Path;
use std::time::Duration;
use temporalio_client::{
    Client, WorkflowCancelOptions, WorkflowExecuteUpdateOptions, WorkflowGetResultOptions, WorkflowSignalOptions,
    WorkflowStartOptions, WorkflowTerminateOptions,
};
use temporalio_common::RetryPolicy;
use temporalio_common::protos::temporal::api::history::v1::HistoryEvent;

/// Plays `scenario` against a fresh engine and compares the history with the kept one; or, when a reference server is
/// named, plays it there and keeps what it wrote.
async fn conforms<F>(name: &str, scenario: impl FnOnce(Client, String) -> F)
where
    F: Future<Output = Vec<HistoryEvent>>,
{
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/all/golden/{name}.txt"));
    if let Ok(reference) = std::env::var("STEADYHAND_ENGINE_REFERENCE") {
        let client = connect(&reference).await;
        let id = format!("{name}-{}", std::process::id());
        let events = beside_worker(&client, WorkerShape::default(), scenario(client.clone(), id)).await;
        std::fs::write(path, render::history(&events)).expect("the golden file can be written");
        return;
    }
    let engine = memory();
    let client = client(&engine).await;
    let events = beside_worker(&client, WorkerShape::default(), scenario(client.clone(), name.to_owned())).await;
    engine.shutdown().await;
    let report = engine.verify().expect("the store can be read");
    assert!(report.is_sound(), "{:#?}", report.problems);
    let kept = std::fs::read_to_string(&path).expect("a golden file");
    render::assert_same(name, &kept, &render::history(&events));
}

fn options(id: &str) -> WorkflowStartOptions {
    WorkflowStartOptions::new(QUEUE, id).task_timeout(Duration::from_secs(5)).build()
}

#[tokio::test]
async fn activity_signal_timer_and_marker() {
    conforms("everything", |client, id| async move {
        let handle = client.start_workflow(Everything::run, "hi".to_owned(), options(&id)).await.expect("starts");
        happened(&handle, "ActivityTaskCompleted").await;
        happened(&handle, "WorkflowTaskCompleted x2").await;
        handle.signal(Everything::go, 7, WorkflowSignalOptions::default()).await.expect("signals");
        let result = handle.get_result(WorkflowGetResultOptions::default()).await.expect("completes");
        assert_eq!(result, "<<hi>>");
        history(&handle).await
    })
    .await;
}

#[tokio::test]
async fn an_activity_that_is_waited_for_when_it_is_cancelled() {
    conforms("cancel", |client, id| async move {
        let handle = client.start_workflow(Cancelled::run, (), options(&id)).await.expect("starts");
        happened(&handle, "ActivityTaskScheduled").await;
        crate::fixture::activity_started(&client, &id).await;
        let reason = WorkflowCancelOptions::builder().reason("enough").build();
        handle.cancel(reason).await.expect("asks");
        handle.get_result(WorkflowGetResultOptions::default()).await.expect_err("is cancelled");
        history(&handle).await
    })
    .await;
}

#[tokio::test]
async fn continue_as_new_begins_the_next_run() {
    conforms("continue_as_new", |client, id| async move {
        let handle = client.start_workflow(Counted::run, 2, options(&id)).await.expect("starts");
        assert_eq!(handle.get_result(WorkflowGetResultOptions::default()).await.expect("completes"), 0);
        let mut events = history(&handle).await;
        events.extend(history(&client.get_workflow_handle::<Counted>(id)).await);
        events
    })
    .await;
}

/// An activity with an illness, and how its workflow ends.
async fn patient(name: &str, ill: Ill, gets_well: bool) {
    conforms(name, |client, id| async move {
        let handle = client.start_workflow(Patient::run, ill, options(&id)).await.expect("starts");
        let result = handle.get_result(WorkflowGetResultOptions::default()).await;
        assert_eq!(result.is_ok(), gets_well, "{result:?}");
        history(&handle).await
    })
    .await;
}

#[tokio::test]
async fn an_activity_that_fails_twice_is_retried_without_a_trace_but_the_last_failure() {
    patient("activity_fails_twice", Ill::FailsTwice, true).await;
}

#[tokio::test]
async fn an_activity_whose_attempts_are_spent() {
    patient("activity_fails_for_good", Ill::FailsForGood, false).await;
}

#[tokio::test]
async fn an_activity_without_heartbeats() {
    patient("activity_never_beats", Ill::NeverBeats, false).await;
}

#[tokio::test]
async fn an_activity_that_never_returns() {
    patient("activity_never_returns", Ill::NeverReturns, false).await;
}

#[tokio::test]
async fn an_activity_that_nobody_takes() {
    patient("activity_nobody_there", Ill::NobodyThere, false).await;
}

#[tokio::test]
async fn an_activity_whose_next_attempt_does_not_fit() {
    patient("activity_runs_out_of_time", Ill::RunsOutOfTime, false).await;
}

#[tokio::test]
async fn a_workflow_with_a_retry_policy() {
    conforms("workflow_retry", |client, id| async move {
        let policy = RetryPolicy::builder().initial_interval(Duration::from_millis(100)).maximum_attempts(3).build();
        let options =
            WorkflowStartOptions::new(QUEUE, &id).task_timeout(Duration::from_secs(5)).retry_policy(policy).build();
        let handle = client.start_workflow(Failing::run, 2, options).await.expect("starts");
        assert_eq!(handle.get_result(WorkflowGetResultOptions::default()).await.expect("completes"), 2);
        let mut events = history(&handle).await;
        events.extend(history(&client.get_workflow_handle::<Failing>(id)).await);
        events
    })
    .await;
}

#[tokio::test]
async fn a_workflow_task_that_fails_once() {
    conforms("workflow_task_fails", |client, id| async move {
        let handle = client.start_workflow(Stumbling::run, (), options(&id)).await.expect("starts");
        handle.get_result(WorkflowGetResultOptions::default()).await.expect("completes");
        history(&handle).await
    })
    .await;
}

#[tokio::test]
async fn a_run_that_takes_too_long() {
    conforms("run_timeout", |client, id| async move {
        let options = WorkflowStartOptions::new(QUEUE, &id)
            .task_timeout(Duration::from_secs(1))
            .run_timeout(Duration::from_secs(1))
            .build();
        let handle = client.start_workflow(Sleeping::run, 60_000, options).await.expect("starts");
        handle.get_result(WorkflowGetResultOptions::default()).await.expect_err("times out");
        history(&handle).await
    })
    .await;
}

#[tokio::test]
async fn a_workflow_that_is_terminated() {
    conforms("terminate", |client, id| async move {
        let handle = client.start_workflow(Sleeping::run, 60_000, options(&id)).await.expect("starts");
        happened(&handle, "TimerStarted").await;
        let reason = WorkflowTerminateOptions::builder().reason("enough").build();
        handle.terminate(reason).await.expect("terminates");
        history(&handle).await
    })
    .await;
}

#[tokio::test]
async fn activities_that_come_with_the_workflow_task() {
    conforms("eager", |client, id| async move {
        let handle = client.start_workflow(Steps::run, (3, true), options(&id)).await.expect("starts");
        handle.get_result(WorkflowGetResultOptions::default()).await.expect("completes");
        history(&handle).await
    })
    .await;
}

#[tokio::test]
async fn a_memo_that_the_workflow_writes() {
    conforms("memo", |client, id| async move {
        let handle = client.start_workflow(Remembering::run, "w".to_owned(), options(&id)).await.expect("starts");
        handle.get_result(WorkflowGetResultOptions::default()).await.expect("completes");
        history(&handle).await
    })
    .await;
}

#[tokio::test]
async fn updates_that_are_answered_at_once_later_and_not_at_all() {
    conforms("updates", |client, id| async move {
        let handle = client.start_workflow(Account::run, (), options(&id)).await.expect("starts");
        happened(&handle, "WorkflowTaskCompleted").await;
        let update = |id: &str| WorkflowExecuteUpdateOptions::builder().update_id(id.to_owned()).build();
        assert_eq!(handle.execute_update(Account::pay, 5, update("at-once")).await.expect("is answered"), 5);
        assert_eq!(handle.execute_update(Account::transfer, 2, update("later")).await.expect("is answered"), 7);
        happened(&handle, "WorkflowTaskCompleted x4").await;
        let close = handle.signal(Account::close, (), WorkflowSignalOptions::default());
        close.await.expect("signals");
        assert_eq!(handle.get_result(WorkflowGetResultOptions::default()).await.expect("completes"), 7);
        history(&handle).await
    })
    .await;
}

#[tokio::test]
async fn signals_that_a_workflow_collects() {
    conforms("signals", |client, id| async move {
        let handle = client.start_workflow(Mailbox::run, (), options(&id)).await.expect("starts");
        happened(&handle, "WorkflowTaskCompleted").await;
        for (n, mail) in ["one", "two", "stop"].into_iter().enumerate() {
            handle.signal(Mailbox::post, mail.to_owned(), WorkflowSignalOptions::default()).await.expect("signals");
            happened(&handle, &format!("WorkflowTaskCompleted x{}", n + 2)).await;
        }
        let mail = handle.get_result(WorkflowGetResultOptions::default()).await.expect("completes");
        assert_eq!(mail, ["one", "two", "stop"]);
        history(&handle).await
    })
    .await;
}
