//! What is said to whoever goes beyond a limit: error, words and typed details, or what becomes of the run. A real Temporal
//! server (1.32.0) with the limits below said the same (`golden/limits.txt`).
//!
//! To record it again: `STEADYHAND_LIMITS_REFERENCE=HOST:PORT` names a fresh server that was started with
//! `limit.maxIDLength=100 limit.blobSize.warn=500 limit.blobSize.error=1000 limit.memoSize.warn=500 limit.memoSize.error=1000
//! limit.historyCount.warn=20 limit.historyCount.error=40 limit.numPendingActivities.error=2 limit.numPendingChildExecutions.error=2
//! limit.numPendingSignals.error=2 limit.numPendingCancelRequests.error=2 history.maximumSignalsPerExecution=6
//! history.maxInFlightUpdates=2 history.maxTotalUpdates=2 history.maximumBufferedEventsBatch=3
//! history.MaxBufferedQueryCount=2 frontend.visibilityMaxPageSize=2`.

use crate::fixture::{connect_once, memory, open, over, within};
use crate::raw::{
    Raw, activity, blob, call, cancel_of, child, continue_as_new, kind, marker, queue, signal_to, taken_and_answered,
    timer,
};
use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::time::Duration;
use steadyhand_engine::{Limits, Options, Store};
use temporalio_client::tonic::{Code, IntoRequest, Request, Status};
use temporalio_client::{Client, RetryOptions};
use temporalio_common::protos::google::rpc;
use temporalio_common::protos::temporal::api::command::v1::command::Attributes as C;
use temporalio_common::protos::temporal::api::command::v1::*;
use temporalio_common::protos::temporal::api::common::v1::{ActivityType, Memo, Payloads};
use temporalio_common::protos::temporal::api::enums::v1::{CommandType, DescribeTaskQueueMode};
use temporalio_common::protos::temporal::api::errordetails::v1::ResourceExhaustedFailure;
use temporalio_common::protos::temporal::api::failure::v1::ApplicationFailureInfo;
use temporalio_common::protos::temporal::api::failure::v1::Failure;
use temporalio_common::protos::temporal::api::failure::v1::failure::FailureInfo;
use temporalio_common::protos::temporal::api::history::v1::HistoryEvent;
use temporalio_common::protos::temporal::api::history::v1::history_event::Attributes as A;
use temporalio_common::protos::temporal::api::query::v1::WorkflowQuery;
use temporalio_common::protos::temporal::api::taskqueue::v1::TaskQueueVersionSelection;
use temporalio_common::protos::temporal::api::workflowservice::v1::*;

/// Those with which the kept answers were recorded.
fn limits() -> Limits {
    Limits {
        id_bytes_max: 100,
        blob_bytes_max: 1_000,
        memo_bytes_max: 1_000,
        history_events_max: 40,
        pending_activities_max: 2,
        pending_children_max: 2,
        pending_signals_max: 2,
        pending_cancels_max: 2,
        signals_max: 6,
        in_flight_updates_max: 2,
        updates_max: 2,
        buffered_events_max: 3,
        buffered_queries_max: 2,
        list_page_max: 2,
        ..Limits::default()
    }
}

#[tokio::test]
async fn what_is_said_at_each_limit() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/all/golden/limits.txt");
    if let Ok(reference) = std::env::var("STEADYHAND_LIMITS_REFERENCE") {
        let said = play(connect_once(&reference).await, format!("l{}", std::process::id())).await;
        std::fs::write(path, said).expect("the golden file can be written");
        return;
    }
    let engine = open(Options { limits: limits(), ..Options::new(Store::Memory) });
    let said = within(play(over(&engine, RetryOptions::no_retries()).await, "limits".to_owned())).await;
    engine.shutdown().await;
    let report = engine.verify().expect("the store can be read");
    assert!(report.is_sound(), "{:#?}", report.problems);
    let kept = std::fs::read_to_string(&path).expect("a golden file");
    for (kept, said) in kept.lines().zip(said.lines()) {
        assert_eq!(said, kept);
    }
    assert_eq!(said.lines().count(), kept.lines().count());
}

