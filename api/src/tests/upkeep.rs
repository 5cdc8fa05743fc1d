//! Upkeep: what a crash kept from a row is made good before anything is swept.

use std::collections::BTreeSet;

use domain::committed::Genesis;
use domain::content::BlobRef;
use domain::event::StopReason;
use domain::limits::PAYLOAD_BYTES_MAX;
use domain::session::{Origin, OutputFile};
use domain::{Content, EventBody};
use jiff::{SignedDuration, Timestamp};
use log::manifest::Manifest;
use log::segment::Segment;
use serde_json::{Value, json};
use store::{Batch, Digest, Durability};
use temporalio_client::tonic::Status;

use super::events::{begun, user};
use super::story::Story;
use super::{Api, id};
use crate::resources::sessions::row::{self, SessionRow};
use crate::resources::sessions::sealed_runs;
use crate::tenants::Tenants;
use crate::upkeep::round;
use crate::{App, Options};

impl Api {
    /// As after a restart: the same stores and engine, and nobody remembers anything.
    async fn restarted(&self) -> App {
        self.restarted_with(|_| {}).await
    }

    pub(super) async fn restarted_with(&self, change: impl FnOnce(&mut Options)) -> App {
        let at = self.engine.connect().await;
        let mut options = Options::default();
        change(&mut options);
        App::open(self.app.catalog.clone(), self.app.blobs.clone(), at, options).await.unwrap()
    }
}

