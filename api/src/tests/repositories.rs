//! Repositories of sessions: what egress is told of them, what clients see, and what is refused.

use std::sync::Arc;

use domain::egress::{CredentialId, Repository};
use domain::session::signal;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::story::Story;
use super::vaults::{Hold, Safe};
use super::{Api, id};
use crate::resources::sessions::catch_up::catch_up;

const TOKEN: &str = "CANARY-token";

async fn opened() -> (Api, Arc<Safe>) {
    let safe = Arc::new(Safe::default());
    let api = Api::with(|options| options.egress = Some(safe.clone())).await;
    (api, safe)
}

fn repository(name: &str, with: Value) -> Value {
    let mut body = json!({"type": "github_repository", "url": format!("https://github.com/acme/{name}")});
    body.as_object_mut().unwrap().extend(with.as_object().unwrap().clone());
    body
}

#[tokio::test]
async fn a_token_goes_to_egress_with_the_refs_that_it_may_push_to_and_is_shown_nowhere() {
    let (api, safe) = opened().await;
    let session = api
        .session(json!({"resources": [
            repository("app", json!({"authorization_token": TOKEN, "checkout": {"type": "branch", "name": "main"}})),
            repository("read", json!({"mount_path": "/workspace/deep/read"})),
            repository("narrow", json!({"authorization_token": TOKEN, "push": ["refs/heads/agent/*"]})),
        ]}))
        .await;
    let resources = session["resources"].as_array().unwrap();
    let first = &resources[0];
    assert_eq!(
        *first,
        json!({"id": first["id"], "type": "github_repository", "url": "https://github.com/acme/app",
            "mount_path": "/workspace/app", "checkout": {"type": "branch", "name": "main"}, "push": ["refs/heads/*"],
            "created_at": session["created_at"], "updated_at": session["created_at"]})
    );
    assert_eq!(resources[1]["mount_path"], "/workspace/deep/read");
    let credential = |n: usize| CredentialId { vault: id(&session), credential: id(&resources[n]) };
    let reached = |n: usize, name: &str, push: &[&str]| Repository {
        url: format!("https://github.com/acme/{name}"),
        credential: (!push.is_empty()).then(|| credential(n)),
        push: push.iter().map(|&entry| entry.to_owned()).collect(),
    };
    assert_eq!(
        safe.policies.lock()[0].repositories,
        [reached(0, "app", &["refs/heads/*"]), reached(1, "read", &[]), reached(2, "narrow", &["refs/heads/agent/*"])]
    );
    assert_eq!(safe.held(), [TOKEN, TOKEN]);
    let input = serde_json::to_string(&api.engine.input(&id(&session))).unwrap();
    assert!(!input.contains("CANARY") && !session.to_string().contains("CANARY"));

    let at = |n: usize| format!("/v1/sessions/{}/resources/{}", id(&session), id(&resources[n]));
    let token = |token: &str| json!({"authorization_token": token});
    assert_eq!(api.post(&at(0), &token("CANARY-2")).await.ok(), *first);
    assert_eq!(safe.held().iter().filter(|held| *held == "CANARY-2").count(), 1);
    for (n, body) in [(0, token("")), (0, token("a b")), (0, json!({})), (1, token("x"))] {
        api.post(&at(n), &body).await.invalid();
    }
    api.delete(&at(0)).await.ok();
    assert_eq!(safe.held(), [TOKEN], "it goes with its resource");
}

#[tokio::test]
async fn a_fork_goes_on_with_tokens_of_its_own() {
    let (api, safe) = opened().await;
    let token = json!({"authorization_token": TOKEN});
    let session = api.session(json!({"resources": [repository("app", token)]})).await;
    let fork = api.post(&format!("/v1/sessions/{}/fork", id(&session)), &json!({})).await.ok();
    let credential = |session: &Value| CredentialId { vault: id(session), credential: id(&session["resources"][0]) };
    assert_ne!(credential(&session), credential(&fork));
    assert!(safe.secrets.lock().contains_key(&credential(&fork)));
    assert_eq!(safe.policies.lock()[1].repositories[0].credential, Some(credential(&fork)));
}

