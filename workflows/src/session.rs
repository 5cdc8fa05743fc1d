//! `SessionWorkflow`: the thin shell around decisions. It keeps the mailbox, asks for the next commit and
//! turns what the state says is pending into Temporal commands. It decides nothing itself.
//!
//! The only file that turns a `Step` into commands (through `SessionState::pending`).

mod ops;

use crate::contract::{Brain, DecideInput};
use domain::{
    Commit, Status, Time,
    fault::{self, Point},
    limits,
    session::{Change, Close, Give, Handed, Mail, Origin, Posted, SessionInput, Swap},
};
use harness::{Intake, SessionState, Waiting, frame};
use ops::Ops;
use std::{collections::VecDeque, time::Duration};
use temporalio_macros::{workflow, workflow_methods};
use temporalio_workflow::{
    ContinueAsNewOptions, LocalActivityOptions, SyncWorkflowContext, WorkflowContext, WorkflowContextView,
    WorkflowResult,
};

/// A session, for as long as it lives; a run of it continues as new before it grows too long.
#[workflow]
pub struct SessionWorkflow {
    state: SessionState,
    /// Accepted and not yet committed, in order of arrival.
    mailbox: Vec<Mail>,
    /// POSTs accepted lately, in this run or before it: as many as hold the ids that `SessionState` remembers.
    posts: VecDeque<(String, Vec<String>)>,
    /// Signals that this run received.
    signals: u32,
}

#[workflow_methods]
impl SessionWorkflow {
    #[init]
    fn new(_ctx: &WorkflowContextView, input: SessionInput<SessionState>) -> Self {
        let (state, mailbox, posts) = match input.from {
            Origin::Created { created_at, attributes, harness, events } => (
                SessionState::created(&input.session_id, created_at, attributes, harness),
                events.into_iter().map(|event| Mail::Event { event }).collect(),
                VecDeque::new(),
            ),
            Origin::Forked { state } => (*state, Vec::new(), VecDeque::new()),
            Origin::Continued { state, previous_run_id, mailbox, posts } => {
                (state.continued(&previous_run_id), mailbox, posts.into())
            }
        };
        SessionWorkflow { state, mailbox, posts, signals: 0 }
    }

    #[run(name = "SessionWorkflow")]
    pub async fn run(ctx: &mut WorkflowContext<Self>) -> WorkflowResult<()> {
        let ctx = &*ctx;
        let first = ctx.state(|session| session.state.summary.n);
        let mut ops = Ops::default();
        loop {
            ops.reconcile(ctx);
            let intake = wait_until_due(ctx, &mut ops).await;
            let commit = decide(ctx, intake.clone()).await?;
            let swapped = commit
                .takes
                .iter()
                .any(|take| matches!(take, domain::Take::Private { entry: domain::PrivateEntry::Swapped { .. } }));
            ops.forget(&intake);
            ctx.state_mut(|session| session.commit(&commit, &intake));

            let decisions = ctx.state(|session| session.state.summary.n - first);
            if ops.is_quiet() {
                if ctx.state(|session| session.is_over()) {
                    return Ok(());
                }
                if swapped || ctx.state(|session| session.is_run_long(decisions)) || ctx.continue_as_new_suggested() {
                    let input = ctx.state(|session| session.next_run(ctx.run_id()));
                    fault::pass(Point::RunContinued);
                    ctx.continue_as_new(input, ContinueAsNewOptions::default())?;
                }
            }
        }
    }

    #[signal(name = "events")]
    pub fn events(&mut self, _ctx: &mut SyncWorkflowContext<Self>, posted: Posted) {
        self.signals += 1;
        if let Some(fingerprint) = posted.fingerprint {
            self.remember(fingerprint, posted.events.iter().map(|event| event.id.clone()).collect());
        }
        for event in posted.events {
            self.receive(Mail::Event { event });
        }
    }

    #[signal(name = "change")]
    pub fn change(&mut self, _ctx: &mut SyncWorkflowContext<Self>, change: Change) {
        self.signals += 1;
        self.receive(Mail::Change { change });
    }

    #[signal(name = "swap")]
    pub fn swap(&mut self, _ctx: &mut SyncWorkflowContext<Self>, swap: Swap) {
        self.signals += 1;
        self.receive(Mail::Swap { swap });
    }

