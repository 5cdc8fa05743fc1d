//! What clients do to workflows and ask of them.

use crate::fixture::{QUEUE, WorkerShape, beside_worker, client, describe, happened, history, memory, open};
use crate::workflows::*;
use std::time::Duration;
use steadyhand_engine::{Engine, Limits, Options, Store};
use temporalio_client::errors::WorkflowStartError;
use temporalio_client::tonic::{Code, IntoRequest};
use temporalio_client::{
    Client, WorkflowGetResultOptions, WorkflowIdConflictPolicy, WorkflowIdReusePolicy, WorkflowQueryOptions,
    WorkflowSignalOptions, WorkflowStartOptions, WorkflowTerminateOptions,
};
use temporalio_common::protos::temporal::api::common::v1::{
    Payload, Payloads, SearchAttributes, WorkflowExecution, WorkflowType,
};
use temporalio_common::protos::temporal::api::enums::v1::{
    EventType, IndexedValueType, UpdateWorkflowExecutionLifecycleStage as Lifecycle,
};
use temporalio_common::protos::temporal::api::operatorservice::v1::*;
use temporalio_common::protos::temporal::api::taskqueue::v1::TaskQueue;
use temporalio_common::protos::temporal::api::update;
use temporalio_common::protos::temporal::api::update::v1::WaitPolicy;
use temporalio_common::protos::temporal::api::workflowservice::v1::*;

fn options(id: &str) -> WorkflowStartOptions {
    WorkflowStartOptions::new(QUEUE, id).task_timeout(Duration::from_secs(5)).build()
}

async fn mail(client: &Client, id: &str) -> Vec<String> {
    let handle = client.get_workflow_handle::<Mailbox>(id);
    handle.query(Mailbox::mail, (), WorkflowQueryOptions::default()).await.expect("an answer")
}

#[tokio::test]
async fn queries_see_every_signal_before_them_also_after_the_end() {
    let engine = memory();
    let client = client(&engine).await;
    beside_worker(&client, WorkerShape::default(), async {
        let handle = client.start_workflow(Mailbox::run, (), options("asked")).await.expect("starts");
        // Nothing has run yet: the query waits for the first workflow task.
        assert!(mail(&client, "asked").await.is_empty());
        for n in 0..20 {
            handle.signal(Mailbox::post, n.to_string(), WorkflowSignalOptions::default()).await.expect("signals");
            assert_eq!(mail(&client, "asked").await.len(), n + 1, "the query goes behind the signal");
        }
        handle.signal(Mailbox::post, "stop".to_owned(), WorkflowSignalOptions::default()).await.expect("signals");
        handle.get_result(WorkflowGetResultOptions::default()).await.expect("completes");
        assert_eq!(mail(&client, "asked").await.len(), 21, "a closed run is replayed");
    })
    .await;
    engine.shutdown().await;
}

#[tokio::test]
async fn queries_at_the_same_time_are_all_answered() {
    let engine = memory();
    let client = client(&engine).await;
    beside_worker(&client, WorkerShape::default(), async {
        let handle = client.start_workflow(Mailbox::run, (), options("popular")).await.expect("starts");
        happened(&handle, "WorkflowTaskCompleted").await;
        let all = || futures::future::join_all((0..50).map(|_| mail(&client, "popular")));
        assert!(all().await.iter().all(Vec::is_empty));
        handle.signal(Mailbox::post, "stop".to_owned(), WorkflowSignalOptions::default()).await.expect("signals");
        handle.get_result(WorkflowGetResultOptions::default()).await.expect("completes");
        // One at a time: of those that come at once for a closed run an SDK loses some, by a server as well.
        for _ in 0..3 {
            assert_eq!(mail(&client, "popular").await, ["stop"]);
        }
    })
    .await;
    engine.shutdown().await;
}

#[tokio::test]
async fn without_a_cache_every_task_and_query_is_replayed_from_the_whole_history() {
    for limits in
        [Limits { history_page_max: 7, ..Limits::default() }, Limits { history_page_bytes: 600, ..Limits::default() }]
    {
        let engine = open(Options { limits, ..Options::new(Store::Memory) });
        let client = client(&engine).await;
        beside_worker(&client, WorkerShape { cached_workflows: 0, ..WorkerShape::default() }, async {
            let handle = client.start_workflow(Steps::run, (12, false), options("uncached")).await.expect("starts");
            assert_eq!(handle.get_result(WorkflowGetResultOptions::default()).await.expect("completes"), 12);
            let handle = client.start_workflow(Mailbox::run, (), options("asked")).await.expect("starts");
            handle.signal(Mailbox::post, "a".to_owned(), WorkflowSignalOptions::default()).await.expect("signals");
            assert_eq!(mail(&client, "asked").await, ["a"]);
        })
        .await;
        engine.shutdown().await;
    }
}

