//! Recorded sessions gone through again, from outside: answered by the record as far as it goes, by a model where one is named,
//! and shims weighed on a model that needs them and on one that does not. On both engines.

use activities::model::scripted::{Script, Server, serve};
use anyhow::{Context as _, ensure};
use domain::fault::{Fault, Point};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::{net::SocketAddr, path::Path};
use steadyhand_tests::{
    client::{Client, LoggedEvent, Mark},
    engines::engine,
    long, on_each_engine,
    service::{Layout, Options, Role, Service},
};
use tokio::net::TcpListener;

/// Two models with a window that is three quarters full after the first turn. From a hand-off both finish; in the full window
/// only the calm one does.
const SCRIPT: &str = r#"
version = 1
[[rules]]
when = { user_contains = "Write the hand-off" }
answer = [{ text = "half of it is done" }]
[[rules]]
when = { user_contains = "half of it is done" }
answer = [{ text = "ALL DONE" }]
[[rules]]
when = { user_contains = "finish", model = "calm" }
answer = [{ text = "ALL DONE" }]
[[rules]]
when = { user_contains = "finish" }
answer = [{ text = "I had better stop here." }]
[[rules]]
usage = { input_tokens = 156000, output_tokens = 5 }
answer = [{ text = "Begun." }]
"#;

/// Fewer could all have turned out one way by chance.
const SESSIONS: usize = 6;

async fn service(fault: Option<Fault>, temporal: Option<SocketAddr>) -> anyhow::Result<(Service, Server)> {
    let script = Script::from_toml(SCRIPT, Path::new("whatif.toml"))?;
    let model = serve(TcpListener::bind("127.0.0.1:0").await?, script)?;
    let options = Options {
        layout: Layout::Split,
        temporal: temporal.map(|addr| (addr, "default".to_owned())),
        // Low, so that what is gone through was sealed in part.
        decisions_per_run: 3,
        fault: fault.map(|fault| (Role::Brain, fault)),
        ..Options::new(model.url())
    };
    Ok((Service::start(options).await?, model))
}

struct Ground {
    client: Client,
    environment: String,
}

impl Ground {
    async fn new(service: &Service) -> anyhow::Result<Self> {
        let client = service.client();
        let environment = client.make("/v1/environments", &json!({"name": "here"})).await?;
        Ok(Ground { client, environment })
    }

    /// Sessions of a model after two turns.
    async fn sessions(&self, model: &str, count: usize) -> anyhow::Result<Vec<String>> {
        let agent = self.client.make("/v1/agents", &json!({"name": model, "model": model})).await?;
        let mut sessions = Vec::new();
        for _ in 0..count {
            let body = json!({"agent": agent, "environment_id": self.environment, "harness": "loop@2"});
            let session = self.client.make("/v1/sessions", &body).await?;
            for (turn, text) in ["begin", "finish"].into_iter().enumerate() {
                self.client.send(&session, text, Mark::IdempotencyKey).await?;
                let ends =
                    move |events: &[LoggedEvent]| events.iter().filter(|event| event.is_idle()).count() == turn + 1;
                self.client.until(&session, ends).await?;
            }
            sessions.push(session);
        }
        Ok(sessions)
    }

    /// Begins a trial and asks until it is over.
    async fn trial(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let (status, mut shown) = self.client.call(Method::POST, path, Some(body)).await?;
        ensure!(status == StatusCode::OK, "{path}: {status}: {shown}");
        let path = format!("{path}/{}", shown["id"].as_str().context("it has an id")?);
        let asking = async {
            while shown["status"] == "running" {
                // An answer waits for the end of the trial by itself; without one, the service is on its way back.
                if let Ok((StatusCode::OK, again)) = self.client.call(Method::GET, &path, None).await {
                    shown = again;
                }
            }
            shown
        };
        tokio::time::timeout(long::patience(), asking).await.context("the trial does not end")
    }

    async fn whatif(&self, session: &str, body: &Value) -> anyhow::Result<Value> {
        let shown = self.trial(&format!("/v1/sessions/{session}/whatif"), body).await?;
        ensure!(shown["status"] == "done", "{shown:#}");
        Ok(shown["report"].clone())
    }
}

