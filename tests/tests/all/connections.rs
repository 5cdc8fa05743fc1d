//! A cluster's connections come to their end, and nobody notices.

use activities::model::scripted::{Script, serve};
use anyhow::{Context as _, ensure};
use std::{path::Path, time::Duration};
use steadyhand_tests::{
    client::{LoggedEvent, Mark},
    engines::Temporal,
    service::{Options, Service},
};
use tokio::net::TcpListener;

/// How old a connection gets; another second of grace is left to calls that are under way.
const AGE: Duration = Duration::from_secs(2);

/// Tools that take longer, all together, than several connections live.
const SCRIPT: &str = r#"
version = 1
[[rules]]
when = { results = 0 }
answer = [{ tool = "bash", input = { command = "sleep 3; echo one >> counter" } }]
[[rules]]
when = { results = 1 }
answer = [{ tool = "bash", input = { command = "sleep 3; echo two >> counter" } }]
[[rules]]
when = { results = 2 }
answer = [{ tool = "bash", input = { command = "cat counter" } }]
[[rules]]
answer = [{ text = "Counted: {{result}}" }]
"#;

#[tokio::test(flavor = "multi_thread")]
async fn hands_outlive_the_connections_of_a_cluster() -> anyhow::Result<()> {
    let temporal = Temporal::of_short_connections(AGE)?;
    let model = serve(TcpListener::bind("127.0.0.1:0").await?, Script::from_toml(SCRIPT, Path::new("script.toml"))?)?;
    let at = Some((temporal.addr, "default".to_owned()));
    let service = Service::start(Options { temporal: at, ..Options::new(model.url()) }).await?;
    let client = service.client();
    let scenario = async {
        let session = client.session().await?;
        client.send(&session, "go", Mark::RetryCount).await?;
        let events = client.until(&session, |events| events.last().is_some_and(LoggedEvent::is_idle)).await?;
        let said: String = events.iter().filter(|event| event.kind == "agent.message").map(LoggedEvent::text).collect();
        ensure!(said.trim_end() == "Counted: one\ntwo", "{said:?}");
        anyhow::Ok(())
    };
    scenario.await.with_context(|| service.logs())?;
    service.stop().await.map(drop)
}
