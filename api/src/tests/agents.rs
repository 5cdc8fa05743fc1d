//! The conformance checks of agents, 13 to 26.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Api, id};

async fn create(api: &Api, body: Value) -> Value {
    api.post("/v1/agents", &body).await.ok()
}

fn path(agent: &Value) -> String {
    format!("/v1/agents/{}", id(agent))
}

#[tokio::test]
async fn a_created_agent_is_complete() {
    let api = Api::new().await;
    let agent = create(&api, json!({"name": "a", "model": "claude-opus-5-5"})).await;
    assert!(id(&agent).starts_with("agent_01"));
    for time in ["created_at", "updated_at"] {
        agent[time].as_str().unwrap().parse::<Timestamp>().unwrap();
    }
    let mut rest = agent.clone();
    for field in ["id", "created_at", "updated_at"] {
        rest.as_object_mut().unwrap().remove(field);
    }
    let model = json!({"id": "claude-opus-5-5", "effort": {"type": "high"}, "speed": "standard"});
    let expected = json!({"type": "agent", "name": "a", "version": 1, "archived_at": null, "description": null,
        "system": null, "tools": [], "mcp_servers": [], "skills": [], "multiagent": null, "metadata": {}, "model": model,
        "execution_identity": {"type": "service_account"}});
    assert_eq!(rest, expected);
    assert_eq!(api.get(&path(&agent)).await.ok(), agent);
}

#[tokio::test]
async fn toolsets_come_back_with_their_defaults_and_dangling_ones_not_at_all() {
    let api = Api::new().await;
    let server = json!({"type": "url", "name": "s", "url": "https://mcp.example.com/"});
    let tools = json!([{"type": "agent_toolset_20260401"}, {"type": "mcp_toolset", "mcp_server_name": "s"}]);
    let body = json!({"name": "a", "model": "m", "tools": tools, "mcp_servers": [server]});
    let agent = create(&api, body.clone()).await;
    let default = |tool: usize| agent["tools"][tool]["default_config"].clone();
    assert_eq!(default(0), json!({"enabled": true, "permission_policy": {"type": "always_allow"}}));
    assert_eq!(default(1), json!({"enabled": true, "permission_policy": {"type": "always_ask"}}));
    for (field, value) in [("mcp_servers", json!([])), ("tools", json!([{"type": "agent_toolset_20260401"}]))] {
        let mut broken = body.clone();
        broken[field] = value;
        api.post("/v1/agents", &broken).await.invalid();
    }
}

#[tokio::test]
async fn an_update_makes_a_version_and_keeps_the_rest() {
    let api = Api::new().await;
    let agent = create(&api, json!({"name": "a", "model": "m", "system": "s", "metadata": {"a": "1"}})).await;
    let body = json!({"version": 1, "name": "b", "metadata": {"a": null, "b": "2"}});
    let updated = api.post(&path(&agent), &body).await.ok();
    assert_eq!((&updated["version"], &updated["name"], &updated["system"]), (&json!(2), &json!("b"), &json!("s")));
    assert_eq!(updated["metadata"], json!({"b": "2"}));
    assert_eq!(updated["created_at"], agent["created_at"]);
    assert!(updated["updated_at"].as_str() > agent["updated_at"].as_str());
    let cleared = api.post(&path(&agent), &json!({"system": null})).await.ok();
    assert_eq!((&cleared["version"], &cleared["system"]), (&json!(3), &Value::Null));
    assert!(api.post(&path(&agent), &json!({"name": null})).await.invalid().starts_with("name: cannot be null"));
}

#[tokio::test]
async fn a_stale_version_is_a_conflict_that_is_not_retried_even_where_nothing_would_change() {
    let api = Api::new().await;
    let agent = create(&api, json!({"name": "a", "model": "m"})).await;
    api.post(&path(&agent), &json!({"name": "b"})).await.ok();
    for body in [json!({"version": 1}), json!({"version": 1, "name": "b"}), json!({"version": 3})] {
        let answer = api.post(&path(&agent), &body).await;
        assert_eq!(answer.headers["x-should-retry"], "false");
        answer.refused(409, "conflict_error");
    }
}

#[tokio::test]
async fn an_update_without_effect_keeps_the_version() {
    let api = Api::new().await;
    let tools = json!([{"type": "agent_toolset_20260401", "configs": [{"name": "bash"}]}]);
    let agent = create(&api, json!({"name": "a", "model": "m", "tools": tools})).await;
    for body in [json!({}), json!({"version": 1}), json!({"name": "a", "tools": tools}), json!({"system": ""})] {
        assert_eq!(api.post(&path(&agent), &body).await.ok(), agent);
    }
    // What a client got can be sent back whole.
    let mut echo = agent.clone();
    for field in ["id", "type", "created_at", "updated_at", "archived_at"] {
        echo.as_object_mut().unwrap().remove(field);
    }
    assert_eq!(api.post(&path(&agent), &echo).await.ok(), agent);
}

