//! A bed for sessions without the HTTP API: an engine, a brain worker with a scripted model, and the log.

use crate::{
    counting::{CountingBlobs, CountingReader, Counts},
    engines::Temporal,
    hands::{CountingHands, HOST},
};
use activities::{
    BrainActivities,
    deltas::NoDeltas,
    hands::McpServers,
    harnesses::Harnesses,
    model::{
        Model, Timeouts,
        scripted::{Script, Scripted},
    },
};
use anyhow::Context as _;
use bytes::Bytes;
use domain::{
    Content, Event, EventBody, Status, Time,
    agent::{AgentFacts, AgentSnapshot, HarnessRef, ModelParams, Policy, ToolFact, ToolKind, ToolSpec},
    event::Confirmation,
    session::{
        Attributes as SessionAttributes, LogEntry, Origin, Posted, SessionInput, Tuning, WORKFLOW_TYPE, queue, signal,
    },
    trial::{self, TrialInput},
};
use engine::Engine;
use harness::{
    SessionState,
    replay::{Report, With, replay},
    whatif::Input as Trial,
};
use http::HeaderMap;
use log::{ClaimCheck, HistoryReader, SessionLog, TemporalReader};
use serde::Serialize;
use serde_json::Value;
use std::{sync::Arc, time::Duration};
use store::{Blobs, MemoryBlobs};
use temporalio_client::{
    Client, ClientOptions, Connection, ConnectionOptions, Url,
    callback_based::{CallbackBasedGrpcService, GrpcSuccessResponse},
};
use temporalio_common::protos::temporal::api::{
    common::v1::{Payload, Payloads, WorkflowExecution, WorkflowType},
    history::v1::{HistoryEvent, history_event::Attributes},
    taskqueue::v1::TaskQueue,
    workflowservice::v1::{
        GetWorkflowExecutionHistoryRequest, SignalWorkflowExecutionRequest, StartWorkflowExecutionRequest,
        TerminateWorkflowExecutionRequest,
    },
};
use tonic::IntoRequest as _;

pub const NAMESPACE: &str = "default";

/// One function a scenario, one test an engine.
#[macro_export]
macro_rules! on_both {
    ($($scenario:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $scenario() -> anyhow::Result<()> {
                super::$scenario($crate::bed::On::Memory).await
            })*
        }
        mod temporal {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $scenario() -> anyhow::Result<()> {
                super::$scenario($crate::bed::On::Temporal).await
            })*
        }
    };
}

/// Which engine a scenario runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    Memory,
    Temporal,
}

pub struct Bed {
    pub connection: Connection,
    pub blobs: Arc<dyn Blobs>,
    pub reader: Arc<dyn HistoryReader>,
    pub tuning: Tuning,
    pub hands: Arc<CountingHands>,
    /// What the brain workers read and store.
    pub counts: Arc<Counts>,
    hand_worker: Option<worker::WorkerThread>,
    worker: Option<worker::WorkerThread>,
    engine: Option<Engine>,
    temporal: Option<Temporal>,
}

impl Bed {
    pub async fn new(on: On, script: &str) -> anyhow::Result<Self> {
        let (engine, temporal, connection) = match on {
            On::Memory => {
                let engine = Engine::open(engine::Options::new(engine::Store::Memory))?;
                let connection = embedded(engine.clone()).await?;
                (Some(engine), None, connection)
            }
            On::Temporal => {
                let temporal = Temporal::start(None)?;
                let connection = cluster(&temporal).await?;
                (None, Some(temporal), connection)
            }
        };
        let blobs: Arc<dyn Blobs> = Arc::new(MemoryBlobs::new());
        let reader: Arc<dyn HistoryReader> =
            Arc::new(TemporalReader::new(connection.clone(), NAMESPACE, blobs.clone()));
        let mut bed = Bed {
            connection,
            blobs,
            reader,
            tuning: Tuning::default(),
            hands: Arc::default(),
            counts: Arc::default(),
            hand_worker: None,
            worker: None,
            engine,
            temporal,
        };
        bed.start_brain(script).await?;
        bed.start_hands().await?;
        Ok(bed)
    }

    pub async fn start_brain(&mut self, script: &str) -> anyhow::Result<()> {
        let script = Script::from_toml(script, std::path::Path::new("script.toml"))?;
        let model = Scripted::new(script, Timeouts::default());
        self.start_brain_with(Arc::new(model), worker::brain::Options::default()).await
    }

