//! Workers that go away and engines that are opened again.

use crate::fixture::{QUEUE, WorkerShape, beside_worker, client, happened, history, memory, open, within};
use crate::workflows::*;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use steadyhand_engine::clock::SimulatedClock;
use steadyhand_engine::time::Time;
use steadyhand_engine::{Engine, Options, Store};
use temporalio_client::tonic::IntoRequest;
use temporalio_client::{WorkflowGetResultOptions, WorkflowSignalOptions, WorkflowStartOptions};
use temporalio_common::protos::temporal::api::common::v1::WorkflowType;
use temporalio_common::protos::temporal::api::taskqueue::v1::TaskQueue;
use temporalio_common::protos::temporal::api::workflowservice::v1::*;

fn options(id: &str) -> WorkflowStartOptions {
    WorkflowStartOptions::new(QUEUE, id).task_timeout(Duration::from_secs(5)).build()
}

fn sound(engine: &Engine) {
    let report = engine.verify().expect("the store can be read");
    assert!(report.is_sound(), "{:#?}", report.problems);
}

#[tokio::test]
async fn another_worker_goes_on_by_replay_when_the_first_is_gone() {
    let engine = memory();
    let client = client(&engine).await;
    beside_worker(&client, WorkerShape::default(), async {
        let handle = client.start_workflow(Mailbox::run, (), options("moves")).await.expect("starts");
        happened(&handle, "WorkflowTaskCompleted").await;
        handle.signal(Mailbox::post, "a".to_owned(), WorkflowSignalOptions::default()).await.expect("signals");
        happened(&handle, "WorkflowTaskCompleted x2").await;
    })
    .await;
    let handle = client.get_workflow_handle::<Mailbox>("moves");
    handle.signal(Mailbox::post, "stop".to_owned(), WorkflowSignalOptions::default()).await.expect("signals");
    let mail = beside_worker(&client, WorkerShape::default(), async {
        handle.get_result(WorkflowGetResultOptions::default()).await.expect("completes")
    })
    .await;
    assert_eq!(mail, ["a", "stop"]);
    sound(&engine);
    engine.shutdown().await;
}

#[tokio::test]
async fn a_run_in_the_middle_goes_on_after_the_engine_is_opened_again() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = || Options::new(Store::Fjall(folder.path().to_owned()));
    let engine = open(store());
    {
        let client = client(&engine).await;
        beside_worker(&client, WorkerShape::default(), async {
            let handle =
                client.start_workflow(Everything::run, "hi".to_owned(), options("kept")).await.expect("starts");
            happened(&handle, "ActivityTaskCompleted").await;
        })
        .await;
        client.start_workflow(Sleeping::run, 50, options("asleep")).await.expect("starts, and nobody is there");
    }
    sound(&engine);
    engine.shutdown().await;
    drop(engine);

    let engine = open(store());
    let client = client(&engine).await;
    beside_worker(&client, WorkerShape::default(), async {
        let handle = client.get_workflow_handle::<Everything>("kept");
        handle.signal(Everything::go, 7, WorkflowSignalOptions::default()).await.expect("signals");
        assert_eq!(handle.get_result(WorkflowGetResultOptions::default()).await.expect("completes"), "<<hi>>");
        let handle = client.get_workflow_handle::<Sleeping>("asleep");
        handle.get_result(WorkflowGetResultOptions::default()).await.expect("wakes");
    })
    .await;
    sound(&engine);
    engine.shutdown().await;
}

#[tokio::test]
async fn a_timer_that_came_due_while_nobody_looked_fires_at_the_start() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = || Options::new(Store::Fjall(folder.path().to_owned()));
    let engine = open(store());
    {
        let client = client(&engine).await;
        beside_worker(&client, WorkerShape::default(), async {
            let handle = client.start_workflow(Sleeping::run, 500, options("asleep")).await.expect("starts");
            happened(&handle, "TimerStarted").await;
        })
        .await;
    }
    engine.shutdown().await;
    drop(engine);
    let engine = open(store());
    let client = client(&engine).await;
    beside_worker(&client, WorkerShape::default(), async {
        let handle = client.get_workflow_handle::<Sleeping>("asleep");
        handle.get_result(WorkflowGetResultOptions::default()).await.expect("wakes");
    })
    .await;
    sound(&engine);
    engine.shutdown().await;
}