#[tokio::test]
async fn while_too_many_tasks_wait_nothing_is_taken_that_makes_more() {
    let limits = Limits { waiting_tasks_max: 2, ..Limits::default() };
    let engine = open(Options { limits, ..Options::new(Store::Memory) });
    let raw = Raw::new(over(&engine, RetryOptions::no_retries()).await, "full".to_owned());
    raw.start("a").await;
    raw.start("b").await;
    let full = "ResourceExhausted: too many tasks wait for workers [ResourceExhaustedFailure SystemOverloaded System]";
    assert_eq!(words(&call!(raw, start_workflow_execution(raw.start_request("c")))), full);
    assert_eq!(words(&call!(raw, signal_workflow_execution(raw.signal_request("a", "s")))), full);
    assert_eq!(words(&call!(raw, update_workflow_execution(raw.update_request("a", "u", "u")))), full);
    let query = QueryWorkflowRequest {
        namespace: raw.namespace(),
        execution: raw.execution("a"),
        query: Some(WorkflowQuery { query_type: "q".to_owned(), ..Default::default() }),
        ..Default::default()
    };
    assert_eq!(words(&call!(raw, query_workflow(query))), full);
    // A worker makes room, and may itself ask for more.
    let task = raw.take("a").await;
    let more = (0..3).map(|n| activity(|a| a.activity_id = n.to_string())).collect();
    raw.complete(task.task_token, more).await.expect("completes");
    assert_eq!(words(&call!(raw, start_workflow_execution(raw.start_request("c")))), full);
    for _ in 0..3 {
        let request = PollActivityTaskQueueRequest {
            namespace: raw.namespace(),
            task_queue: queue("activities"),
            ..Default::default()
        };
        assert!(!call!(raw, poll_activity_task_queue(request)).expect("a task").task_token.is_empty());
    }
    raw.start("c").await;
    engine.shutdown().await;
}

/// A real server answers with every number that it is given for a type, and works on any number of build ids until the call
/// is over. Here the answer, one times the other, stays small.
#[tokio::test]
#[expect(deprecated, reason = "the mode that names build ids")]
async fn a_task_queue_is_described_for_so_many_build_ids_and_for_types_that_there_are() {
    let engine = memory();
    let raw = Raw::new(over(&engine, RetryOptions::no_retries()).await, "described".to_owned());
    let request = |build_ids: Vec<String>, types: Vec<i32>| DescribeTaskQueueRequest {
        namespace: raw.namespace(),
        task_queue: queue("q"),
        api_mode: DescribeTaskQueueMode::Enhanced as i32,
        versions: Some(TaskQueueVersionSelection { build_ids, unversioned: true, ..Default::default() }),
        task_queue_types: types,
        ..Default::default()
    };
    let ids = |count: usize| (0..count).map(|id| id.to_string()).collect::<Vec<_>>();

    let described = call!(raw, describe_task_queue(request(ids(100), vec![2, 1, 3, 1, 2]))).expect("is described");
    assert_eq!(described.versions_info.len(), 101, "the unversioned one is beside them");
    for (build_id, info) in &described.versions_info {
        assert!(info.types_info.keys().copied().collect::<BTreeSet<_>>() == BTreeSet::from([1, 2, 3]), "{build_id}");
    }
    let too_many = "InvalidArgument: Too many build ids queried at once, limit: 100";
    assert_eq!(words(&call!(raw, describe_task_queue(request(ids(101), vec![])))), too_many);
    for unknown in [-1, 4, i32::MAX] {
        let refused = format!("InvalidArgument: unknown task queue type {unknown}");
        assert_eq!(words(&call!(raw, describe_task_queue(request(ids(1), vec![1, unknown])))), refused);
    }
    // These a server counts as they are named, not as they differ.
    let reachability =
        DescribeTaskQueueRequest { report_task_reachability: true, ..request(vec!["same".to_owned(); 6], vec![]) };
    let too_many = "InvalidArgument: Too many build ids queried at once with ReportTaskReachability==true, limit: 5";
    assert_eq!(words(&call!(raw, describe_task_queue(reachability))), too_many);
    let reachability = DescribeTaskQueueRequest { report_task_reachability: true, ..request(ids(5), vec![]) };
    assert_eq!(call!(raw, describe_task_queue(reachability)).expect("is described").versions_info.len(), 6);
    engine.shutdown().await;
}

