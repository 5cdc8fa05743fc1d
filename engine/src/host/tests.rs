//! What the host owes its callers when the store does not keep its word.

use super::updates::Asked;
use super::*;
use crate::clock::{SimulatedClock, SystemClock};
use crate::core::completion::Complete;
use crate::core::signal::Signal;
use crate::core::workflow_task;
use crate::pb::command::v1::{
    Command, ContinueAsNewWorkflowExecutionCommandAttributes, StartChildWorkflowExecutionCommandAttributes, command,
};
use crate::pb::common::v1::{RetryPolicy, WorkflowExecution, WorkflowType};
use crate::pb::enums::v1::{EventType, WorkflowExecutionStatus, WorkflowIdConflictPolicy};
use crate::pb::history::v1::HistoryEvent;
use crate::pb::taskqueue::v1::TaskQueue;
use crate::store::committer::Commits;
use crate::store::suite::Breaking;
use crate::store::{Entry, MemoryStore, Range, Reads, Space};
use crate::time::Time;
use parking_lot::Mutex;
use std::task::Poll;
use std::time::Duration;

const NOW: Time = Time(1_700_000_000_000_000_000);

fn start(request_id: &str, conflict: WorkflowIdConflictPolicy) -> Start {
    Start {
        namespace: "default".into(),
        request_id: request_id.into(),
        started: WorkflowExecutionStartedEventAttributes {
            workflow_id: "w".into(),
            workflow_type: Some(WorkflowType { name: "W".into() }),
            task_queue: Some(TaskQueue { name: "q".into(), ..Default::default() }),
            ..Default::default()
        },
        user_metadata: None,
        reuse: Default::default(),
        conflict,
        signal: None,
    }
}

/// A store that remembers how it looked after each batch.
#[derive(Default)]
struct Watched {
    inner: MemoryStore,
    after_each: Mutex<Vec<Box<dyn Reads>>>,
}

impl Storage for Watched {
    fn write(&self, batches: Vec<Batch>, durability: Durability) -> Result<(), store::Error> {
        for batch in batches {
            self.inner.write(vec![batch], durability)?;
            self.after_each.lock().push(self.inner.snapshot()?);
        }
        Ok(())
    }

    fn snapshot(&self) -> Result<Box<dyn Reads>, store::Error> {
        self.inner.snapshot()
    }

    fn close(&self) {}
}

impl Reads for Watched {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, store::Error> {
        self.inner.get(space, key)
    }

    fn scan(&self, space: Space, range: Range) -> Result<Vec<Entry>, store::Error> {
        self.inner.scan(space, range)
    }
}

#[tokio::test]
async fn of_two_who_ask_for_the_same_update_the_second_joins_the_first() {
    let store = Arc::new(MemoryStore::default());
    let committer = Committer::start(store.clone()).expect("a committer");
    let settings = Settings { clock: Arc::new(SystemClock), limits: Limits::default(), cached_runs_max: 10, seed: 7 };
    let host = Arc::new(Host::new(store, Some(committer), settings));
    host.start(start("first", Default::default())).await.expect("starts");
    let execution = WorkflowExecution { workflow_id: "w".into(), run_id: String::new() };
    let slot = host.resolve("default", &execution).expect("is there");
    let first = host.join_or_admit(&slot, "u", Default::default()).expect("admitted");
    let second = host.join_or_admit(&slot, "u", Default::default()).expect("joined");
    let (Asked::Now(first), Asked::Before(second)) = (first, second) else { panic!("two are the first") };
    assert!(first.same_channel(&second));
    assert!(first.has_changed().is_ok(), "whoever was first is still waited for");
}

