//! A turn is one trace: the request that began it, the brain's decisions and model calls, the hand's tool calls. Checked
//! at a real collector, over processes that share nothing but the log, on both engines.

use activities::model::scripted::{Script, serve};
use anyhow::{Context as _, ensure};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::{Duration, Instant},
};
use steadyhand_tests::{
    bed,
    client::{LoggedEvent, Mark},
    collector::{Collector, Span},
    engines::Temporal,
    service::{Layout, Options, Service},
};
use tokio::net::TcpListener;

const SCRIPT: &str = r#"
version = 1
[[rules]]
when = { results = 0 }
answer = [{ text = "canary-thought" }, { tool = "bash", input = { command = "sleep 0.3; echo canary-command; false" } }]
[[rules]]
answer = [{ text = "canary-answer" }]
"#;
/// Message, answers, tool input and tool output.
const CANARY: &str = "canary";
const TOOL_TIME: Duration = Duration::from_millis(300);
const TURNS: usize = 2;

const ROOT: &str = "POST /v1/sessions/{session_id}/events";
const TURN: &str = "invoke_agent";
const TOOL: &str = "execute_tool bash";
const MODEL: &str = "chat scripted";

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_is_one_trace_embedded() -> anyhow::Result<()> {
    a_turn_is_one_trace(Layout::One, None).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_is_one_trace_on_temporal() -> anyhow::Result<()> {
    let server = Temporal::start(None)?;
    a_turn_is_one_trace(Layout::Split, Some(&server)).await
}

async fn a_turn_is_one_trace(layout: Layout, temporal: Option<&Temporal>) -> anyhow::Result<()> {
    let collector = Collector::start()?;
    let model = serve(TcpListener::bind("127.0.0.1:0").await?, Script::from_toml(SCRIPT, Path::new("traces.toml"))?)?;
    let temporal = temporal.map(|server| (server.addr, bed::NAMESPACE.to_owned()));
    let options = Options { layout, temporal, ..Options::new(model.url()) };
    let begun = Instant::now();
    let mut service = Service::start_traced(options, Some(collector.url.clone())).await?;
    let turned = turns(&mut service, &collector).await;
    let session = service.with_logs(turned)?;
    // What waited is sent at the end.
    service.stop().await?;
    let elapsed = begun.elapsed();
    let spans =
        collector.until(|spans| named(spans, TURN).count() == TURNS && named(spans, "collect").count() == TURNS);
    let spans = spans.await?;

    ensure!(!collector.text().contains(CANARY), "what was said left the process: {:#?}", collector.spans());
    let unique: BTreeSet<_> = spans.iter().map(|span| (&span.trace, &span.id)).collect();
    ensure!(unique.len() == spans.len(), "a span was sent twice, by replay perhaps: {spans:#?}");
    let mut traces = BTreeMap::<&str, Vec<&Span>>::new();
    for span in &spans {
        traces.entry(&span.trace).or_default().push(span);
    }
    let works = |span: &&&Span| !span.name.starts_with("POST ") && !span.name.starts_with("GET ");
    traces.retain(|_, spans| spans.iter().any(|span| works(&span)));
    ensure!(traces.len() == TURNS, "{} traces of {TURNS} turns: {traces:#?}", traces.len());
    let mut provisioned = 0;
    for trace in traces.values() {
        check(trace, &session, layout, elapsed).with_context(|| format!("{trace:#?}"))?;
        provisioned += trace.iter().filter(|span| span.name == "provision").count();
    }
    ensure!(provisioned == 1, "the hand of the session was made {provisioned} times");
    Ok(())
}

/// Two turns, and between them everything is killed, so that the second one begins with a replay of the first.
async fn turns(service: &mut Service, collector: &Collector) -> anyhow::Result<String> {
    let client = service.client();
    let session = client.session().await?;
    for turn in 1..=TURNS {
        client.send(&session, &format!("{CANARY} {turn}"), Mark::IdempotencyKey).await?;
        let idle = |events: &[LoggedEvent]| events.iter().filter(|event| event.is_idle()).count() == turn;
        client.until(&session, idle).await?;
        if turn == 1 {
            collector.until(|spans| named(spans, TURN).count() == 1 && named(spans, "collect").count() == 1).await?;
            service.kill_all().await?;
            service.start_missing().await?;
        }
    }
    Ok(session)
}

fn named<'a>(spans: &'a [Span], name: &str) -> impl Iterator<Item = &'a Span> {
    spans.iter().filter(move |span| span.name == name)
}

fn check(trace: &[&Span], session: &str, layout: Layout, elapsed: Duration) -> anyhow::Result<()> {
    let all = |name: &str| trace.iter().filter(|span| span.name == name).copied().collect::<Vec<_>>();
    let one = |name: &str| match all(name)[..] {
        [span] => Ok(span),
        ref found => anyhow::bail!("{} spans named {name:?} instead of one", found.len()),
    };
    let roots: Vec<_> = trace.iter().filter(|span| span.parent.is_none()).map(|span| span.name.as_str()).collect();
    ensure!(roots == [ROOT], "the roots are {roots:?}");
    for span in trace {
        let parent = span.parent.as_ref();
        ensure!(parent.is_none_or(|id| trace.iter().any(|span| span.id == *id)), "{} has no parent", span.name);
        ensure!(span.lasted() <= elapsed, "{} lasted {:?}", span.name, span.lasted());
    }
    let (root, turn, tool) = (one(ROOT)?, one(TURN)?, one(TOOL)?);
    ensure!(root.kind == "SERVER" && turn.parent.as_ref() == Some(&root.id));
    ensure!(tool.parent.as_ref() == Some(&turn.id) && tool.lasted() >= TOOL_TIME, "the tool took {:?}", tool.lasted());
    ensure!(tool.is_error && tool.attributes["error.type"] == "tool_error", "the command failed");
    let models = all(MODEL);
    ensure!(models.len() == 2, "{} model calls", models.len());
    for model in &models {
        let around = trace.iter().find(|span| model.parent.as_ref() == Some(&span.id));
        ensure!(around.is_some_and(|span| span.name == "call_model" && span.parent.as_ref() == Some(&turn.id)));
        ensure!(model.kind == "CLIENT" && model.attributes["gen_ai.operation.name"] == "chat");
        ensure!(model.attributes["gen_ai.provider.name"] == "anthropic");
        ensure!(model.attributes["gen_ai.usage.output_tokens"].parse::<u64>()? > 0);
    }
    ensure!(all("decide").len() >= 3, "a decision for each step");
    // The turn spans what was done in it. Its beginning is the workflow's time, in whole milliseconds.
    for span in models.iter().copied().chain([tool]) {
        ensure!(span.start_ns + 1_000_000 >= turn.start_ns && span.end_ns <= turn.end_ns, "{} is outside", span.name);
    }
    for (span, services) in [
        (root, ["steadyhand", "steadyhand"]),
        (turn, ["steadyhand", "steadyhand-brain"]),
        (models[0], ["steadyhand", "steadyhand-brain"]),
        (tool, ["steadyhand-hand", "steadyhand-hand"]),
    ] {
        let expected = services[usize::from(layout == Layout::Split)];
        ensure!(span.service == expected, "{} came from {}", span.name, span.service);
        ensure!(
            span.name == ROOT || span.attributes["gen_ai.conversation.id"] == session,
            "{} is of another session",
            span.name
        );
    }
    Ok(())
}
