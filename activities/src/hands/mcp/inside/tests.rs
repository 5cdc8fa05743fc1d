use super::*;
use crate::hands::Provisioned;
use async_trait::async_trait;
use domain::{
    Failure, HandName,
    agent::{McpProgram, ModelParams, Policy, ToolConfig, ToolKind},
    session::{OutputFile, ProvisionInput, Workspace},
};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use store::blobs::MemoryBlobs;

/// A hand whose servers say what they are told to, by their names.
struct Says {
    says: BTreeMap<&'static str, Executed>,
    asked: Mutex<Vec<(String, Asked)>>,
}

#[async_trait]
impl Provider for Says {
    async fn provision(&self, _: &ProvisionInput) -> Result<Provisioned, Failure> {
        unreachable!("the hand is there")
    }

    async fn execute(&self, _: &HandRef, call: ToolCall) -> Executed {
        assert_eq!(call.name, NAME);
        let asked: Asked = serde_json::from_value(call.input).unwrap();
        let said = self.says[asked.server.as_str()].clone();
        self.asked.lock().push((call.id, asked));
        said
    }

    async fn cancel(&self, _: &HandRef, _: &str) {
        unreachable!("nobody cancels")
    }

    async fn collect(&self, _: &HandRef) -> Result<Option<Vec<OutputFile>>, Failure> {
        unreachable!("nobody collects")
    }

    async fn park(&self, _: &HandRef) -> Result<Option<Workspace>, Failure> {
        unreachable!("nobody parks")
    }

    async fn release(&self, _: &HandRef) -> Result<(), Failure> {
        unreachable!("nobody releases")
    }
}

fn said(answer: &Answer) -> Executed {
    Executed { is_error: false, ..Executed::error(serde_json::to_string(answer).unwrap()) }
}

fn toolset(server: &str, at: McpAt) -> McpToolset {
    let default = ToolConfig { enabled: true, policy: Policy::AlwaysAllow };
    McpToolset { server: server.to_owned(), at, default, tools: BTreeMap::new() }
}

fn program() -> McpProgram {
    let env = BTreeMap::from([("LEVEL".to_owned(), "info".to_owned())]);
    McpProgram { hand: HandName::default(), command: "python3".to_owned(), args: vec!["-m".into(), "s".into()], env }
}

fn agent() -> AgentSnapshot {
    let names = ["good", "dead", "odd", "refuses"];
    let inside = names.map(|server| toolset(server, McpAt::Inside { inside: program() }));
    let outside = toolset("outside", McpAt::Url { url: "https://s.test".to_owned() });
    AgentSnapshot {
        public: json!({}),
        model: ModelParams { id: "m".to_owned(), effort: None, speed: None, max_tokens: 1 },
        system: None,
        tools: Vec::new(),
        mcp: inside.into_iter().chain([outside]).collect(),
        web_fetch: None,
    }
}

