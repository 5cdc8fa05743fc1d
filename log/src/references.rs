//! Which blobs a log needs: everything that a reader of it, a later model request or an audit has to find again.
//!
//! Known shapes only. What a model or a user wrote is never searched for things that look like a reference: it would
//! keep, or miss, whatever they liked.
//!
//! Files that have a row of their own (uploads of a session, what it left in its outputs) are that row's to keep: who
//! deletes the file wants its bytes gone.

use crate::{
    blobs::{self, Error},
    manifest::Manifest,
};
use domain::{
    Committed, Content, Event, PrivateEntry, Summary, Take,
    agent::HarnessRef,
    committed::ActivityResult,
    content::{BlobRef, Json},
    outcome::{CollectOutcome, ListOutcome, ModelDigest, ParkOutcome, SealOutcome},
    session::{Change, Mail, OutputFile, ResourceKind, Workspace},
};
use serde::{Deserialize as _, de::DeserializeOwned};
use std::collections::BTreeSet;
use store::{Blobs, Digest, blobs::Error as StoreError};

/// Blobs by digest, and what leads to more of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needed {
    pub blobs: BTreeSet<Digest>,
    listings: BTreeSet<Digest>,
    /// Listings whose files have no rows.
    workspaces: BTreeSet<Digest>,
    manifests: BTreeSet<Digest>,
    /// What harnesses are known by: the digest of a module among the blobs, or of source that was compiled in.
    harnesses: BTreeSet<Digest>,
}

impl Needed {
    pub fn is_empty(&self) -> bool {
        self.blobs.is_empty()
    }

    pub fn clear(&mut self) {
        *self = Needed::default();
    }

    pub fn blob(&mut self, blob: &BlobRef) {
        // What is no digest was not put by anyone.
        self.blobs.extend(blob.blob.parse::<Digest>());
    }

    /// Everything that a commit names, whether or not it took it.
    pub fn commit(&mut self, committed: &Committed) {
        for take in &committed.commit.takes {
            match take {
                Take::Inline { event, .. } => self.event(event),
                Take::Private { entry: PrivateEntry::RunSealed { manifest, .. } } => self.sealed(manifest),
                Take::Private { entry: PrivateEntry::Outputs { listing } } => self.listing(listing),
                Take::Private { entry: PrivateEntry::HandParked { workspace, .. } } => self.workspace(workspace),
                Take::Private { entry: PrivateEntry::ToolsListed { listed } } => self.blob(&listed.snapshot),
                Take::Private { entry: PrivateEntry::SwapRequested { harness, .. } } => self.harness(harness),
                Take::Private { entry: PrivateEntry::Forked { fork } } => {
                    self.blob(&fork.attributes.agent.snapshot);
                    self.harness(&fork.harness);
                }
                Take::Accepted { .. } | Take::Result { .. } | Take::Private { .. } => {}
            }
        }
        committed.mail.iter().for_each(|mail| self.mail(mail));
        committed.results.iter().for_each(|named| self.result(&named.result));
    }

    /// What an activity left, whether or not a commit names it.
    pub fn result(&mut self, result: &ActivityResult) {
        result.events.iter().for_each(|event| self.event(event));
        if let Some(private) = &result.private {
            self.json(&private.blocks);
            self.blob(&private.recipe.snapshot);
        }
        // Only `call_model`'s digest has calls; other results have digests of other shapes.
        let digest = result.rest.get("digest").and_then(|digest| ModelDigest::deserialize(digest).ok());
        if let Some(ModelDigest::Answer { calls, .. }) = digest {
            calls.iter().for_each(|call| self.json(&call.input));
        }
        // Other results have neither field.
        if let Ok(SealOutcome { manifest, .. }) = SealOutcome::deserialize(&result.rest) {
            self.sealed(&manifest);
        }
        if let Ok(ListOutcome { listed: Some(listed), .. }) = ListOutcome::deserialize(&result.rest) {
            self.blob(&listed.snapshot);
        }
        if let Ok(CollectOutcome { listing: Some(listing) }) = CollectOutcome::deserialize(&result.rest) {
            self.listing(&listing);
        }
        if let Ok(ParkOutcome::Parked { workspace }) = ParkOutcome::deserialize(&result.rest) {
            self.workspace(&workspace);
        }
    }

    /// Something accepted, committed or not.
    pub fn mail(&mut self, mail: &Mail) {
        match mail {
            Mail::Event { event } => self.event(event),
            Mail::Change { change: Change { agent: Some(agent), .. } } => {
                self.blob(&agent.facts.snapshot);
                self.json(&agent.public);
            }
            Mail::Swap { swap } => self.harness(&swap.harness),
            Mail::Handed { handed } => self.workspace(&handed.workspace),
            Mail::Change { .. } | Mail::Give { .. } | Mail::Close { .. } => {}
        }
    }

    pub fn event(&mut self, event: &Event) {
        if let Some(blob) = event.body.content().and_then(Content::blob) {
            self.blob(blob);
        }
        if let Some(json) = blobs::json(&event.body) {
            self.json(json);
        }
    }

