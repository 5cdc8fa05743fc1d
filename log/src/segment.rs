//! Closed runs as immutable blobs. A segment holds the commits of one run with everything they name; a manifest
//! lists the segments of a session. The same run always gives the same bytes, whoever seals it.

use crate::{
    blobs,
    history::{self, HistoryReader, Run},
    manifest::{End, Manifest},
    payload,
    projection::{Projection, RunEnd},
};
use bytes::Bytes;
use domain::{Committed, committed::Genesis, content::BlobRef, ids};
use futures::{StreamExt as _, stream};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{borrow::Borrow, sync::Arc, thread::available_parallelism};
use store::Blobs;

/// Public events in one zstd frame: the unit of reading.
const FRAME_EVENTS: u64 = 256;
/// Part of the format: another level gives other bytes and so another hash.
const ZSTD_LEVEL: i32 = 3;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    History(#[from] history::Error),
    #[error(transparent)]
    Payload(#[from] payload::Error),
    #[error(transparent)]
    Blob(#[from] blobs::Error),
    #[error("run {run_id} of session {session_id} is still open")]
    Open { session_id: String, run_id: String },
    #[error("segment {hash} is damaged")]
    Damaged {
        hash: String,
        #[source]
        source: std::io::Error,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Segment {
    pub run_id: String,
    pub blob: BlobRef,
    /// Who may decrypt it; 0 until there is encryption at rest.
    pub key_id: u32,
    /// Positions `[from, to)`.
    pub from: u64,
    pub to: u64,
    /// Empty where `index` names them: what lists a long log would grow with every frame of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub frames: Vec<Frame>,
    /// The frames, as a JSON list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<BlobRef>,
    /// Why the run was cut, if it did not end by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut: Option<String>,
    /// The state that the run began with; not in a session's first run, which began with its genesis.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<BlobRef>,
    /// The run is another session's, which this one was forked from.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shared: bool,
}

impl Segment {
    /// The blobs that it needs.
    pub fn blobs(&self) -> impl Iterator<Item = &BlobRef> {
        [&self.blob].into_iter().chain(&self.state).chain(&self.index)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Frame {
    /// Positions `[from, to)`.
    pub from: u64,
    pub to: u64,
    /// Bytes in the blob.
    pub offset: u64,
    pub bytes: u64,
    /// Of these bytes, so that they can be read without the others. Builds before this one did not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// Reads a closed run and adds it to the manifest `before`. Doing it again gives the same reference.
pub async fn seal(
    reader: &dyn HistoryReader,
    store: &dyn Blobs,
    run: &Run,
    before: Option<&BlobRef>,
) -> Result<BlobRef, Error> {
    let mut manifest = match before {
        Some(blob) => blobs::get_json(store, blob).await?,
        None => Manifest { session_id: run.session_id.clone(), ..Manifest::default() },
    };
    // What is sealed again was sealed last.
    if !manifest.segments.iter().any(|segment| segment.run_id == run.run_id) {
        let read = read_run(reader, run).await?;
        manifest.genesis = manifest.genesis.or(read.genesis);
        let state = match &read.state {
            Some(state) => Some(blobs::put_json(store, state).await?),
            None => None,
        };
        let cut = match read.end {
            RunEnd::Cut { reason } => Some(reason),
            RunEnd::Continued { .. } | RunEnd::Completed => None,
        };
        let segment = write(store, &run.run_id, &read.commits).await?;
        manifest.push(store, Segment { cut, state, ..segment }).await?;
    }
    Ok(blobs::put_json(store, &manifest).await?)
}

/// Seals what is left of a session that is over: its last runs and its last word.
pub async fn seal_whole(
    reader: &dyn HistoryReader,
    store: &dyn Blobs,
    session_id: &str,
    before: Option<&BlobRef>,
    runs: &[String],
    end: End,
) -> Result<BlobRef, Error> {
    let mut sealed = before.cloned();
    for run_id in runs {
        let run = Run { session_id: session_id.to_owned(), run_id: run_id.clone() };
        sealed = Some(seal(reader, store, &run, sealed.as_ref()).await?);
    }
    let mut manifest: Manifest = match &sealed {
        Some(blob) => blobs::get_json(store, blob).await?,
        None => Manifest { session_id: session_id.to_owned(), ..Manifest::default() },
    };
    manifest.end = Some(end);
    Ok(blobs::put_json(store, &manifest).await?)
}

/// A closed run, whole.
pub struct ClosedRun {
    pub commits: Vec<Committed>,
    pub end: RunEnd,
    /// There in the first run of a session.
    pub genesis: Option<Genesis>,
    /// What any other run began with.
    pub state: Option<Value>,
    /// Blobs that payloads were claims to.
    pub claimed: Vec<BlobRef>,
}

/// All commits of a closed run.
pub async fn read_run(reader: &dyn HistoryReader, run: &Run) -> Result<ClosedRun, Error> {
    let mut projection = Projection::default();
    let (mut commits, mut claimed) = (Vec::new(), Vec::new());
    let mut next = Vec::new();
    loop {
        let page = reader.page(run, next, false).await?;
        for event in &page.events {
            commits.extend(projection.feed(event)?);
        }
        claimed.extend(page.claimed);
        next = page.next;
        if next.is_empty() {
            break;
        }
    }
    match projection.end {
        Some(end) => Ok(ClosedRun { commits, end, genesis: projection.genesis, state: projection.began_with, claimed }),
        None => Err(Error::Open { session_id: run.session_id.clone(), run_id: run.run_id.clone() }),
    }
}

/// The commits of a run, or some of them, as a segment.
pub async fn write(store: &dyn Blobs, run_id: &str, commits: &[impl Borrow<Committed>]) -> Result<Segment, Error> {
    let commits: Vec<&Committed> = commits.iter().map(Borrow::borrow).collect();
    let from = commits.first().map_or(0, |first| first.position);
    let mut to = from;
    let mut bytes = Vec::new();
    let mut frames = Vec::new();
    let mut start = 0;
    while start < commits.len() {
        let frame_from = to;
        let mut stop = start;
        while stop < commits.len() && (stop == start || to - frame_from + commits[stop].public_events() <= FRAME_EVENTS)
        {
            to += commits[stop].public_events();
            stop += 1;
        }
        let json = serde_json::to_vec(&commits[start..stop]).expect("commits have string keys only");
        let packed = zstd::bulk::compress(&json, ZSTD_LEVEL).expect("compressing in memory does not fail");
        let sha256 = Some(ids::content_hash(&packed));
        frames.push(Frame { from: frame_from, to, offset: bytes.len() as u64, bytes: packed.len() as u64, sha256 });
        bytes.extend_from_slice(&packed);
        start = stop;
    }
    let blob = blobs::put(store, Bytes::from(bytes)).await?;
    let run_id = run_id.to_owned();
    let index = match frames.len() {
        0 | 1 => None,
        _ => Some(blobs::put_json(store, &std::mem::take(&mut frames)).await?),
    };
    Ok(Segment { run_id, blob, key_id: 0, from, to, frames, index, cut: None, state: None, shared: false })
}

/// Where the parts of a segment are.
pub async fn frames(store: &dyn Blobs, segment: &Segment) -> Result<Vec<Frame>, Error> {
    match &segment.index {
        Some(index) => Ok(blobs::get_json(store, index).await?),
        None => Ok(segment.frames.clone()),
    }
}

/// The bytes of one frame and no others. `None` if only the whole segment can be checked.
pub async fn packed(store: &dyn Blobs, segment: &Segment, frame: &Frame) -> Result<Option<Bytes>, Error> {
    let Some(sha256) = &frame.sha256 else { return Ok(None) };
    let hash = &segment.blob.blob;
    let packed = blobs::get_part(store, &segment.blob, frame.offset..frame.offset + frame.bytes).await?;
    match ids::content_hash(&packed) == *sha256 {
        true => Ok(Some(packed)),
        false => Err(Error::Damaged { hash: hash.clone(), source: std::io::ErrorKind::InvalidData.into() }),
    }
}

/// The commits of one frame.
pub fn unpack(segment: &Segment, frame: &Frame, blob: &Bytes) -> Result<Vec<Committed>, Error> {
    decode(segment, &part(segment, frame, blob)?).map(|(commits, _)| commits)
}

/// The same of several frames, as many at a time as there are processors, and beside whoever waits: taking one apart takes about a millisecond.
pub async fn unpack_all(segment: &Segment, frames: Vec<Frame>, blob: &Bytes) -> Vec<Result<Vec<Committed>, Error>> {
    let shared = Arc::new(segment.clone());
    let unpacking = frames.into_iter().map(|frame| {
        let (segment, blob) = (shared.clone(), blob.clone());
        async move {
            let unpacked = tokio::task::spawn_blocking(move || unpack(&segment, &frame, &blob));
            unpacked.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
        }
    });
    stream::iter(unpacking).buffered(available_parallelism().map_or(1, usize::from)).collect().await
}

/// The bytes of one frame out of those of its segment.
pub fn part(segment: &Segment, frame: &Frame, blob: &Bytes) -> Result<Bytes, Error> {
    let (from, to) = (frame.offset as usize, (frame.offset + frame.bytes) as usize);
    if blob.len() < to {
        let source = std::io::ErrorKind::UnexpectedEof.into();
        return Err(Error::Damaged { hash: segment.blob.blob.clone(), source });
    }
    Ok(blob.slice(from..to))
}

/// The commits of a frame out of its bytes, and how long they are as JSON.
pub fn decode(segment: &Segment, packed: &[u8]) -> Result<(Vec<Committed>, u64), Error> {
    let damaged = |source| Error::Damaged { hash: segment.blob.blob.clone(), source };
    let json = zstd::stream::decode_all(packed).map_err(damaged)?;
    let commits = serde_json::from_slice(&json).map_err(|error| damaged(error.into()))?;
    Ok((commits, json.len() as u64))
}