#[tokio::test]
async fn a_run_is_replaced_in_one_write_whatever_stops_after_it() {
    let store = Arc::new(Watched::default());
    let committer = Committer::start(store.clone()).expect("a committer");
    let settings = Settings { clock: Arc::new(SystemClock), limits: Limits::default(), cached_runs_max: 10, seed: 7 };
    let host = Arc::new(Host::new(store.clone(), Some(committer), settings));
    host.start(start("first", Default::default())).await.expect("starts");
    let second = host.start(start("second", WorkflowIdConflictPolicy::TerminateExisting)).await.expect("replaces");
    let StartOutcome::Started { run_id } = second else { panic!("{second:?}") };
    let looks = store.after_each.lock();
    assert_eq!(looks.len(), 2, "one batch a start");
    for look in looks.iter() {
        let report = crate::verify::verify(&**look).expect("reads");
        assert_eq!((report.open_runs, report.problems), (1, vec![]), "there is always an open run");
    }
    let execution = WorkflowExecution { workflow_id: "w".into(), run_id: String::new() };
    assert_eq!(host.resolve("default", &execution).expect("is there").run.lock().state.run_id, run_id);
}

#[tokio::test]
async fn a_write_that_failed_is_not_acknowledged_and_none_is_accepted_after_it() {
    let store = Arc::new(Breaking::default());
    let committer = Committer::start(store.clone()).expect("a committer");
    let settings = Settings { clock: Arc::new(SystemClock), limits: Limits::default(), cached_runs_max: 10, seed: 7 };
    let host = Arc::new(Host::new(store, Some(committer), settings));
    host.start(start("r", Default::default())).await.expect("the first write goes well");
    let execution = WorkflowExecution { workflow_id: "w".into(), run_id: String::new() };
    let slot = host.resolve("default", &execution).expect("is there");
    let seen = slot.seen();
    for _ in 0..2 {
        let refused = host.transact(&slot, signal(), Durability::Synced).await;
        assert!(matches!(refused, Err(Error::Store(_))), "{refused:?}");
        assert_eq!(slot.seen(), seen, "readers see nothing of it");
    }
}

/// A workflow that wants a child.
async fn parent(host: &Arc<Host>) -> Arc<Slot> {
    let start = Start {
        started: WorkflowExecutionStartedEventAttributes {
            workflow_id: "parent".into(),
            ..start("parent", Default::default()).started
        },
        ..start("parent", Default::default())
    };
    host.start(start).await.expect("starts");
    let execution = WorkflowExecution { workflow_id: "parent".into(), run_id: String::new() };
    let slot = host.resolve("default", &execution).expect("is there");
    let child = StartChildWorkflowExecutionCommandAttributes {
        workflow_id: "child".into(),
        workflow_type: Some(WorkflowType { name: "C".into() }),
        ..Default::default()
    };
    let child = command::Attributes::StartChildWorkflowExecutionCommandAttributes(child);
    wait(complete(host, &slot, 1, vec![child])).await.expect("is written");
    slot
}

#[tokio::test]
async fn what_a_run_owes_outlives_the_engine_and_is_done_in_one_write() {
    let store = Arc::new(Watched::default());
    let settings =
        || Settings { clock: Arc::new(SystemClock), limits: Limits::default(), cached_runs_max: 10, seed: 7 };
    let first = Arc::new(Host::new(store.clone(), Some(Committer::start(store.clone()).expect("starts")), settings()));
    parent(&first).await;
    let before = store.after_each.lock().len();
    drop(first);

    let host = Arc::new(Host::new(store.clone(), Some(Committer::start(store.clone()).expect("starts")), settings()));
    host.recover().expect("recovers");
    let errands = tokio::spawn(host.clone().run_errands());
    let started = |look: &dyn Reads| {
        let current = look.get(Space::Current, &store::keys::current("default", "child")).expect("reads");
        let owed = look.scan(Space::Errand, Range::prefix(vec![])).expect("scans");
        (current.is_some(), owed.is_empty())
    };
    let execution = WorkflowExecution { workflow_id: "parent".into(), run_id: String::new() };
    let mut seen = host.resolve("default", &execution).expect("is there").watch();
    let done = seen.wait_for(|seen| seen.next_event_id > 6);
    tokio::time::timeout(Duration::from_secs(30), done).await.expect("in time").expect("its child is started");
    host.close();
    errands.await.expect("ends");
    let looks = store.after_each.lock();
    let looks: Vec<_> = looks[before..].iter().map(|look| started(&**look)).collect();
    assert!(looks.iter().all(|(is_there, owes_nothing)| is_there == owes_nothing), "{looks:?}");
    let report = crate::verify::verify(&*store.snapshot().expect("a snapshot")).expect("reads");
    assert_eq!((report.open_runs, report.problems), (2, vec![]));
}

