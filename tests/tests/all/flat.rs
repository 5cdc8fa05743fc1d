//! A turn on a log of 100,000 events costs what one on 100 does: what is read and stored, processor time, and time. With a
//! strategy that is bounded, on both engines.
//!
//! Bytes are held against each other by their medians. Times are too, where there are turns enough (`scripts/long flat`,
//! `STEADYHAND_FLAT_TURNS`); with fewer, on a machine that has other things to do, turns are held against each other in pairs: it
//! fails where so many are dearer on the long log that chance does not make them so once in a thousand times.

#![expect(clippy::print_stdout, reason = "figures for scripts/long, which keeps them as evidence")]

use anyhow::{Context as _, ensure};
use domain::{Time, agent::StrategyRef, commit::Fork, session::Attributes};
use harness::{
    SessionState,
    kit::{self, Session},
    registry,
    state::Op,
};
use log::{SessionLog, manifest::Manifest, segment};
use prost::Message as _;
use serde_json::json;
use std::time::{Duration, Instant};
use steadyhand_tests::{
    bed::{Bed, On, message},
    long, on_both,
};

on_both![a_turn_costs_the_same_on_a_long_log];

const SHORT: u64 = 100;
const LONG: u64 = 100_000;
/// Events of a run that was sealed, about as many as a run has before it continues as new.
const EVENTS_PER_RUN: u64 = 4_000;
const WARM_UP: usize = 8;
const TURNS: usize = 60;
const COLD: usize = 3;
/// How much more a turn may cost; and what a worker may read that has never seen the session: the state that the run began with has
/// the ids of the last 1,000 events that came in, by which one that comes again is known, and the short log has had none so many.
const TOLERANCE: f64 = 1.1;
const TOLERANCE_COLD: f64 = 1.3;
/// Deviations from half of the pairs that chance does not reach once in a thousand times.
const DEVIATIONS: f64 = 3.1;
/// From so many turns on medians of times say something on a machine that has other things to do.
const TURNS_TO_TELL_TIME: usize = 100;

const SCRIPT: &str = "version = 1\n[[rules]]\nanswer = [{ text = \"Heard.\" }]\n";

fn strategy() -> StrategyRef {
    StrategyRef { name: "window".into(), version: 1, params: json!({"rounds": 5, "leap": 5}) }
}

/// A session of short turns, until its log is that long.
fn session(attributes: Attributes, events: u64) -> Session {
    let harness = registry::default_harness();
    let mut session = Session::new(attributes, harness);
    while session.state.summary.position < events {
        session.message("and now");
        session.settle();
        while let Some((activity, op)) = session.flying.first().cloned() {
            match op {
                Op::CallModel { .. } => session.model_answers(&activity, "Heard.", &[]),
                other => panic!("a short turn has no {other:?}"),
            }
            session.settle();
        }
    }
    session
}

/// Starts a session with so many events behind it, all of them sealed.
async fn begin(bed: &Bed, id: &str, events: u64) -> anyhow::Result<()> {
    let mut attributes = bed.attributes(200_000).await?;
    attributes.agent.strategy = strategy();
    let long = tokio::task::spawn_blocking({
        let attributes = Attributes {
            agent: domain::agent::AgentFacts { strategy: strategy(), ..kit::attributes().agent },
            ..attributes.clone()
        };
        move || session(attributes, events)
    });
    let Session { state, committed, genesis, .. } = long.await?;
    let harness = state.summary.harness.clone();
    let mut manifest = Manifest { session_id: id.to_owned(), genesis: Some(genesis), ..Manifest::default() };
    for (run, commits) in
        committed.chunk_by(|one, other| one.position / EVENTS_PER_RUN == other.position / EVENTS_PER_RUN).enumerate()
    {
        let segment = segment::write(&*bed.blobs, &format!("run-{run}"), commits).await?;
        manifest.push(&*bed.blobs, segment::Segment { shared: true, ..segment }).await?;
    }
    let fork = Fork {
        parent: kit::SESSION.to_owned(),
        session_id: id.to_owned(),
        created_at: Time::from_ms(0),
        attributes,
        harness,
        goes_on: false,
    };
    let mut state: SessionState = state.forked(fork);
    state.summary.manifest = Some(log::blobs::put_json(&*bed.blobs, &manifest).await?);
    bed.start_from(&state).await
}

/// What one turn cost.
struct Cost {
    read: u64,
    stored: u64,
    cpu: Duration,
    time: Duration,
}

/// A session as its client follows it.
struct Followed {
    id: &'static str,
    log: SessionLog,
    turns: usize,
}

