//! Recorded sessions gone through again, with a model that the test holds in its hand: what a trial may hold, and for how long.
//! On both engines.

use activities::model::{
    Answer, Cancelled, Failure, FailureClass, Model, OnDelta, Outcome, Request, Timeouts,
    scripted::{Script, Scripted},
};
use anyhow::{Context as _, ensure};
use async_trait::async_trait;
use domain::{
    Status,
    limits::{TRIALS_AT_ONCE, TRIALS_OF_A_WORKER_MAX},
    rollout::Recorded,
    trial::{TrialInput, Tried},
};
use harness::{
    state::Op,
    whatif::{End, Input, Left, OtherModel, Report, Variant},
};
use log::{
    references::Needed,
    trial::{Ended, ended},
};
use serde_json::{Value, json};
use std::{path::Path, sync::Arc, time::Duration};
use steadyhand_tests::{
    bed::{Bed, On, message},
    on_both,
};
use store::Digest;
use temporalio_common::protos::temporal::api::history::v1::history_event::Attributes;
use tokio::sync::mpsc;

const SCRIPT: &str = "version = 1\n[[rules]]\nanswer = [{ text = \"Done.\" }]";
const SESSION: &str = "sesn_trials";
/// As many as would hold every place that a worker has, if trials could.
const TRIALS: usize = 40;

/// Sessions are answered by a script, trials, which name another model, by that model's name.
struct Hand {
    sessions: Scripted,
    /// What trials asked.
    asked: mpsc::UnboundedSender<Value>,
}

#[async_trait]
impl Model for Hand {
    async fn call(&self, request: &Request, on_delta: &mut OnDelta<'_>, cancelled: Cancelled<'_>) -> Outcome {
        let model = request.body["model"].as_str().unwrap_or_default().to_owned();
        if model == "scripted" {
            return self.sessions.call(request, on_delta, cancelled).await;
        }
        let _ = self.asked.send(request.body.clone());
        let busy = |seconds: u64| {
            let retry_after_ms = Some(seconds * 1_000);
            Outcome::Failed(Failure {
                class: FailureClass::RateLimited,
                retry_after_ms,
                message: "busy".to_owned(),
                status: Some(429),
                provider_type: None,
                request_id: None,
                partial: false,
            })
        };
        match model.as_str() {
            "busy" => busy(500),
            "away" => busy(3_600),
            "long" => Outcome::Answer(Answer {
                blocks: vec![json!({"type": "text", "text": format!("{} ALL DONE", "x".repeat(40_000))})],
                stop_reason: "end_turn".to_owned(),
                ..Answer::default()
            }),
            "reaching" => {
                let call = |name: &str, input: Value| json!({"type": "tool_use", "id": format!("toolu_{name}"), "name": name, "input": input});
                let calls = [
                    call("web_fetch", json!({"url": "http://elsewhere.invalid/?what=was+read"})),
                    call("bash", json!({"command": "something new"})),
                ];
                let text = json!({"type": "text", "text": "x".repeat(40_000)});
                let blocks = [text].into_iter().chain(calls).collect();
                Outcome::Answer(Answer { blocks, stop_reason: "tool_use".to_owned(), ..Answer::default() })
            }
            // Silent.
            _ => {
                cancelled.await;
                Outcome::Cancelled
            }
        }
    }
}

/// A bed with a session of two turns, and what its trials ask.
async fn begun(on: On, trials: usize) -> anyhow::Result<(Bed, mpsc::UnboundedReceiver<Value>)> {
    let mut bed = Bed::new(on, SCRIPT).await?;
    bed.stop_brain().await?;
    let (asked, asking) = mpsc::unbounded_channel();
    let sessions = Scripted::new(Script::from_toml(SCRIPT, Path::new("trials.toml"))?, Timeouts::default());
    let options = worker::brain::Options { trials, ..Default::default() };
    bed.start_brain_with(Arc::new(Hand { sessions, asked }), options).await?;
    bed.start(SESSION, vec![message("sevt_1", "one")]).await?;
    turn(&bed, 1).await?;
    bed.post(SESSION, vec![message("sevt_2", "two")]).await?;
    turn(&bed, 2).await?;
    Ok((bed, asking))
}

async fn turn(bed: &Bed, turn: u64) -> anyhow::Result<()> {
    let is_over = |status: Status| status == Status::Idle;
    bed.wait(SESSION, |log| log.summary().is_some_and(|now| now.turn == turn && is_over(now.status))).await.map(drop)
}

fn trial(id: &str, count: usize, model: Option<&str>) -> TrialInput<Input> {
    let model = model.map(|id| OtherModel { id: id.to_owned(), window_tokens: 200_000, max_tokens: 1_000 });
    let one = |at| Input {
        id: format!("{id}-{at}"),
        session: Recorded { session_id: SESSION.to_owned(), sealed: None },
        turn: 1,
        turns: None,
        variant: Variant { model: model.clone(), ..Variant::default() },
        requests_max: 10,
        live: false,
        expect: Some("ALL DONE".to_owned()),
    };
    TrialInput { trial_id: id.to_owned(), trials: (0..count).map(one).collect() }
}

/// Its one outcome.
async fn outcome(bed: &Bed, id: &str) -> anyhow::Result<Tried<Report>> {
    let ending = ended::<Vec<Tried<Report>>>(&*bed.reader, id);
    match tokio::time::timeout(Duration::from_secs(60), ending).await.context("it does not end")?? {
        Ended::Done(mut tried) => tried.pop().context("there is one"),
        Ended::Broken => anyhow::bail!("{id} is broken"),
    }
}

