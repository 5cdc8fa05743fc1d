//! Rollouts, as far as the api goes: what is refused, what a new session is given, what is told to whom.

use domain::Time;
use domain::rollout::{Command, Mail, Order, signal};
use harness::rollout::{Intake, Rollout, is_among};
use serde_json::{Value, json};

use super::{Api, id};
use crate::resources::rollouts;

/// What new sessions are given.
async fn given(api: &Api, with: &Value) -> (String, String) {
    let session = id(&api.session(with.clone()).await);
    let harness = serde_json::to_value(api.engine.input(&session)).unwrap()["harness"].clone();
    (session, format!("{}@{}", harness["name"].as_str().unwrap(), harness["version"]))
}

impl Api {
    /// Lets a rollout decide, as its workflow would.
    async fn decided(&self, rollout: &str, before: Option<Rollout>) -> Rollout {
        let before = match before {
            Some(state) => state,
            None => {
                let input = serde_json::to_value(self.engine.input_of(rollout)).unwrap();
                let spec = serde_json::from_value(input["spec"].clone()).unwrap();
                Rollout::created(rollout, Time::from_ms(0), spec)
            }
        };
        let state = before.decided(Intake { now: Time::from_ms(1), ..Intake::default() });
        self.engine.mark(rollout, &state);
        state
    }
}

#[tokio::test]
async fn a_share_of_new_sessions_gets_the_new_version() {
    let api = Api::new().await;
    let body = json!({"from": "loop@1", "to": "loop@2", "stages": [30, 100]});
    let made = api.post("/v1/harness_rollouts", &body).await.ok();
    let rollout = id(&made);
    assert_eq!(
        (&made["status"], &made["percent"], &made["gate"]["sessions"]),
        (&json!("gating"), &json!(0), &json!(0))
    );
    assert_eq!(given(&api, &json!({})).await.1, "loop@1", "before the gate nobody gets it");
    api.decided(&rollout, None).await;
    let shown = api.get(&format!("/v1/harness_rollouts/{rollout}")).await.ok();
    assert_eq!((&shown["status"], &shown["percent"]), (&json!("ramping"), &json!(30)));
    let mut counts = (0, 0);
    for _ in 0..40 {
        let (session, harness) = given(&api, &json!({})).await;
        let expected = if is_among(&session, 30) { "loop@2" } else { "loop@1" };
        assert_eq!(harness, expected, "{session}");
        counts = if expected == "loop@2" { (counts.0, counts.1 + 1) } else { (counts.0 + 1, counts.1) };
    }
    // Which of the two is exact, by the session's id, and ids are random: of 40 none is either with a chance below one in a million.
    assert!(counts.0 > 0 && counts.1 > 0, "{counts:?}");
    assert_eq!(given(&api, &json!({"harness": "loop@1"})).await.1, "loop@1", "what was asked for by name is given");
    assert_eq!(given(&api, &json!({"harness": "plan-act@1"})).await.1, "plan-act@1");
    assert_eq!(api.get("/v1/harness_rollouts").await.ok()["data"][0]["id"], json!(rollout));

    // Nothing is behind these sessions yet, so there is nothing to tell.
    rollouts::round(&api.app).await.unwrap();
    assert!(api.engine.signals(&rollout, signal::OBSERVED).is_empty());
}