impl Followed {
    async fn turn(&mut self, bed: &Bed) -> anyhow::Result<Cost> {
        let (read, stored) = (bed.counts.read(), bed.counts.stored());
        let (cpu, begun) = (processor_time()?, Instant::now());
        self.turns += 1;
        bed.post(self.id, vec![message(&format!("{}-{}", self.id, self.turns), "and now")]).await?;
        let mut history = 0;
        let expected = self.log.summary().map_or(0, |summary| summary.turn) + 1;
        let waiting = async {
            while self.log.summary().is_none_or(|summary| summary.turn < expected || !summary.status.is_idle()) {
                let (run, next) = self.log.cursor();
                let page = bed.reader.page(&run, next, true).await?;
                history += page.events.iter().map(|event| event.encoded_len() as u64).sum::<u64>();
                if self.log.ingest(&*bed.blobs, &run, page).await?.is_none() {
                    self.log.read_to_end(&*bed.reader, &*bed.blobs).await?;
                }
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(long::patience(), waiting).await.context("the turn does not end")??;
        Ok(Cost {
            read: bed.counts.read() - read,
            stored: bed.counts.stored() - stored + history,
            cpu: processor_time()?.saturating_sub(cpu),
            time: begun.elapsed(),
        })
    }
}

/// Of this process, which is everything but a Temporal server.
fn processor_time() -> anyhow::Result<Duration> {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Ok(Duration::new(u64::try_from(now.tv_sec)?, u32::try_from(now.tv_nsec)?))
}

fn median<T: Ord + Copy>(costs: &[Cost], of: impl Fn(&Cost) -> T) -> T {
    let mut values: Vec<T> = costs.iter().map(of).collect();
    values.sort_unstable();
    values[values.len() / 2]
}

/// Pairs of which the second one is dearer than is allowed, and how many of them may be so by chance.
fn dearer(costs: &[Vec<Cost>; 2], of: impl Fn(&Cost) -> Duration) -> (usize, usize) {
    let [short, long] = costs;
    let is_dearer = |(short, long): &(&Cost, &Cost)| of(long) > of(short).mul_f64(TOLERANCE);
    let pairs = short.len() as f64;
    let by_chance = pairs / 2.0 + DEVIATIONS * pairs.sqrt() / 2.0;
    (short.iter().zip(long).filter(is_dearer).count(), by_chance as usize)
}

async fn a_turn_costs_the_same_on_a_long_log(on: On) -> anyhow::Result<()> {
    let turns = long::number("STEADYHAND_FLAT_TURNS", TURNS)?;
    let mut bed = Bed::new(on, SCRIPT).await?;
    let mut both = Vec::new();
    for (id, events) in [("short", SHORT), ("long", LONG)] {
        begin(&bed, id, events).await?;
        let log = bed.wait(id, |log| log.summary().is_some_and(|summary| summary.position >= events)).await?;
        both.push(Followed { id, log, turns: 0 });
    }
    // One turn on each in its turn: what disturbs the machine disturbs both.
    let mut warm = [Vec::new(), Vec::new()];
    for turn in 0..WARM_UP + turns {
        for (followed, costs) in both.iter_mut().zip(&mut warm) {
            let cost = followed.turn(&bed).await?;
            if turn >= WARM_UP {
                costs.push(cost);
            }
        }
    }
    // A worker that has never seen the session.
    let mut cold = [Vec::new(), Vec::new()];
    for _ in 0..COLD {
        for (followed, costs) in both.iter_mut().zip(&mut cold) {
            bed.stop_brain().await?;
            bed.start_brain(SCRIPT).await?;
            costs.push(followed.turn(&bed).await?);
        }
    }
    for (name, costs, tolerance) in [("warm", &warm, TOLERANCE), ("cold", &cold, TOLERANCE_COLD)] {
        for (what, of) in [("read", (|cost: &Cost| cost.read) as fn(&Cost) -> u64), ("stored", |cost| cost.stored)] {
            let [short, long] = [median(&costs[0], of), median(&costs[1], of)];
            println!("figures: {name}, {what}: {short} and {long} bytes");
            ensure!(
                long as f64 <= short as f64 * tolerance,
                "{name}: a turn on {LONG} events {what} {long} bytes, one on {SHORT} {short}"
            );
        }
    }
    for (what, of) in [("cpu", (|cost: &Cost| cost.cpu) as fn(&Cost) -> Duration), ("time", |cost| cost.time)] {
        // A worker's first turn is asked for too seldom here to tell anything but what it is about.
        println!("figures: cold, {what}: {:.1?} and {:.1?}", median(&cold[0], of), median(&cold[1], of));
        let [short, long] = [median(&warm[0], of), median(&warm[1], of)];
        let (dearer, by_chance) = dearer(&warm, of);
        println!("figures: warm, {what}: {short:.1?} and {long:.1?}; dearer in {dearer} of {turns} pairs");
        ensure!(
            dearer <= by_chance,
            "the {what} of a turn on {LONG} events is more in {dearer} pairs, by chance in {by_chance}: {long:?} and {short:?}"
        );
        ensure!(
            turns < TURNS_TO_TELL_TIME || long <= short.mul_f64(TOLERANCE),
            "the {what} of a turn on {LONG} events is {long:?}, of one on {SHORT} {short:?}"
        );
    }
    bed.end().await
}
