//! The token of an item: what a worker that holds the item may use for its session, and nobody after it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::json;
use store::{Batch, Record, Table};

use super::row::{State, WorkRow};
use crate::app::App;
use crate::auth::keys::digest;
use crate::error::Result;
use crate::ids;

/// What a token looks like.
pub const PREFIX: &str = "sk-steadyhand-work-";
const TOKEN_CHARS: usize = 43;
/// The good one, and the one before: whoever still holds that is told that the lease is lost.
const KEPT: usize = 2;

/// Whose a token is, under its digest. Whether it is still good the item says.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TokenRow {
    pub digest: String,
    pub workspace_id: String,
    pub environment_id: String,
    pub work_id: String,
    pub session_id: String,
}

impl Record for TokenRow {
    const TABLE: Table = Table::new("work_tokens");
    const VERSION: u32 = 1;
}

/// Gives the item a new token, in place of the one before. The secret is for the worker alone.
pub fn renew(mut batch: Batch, workspace_id: &str, row: &mut WorkRow) -> (Batch, String) {
    let token = format!("{PREFIX}{}", ids::random(TOKEN_CHARS));
    let digest = hex::encode(digest(&token));
    let token_row = TokenRow {
        digest: digest.clone(),
        workspace_id: workspace_id.to_owned(),
        environment_id: row.environment_id.clone(),
        work_id: row.id.clone(),
        session_id: row.session_id.clone(),
    };
    row.tokens.insert(0, digest);
    for old in row.tokens.split_off(KEPT.min(row.tokens.len())) {
        batch = batch.delete(TokenRow::TABLE, old);
    }
    let batch = batch.insert(&token_row.digest, &token_row);
    let payload = json!({"sessions_token": token}).to_string();
    (batch, URL_SAFE_NO_PAD.encode(payload))
}

pub fn remove(batch: Batch, row: &WorkRow) -> Batch {
    row.tokens.iter().fold(batch, |batch, digest| batch.delete(TokenRow::TABLE, digest.clone()))
}

/// Whether a worker holds the item by this token.
pub async fn is_live(app: &App, token: &TokenRow) -> Result<bool> {
    let Some(read) = app.catalog.row::<WorkRow>(&token.work_id).await? else { return Ok(false) };
    let row = read.row;
    let is_held = row.state != State::Stopped && row.lease_until.is_some_and(|until| app.clock.now() <= until);
    Ok(is_held && row.tokens.first() == Some(&token.digest))
}

/// Whether it is the item's latest token: only whoever has that may say what becomes of the item.
pub fn is_latest(row: &WorkRow, token: &TokenRow) -> bool {
    row.tokens.first() == Some(&token.digest)
}