#[tokio::test]
async fn where_a_promoted_rollout_leads_is_the_default_from_then_on() {
    let api = Api::new().await;
    let default = async |api: &Api| {
        let listed = api.get("/v1/harnesses").await.ok();
        let harnesses = listed["data"].as_array().unwrap();
        let ids: Vec<Value> =
            harnesses.iter().filter(|it| it["is_default"] == true).map(|it| it["id"].clone()).collect();
        assert_eq!(ids.len(), 1, "{listed}");
        ids[0].as_str().unwrap().to_owned()
    };
    assert_eq!(default(&api).await, "loop@1");
    let rollout = id(&api.post("/v1/harness_rollouts", &json!({"from": "loop@1", "to": "loop@2"})).await.ok());
    let ramping = api.decided(&rollout, None).await;
    assert_eq!(default(&api).await, "loop@1", "a part of the sessions is not all of them");
    let command = Command { id: "a".to_owned(), to: Order::Promote };
    let mail = vec![Mail::Command { command }];
    let promoted = ramping.decided(Intake { now: Time::from_ms(2), mail, ..Intake::default() });
    api.engine.mark(&rollout, &promoted);
    let shown = api.get(&format!("/v1/harness_rollouts/{rollout}")).await.ok();
    assert_eq!(shown["status"], "promoted");
    assert_eq!(default(&api).await, "loop@2");
    assert_eq!(given(&api, &json!({})).await.1, "loop@2");
}

#[tokio::test]
async fn an_order_is_a_signal_and_is_followed_when_somebody_decides() {
    let api = Api::new().await;
    let rollout = id(&api.post("/v1/harness_rollouts", &json!({"from": "loop@1", "to": "loop@2"})).await.ok());
    let path = |order: &str| format!("/v1/harness_rollouts/{rollout}/{order}");
    let early = api.act(&path("promote")).await.refused(409, "conflict_error");
    assert_eq!(early, "the gate is not passed: nothing is promoted before it is; possible now: pause or rollback");
    api.act(&path("explode")).await.refused(404, "not_found_error");
    let paused = api.act(&path("pause")).await.ok();
    assert_eq!(paused["order"]["is_followed"], false, "no worker is there");
    let signals = api.engine.signals(&rollout, signal::COMMAND);
    assert_eq!(signals[0]["to"], json!(Order::Pause));
    api.get("/v1/harness_rollouts/rollout_none").await.refused(404, "not_found_error");
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let api = Api::new().await;
    let with = |name: &str, value: Value| {
        let mut body = json!({"from": "loop@1", "to": "loop@2"});
        body[name] = value;
        body
    };
    for (name, value, why) in [
        ("to", json!("loop@1"), "to: is the same harness as from: loop@1"),
        ("watch", json!({"alpha": 0.7}), "watch.alpha: must be above 0 and below 0.5"),
        ("watch", json!({"sessions_min": 0}), "watch.sessions_min: must be at least 1"),
        ("gate", json!({"sessions": 1001}), "gate.sessions: must be at most 1000"),
    ] {
        assert_eq!(api.post("/v1/harness_rollouts", &with(name, value)).await.invalid(), why);
    }
    for stages in [json!([]), json!([100]), json!([50, 10]), json!([10, 10]), json!([0, 10]), json!([10, 101])] {
        let why = api.post("/v1/harness_rollouts", &with("stages", stages.clone())).await.invalid();
        assert!(why.starts_with("stages: must be at most 20 percentages"), "{stages}: {why}");
    }
    api.post("/v1/harness_rollouts", &with("to", json!("loop@9"))).await.refused(404, "not_found_error");
    api.post("/v1/harness_rollouts", &with("agent", json!("agent_1"))).await.ok();
    api.post("/v1/harness_rollouts", &with("agent", json!("agent_2"))).await.ok();
    let meets = api.post("/v1/harness_rollouts", &with("live", json!(true))).await.refused(409, "conflict_error");
    assert!(meets.contains("is under way for the same sessions"), "{meets}");
}

#[tokio::test]
async fn a_rollout_whose_start_was_lost_is_found_or_forgotten() {
    let api = Api::new().await;
    let body = json!({"from": "loop@1", "to": "loop@2"});
    api.engine.fail("StartWorkflowExecution", temporalio_client::tonic::Status::unavailable("away"));
    api.post("/v1/harness_rollouts", &body).await.refused(503, "api_error");
    api.engine.recover();
    assert!(rollouts::round(&api.app).await.unwrap().is_empty(), "it never started");
    let again = api.post("/v1/harness_rollouts", &body).await.ok();
    assert_eq!(rollouts::round(&api.app).await.unwrap(), [id(&again)]);
}
