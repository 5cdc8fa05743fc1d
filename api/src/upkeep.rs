//! What the service does by itself, every hour: it catches up with logs that nobody asked for, and then takes away what
//! nobody needs.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::auth::audit;
use crate::error::Result;
use crate::resources::sessions::catch_up::catch_up;
use crate::resources::sessions::sealed_runs;
use crate::resources::trials;
use crate::sweep::{self, Swept};
use crate::tenants::Tenants;

const INTERVAL: Duration = Duration::from_secs(3600);
/// A session that is younger is being made: whoever makes it finishes it.
const MAKING_TIME_MAX: SignedDuration = SignedDuration::from_mins(10);

/// Until dropped. `started` is when the service began: what was there before it belongs to nobody else.
pub async fn keep_up(tenants: Tenants, started: Timestamp) {
    let clock = tenants.first().clock.clone();
    let mut before = started;
    loop {
        if let Err(error) = round(&tenants, before, clock.now()).await {
            tracing::warn!(error = error.message(), "upkeep not finished");
        }
        tokio::time::sleep(INTERVAL).await;
        before = clock.now() - MAKING_TIME_MAX;
    }
}

/// One round. `before` is how old a session has to be to be looked at; a younger one needs no blob that is old enough to
/// be swept.
pub async fn round(tenants: &Tenants, before: Timestamp, now: Timestamp) -> Result<Option<Swept>> {
    let apps = tenants.apps().await?;
    let mut failed = 0;
    for app in &apps {
        failed += catch_up(app, before).await?;
    }
    if failed > 0 {
        // Of these nobody knows what they need.
        tracing::warn!(failed, "nothing is swept while sessions cannot be read");
        return Ok(None);
    }
    let mut swept = Swept::default();
    for app in &apps {
        sealed_runs::delete(app, now).await?;
        trials::forget(app, now).await?;
        trials::refer(app).await?;
        swept.files_expired += sweep::expire(&*app.catalog, now).await?;
    }
    let first = tenants.first();
    audit::forget(&*first.catalog, now).await?;
    sweep::sweep(&*first.catalog, &*first.blobs, now, swept).await.map(Some)
}