#[tokio::test]
async fn those_that_answer_are_in_the_agent_and_of_the_others_it_is_said_why() {
    let tools = [json!({"name": "add", "inputSchema": {"type": "object"}})];
    let says = BTreeMap::from([
        ("good", said(&Answer::Tools(tools.into()))),
        ("dead", Executed::error(format!("{}its last words", "x".repeat(2 * SAID_CHARS)))),
        ("odd", said(&Answer::Tools(vec![json!(7)]))),
        ("refuses", said(&Answer::Refused { code: 1, message: "not today".to_owned() })),
    ]);
    let hand = HandRef { hand: "hand_1".to_owned(), host: "h".to_owned(), epoch: 1 };
    let (provider, blobs) = (Says { says, asked: Mutex::default() }, MemoryBlobs::default());
    let input = ListInput {
        session_id: "sesn_1".to_owned(),
        snapshot: log::blobs::put_json(&blobs, &agent()).await.unwrap(),
        servers: ["good", "dead", "odd", "refuses"].map(str::to_owned).into(),
        hand: Some(hand.clone()),
        turn_event: None,
    };
    let outcome = list(&provider, &blobs, &input, &hand, "list-1-in-main").await.unwrap();
    let listed = outcome.listed.unwrap();
    assert_eq!(listed.servers, ["good"]);
    let kind = ToolKind::Mcp { server: "good".to_owned(), tool: "add".to_owned(), inside: Some(HandName::default()) };
    assert_eq!((listed.tools[0].name.as_str(), &listed.tools[0].kind), ("mcp__good__add", &kind));
    let problems: Vec<_> = outcome.problems.iter().map(|problem| (&problem.kind, problem.message.as_str())).collect();
    for ((kind, message), (server, why)) in problems.iter().zip([
        ("dead", "its last words"),
        ("odd", "its list of tools is none"),
        ("refuses", "not today"),
    ]) {
        assert_eq!(**kind, ErrorKind::McpConnectionFailed { mcp_server_name: server.to_owned() });
        assert!(message.contains(why) && message.chars().count() < SAID_CHARS + 100, "{message}");
    }
    assert!(problems.len() == 3 && !outcome.hand_lost);

    // Another attempt asks under the same ids, so that the hand's journal knows them.
    list(&provider, &blobs, &input, &hand, "list-1-in-main").await.unwrap();
    let asked = provider.asked.lock();
    let ids: Vec<&String> = asked.iter().map(|(id, _)| id).collect();
    assert_eq!(ids[..4], ids[4..]);
    assert!(ids[..4].iter().all(|id| ids[..4].iter().filter(|other| *other == id).count() == 1));
    let Asked { program: started, request, .. } = &asked[0].1;
    let env = program().env;
    assert_eq!(*started, Program { command: "python3".into(), args: vec!["-m".into(), "s".into()], env });
    assert_eq!(*request, Request::List {});
}

#[tokio::test]
async fn a_hand_that_is_gone_is_said_to_be() {
    let (hand, blobs) = (HandRef { hand: "hand_1".to_owned(), host: "h".to_owned(), epoch: 1 }, MemoryBlobs::default());
    let says = BTreeMap::from([("good", Executed::hand_lost("no folder"))]);
    let input = ListInput {
        session_id: "sesn_1".to_owned(),
        snapshot: log::blobs::put_json(&blobs, &agent()).await.unwrap(),
        servers: vec!["good".to_owned()],
        hand: Some(hand.clone()),
        turn_event: None,
    };
    let outcome = list(&Says { says, asked: Mutex::default() }, &blobs, &input, &hand, "list-1-in-main").await.unwrap();
    assert!(outcome.hand_lost && outcome.listed.is_none() && outcome.problems.len() == 1);
}

#[test]
fn what_a_hand_says_of_a_call_becomes_its_result() {
    let text = |executed: &Executed| match &executed.content[..] {
        [Block::Text { text }] => text.clone(),
        other => panic!("{other:?}"),
    };
    let good = executed(said(&Answer::Result(json!({"content": [{"type": "text", "text": "5"}]}))));
    assert!(!good.is_error && text(&good) == "5");
    let failed = json!({"content": [{"type": "text", "text": "no"}], "isError": true});
    assert!(executed(said(&Answer::Result(failed))).is_error);
    let refused = executed(said(&Answer::Refused { code: -32602, message: "no such tool".to_owned() }));
    assert!(refused.is_error && text(&refused) == "The MCP server refused the call: no such tool");
    for odd in [Executed { is_error: false, ..Executed::error("not JSON") }, said(&Answer::Tools(Vec::new()))] {
        let odd = executed(odd);
        assert!(odd.is_error && text(&odd).contains("cannot be read"));
    }
    let lost = executed(Executed::hand_lost("gone"));
    assert!(lost.lost && lost.hand_lost);
}

#[test]
fn only_servers_in_a_hand_are_called_there() {
    let agent = agent();
    let call = tool_call(&agent, "sevt_1", "good", "add", json!({"a": 1})).unwrap();
    assert_eq!((call.id.as_str(), call.name.as_str()), ("sevt_1", NAME));
    assert_eq!(call.input["request"]["call"], json!({"tool": "add", "arguments": {"a": 1}}));
    for server in ["outside", "nobody"] {
        assert!(tool_call(&agent, "sevt_1", server, "add", json!({})).is_none());
    }
}