async fn play(client: Client, name: String) -> String {
    let mut stage = Stage { raw: Raw::new(client, name), said: String::new() };
    stage.ids().await;
    stage.ids_in_commands().await;
    stage.payloads().await;
    stage.payloads_in_commands().await;
    stage.answers_of_activities().await;
    stage.pending().await;
    stage.signals().await;
    stage.updates().await;
    stage.queries().await;
    stage.histories().await;
    stage.pages().await;
    stage.said
}

struct Stage {
    raw: Raw,
    said: String,
}

fn long() -> String {
    "x".repeat(101)
}

fn large() -> Option<Payloads> {
    Some(Payloads { payloads: vec![blob(2_000)] })
}

fn large_memo() -> Option<Memo> {
    Some(Memo { fields: HashMap::from([("large".to_owned(), blob(2_000))]) })
}

/// The code, the words, and the typed details of a refusal.
fn words<T>(answer: &Result<T, Status>) -> String {
    let status = match answer {
        Ok(_) => return "Ok".to_owned(),
        Err(status) => status,
    };
    let details = <rpc::Status as prost::Message>::decode(status.details()).unwrap_or_default().details;
    let details = details.iter().map(|detail| {
        let name = detail.type_url.rsplit('.').next().unwrap_or_default();
        match <ResourceExhaustedFailure as prost::Message>::decode(detail.value.as_slice()) {
            Ok(exhausted) if name == "ResourceExhaustedFailure" => {
                format!(" [{name} {:?} {:?}]", exhausted.cause(), exhausted.scope())
            }
            _ => format!(" [{name}]"),
        }
    });
    format!("{:?}: {}{}", status.code(), status.message(), details.collect::<String>())
}

/// What an event says of a limit.
fn ending(event: &HistoryEvent) -> String {
    let failure = |failure: &Option<Failure>| failure.clone().unwrap_or_default();
    let why = match &event.attributes {
        Some(A::WorkflowTaskFailedEventAttributes(a)) => format!("{:?}: {}", a.cause(), failure(&a.failure).message),
        Some(A::WorkflowExecutionTerminatedEventAttributes(a)) => format!("{} ({})", a.reason, a.identity),
        Some(A::WorkflowExecutionFailedEventAttributes(a)) => failure(&a.failure).message,
        Some(A::ActivityTaskFailedEventAttributes(a)) => {
            let failure = failure(&a.failure);
            format!("{} ({}) {:?}", failure.message, failure.source, failure.failure_info)
        }
        _ => String::new(),
    };
    format!("{:?} {why}", event.event_type()).trim_end().to_owned()
}

impl Stage {
    fn say(&mut self, what: &str, said: &str) {
        let said = said.replace(&self.raw.name, "*").replace(&long(), "LONG");
        self.said.push_str(&format!("{what}: {said}\n"));
    }

    fn tell<T>(&mut self, what: &str, answer: Result<T, Status>) {
        self.say(what, &words(&answer));
    }

    /// The newest event that is not of the next workflow task.
    async fn ending(&self, id: &str) -> String {
        let request = GetWorkflowExecutionHistoryReverseRequest {
            namespace: self.raw.namespace(),
            execution: self.raw.execution(id),
            ..Default::default()
        };
        let page = call!(self.raw, get_workflow_execution_history_reverse(request)).expect("a history");
        let events = page.history.unwrap_or_default().events;
        let newest = events.iter().find(|event| {
            let name = format!("{:?}", event.event_type());
            name != "WorkflowTaskScheduled" && name != "WorkflowTaskStarted"
        });
        newest.map(ending).unwrap_or_default()
    }

    /// What the failure of a workflow task says, if one failed.
    async fn failed_task(&self, id: &str) -> Option<String> {
        let request = GetWorkflowExecutionHistoryRequest {
            namespace: self.raw.namespace(),
            execution: self.raw.execution(id),
            ..Default::default()
        };
        let page = call!(self.raw, get_workflow_execution_history(request)).expect("a history");
        let events = page.history.unwrap_or_default().events;
        let failed = |event: &&HistoryEvent| matches!(event.attributes, Some(A::WorkflowTaskFailedEventAttributes(_)));
        events.iter().find(failed).map(ending)
    }

