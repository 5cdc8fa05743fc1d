//! An engine for tests behind the client's service override: it keeps histories and runs nothing. What a brain would
//! record, tests record themselves.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use domain::Commit;
use domain::session::SessionInput;
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use prost::Message;
use serde::Serialize;
use serde_json::Value;
use temporalio_client::callback_based::{CallbackBasedGrpcService, GrpcRequest, GrpcSuccessResponse};
use temporalio_client::tonic::Status;
use temporalio_client::{Connection, ConnectionOptions, Url};
use temporalio_common::protos::constants::LOCAL_ACTIVITY_MARKER_NAME;
use temporalio_common::protos::temporal::api::common::v1::{Payload, Payloads, WorkflowExecution};
use temporalio_common::protos::temporal::api::enums::v1::WorkflowExecutionStatus;
use temporalio_common::protos::temporal::api::history::v1::history_event::Attributes;
use temporalio_common::protos::temporal::api::history::v1::{
    ActivityTaskCompletedEventAttributes, ActivityTaskScheduledEventAttributes, History, HistoryEvent,
    MarkerRecordedEventAttributes, WorkflowExecutionCompletedEventAttributes,
    WorkflowExecutionContinuedAsNewEventAttributes, WorkflowExecutionSignaledEventAttributes,
    WorkflowExecutionStartedEventAttributes, WorkflowExecutionTerminatedEventAttributes,
};
use temporalio_common::protos::temporal::api::taskqueue::v1::PollerInfo;
use temporalio_common::protos::temporal::api::workflow::v1::{PendingActivityInfo, WorkflowExecutionInfo};
use temporalio_common::protos::temporal::api::workflowservice::v1::*;
use tokio::sync::watch;

use crate::Engine;

pub const NAMESPACE: &str = "test";

#[derive(Clone)]
pub struct FakeEngine {
    inner: Arc<Inner>,
}

struct Inner {
    state: Mutex<State>,
    /// Counts changes, so that whoever waits for one looks again.
    changes: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    workflows: BTreeMap<String, Vec<Run>>,
    requests: HashSet<String>,
    /// What calls of an RPC are answered with instead.
    failing: HashMap<String, Status>,
    /// RPCs that are performed and answered with a failure.
    losing: HashSet<String>,
    /// Signals that are taken and not shown, as while a workflow task is worked on.
    held: Option<Vec<(String, Attributes)>>,
    pub pending: Vec<PendingActivityInfo>,
    pub pollers: HashMap<String, usize>,
    calls: Vec<String>,
}

struct Run {
    run_id: String,
    events: Vec<HistoryEvent>,
    closed: bool,
}

impl FakeEngine {
    pub fn new() -> Self {
        let inner = Inner { state: Mutex::default(), changes: watch::channel(0).0 };
        Self { inner: Arc::new(inner) }
    }

