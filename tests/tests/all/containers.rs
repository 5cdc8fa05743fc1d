//! Sessions whose hands are containers: made, found again whoever dies, put away, and removed with their session; on both
//! engines, with the Podman of `tests/src/podman.rs`.

use crate::parking;
use activities::model::scripted::{Script, serve};
use anyhow::{Context as _, ensure};
use serde_json::Value;
use std::path::Path;
use steadyhand_tests::{
    client::{LoggedEvent, Mark},
    engines::{Temporal, engine},
    gate::{self, Gate},
    on_each_engine,
    podman::{IMAGE, Podman},
    service::{Layout, Options, Role, Service},
    shims,
    transcript::check_log,
};
use tokio::net::TcpListener;

on_each_engine!(a_call_runs_in_a_container_that_goes_with_its_session, a_call_goes_on_whoever_of_the_service_dies);

fn options(temporal: Option<&Temporal>, podman: &Podman, model_url: String) -> Options {
    let temporal = temporal.map(|temporal| (temporal.addr, "default".to_owned()));
    Options { temporal, environment: environment(podman), ..Options::new(model_url) }
}

fn environment(podman: &Podman) -> Vec<(&'static str, String)> {
    vec![
        ("STEADYHAND_HAND_PROVIDER", "container".to_owned()),
        ("STEADYHAND_CONTAINER_IMAGE", IMAGE.to_owned()),
        ("STEADYHAND_CONTAINER_SOCKET", podman.socket().display().to_string()),
    ]
}

fn results(events: &[LoggedEvent]) -> Vec<String> {
    events.iter().filter(|event| event.kind == "agent.tool_result").map(LoggedEvent::text).collect()
}

const LOOK: &str = "version = 1\n[[rules]]\nwhen = { results = 0 }\n\
    answer = [{ tool = \"bash\", input = { command = \"id -u; echo kept >/mnt/session/outputs/o; test -x /run/steadyhand/hand && echo contained\" } }]\n\
    [[rules]]\nanswer = [{ text = \"Done.\" }]\n";

async fn a_call_runs_in_a_container_that_goes_with_its_session(is_temporal: bool) -> anyhow::Result<()> {
    let Some(podman) = Podman::start() else { return Ok(()) };
    let temporal = engine(is_temporal)?;
    let model = serve(TcpListener::bind("127.0.0.1:0").await?, Script::from_toml(LOOK, Path::new("look.toml"))?)?;
    let service = Service::start(options(temporal.as_ref(), &podman, model.url())).await?;
    let seen = async {
        let client = service.client();
        let session = client.session().await?;
        client.send(&session, "go", Mark::RetryCount).await?;
        let events = client.until(&session, |events| events.last().is_some_and(LoggedEvent::is_idle)).await?;
        check_log(&client, &session, &events).await?;
        let [said] = &results(&events)[..] else { anyhow::bail!("{:?}", results(&events)) };
        let (uid, contained) = said.split_once('\n').context("two lines")?;
        ensure!(hand::limits::UIDS.contains(&uid.parse()?) && contained == "contained\n", "{said:?}");
        let hands = client.ok(reqwest::Method::GET, "/v1/hands", None).await?;
        let id = hands["data"][0]["id"].as_str().context("it is listed")?;
        let hands_dir = service.hands_dir().canonicalize()?;
        let names = podman.containers(&hands_dir);
        ensure!(names.len() == 1 && names[0].starts_with(&format!("steadyhand-{id}")), "{names:?}");
        let socket = service.hands_dir().read_dir()?.flatten().map(|entry| entry.path());
        let keeper = socket.into_iter().find(|path| path.display().to_string().contains(".keeper-"));
        let mode = std::os::unix::fs::PermissionsExt::mode(&keeper.context("a keeper")?.metadata()?.permissions());
        ensure!(mode & 0o777 == 0o600, "who may talk to the keeper: {mode:o}");

        client.delete(&session).await?;
        while !podman.containers(&hands_dir).is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        Ok(())
    };
    let seen = tokio::time::timeout(std::time::Duration::from_secs(120), seen).await;
    service.with_logs(seen.context("its container is not removed").flatten())?;
    service.stop().await.map(drop)
}