    /// A workflow commands this in its first task.
    async fn command(&mut self, what: &str, commands: Vec<(CommandType, C)>) {
        let id = what.replace([' ', ':'], "-");
        self.raw.start(&id).await;
        let task = self.raw.take(&id).await;
        let answer = self.raw.complete(task.task_token, commands).await;
        let ending = self.ending(&id).await;
        self.say(what, &format!("{} => {ending}", words(&answer)));
    }

    async fn ids(&mut self) {
        type Shape = fn(&mut StartWorkflowExecutionRequest);
        let request = |shape: Shape, stage: &Stage| {
            let mut request = stage.raw.start_request("never");
            shape(&mut request);
            request
        };
        let table: [(&str, Shape); 4] = [
            ("start: workflow id", |r| r.workflow_id = long()),
            ("start: workflow type", |r| r.workflow_type = kind(&long())),
            ("start: task queue", |r| r.task_queue = queue(long())),
            ("start: request id", |r| r.request_id = long()),
        ];
        for (what, shape) in table {
            let answer = call!(self.raw, start_workflow_execution(request(shape, self)));
            self.tell(what, answer);
        }
        self.raw.start("ids").await;
        let answer = call!(self.raw, signal_workflow_execution(self.raw.signal_request("ids", &long())));
        self.tell("signal: name", answer);
        let mut request = self.raw.signal_request("ids", "s");
        request.request_id = long();
        let answer = call!(self.raw, signal_workflow_execution(request));
        self.tell("signal: request id", answer);
        let request = SignalWithStartWorkflowExecutionRequest {
            namespace: self.raw.namespace(),
            workflow_id: self.raw.id("sws"),
            workflow_type: kind("W"),
            task_queue: queue("sws"),
            signal_name: long(),
            ..Default::default()
        };
        let answer = call!(self.raw, signal_with_start_workflow_execution(request));
        self.tell("signal with start: name", answer);
        let request = RequestCancelWorkflowExecutionRequest {
            namespace: self.raw.namespace(),
            workflow_execution: self.raw.execution("ids"),
            request_id: long(),
            ..Default::default()
        };
        let answer = call!(self.raw, request_cancel_workflow_execution(request));
        self.tell("cancel: request id", answer);
        let request = PollWorkflowTaskQueueRequest {
            namespace: self.raw.namespace(),
            task_queue: queue(long()),
            ..Default::default()
        };
        let answer = call!(self.raw, poll_workflow_task_queue(request.clone()));
        self.tell("poll: task queue", answer);
        let request = PollWorkflowTaskQueueRequest { task_queue: queue("q"), identity: long(), ..request };
        let answer = call!(self.raw, poll_workflow_task_queue(request));
        self.tell("poll: identity", answer);
        let request = PollActivityTaskQueueRequest {
            namespace: self.raw.namespace(),
            task_queue: queue(long()),
            ..Default::default()
        };
        let answer = call!(self.raw, poll_activity_task_queue(request.clone()));
        self.tell("poll for activities: task queue", answer);
        let request = PollActivityTaskQueueRequest { task_queue: queue("q"), identity: long(), ..request };
        let answer = call!(self.raw, poll_activity_task_queue(request));
        self.tell("poll for activities: identity", answer);
        let answer = call!(self.raw, update_workflow_execution(self.raw.update_request("ids", "u", &long())));
        self.tell("update: id", answer);
    }

    async fn ids_in_commands(&mut self) {
        let table: Vec<(&str, (CommandType, C))> = vec![
            ("activity: id", activity(|a| a.activity_id = long())),
            ("activity: type", activity(|a| a.activity_type = Some(ActivityType { name: long() }))),
            ("activity: task queue", activity(|a| a.task_queue = queue(long()))),
            ("timer: id", timer(&long())),
            ("marker: name", marker(&long(), 1)),
            ("child: workflow id", child(|c| c.workflow_id = long())),
            ("child: workflow type", child(|c| c.workflow_type = kind(&long()))),
            ("external signal: workflow id", signal_to(&long(), |_| {})),
            ("external cancel: workflow id", cancel_of(&long())),
            ("continue as new: workflow type", continue_as_new(|c| c.workflow_type = kind(&long()))),
        ];
        for (what, command) in table {
            self.command(&format!("command {what}"), vec![command]).await;
        }
    }