#[tokio::test]
async fn metadata_has_limits() {
    let api = Api::new().await;
    let many: Value = (0..17).map(|n| (n.to_string(), json!("x"))).collect();
    for metadata in [many, json!({"k".repeat(65): "x"}), json!({"k": "v".repeat(513)})] {
        let body = json!({"name": "a", "model": "m", "metadata": metadata});
        assert!(api.post("/v1/agents", &body).await.invalid().starts_with("metadata:"));
    }
}

#[tokio::test]
async fn old_versions_stay_as_they_were() {
    let api = Api::new().await;
    let agent = create(&api, json!({"name": "v1", "model": "m"})).await;
    for version in 2..=5 {
        api.post(&path(&agent), &json!({"name": format!("v{version}")})).await.ok();
    }
    assert_eq!(api.get(&format!("{}?version=1", path(&agent))).await.ok(), agent);
    for version in 1..=5 {
        let found = api.get(&format!("{}?version={version}", path(&agent))).await.ok();
        assert_eq!((&found["version"], &found["name"]), (&json!(version), &json!(format!("v{version}"))));
    }
    api.get(&format!("{}?version=6", path(&agent))).await.refused(404, "not_found_error");
    for version in ["0", "-1", "x", "1.5"] {
        api.get(&format!("{}?version={version}", path(&agent))).await.invalid();
    }
    for limit in [1, 2, 5, 100] {
        let (mut seen, mut page) = (Vec::new(), String::new());
        loop {
            let answer = api.get(&format!("{}/versions?limit={limit}{page}", path(&agent))).await.ok();
            seen.extend(answer["data"].as_array().unwrap().iter().map(|row| row["version"].as_u64().unwrap()));
            match answer["next_page"].as_str() {
                Some(next) => page = format!("&page={next}"),
                None => break,
            }
        }
        assert_eq!(seen, [5, 4, 3, 2, 1]);
    }
}

#[tokio::test]
async fn an_archived_agent_stands_still() {
    let api = Api::new().await;
    let agent = create(&api, json!({"name": "a", "model": "m"})).await;
    let other = create(&api, json!({"name": "b", "model": "m"})).await;
    let archived = api.act(&format!("{}/archive", path(&agent))).await.ok();
    archived["archived_at"].as_str().unwrap().parse::<Timestamp>().unwrap();
    assert_eq!(api.act(&format!("{}/archive", path(&agent))).await.ok(), archived);
    api.post(&path(&agent), &json!({"name": "c"})).await.invalid();
    assert_eq!(api.get(&path(&agent)).await.ok(), archived);
    assert_eq!(api.walk("/v1/agents", 10).await, [id(&other)]);
    assert_eq!(api.walk("/v1/agents?include_archived=true", 10).await, [id(&other), id(&agent)]);
    assert_eq!(api.walk("/v1/agents?include_archived=false", 10).await, [id(&other)]);
}

#[tokio::test]
async fn lists_are_newest_first_in_pages_and_by_time() {
    let api = Api::new().await;
    let mut agents = Vec::new();
    for n in 0..7 {
        agents.push(create(&api, json!({"name": n.to_string(), "model": "m"})).await);
    }
    agents.reverse();
    let ids: Vec<String> = agents.iter().map(id).collect();
    for limit in [1, 3, 7, 100] {
        assert_eq!(api.walk("/v1/agents", limit).await, ids);
    }
    let time = |n: usize| agents[n]["created_at"].as_str().unwrap().replace('+', "%2B");
    let filter = |operator: &str, n: usize| format!("/v1/agents?created_at[{operator}]={}", time(n));
    assert_eq!(api.walk(&filter("gte", 2), 2).await, ids[..=2]);
    assert_eq!(api.walk(&filter("lte", 2), 2).await, ids[2..]);
    let both = format!("{}&created_at[lte]={}", filter("gte", 4), time(1));
    assert_eq!(api.walk(&both, 2).await, ids[1..=4]);

    let page = api.get("/v1/agents?limit=2").await.ok();
    let next = page["next_page"].as_str().unwrap();
    assert!(next.starts_with("page_"));
    api.get(&format!("{}&page={next}", filter("gte", 0))).await.invalid();
    api.get(&format!("/v1/environments?page={next}")).await.invalid();
    for query in ["page=nonsense", "limit=0", "limit=101", "limit=ten", "include_archived=1", "created_at[gte]=now"] {
        api.get(&format!("/v1/agents?{query}")).await.invalid();
    }
}