/// A store whose histories cannot be read while a test says so.
#[derive(Default)]
struct Unreadable {
    inner: MemoryStore,
    histories: AtomicBool,
}

impl Storage for Unreadable {
    fn write(&self, batches: Vec<Batch>, durability: Durability) -> Result<(), store::Error> {
        self.inner.write(batches, durability)
    }

    fn snapshot(&self) -> Result<Box<dyn Reads>, store::Error> {
        self.inner.snapshot()
    }

    fn close(&self) {}
}

impl Reads for Unreadable {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, store::Error> {
        self.inner.get(space, key)
    }

    fn scan(&self, space: Space, range: Range) -> Result<Vec<Entry>, store::Error> {
        match space == Space::History && self.histories.load(Ordering::Acquire) {
            true => Err(store::Error::Read(fjall::Error::Io(std::io::Error::other("simulated")))),
            false => self.inner.scan(space, range),
        }
    }
}

#[tokio::test]
async fn what_could_not_be_done_for_another_run_is_tried_again_after_longer_and_longer_pauses() {
    let (store, clock) = (Arc::new(Unreadable::default()), SimulatedClock::new(NOW));
    let (host, mut commits) = unattended_over(store.clone(), &clock);
    let parent = written(parent(&host), &mut commits).await;
    store.histories.store(true, Ordering::Release);
    let errands = tokio::spawn(host.clone().run_errands());
    let mut at = NOW;
    for pause in [1, 2, 4, 8, 16, 32, 60, 60] {
        let next = at.plus(pause * 1_000_000_000);
        while clock.earliest() != Some(next) {
            assert!(!errands.is_finished());
            tokio::task::yield_now().await;
        }
        clock.advance(at.until(next));
        at = next;
    }
    store.histories.store(false, Ordering::Release);
    clock.advance(Duration::from_secs(60));
    let mut seen = parent.watch();
    written(seen.wait_for(|seen| seen.next_event_id > 6), &mut commits).await.expect("its child is started");
    host.close();
    errands.await.expect("ends");
}

#[tokio::test]
async fn deleting_a_parent_ends_its_children_first() {
    let store = Arc::new(MemoryStore::default());
    let committer = Committer::start(store.clone()).expect("a committer");
    let settings = Settings { clock: Arc::new(SystemClock), limits: Limits::default(), cached_runs_max: 10, seed: 7 };
    let host = Arc::new(Host::new(store.clone(), Some(committer), settings));
    let errands = tokio::spawn(host.clone().run_errands());
    let parent = parent(&host).await;
    let mut seen = parent.watch();
    let done = seen.wait_for(|seen| seen.next_event_id > 6);
    tokio::time::timeout(Duration::from_secs(30), done).await.expect("in time").expect("its child is started");
    host.close();
    errands.await.expect("nobody but the deletion does errands");
    host.delete(&parent).await.expect("is deleted");
    let execution = WorkflowExecution { workflow_id: "child".into(), run_id: String::new() };
    let child = host.resolve("default", &execution).expect("is there");
    assert_eq!(child.run.lock().state.status(), WorkflowExecutionStatus::Terminated);
    host.sync().await.expect("is written");
    assert_eq!(crate::verify::verify(&*store).expect("reads").problems, Vec::<String>::new());
}

/// A host whose writes happen when the test says so.
fn unattended(clock: &SimulatedClock) -> (Arc<Host>, Commits) {
    unattended_over(Arc::new(MemoryStore::default()), clock)
}