    async fn payloads(&mut self) {
        let request = StartWorkflowExecutionRequest { input: large(), ..self.raw.start_request("never") };
        let answer = call!(self.raw, start_workflow_execution(request));
        self.tell("start: input", answer);
        let request = StartWorkflowExecutionRequest { memo: large_memo(), ..self.raw.start_request("never") };
        let answer = call!(self.raw, start_workflow_execution(request));
        self.tell("start: memo", answer);
        self.raw.start("payloads").await;
        let request = SignalWorkflowExecutionRequest { input: large(), ..self.raw.signal_request("payloads", "s") };
        let answer = call!(self.raw, signal_workflow_execution(request));
        self.tell("signal: input", answer);
        let request = SignalWithStartWorkflowExecutionRequest {
            namespace: self.raw.namespace(),
            workflow_id: self.raw.id("payloads"),
            workflow_type: kind("W"),
            task_queue: queue("payloads"),
            signal_name: "s".to_owned(),
            ..Default::default()
        };
        let signal = SignalWithStartWorkflowExecutionRequest { signal_input: large(), ..request.clone() };
        let answer = call!(self.raw, signal_with_start_workflow_execution(signal));
        self.tell("signal with start: signal input", answer);
        let answer = call!(
            self.raw,
            signal_with_start_workflow_execution(SignalWithStartWorkflowExecutionRequest { input: large(), ..request })
        );
        self.tell("signal with start: input", answer);
        let request = QueryWorkflowRequest {
            namespace: self.raw.namespace(),
            execution: self.raw.execution("payloads"),
            query: Some(WorkflowQuery { query_type: "q".to_owned(), query_args: large(), ..Default::default() }),
            ..Default::default()
        };
        let answer = call!(self.raw, query_workflow(request));
        self.tell("query: arguments", answer);
        let request = TerminateWorkflowExecutionRequest {
            namespace: self.raw.namespace(),
            workflow_execution: self.raw.execution("payloads"),
            details: large(),
            ..Default::default()
        };
        let answer = call!(self.raw, terminate_workflow_execution(request));
        self.tell("terminate: details", answer);
    }

    async fn payloads_in_commands(&mut self) {
        let complete = CompleteWorkflowExecutionCommandAttributes { result: large() };
        let fail = FailWorkflowExecutionCommandAttributes { failure: Some(large_failure()) };
        let cancel = CancelWorkflowExecutionCommandAttributes { details: large() };
        let memo = ModifyWorkflowPropertiesCommandAttributes { upserted_memo: large_memo() };
        let table: Vec<(&str, (CommandType, C))> = vec![
            ("activity: input", activity(|a| a.input = large())),
            ("marker: details", marker("m", 2_000)),
            ("child: input", child(|c| c.input = large())),
            ("child: memo", child(|c| c.memo = large_memo())),
            ("external signal: input", signal_to("ids", |s| s.input = large())),
            ("continue as new: input", continue_as_new(|c| c.input = large())),
            ("continue as new: memo", continue_as_new(|c| c.memo = large_memo())),
            (
                "complete: result",
                (CommandType::CompleteWorkflowExecution, C::CompleteWorkflowExecutionCommandAttributes(complete)),
            ),
            ("fail: failure", (CommandType::FailWorkflowExecution, C::FailWorkflowExecutionCommandAttributes(fail))),
            (
                "cancel: details",
                (CommandType::CancelWorkflowExecution, C::CancelWorkflowExecutionCommandAttributes(cancel)),
            ),
            ("memo", (CommandType::ModifyWorkflowProperties, C::ModifyWorkflowPropertiesCommandAttributes(memo))),
        ];
        for (what, command) in table {
            self.command(&format!("command {what}"), vec![command]).await;
        }
    }