async fn trials_take_no_place_that_a_session_waits_for(on: On) -> anyhow::Result<()> {
    let (bed, mut asking) = begun(on, TRIALS_OF_A_WORKER_MAX).await?;
    for at in 0..TRIALS {
        let id = format!("trial_{at}");
        bed.start_trial(&trial(&id, TRIALS_AT_ONCE, Some("silent"))).await?;
        bed.recorded(&id, |event| matches!(event, Attributes::ActivityTaskScheduledEventAttributes(_))).await?;
    }
    for _ in 0..TRIALS_OF_A_WORKER_MAX {
        asking.recv().await.context("it asks")?;
    }
    bed.post(SESSION, vec![message("sevt_3", "three")]).await?;
    turn(&bed, 3).await.context("the session starves")?;
    ensure!(asking.try_recv().is_err(), "a worker goes through more of them than it may");
    bed.end().await
}

async fn a_trial_that_was_ended_leaves_its_place_in_a_pause(on: On) -> anyhow::Result<()> {
    let (bed, mut asking) = begun(on, 1).await?;
    bed.start_trial(&trial("trial_busy", 1, Some("busy"))).await?;
    asking.recv().await.context("it asks")?;
    bed.terminate("trial_busy").await?;
    bed.start_trial(&trial("trial_same", 1, None)).await?;
    let Tried::Report { report } = outcome(&bed, "trial_same").await? else { anyhow::bail!("no report") };
    ensure!(report.end == End::Complete {} && report.answered.requests_recorded == 2, "{report:#?}");

    // Nor does it keep its place for as long as anybody likes.
    bed.start_trial(&trial("trial_away", 1, Some("away"))).await?;
    let Tried::Failed { why } = outcome(&bed, "trial_away").await? else { anyhow::bail!("a report") };
    ensure!(why == "the model asks to be left alone for 3600 s", "{why}");
    bed.end().await
}

async fn what_a_model_says_to_a_trial_is_kept_nowhere(on: On) -> anyhow::Result<()> {
    let (bed, mut asking) = begun(on, 1).await?;
    let kept = async || {
        let listed = bed.blobs.list(None, 10_000).await?;
        anyhow::Ok(listed.into_iter().map(|blob| blob.digest).collect::<Vec<Digest>>())
    };
    let before = kept().await?;
    bed.start_trial(&trial("trial_long", 1, Some("long"))).await?;
    let Tried::Report { report } = outcome(&bed, "trial_long").await? else { anyhow::bail!("no report") };
    ensure!(report.end == End::Complete {} && report.answered.requests_live == 2, "{report:#?}");
    for pair in &report.turns {
        let tried = pair.tried.as_ref().context("it was gone through")?;
        ensure!(tried.as_expected == Some(true) && pair.recorded.as_expected == Some(false), "{report:#?}");
    }
    asking.recv().await.context("it asks")?;
    let second = asking.recv().await.context("it asks twice")?;
    ensure!(second.to_string().contains(&"x".repeat(40_000)), "what was said is part of what is asked next");
    ensure!(kept().await? == before, "something of it was stored");
    bed.end().await
}

/// Nobody has asked for the report by then, and a session made of it is a session as any other.
async fn what_a_live_trial_leaves_is_whole_and_no_more_than_is_allowed(on: On) -> anyhow::Result<()> {
    let (bed, _asking) = begun(on, 1).await?;
    let mut live = trial("trial_live", 1, Some("reaching"));
    live.trials[0].live = true;
    bed.start_trial(&live).await?;
    let Tried::Report { report } = outcome(&bed, "trial_live").await? else { anyhow::bail!("no report") };
    ensure!(report.end == End::Call { turn: 1, round: 1, name: "bash".into() }, "{report:#?}");
    let left: Left = log::blobs::get_json(&*bed.blobs, report.left.as_ref().context("it is left")?).await?;
    let executed = left.state.pending.iter().filter_map(|pending| match &pending.op {
        Op::Execute { call } => Some(call.name.as_str()),
        _ => None,
    });
    ensure!(executed.eq(["bash"]), "a page that nobody named is not fetched, here neither: {:#?}", left.state.pending);
    let mut needed = Needed::default();
    left.commits.iter().for_each(|committed| needed.commit(committed));
    needed.summary(&left.state.summary);
    needed.resolve(&*bed.blobs).await?;
    for digest in &needed.blobs {
        ensure!(bed.blobs.has(*digest).await?.is_some(), "{digest} is not kept");
    }
    let kept: Vec<Digest> = left.kept.iter().map(|kept| kept.blob.parse()).collect::<Result<_, _>>()?;
    let own = &bed.attributes(200_000).await?.agent.snapshot.blob.parse()?;
    ensure!(kept.len() >= 2, "the long answer and the agent of that model: {kept:?}");
    ensure!(needed.blobs.iter().all(|digest| digest == own || kept.contains(digest)), "and nobody else refers to them");
    bed.end().await
}

on_both!(
    what_a_live_trial_leaves_is_whole_and_no_more_than_is_allowed,
    trials_take_no_place_that_a_session_waits_for,
    a_trial_that_was_ended_leaves_its_place_in_a_pause,
    what_a_model_says_to_a_trial_is_kept_nowhere,
);
