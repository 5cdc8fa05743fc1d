//! Which user each process of a service is, and what somebody who takes one over finds.

use activities::model::scripted::{Script, serve};
use anyhow::{Context as _, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use std::{
    os::unix::{fs::MetadataExt as _, process::CommandExt as _},
    path::Path,
    process::Command,
};
use steadyhand_tests::{
    client::{LoggedEvent, Mark},
    service::{Options, Role, Service},
};
use tokio::net::TcpListener;

const SCRIPT: &str = "version = 1\n[[rules]]\nwhen = { results = { max = 0 } }\n\
    answer = [{ tool = \"bash\", input = { command = \"cat /mnt/session/uploads/told; id -u\" } }]\n\
    [[rules]]\nanswer = [{ text = \"Done.\" }]\n";

/// Command line and user of each child of a process.
fn children(pid: i32) -> anyhow::Result<Vec<(String, u32)>> {
    let mut children = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
        for child in std::fs::read_to_string(task.path().join("children"))?.split_whitespace() {
            let words = std::fs::read_to_string(format!("/proc/{child}/cmdline"))?.replace('\0', " ");
            let status = std::fs::read_to_string(format!("/proc/{child}/status"))?;
            let uid = status.lines().find_map(|line| line.strip_prefix("Uid:")).context("it has a user")?;
            children.push((words, uid.split_whitespace().next().context("a real one")?.parse()?));
        }
    }
    Ok(children)
}

/// What a script finds as that user, who is in no group.
fn as_user(uid: u32, script: &str) -> anyhow::Result<String> {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", &format!("exec 2>&1; {script}")]).env_clear().uid(uid).gid(uid).current_dir("/");
    Ok(String::from_utf8_lossy(&shell.output()?.stdout).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_over_a_child_of_a_service_that_is_root_finds_nothing_of_it() -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        // Then all share one user, which `doctor` says.
        return Ok(());
    }
    let model = serve(TcpListener::bind("127.0.0.1:0").await?, Script::from_toml(SCRIPT, Path::new("users.toml"))?)?;
    let service = Service::start(Options::new(model.url())).await?;
    let client = service.client();
    let pid = service.process(Role::Serve)?.pid();
    let user_of = |name: &str| -> anyhow::Result<u32> {
        let all = children(pid)?;
        let found = all.iter().find(|(words, _)| words.contains(name)).map(|(_, uid)| *uid);
        found.with_context(|| format!("no {name} among {all:?}"))
    };
    ensure!(
        user_of("worker hand")? == 60_998
            && user_of("worker egress")? == 60_999
            && user_of("steadyhand-hand launcher")? == 0
    );

    // The worker works all the same, with a file that goes through the blobs, its own staging and the launcher.
    let form = "--x\r\ncontent-disposition: form-data; name=\"file\"; filename=\"told\"\r\n\r\nwhat the file says\r\n--x--\r\n";
    let upload = client.request(Method::POST, "/v1/files").header("content-type", "multipart/form-data; boundary=x");
    let uploaded: Value = upload.body(form).send().await?.error_for_status()?.json().await?;
    let file = &uploaded["id"];
    let agent = json!({"name": "tester", "model": "scripted", "tools": [{"type": "agent_toolset_20260401"}]});
    let agent = client.make("/v1/agents", &agent).await?;
    let environment = client.make("/v1/environments", &json!({"name": "net", "config": {"type": "cloud"}})).await?;
    let resource = json!({"type": "file", "file_id": file, "mount_path": "/mnt/session/uploads/told"});
    let session = json!({"agent": agent, "environment_id": environment, "resources": [resource]});
    let session = client.make("/v1/sessions", &session).await?;
    client.send(&session, "look", Mark::IdempotencyKey).await?;
    let events = client.until(&session, |events| events.last().is_some_and(LoggedEvent::is_idle)).await?;
    let result = events.iter().rfind(|event| event.kind == "agent.tool_result").map(LoggedEvent::text);
    ensure!(result.as_deref() == Some("what the file says1000\n"), "{result:?}\n{}", service.logs());

    // Whoever operates it sees the hand, and that it is a weaker one.
    let listed: Value = client.request(Method::GET, "/v1/hands").send().await?.error_for_status()?.json().await?;
    let shown = &listed["data"][0];
    ensure!(shown["session_id"] == session && shown["mode"] == "dev" && shown["state"] == "running", "{listed}");
    ensure!(shown["layers_off"].to_string().contains("disk_quota"), "{listed}");

    let (data, hands) = (service.data_dir(), service.hands_dir());
    let hand = std::fs::read_dir(&hands)?.flatten().find(|entry| entry.path().join("workspace").exists());
    let hand = hand.context("there is a hand")?.path();
    let (data, hand_path, hands) = (data.display(), hand.display(), hands.display());
    let shim = hand.join("workspace").metadata()?.uid();
    for uid in [60_998, 60_999, shim] {
        let said = as_user(
            uid,
            &format!(
                "cat {data}/admin.key {data}/roles/brain.token {data}/roles/hand.token /proc/{pid}/environ; ls {data} {data}/engine; \
                 head -c 1 /proc/{pid}/mem; ls /proc/{pid}/fd; kill -0 {pid} && echo SIGNALLED"
            ),
        )?;
        ensure!(!said.contains("SIGNALLED") && said.matches("Permission denied").count() == 8, "{uid}: {said}");
    }
    // Neither looks into a workspace, and only the worker asks a hand.
    let said = as_user(
        60_998,
        &format!("cat {hand_path}/plan.json; ls {hand_path}/workspace {hands}/.uids {hands}/.egress/*/data"),
    )?;
    ensure!(said.matches("Permission denied").count() == 3, "{said}");
    let path = format!("/v1/hands/{}", shown["id"].as_str().unwrap_or_default());
    client.request(Method::DELETE, &path).send().await?.error_for_status()?;
    ensure!(!hand.exists(), "it is ended with all that was in it");
    service.stop().await?;
    Ok(())
}
