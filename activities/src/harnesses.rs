//! Finds the harness that a session is pinned to: compiled into this build, or a module among the blobs.

use domain::{agent::HarnessRef, content::BlobRef, limits::CACHED_HARNESSES_MAX};
use harness::{
    frame::Ask,
    registry::{self, Harness},
    wasm::{self, WasmHarness},
};
use lru::LruCache;
use std::{num::NonZeroUsize, sync::Arc};
use store::{Blobs, blobs};

/// Modules that were loaded, by their sha-256.
pub struct Harnesses {
    blobs: Arc<dyn Blobs>,
    loaded: parking_lot::Mutex<LruCache<String, Arc<WasmHarness>>>,
}

#[derive(Clone)]
pub enum Found {
    Native(&'static Harness),
    Wasm(Arc<WasmHarness>),
    /// Nobody has it, or what is there under its hash is no harness for this build: why.
    Gone(String),
}

impl Found {
    /// As replay takes it: whoever replays bounds its time as a whole. `None` if it is gone.
    pub fn asked(&self) -> Option<Box<dyn Ask>> {
        match self {
            Found::Native(native) => Some(Box::new(*native)),
            Found::Wasm(wasm) => Some(Box::new(wasm.clone())),
            Found::Gone(_) => None,
        }
    }
}

impl Harnesses {
    pub fn new(blobs: Arc<dyn Blobs>) -> Self {
        let size = NonZeroUsize::new(CACHED_HARNESSES_MAX).expect("the limit is not zero");
        Harnesses { blobs, loaded: parking_lot::Mutex::new(LruCache::new(size)) }
    }

    /// An error is the store's, and may pass.
    pub async fn find(&self, wanted: &HarnessRef) -> Result<Found, log::blobs::Error> {
        if let Some(native) = registry::find(wanted) {
            return Ok(Found::Native(native));
        }
        if let Some(loaded) = self.loaded.lock().get(&wanted.sha256) {
            return Ok(Found::Wasm(loaded.clone()));
        }
        let blob = BlobRef { blob: wanted.sha256.clone(), bytes: 0 };
        let bytes = match log::blobs::get(&*self.blobs, &blob).await {
            Ok(bytes) => bytes,
            Err(
                log::blobs::Error::Reference { .. }
                | log::blobs::Error::Store { source: blobs::Error::Missing { .. }, .. },
            ) => return Ok(Found::Gone(GONE.to_owned())),
            Err(error) => return Err(error),
        };
        // Compiling a module of some megabytes takes longer than a runtime's thread should be held.
        let loaded = tokio::task::spawn_blocking(move || WasmHarness::load(&bytes)).await;
        Ok(match loaded {
            Ok(Ok(harness)) => self.keep(wanted, harness),
            Ok(Err(error)) => Found::Gone(refused(&error)),
            Err(_) => Found::Gone("could not be loaded".to_owned()),
        })
    }

    fn keep(&self, wanted: &HarnessRef, harness: WasmHarness) -> Found {
        if harness.reference() != *wanted {
            return Found::Gone(format!("is {} by its own manifest", harness.reference()));
        }
        let harness = Arc::new(harness);
        self.loaded.lock().put(wanted.sha256.clone(), harness.clone());
        Found::Wasm(harness)
    }
}

const GONE: &str = "is not in this build and was not added; swap the session to one that is (steadyhand session swap)";

fn refused(error: &wasm::Error) -> String {
    format!("is no harness for this build: {error}")
}