#[tokio::test]
async fn a_workflow_id_is_used_again_as_the_policies_say() {
    let engine = memory();
    let client = client(&engine).await;
    let start = async |reuse: WorkflowIdReusePolicy, conflict: WorkflowIdConflictPolicy| {
        let options =
            WorkflowStartOptions::new(QUEUE, "id").id_reuse_policy(reuse).id_conflict_policy(conflict).build();
        let started = client.start_workflow(Mailbox::run, (), options).await;
        started.map(|handle| handle.run_id().expect("a run id").to_owned())
    };
    use WorkflowIdConflictPolicy as Conflict;
    use WorkflowIdReusePolicy as Reuse;
    let first = start(Reuse::AllowDuplicate, Conflict::Fail).await.expect("nothing is in the way");
    match start(Reuse::AllowDuplicate, Conflict::Fail).await {
        Err(WorkflowStartError::AlreadyStarted { run_id, .. }) => assert_eq!(run_id.as_deref(), Some(first.as_str())),
        other => panic!("{other:?}"),
    }
    assert_eq!(start(Reuse::AllowDuplicate, Conflict::UseExisting).await.expect("is given the first"), first);
    let second = start(Reuse::AllowDuplicate, Conflict::TerminateExisting).await.expect("replaces the first");
    assert_ne!(second, first);
    assert!(start(Reuse::RejectDuplicate, Conflict::Fail).await.is_err());
    let handle = client.get_workflow_handle::<Mailbox>("id");
    handle.terminate(WorkflowTerminateOptions::default()).await.expect("terminates");
    assert!(start(Reuse::RejectDuplicate, Conflict::Fail).await.is_err(), "closed, and still a duplicate");
    let third =
        start(Reuse::AllowDuplicateFailedOnly, Conflict::Fail).await.expect("a terminated run counts as failed");
    let listed = list(&client, "WorkflowId = 'id'").await;
    assert_eq!(listed.iter().map(|run| run.0.as_str()).collect::<Vec<_>>(), [third.as_str(), &second, &first]);
    engine.shutdown().await;
    assert!(engine.verify().expect("reads").is_sound());
}

#[tokio::test]
async fn a_repeated_request_is_taken_once() {
    let engine = memory();
    let client = client(&engine).await;
    let mut service = client.connection().workflow_service();
    let start = SignalWithStartWorkflowExecutionRequest {
        namespace: "default".to_owned(),
        workflow_id: "once".to_owned(),
        workflow_type: Some(temporalio_common::protos::temporal::api::common::v1::WorkflowType {
            name: "Mailbox".into(),
        }),
        task_queue: Some(temporalio_common::protos::temporal::api::taskqueue::v1::TaskQueue {
            name: QUEUE.to_owned(),
            ..Default::default()
        }),
        signal_name: "post".to_owned(),
        request_id: "r1".to_owned(),
        ..Default::default()
    };
    let first =
        service.signal_with_start_workflow_execution(start.clone().into_request()).await.expect("starts").into_inner();
    assert!(first.started);
    let again =
        service.signal_with_start_workflow_execution(start.into_request()).await.expect("is known").into_inner();
    assert_eq!((again.started, again.run_id), (false, first.run_id));
    let signal = SignalWorkflowExecutionRequest {
        namespace: "default".to_owned(),
        workflow_execution: Some(WorkflowExecution { workflow_id: "once".to_owned(), run_id: String::new() }),
        signal_name: "post".to_owned(),
        request_id: "r2".to_owned(),
        ..Default::default()
    };
    for _ in 0..3 {
        service.signal_workflow_execution(signal.clone().into_request()).await.expect("signals");
    }
    let info = describe(&client, "once").await.workflow_execution_info.expect("an info");
    assert_eq!(info.history_length, 4, "started, two signals, workflow task scheduled");
    engine.shutdown().await;
}