    pub async fn start_brain_with(
        &mut self,
        model: Arc<dyn Model>,
        options: worker::brain::Options,
    ) -> anyhow::Result<()> {
        let reader = CountingReader { reader: self.reader.clone(), counts: self.counts.clone() };
        let blobs = CountingBlobs { blobs: self.blobs.clone(), counts: self.counts.clone() };
        let activities = BrainActivities::new(model, Arc::new(reader), Arc::new(blobs), Arc::new(NoDeltas));
        let client = self.client(self.connection.clone())?;
        self.worker = Some(worker::brain::start(client, activities, options).await?);
        Ok(())
    }

    fn client(&self, connection: Connection) -> anyhow::Result<Client> {
        let converter = ClaimCheck::converter(self.blobs.clone());
        Ok(Client::new(connection, ClientOptions::new(NAMESPACE).data_converter(converter).build())?)
    }

    pub async fn stop_brain(&mut self) -> anyhow::Result<()> {
        if let Some(worker) = self.worker.take() {
            worker.shutdown();
            worker.ended().await;
            worker.join()?;
        }
        Ok(())
    }

    /// On a connection of its own, as in a process of its own.
    pub async fn start_hands(&mut self) -> anyhow::Result<()> {
        let connection = match (&self.engine, &self.temporal) {
            (Some(engine), _) => embedded(engine.clone()).await?,
            (None, Some(temporal)) => cluster(temporal).await?,
            (None, None) => unreachable!("a bed has an engine"),
        };
        let client = self.client(connection)?;
        let options = worker::hands::Options::default();
        let worker =
            worker::hands::start(client, HOST, self.hands.clone(), self.blobs.clone(), McpServers::new(None), options)
                .await?;
        self.hand_worker = Some(worker);
        Ok(())
    }

    pub async fn stop_hands(&mut self) -> anyhow::Result<()> {
        if let Some(worker) = self.hand_worker.take() {
            worker.shutdown();
            worker.ended().await;
            worker.join()?;
        }
        Ok(())
    }

    pub async fn end(mut self) -> anyhow::Result<()> {
        self.stop_brain().await?;
        self.stop_hands().await?;
        if let Some(engine) = self.engine.take() {
            engine.shutdown().await;
        }
        Ok(())
    }

    pub async fn start(&self, session_id: &str, events: Vec<Event>) -> anyhow::Result<()> {
        self.start_as(session_id, harness::registry::default_harness(), 200_000, events).await
    }

    /// A session of a harness, with a model of a window.
    pub async fn start_as(
        &self,
        session_id: &str,
        harness: HarnessRef,
        window_tokens: u64,
        events: Vec<Event>,
    ) -> anyhow::Result<()> {
        let attributes = self.attributes(window_tokens).await?;
        let from = Origin::Created { created_at: Time::from_ms(0), attributes, harness, events };
        self.start_input(&SessionInput { session_id: session_id.into(), from }).await
    }

    /// Recorded sessions gone through again.
    pub async fn start_trial(&self, input: &TrialInput<Trial>) -> anyhow::Result<()> {
        self.start_workflow(trial::WORKFLOW_TYPE, &input.trial_id, input).await
    }

    /// Ends a workflow from outside.
    pub async fn terminate(&self, id: &str) -> anyhow::Result<()> {
        let request = TerminateWorkflowExecutionRequest {
            namespace: NAMESPACE.into(),
            workflow_execution: Some(WorkflowExecution { workflow_id: id.into(), run_id: String::new() }),
            ..Default::default()
        };
        self.connection.workflow_service().terminate_workflow_execution(request.into_request()).await?;
        Ok(())
    }

    /// A session that goes on from a state, as a fork does.
    pub async fn start_from(&self, state: &SessionState) -> anyhow::Result<()> {
        let from = Origin::Forked { state: Box::new(serde_json::to_value(state)?) };
        self.start_input(&SessionInput { session_id: state.session_id.clone(), from }).await
    }

    /// What sessions here have, with a model of a window.
    pub async fn attributes(&self, window_tokens: u64) -> anyhow::Result<SessionAttributes> {
        let snapshot = snapshot();
        let blob = log::blobs::put_json(&*self.blobs, &snapshot).await?;
        let facts = AgentFacts {
            agent_id: "agent_1".into(),
            version: 1,
            name: "tester".into(),
            model: snapshot.model.id.clone(),
            window_tokens,
            max_tokens: snapshot.model.max_tokens,
            tools: snapshot
                .tools
                .iter()
                .map(|tool| ToolFact { name: tool.name.clone(), kind: tool.kind.clone(), policy: tool.policy })
                .collect(),
            strategy: harness::context::default_strategy(),
            mcp: Vec::new(),
            shims_off: Vec::new(),
            snapshot: blob,
        };
        Ok(SessionAttributes {
            title: None,
            metadata: Default::default(),
            environment_id: "env_1".into(),
            self_hosted: false,
            vault_ids: Vec::new(),
            resources: Vec::new(),
            agent: facts,
            tuning: self.tuning,
        })
    }

