use super::*;
use domain::{HandName, content::BlobRef, event::Permission};
use serde_json::json;
use std::future::pending;
use store::blobs::MemoryBlobs;

/// There are none: whoever asks for one is wrong.
struct NoHands;

#[async_trait]
impl Provider for NoHands {
    async fn provision(&self, _: &ProvisionInput) -> Result<Provisioned, Failure> {
        unreachable!("an MCP server needs no hand")
    }

    async fn execute(&self, _: &HandRef, _: ToolCall) -> Executed {
        unreachable!("an MCP server needs no hand")
    }

    async fn cancel(&self, _: &HandRef, _: &str) {
        unreachable!("an MCP server needs no hand")
    }

    async fn collect(&self, _: &HandRef) -> Result<Option<Vec<OutputFile>>, Failure> {
        unreachable!("an MCP server needs no hand")
    }

    async fn park(&self, _: &HandRef) -> Result<Option<Workspace>, Failure> {
        unreachable!("an MCP server needs no hand")
    }

    async fn release(&self, _: &HandRef) -> Result<(), Failure> {
        unreachable!("an MCP server needs no hand")
    }
}

fn call(input: Json) -> McpCallInput {
    let (server, tool) = ("docs".to_owned(), "add".to_owned());
    let kind = ToolKind::Mcp { server: server.clone(), tool: tool.clone(), inside: None };
    let call = Call {
        tool_use_id: "sevt_1".into(),
        name: "mcp__docs__add".into(),
        kind,
        input,
        input_sha256: String::new(),
        permission: Permission::Allow,
        hand: HandName::default(),
        refused: None,
    };
    McpCallInput { session_id: "sesn_1".into(), server, tool, call, turn_event: None }
}

#[tokio::test]
async fn a_tool_is_not_told_which_hand_it_runs_in() {
    let activities = HandsActivities::new(Arc::new(NoHands), Arc::new(MemoryBlobs::default()), McpServers::new(None));
    let said = async |hand: &str, kind: ToolKind| {
        let input = Json::Inline { value: json!({"command": "ls", "hand": "build"}) };
        let call = Call { kind, hand: HandName::parse(hand).unwrap(), ..call(input).call };
        activities.input(&call).await.unwrap()
    };
    assert_eq!(said("build", ToolKind::Builtin).await, json!({"command": "ls"}));
    // What is no name of a hand of ours is the tool's own to refuse, and an MCP server's own to take.
    let whole = json!({"command": "ls", "hand": "build"});
    assert_eq!(said("main", ToolKind::Builtin).await, whole);
    let mcp = ToolKind::Mcp { server: "docs".to_owned(), tool: "add".to_owned(), inside: None };
    assert_eq!(said("build", mcp).await, whole);
}

#[tokio::test]
async fn a_second_attempt_calls_nobody_and_knows_no_more_than_it_can() {
    let blobs = Arc::new(MemoryBlobs::default());
    let activities = HandsActivities::new(Arc::new(NoHands), blobs.clone(), McpServers::new(None));
    let said = async |input: &McpCallInput, attempt| {
        let executed = activities.call_once(input, attempt, pending()).await.unwrap();
        assert!(executed.is_error);
        let [Block::Text { text, .. }] = &executed.content[..] else { panic!("{executed:?}") };
        (executed.lost, text.clone())
    };
    let inline = call(Json::Inline { value: json!({"a": 1}) });
    let (lost, text) = said(&inline, 1).await;
    assert!(!lost && text.contains("nothing was called"), "{text}");
    let (lost, text) = said(&inline, 2).await;
    assert!(lost && text.contains("the worker that may have made the call is gone"), "{text}");

    // What no attempt could read was called by none, so the next one tries again.
    let bytes = br#"{"a": 1}"#;
    let input = call(Json::Blob(BlobRef { blob: store::Digest::of(bytes).to_string(), bytes: bytes.len() as u64 }));
    for attempt in [1, 2] {
        assert!(activities.call_once(&input, attempt, pending()).await.is_err());
    }
    blobs.put(bytes.to_vec().into()).await.unwrap();
    assert!(said(&input, 2).await.0);
}