    /// A workflow whose one activity a worker has.
    async fn with_activity(&self, id: &str) -> Vec<u8> {
        self.raw.start(id).await;
        let task = self.raw.take(id).await;
        let queue_name = self.raw.id(id);
        let scheduled = activity(|a| a.task_queue = queue(queue_name));
        self.raw.complete(task.task_token, vec![scheduled]).await.expect("completes");
        let request = PollActivityTaskQueueRequest {
            namespace: self.raw.namespace(),
            task_queue: queue(self.raw.id(id)),
            identity: "worker".to_owned(),
            ..Default::default()
        };
        call!(self.raw, poll_activity_task_queue(request)).expect("is answered").task_token
    }

    async fn answers_of_activities(&mut self) {
        let (namespace, identity) = (self.raw.namespace(), "worker".to_owned());
        let task_token = self.with_activity("result").await;
        let request = RespondActivityTaskCompletedRequest {
            task_token,
            result: large(),
            namespace: namespace.clone(),
            identity: identity.clone(),
            ..Default::default()
        };
        let answer = call!(self.raw, respond_activity_task_completed(request));
        let said = format!("{} => {}", words(&answer), self.ending("result").await);
        self.say("activity: result", &said);
        let task_token = self.with_activity("failure").await;
        let request = RespondActivityTaskFailedRequest {
            task_token,
            failure: Some(large_failure()),
            namespace: namespace.clone(),
            identity: identity.clone(),
            ..Default::default()
        };
        let answer = call!(self.raw, respond_activity_task_failed(request));
        let said = format!("{} => {}", words(&answer), self.ending("failure").await);
        self.say("activity: failure", &said);
        let task_token = self.with_activity("heartbeat").await;
        let request = RecordActivityTaskHeartbeatRequest {
            task_token: task_token.clone(),
            details: large(),
            namespace: namespace.clone(),
            identity: identity.clone(),
            ..Default::default()
        };
        let answer = call!(self.raw, record_activity_task_heartbeat(request));
        let cancel = answer.as_ref().is_ok_and(|answer| answer.cancel_requested);
        let said = format!("{}, cancel {cancel} => {}", words(&answer), self.ending("heartbeat").await);
        self.say("activity: heartbeat", &said);
        let task_token = self.with_activity("canceled").await;
        let request = RespondActivityTaskCanceledRequest {
            task_token,
            details: large(),
            namespace: namespace.clone(),
            identity: identity.clone(),
            ..Default::default()
        };
        let answer = call!(self.raw, respond_activity_task_canceled(request));
        let said = format!("{} => {}", words(&answer), self.ending("canceled").await);
        self.say("activity: canceled", &said);
        let request = RespondActivityTaskCompletedByIdRequest {
            namespace,
            workflow_id: self.raw.id("heartbeat"),
            activity_id: "a".to_owned(),
            result: large(),
            identity,
            ..Default::default()
        };
        let answer = call!(self.raw, respond_activity_task_completed_by_id(request));
        let said = format!("{} => {}", words(&answer), self.ending("heartbeat").await);
        self.say("activity: result by id", &said);
    }

    async fn pending(&mut self) {
        let three = |one: &dyn Fn(usize) -> (CommandType, C)| (0..3).map(one).collect::<Vec<_>>();
        let activities = three(&|n| activity(|a| a.activity_id = n.to_string()));
        let name = self.raw.name.clone();
        let children = three(&|n| child(|c| c.workflow_id = format!("{name}-child-{n}")));
        let signals = three(&|_| signal_to("nobody", |_| {}));
        let cancels = three(&|_| cancel_of("nobody"));
        self.command("pending activities", activities).await;
        self.command("pending children", children).await;
        self.command("pending external signals", signals).await;
        self.command("pending external cancels", cancels).await;
    }

    async fn signals(&mut self) {
        self.raw.start("signals").await;
        for n in 1..=7 {
            let answer = call!(self.raw, signal_workflow_execution(self.raw.signal_request("signals", "s")));
            self.tell(&format!("signal {n}"), answer);
        }
        self.raw.start("buffered").await;
        let task = self.raw.take("buffered").await;
        for n in 1.. {
            call!(self.raw, signal_workflow_execution(self.raw.signal_request("buffered", "s"))).expect("signals");
            if let Some(failed) = self.failed_task("buffered").await {
                self.say(&format!("a task with {n} signals behind it"), &failed);
                break;
            }
        }
        let answer = self.raw.complete(task.task_token, Vec::new()).await;
        self.tell("a task with too much behind it: completed", answer);
    }