    fn json(&mut self, json: &Json) {
        if let Json::Blob(blob) = json {
            self.blob(blob);
        }
    }

    fn listing(&mut self, listing: &BlobRef) {
        self.blob(listing);
        self.listings.extend(listing.blob.parse::<Digest>());
    }

    fn workspace(&mut self, workspace: &Workspace) {
        self.blob(&workspace.listing);
        self.workspaces.extend(workspace.listing.blob.parse::<Digest>());
    }

    fn sealed(&mut self, manifest: &BlobRef) {
        self.blob(manifest);
        self.manifests.extend(manifest.blob.parse::<Digest>());
    }

    /// What a session needs whatever its commits say.
    pub fn summary(&mut self, summary: &Summary) {
        self.blob(&summary.attributes.agent.snapshot);
        for resource in &summary.attributes.resources {
            match &resource.kind {
                ResourceKind::GitBundle { blob } => self.blob(blob),
                // A file has a reference of its own, and a repository's bytes are elsewhere.
                ResourceKind::File { .. } | ResourceKind::GithubRepository { .. } => {}
            }
        }
        summary.manifest.iter().for_each(|manifest| self.blob(manifest));
        self.harness(&summary.harness);
    }

    fn harness(&mut self, harness: &HarnessRef) {
        self.harnesses.extend(harness.sha256.parse::<Digest>());
    }

    /// What it lists itself: what its pages list was needed already when earlier manifests listed that.
    pub fn manifest(&mut self, manifest: &Manifest) {
        manifest.listed().for_each(|blob| self.blob(blob));
    }

    /// Follows what leads to more: listings, whose diffs have no row of their own, manifests that no summary has yet,
    /// and harnesses that are modules.
    pub async fn resolve(&mut self, store: &dyn Blobs) -> Result<(), Error> {
        while let Some(digest) = self.harnesses.first().copied() {
            let found = store.has(digest).await;
            if found.map_err(|source| Error::Store { hash: digest.to_string(), source })?.is_some() {
                self.blobs.insert(digest);
            }
            self.harnesses.remove(&digest);
        }
        while let Some(digest) = self.manifests.first().copied() {
            if let Some(manifest) = readable::<Manifest>(store, digest).await? {
                self.manifest(&manifest);
            }
            self.manifests.remove(&digest);
        }
        while let Some(digest) = self.listings.first().copied() {
            let files = readable::<Vec<OutputFile>>(store, digest).await?.unwrap_or_default();
            files.iter().filter(|file| file.path == OutputFile::DIFF).for_each(|diff| self.blob(&diff.blob));
            self.listings.remove(&digest);
        }
        while let Some(digest) = self.workspaces.first().copied() {
            let pieces = readable::<Vec<OutputFile>>(store, digest).await?.unwrap_or_default();
            pieces.iter().for_each(|piece| self.blob(&piece.blob));
            self.workspaces.remove(&digest);
        }
        Ok(())
    }
}

