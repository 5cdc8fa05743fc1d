//! Which workers a task goes to, and what becomes of versions.

use super::state::{Deployment, Ramp, Refusal, VersionQueue, Wish};
use super::*;
use crate::pb::enums::v1::WorkerDeploymentVersionStatus as Status;

fn at(seconds: i64) -> Time {
    Time((1_700_000_000 + seconds) * 1_000_000_000)
}

fn wish() -> Wish {
    Wish { identity: "operator".into(), ..Default::default() }
}

fn version(build_id: &str) -> Version {
    Version { deployment: "d".into(), build_id: build_id.into() }
}

/// A deployment whose versions 1 and 2 poll the queue q, and version 1 also r.
fn deployment() -> Deployment {
    let mut deployment = Deployment::new("d", at(0));
    for (build_id, queues) in [("1", vec!["q", "r"]), ("2", vec!["q"])] {
        let version = deployment.add(build_id, Status::Inactive, at(0));
        version.queues =
            queues.into_iter().map(|name| VersionQueue { name: name.into(), is_activity: false }).collect();
    }
    deployment
}

fn to(build_id: Option<&str>, percentage: f32) -> Option<Ramp> {
    Some(Ramp { to: build_id.map(str::to_owned), percentage })
}

fn table(deployments: impl IntoIterator<Item = Deployment>) -> Deployments {
    let table = Deployments::default();
    deployments.into_iter().for_each(|deployment| table.put("n", deployment));
    table
}

fn goes(table: &Deployments, queue: &str, workflow_id: &str) -> Option<String> {
    let route = Route { workflow_id: workflow_id.into(), ..Default::default() };
    table.read().worker_of("n", queue, false, &route).map(|version| version.build_id)
}

#[test]
fn a_queue_goes_to_the_current_version_if_its_workers_poll_it() {
    let mut deployment = deployment();
    assert_eq!(goes(&table([deployment.clone()]), "q", "w"), None, "nothing is current");
    deployment.set_current(Some("1"), &wish(), at(1)).expect("sets");
    let now = table([deployment.clone()]);
    assert_eq!(goes(&now, "q", "w").as_deref(), Some("1"));
    assert_eq!(goes(&now, "r", "w").as_deref(), Some("1"));
    assert_eq!(goes(&now, "other", "w"), None);
    deployment.set_current(Some("2"), &wish(), at(2)).expect("sets");
    let now = table([deployment.clone()]);
    assert_eq!(goes(&now, "q", "w").as_deref(), Some("2"));
    assert_eq!(goes(&now, "r", "w"), None, "version 2 does not poll it");
    deployment.set_current(None, &wish(), at(3)).expect("sets");
    assert_eq!(goes(&table([deployment]), "q", "w"), None);
}

#[test]
fn a_pinned_run_goes_to_its_version_whatever_is_current_and_an_independent_activity_does_not() {
    let mut deployment = deployment();
    deployment.set_current(Some("2"), &wish(), at(1)).expect("sets");
    let now = table([deployment]);
    let route = Route { workflow_id: "w".into(), pinned: Some(version("1")), ..Default::default() };
    assert_eq!(now.read().worker_of("n", "q", false, &route), Some(version("1")));
    assert_eq!(now.read().worker_of("n", "q", true, &route), None, "version 1 polls no activities of q");
}

#[test]
fn a_ramp_takes_the_workflows_that_a_server_would_take_and_keeps_them_as_it_grows() {
    let mut deployment = deployment();
    deployment.set_current(Some("1"), &wish(), at(1)).expect("sets");
    let ids: Vec<_> = (0..1_000).map(|n| format!("workflow-{n}")).collect();
    let mut before: Vec<&String> = Vec::new();
    for percentage in [0.0, 10.0, 50.0, 100.0] {
        deployment.set_ramp(to(Some("2"), percentage), &wish(), at(2)).expect("ramps");
        let now = table([deployment.clone()]);
        let ramped: Vec<_> = ids.iter().filter(|id| goes(&now, "q", id).as_deref() == Some("2")).collect();
        let share = ramped.len() as f32 / 10.0;
        assert!((share - percentage).abs() < 4.0, "{share} of {percentage} per cent");
        assert!(before.iter().all(|id| ramped.contains(id)), "who was in stays in");
        before = ramped;
    }
    // 100 x farmhash32("workflow-7") / 2^32, as go-farm computes it.
    let place = 100.0 * f64::from(farmhash::fingerprint32(b"workflow-7")) / 4_294_967_296.0;
    assert!(is_in_ramp("workflow-7", place.ceil() as f32) && !is_in_ramp("workflow-7", place.floor() as f32));
}