fn unattended_over(store: Arc<dyn Storage>, clock: &SimulatedClock) -> (Arc<Host>, Commits) {
    let (committer, commits) = Committer::unattended(store.clone());
    let settings = Settings { clock: Arc::new(clock.clone()), limits: Limits::default(), cached_runs_max: 10, seed: 7 };
    (Arc::new(Host::new(store, Some(committer), settings)), commits)
}

/// Writes what is to be written until a future is done; whatever else runs goes on meanwhile.
async fn written<T>(future: impl Future<Output = T>, commits: &mut Commits) -> T {
    let mut future = Box::pin(future);
    loop {
        if let Poll::Ready(done) = futures::poll!(&mut future) {
            return done;
        }
        tokio::task::yield_now().await;
        commits.turn();
    }
}

#[tokio::test]
async fn a_child_that_is_deleted_before_its_end_is_on_disk_has_told_its_parent() {
    let (host, mut commits) = unattended(&SimulatedClock::new(NOW));
    let errands = tokio::spawn(host.clone().run_errands());
    let parent = written(parent(&host), &mut commits).await;
    let mut seen = parent.watch();
    written(seen.wait_for(|seen| seen.next_event_id > 6), &mut commits).await.expect("its child is started");
    host.close();
    errands.await.expect("nobody but the deletion does errands");
    let execution = WorkflowExecution { workflow_id: "child".into(), run_id: String::new() };
    let child = host.resolve("default", &execution).expect("is there");
    let end = command::Attributes::CompleteWorkflowExecutionCommandAttributes(Default::default());
    let _unwritten = complete(&host, &child, 1, vec![end]);
    written(host.delete(&child), &mut commits).await.expect("is deleted");
    written(host.sync(), &mut commits).await.expect("is written");
    let told = host.history(&parent.key, 7, i64::MAX, Most::events(10)).expect("reads");
    let told: Vec<_> = told.iter().map(HistoryEvent::event_type).collect();
    assert_eq!(told, [EventType::WorkflowTaskScheduled, EventType::ChildWorkflowExecutionCompleted]);
    let report = crate::verify::verify(&*host.snapshot().expect("a snapshot")).expect("reads");
    assert_eq!((report.open_runs, report.problems), (1, vec![]));
}

#[tokio::test]
async fn a_page_of_history_ends_with_its_events_or_its_bytes_and_is_never_empty() {
    let (host, mut commits) = unattended(&SimulatedClock::new(NOW));
    let parent = written(parent(&host), &mut commits).await;
    let page = |from, to, events, bytes| {
        let page = host.history(&parent.key, from, to, Most { events, bytes }).expect("reads");
        page.iter().map(|event| event.event_id).collect::<Vec<_>>()
    };
    // The batches: the start with its task, that the task was taken, and what it decided.
    assert_eq!(page(1, i64::MAX, usize::MAX, usize::MAX), [1, 2, 3, 4, 5]);
    assert_eq!(page(1, i64::MAX, 1, usize::MAX), [1]);
    assert_eq!(page(1, i64::MAX, usize::MAX, 1), [1, 2]);
    assert_eq!(page(2, i64::MAX, usize::MAX, 1), [2]);
    assert_eq!(page(3, i64::MAX, usize::MAX, 1), [3]);
    assert_eq!(page(4, 5, usize::MAX, 1), [4]);
    assert_eq!(page(6, i64::MAX, usize::MAX, 1), [0i64; 0]);
}

/// Polls a start once, and again when what waits is written.
async fn attended(
    start: impl Future<Output = Result<StartOutcome, Error>>,
    commits: &mut Commits,
) -> (bool, StartOutcome) {
    let mut start = Box::pin(start);
    let waited = futures::poll!(&mut start).is_pending();
    commits.turn();
    (waited, start.await.expect("an outcome"))
}

/// Decides that the run goes on as another one, which nobody has written yet.
fn continue_as_new(host: &Arc<Host>, slot: &Arc<Slot>, retry_policy: Option<RetryPolicy>) -> Done {
    let again = ContinueAsNewWorkflowExecutionCommandAttributes { retry_policy, ..Default::default() };
    complete(host, slot, 1, vec![command::Attributes::ContinueAsNewWorkflowExecutionCommandAttributes(again)])
}