#[tokio::test]
async fn a_workflow_task_that_a_lost_worker_had_is_given_out_again_at_once() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = || Options::new(Store::Fjall(folder.path().to_owned()));
    let poll = || PollWorkflowTaskQueueRequest {
        namespace: "default".to_owned(),
        task_queue: Some(TaskQueue { name: QUEUE.to_owned(), ..Default::default() }),
        ..Default::default()
    };
    let engine = open(store());
    {
        let client = client(&engine).await;
        client.start_workflow(Mailbox::run, (), options("started")).await.expect("starts");
        let mut service = client.connection().workflow_service();
        let task = service.poll_workflow_task_queue(poll().into_request()).await.expect("a task").into_inner();
        assert_eq!(task.attempt, 1);
    }
    engine.shutdown().await;
    drop(engine);
    let engine = open(store());
    let client = client(&engine).await;
    let mut service = client.connection().workflow_service();
    let task = within(service.poll_workflow_task_queue(poll().into_request())).await.expect("a task").into_inner();
    assert_eq!(task.attempt, 1, "the engine stopped, not the task failed");
    let events = history(&client.get_workflow_handle::<Mailbox>("started")).await;
    let names: Vec<_> = events.iter().map(|event| format!("{:?}", event.event_type())).collect();
    assert_eq!(
        names,
        [
            "WorkflowExecutionStarted",
            "WorkflowTaskScheduled",
            "WorkflowTaskStarted",
            "WorkflowTaskTimedOut",
            "WorkflowTaskScheduled",
            "WorkflowTaskStarted"
        ]
    );
    sound(&engine);
    engine.shutdown().await;
}

#[tokio::test]
async fn an_engine_that_only_reads_recovers_nothing_and_refuses_changes() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = || Options::new(Store::Fjall(folder.path().to_owned()));
    let engine = open(store());
    {
        let client = client(&engine).await;
        client.start_workflow(Mailbox::run, (), options("started")).await.expect("starts");
        let poll = PollWorkflowTaskQueueRequest {
            namespace: "default".to_owned(),
            task_queue: Some(TaskQueue { name: QUEUE.to_owned(), ..Default::default() }),
            ..Default::default()
        };
        let mut service = client.connection().workflow_service();
        service.poll_workflow_task_queue(poll.into_request()).await.expect("a task, that is lost with its worker");
    }
    engine.shutdown().await;
    for _ in 0..2 {
        let engine = Engine::open_read_only(store()).expect("opens");
        sound(&engine);
        let client = client(&engine).await;
        let handle = client.get_workflow_handle::<Mailbox>("started");
        assert_eq!(history(&handle).await.len(), 3, "the lost task was not ended");
        let signal =
            handle.signal(Mailbox::post, "a".to_owned(), WorkflowSignalOptions::default()).await.expect_err("refuses");
        assert!(format!("{signal:?}").contains("opened to be read"), "{signal:?}");
        let start = client.start_workflow(Mailbox::run, (), options("another")).await;
        assert!(start.is_err(), "nothing is started");
        engine.shutdown().await;
    }
    let engine = open(store());
    let client = client(&engine).await;
    happened(&client.get_workflow_handle::<Mailbox>("started"), "WorkflowTaskTimedOut").await;
    engine.shutdown().await;
    let nowhere = Options::new(Store::Fjall(folder.path().join("nowhere")));
    assert!(Engine::open_read_only(nowhere).is_err(), "reading makes no database");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_sees_one_moment_while_the_engine_works() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let engine = open(Options::new(Store::Fjall(folder.path().to_owned())));
    let client = client(&engine).await;
    beside_worker(&client, WorkerShape::default(), async {
        let handle = client.start_workflow(Steps::run, (60, false), options("busy")).await.expect("starts");
        let result = handle.get_result(WorkflowGetResultOptions::default());
        tokio::pin!(result);
        let mut looks = 0;
        while futures::poll!(&mut result).is_pending() {
            let examined = engine.clone();
            let report = tokio::task::spawn_blocking(move || examined.verify()).await.expect("looks").expect("reads");
            assert!(report.is_sound(), "look {looks}: {:#?}", report.problems);
            looks += 1;
        }
        assert!(looks > 5, "{looks} looks are too few to have met a change");
    })
    .await;
    engine.shutdown().await;
}

#[tokio::test]
async fn a_folder_that_is_open_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let engine = open(Options::new(Store::Fjall(folder.path().to_owned())));
    let second = Engine::open(Options::new(Store::Fjall(folder.path().to_owned())));
    let error = second.err().expect("is refused").to_string();
    assert!(error.contains("another process has it open"), "{error}");
    engine.shutdown().await;
}