fn waits() -> anyhow::Result<Script> {
    let text = format!(
        "version = 1\n[[rules]]\nwhen = {{ results = 0 }}\n\
         answer = [{{ tool = \"bash\", input = {{ command = \"echo once >>counter; {}; wc -l <counter\" }} }}]\n\
         [[rules]]\nanswer = [{{ text = \"Done.\" }}]\n",
        gate::WAIT
    );
    Ok(Script::from_toml(&text, Path::new("waits.toml"))?)
}

/// The hand worker, the launcher, the keeper of containers and the service itself: the call is running, and none of them is what
/// it runs in.
async fn a_call_goes_on_whoever_of_the_service_dies(is_temporal: bool) -> anyhow::Result<()> {
    let Some(podman) = Podman::start() else { return Ok(()) };
    let temporal = engine(is_temporal)?;
    for victim in ["hand", "launcher", "containers", "serve"] {
        let model = serve(TcpListener::bind("127.0.0.1:0").await?, waits()?)?;
        let mut service = Service::start(options(temporal.as_ref(), &podman, model.url())).await?;
        let outcome = struck(&mut service, victim).await.with_context(|| format!("{victim} dies"));
        service.with_logs(outcome)?;
        service.stop().await?;
    }
    Ok(())
}

async fn struck(service: &mut Service, victim: &str) -> anyhow::Result<()> {
    let client = service.client();
    let session = client.session().await?;
    let mut gate = Gate::new(&service.hands_dir())?;
    client.send(&session, "go", Mark::RetryCount).await?;
    let workspace = gate.reached().await?;
    match victim {
        "serve" => service.lose().await?,
        child => shims::child(service.process(Role::Serve)?.pid(), child)?.kill()?,
    }
    let _open = gate::open(&workspace)?;
    let events = client.until(&session, |events| events.last().is_some_and(LoggedEvent::is_idle)).await?;
    check_log(&client, &session, &events).await?;
    let said = events.iter().find(|event| event.kind == "agent.tool_result").context("a result")?;
    ensure!(said.text() == "1\n" && said.rest["is_error"] != Value::Bool(true), "{:?}", said.text());
    ensure!(service.effects() == 1, "it took effect {} times", service.effects());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_at_rest_is_put_away_and_comes_back() -> anyhow::Result<()> {
    let Some(podman) = Podman::start() else { return Ok(()) };
    parking::put_away(Layout::One, None, None, environment(&podman)).await
}

/// The command that says what a machine lacks says it of containers as well.
#[tokio::test(flavor = "multi_thread")]
async fn doctor_tries_a_container_and_says_what_is_missing() -> anyhow::Result<()> {
    let Some(podman) = Podman::start() else { return Ok(()) };
    let doctor = |image: &str, socket: &Path| {
        let mut command = std::process::Command::new(steadyhand_tests::service::program("steadyhand"));
        command.args([
            "doctor",
            "--json",
            "--hands-mode",
            "dev",
            "--hand-provider",
            "container",
            "--container-image",
            image,
        ]);
        command.arg("--container-socket").arg(socket).output()
    };
    let fine = doctor(IMAGE, &podman.socket())?;
    let said = String::from_utf8_lossy(&fine.stdout).into_owned();
    ensure!(fine.status.success(), "{said}");
    let of = |name: &str| said.lines().find(|line| line.contains(&format!("\"name\":\"{name}\""))).map(str::to_owned);
    for layer in ["container_runtime", "container_image", "container", "seccomp", "cgroup_memory", "own_uid"] {
        ensure!(of(layer).is_some_and(|line| line.contains("\"state\":\"ok\"")), "{layer}: {said}");
    }
    ensure!(of("bubblewrap").is_none(), "it is of no use here: {said}");
    for (image, socket, missing) in
        [("localhost/none", podman.socket(), "container_image"), (IMAGE, "/none.sock".into(), "container_runtime")]
    {
        let refused = doctor(image, &socket)?;
        let said = String::from_utf8_lossy(&refused.stdout).into_owned();
        let line = said.lines().find(|line| line.contains(&format!("\"name\":\"{missing}\""))).context(said.clone())?;
        ensure!(refused.status.code() == Some(7) && line.contains("\"state\":\"missing\""), "{said}");
    }
    Ok(())
}
