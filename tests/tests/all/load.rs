//! Many clients at once, and beside clients that nobody wants: how long requests take, and how much memory the service has.
//! On both engines. What is sent is all heard, once and in order, whatever the load.
//!
//! Numbers are small here; `scripts/long load` has those that are said in docs/benchmarks.md (`STEADYHAND_LOAD_*`).

#![expect(clippy::print_stdout, reason = "figures for scripts/long, which keeps them as evidence")]

use activities::model::scripted::{Script, serve};
use anyhow::{Context as _, ensure};
use futures::{StreamExt as _, TryStreamExt as _};
use http::Method;
use serde_json::{Value, json};
use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use steadyhand_tests::{
    client::Client,
    crowd::{Crowd, Nuisance},
    engines::engine,
    long, on_each_engine,
    service::{Options, Role, Service},
};
use tokio::{net::TcpListener, sync::watch, task::JoinSet, time::MissedTickBehavior};

on_each_engine![everybody_is_served];

const SCRIPT: &str = "version = 1\n[[rules]]\nanswer = [{ text = \"Heard: {{user}}\" }]\n";
/// Requests that make things before the load begins, side by side.
const SIDE_BY_SIDE: usize = 16;
/// What a healthy client may notice of others: twice the time, and so much that a busy machine shows by itself. Without optimisation, and
/// beside other tests, only how long nothing may take: what `scripts/long load` measures is the service, and not these.
const DISTURBED_MAX: u32 = 2;
const NOISE: Duration = if cfg!(debug_assertions) { Duration::from_secs(2) } else { Duration::from_millis(25) };
/// Healthy clients alone and beside others take turns, so often, and each time for as long: what else this machine does
/// meets both.
const TURNS: usize = 3;
/// Who disturbs does so every time it is looked at; what a busy machine does by itself is not there again.
const LOOKS: usize = 3;

/// How much of everything.
#[derive(Clone, Copy)]
struct Load {
    streams: usize,
    creates_per_s: usize,
    turns_per_s: usize,
    reads_per_s: usize,
    seconds: usize,
    /// Of connections that say nothing; of slow clients; of clients with large bodies.
    idle: usize,
    slow: usize,
    large: usize,
}

impl Load {
    fn asked_for() -> anyhow::Result<Self> {
        Ok(Load {
            streams: long::number("STEADYHAND_LOAD_STREAMS", 10)?,
            creates_per_s: long::number("STEADYHAND_LOAD_CREATES", 3)?,
            turns_per_s: long::number("STEADYHAND_LOAD_TURNS", 5)?,
            reads_per_s: long::number("STEADYHAND_LOAD_READS", 50)?,
            seconds: long::number("STEADYHAND_LOAD_SECONDS", 3)?,
            idle: long::number("STEADYHAND_LOAD_IDLE", 300)?,
            slow: long::number("STEADYHAND_LOAD_SLOW", 50)?,
            large: long::number("STEADYHAND_LOAD_LARGE", 2)?,
        })
    }

    fn count(&self, nuisance: Nuisance) -> usize {
        match nuisance {
            Nuisance::SlowHeads | Nuisance::SlowBodies => self.slow,
            Nuisance::Idle => self.idle,
            Nuisance::Large | Nuisance::Deep => self.large,
        }
    }
}

/// How long requests of one kind took, each from the moment at which it was due; the shortest first.
#[derive(Default)]
struct Times(Vec<Duration>);

impl Times {
    fn add(&mut self, more: Times) {
        self.0.extend(more.0);
        self.0.sort_unstable();
    }

    fn at(&self, share: f64) -> Duration {
        self.0[((self.0.len() - 1) as f64 * share).round() as usize]
    }

    fn print(&self, engine: &str, what: &str) {
        let (p50, p99, max) = (self.at(0.5), self.at(0.99), self.at(1.0));
        println!(
            "figures: {engine}: {what}: {} requests, p50 {p50:.1?}, p99 {p99:.1?}, longest {max:.1?}",
            self.0.len()
        );
    }
}

/// So many requests a second for so many seconds, whether or not the ones before were answered.
async fn paced<F: Future<Output = anyhow::Result<()>> + Send + 'static>(
    per_s: usize,
    seconds: usize,
    mut request: impl FnMut(usize) -> F,
) -> anyhow::Result<Times> {
    let mut pace = tokio::time::interval(Duration::from_secs(1) / u32::try_from(per_s)?);
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut under_way = JoinSet::new();
    for n in 0..per_s * seconds {
        let due = pace.tick().await.into_std();
        let request = request(n);
        under_way.spawn(async move {
            tokio::time::timeout(long::patience(), request).await.context("no answer")??;
            anyhow::Ok(due.elapsed())
        });
    }
    let mut times = Times::default();
    times.add(Times(under_way.join_all().await.into_iter().collect::<anyhow::Result<Vec<_>>>()?));
    Ok(times)
}