/// One call of the engine, encoded and decoded.
async fn call<Request: prost::Message, Response: prost::Message + Default>(
    engine: &Engine,
    rpc: &str,
    request: Request,
) -> Response {
    let service = "temporal.api.workflowservice.v1.WorkflowService";
    let body = request.encode_to_vec().into();
    let answer = engine.call(service, rpc, &http::HeaderMap::new(), body).await.expect("an answer");
    Response::decode(answer.as_slice()).expect("a response")
}

#[tokio::test]
async fn whenever_a_poll_goes_away_its_task_comes_back() {
    let engine = memory();
    let client = client(&engine).await;
    client.start_workflow(Mailbox::run, (), options("dropped")).await.expect("starts");
    let poll = || PollWorkflowTaskQueueRequest {
        namespace: "default".to_owned(),
        task_queue: Some(TaskQueue { name: QUEUE.to_owned(), ..Default::default() }),
        ..Default::default()
    };
    // The first look of a poll at its queue takes the task and starts it; then it waits for the store and is dropped,
    // unless the store was so quick that the answer is there already.
    let mut answered = None;
    for _ in 0..20 {
        let mut poll = Box::pin(call::<_, PollWorkflowTaskQueueResponse>(&engine, "PollWorkflowTaskQueue", poll()));
        if let Poll::Ready(task) = futures::poll!(&mut poll) {
            answered = Some(task);
            break;
        }
    }
    let task = match answered {
        Some(task) => task,
        None => within(call(&engine, "PollWorkflowTaskQueue", poll())).await,
    };
    assert_eq!((task.attempt, task.workflow_execution.map(|e| e.workflow_id).as_deref()), (1, Some("dropped")));
    sound(&engine);
    engine.shutdown().await;
}

#[tokio::test]
async fn polls_are_answered_empty_when_the_engine_shuts_down() {
    let engine = memory();
    let poll = PollWorkflowTaskQueueRequest {
        namespace: "default".to_owned(),
        task_queue: Some(TaskQueue { name: QUEUE.to_owned(), ..Default::default() }),
        ..Default::default()
    };
    let waiting = call::<_, PollWorkflowTaskQueueResponse>(&engine, "PollWorkflowTaskQueue", poll);
    let (answer, ()) = within(async { tokio::join!(waiting, engine.shutdown()) }).await;
    assert!(answer.task_token.is_empty());
}

#[tokio::test]
async fn a_month_passes_in_a_moment_and_what_was_to_happen_happens() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let month = Duration::from_secs(30 * 24 * 3600);
    let clock = SimulatedClock::new(Time(1_700_000_000_000_000_000));
    let simulated =
        || Options { clock: Arc::new(clock.clone()), ..Options::new(Store::Fjall(folder.path().to_owned())) };
    let poll = || PollWorkflowTaskQueueRequest {
        namespace: "default".to_owned(),
        task_queue: Some(TaskQueue { name: QUEUE.to_owned(), ..Default::default() }),
        ..Default::default()
    };
    let engine = open(simulated());
    let start = StartWorkflowExecutionRequest {
        namespace: "default".to_owned(),
        workflow_id: "later".to_owned(),
        workflow_type: Some(WorkflowType { name: "W".to_owned() }),
        task_queue: Some(TaskQueue { name: QUEUE.to_owned(), ..Default::default() }),
        workflow_start_delay: Some(month.try_into().expect("a duration")),
        ..Default::default()
    };
    let started: StartWorkflowExecutionResponse = call(&engine, "StartWorkflowExecution", start).await;
    assert!(started.started);
    engine.shutdown().await;

    let engine = open(simulated());
    let mut waiting = Box::pin(call::<_, PollWorkflowTaskQueueResponse>(&engine, "PollWorkflowTaskQueue", poll()));
    assert!(futures::poll!(&mut waiting).is_pending());
    drop(waiting);
    clock.advance(month);
    let task: PollWorkflowTaskQueueResponse = within(call(&engine, "PollWorkflowTaskQueue", poll())).await;
    assert_eq!(task.workflow_execution.map(|execution| execution.run_id), Some(started.run_id));
    sound(&engine);
    engine.shutdown().await;
}

#[tokio::test]
async fn an_engine_that_is_only_dropped_lets_go_of_its_folder() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = || Options::new(Store::Fjall(folder.path().to_owned()));
    drop(open(store()));
    within(async {
        // Its timer task and its commit thread end on their own; there is nothing to wait on but the lock.
        while let Err(error) = Engine::open(store()) {
            assert!(error.to_string().contains("another process has it open"), "{error}");
            tokio::task::yield_now().await;
        }
    })
    .await;
}
