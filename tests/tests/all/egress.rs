//! What sandboxes of a running service reach: as the session's environment says, through egress and no other way.

use activities::model::scripted::{Script, serve};
use anyhow::ensure;
use serde_json::{Value, json};
use std::{net::SocketAddr, path::Path};
use steadyhand_tests::{
    client::{Client, LoggedEvent, Mark},
    service::{Options, Service},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

/// Answers every request with the same few words.
async fn origin() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                // What was asked for does not matter, only that the answer comes after it.
                let _ = stream.read(&mut [0; 4096]).await;
                let _ =
                    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\nbody").await;
            });
        }
    });
    Ok(addr)
}

/// A session in an environment with this networking.
async fn session(client: &Client, networking: Value) -> anyhow::Result<String> {
    let agent = json!({"name": "tester", "model": "scripted", "tools": [{"type": "agent_toolset_20260401"}]});
    let agent = client.make("/v1/agents", &agent).await?;
    let environment = json!({"name": "net", "config": {"type": "cloud", "networking": networking}});
    let environment = client.make("/v1/environments", &environment).await?;
    client.make("/v1/sessions", &json!({"agent": agent, "environment_id": environment})).await
}

/// The status that each address answers with, one a line.
async fn statuses(client: &Client, session: &str) -> anyhow::Result<Vec<String>> {
    let before = client.events(session).await?.len();
    // Each message has a text of its own, which is what repeats are known by.
    client.send(session, &format!("look {before}"), Mark::IdempotencyKey).await?;
    let idle = |events: &[LoggedEvent]| events.len() > before && events.last().is_some_and(LoggedEvent::is_idle);
    let events = client.until(session, idle).await?;
    let result = events.iter().rfind(|event| event.kind == "agent.tool_result");
    let text = result.map(LoggedEvent::text).unwrap_or_default();
    Ok(text.lines().map(str::to_owned).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_environments_networking_holds_in_its_sandboxes_and_outlives_egress() -> anyhow::Result<()> {
    let (listed, private) = (origin().await?, origin().await?);
    // Loopback is spelled out to the proxy, as there is no name server to make names for it.
    let urls = format!("http://{listed}/ http://{private}/");
    let command = format!(
        "for url in {urls}; do curl -s -m 20 --noproxy '' -o /dev/null -w '%{{http_code}}\\n' $url; done; true"
    );
    let script = format!(
        "version = 1\n[[rules]]\nwhen = {{ results = {{ max = 0 }} }}\nanswer = [{{ tool = \"bash\", input = {{ command = {command:?} }} }}]\n\
         [[rules]]\nanswer = [{{ text = \"Done.\" }}]\n"
    );
    let model = serve(TcpListener::bind("127.0.0.1:0").await?, Script::from_toml(&script, Path::new("egress.toml"))?)?;
    let options = Options { private_addresses: vec![listed], ..Options::new(model.url()) };
    let mut service = Service::start(options).await?;
    let client = service.client();
    let unrestricted = session(&client, json!({"type": "unrestricted"})).await?;
    let limited = session(&client, json!({"type": "limited", "allowed_hosts": ["example.com"]})).await?;
    for (session, expected) in [(&unrestricted, ["200", "403"]), (&limited, ["403", "403"])] {
        let got = statuses(&client, session).await?;
        ensure!(got == expected, "{got:?} instead of {expected:?}\n{}", service.logs());
    }

    // The whole service dies, egress with it; the sandboxes live on, and their policies are in force again.
    service.kill_all().await?;
    service.start_missing().await?;
    for (session, expected) in [(&unrestricted, ["200", "403"]), (&limited, ["403", "403"])] {
        let got = statuses(&client, session).await?;
        ensure!(got == expected, "{got:?} instead of {expected:?} after a restart\n{}", service.logs());
    }
    service.stop().await?;
    Ok(())
}
