//! How fast recorded decisions are made again, by a harness of this build and by one that is a module: one thread, no engine and
//! no disk.

use crate::{clock, metric::Metric};
use anyhow::{Context as _, ensure};
use harness::{
    frame::Ask,
    kit::{self, Session},
    registry,
    replay::{Recording, With, judge, replay},
    state::Op,
    wasm::WasmHarness,
};
use std::{sync::Arc, time::Duration};

const DECISIONS: u64 = 10_000;
/// Rounds of a session, each of a request and a call of a tool.
const ROUNDS: usize = 250;
const MODULE: &[u8] = include_bytes!("../../../../examples/harness-rust/patient.wasm");

/// Sessions of long turns, until there are enough decisions.
fn recorded() -> anyhow::Result<Vec<Recording>> {
    let harness = registry::named("loop", 1).context("loop@1 is in this build")?.reference();
    let (mut recordings, mut decisions) = (Vec::new(), 0);
    while decisions < DECISIONS {
        let mut session = Session::new(kit::attributes(), harness.clone());
        session.message("the long task");
        session.settle();
        let mut rounds = 0;
        while let Some((activity, op)) = session.flying.first().cloned() {
            match op {
                Op::CallModel { .. } if rounds < ROUNDS => {
                    rounds += 1;
                    session.model_answers(&activity, "looking", &["bash"]);
                }
                Op::CallModel { .. } => session.model_answers(&activity, "done", &[]),
                Op::Provision { hand, .. } => session.hand_is_ready(&activity, &hand),
                Op::Execute { call } => session.tool_returns(&activity, &call, "output", false),
                Op::Collect { .. } => session.collected(&activity),
                other => anyhow::bail!("a plain turn has no {other:?}"),
            }
            session.settle();
        }
        decisions += session.commits.iter().filter(|(commit, _)| commit.view_hash.is_some()).count() as u64;
        recordings.push(session.recording());
    }
    Ok(recordings)
}

pub async fn decisions() -> anyhow::Result<Vec<Metric>> {
    tokio::task::spawn_blocking(|| {
        let recordings = recorded()?;
        let begun = clock::now();
        let mut native = 0;
        for recording in &recordings {
            let mut own = |wanted: &_| registry::find(wanted).map(|found| Box::new(found) as Box<dyn Ask>);
            let report = replay(recording, With::Own(&mut own))?;
            ensure!(report.divergence.is_none(), "it decides otherwise: {:?}", report.divergence);
            native += report.decisions;
        }
        let native_took = clock::now().saturating_sub(begun);

        let mut module = Arc::new(WasmHarness::admit(MODULE)?);
        let reference = module.reference();
        let begun = clock::now();
        let mut wasm = 0;
        for recording in &recordings {
            let judged = judge(recording, &reference, &mut module)?;
            ensure!(judged.broken.is_none(), "it breaks: {:?}", judged.broken);
            wasm += judged.decisions;
        }
        let wasm_took = clock::now().saturating_sub(begun);
        ensure!(native >= DECISIONS && wasm == native, "{native} and {wasm} decisions");
        Ok(vec![
            rate("replay_decisions_per_s", native, native_took),
            rate("replay_wasm_decisions_per_s", wasm, wasm_took),
        ])
    })
    .await?
}

fn rate(name: &'static str, decisions: u64, took: Duration) -> Metric {
    Metric::new(name, decisions as f64 / took.as_secs_f64(), "1/s")
}
