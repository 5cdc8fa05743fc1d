//! Parents, children and strangers (rule 19), each side on its own; that both sides are one write is the host's promise.
#![expect(deprecated, reason = "SDKs still fill the fields")]

use super::*;
use crate::core::child::{self, Ended};
use crate::core::errand::{Errand, Settled, What, errands};
use crate::core::external::{Asker, CancelRequested, Signaled};
use crate::pb::common::v1::WorkflowExecution;
use crate::pb::enums::v1::{
    CancelExternalWorkflowExecutionFailedCause as CancelFailed, ParentClosePolicy,
    SignalExternalWorkflowExecutionFailedCause as SignalFailed, StartChildWorkflowExecutionFailedCause as StartFailed,
};
use crate::pb::history::v1::WorkflowExecutionCompletedEventAttributes;

const CHILD_RUN: &str = "01890a5d-ac96-774b-bcce-b302099a8058";

fn have(id: &str, policy: ParentClosePolicy) -> C {
    C::StartChildWorkflowExecutionCommandAttributes(StartChildWorkflowExecutionCommandAttributes {
        workflow_id: id.into(),
        workflow_type: Some(WorkflowType { name: "C".into() }),
        parent_close_policy: policy as i32,
        ..Default::default()
    })
}

fn signal(to: &str) -> C {
    C::SignalExternalWorkflowExecutionCommandAttributes(SignalExternalWorkflowExecutionCommandAttributes {
        execution: Some(WorkflowExecution { workflow_id: to.into(), run_id: String::new() }),
        signal_name: "s".into(),
        ..Default::default()
    })
}

fn cancel(whom: &str) -> C {
    C::RequestCancelExternalWorkflowExecutionCommandAttributes(
        RequestCancelExternalWorkflowExecutionCommandAttributes { workflow_id: whom.into(), ..Default::default() },
    )
}

fn started(initiated_event_id: i64) -> child::Start {
    child::Start { initiated_event_id, initiated: Default::default(), outcome: Ok(CHILD_RUN.into()) }
}

fn ended(initiated_event_id: i64, child: &str) -> Ended {
    Ended {
        initiated_event_id,
        first_run_id: CHILD_RUN.into(),
        execution: WorkflowExecution { workflow_id: child.into(), run_id: "its last".into() },
        closing: A::WorkflowExecutionCompletedEventAttributes(WorkflowExecutionCompletedEventAttributes::default()),
    }
}

impl Bench {
    fn owes(&self) -> Vec<(i64, What)> {
        errands(&self.run.state).map(|errand| (errand.event_id, errand.what)).collect()
    }
}

