//! Where another session can go on from: the log up to a position by reference, and what the state there can be made of.
//!
//! Costs one run at most, however long the log is: what ended before it is named, not read.

use super::{SessionLog, Unsealed};
use crate::{
    blobs,
    manifest::Manifest,
    segment::{self, Error, Segment},
};
use domain::{Committed, committed::Genesis, content::BlobRef};
use serde_json::Value;
use std::sync::Arc;
use store::Blobs;

/// The beginning of a commit.
#[derive(Debug)]
pub struct ForkPoint {
    pub position: u64,
    /// What the two sessions share. Not stored yet.
    pub manifest: Manifest,
    pub base: Base,
    /// What the run that the base begins did before the position.
    pub commits: Vec<Arc<Committed>>,
}

/// A state to begin with.
#[derive(Clone, Debug, PartialEq)]
pub enum Base {
    Genesis,
    Stored(BlobRef),
    Inline(Value),
}

impl SessionLog {
    /// The last place that is not behind `at`. `None` for a log that does not say what its session began with.
    pub async fn fork_point(&mut self, store: &dyn Blobs, at: u64) -> Result<Option<(Genesis, ForkPoint)>, Error> {
        let Some(genesis) = self.genesis().cloned() else { return Ok(None) };
        let before = |committed: &Committed| committed.position + committed.public_events() <= at;
        let (mut base, mut commits) = (Base::Genesis, Vec::new());
        let (mut manifest, cut) = self.manifest.until(store, at).await?;
        manifest.genesis = Some(genesis.clone());
        if let Some(cut) = cut {
            let mut upto = manifest.clone();
            upto.segments.push(cut.clone());
            let (frames, rest) = self.split(store, &cut, at).await?;
            let kept = frames.last().map_or(cut.from, |frame| frame.to);
            // The state is that before the first piece.
            let mut state = cut.state.clone();
            if !frames.is_empty() {
                let state = state.take();
                let cut = Segment { to: kept, frames, index: None, state, shared: true, cut: None, ..cut.clone() };
                manifest.push(store, cut).await?;
            }
            if !rest.is_empty() {
                let rest = segment::write(store, &cut.run_id, &rest).await?;
                manifest.push(store, Segment { shared: true, state, ..rest }).await?;
            }
            (base, commits) = self.since(store, &upto).await?;
        } else {
            let included: Vec<&Unsealed> =
                self.tail.iter().take_while(|unsealed| before(&unsealed.committed)).collect();
            let sealed = manifest.clone();
            for run in included.chunk_by(|one, other| one.run_id == other.run_id) {
                let run_id = &*run[0].run_id;
                let committed: Vec<Arc<Committed>> = run.iter().map(|unsealed| unsealed.committed.clone()).collect();
                let written = segment::write(store, run_id, &committed).await?;
                base = self.state_of(run_id).map_or(Base::Genesis, Base::Inline);
                let state = match &base {
                    Base::Inline(state) => Some(blobs::put_json(store, state).await?),
                    _ => None,
                };
                manifest.push(store, Segment { shared: true, state, ..written }).await?;
                commits = committed;
            }
            if commits.is_empty() && sealed.count() > 0 {
                (base, commits) = self.since(store, &sealed).await?;
            }
        }
        commits.retain(|committed| before(committed));
        let position = manifest.end_position();
        Ok(Some((genesis, ForkPoint { position, manifest, base, commits })))
    }

    /// The frames of a segment that end by `at`, and what comes after them and before it.
    async fn split(
        &mut self,
        store: &dyn Blobs,
        segment: &Segment,
        at: u64,
    ) -> Result<(Vec<segment::Frame>, Vec<Committed>), Error> {
        let frames = self.frames(store, segment).await?;
        let (whole, rest): (Vec<_>, Vec<_>) = frames.iter().cloned().partition(|frame| frame.to <= at);
        let blob = self.segment_blob(store, segment).await?;
        let mut commits = match rest.first() {
            Some(frame) => segment::unpack(segment, frame, &blob)?,
            None => Vec::new(),
        };
        commits.retain(|committed| committed.position + committed.public_events() <= at);
        Ok((whole, commits))
    }

    /// The state that the last segment of a manifest began with and its commits; where a build that kept no state sealed it, those of
    /// as many before it as it takes.
    async fn since(&mut self, store: &dyn Blobs, sealed: &Manifest) -> Result<(Base, Vec<Arc<Committed>>), Error> {
        let (mut backwards, mut segments) = (sealed.backwards(), Vec::new());
        let mut base = Base::Genesis;
        while base == Base::Genesis
            && let Some(segment) = backwards.next(store, &mut self.pages).await?
        {
            base = segment.state.clone().map_or(Base::Genesis, Base::Stored);
            segments.push(segment);
        }
        let mut commits = Vec::new();
        for segment in segments.iter().rev() {
            let blob = self.segment_blob(store, segment).await?;
            for frame in &*self.frames(store, segment).await? {
                commits.extend(segment::unpack(segment, frame, &blob)?.into_iter().map(Arc::new));
            }
        }
        Ok((base, commits))
    }

    fn state_of(&self, run_id: &str) -> Option<Value> {
        match self.run.run_id == run_id {
            true => self.projection.began_with.clone(),
            false => self.states.get(run_id).cloned(),
        }
    }
}
