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
    transcript::check_log,
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
    service_of(SCRIPT, fault, temporal).await
}

async fn service_of(
    script: &str,
    fault: Option<Fault>,
    temporal: Option<SocketAddr>,
) -> anyhow::Result<(Service, Server)> {
    let script = Script::from_toml(script, Path::new("whatif.toml"))?;
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
    let (service, model) = service(None, temporal.as_ref().map(|temporal| temporal.addr)).await?;
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
        ensure!(stopped["first_step"]["changes"] == stopped["first_request"]["changes"], "{stopped:#}");
        let change = &stopped["first_request"]["changes"]["shown"][0];
        ensure!(change["at"].as_str().is_some_and(|at| at.starts_with("messages[")), "{stopped:#}");
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
        // What it adds, and nothing else.
        let shown = planned["first_request"]["changes"]["shown"].as_array().context("both sides make a request")?;
        let added = shown.iter().find(|change| change["recorded"].is_null()).context("it adds a message")?;
        ensure!(added["tried"].as_str().is_some_and(|text| text.contains("plan")), "{planned:#}");
        let path = format!("/v1/sessions/{session}/whatif");
        let (status, refused) = ground.client.call(Method::POST, &path, Some(&json!({"turn": 3}))).await?;
        ensure!(status == StatusCode::BAD_REQUEST, "{refused:#}");
        ensure!(ground.client.events(session).await? == before, "nothing of it is in the session");
        anyhow::Ok(())
    };
    let ended = scenario.await;
    service.finish(ended).await
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
    let ended = scenario.await;
    service.finish(ended).await
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
        service.finish(ended).await?;
    }
    Ok(())
}

/// Two models: both look, and beside that the eager one does something that the other one did not.
const EAGER: &str = r#"
version = 1
[[rules]]
when = { user_contains = "go on" }
answer = [{ text = "Gone on." }]
[[rules]]
when = { results = 0 }
answer = [{ text = "To work." }, { tool = "bash", input = { command = "echo one >> counter" } }]
[[rules]]
when = { results = 1, model = "eager" }
answer = [
    { tool = "bash", input = { command = "wc -l < counter" } },
    { tool = "bash", input = { command = "echo two >> counter; cat counter" } },
]
[[rules]]
when = { results = 1 }
answer = [{ tool = "bash", input = { command = "wc -l < counter" } }]
[[rules]]
answer = [{ text = "Said: {{result}}" }]
"#;

async fn at_the_first_new_call_a_fork_goes_on(is_temporal: bool) -> anyhow::Result<()> {
    let temporal = engine(is_temporal)?;
    let addr = temporal.as_ref().map(|temporal| temporal.addr);
    let (service, model) = service_of(EAGER, None, addr).await?;
    let scenario = async {
        let ground = Ground::new(&service).await?;
        let client = &ground.client;
        let session = client.session().await?;
        let rests =
            |count: usize| move |events: &[LoggedEvent]| events.iter().filter(|event| event.is_idle()).count() == count;
        for (turn, text) in ["begin", "go on"].into_iter().enumerate() {
            client.send(&session, text, Mark::IdempotencyKey).await?;
            client.until(&session, rests(turn + 1)).await?;
        }
        let (before, asked) = (client.events(&session).await?, model.count());
        let path = format!("/v1/sessions/{session}/whatif");
        let (status, refused) = client.call(Method::POST, &path, Some(&json!({"turn": 1, "live": true}))).await?;
        ensure!(status == StatusCode::BAD_REQUEST, "it takes a model: {refused:#}");

        // As it was so far: it stops where the call is new.
        let stops = ground.whatif(&session, &json!({"turn": 1, "model": "eager"})).await?;
        ensure!(stops["end"]["end"] == "call" && stops["end"]["round"] == 2, "{stops:#}");
        ensure!(service.effects() == 1, "no tool was run");

        let shown = ground.trial(&path, &json!({"turn": 1, "model": "eager", "live": true})).await?;
        ensure!(shown["status"] == "done", "{shown:#}");
        let report = &shown["report"];
        ensure!(report["end"]["end"] == "went_on" && report["end"]["waits"] == false, "{report:#}");
        let fork = report["end"]["session_id"].as_str().context("it names its session")?;
        let answered = json!({"requests_recorded": 0, "requests_live": 4, "calls_recorded": 2, "calls_live": 1});
        ensure!(report["answered"] == answered, "{report:#}");
        ensure!(report["turns"].as_array().map(Vec::len) == Some(2) && report["totals"]["turns"] == 2, "{report:#}");
        ensure!(
            report["turns"][0]["tried"]["calls"] == 3 && report["turns"][0]["recorded"]["calls"] == 2,
            "{report:#}"
        );
        ensure!(report["first_step"]["tried"]["step"] == "execute", "{report:#}");
        let unknown = report["unknown"].to_string();
        ensure!(unknown.contains("made anew") && unknown.contains(fork), "{unknown}");
        ensure!(model.count() == asked + 2 + 4, "{} requests", model.count() - asked);

        // It is a session as any other: what it was given, what it did, and what became of both.
        let events = client.events(fork).await?;
        check_log(client, fork, &events).await?;
        let said: Vec<String> =
            events.iter().filter(|event| event.kind == "agent.message").map(LoggedEvent::text).collect();
        let [begun, heard, ended] = &said[..] else { anyhow::bail!("{said:?}") };
        ensure!((begun.as_str(), ended.as_str()) == ("To work.", "Gone on."), "{said:?}");
        let found: Vec<&str> = heard.trim_start_matches("Said: ").lines().filter(|line| !line.is_empty()).collect();
        ensure!(found == ["1", "two"], "what was recorded, and what its own sandbox says: {heard:?}");
        ensure!(service.effects() == 2, "the recorded calls were not made again");
        ensure!(client.events(&session).await? == before, "nothing of it is in the session");
        let get = |path: String| async move { client.ok(Method::GET, &path, None).await };
        let replayed = get(format!("/v1/sessions/{fork}/replay")).await?;
        ensure!(replayed["identical"] == true, "{replayed:#}");
        for turn in [1, 2] {
            let context = get(format!("/v1/sessions/{fork}/context?turn={turn}")).await?;
            ensure!(context["is_as_sent"] == true, "{context:#}");
        }
        // Asked for again it is the same, and made once.
        let id = shown["id"].as_str().context("it has an id")?;
        ensure!(get(format!("{path}/{id}")).await? == shown, "the report does not change");
        ensure!(client.events(fork).await? == events && service.effects() == 2);
        let second = client.make(&format!("/v1/sessions/{fork}/fork"), &json!({"at": events.len() - 1})).await?;
        client.send(&second, "go on", Mark::IdempotencyKey).await?;
        let rest = |events: &[LoggedEvent]| {
            events.iter().filter(|event| event.text() == "go on").count() == 2
                && events.last().is_some_and(LoggedEvent::is_idle)
        };
        client.until(&second, rest).await?;
        let replayed = get(format!("/v1/sessions/{second}/replay")).await?;
        ensure!(replayed["identical"] == true, "{replayed:#}");
        client.delete(&session).await?;
        ensure!(client.events(fork).await? == events, "it outlives the session that it was made from");
        anyhow::Ok(())
    };
    let ended = scenario.await;
    service.finish(ended).await
}

on_each_engine![
    a_session_is_gone_through_again,
    a_shim_is_needed_by_one_model_and_dead_weight_on_another,
    at_the_first_new_call_a_fork_goes_on,
    the_worker_dies_on_the_way,
];
