//! What the host owes its callers when the store does not keep its word.

use super::*;
use crate::clock::SystemClock;
use crate::core::signal::Signal;
use crate::pb::common::v1::{WorkflowExecution, WorkflowType};
use crate::pb::taskqueue::v1::TaskQueue;
use crate::store::suite::Breaking;

#[tokio::test]
async fn a_write_that_failed_is_not_acknowledged_and_none_is_accepted_after_it() {
    let store = Arc::new(Breaking::default());
    let host = Host::new(store, Arc::new(SystemClock), Limits::default(), 10, 7).expect("a host");
    let host = Arc::new(host);
    let start = Start {
        namespace: "default".into(),
        request_id: "r".into(),
        started: WorkflowExecutionStartedEventAttributes {
            workflow_id: "w".into(),
            workflow_type: Some(WorkflowType { name: "W".into() }),
            task_queue: Some(TaskQueue { name: "q".into(), ..Default::default() }),
            ..Default::default()
        },
        user_metadata: None,
        reuse: Default::default(),
        conflict: Default::default(),
        signal: None,
    };
    host.start(start).await.expect("the first write goes well");
    let execution = WorkflowExecution { workflow_id: "w".into(), run_id: String::new() };
    let slot = host.resolve("default", &execution).expect("is there");
    let seen = slot.seen();
    for _ in 0..2 {
        let signal =
            Signal { name: "s".into(), input: None, identity: String::new(), header: None, request_id: String::new() };
        let refused = host.transact(&slot, signal, Durability::Synced).await;
        assert!(matches!(refused, Err(Error::Store(_))), "{refused:?}");
        assert_eq!(slot.seen(), seen, "readers see nothing of it");
    }
}