    async fn start_input(&self, input: &SessionInput<Value>) -> anyhow::Result<()> {
        self.start_workflow(WORKFLOW_TYPE, &input.session_id, input).await
    }

    async fn start_workflow(&self, kind: &str, id: &str, input: &impl Serialize) -> anyhow::Result<()> {
        let request = StartWorkflowExecutionRequest {
            namespace: NAMESPACE.into(),
            workflow_id: id.into(),
            workflow_type: Some(WorkflowType { name: kind.into() }),
            task_queue: Some(TaskQueue { name: queue::BRAIN.into(), ..Default::default() }),
            input: Some(self.payloads(input).await?),
            request_id: id.into(),
            ..Default::default()
        };
        self.connection.workflow_service().start_workflow_execution(request.into_request()).await?;
        Ok(())
    }

    pub async fn post(&self, session_id: &str, events: Vec<Event>) -> anyhow::Result<()> {
        self.signal(session_id, signal::EVENTS, &Posted { events, fingerprint: None }).await
    }

    pub async fn signal(&self, session_id: &str, name: &str, input: &impl Serialize) -> anyhow::Result<()> {
        let request = SignalWorkflowExecutionRequest {
            namespace: NAMESPACE.into(),
            workflow_execution: Some(WorkflowExecution { workflow_id: session_id.into(), run_id: String::new() }),
            signal_name: name.into(),
            input: Some(self.payloads(input).await?),
            ..Default::default()
        };
        self.connection.workflow_service().signal_workflow_execution(request.into_request()).await?;
        Ok(())
    }

    /// As the api sends them.
    async fn payloads(&self, value: &impl Serialize) -> anyhow::Result<Payloads> {
        let metadata = [("encoding".to_owned(), b"json/plain".to_vec())].into();
        let payload = Payload { metadata, data: serde_json::to_vec(value)?, ..Default::default() };
        Ok(Payloads { payloads: vec![ClaimCheck::new(self.blobs.clone()).check(payload).await?] })
    }

    /// How large the input of the latest run is in its history, and how large what it stands for.
    pub async fn input_bytes(&self, session_id: &str) -> anyhow::Result<(usize, usize)> {
        let (run, _) = self.reader.latest_run(session_id).await?;
        let request = GetWorkflowExecutionHistoryRequest {
            namespace: NAMESPACE.into(),
            execution: Some(WorkflowExecution { workflow_id: run.session_id.clone(), run_id: run.run_id.clone() }),
            maximum_page_size: 1,
            ..Default::default()
        };
        let mut service = self.connection.workflow_service();
        let raw = service.get_workflow_execution_history(request.into_request()).await?.into_inner();
        let whole = self.reader.page(&run, Vec::new(), false).await?;
        let bytes = |event: Option<&HistoryEvent>| match event?.attributes.as_ref()? {
            Attributes::WorkflowExecutionStartedEventAttributes(started) => {
                Some(started.input.as_ref()?.payloads.first()?.data.len())
            }
            _ => None,
        };
        let raw = raw.history.unwrap_or_default().events;
        bytes(raw.first()).zip(bytes(whole.events.first())).context("a run begins with its input")
    }

    /// The log once `until` holds of it.
    pub async fn wait(&self, session_id: &str, until: impl Fn(&SessionLog) -> bool) -> anyhow::Result<SessionLog> {
        let waiting = async {
            let mut log = SessionLog::open(&*self.reader, &*self.blobs, session_id).await?;
            while !until(&log) {
                let (run, next) = log.cursor();
                let page = self.reader.page(&run, next, true).await?;
                if log.ingest(&*self.blobs, &run, page).await?.is_none() {
                    log.read_to_end(&*self.reader, &*self.blobs).await?;
                }
            }
            anyhow::Ok(log)
        };
        tokio::time::timeout(Duration::from_secs(60), waiting).await?
    }

    /// Until the session's latest run has such a history event.
    pub async fn recorded(&self, session_id: &str, is_it: impl Fn(&Attributes) -> bool) -> anyhow::Result<()> {
        let reading = async {
            let (run, _) = self.reader.latest_run(session_id).await?;
            let mut next = Vec::new();
            loop {
                let page = self.reader.page(&run, next, true).await?;
                if page.events.iter().filter_map(|event| event.attributes.as_ref()).any(&is_it) {
                    return anyhow::Ok(());
                }
                next = page.next;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), reading).await?
    }

