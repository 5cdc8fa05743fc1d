//! Sessions on the bare bed: the workflow, the frame, the log. Each on both engines.

use domain::EventBody;
use steadyhand_tests::bed::{Bed, On, message};

/// One function a scenario, one test an engine.
macro_rules! on_both {
    ($($scenario:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $scenario() -> anyhow::Result<()> {
                super::$scenario(super::On::Memory).await
            })*
        }
        mod temporal {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $scenario() -> anyhow::Result<()> {
                super::$scenario(super::On::Temporal).await
            })*
        }
    };
}

on_both![a_plain_turn, two_messages_make_two_turns_or_one];

const HELLO: &str = r#"
version = 1
[[rules]]
answer = [{ text = "You said: {{user}}" }]
"#;

async fn a_plain_turn(on: On) -> anyhow::Result<()> {
    let bed = Bed::new(on, HELLO).await?;
    bed.start("s1", vec![]).await?;
    bed.post("s1", vec![message("m1", "hello")]).await?;
    let mut log = bed.wait("s1", |log| log.end_position() >= 9).await?;
    assert_eq!(
        bed.types(&mut log).await?,
        [
            "user.message",
            "session.status_running",
            "session.thread_status_running",
            "span.model_request_start",
            "agent.message",
            "span.model_request_end",
            "session.thread_status_idle",
            "session.usage",
            "session.status_idle",
        ]
    );
    let entries = log.slice(&*bed.blobs, 0, 100).await?;
    let EventBody::AgentMessage { content } = &entries[4].event.body else { panic!("a message") };
    assert_eq!(*content, domain::Content::text("You said: hello"));
    assert!(entries[5].private.is_some(), "the raw answer hangs on the end of its span");
    bed.end().await
}

async fn two_messages_make_two_turns_or_one(on: On) -> anyhow::Result<()> {
    let bed = Bed::new(on, HELLO).await?;
    bed.start("s1", vec![message("m1", "one")]).await?;
    bed.post("s1", vec![message("m2", "two")]).await?;
    let mut log = bed.idle("s1").await?;
    let types = bed.types(&mut log).await?;
    assert_eq!(types.iter().filter(|name| **name == "user.message").count(), 2);
    assert_eq!(types.last(), Some(&"session.status_idle"));
    bed.end().await
}