#[test]
fn rule_19_a_child_is_owed_until_it_is_started_and_its_end_is_news() {
    let mut bench = Bench::new();
    bench.step(vec![have("c", ParentClosePolicy::Unspecified)]);
    assert_eq!(bench.owes(), [(5, What::StartChild)]);
    bench.apply(started(5)).expect("is started");
    assert_eq!(bench.owes(), []);
    assert_eq!(bench.apply(started(5)), Err(Refusal::NotAwaited), "once");
    assert_eq!(bench.names_from(6), ["ChildWorkflowExecutionStarted", "WorkflowTaskScheduled"]);
    bench.step(vec![]);
    assert_eq!(bench.apply(ended(5, "another")), Err(Refusal::NotAwaited));
    bench.apply(ended(5, "c")).expect("ends");
    assert_eq!(bench.apply(ended(5, "c")), Err(Refusal::NotAwaited), "once");
    assert_eq!(bench.names_from(10), ["ChildWorkflowExecutionCompleted", "WorkflowTaskScheduled"]);
    match bench.events[9].attributes.as_ref() {
        Some(A::ChildWorkflowExecutionCompletedEventAttributes(a)) => {
            assert_eq!((a.initiated_event_id, a.started_event_id), (5, 6));
            assert_eq!(a.workflow_execution.as_ref().map(|e| e.run_id.as_str()), Some("its last"));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn rule_19_what_a_child_does_behind_a_started_task_waits_and_is_wired() {
    let mut bench = Bench::new();
    bench.step(vec![have("c", ParentClosePolicy::Terminate)]);
    bench.signal("wake");
    let open = bench.start();
    bench.apply(started(5)).expect("is started");
    bench.apply(ended(5, "c")).expect("ends");
    bench.signal("last");
    let before = bench.next_event_id();
    bench.complete(&open, vec![]).expect("completes");
    assert_eq!(
        bench.names_from(before + 1),
        [
            "ChildWorkflowExecutionStarted",
            "WorkflowExecutionSignaled",
            "ChildWorkflowExecutionCompleted",
            "WorkflowTaskScheduled"
        ]
    );
    let completed = bench.events.iter().find_map(|event| match &event.attributes {
        Some(A::ChildWorkflowExecutionCompletedEventAttributes(a)) => Some(a.started_event_id),
        _ => None,
    });
    assert_eq!(completed, Some(before + 1));
}

#[test]
fn rule_19_a_child_that_cannot_be_started_is_news_and_is_not_owed_any_more() {
    let mut bench = Bench::new();
    bench.step(vec![have("c", ParentClosePolicy::Terminate)]);
    let outcome = Err(StartFailed::WorkflowAlreadyExists);
    let failed = child::Start { initiated_event_id: 5, initiated: Default::default(), outcome };
    bench.apply(failed).expect("is told");
    assert_eq!(bench.names_from(6), ["StartChildWorkflowExecutionFailed", "WorkflowTaskScheduled"]);
    assert!(bench.run.state.children.is_empty() && bench.owes().is_empty());
}

#[test]
fn rule_19_a_closed_parent_owes_its_started_children_what_their_policies_say() {
    let policies = [ParentClosePolicy::Terminate, ParentClosePolicy::Abandon, ParentClosePolicy::RequestCancel];
    let mut bench = Bench::new();
    bench.step(policies.iter().map(|policy| have(&format!("{policy:?}"), *policy)).collect());
    bench.apply(started(5)).expect("is started");
    bench.apply(started(6)).expect("is started");
    bench.apply(started(7)).expect("is started");
    bench.step(vec![have("too late", ParentClosePolicy::Terminate), finish()]);
    assert_eq!(bench.owes(), [(5, What::ClosePolicy), (7, What::ClosePolicy)]);
    let settled = |event_id| Settled(Errand { event_id, what: What::ClosePolicy });
    bench.apply(settled(5)).expect("is done");
    assert_eq!(bench.apply(settled(5)), Err(Refusal::NotAwaited), "once");
    assert_eq!(bench.owes(), [(7, What::ClosePolicy)]);
    assert_eq!(bench.apply(started(7)), Err(Refusal::NotAwaited), "a closed run hears nothing");
}

/// A child as its parent made it.
fn offspring() -> Bench {
    let shape = |started: &mut WorkflowExecutionStartedEventAttributes| {
        started.parent_workflow_namespace = "default".into();
        started.parent_workflow_execution =
            Some(WorkflowExecution { workflow_id: "p".into(), run_id: "its run".into() });
        started.parent_initiated_event_id = 5;
        started.root_workflow_execution = Some(WorkflowExecution { workflow_id: "r".into(), run_id: "root".into() });
    };
    Bench::with(shape, Limits::default())
}

#[test]
fn rule_19_only_the_last_run_of_a_child_owes_its_end_to_the_parent() {
    let mut last = offspring();
    last.step(vec![finish()]);
    let close_event_id = last.run.state.close_event_id;
    assert_eq!(last.owes(), [(close_event_id, What::TellParent)]);
    last.apply(Settled(Errand { event_id: close_event_id, what: What::TellParent })).expect("is told");
    assert_eq!(last.owes(), []);

    let mut first = offspring();
    first.step(vec![C::ContinueAsNewWorkflowExecutionCommandAttributes(Default::default())]);
    assert_eq!(first.owes(), []);
    let (next, effects) = *first.last.successor.take().expect("a successor");
    assert_eq!((&next.state.parent, &next.state.root), (&first.run.state.parent, &first.run.state.root));
    match effects.events.first().and_then(|event| event.attributes.as_ref()) {
        Some(A::WorkflowExecutionStartedEventAttributes(a)) => {
            assert_eq!(a.parent_initiated_event_id, 5);
            assert_eq!(a.parent_workflow_execution.as_ref().map(|e| e.workflow_id.as_str()), Some("p"));
            assert_eq!(a.root_workflow_execution.as_ref().map(|e| e.workflow_id.as_str()), Some("r"));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn rule_19_what_is_asked_of_others_is_answered_once_and_forgotten_at_the_end() {
    let mut bench = Bench::new();
    bench.step(vec![signal("a"), cancel("b"), signal("c"), cancel("d")]);
    let asked = [(5, What::Signal), (6, What::Cancel), (7, What::Signal), (8, What::Cancel)];
    assert_eq!(bench.owes(), asked);
    let signaled =
        |initiated_event_id, outcome| Signaled { initiated_event_id, initiated: Default::default(), outcome };
    let asked =
        |initiated_event_id, outcome| CancelRequested { initiated_event_id, initiated: Default::default(), outcome };
    bench.apply(signaled(5, Ok(()))).expect("is answered");
    assert_eq!(bench.apply(signaled(5, Ok(()))), Err(Refusal::NotAwaited), "once");
    assert_eq!(bench.apply(signaled(6, Ok(()))), Err(Refusal::NotAwaited), "that is no signal");
    bench.apply(asked(6, Err(CancelFailed::ExternalWorkflowExecutionNotFound))).expect("is answered");
    bench.apply(signaled(7, Err(SignalFailed::ExternalWorkflowExecutionNotFound))).expect("is answered");
    assert_eq!(
        bench.names_from(9),
        [
            "ExternalWorkflowExecutionSignaled",
            "WorkflowTaskScheduled",
            "RequestCancelExternalWorkflowExecutionFailed",
            "SignalExternalWorkflowExecutionFailed"
        ]
    );
    bench.step(vec![finish()]);
    assert_eq!(bench.owes(), [], "what was not answered by the end is not done");
}

#[test]
fn rule_19_what_is_meant_for_a_child_only_is_refused_by_all_others() {
    let asker = |run_id: &str, child_only| {
        let execution = WorkflowExecution { workflow_id: "p".into(), run_id: run_id.into() };
        Some(Asker { execution, initiated_event_id: 5, child_only })
    };
    let table = [("its run", true, Ok(())), ("another", true, Err(Refusal::OtherParent)), ("another", false, Ok(()))];
    for (run_id, child_only, expected) in table {
        let from = asker(run_id, child_only);
        let (name, identity, request_id) = (String::new(), String::new(), String::new());
        let signal = Signal { name, input: None, identity, header: None, request_id, from: from.clone() };
        assert_eq!(offspring().apply(signal), expected);
        let (reason, identity, first_run_id) = (String::new(), String::new(), String::new());
        let cancel = RequestCancel { reason, identity, first_run_id, from: from.clone() };
        assert_eq!(offspring().apply(cancel), expected);
        let (reason, identity, first_run_id) = (String::new(), String::new(), String::new());
        let terminate = Terminate { reason, details: None, identity, first_run_id, from };
        assert_eq!(offspring().apply(terminate), expected);
    }
}

#[test]
fn rule_19_each_unacceptable_command_has_its_cause() {
    use WorkflowTaskFailedCause as Cause;
    let limits =
        || Limits { pending_children_max: 1, pending_signals_max: 1, pending_cancels_max: 1, ..Limits::default() };
    let abroad = C::StartChildWorkflowExecutionCommandAttributes(StartChildWorkflowExecutionCommandAttributes {
        namespace: "abroad".into(),
        workflow_id: "c".into(),
        workflow_type: Some(WorkflowType { name: "C".into() }),
        ..Default::default()
    });
    let (policy, second) = (ParentClosePolicy::Abandon, "d");
    let table = [
        (vec![have("", policy)], Cause::BadStartChildExecutionAttributes),
        (vec![abroad], Cause::BadStartChildExecutionAttributes),
        (vec![have("c", policy), have(second, policy)], Cause::PendingChildWorkflowsLimitExceeded),
        (vec![signal("")], Cause::BadSignalWorkflowExecutionAttributes),
        (vec![signal("c"), signal(second)], Cause::PendingSignalsLimitExceeded),
        (vec![cancel("")], Cause::BadRequestCancelExternalWorkflowExecutionAttributes),
        (vec![cancel("c"), cancel(second)], Cause::PendingRequestCancelLimitExceeded),
        (vec![have("c", policy), cancel("c")], Cause::BadRequestCancelExternalWorkflowExecutionAttributes),
    ];
    for (commands, expected) in table {
        let mut bench = Bench::with(|_| {}, limits());
        let started = bench.start();
        bench.complete(&started, commands).expect("is answered");
        match bench.events.last().and_then(|event| event.attributes.clone()) {
            Some(A::WorkflowTaskFailedEventAttributes(a)) => assert_eq!(a.cause(), expected),
            other => panic!("{expected:?}: {other:?}"),
        }
        assert!(bench.owes().is_empty(), "nothing of the batch stays");
    }
}