async fn get(client: &Client, path: &str) -> anyhow::Result<Value> {
    Ok(client.request(Method::GET, path).send().await?.error_for_status()?.json().await?)
}

/// The session that one stream is of, and what it heard.
struct Listener {
    session: String,
    /// Turns that it heard the end of.
    rests: watch::Receiver<usize>,
    heard: tokio::task::JoinHandle<anyhow::Result<Vec<String>>>,
}

/// Listens to a session; committed events come with their position, none missing and none twice.
async fn listen(client: Client, session: String) -> anyhow::Result<Listener> {
    let answer = client.request(Method::GET, &format!("/v1/sessions/{session}/events/stream")).send().await?;
    let mut chunks = answer.error_for_status()?.bytes_stream();
    let (rested, rests) = watch::channel(0);
    let heard = tokio::spawn(async move {
        let (mut rest, mut ids) = (String::new(), Vec::new());
        while let Some(chunk) = chunks.try_next().await? {
            rest.push_str(std::str::from_utf8(&chunk)?);
            while let Some((message, behind)) = rest.split_once("\n\n") {
                let line = |name: &str| message.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
                if let Some(position) = line("id") {
                    ensure!(position.parse() == Ok(ids.len()), "{position} came as number {}", ids.len());
                    let event: Value = serde_json::from_str(line("data").context("a message has data")?)?;
                    ids.push(event["id"].as_str().context("an event has an id")?.to_owned());
                }
                match line("event") {
                    Some("session.status_idle") => rested.send_modify(|rests| *rests += 1),
                    Some("session.deleted") => return Ok(ids),
                    _ => {}
                }
                rest = behind.to_owned();
            }
        }
        Ok(ids)
    });
    Ok(Listener { session, rests, heard })
}

struct Scene {
    engine: &'static str,
    service: Service,
    client: Client,
    load: Load,
    agent: String,
    environment: String,
}

impl Scene {
    async fn session(client: Client, agent: String, environment: String) -> anyhow::Result<String> {
        client.make("/v1/sessions", &json!({"agent": agent, "environment_id": environment})).await
    }

    async fn listeners(&self) -> anyhow::Result<Vec<Listener>> {
        let making = (0..self.load.streams).map(|_| {
            let (client, agent, environment) = (self.client.clone(), self.agent.clone(), self.environment.clone());
            async move {
                let session = Scene::session(client.clone(), agent, environment).await?;
                listen(client, session).await
            }
        });
        futures::stream::iter(making).buffer_unordered(SIDE_BY_SIDE).try_collect().await
    }