/// Run ids and statuses that a query finds.
async fn list(client: &Client, query: &str) -> Vec<(String, i32)> {
    let mut found = Vec::new();
    let mut next_page_token = Vec::new();
    loop {
        let request = ListWorkflowExecutionsRequest {
            namespace: "default".to_owned(),
            page_size: 2,
            query: query.to_owned(),
            next_page_token,
        };
        let mut service = client.connection().workflow_service();
        let page = service.list_workflow_executions(request.into_request()).await.expect("lists").into_inner();
        found.extend(page.executions.iter().map(|run| (run.execution.clone().unwrap_or_default().run_id, run.status)));
        next_page_token = page.next_page_token;
        if next_page_token.is_empty() {
            return found;
        }
    }
}

#[tokio::test]
async fn lists_and_counts_follow_what_happens() {
    let engine = memory();
    let client = client(&engine).await;
    for n in 0..5 {
        client.start_workflow(Mailbox::run, (), options(&format!("m{n}"))).await.expect("starts");
    }
    client
        .get_workflow_handle::<Mailbox>("m1")
        .terminate(WorkflowTerminateOptions::default())
        .await
        .expect("terminates");
    assert_eq!(list(&client, "").await.len(), 5);
    assert_eq!(list(&client, "ExecutionStatus = 'Running'").await.len(), 4);
    assert_eq!(list(&client, "ExecutionStatus = 'Terminated' AND WorkflowId = 'm1'").await.len(), 1);
    let mut service = client.connection().workflow_service();
    let count = |query: &str| CountWorkflowExecutionsRequest { namespace: "default".into(), query: query.into() };
    let grouped = service.count_workflow_executions(count("GROUP BY ExecutionStatus").into_request()).await;
    let grouped = grouped.expect("counts").into_inner();
    assert_eq!((grouped.count, grouped.groups.len()), (5, 2));
    let delete = DeleteWorkflowExecutionRequest {
        namespace: "default".to_owned(),
        workflow_execution: Some(WorkflowExecution { workflow_id: "m2".to_owned(), run_id: String::new() }),
    };
    service.delete_workflow_execution(delete.clone().into_request()).await.expect("deletes an open run");
    let gone = service.delete_workflow_execution(delete.into_request()).await.expect_err("is gone");
    assert_eq!(gone.code(), Code::NotFound);
    assert_eq!(list(&client, "").await.len(), 4);
    engine.shutdown().await;
    let report = engine.verify().expect("reads");
    assert!(report.is_sound(), "{:#?}", report.problems);
    assert_eq!((report.runs, report.open_runs), (4, 3));
}

#[tokio::test]
async fn runs_are_found_by_attributes_that_a_namespace_registered() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = || Options::new(Store::Fjall(folder.path().to_owned()));
    let engine = open(store());
    let start = |id: &str, amount: &str| StartWorkflowExecutionRequest {
        namespace: "default".to_owned(),
        workflow_id: id.to_owned(),
        workflow_type: Some(WorkflowType { name: "Mailbox".into() }),
        task_queue: Some(TaskQueue { name: QUEUE.to_owned(), ..Default::default() }),
        search_attributes: Some(SearchAttributes { indexed_fields: [("Amount".to_owned(), json(amount))].into() }),
        ..Default::default()
    };
    let add = |name: &str, kind: IndexedValueType| AddSearchAttributesRequest {
        namespace: "default".to_owned(),
        search_attributes: [(name.to_owned(), kind as i32)].into(),
    };
    {
        let client = client(&engine).await;
        let mut service = client.connection().workflow_service();
        let mut operator = client.connection().operator_service();
        let unknown = service.start_workflow_execution(start("a", "5").into_request()).await.expect_err("is unknown");
        assert!(unknown.message().contains("no mapping defined for search attribute Amount"), "{unknown:?}");
        for _ in 0..2 {
            let int = add("Amount", IndexedValueType::Int);
            operator.add_search_attributes(int.into_request()).await.expect("is added, once");
        }
        let again = operator.add_search_attributes(add("Amount", IndexedValueType::Bool).into_request()).await;
        assert_eq!(again.expect_err("has another type").code(), Code::AlreadyExists);
        let reserved = operator.add_search_attributes(add("StartTime", IndexedValueType::Int).into_request()).await;
        assert_eq!(reserved.expect_err("is ours").code(), Code::InvalidArgument);
        for (id, amount) in [("a", "5"), ("b", "9"), ("c", "7")] {
            service.start_workflow_execution(start(id, amount).into_request()).await.expect("starts");
        }
    }
    engine.shutdown().await;
    let engine = open(store());
    let client = client(&engine).await;
    let mut operator = client.connection().operator_service();
    let ids = async |query: &str| {
        let mut ids = Vec::new();
        for (run_id, _) in list(&client, query).await {
            let execution = WorkflowExecution { workflow_id: String::new(), run_id };
            let request = DescribeWorkflowExecutionRequest {
                namespace: "default".to_owned(),
                execution: Some(WorkflowExecution { workflow_id: "a".to_owned(), ..execution.clone() }),
            };
            let mut service = client.connection().workflow_service();
            let is_a = service.describe_workflow_execution(request.into_request()).await.is_ok();
            ids.push(if is_a { 'a' } else { '-' });
        }
        ids.into_iter().collect::<String>()
    };
    assert_eq!(ids("Amount > 5").await, "--");
    assert_eq!(ids("Amount <= 5").await, "a");
    assert_eq!(ids("ORDER BY Amount").await, "a--", "in pages of two");
    assert_eq!(ids("ORDER BY Amount DESC").await, "--a");
    let wanted = ListSearchAttributesRequest { namespace: "default".to_owned() };
    let listed = operator.list_search_attributes(wanted.into_request()).await.expect("lists").into_inner();
    assert_eq!(listed.custom_attributes, [("Amount".to_owned(), IndexedValueType::Int as i32)].into());
    let remove = || RemoveSearchAttributesRequest {
        namespace: "default".to_owned(),
        search_attributes: vec!["Amount".to_owned()],
    };
    operator.remove_search_attributes(remove().into_request()).await.expect("removes");
    let gone = operator.remove_search_attributes(remove().into_request()).await.expect_err("is gone");
    assert_eq!(gone.code(), Code::NotFound);
    engine.shutdown().await;
}

