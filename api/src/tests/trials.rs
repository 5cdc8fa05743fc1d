//! What-ifs and ablations with a model: what is refused before it costs anything, how many there may be, and what is known of one
//! whose start went wrong.

use domain::Time;
use domain::content::BlobRef;
use domain::limits::{PAYLOAD_BYTES_MAX, TRIAL_EXPECT_BYTES_MAX, TRIALS_OF_A_TENANT_MAX};
use domain::trial::Tried;
use harness::whatif::{Answered, End, Left, Report};
use harness::{SessionState, kit, registry};
use jiff::{SignedDuration, Timestamp};
use log::ClaimCheck;
use serde_json::{Value, json};
use store::{Direction, KeyRange};
use temporalio_client::tonic::Status;
use temporalio_common::protos::temporal::api::common::v1::{Payload, Payloads};

use super::events::user;
use super::{Api, id};
use crate::resources::trials::{self, TrialRow};
use crate::tenants::Tenants;
use crate::upkeep;

const START: &str = "StartWorkflowExecution";
const ABLATION: &str = "/v1/harnesses/loop@2/ablation";

/// An api with a session in its first turn, and the path of its what-ifs.
async fn begun(harness: &str) -> (Api, String) {
    let api = Api::new().await;
    let session = id(&api.session(json!({"harness": harness, "initial_events": [user("the task")]})).await);
    api.decide(&session);
    api.app.session(&session).keep().await.unwrap();
    (api, format!("/v1/sessions/{session}/whatif"))
}

impl Api {
    /// Begins a trial and does not wait for what comes of it.
    async fn begin(&self, path: &str, body: &Value) -> String {
        let known = self.trials();
        tokio::select! {
            answer = self.post(path, body) => panic!("{}", answer.json()),
            started = self.engine.started("trial_", known.len() + 1) => {
                started.into_iter().find(|id| !known.contains(id)).unwrap()
            }
        }
    }

    fn trials(&self) -> Vec<String> {
        self.engine.sessions().into_iter().filter(|id| id.starts_with("trial_")).collect()
    }

    async fn rows(&self) -> Vec<String> {
        let rows = self.app.catalog.rows::<TrialRow>(KeyRange::all(), Direction::Forward, 100).await.unwrap();
        rows.into_iter().map(|read| read.row.id).collect()
    }

    async fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        trials::verify(&*self.app.catalog, &mut problems).await.unwrap();
        problems
    }
}

#[tokio::test]
async fn what_would_be_of_no_use_is_refused_before_it_costs_anything() {
    let (api, whatif) = begun("loop@2").await;
    let starts = api.engine.calls(START);
    let long = "x".repeat(TRIAL_EXPECT_BYTES_MAX + 1);
    for (path, body, why) in [
        (ABLATION, json!({"model": "m", "turns": 0}), "turns: must be at least 1"),
        ("/v1/harnesses/loop@1/ablation", json!({"model": "m"}), "loop@1 has no shims that could be switched off"),
        (ABLATION, json!({"model": "m", "expect": long}), "expect: must be at most 4096 bytes"),
        (ABLATION, json!({"model": long}), "model: must be at most 256 bytes"),
        (&whatif, json!({"turn": 1, "expect": long}), "expect: must be at most 4096 bytes"),
        (&whatif, json!({"turn": 1, "model": long}), "model: must be at most 256 bytes"),
        (&whatif, json!({"turn": 1, "model": " "}), "model: must not be empty"),
        (
            &whatif,
            json!({"turn": 1, "harness": "plan-act@1", "shims_off": ["context-reset"]}),
            "shims_off: plan-act@1 has no shims",
        ),
    ] {
        assert_eq!(api.post(path, &body).await.invalid(), why);
    }
    let own = api.post(&whatif, &json!({"turn": 1, "shims_off": ["context-reset", "no such"]})).await.invalid();
    assert!(own.starts_with("shims_off: loop@2 has the shims ") && own.contains("context-reset"), "{own}");
    assert_eq!((api.engine.calls(START), api.rows().await), (starts, vec![]));
}

#[tokio::test]
async fn a_shim_is_switched_off_once_however_often_it_is_named() {
    let (api, whatif) = begun("loop@2").await;
    let off = vec!["context-reset"; 1_000];
    let trial = api.begin(&whatif, &json!({"turn": 1, "shims_off": off})).await;
    assert_eq!(api.engine.input_of(&trial)["trials"][0]["variant"]["shims_off"], json!(["context-reset"]));
    let row = api.app.catalog.row::<TrialRow>(&trial).await.unwrap().unwrap().row;
    assert_eq!(row.asked["shims_off"], json!(["context-reset"]));
}

#[tokio::test]
async fn a_tenant_has_so_many_trials_at_a_time() {
    let (api, whatif) = begun("loop@1").await;
    let body = json!({"turn": 1});
    let mut trials = Vec::new();
    for _ in 0..TRIALS_OF_A_TENANT_MAX {
        trials.push(api.begin(&whatif, &body).await);
    }
    for (path, body) in [(&*whatif, &body), (ABLATION, &json!({"model": "m"}))] {
        let refused = api.post(path, body).await;
        assert_eq!(refused.headers["retry-after"], "30");
        let why = refused.refused(429, "rate_limit_error");
        assert_eq!(why, "8 what-ifs and ablations are under way: wait for one to be over");
    }
    assert_eq!(api.rows().await.len(), TRIALS_OF_A_TENANT_MAX);
    api.engine.complete_with(&trials[3], &json!([{"outcome": "failed", "why": "for a test"}]));
    let next = api.begin(&whatif, &body).await;
    api.post(&whatif, &body).await.refused(429, "rate_limit_error");
    // A place is left by whoever is forgotten, too.
    api.clock.advance(SignedDuration::from_hours(8 * 24));
    let now = crate::time::Clock::now(&*api.clock);
    assert_eq!(trials::forget(&api.app, now).await.unwrap(), TRIALS_OF_A_TENANT_MAX as u64 + 1);
    assert!(!api.trials().contains(&next));
    api.begin(&whatif, &body).await;
    assert_eq!(api.problems().await, [""; 0]);
}

