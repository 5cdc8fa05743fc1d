//! From start to result.

use crate::fixture::{QUEUE, WorkerShape, beside_worker, client, history, memory, names};
use crate::workflows::Everything;
use temporalio_client::{WorkflowGetResultOptions, WorkflowSignalOptions, WorkflowStartOptions};

#[tokio::test]
async fn activity_signal_timer_and_marker_make_the_history_that_a_server_makes() {
    let engine = memory();
    let client = client(&engine).await;
    let events = beside_worker(&client, WorkerShape::default(), async {
        let options = WorkflowStartOptions::new(QUEUE, "all").build();
        let handle = client.start_workflow(Everything::run, "hi".to_owned(), options).await.expect("starts");
        handle.signal(Everything::go, 7, WorkflowSignalOptions::default()).await.expect("signals");
        let result = handle.get_result(WorkflowGetResultOptions::default()).await.expect("completes");
        assert_eq!(result, "<<hi>>");
        history(&handle).await
    })
    .await;
    assert_eq!(names(&events)[..2], ["WorkflowExecutionStarted", "WorkflowTaskScheduled"]);
    assert_eq!(names(&events)[events.len() - 2..], ["MarkerRecorded", "WorkflowExecutionCompleted"]);
    engine.shutdown().await;
    assert!(engine.verify().expect("can be read").is_sound());
}