    /// Everything at once.
    async fn rush(&self, listeners: &[Listener]) -> anyhow::Result<()> {
        let Load { creates_per_s, turns_per_s, reads_per_s, seconds, .. } = self.load;
        let sessions: Arc<[String]> = listeners.iter().map(|listener| listener.session.clone()).collect();
        let turns = paced(turns_per_s, seconds, |n| {
            let (client, session) = (self.client.clone(), sessions[n % sessions.len()].clone());
            let mut rests = listeners[n % listeners.len()].rests.clone();
            async move {
                let before = *rests.borrow_and_update();
                let event = json!({"type": "user.message", "content": [{"type": "text", "text": n.to_string()}]});
                let path = format!("/v1/sessions/{session}/events");
                let answer = client.request(Method::POST, &path).json(&json!({"events": [event]})).send().await?;
                answer.error_for_status()?;
                rests.wait_for(|rests| *rests > before).await?;
                Ok(())
            }
        });
        let made = Arc::new(AtomicUsize::new(0));
        let creates = paced(creates_per_s, seconds, |_| {
            let (client, agent, environment) = (self.client.clone(), self.agent.clone(), self.environment.clone());
            let made = made.clone();
            async move {
                Scene::session(client, agent, environment).await?;
                made.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
        });
        let reads = self.reads(reads_per_s, seconds, &sessions);
        let (turns, creates, reads) = tokio::try_join!(turns, creates, reads)?;
        ensure!(made.load(Ordering::Relaxed) == creates_per_s * seconds);
        turns.print(self.engine, "turns, from the message to the end on the stream");
        creates.print(self.engine, "new sessions");
        reads.print(self.engine, "reads");
        let (now, most) = memory_mib(self.service.process(Role::Serve)?.pid())?;
        println!("figures: {}: memory of the service: {now} MiB, at most {most} MiB", self.engine);
        Ok(())
    }

    async fn reads(&self, per_s: usize, seconds: usize, sessions: &Arc<[String]>) -> anyhow::Result<Times> {
        paced(per_s, seconds, |n| {
            let (client, sessions) = (self.client.clone(), sessions.clone());
            async move {
                let session = &sessions[n % sessions.len()];
                let path = match n % 3 {
                    0 => format!("/v1/sessions/{session}"),
                    1 => format!("/v1/sessions/{session}/events?limit=20"),
                    _ => "/v1/sessions?limit=5".to_owned(),
                };
                get(&client, &path).await.map(drop)
            }
        })
        .await
    }

    /// Healthy clients beside others.
    async fn beside(&self, sessions: &Arc<[String]>, addr: SocketAddr) -> anyhow::Result<()> {
        for nuisance in Nuisance::ALL {
            let mut looks = 1;
            while let Err(disturbed) = self.look(nuisance, sessions, addr).await? {
                println!("figures: {}: {disturbed}", self.engine);
                ensure!(looks < LOOKS, "{disturbed}, and so it was each of {LOOKS} times");
                looks += 1;
            }
        }
        let (now, most) = memory_mib(self.service.process(Role::Serve)?.pid())?;
        println!("figures: {}: memory of the service after it: {now} MiB, at most {most} MiB", self.engine);
        Ok(())
    }

    /// Whether healthy clients notice this one, and how.
    async fn look(
        &self,
        nuisance: Nuisance,
        sessions: &Arc<[String]>,
        addr: SocketAddr,
    ) -> anyhow::Result<Result<(), String>> {
        let per_s = (self.load.reads_per_s / 10).max(40);
        let seconds = self.load.seconds.div_ceil(TURNS);
        let count = self.load.count(nuisance);
        let (mut alone, mut beside) = (Times::default(), Times::default());
        for _ in 0..TURNS {
            alone.add(self.reads(per_s, seconds, sessions).await?);
            let crowd = Crowd::gather(nuisance, count, addr, self.client.key()).await?;
            beside.add(self.reads(per_s, seconds, sessions).await?);
            crowd.disperse().await;
        }
        alone.print(self.engine, &format!("reads, not beside {nuisance}"));
        beside.print(self.engine, &format!("reads beside {count} with {nuisance}"));
        let (alone, beside) = (alone.at(0.99), beside.at(0.99));
        Ok(match beside <= (alone * DISTURBED_MAX).max(NOISE) {
            true => Ok(()),
            false => Err(format!("disturbed by {nuisance}: p99 {beside:.1?}, alone {alone:.1?}")),
        })
    }

    async fn play(&self) -> anyhow::Result<()> {
        let listeners = self.listeners().await?;
        self.rush(&listeners).await?;
        let sessions: Arc<[String]> = listeners.iter().map(|listener| listener.session.clone()).collect();
        let url = self.client.request(Method::GET, "/").build()?.url().clone();
        let addr = *url.socket_addrs(|| None)?.first().context("the service has an address")?;
        self.beside(&sessions, addr).await?;
        // What was heard is the log.
        for Listener { session, heard, .. } in listeners {
            let ids: Vec<String> = self.client.events(&session).await?.into_iter().map(|event| event.id).collect();
            self.client.delete(&session).await?;
            ensure!(heard.await?? == ids, "what {session} has is not what was heard");
        }
        Ok(())
    }
}

/// Of one process, now and at its highest.
fn memory_mib(pid: i32) -> anyhow::Result<(u64, u64)> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).context("a process has memory")?;
        let number = line.trim_start_matches(':').trim().trim_end_matches(" kB");
        anyhow::Ok(number.parse::<u64>()?)
    };
    Ok((kib("VmRSS")? / 1024, kib("VmHWM")? / 1024))
}

/// Each connection here is one at the service, and takes a descriptor.
fn take_descriptors() -> anyhow::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    Ok(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
}

async fn everybody_is_served(is_temporal: bool) -> anyhow::Result<()> {
    take_descriptors()?;
    let script = Script::from_toml(SCRIPT, Path::new("script.toml"))?;
    let model = serve(TcpListener::bind("127.0.0.1:0").await?, script)?;
    let cluster = engine(is_temporal)?;
    let temporal = cluster.as_ref().map(|temporal| (temporal.addr, "default".to_owned()));
    let service = Service::start(Options { temporal, ..Options::new(model.url()) }).await?;
    let client = service.client();
    let agent = client.make("/v1/agents", &json!({"name": "load", "model": "scripted"})).await?;
    let environment = client.make("/v1/environments", &json!({"name": "load"})).await?;
    let engine = if is_temporal { "temporal" } else { "embedded" };
    let scene = Scene { engine, service, client, load: Load::asked_for()?, agent, environment };
    let begun = Instant::now();
    let played = scene.play().await;
    scene.service.with_logs(played)?;
    println!("figures: {engine}: all of it took {:.0?}", begun.elapsed());
    scene.service.stop().await.map(drop)
}