    pub async fn connect(&self) -> Engine {
        let engine = self.clone();
        let callback = move |request: GrpcRequest| -> BoxFuture<'static, Result<GrpcSuccessResponse, Status>> {
            let engine = engine.clone();
            async move {
                let proto = engine.call(&request.rpc, &request.proto).await?;
                Ok(GrpcSuccessResponse { headers: Default::default(), proto })
            }
            .boxed()
        };
        let service = CallbackBasedGrpcService { callback: Arc::new(callback) };
        let options = ConnectionOptions::new(Url::parse("http://engine").unwrap())
            .service_override(service)
            .dns_load_balancing(None)
            .build();
        let connection = Connection::connect(options).await.unwrap();
        Engine { connection, namespace: NAMESPACE.to_owned() }
    }

    /// Lets every call of an RPC fail.
    pub fn fail(&self, rpc: &str, status: Status) {
        self.inner.state.lock().failing.insert(rpc.to_owned(), status);
    }

    /// Lets every call of an RPC take effect and its answer be lost.
    pub fn lose_answers(&self, rpc: &str) {
        self.inner.state.lock().losing.insert(rpc.to_owned());
    }

    pub fn recover(&self) {
        let mut state = self.inner.state.lock();
        state.failing.clear();
        state.losing.clear();
    }

    /// From now on signals are in no history.
    pub fn hold_signals(&self) {
        self.inner.state.lock().held = Some(Vec::new());
    }

    /// Until that many are held.
    pub async fn held(&self, count: usize) {
        let mut changes = self.inner.changes.subscribe();
        while self.inner.state.lock().held.as_ref().is_none_or(|held| held.len() < count) {
            changes.changed().await.unwrap();
        }
    }

    /// Signals that were held are in history, as others are from now on.
    pub fn show_signals(&self) {
        let held = self.inner.state.lock().held.take();
        for (session_id, signaled) in held.into_iter().flatten() {
            self.append(&session_id, signaled);
        }
    }

    pub fn set_pending(&self, pending: Vec<PendingActivityInfo>) {
        self.inner.state.lock().pending = pending;
    }

    pub fn set_pollers(&self, queue: &str, count: usize) {
        self.inner.state.lock().pollers.insert(queue.to_owned(), count);
    }

    /// How often an RPC was called.
    pub fn calls(&self, rpc: &str) -> usize {
        self.inner.state.lock().calls.iter().filter(|called| *called == rpc).count()
    }

    pub fn sessions(&self) -> Vec<String> {
        self.inner.state.lock().workflows.keys().cloned().collect()
    }

    pub fn input(&self, session_id: &str) -> SessionInput<Value> {
        serde_json::from_value(self.input_of(session_id)).unwrap()
    }

    /// What any workflow was started with.
    pub fn input_of(&self, session_id: &str) -> Value {
        let state = self.inner.state.lock();
        match &state.workflows[session_id][0].events[0].attributes {
            Some(Attributes::WorkflowExecutionStartedEventAttributes(started)) => {
                serde_json::from_slice(&started.input.as_ref().unwrap().payloads[0].data).unwrap()
            }
            other => panic!("not a start: {other:?}"),
        }
    }

    /// The inputs of all signals of a name, in order.
    pub fn signals(&self, session_id: &str, name: &str) -> Vec<Value> {
        let state = self.inner.state.lock();
        let Some(runs) = state.workflows.get(session_id) else { return Vec::new() };
        let events = runs.iter().flat_map(|run| &run.events);
        let inputs = events.filter_map(|event| match &event.attributes {
            Some(Attributes::WorkflowExecutionSignaledEventAttributes(signaled)) if signaled.signal_name == name => {
                Some(serde_json::from_slice(&signaled.input.as_ref().unwrap().payloads[0].data).unwrap())
            }
            _ => None,
        });
        inputs.collect()
    }

    /// Waits until that many signals of a name are there.
    pub async fn signaled(&self, session_id: &str, name: &str, count: usize) -> Vec<Value> {
        let mut changes = self.inner.changes.subscribe();
        loop {
            let signals = self.signals(session_id, name);
            if signals.len() >= count {
                return signals;
            }
            changes.changed().await.unwrap();
        }
    }

    fn append(&self, session_id: &str, attributes: Attributes) {
        let mut state = self.inner.state.lock();
        let run = state.workflows.get_mut(session_id).unwrap().last_mut().unwrap();
        run.push(attributes);
        drop(state);
        self.inner.changes.send_modify(|count| *count += 1);
    }

    /// Records a commit, as the marker of the local activity `decide`.
    pub fn commit(&self, session_id: &str, commit: &Commit) {
        self.mark(session_id, commit);
    }

    /// Records the result of a local activity.
    pub fn mark(&self, session_id: &str, commit: &impl Serialize) {
        let details = [("result".to_owned(), payloads(commit))].into();
        let marker = MarkerRecordedEventAttributes {
            marker_name: LOCAL_ACTIVITY_MARKER_NAME.to_owned(),
            details,
            ..Default::default()
        };
        self.append(session_id, Attributes::MarkerRecordedEventAttributes(marker));
    }

    /// Records an activity with its result.
    pub fn activity(&self, session_id: &str, activity_id: &str, result: &Value) {
        let scheduled =
            ActivityTaskScheduledEventAttributes { activity_id: activity_id.to_owned(), ..Default::default() };
        self.append(session_id, Attributes::ActivityTaskScheduledEventAttributes(scheduled));
        let scheduled_event_id = self.inner.state.lock().workflows[session_id].last().unwrap().events.len() as i64;
        let completed = ActivityTaskCompletedEventAttributes {
            result: Some(payloads(result)),
            scheduled_event_id,
            ..Default::default()
        };
        self.append(session_id, Attributes::ActivityTaskCompletedEventAttributes(completed));
    }

    /// Ends the session's workflow by its own will.
    pub fn complete(&self, session_id: &str) {
        let completed = WorkflowExecutionCompletedEventAttributes::default();
        self.append(session_id, Attributes::WorkflowExecutionCompletedEventAttributes(completed));
        self.close(session_id);
    }

    /// Ends a workflow by its own will, with a result.
    pub fn complete_with(&self, id: &str, result: &impl Serialize) {
        self.complete_as(id, payloads(result));
    }

    /// Ends a workflow by its own will, with a result as a worker sends it.
    pub fn complete_as(&self, id: &str, result: Payloads) {
        let result = Some(result);
        let completed = WorkflowExecutionCompletedEventAttributes { result, ..Default::default() };
        self.append(id, Attributes::WorkflowExecutionCompletedEventAttributes(completed));
        self.close(id);
    }

    /// Waits until so many workflows were started whose ids begin so; gives the ids.
    pub async fn started(&self, prefix: &str, count: usize) -> Vec<String> {
        let mut changes = self.inner.changes.subscribe();
        loop {
            let started: Vec<_> = self.sessions().into_iter().filter(|id| id.starts_with(prefix)).collect();
            if started.len() >= count {
                return started;
            }
            changes.changed().await.unwrap();
        }
    }

    /// Continues the session as a new run with this input.
    pub fn continue_as_new(&self, session_id: &str, input: &Value) -> String {
        let run_id = format!("run-{}", self.inner.state.lock().workflows[session_id].len());
        let continued = WorkflowExecutionContinuedAsNewEventAttributes {
            new_execution_run_id: run_id.clone(),
            ..Default::default()
        };
        self.append(session_id, Attributes::WorkflowExecutionContinuedAsNewEventAttributes(continued));
        let mut state = self.inner.state.lock();
        let runs = state.workflows.get_mut(session_id).unwrap();
        runs.last_mut().unwrap().closed = true;
        runs.push(Run::started(run_id.clone(), payloads(input)));
        drop(state);
        self.inner.changes.send_modify(|count| *count += 1);
        run_id
    }

    fn close(&self, session_id: &str) {
        self.inner.state.lock().workflows.get_mut(session_id).unwrap().last_mut().unwrap().closed = true;
        self.inner.changes.send_modify(|count| *count += 1);
    }

    async fn call(&self, rpc: &str, proto: &[u8]) -> Result<Vec<u8>, Status> {
        {
            let mut state = self.inner.state.lock();
            state.calls.push(rpc.to_owned());
            if let Some(status) = state.failing.get(rpc) {
                return Err(status.clone());
            }
        }
        let answer = match rpc {
            "GetSystemInfo" => Ok(GetSystemInfoResponse::default().encode_to_vec()),
            "StartWorkflowExecution" => self.start(decode(proto)?),
            "SignalWorkflowExecution" => self.signal(decode(proto)?),
            "TerminateWorkflowExecution" => self.terminate(decode(proto)?),
            "DeleteWorkflowExecution" => self.delete(decode(proto)?),
            "DescribeWorkflowExecution" => self.describe(decode(proto)?),
            "DescribeTaskQueue" => self.describe_queue(decode(proto)?),
            "GetWorkflowExecutionHistory" => self.history(decode(proto)?).await,
            "GetWorkflowExecutionHistoryReverse" => self.history_reverse(decode(proto)?),
            _ => Err(Status::unimplemented(rpc.to_owned())),
        };
        match self.inner.state.lock().losing.contains(rpc) {
            true => Err(Status::unavailable("the answer was lost")),
            false => answer,
        }
    }

    fn start(&self, request: StartWorkflowExecutionRequest) -> Result<Vec<u8>, Status> {
        let kind = request.workflow_type.unwrap().name;
        assert!(["SessionWorkflow", "RolloutWorkflow", "TrialWorkflow"].contains(&kind.as_str()), "{kind}");
        assert_eq!(request.task_queue.unwrap().name, "brain");
        assert_eq!(request.workflow_task_timeout.unwrap().seconds, 5);
        let mut state = self.inner.state.lock();
        if !state.requests.insert(request.request_id) {
            return Ok(StartWorkflowExecutionResponse::default().encode_to_vec());
        }
        if state.workflows.contains_key(&request.workflow_id) {
            return Err(Status::already_exists("started already"));
        }
        let run = Run::started("run-0".to_owned(), request.input.unwrap());
        state.workflows.insert(request.workflow_id, vec![run]);
        drop(state);
        self.inner.changes.send_modify(|count| *count += 1);
        Ok(StartWorkflowExecutionResponse { run_id: "run-0".to_owned(), ..Default::default() }.encode_to_vec())
    }

    fn signal(&self, request: SignalWorkflowExecutionRequest) -> Result<Vec<u8>, Status> {
        let session_id = request.workflow_execution.unwrap().workflow_id;
        {
            let mut state = self.inner.state.lock();
            state.open_run(&session_id)?;
            if !state.requests.insert(request.request_id) {
                return Ok(SignalWorkflowExecutionResponse::default().encode_to_vec());
            }
        }
        let signaled = WorkflowExecutionSignaledEventAttributes {
            signal_name: request.signal_name,
            input: request.input,
            ..Default::default()
        };
        let signaled = Attributes::WorkflowExecutionSignaledEventAttributes(signaled);
        let mut state = self.inner.state.lock();
        if let Some(held) = &mut state.held {
            held.push((session_id, signaled));
            drop(state);
            self.inner.changes.send_modify(|count| *count += 1);
        } else {
            drop(state);
            self.append(&session_id, signaled);
        }
        Ok(SignalWorkflowExecutionResponse::default().encode_to_vec())
    }

    fn terminate(&self, request: TerminateWorkflowExecutionRequest) -> Result<Vec<u8>, Status> {
        let session_id = request.workflow_execution.unwrap().workflow_id;
        self.inner.state.lock().open_run(&session_id)?;
        let terminated = WorkflowExecutionTerminatedEventAttributes { reason: request.reason, ..Default::default() };
        self.append(&session_id, Attributes::WorkflowExecutionTerminatedEventAttributes(terminated));
        self.close(&session_id);
        Ok(TerminateWorkflowExecutionResponse::default().encode_to_vec())
    }

    fn delete(&self, request: DeleteWorkflowExecutionRequest) -> Result<Vec<u8>, Status> {
        let WorkflowExecution { workflow_id, run_id } = request.workflow_execution.unwrap();
        let mut state = self.inner.state.lock();
        let runs = state.workflows.get_mut(&workflow_id).ok_or_else(missing)?;
        let at = runs.iter().position(|run| run.run_id == run_id).ok_or_else(missing)?;
        runs.remove(at);
        if runs.is_empty() {
            state.workflows.remove(&workflow_id);
        }
        drop(state);
        self.inner.changes.send_modify(|count| *count += 1);
        Ok(DeleteWorkflowExecutionResponse::default().encode_to_vec())
    }

    fn describe(&self, request: DescribeWorkflowExecutionRequest) -> Result<Vec<u8>, Status> {
        let execution = request.execution.unwrap();
        let state = self.inner.state.lock();
        let run = state.run(&execution)?;
        let info = WorkflowExecutionInfo {
            execution: Some(WorkflowExecution { run_id: run.run_id.clone(), ..execution }),
            history_length: run.events.len() as i64,
            status: match run.closed {
                true => WorkflowExecutionStatus::Completed as i32,
                false => WorkflowExecutionStatus::Running as i32,
            },
            ..Default::default()
        };
        let response = DescribeWorkflowExecutionResponse {
            workflow_execution_info: Some(info),
            pending_activities: state.pending.clone(),
            ..Default::default()
        };
        Ok(response.encode_to_vec())
    }

    fn describe_queue(&self, request: DescribeTaskQueueRequest) -> Result<Vec<u8>, Status> {
        let state = self.inner.state.lock();
        let count = state.pollers.get(&request.task_queue.unwrap().name).copied().unwrap_or(0);
        let pollers = vec![PollerInfo::default(); count];
        Ok(DescribeTaskQueueResponse { pollers, ..Default::default() }.encode_to_vec())
    }

    async fn history(&self, request: GetWorkflowExecutionHistoryRequest) -> Result<Vec<u8>, Status> {
        let execution = request.execution.unwrap();
        let known: usize = match request.next_page_token.as_slice() {
            [] => 0,
            token => String::from_utf8_lossy(token).parse().unwrap(),
        };
        let mut changes = self.inner.changes.subscribe();
        loop {
            {
                let state = self.inner.state.lock();
                let run = state.run(&execution)?;
                if run.events.len() > known || run.closed || !request.wait_new_event {
                    let waits_on = request.wait_new_event && !run.closed;
                    let next_page_token = if waits_on { run.events.len().to_string().into_bytes() } else { Vec::new() };
                    let history = Some(History { events: run.events[known..].to_vec() });
                    let response =
                        GetWorkflowExecutionHistoryResponse { history, next_page_token, ..Default::default() };
                    return Ok(response.encode_to_vec());
                }
            }
            changes.changed().await.map_err(|_| Status::unavailable("gone"))?;
        }
    }

    fn history_reverse(&self, request: GetWorkflowExecutionHistoryReverseRequest) -> Result<Vec<u8>, Status> {
        let state = self.inner.state.lock();
        let run = state.run(&request.execution.unwrap())?;
        let events = run.events.iter().rev().cloned().collect();
        let history = Some(History { events });
        Ok(GetWorkflowExecutionHistoryReverseResponse { history, ..Default::default() }.encode_to_vec())
    }
}