    async fn updates(&mut self) {
        self.raw.start("in-flight").await;
        // Nobody takes the first two; they stay under way when nobody waits for them any more.
        let mut refused = None;
        for n in 0..10 {
            let mut request = self.raw.update_request("in-flight", "u", &format!("u{n}")).into_request();
            request.set_timeout(Duration::from_millis(300));
            let answer = self.raw.client.connection().workflow_service().update_workflow_execution(request).await;
            if answer.as_ref().is_err_and(|status| status.code() == Code::ResourceExhausted) {
                refused = Some((n, answer.map(drop)));
                break;
            }
        }
        let (n, answer) = refused.expect("some update is one too many");
        self.tell(&format!("updates under way after {n}"), answer);

        self.raw.start("updates").await;
        let first = self.raw.take("updates").await;
        self.raw.complete(first.task_token, Vec::new()).await.expect("completes");
        for n in 0..2 {
            let asked = {
                let (client, request) =
                    (self.raw.client.clone(), self.raw.update_request("updates", "u", &format!("u{n}")));
                tokio::spawn(async move {
                    client.connection().workflow_service().update_workflow_execution(request.into_request()).await
                })
            };
            let task = self.raw.take("updates").await;
            let asking = task.messages.first().expect("a request").clone();
            let (commands, messages) = taken_and_answered(&asking);
            self.raw.complete_with(task.task_token, commands, messages).await.expect("completes");
            asked.await.expect("does not panic").expect("is answered");
        }
        let answer = call!(self.raw, update_workflow_execution(self.raw.update_request("updates", "u", "u2")));
        self.tell("updates after 2", answer);
    }

    async fn queries(&mut self) {
        self.raw.start("queries").await;
        let first = self.raw.take("queries").await;
        self.raw.complete(first.task_token, Vec::new()).await.expect("completes");
        call!(self.raw, signal_workflow_execution(self.raw.signal_request("queries", "s"))).expect("signals");
        let _working = self.raw.take("queries").await;
        let ask = || {
            let mut request = Request::new(QueryWorkflowRequest {
                namespace: self.raw.namespace(),
                execution: self.raw.execution("queries"),
                query: Some(WorkflowQuery { query_type: "q".to_owned(), ..Default::default() }),
                ..Default::default()
            });
            request.set_timeout(Duration::from_secs(3));
            let client = self.raw.client.clone();
            async move { client.connection().workflow_service().query_workflow(request).await }
        };
        // All at once: which of them is one too many does not matter.
        let answers = futures::future::join_all((0..3).map(|_| ask())).await;
        let refused = answers
            .into_iter()
            .find(|answer| answer.as_ref().is_err_and(|status| status.code() == Code::ResourceExhausted));
        self.tell("queries behind a task after 2", refused.expect("one is too many").map(drop));
    }

    async fn histories(&mut self) {
        self.command("history: events", (0..50).map(|n| timer(&n.to_string())).collect()).await;
        let answer = call!(self.raw, signal_workflow_execution(self.raw.signal_request("history--events", "s")));
        self.tell("history: a signal afterwards", answer);
    }

    async fn pages(&mut self) {
        let mut request =
            ListWorkflowExecutionsRequest { namespace: self.raw.namespace(), page_size: 1_000, ..Default::default() };
        // A server lists some time later.
        let listed = loop {
            let page = call!(self.raw, list_workflow_executions(request.clone())).expect("a page");
            if page.executions.len() >= 2 {
                break page;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        };
        let said = (listed.executions.len(), listed.next_page_token.is_empty());
        self.say("list: runs of a page, and whether it is the last", &format!("{said:?}"));
        request.page_size = -1;
        let answer = call!(self.raw, list_workflow_executions(request));
        self.tell("list: a page of less than nothing", answer);
    }
}

fn large_failure() -> Failure {
    let info = ApplicationFailureInfo { r#type: "Large".to_owned(), non_retryable: true, ..Default::default() };
    Failure {
        message: "m".repeat(2_000),
        source: "worker".to_owned(),
        failure_info: Some(FailureInfo::ApplicationFailureInfo(info)),
        ..Default::default()
    }
}