#[tokio::test]
async fn a_trial_whose_start_was_not_heard_of_is_kept() {
    let (api, whatif) = begun("loop@1").await;
    api.engine.lose_answers(START);
    let unheard = api.post(&whatif, &json!({"turn": 1, "model": "m"})).await;
    assert_eq!(unheard.headers["x-should-retry"], "false", "it would be begun twice");
    let trial = api.trials().pop().expect("it was begun");
    let told = unheard.json()["error"]["details"]["trial_id"].clone();
    let why = unheard.refused(503, "api_error");
    assert_eq!((why, told), (format!("whether {trial} has begun is not known: ask for it"), json!(trial)));
    api.engine.recover();
    api.engine.complete_with(&trial, &json!([{"outcome": "failed", "why": "for a test"}]));
    let found = api.get(&format!("{whatif}/{trial}")).await.ok();
    assert_eq!((&found["status"], &found["error"]), (&json!("failed"), &json!("for a test")));

    // What was certainly refused leaves nothing.
    api.engine.fail(START, Status::invalid_argument("no"));
    api.post(&whatif, &json!({"turn": 1})).await.refused(500, "api_error");
    assert_eq!(api.rows().await, [trial]);
    assert_eq!(api.problems().await, [""; 0]);
}

#[tokio::test]
async fn a_large_report_is_kept_as_long_as_the_trial() {
    let (api, whatif) = begun("loop@1").await;
    let trial = api.begin(&whatif, &json!({"turn": 1})).await;
    let why = "x".repeat(PAYLOAD_BYTES_MAX);
    let data = serde_json::to_vec(&json!([{"outcome": "failed", "why": why}])).unwrap();
    let metadata = [("encoding".to_owned(), b"json/plain".to_vec())].into();
    let payload = Payload { metadata, data, ..Payload::default() };
    let claim = ClaimCheck::new(api.app.blobs.clone()).check(payload).await.unwrap();
    api.engine.complete_as(&trial, Payloads { payloads: vec![claim] });

    let tenants = Tenants::new(api.app.clone());
    let hours = async |hours: i64| {
        let now = Timestamp::now() + SignedDuration::from_hours(hours);
        upkeep::round(&tenants, Timestamp::MAX, now).await.unwrap().expect("everything can be read").blobs
    };
    assert_eq!(hours(2).await, 0);
    let found = api.get(&format!("{whatif}/{trial}")).await.ok();
    assert_eq!(found["error"].as_str().map(str::len), Some(PAYLOAD_BYTES_MAX));
    assert_eq!(api.problems().await, [""; 0]);
    assert_eq!(hours(8 * 24).await, 1);
    api.get(&format!("{whatif}/{trial}")).await.refused(404, "not_found_error");
}

/// Nobody has asked for the report yet, so no session refers to it.
#[tokio::test]
async fn what_a_session_can_go_on_from_is_kept_as_long_as_the_trial() {
    let (api, whatif) = begun("loop@1").await;
    let trial = api.begin(&whatif, &json!({"turn": 1, "model": "m", "live": true})).await;
    let answer = api.app.blobs.put("a long answer".into()).await.unwrap();
    let kept = BlobRef { blob: answer.to_string(), bytes: 13 };
    let state = SessionState::created(kit::SESSION, Time::from_ms(0), kit::attributes(), registry::default_harness());
    let left = Left {
        began: state.clone(),
        state,
        commits: Vec::new(),
        inputs: Vec::new(),
        recorded: Vec::new(),
        kept: vec![kept],
    };
    let left = log::blobs::put_json(&*api.app.blobs, &left).await.unwrap();
    let report = Report {
        session_id: kit::SESSION.to_owned(),
        turn: 1,
        position: 0,
        harness: registry::default_harness(),
        model: "m".to_owned(),
        strategy: kit::attributes().agent.strategy,
        strategies: Vec::new(),
        shims_off: Vec::new(),
        turns: Vec::new(),
        totals: None,
        same_steps: 0,
        first_step: None,
        first_request: None,
        answered: Answered::default(),
        end: End::Call { turn: 1, round: 1, name: "bash".to_owned() },
        left_out: 0,
        left: Some(left.clone()),
    };
    api.engine.complete_with(&trial, &json!([Tried::Report { report }]));

    let tenants = Tenants::new(api.app.clone());
    let hours = async |hours: i64| {
        let now = Timestamp::now() + SignedDuration::from_hours(hours);
        upkeep::round(&tenants, Timestamp::MAX, now).await.unwrap().expect("everything can be read").blobs
    };
    assert_eq!(hours(2).await, 0);
    for digest in [answer, left.blob.parse().unwrap()] {
        assert!(api.app.blobs.has(digest).await.unwrap().is_some());
    }
    assert_eq!(api.problems().await, [""; 0]);
    assert_eq!(hours(8 * 24).await, 2);
}