/// A turn whose answer is in a blob, recorded while no service is there.
async fn unseen_turn(api: &Api, story: &mut Story) -> Digest {
    let digest = api.app.blobs.put(r#"[{"type":"text","text":"hello"}]"#.into()).await.unwrap();
    let content = Content::Blob(BlobRef { blob: digest.to_string(), bytes: 32 });
    story.answer(vec![EventBody::AgentMessage { content }]);
    story.idle(StopReason::EndTurn {});
    digest
}

fn first_run(blob: BlobRef) -> Segment {
    Segment {
        run_id: "run-0".to_owned(),
        blob,
        key_id: 0,
        from: 0,
        to: 0,
        frames: Vec::new(),
        index: None,
        cut: None,
        state: None,
        shared: false,
    }
}

/// Activities that ended and that no commit names yet: what each left in blobs.
async fn unnamed_results(api: &Api, session_id: &str) -> BTreeSet<Digest> {
    let put = async |bytes: String| {
        let bytes_len = bytes.len() as u64;
        let digest = api.app.blobs.put(bytes.into()).await.unwrap();
        (digest, BlobRef { blob: digest.to_string(), bytes: bytes_len })
    };
    let (segment_digest, segment) = put("a segment".into()).await;
    let manifest =
        Manifest { session_id: session_id.into(), segments: vec![first_run(segment)], ..Manifest::default() };
    let (manifest_digest, manifest) = put(serde_json::to_string(&manifest).unwrap()).await;
    let (diff_digest, diff) = put("a diff".into()).await;
    let files = [OutputFile { path: OutputFile::DIFF.into(), blob: diff }];
    let (listing_digest, listing) = put(serde_json::to_string(&files).unwrap()).await;
    api.engine.activity(session_id, "seal-1", &json!({"run_id": "run-0", "manifest": manifest}));
    api.engine.activity(session_id, "collect-2", &json!({"listing": listing}));
    [segment_digest, manifest_digest, diff_digest, listing_digest].into()
}

fn later() -> Timestamp {
    Timestamp::now() + SignedDuration::from_hours(2)
}

#[tokio::test]
async fn blobs_of_a_turn_that_no_service_saw_are_referred_to_before_the_sweep() {
    let api = Api::new().await;
    let (mut story, _) = begun(&api, json!({})).await;
    let app = api.restarted().await;
    round(&Tenants::new(app.clone()), Timestamp::MAX, Timestamp::now()).await.unwrap().expect("everything can be read");
    let row = app.catalog.row::<SessionRow>(&story.session_id).await.unwrap().unwrap().row;
    let read = row.projection.unwrap();
    assert!(!read.open && read.read_to.is_some(), "the session rests, and the row knows how much it read");

    let digest = unseen_turn(&api, &mut story).await;
    let orphan = app.blobs.put("orphan".into()).await.unwrap();
    let swept = round(&Tenants::new(api.restarted().await), Timestamp::MAX, later()).await.unwrap().unwrap();
    assert_eq!(swept.blobs, 1);
    assert_eq!(app.blobs.has(orphan).await.unwrap(), None);
    assert!(app.blobs.has(digest).await.unwrap().is_some());
    let referred = row::referred(&*app.catalog, &story.session_id, 100).await.unwrap();
    assert!(referred.contains(&digest));
}

#[tokio::test]
async fn what_activities_left_is_kept_until_a_commit_names_it() {
    let api = Api::new().await;
    let (story, _) = begun(&api, json!({})).await;
    let left = unnamed_results(&api, &story.session_id).await;
    let app = api.restarted().await;
    let swept =
        round(&Tenants::new(app.clone()), Timestamp::MAX, later()).await.unwrap().expect("everything can be read");
    assert_eq!(swept.blobs, 0);
    let referred = row::referred(&*app.catalog, &story.session_id, 100).await.unwrap();
    assert!(left.is_subset(&referred.into_iter().collect()), "{left:?}");
}

#[tokio::test]
async fn nothing_is_swept_while_a_log_cannot_be_read() {
    let api = Api::new().await;
    let (mut story, _) = begun(&api, json!({})).await;
    unseen_turn(&api, &mut story).await;
    let orphan = api.app.blobs.put("orphan".into()).await.unwrap();
    api.engine.fail("DescribeWorkflowExecution", Status::unavailable("down"));
    let app = api.restarted().await;
    assert_eq!(round(&Tenants::new(app.clone()), Timestamp::MAX, later()).await.unwrap(), None);
    assert!(app.blobs.has(orphan).await.unwrap().is_some());
    api.engine.recover();
    assert_eq!(
        round(&Tenants::new(app.clone()), Timestamp::MAX, later()).await.unwrap().map(|swept| swept.blobs),
        Some(1)
    );
}

#[tokio::test]
async fn the_history_of_a_sealed_run_stays_while_its_segment_cannot_be_read() {
    let api = Api::new().await;
    let (story, _) = begun(&api, json!({})).await;
    let bytes = "a segment";
    let blob = BlobRef { blob: Digest::of(bytes.as_bytes()).to_string(), bytes: bytes.len() as u64 };
    let segment = first_run(blob);
    let now = Timestamp::now();
    let batch = sealed_runs::insert(Batch::new(), &story.session_id, &segment, now);
    api.app.catalog.write(batch, Durability::Synced).await.unwrap();
    let input = api.engine.input(&story.session_id);
    let Origin::Created { created_at, attributes, harness, .. } = input.from else { panic!("a first run") };
    let genesis = Some(Genesis { created_at, attributes, harness });
    let whole = Manifest { segments: vec![segment], genesis, ..Manifest::default() };
    let name = async |manifest: &Manifest| {
        let sealed = Some(log::blobs::put_json(&*api.app.blobs, manifest).await.unwrap());
        row::change(&*api.app.catalog, &story.session_id, Durability::Lazy, |row, batch| {
            Some((SessionRow { sealed: sealed.clone(), ..row.clone() }, batch))
        })
        .await
        .unwrap();
    };

    assert_eq!(sealed_runs::delete(&api.app, now).await.unwrap(), 0, "it is too early");
    assert_eq!(sealed_runs::delete(&api.app, later()).await.unwrap(), 0, "no manifest");
    name(&Manifest { segments: Vec::new(), ..whole.clone() }).await;
    assert_eq!(sealed_runs::delete(&api.app, later()).await.unwrap(), 0, "the manifest does not list it");
    name(&Manifest { genesis: None, ..whole.clone() }).await;
    assert_eq!(sealed_runs::delete(&api.app, later()).await.unwrap(), 0, "the manifest does not say how it began");
    name(&whole).await;
    assert_eq!(sealed_runs::delete(&api.app, later()).await.unwrap(), 0, "the segment is not there");
    assert_eq!(api.engine.calls("DeleteWorkflowExecution"), 0);
    api.app.blobs.put(bytes.into()).await.unwrap();
    assert_eq!(sealed_runs::delete(&api.app, later()).await.unwrap(), 1);
    assert_eq!(api.engine.calls("DeleteWorkflowExecution"), 1);
    assert_eq!(sealed_runs::delete(&api.app, later()).await.unwrap(), 0, "once is enough");
}

#[tokio::test]
async fn a_session_refers_to_the_payloads_that_its_history_claims() {
    let api = Api::new().await;
    let messages: Vec<Value> = (0..20).map(|_| user(&"x".repeat(31_000))).collect();
    let session = id(&api.session(json!({"initial_events": messages})).await);
    let list = api.get(&format!("/v1/sessions/{session}/events")).await.ok();
    assert_eq!(list["data"].as_array().unwrap().len(), messages.len());
    let blobs = api.app.blobs.list(None, 100).await.unwrap();
    let input = blobs.iter().max_by_key(|blob| blob.size).unwrap();
    assert!(input.size >= PAYLOAD_BYTES_MAX as u64, "the input was to be a claim");
    let referred = row::referred(&*api.app.catalog, &session, 100).await.unwrap();
    assert!(referred.contains(&input.digest));
}
