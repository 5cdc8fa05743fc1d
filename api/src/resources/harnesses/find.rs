//! From what people type to a harness, and from what a log names to one that can decide.

use std::sync::Arc;

use domain::agent::HarnessRef;
use domain::content::BlobRef;
use harness::frame::Ask;
use harness::registry::{self, Harness};
use harness::wasm::WasmHarness;
use log::blobs;

use super::row::{self, HarnessRow};
use crate::app::App;
use crate::error::{ApiError, Result};

pub enum Found {
    Native(&'static Harness),
    Added(HarnessRow),
}

impl Found {
    pub fn reference(&self) -> HarnessRef {
        match self {
            Found::Native(harness) => harness.reference(),
            Found::Added(row) => row.reference(),
        }
    }
}

/// `name@version`, a name alone (its newest version), or a hash.
pub async fn resolve(app: &App, text: &str) -> Result<Found> {
    let rows = row::all(app).await?;
    let native = registry::HARNESSES.iter().map(Found::Native);
    let known = native.chain(rows.into_iter().map(Found::Added));
    let (name, version) = match text.split_once('@') {
        Some((name, version)) => (name, version.parse::<u32>().ok()),
        None => (text, None),
    };
    let is_meant = |found: &Found| {
        let HarnessRef { name: known, version: known_version, sha256 } = found.reference();
        sha256 == text || (known == name && (version == Some(known_version) || !text.contains('@')))
    };
    let newest = known.filter(is_meant).max_by_key(|found| found.reference().version);
    newest.ok_or_else(|| ApiError::not_found("harness", text))
}

/// A harness that can decide: for replays, so whoever asks it bounds the time as a whole.
#[derive(Clone)]
pub enum Deciding {
    Native(&'static Harness),
    Wasm(Arc<WasmHarness>),
}

impl Deciding {
    pub fn asked(&self) -> Box<dyn Ask> {
        match self {
            Deciding::Native(harness) => Box::new(*harness),
            Deciding::Wasm(harness) => Box::new(harness.clone()),
        }
    }
}

/// The harness of a log; `None` if it is gone.
pub async fn deciding(app: &App, wanted: &HarnessRef) -> Result<Option<Deciding>> {
    if let Some(native) = registry::find(wanted) {
        return Ok(Some(Deciding::Native(native)));
    }
    let bytes = match blobs::get(&*app.blobs, &BlobRef { blob: wanted.sha256.clone(), bytes: 0 }).await {
        Ok(bytes) => bytes,
        Err(
            blobs::Error::Reference { .. } | blobs::Error::Store { source: store::blobs::Error::Missing { .. }, .. },
        ) => return Ok(None),
        Err(error) => return Err(ApiError::internal(error)),
    };
    let loaded = tokio::task::spawn_blocking(move || WasmHarness::load(&bytes)).await.map_err(ApiError::internal)?;
    Ok(loaded.ok().filter(|harness| harness.reference() == *wanted).map(|harness| Deciding::Wasm(Arc::new(harness))))
}