#[test]
fn of_two_deployments_on_one_queue_the_one_that_was_changed_last_decides() {
    let (mut old, mut new) = (deployment(), deployment());
    new.name = "e".into();
    old.set_current(Some("1"), &wish(), at(1)).expect("sets");
    new.set_current(Some("2"), &wish(), at(2)).expect("sets");
    assert_eq!(goes(&table([old.clone(), new.clone()]), "q", "w").as_deref(), Some("2"));
    old.set_current(Some("2"), &wish(), at(3)).expect("sets");
    old.set_current(Some("1"), &wish(), at(4)).expect("sets");
    assert_eq!(goes(&table([old.clone(), new.clone()]), "q", "w").as_deref(), Some("1"));
    old.set_current(None, &wish(), at(5)).expect("sets");
    assert_eq!(goes(&table([old, new]), "q", "w").as_deref(), Some("2"), "a version before none");
}

#[test]
fn a_version_is_inactive_ramping_current_draining_and_drained() {
    let status = |deployment: &Deployment, build_id: &str| deployment.versions[build_id].status();
    let mut deployment = deployment();
    assert_eq!(status(&deployment, "1"), Status::Inactive);
    deployment.set_ramp(to(Some("1"), 5.0), &wish(), at(1)).expect("ramps");
    assert_eq!(status(&deployment, "1"), Status::Ramping);
    deployment.set_current(Some("1"), &wish(), at(2)).expect("sets");
    assert_eq!((status(&deployment, "1"), &deployment.ramp), (Status::Current, &None), "its ramp has ended");
    deployment.set_current(Some("2"), &wish(), at(3)).expect("sets");
    assert_eq!((status(&deployment, "1"), status(&deployment, "2")), (Status::Draining, Status::Current));
    let first = deployment.versions.get_mut("1").expect("is there");
    assert!(!first.look(true, at(4)));
    assert!(first.look(false, at(5)));
    assert_eq!((first.status(), first.drainage_changed_at), (Status::Drained, at(5).0));
    assert!(first.look(true, at(6)), "a run was pinned to it");
    assert_eq!(first.status(), Status::Draining);
    deployment.set_current(Some("1"), &wish(), at(7)).expect("sets");
    let first = &deployment.versions["1"];
    assert_eq!((first.status(), first.drainage_changed_at, first.last_deactivated_at), (Status::Current, 0, 0));
    assert_eq!((first.first_activated_at, first.last_current_at), (at(1).0, at(7).0));
}

#[test]
fn changes_that_contradict_what_is_there_are_refused() {
    let mut deployment = deployment();
    deployment.set_current(Some("1"), &wish(), at(1)).expect("sets");
    let before = deployment.clone();
    let unknown = deployment.set_current(Some("9"), &wish(), at(2)).expect_err("is not there");
    assert_eq!(unknown, Refusal::NoVersion { deployment: "d".into(), build_id: "9".into() });
    let current = deployment.set_ramp(to(Some("1"), 10.0), &wish(), at(2)).expect_err("is current");
    assert_eq!(current, Refusal::AlreadyCurrent("d.1".into()));
    let stale = Wish { conflict_token: vec![1], ..wish() };
    assert_eq!(deployment.set_current(Some("2"), &stale, at(2)).expect_err("is stale"), Refusal::Conflict);
    let missing = Wish { missing_queues: true, ..wish() };
    assert!(matches!(deployment.set_current(Some("2"), &missing, at(2)), Err(Refusal::MissingQueues { .. })));
    assert!(matches!(
        deployment.set_ramp(to(Some("2"), 1.0), &missing, at(2)),
        Err(Refusal::MissingQueues { what: "ramping", .. })
    ));
    assert_eq!(deployment, before);
    assert_eq!(deployment.queues_missing_in("2"), [VersionQueue { name: "r".into(), is_activity: false }]);
    let seen = Wish { conflict_token: deployment.conflict_token(), ..wish() };
    deployment.set_current(Some("2"), &seen, at(3)).expect("sets what it saw");
    assert_eq!(deployment.revision, before.revision + 1);
    deployment.set_current(Some("2"), &wish(), at(4)).expect("is no change");
    assert_eq!(deployment.revision, before.revision + 1);
    let early = Wish { allow_no_pollers: true, ..wish() };
    deployment.set_current(Some("9"), &early, at(5)).expect("comes before its workers");
    assert_eq!(deployment.versions["9"].status(), Status::Current);
}