impl Run {
    fn started(run_id: String, input: Payloads) -> Self {
        let mut run = Run { run_id, events: Vec::new(), closed: false };
        let started = WorkflowExecutionStartedEventAttributes { input: Some(input), ..Default::default() };
        run.push(Attributes::WorkflowExecutionStartedEventAttributes(started));
        run
    }

    fn push(&mut self, attributes: Attributes) {
        let event_id = self.events.len() as i64 + 1;
        self.events.push(HistoryEvent { event_id, attributes: Some(attributes), ..Default::default() });
    }
}

impl State {
    fn run(&self, execution: &WorkflowExecution) -> Result<&Run, Status> {
        let runs = self.workflows.get(&execution.workflow_id).ok_or_else(missing)?;
        let named = |run: &&Run| execution.run_id.is_empty() || run.run_id == execution.run_id;
        runs.iter().rev().find(named).ok_or_else(missing)
    }

    fn open_run(&self, session_id: &str) -> Result<(), Status> {
        let run = self.workflows.get(session_id).and_then(|runs| runs.last()).ok_or_else(missing)?;
        if run.closed { Err(Status::not_found("workflow execution already completed")) } else { Ok(()) }
    }
}

fn missing() -> Status {
    Status::not_found("no such workflow")
}

fn decode<M: Message + Default>(proto: &[u8]) -> Result<M, Status> {
    M::decode(proto).map_err(|error| Status::invalid_argument(error.to_string()))
}

fn payloads(value: &impl Serialize) -> Payloads {
    let data = serde_json::to_vec(value).unwrap();
    let metadata = [("encoding".to_owned(), b"json/plain".to_vec())].into();
    Payloads { payloads: vec![Payload { metadata, data, ..Default::default() }] }
}