#[tokio::test]
async fn a_chain_of_runs_loses_no_signal() {
    let engine = memory();
    let client = client(&engine).await;
    beside_worker(&client, WorkerShape::default(), async {
        client.start_workflow(Hopping::run, (0, 60), options("hops")).await.expect("starts");
        let handle = client.get_workflow_handle::<Hopping>("hops");
        for _ in 0..60 {
            handle.signal(Hopping::hop, 0, WorkflowSignalOptions::default()).await.expect("signals the newest run");
        }
        assert_eq!(handle.get_result(WorkflowGetResultOptions::default()).await.expect("completes"), 60);
    })
    .await;
    engine.shutdown().await;
    let report = engine.verify().expect("reads");
    assert!(report.is_sound(), "{:#?}", report.problems);
}

#[tokio::test]
async fn an_update_is_made_once_and_its_answer_stays() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = || Options::new(Store::Fjall(folder.path().to_owned()));
    let engine = open(store());
    let request = |id: &str, amount: i64, stage: Lifecycle| UpdateWorkflowExecutionRequest {
        namespace: "default".to_owned(),
        workflow_execution: Some(WorkflowExecution { workflow_id: "account".to_owned(), run_id: String::new() }),
        wait_policy: Some(WaitPolicy { lifecycle_stage: stage as i32 }),
        request: Some(update::v1::Request {
            meta: Some(update::v1::Meta { update_id: id.to_owned(), identity: String::new() }),
            input: Some(update::v1::Input {
                name: "pay".to_owned(),
                args: Some(Payloads { payloads: vec![json(&amount.to_string())] }),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    let success = |response: &UpdateWorkflowExecutionResponse| match response.outcome.clone()?.value? {
        update::v1::outcome::Value::Success(payloads) => String::from_utf8(payloads.payloads[0].data.clone()).ok(),
        update::v1::outcome::Value::Failure(failure) => Some(failure.message),
    };
    {
        let client = client(&engine).await;
        let mut service = client.connection().workflow_service();
        // Nobody is there to accept it: the caller gets what there is when it does not want to wait.
        client.start_workflow(Account::run, (), options("account")).await.expect("starts");
        let admitted = service.update_workflow_execution(request("first", 5, Lifecycle::Admitted).into_request()).await;
        assert_eq!(admitted.expect("is admitted").into_inner().stage(), Lifecycle::Admitted);
        beside_worker(&client, WorkerShape::default(), async {
            let ask = async |id: &str, amount| {
                let mut service = client.connection().workflow_service();
                let answer =
                    service.update_workflow_execution(request(id, amount, Lifecycle::Completed).into_request());
                success(&answer.await.expect("is answered").into_inner())
            };
            assert_eq!(ask("first", 5).await.as_deref(), Some("5"));
            assert_eq!(ask("first", 5).await.as_deref(), Some("5"), "the same update is not made again");
            assert_eq!(ask("second", -6).await.as_deref(), Some("not that much is there"), "it is refused");
            assert_eq!(ask("third", 2).await.as_deref(), Some("7"));
            let many = futures::future::join_all((0..8).map(|n| {
                let client = &client;
                let request = request(&format!("many-{n}"), 1, Lifecycle::Completed);
                async move {
                    let mut service = client.connection().workflow_service();
                    service.update_workflow_execution(request.into_request()).await.expect("is answered").into_inner()
                }
            }));
            let mut balances: Vec<_> = many.await.iter().filter_map(success).collect();
            balances.sort();
            assert_eq!(balances, ["10", "11", "12", "13", "14", "15", "8", "9"]);
        })
        .await;
        let history = history(&client.get_workflow_handle::<Account>("account")).await;
        let accepted = history.iter().filter(|e| e.event_type() == EventType::WorkflowExecutionUpdateAccepted).count();
        assert_eq!(accepted, 10, "a refusal leaves no event");
    }
    engine.shutdown().await;
    let engine = open(store());
    let client = client(&engine).await;
    let mut service = client.connection().workflow_service();
    let again = service.update_workflow_execution(request("third", 2, Lifecycle::Completed).into_request()).await;
    assert_eq!(success(&again.expect("is known").into_inner()).as_deref(), Some("7"), "also after a restart");
    let poll = |id: &str| PollWorkflowExecutionUpdateRequest {
        namespace: "default".to_owned(),
        update_ref: Some(update::v1::UpdateRef {
            workflow_execution: Some(WorkflowExecution { workflow_id: "account".to_owned(), run_id: String::new() }),
            update_id: id.to_owned(),
        }),
        ..Default::default()
    };
    let polled = service.poll_workflow_execution_update(poll("first").into_request()).await.expect("is known");
    assert_eq!(polled.into_inner().stage(), Lifecycle::Completed);
    let unknown = service.poll_workflow_execution_update(poll("other").into_request()).await.expect_err("is not");
    assert_eq!(unknown.code(), Code::NotFound);
    let handle = client.get_workflow_handle::<Account>("account");
    let waiting = tokio::spawn({
        let request = request("late", 1, Lifecycle::Completed);
        let mut service = client.connection().workflow_service();
        async move { service.update_workflow_execution(request.into_request()).await }
    });
    happened(&handle, "WorkflowTaskScheduled x5").await;
    handle.terminate(WorkflowTerminateOptions::default()).await.expect("terminates");
    let aborted = waiting.await.expect("does not panic").expect_err("nobody will answer");
    assert_eq!(aborted.code(), Code::NotFound);
    engine.shutdown().await;
    let report = engine_report(&store());
    assert!(report.is_sound(), "{:#?}", report.problems);
}

fn json(text: &str) -> Payload {
    let metadata = std::collections::HashMap::from([("encoding".to_owned(), b"json/plain".to_vec())]);
    Payload { metadata, data: text.as_bytes().to_vec(), ..Default::default() }
}

fn engine_report(options: &Options) -> steadyhand_engine::Report {
    let engine = Engine::open_read_only(options.clone()).expect("opens");
    engine.verify().expect("reads")
}

#[tokio::test]
async fn a_history_read_backwards_in_pages_is_the_history() {
    let engine = memory();
    let client = client(&engine).await;
    beside_worker(&client, WorkerShape::default(), async {
        let handle = client.start_workflow(Steps::run, (9, false), options("long")).await.expect("starts");
        handle.get_result(WorkflowGetResultOptions::default()).await.expect("completes");
        let forward = history(&handle).await;
        let execution = WorkflowExecution { workflow_id: "long".to_owned(), run_id: String::new() };
        for maximum_page_size in [1, 7, 1000] {
            let (mut backward, mut pages, mut next_page_token) = (Vec::new(), 0, Vec::new());
            loop {
                let request = GetWorkflowExecutionHistoryReverseRequest {
                    namespace: "default".to_owned(),
                    execution: Some(execution.clone()),
                    maximum_page_size,
                    next_page_token,
                };
                let mut service = client.connection().workflow_service();
                let page = service.get_workflow_execution_history_reverse(request.into_request()).await;
                let page = page.expect("a page").into_inner();
                let events = page.history.unwrap_or_default().events;
                assert!(events.len() <= maximum_page_size as usize);
                backward.extend(events);
                pages += 1;
                next_page_token = page.next_page_token;
                if next_page_token.is_empty() {
                    break;
                }
            }
            assert!(pages >= forward.len().div_ceil(maximum_page_size as usize), "{pages} pages");
            backward.reverse();
            assert_eq!(backward, forward, "pages of {maximum_page_size}");
        }
    })
    .await;
    engine.shutdown().await;
}

#[tokio::test]
async fn limits_are_kept_with_typed_errors() {
    let limits = Limits { signals_max: 2, history_events_max: 30, id_bytes_max: 100, ..Limits::default() };
    let engine = open(Options { limits, ..Options::new(Store::Memory) });
    let client = client(&engine).await;
    let long = client.start_workflow(Mailbox::run, (), options(&"x".repeat(101))).await;
    assert!(matches!(long, Err(WorkflowStartError::Rpc(status)) if status.code() == Code::InvalidArgument));
    let handle = client.start_workflow(Mailbox::run, (), options("few")).await.expect("starts");
    for n in 0..3 {
        let signaled = handle.signal(Mailbox::post, n.to_string(), WorkflowSignalOptions::default()).await;
        assert_eq!(signaled.is_ok(), n < 2);
    }
    beside_worker(&client, WorkerShape::default(), async {
        let handle = client.start_workflow(Steps::run, (50, false), options("long")).await.expect("starts");
        handle.get_result(WorkflowGetResultOptions::default()).await.expect_err("is terminated");
        happened(&handle, "WorkflowExecutionTerminated").await;
        let handle = client.start_workflow(Steps::run, (2, false), options("short")).await.expect("starts");
        handle.get_result(WorkflowGetResultOptions::default()).await.expect("the worker is well");
    })
    .await;
    engine.shutdown().await;
}

#[tokio::test]
async fn what_is_not_implemented_says_so() {
    let engine = memory();
    let client = client(&engine).await;
    let mut service = client.connection().workflow_service();
    let request = ListSchedulesRequest { namespace: "default".to_owned(), ..Default::default() };
    let status = service.list_schedules(request.into_request()).await.expect_err("is not there");
    assert_eq!((status.code(), status.message()), (Code::Unimplemented, "unknown method ListSchedules"));
    let request = DescribeNamespaceRequest { namespace: "elsewhere".to_owned(), ..Default::default() };
    let status = service.describe_namespace(request.into_request()).await.expect_err("is not there");
    assert_eq!(status.code(), Code::NotFound);
    let mut request = RegisterNamespaceRequest { namespace: "elsewhere".to_owned(), ..Default::default() };
    for too_short in [None, Some(Duration::from_secs(3_599))] {
        request.workflow_execution_retention_period = too_short.map(|time| time.try_into().expect("a duration"));
        let status = service.register_namespace(request.clone().into_request()).await.expect_err("is too short");
        let said = (status.code(), status.message());
        assert_eq!(said, (Code::InvalidArgument, "A valid retention period is not set on request."));
    }
    request.workflow_execution_retention_period = Some(Duration::from_secs(3_600).try_into().expect("a duration"));
    service.register_namespace(request.clone().into_request()).await.expect("registers");
    let describe = DescribeNamespaceRequest { namespace: "elsewhere".to_owned(), ..Default::default() };
    let described = service.describe_namespace(describe.into_request()).await.expect("is there").into_inner();
    let config = described.config.expect("a configuration");
    assert_eq!(config.workflow_execution_retention_ttl, request.workflow_execution_retention_period);
    let again = service.register_namespace(request.into_request()).await.expect_err("is there already");
    assert_eq!(again.code(), Code::AlreadyExists);
    engine.shutdown().await;
}

#[tokio::test]
async fn many_runs_live_with_little_memory() {
    let engine = open(Options { cached_runs_max: 1, ..Options::new(Store::Memory) });
    let client = client(&engine).await;
    beside_worker(&client, WorkerShape::default(), async {
        for n in 0..40 {
            client.start_workflow(Mailbox::run, (), options(&format!("m{n}"))).await.expect("starts");
        }
        for mail in ["a", "stop"] {
            for n in 0..40 {
                let handle = client.get_workflow_handle::<Mailbox>(format!("m{n}"));
                handle.signal(Mailbox::post, mail.to_owned(), WorkflowSignalOptions::default()).await.expect("signals");
            }
        }
        for n in 0..40 {
            let handle = client.get_workflow_handle::<Mailbox>(format!("m{n}"));
            let mail = handle.get_result(WorkflowGetResultOptions::default()).await.expect("completes");
            assert_eq!(mail, ["a", "stop"]);
        }
    })
    .await;
    engine.shutdown().await;
    let report = engine.verify().expect("reads");
    assert!(report.is_sound(), "{:#?}", report.problems);
}
