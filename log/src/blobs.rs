//! Content by reference: large content goes into blobs on the way into history, and comes back on the way out.

use bytes::Bytes;
use domain::{
    Content, Event, EventBody,
    content::{BlobRef, Json},
    limits::INLINE_BYTES_MAX,
};
use serde::{Serialize, de::DeserializeOwned};
use std::ops::Range;
use store::{Blobs, Digest, blobs};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("blob reference {hash:?} is not a sha-256")]
    Reference { hash: String },
    #[error("read or write blob {hash}")]
    Store {
        hash: String,
        #[source]
        source: blobs::Error,
    },
    #[error("blob {hash} does not hold what was expected")]
    Decode {
        hash: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("blob {hash} is not the payload that was claimed")]
    Claim {
        hash: String,
        #[source]
        source: prost::DecodeError,
    },
}

/// Puts a value as JSON; the same value gives the same reference.
pub async fn put_json<T: Serialize + Sync>(blobs: &dyn Blobs, value: &T) -> Result<BlobRef, Error> {
    let bytes = serde_json::to_vec(value).expect("what goes into blobs has string keys only");
    put(blobs, bytes.into()).await
}

pub async fn put(blobs: &dyn Blobs, bytes: Bytes) -> Result<BlobRef, Error> {
    let size = bytes.len() as u64;
    let digest = blobs.put(bytes).await.map_err(|source| Error::Store { hash: "(new)".to_owned(), source })?;
    Ok(BlobRef { blob: digest.to_string(), bytes: size })
}

pub async fn get(blobs: &dyn Blobs, blob: &BlobRef) -> Result<Bytes, Error> {
    let digest: Digest = blob.blob.parse().map_err(|_| Error::Reference { hash: blob.blob.clone() })?;
    blobs.get(digest).await.map_err(|source| Error::Store { hash: blob.blob.clone(), source })
}

/// A part of a blob, which its hash does not vouch for.
pub async fn get_part(blobs: &dyn Blobs, blob: &BlobRef, part: Range<u64>) -> Result<Bytes, Error> {
    let digest: Digest = blob.blob.parse().map_err(|_| Error::Reference { hash: blob.blob.clone() })?;
    let wrong = |source| Error::Store { hash: blob.blob.clone(), source };
    blobs.open(digest, Some(part)).await.map_err(wrong)?.bytes().await.map_err(wrong)
}

pub async fn get_json<T: DeserializeOwned>(blobs: &dyn Blobs, blob: &BlobRef) -> Result<T, Error> {
    let bytes = get(blobs, blob).await?;
    serde_json::from_slice(&bytes).map_err(|source| Error::Decode { hash: blob.blob.clone(), source })
}

/// Moves large content of an event out of it.
pub async fn offload(blobs: &dyn Blobs, event: &mut Event) -> Result<(), Error> {
    if let Some(content) = event.body.content_mut()
        && let Content::Inline(inline) = content
    {
        let bytes = serde_json::to_vec(inline).expect("blocks have string keys only");
        if bytes.len() > INLINE_BYTES_MAX {
            *content = Content::Blob(put(blobs, bytes.into()).await?);
        }
    }
    if let Some(json) = json_mut(&mut event.body) {
        offload_json(blobs, json, INLINE_BYTES_MAX).await?;
    }
    Ok(())
}

/// Moves a JSON value of more than `max` bytes out.
pub async fn offload_json(blobs: &dyn Blobs, json: &mut Json, max: usize) -> Result<(), Error> {
    if let Json::Inline { value } = json {
        let bytes = serde_json::to_vec(value).expect("a JSON value has string keys only");
        if bytes.len() > max {
            *json = Json::Blob(put(blobs, bytes.into()).await?);
        }
    }
    Ok(())
}

/// Brings back what [`offload`] moved out.
pub async fn resolve(blobs: &dyn Blobs, event: &mut Event) -> Result<(), Error> {
    if let Some(content) = event.body.content_mut()
        && let Content::Blob(blob) = content
    {
        *content = Content::Inline(get_json(blobs, blob).await?);
    }
    if let Some(json) = json_mut(&mut event.body) {
        resolve_json(blobs, json).await?;
    }
    Ok(())
}

pub async fn resolve_json(blobs: &dyn Blobs, json: &mut Json) -> Result<(), Error> {
    if let Json::Blob(blob) = json {
        *json = Json::Inline { value: get_json(blobs, blob).await? };
    }
    Ok(())
}

/// The JSON value of an event that may be kept by reference.
pub fn json(body: &EventBody) -> Option<&Json> {
    match body {
        EventBody::AgentToolUse { input, .. }
        | EventBody::AgentCustomToolUse { input, .. }
        | EventBody::AgentMcpToolUse { input, .. } => Some(input),
        EventBody::SessionUpdated { agent: Some(agent), .. } => Some(agent),
        _ => None,
    }
}

fn json_mut(body: &mut EventBody) -> Option<&mut Json> {
    match body {
        EventBody::AgentToolUse { input, .. }
        | EventBody::AgentCustomToolUse { input, .. }
        | EventBody::AgentMcpToolUse { input, .. } => Some(input),
        EventBody::SessionUpdated { agent: Some(agent), .. } => Some(agent),
        _ => None,
    }
}