/// Starts and completes the workflow task with this stamp.
fn complete(host: &Arc<Host>, slot: &Arc<Slot>, stamp: i64, commands: Vec<command::Attributes>) -> Done {
    let taken = workflow_task::Start { stamp, identity: String::new(), from_sticky: false, poller: Default::default() };
    let (started, _done) = host.decide(slot, taken, Durability::Journaled).expect("starts");
    let command = |attributes| Command { attributes: Some(attributes), ..Default::default() };
    let complete = Complete {
        token: workflow_task::TaskRef::of(&started.task),
        commands: commands.into_iter().map(command).collect(),
        messages: vec![],
        identity: String::new(),
        sticky: None,
        return_new_task: false,
        force_new_task: false,
        sdk_metadata: None,
        metering_metadata: None,
        worker: Default::default(),
    };
    host.decide(slot, complete, Durability::Synced).expect("completes").1
}

fn signal() -> Signal {
    Signal {
        name: "s".into(),
        input: None,
        identity: String::new(),
        header: None,
        request_id: String::new(),
        from: None,
    }
}

/// Found by simulation: where a retry repeats how a run began, the signal was refused for a run that was not found.
#[tokio::test]
async fn a_run_takes_signals_before_it_is_on_disk() {
    let (host, mut commits) = unattended(&SimulatedClock::new(NOW));
    attended(host.start(start("first", Default::default())), &mut commits).await;
    let execution = WorkflowExecution { workflow_id: "w".into(), run_id: String::new() };
    let slot = host.resolve("default", &execution).expect("is there");
    let _done = continue_as_new(&host, &slot, Some(RetryPolicy::default()));
    let next = host.resolve("default", &execution).expect("the next run is known");
    assert_eq!(next.seen(), Seen::nothing());
    let (_, done) = host.decide(&next, signal(), Durability::Synced).expect("it takes the signal");
    while commits.turn() {}
    wait(done).await.expect("both are written");
    assert!(next.beginning().is_none(), "the store has it now");
    host.decide(&next, signal(), Durability::Synced).expect("it takes another");
}

/// Found by simulation: `UseExisting` answered with a run that only a write made which had failed.
#[tokio::test]
async fn what_a_failed_write_left_in_memory_answers_no_start() {
    let (host, mut commits) = unattended_over(Arc::new(Breaking::default()), &SimulatedClock::new(NOW));
    attended(host.start(start("first", Default::default())), &mut commits).await;
    let execution = WorkflowExecution { workflow_id: "w".into(), run_id: String::new() };
    let slot = host.resolve("default", &execution).expect("is there");
    let done = continue_as_new(&host, &slot, None);
    commits.turn();
    wait(done).await.expect_err("only the first write goes well");
    for conflict in [WorkflowIdConflictPolicy::UseExisting, WorkflowIdConflictPolicy::Fail] {
        let answer = futures::poll!(Box::pin(host.start(start("second", conflict))));
        assert!(matches!(answer, Poll::Ready(Err(Error::Store(_)))), "{answer:?}");
    }
}

/// Found by simulation: `UseExisting` answered with a run that was lost with the write that continued the old one as it.
#[tokio::test]
async fn nobody_hears_of_a_run_before_it_is_on_disk() {
    let (host, mut commits) = unattended(&SimulatedClock::new(NOW));
    attended(host.start(start("first", Default::default())), &mut commits).await;
    let execution = WorkflowExecution { workflow_id: "w".into(), run_id: String::new() };
    let slot = host.resolve("default", &execution).expect("is there");
    let _done = continue_as_new(&host, &slot, None);
    let second = start("second", WorkflowIdConflictPolicy::UseExisting);
    let (waited, outcome) = attended(host.start(second), &mut commits).await;
    assert!(waited, "the run that it is given was not on disk");
    let next = slot.run.lock().state.successor.clone();
    assert!(matches!(&outcome, StartOutcome::Existing { run_id, .. } if *run_id == next), "{outcome:?}");
}