/// `None` for what is damaged: `verify` names it, and nothing that is there is lost for it.
async fn readable<T: DeserializeOwned>(store: &dyn Blobs, digest: Digest) -> Result<Option<T>, Error> {
    match blobs::get_json(store, &BlobRef { blob: digest.to_string(), bytes: 0 }).await {
        Ok(value) => Ok(Some(value)),
        Err(Error::Store { source: StoreError::Missing { .. } | StoreError::Corrupt { .. }, .. })
        | Err(Error::Decode { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{segment::Segment, testing};
    use domain::EventBody;
    use serde_json::{Value, json};
    use store::MemoryBlobs;

    fn blob(of: &str) -> BlobRef {
        BlobRef { blob: Digest::of(of.as_bytes()).to_string(), bytes: of.len() as u64 }
    }

    fn at_blob(of: &str) -> Value {
        serde_json::to_value(Json::Blob(blob(of))).unwrap()
    }

    fn committed(takes: Vec<Take>, mail: Value, results: Value) -> Committed {
        let commit = testing::commit(0, takes);
        Committed {
            commit,
            position: 0,
            mail: serde_json::from_value(mail).unwrap(),
            results: serde_json::from_value(results).unwrap(),
        }
    }

    fn needed(committed: &Committed) -> BTreeSet<Digest> {
        let mut needed = Needed::default();
        needed.commit(committed);
        needed.blobs
    }

    fn digests(of: &[&str]) -> BTreeSet<Digest> {
        of.iter().map(|of| Digest::of(of.as_bytes())).collect()
    }

    #[test]
    fn every_place_of_a_commit_that_names_a_blob_is_known() {
        let message = EventBody::AgentMessage { content: Content::Blob(blob("inline")) };
        let takes = vec![
            Take::Inline { event: Event { id: "e".into(), body: message, processed_at: None }, private: None },
            Take::Private { entry: PrivateEntry::RunSealed { run_id: "r".into(), manifest: blob("manifest") } },
            Take::Private { entry: PrivateEntry::Outputs { listing: blob("listing") } },
        ];
        let facts = json!({"agent_id": "a", "version": 1, "name": "a", "model": "m", "window_tokens": 1, "max_tokens": 1,
            "tools": [], "strategy": {"name": "s", "version": 1}, "snapshot": blob("changed snapshot")});
        let mail = json!([
            {"mail": "event", "event": {"id": "m", "type": "user.message", "content": blob("message")}},
            {"mail": "change", "change": {"id": "c", "agent": {"facts": facts, "public": at_blob("public")}}},
        ]);
        let call = json!({"tool_use_id": "t", "name": "bash", "kind": "builtin", "input": at_blob("digest input"),
            "input_sha256": "", "permission": "allow"});
        let usage = serde_json::to_value(domain::Usage::default()).unwrap();
        let results = json!([{
            "activity": "model-1",
            "events": [{"id": "u", "type": "agent.tool_use", "name": "bash", "input": at_blob("event input")}],
            "private": {"blocks": at_blob("blocks"), "tool_ids": {}, "recipe": {"from": 0, "to": 0, "serializer": 1,
                "strategy": {"name": "s", "version": 1}, "snapshot": blob("snapshot"), "request_sha256": ""}},
            "digest": {"outcome": "answer", "stop_reason": "", "usage": usage, "blocks": [], "calls": [call]},
        }]);
        assert_eq!(
            needed(&committed(takes, mail, results)),
            digests(&[
                "inline",
                "manifest",
                "listing",
                "message",
                "changed snapshot",
                "public",
                "digest input",
                "event input",
                "blocks",
                "snapshot"
            ])
        );
    }

    #[test]
    fn what_a_model_or_a_user_wrote_is_no_reference() {
        let lookalike = json!({"at": "inline", "value": {"blob": blob("secret of another").blob, "bytes": 3}});
        let results = json!([{
            "activity": "model-1",
            "events": [{"id": "u", "type": "agent.tool_use", "name": "bash", "input": lookalike}],
            "blob": blob("elsewhere").blob, "bytes": 9,
        }]);
        let mail = json!([{"mail": "event", "event": {"id": "m", "type": "user.message",
            "content": [{"type": "text", "text": serde_json::to_string(&blob("text")).unwrap()}]}}]);
        assert_eq!(needed(&committed(Vec::new(), mail, results)), BTreeSet::new());
    }

    #[tokio::test]
    async fn a_diff_is_kept_with_its_listing_and_files_are_not() {
        let store = MemoryBlobs::new();
        let files = ["diff", "a.txt"].map(|path| OutputFile { path: path.into(), blob: blob(path) });
        let listing = blobs::put_json(&store, &files.to_vec()).await.unwrap();
        let mut needed = Needed::default();
        needed.listing(&listing);
        needed.listing(&blob("a listing that is gone"));
        needed.resolve(&store).await.unwrap();
        let mut expected = digests(&["diff", "a listing that is gone"]);
        expected.insert(listing.blob.parse().unwrap());
        assert_eq!(needed.blobs, expected);
    }

    #[tokio::test]
    async fn what_seal_and_collect_left_is_kept_before_a_commit_names_it() {
        let store = MemoryBlobs::new();
        let segment = Segment {
            run_id: "run".into(),
            blob: blob("segment"),
            key_id: 0,
            from: 0,
            to: 0,
            frames: Vec::new(),
            index: None,
            cut: None,
            state: Some(blob("state")),
            shared: false,
        };
        let manifest = Manifest { session_id: "s".into(), segments: vec![segment], ..Manifest::default() };
        let manifest = blobs::put_json(&store, &manifest).await.unwrap();
        let diff = OutputFile { path: OutputFile::DIFF.into(), blob: blob("diff") };
        let listing = blobs::put_json(&store, &[diff]).await.unwrap();
        let mut needed = Needed::default();
        let sealed = SealOutcome { run_id: "run".into(), manifest: manifest.clone() };
        let collected = CollectOutcome { listing: Some(listing.clone()) };
        for outcome in [serde_json::to_value(sealed), serde_json::to_value(collected)] {
            needed.result(&serde_json::from_value(outcome.unwrap()).unwrap());
        }
        needed.resolve(&store).await.unwrap();
        let mut expected = digests(&["segment", "state", "diff"]);
        expected.extend([manifest, listing].map(|at| at.blob.parse::<Digest>().unwrap()));
        assert_eq!(needed.blobs, expected);
    }

    #[tokio::test]
    async fn a_harness_is_kept_where_it_is_a_module() {
        let store = MemoryBlobs::new();
        let module = store.put("a module".into()).await.unwrap();
        let mut needed = Needed::default();
        for sha256 in [module, Digest::of(b"source of this build")] {
            let harness = HarnessRef { name: "mine".into(), version: 1, sha256: sha256.to_string() };
            let entry = PrivateEntry::SwapRequested { id: "swap_1".into(), harness };
            needed.commit(&committed(vec![Take::Private { entry }], json!([]), json!([])));
        }
        needed.resolve(&store).await.unwrap();
        assert_eq!(needed.blobs, BTreeSet::from([module]));
    }
}