#[tokio::test]
async fn an_agent_made_between_two_pages_moves_nothing() {
    let api = Api::new().await;
    let mut ids = Vec::new();
    for n in 0..4 {
        ids.push(id(&create(&api, json!({"name": n.to_string(), "model": "m"})).await));
    }
    let first = api.get("/v1/agents?limit=2").await.ok();
    create(&api, json!({"name": "late", "model": "m"})).await;
    let next = first["next_page"].as_str().unwrap();
    let second = api.get(&format!("/v1/agents?limit=2&page={next}")).await.ok();
    let seen: Vec<String> =
        [&first, &second].iter().flat_map(|page| page["data"].as_array().unwrap()).map(id).collect();
    ids.reverse();
    assert_eq!(seen, ids);
}

/// Without a version the last write wins, and each one counts: none is lost and none is a conflict.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn updates_at_the_same_time_all_count() {
    let api = Arc::new(Api::new().await);
    let agent = create(&api, json!({"name": "a", "model": "m"})).await;
    let updates: Vec<_> = (0..8)
        .map(|n| {
            let (api, path) = (api.clone(), path(&agent));
            tokio::spawn(async move { api.post(&path, &json!({"metadata": {format!("k{n}"): "x"}})).await.ok() })
        })
        .collect();
    for update in updates {
        update.await.unwrap();
    }
    let agent = api.get(&path(&agent)).await.ok();
    assert_eq!(agent["version"], 9);
    assert_eq!(agent["metadata"].as_object().unwrap().len(), 8);
}

#[tokio::test]
async fn a_session_can_resolve_its_agent() {
    use crate::resources::agents::snapshot;

    let api = Api::new().await;
    let agent = create(&api, json!({"name": "v1", "model": "m", "metadata": {"a": "1"}})).await;
    api.post(&path(&agent), &json!({"name": "v2"})).await.ok();
    let resolve = async |param: Value| {
        let snapshot = snapshot::resolve(&api.app, serde_json::from_value(param).unwrap()).await?;
        Ok::<_, crate::ApiError>(serde_json::to_value(snapshot).unwrap())
    };
    let newest = resolve(json!(id(&agent))).await.unwrap();
    assert_eq!((&newest["name"], &newest["version"]), (&json!("v2"), &json!(2)));
    assert!(newest.get("metadata").is_none() && newest.get("created_at").is_none());
    let pinned = resolve(json!({"type": "agent", "id": id(&agent), "version": 1})).await.unwrap();
    assert_eq!((&pinned["name"], &pinned["version"]), (&json!("v1"), &json!(1)));
    let overrides = json!({"type": "agent_with_overrides", "id": id(&agent), "version": 1, "system": "own"});
    let overridden = resolve(overrides).await.unwrap();
    assert_eq!((&overridden["system"], &overridden["version"]), (&json!("own"), &json!(1)));
    assert_eq!(api.get(&path(&agent)).await.ok()["version"], 2);
    assert!(resolve(json!("agent_no")).await.is_err());
    assert!(resolve(json!({"type": "agent", "id": id(&agent), "version": 9})).await.is_err());
    api.act(&format!("{}/archive", path(&agent))).await.ok();
    assert!(resolve(json!(id(&agent))).await.is_err());
}

#[tokio::test]
async fn the_policy_auto_needs_a_service_in_which_a_model_judges() {
    let auto = json!({"name": "a", "model": "m", "tools": [
        {"type": "agent_toolset_20260401", "default_config": {"permission_policy": {"type": "auto"}}}]});
    let api = Api::new().await;
    let message = api.post("/v1/agents", &auto).await.invalid();
    assert!(message.starts_with("tools[0].default_config.permission_policy: auto needs a model"), "{message}");
    let agent = api.post("/v1/agents", &json!({"name": "a", "model": "m"})).await.ok();
    let path = format!("/v1/agents/{}", id(&agent));
    api.post(&path, &json!({"tools": auto["tools"]})).await.invalid();
    assert_eq!(api.get(&path).await.ok()["version"], 1);
    let environment = api.post("/v1/environments", &json!({"name": "e"})).await.ok();
    let overridden = json!({"type": "agent_with_overrides", "id": id(&agent), "tools": auto["tools"]});
    api.post("/v1/sessions", &json!({"agent": overridden, "environment_id": id(&environment)})).await.invalid();

    let api = Api::with(|options| options.judges = true).await;
    let agent = api.post("/v1/agents", &auto).await.ok();
    assert_eq!(agent["tools"][0]["default_config"]["permission_policy"], json!({"type": "auto"}));
}