#[tokio::test]
async fn what_is_no_repository_is_refused_and_nothing_is_kept_of_it() {
    let (api, safe) = opened().await;
    let (agent, environment) = api.ground().await;
    let one = |with: Value| json!([repository("app", with)]);
    for (resources, at) in [
        (one(json!({"url": "http://github.com/acme/app"})), "resources[0].url"),
        (one(json!({"url": "https://user@github.com/acme/app"})), "resources[0].url"),
        (one(json!({"authorization_token": ""})), "resources[0].authorization_token"),
        (one(json!({"authorization_token": "a\nb"})), "resources[0].authorization_token"),
        (one(json!({"checkout": {"type": "branch", "name": "-x"}})), "resources[0].checkout"),
        (one(json!({"checkout": {"type": "commit", "sha": "abc"}})), "resources[0].checkout"),
        (one(json!({"mount_path": "/etc"})), "resources[0].mount_path"),
        (one(json!({"push": ["refs/heads/main"]})), "resources[0].push"),
        (one(json!({"push": ["main"], "authorization_token": "t"})), "resources[0].push"),
        (
            json!([repository("app", json!({})), repository("app.git", json!({"mount_path": "/workspace/b"}))]),
            "resources[1].url",
        ),
        (
            json!([repository("app", json!({})), repository("b", json!({"mount_path": "/workspace/app/b"}))]),
            "resources[1].mount_path",
        ),
    ] {
        let body = json!({"agent": agent, "environment_id": environment, "resources": resources});
        let answer = api.post("/v1/sessions", &body).await;
        assert_eq!(answer.status, 400, "{resources}: {}", answer.json());
        let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.starts_with(at), "{resources}: {message}");
    }
    let listed = json!([repository("app", json!({"url": "http://127.0.0.1:3000/acme/app"}))]);
    let body = json!({"agent": agent, "environment_id": environment, "resources": listed});
    api.post("/v1/sessions", &body).await.ok();
    assert!(safe.held().is_empty());
}

/// A session with one repository and its token: its story, and the paths of both.
async fn with_token(api: &Api) -> (Story, String, String) {
    let session = api.session(json!({"resources": [repository("app", json!({"authorization_token": TOKEN}))]})).await;
    let path = format!("/v1/sessions/{}", id(&session));
    let resource = format!("{path}/resources/{}", id(&session["resources"][0]));
    (Story::of(&api.engine, &id(&session)), path, resource)
}

/// Ends the session when it is told to, as a brain would.
fn ends(api: &Api, mut story: Story) -> tokio::task::JoinHandle<()> {
    let engine = api.engine.clone();
    tokio::spawn(async move {
        engine.signaled(&story.session_id, signal::CLOSE, 1).await;
        story.terminate();
    })
}

#[tokio::test]
async fn no_token_outlives_its_session() {
    let (api, safe) = opened().await;
    for fails in [&safe.is_gone, &safe.is_full] {
        let (_, path, _) = with_token(&api).await;
        *fails.lock() = true;
        api.delete(&path).await.ok();
        api.get(&path).await.refused(404, "not_found_error");
        catch_up(&api.app, Timestamp::MAX).await.unwrap();
        assert_eq!(safe.held(), [TOKEN]);
        *fails.lock() = false;
        catch_up(&api.app, Timestamp::MAX).await.unwrap();
        assert!(safe.held().is_empty());

        let (story, path, _) = with_token(&api).await;
        *fails.lock() = true;
        let ended = ends(&api, story);
        api.act(&format!("{path}/archive")).await.refused(503, "api_error");
        ended.await.unwrap();
        assert_eq!(api.get(&path).await.ok()["archived_at"], Value::Null);
        *fails.lock() = false;
        assert!(api.act(&format!("{path}/archive")).await.ok()["archived_at"].is_string());
        assert!(safe.held().is_empty());
    }
}

#[tokio::test]
async fn a_resource_is_there_until_its_token_is_gone() {
    let (api, safe) = opened().await;
    let (_, _, resource) = with_token(&api).await;
    *safe.is_full.lock() = true;
    api.delete(&resource).await.refused(503, "api_error");
    api.get(&resource).await.ok();
    *safe.is_full.lock() = false;
    api.delete(&resource).await.ok();
    api.get(&resource).await.refused(404, "not_found_error");
    assert!(safe.held().is_empty());
}

#[tokio::test]
async fn a_token_that_comes_as_the_session_ends_is_not_kept() {
    for deleted in [false, true] {
        let (api, safe) = opened().await;
        let (story, path, resource) = with_token(&api).await;
        let hold = Hold::new();
        *safe.hold.lock() = Some(hold.clone());
        let body = json!({"authorization_token": "CANARY-late"});
        let (rotated, ()) = tokio::join!(api.post(&resource, &body), async {
            hold.came.acquire().await.unwrap().forget();
            if deleted {
                api.delete(&path).await.ok();
            } else {
                let ended = ends(&api, story);
                api.act(&format!("{path}/archive")).await.ok();
                ended.await.unwrap();
            }
            assert!(safe.held().is_empty());
            hold.goes.add_permits(1);
        });
        assert!(rotated.invalid().contains("ended"));
        assert!(safe.held().is_empty());
    }
}