    #[signal(name = "give")]
    pub fn give(&mut self, _ctx: &mut SyncWorkflowContext<Self>, give: Give) {
        self.signals += 1;
        self.receive(Mail::Give { give });
    }

    /// Sent by another session.
    #[signal(name = "handed")]
    pub fn handed(&mut self, _ctx: &mut SyncWorkflowContext<Self>, handed: Handed) {
        self.signals += 1;
        self.receive(Mail::Handed { handed });
    }

    #[signal(name = "close")]
    pub fn close(&mut self, _ctx: &mut SyncWorkflowContext<Self>, close: Close) {
        self.signals += 1;
        self.receive(Mail::Close { close });
    }
}

impl SessionWorkflow {
    /// A signal may be delivered again (a retried POST, a client's retry): its id tells.
    fn receive(&mut self, mail: Mail) {
        let is_known = self.mailbox.iter().any(|known| known.id() == mail.id())
            || self.state.seen.iter().any(|known| known == mail.id());
        if !is_known {
            self.mailbox.push(mail);
        }
    }

    /// What a retry of a POST is recognised by, in this run or a later one. The oldest are forgotten.
    fn remember(&mut self, fingerprint: String, ids: Vec<String>) {
        self.posts.push_back((fingerprint, ids));
        while self.posts.iter().map(|(_, ids)| ids.len()).sum::<usize>() > limits::SEEN_EVENT_IDS_MAX {
            self.posts.pop_front();
        }
    }

    fn commit(&mut self, commit: &Commit, intake: &Intake) {
        self.state.apply(commit, intake);
        self.mailbox.retain(|mail| !commit.takes.iter().any(|take| take.mail() == Some(mail.id())));
    }

    fn is_over(&self) -> bool {
        self.state.summary.status == Status::Terminated && self.state.pending.is_empty()
    }

    fn is_run_long(&self, decisions: u64) -> bool {
        let tuned = self.state.summary.attributes.tuning.decisions_per_run;
        // Sealing the run before takes a decision: with one alone, a session at rest would continue for ever.
        self.signals >= limits::SIGNALS_PER_RUN_MAX || (tuned > 0 && decisions >= tuned.max(2))
    }

    fn next_run(&self, run_id: &str) -> SessionInput<SessionState> {
        SessionInput {
            session_id: self.state.session_id.clone(),
            from: Origin::Continued {
                state: Box::new(self.state.clone()),
                previous_run_id: run_id.to_owned(),
                mailbox: self.mailbox.clone(),
                posts: self.posts.iter().cloned().collect(),
            },
        }
    }
}

/// Sleeps until a decision would do something, and says what it is made on.
async fn wait_until_due(ctx: &WorkflowContext<SessionWorkflow>, ops: &mut Ops<'_>) -> Intake {
    std::future::poll_fn(|cx| {
        ops.poll(cx);
        let intake = Intake {
            now: ctx.workflow_time().map_or(Time::default(), to_time),
            mail: ctx.state(|session| session.mailbox.iter().map(Waiting::of).collect()),
            closed: ops.closed().to_vec(),
        };
        if ctx.state(|session| frame::is_due(&session.state, &intake)) {
            return std::task::Poll::Ready(intake);
        }
        std::task::Poll::Pending
    })
    .await
}

pub(crate) fn to_time(time: std::time::SystemTime) -> Time {
    let since = time.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Time::from_ms(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

async fn decide(ctx: &WorkflowContext<SessionWorkflow>, intake: Intake) -> WorkflowResult<Commit> {
    let state = ctx.state_mut(|session| session.state.to_decide_on());
    let options = LocalActivityOptions::builder()
        .activity_id(format!("decide-{}", state.summary.n))
        .start_to_close_timeout(Duration::from_millis(limits::DECIDE_TIMEOUT_MS))
        .build();
    let input = DecideInput { state, intake };
    match ctx.execute_local_activity(Brain::decide, input, options).await {
        Ok(commit) => Ok(commit),
        Err(error) => {
            // Nothing was decided, so nothing may be recorded: the task fails and is tried again.
            ctx.force_task_fail(error);
            std::future::pending().await
        }
    }
}