    /// The log when nothing is left to do.
    pub async fn idle(&self, session_id: &str) -> anyhow::Result<SessionLog> {
        self.wait(session_id, |log| {
            log.uncommitted().next().is_none()
                && log.end_position() > 0
                && log.summary().is_some_and(|summary| {
                    matches!(summary.status, Status::Idle | Status::RequiresAction | Status::Terminated)
                })
        })
        .await
    }

    /// Decides the session again, from its log alone.
    pub async fn replay(&self, log: &mut SessionLog) -> anyhow::Result<Report> {
        let recording = log.recording(&*self.blobs).await?.context("a log says what its session began with")?;
        for (n, committed) in recording.commits.iter().enumerate() {
            assert_eq!(committed.commit.n, n as u64, "no commit is missing");
        }
        let harnesses = Harnesses::new(self.blobs.clone());
        let mut found = Vec::new();
        for named in recording.harnesses() {
            found.push((named.clone(), harnesses.find(named).await?));
        }
        let mut own = |wanted: &HarnessRef| found.iter().find(|(named, _)| named == wanted)?.1.asked();
        Ok(replay(&recording, With::Own(&mut own))?)
    }

    /// All entries, checked to be dense, of a session that decides the same again.
    pub async fn entries(&self, log: &mut SessionLog) -> anyhow::Result<Vec<LogEntry>> {
        let report = self.replay(log).await?;
        assert_eq!(report.divergence, None, "replay gives what was recorded");
        assert!(report.commits > 0);
        let entries = log.slice(&*self.blobs, 0, u64::MAX).await?;
        for (at, entry) in entries.iter().enumerate() {
            assert_eq!(entry.position, at as u64, "positions are dense");
        }
        Ok(entries)
    }

    /// Types of all events, in order.
    pub async fn types(&self, log: &mut SessionLog) -> anyhow::Result<Vec<&'static str>> {
        let entries = self.entries(log).await?;
        Ok(entries.iter().map(|entry| entry.event.body.type_name()).collect())
    }
}

pub fn message(id: &str, text: &str) -> Event {
    let body = EventBody::UserMessage { content: Content::text(text) };
    Event { id: id.into(), body, processed_at: None }
}

pub fn confirmation(id: &str, tool_use_id: &str, deny: Option<&str>) -> Event {
    let body = EventBody::UserToolConfirmation {
        tool_use_id: tool_use_id.into(),
        result: if deny.is_some() { Confirmation::Deny } else { Confirmation::Allow },
        deny_message: deny.map(str::to_owned),
    };
    Event { id: id.into(), body, processed_at: None }
}

pub fn custom_result(id: &str, tool_use_id: &str, text: &str) -> Event {
    let body = EventBody::UserCustomToolResult {
        custom_tool_use_id: tool_use_id.into(),
        content: Content::text(text),
        is_error: None,
    };
    Event { id: id.into(), body, processed_at: None }
}

pub fn interrupt(id: &str) -> Event {
    let body = EventBody::UserInterrupt { session_thread_id: None };
    Event { id: id.into(), body, processed_at: None }
}

fn snapshot() -> AgentSnapshot {
    let tool = |name: &str, kind, policy| ToolSpec {
        name: name.into(),
        description: format!("the {name} tool"),
        input_schema: serde_json::json!({"type": "object"}),
        kind,
        policy,
    };
    AgentSnapshot {
        public: Value::Null,
        model: ModelParams { id: "scripted".into(), effort: None, speed: None, max_tokens: 1000 },
        system: Some("You are a test.".into()),
        tools: vec![
            tool("bash", ToolKind::Builtin, Policy::AlwaysAllow),
            tool("write", ToolKind::Builtin, Policy::AlwaysAsk),
            tool("lookup", ToolKind::Custom, Policy::AlwaysAllow),
            tool("web_fetch", ToolKind::Web, Policy::AlwaysAllow),
        ],
        mcp: Vec::new(),
        web_fetch: None,
    }
}

pub async fn cluster(temporal: &Temporal) -> anyhow::Result<Connection> {
    let url = Url::parse(&format!("http://{}", temporal.addr))?;
    Ok(Connection::connect(ConnectionOptions::new(url).build()).await?)
}

pub async fn embedded(engine: Engine) -> anyhow::Result<Connection> {
    let service = CallbackBasedGrpcService {
        callback: Arc::new(move |request| {
            let engine = engine.clone();
            Box::pin(async move {
                let body = Bytes::copy_from_slice(&request.proto);
                let proto = engine.call(&request.service, &request.rpc, &request.headers, body).await?;
                Ok(GrpcSuccessResponse { headers: HeaderMap::new(), proto })
            })
        }),
    };
    let options = ConnectionOptions::new(Url::parse("http://embedded.invalid")?)
        .service_override(service)
        .dns_load_balancing(None)
        .build();
    Ok(Connection::connect(options).await?)
}