async fn a_session_is_gone_through_again(is_temporal: bool) -> anyhow::Result<()> {
    let temporal = engine(is_temporal)?;
    let (mut service, model) = service(None, temporal.as_ref().map(|temporal| temporal.addr)).await?;
    let scenario = async {
        let ground = Ground::new(&service).await?;
        let sessions = ground.sessions("hurried", 1).await?;
        let session = &sessions[0];
        let (before, asked) = (ground.client.events(session).await?, model.count());

        let same = ground.whatif(session, &json!({"turn": 1})).await?;
        ensure!(same["end"]["end"] == "complete" && same["first_step"].is_null(), "{same:#}");
        ensure!(
            same["answered"] == json!({"requests_recorded": 3, "requests_live": 0, "calls_recorded": 0}),
            "{same:#}"
        );
        ensure!(same["totals"]["recorded"] == same["totals"]["tried"] && same["totals"]["turns"] == 2, "{same:#}");
        ensure!(same["unknown"] == json!([]), "{same:#}");

        // Without its shim the second turn begins with another request: nobody knows what was answered to that.
        let off = json!({"turn": 2, "shims_off": ["context-reset"]});
        let stopped = ground.whatif(session, &off).await?;
        ensure!(stopped["end"]["end"] == "request" && stopped["turn"] == 2, "{stopped:#}");
        let purposes = [&stopped["first_step"]["recorded"]["purpose"], &stopped["first_step"]["tried"]["purpose"]];
        ensure!(purposes == ["summary", "answer"], "{stopped:#}");
        ensure!(stopped["unknown"][0].as_str().is_some_and(|text| text.contains("was never made")), "{stopped:#}");
        ensure!(model.count() == asked, "no model was asked");

        // Unless a model is named.
        let price = json!({"input": 1.0, "output": 10.0});
        let mut live = off.clone();
        live["model"] = json!("hurried");
        live["expect"] = json!("ALL DONE");
        live["price"] = price;
        let hurried = ground.whatif(session, &live).await?;
        ensure!(model.count() == asked + 1, "it was asked once");
        let turn = &hurried["turns"][0];
        ensure!(turn["recorded"]["as_expected"] == true && turn["tried"]["as_expected"] == false, "{hurried:#}");
        ensure!(turn["recorded"]["requests"] == 2 && turn["tried"]["requests"] == 1, "{hurried:#}");
        ensure!(turn["recorded"]["cost"].as_f64() > turn["tried"]["cost"].as_f64(), "{hurried:#}");
        live["model"] = json!("calm");
        let calm = ground.whatif(session, &live).await?;
        ensure!(calm["turns"][0]["tried"]["as_expected"] == true && calm["model"] == "calm", "{calm:#}");

        let planned = ground.whatif(session, &json!({"turn": 1, "harness": "plan-act@1"})).await?;
        ensure!(
            planned["first_request"]["tried"]["suffix"] == 1 && planned["harness"]["name"] == "plan-act",
            "{planned:#}"
        );
        let path = format!("/v1/sessions/{session}/whatif");
        let (status, refused) = ground.client.call(Method::POST, &path, Some(&json!({"turn": 3}))).await?;
        ensure!(status == StatusCode::BAD_REQUEST, "{refused:#}");
        ensure!(ground.client.events(session).await? == before, "nothing of it is in the session");
        anyhow::Ok(())
    };
    service.with_logs(scenario.await)?;
    service.rest().await?;
    if !is_temporal {
        service.verify().await?;
    }
    Ok(())
}

async fn a_shim_is_needed_by_one_model_and_dead_weight_on_another(is_temporal: bool) -> anyhow::Result<()> {
    let temporal = engine(is_temporal)?;
    let (service, _model) = service(None, temporal.as_ref().map(|temporal| temporal.addr)).await?;
    let scenario = async {
        let ground = Ground::new(&service).await?;
        for (model, expected) in [("hurried", "needed"), ("calm", "dead_weight")] {
            ground.sessions(model, SESSIONS).await?;
            let body = json!({"model": model, "expect": "ALL DONE", "price": {"input": 1.0, "output": 10.0}});
            let report = ground.trial("/v1/harnesses/loop@2/ablation", &body).await?;
            ensure!(report["status"] == "done" && report["sessions"] == SESSIONS, "{report:#}");
            let shims = report["shims"].as_array().context("there are shims")?;
            for shim in shims {
                let is_it = shim["name"] == "context-reset";
                let verdict = if is_it { expected } else { "dead_weight" };
                ensure!(shim["verdict"] == verdict, "{model}: {shim:#}");
                ensure!(shim["sessions"] == SESSIONS && shim["unfinished"] == 0, "{shim:#}");
                ensure!(shim["changed"] == if is_it { SESSIONS } else { 0 }, "{shim:#}");
            }
        }
        anyhow::Ok(())
    };
    service.with_logs(scenario.await)?;
    service.stop().await.map(drop)
}

/// The worker is killed before it begins and after it ended; whoever takes over ends the trial.
async fn the_worker_dies_on_the_way(is_temporal: bool) -> anyhow::Result<()> {
    for point in [Point::TrialStarted, Point::TrialReported] {
        let temporal = engine(is_temporal)?;
        let fault = Some(Fault { point, nth: 1 });
        let (mut service, _model) = service(fault, temporal.as_ref().map(|temporal| temporal.addr)).await?;
        let scenario = async {
            let ground = Ground::new(&service).await?;
            let sessions = ground.sessions("calm", 1).await?;
            let brain = service.process(Role::Brain)?;
            let body = json!({"turn": 1});
            let trial = ground.whatif(&sessions[0], &body);
            tokio::pin!(trial);
            tokio::select! {
                stopped = brain.stopped() => stopped.context("the moment does not come")?,
                ended = &mut trial => anyhow::bail!("it ended before: {:#}", ended?),
            }
            brain.kill().await?;
            service.start_missing().await?;
            let report = trial.await?;
            ensure!(report["end"]["end"] == "complete", "{report:#}");
            anyhow::Ok(())
        };
        let ended = scenario.await;
        service.with_logs(ended)?;
        service.stop().await?;
    }
    Ok(())
}

on_each_engine![
    a_session_is_gone_through_again,
    a_shim_is_needed_by_one_model_and_dead_weight_on_another,
    the_worker_dies_on_the_way,
];
