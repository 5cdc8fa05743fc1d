//! `read_log`: the model reads a slice of its own log. What it may ask and how it is shown says [`harness::own_log`]; the slice ends
//! where the log ended when the call was dispatched, so every attempt reads the same.

use crate::{
    brain::BrainActivities,
    call_model::{self, Error},
    hands::{self, Executed},
};
use domain::{
    content::{Block, Json},
    ids,
    outcome::ToolOutcome,
    session::ReadLogInput,
};
use harness::own_log;

pub async fn read_log(brain: &BrainActivities, input: &ReadLogInput) -> Result<ToolOutcome, Error> {
    let ReadLogInput { session_id, end, call, .. } = input;
    let mut asked = call.input.clone();
    log::blobs::resolve_json(&*brain.blobs, &mut asked).await?;
    let Json::Inline { value } = asked else { unreachable!("it was resolved above") };
    let executed = match own_log::asked(&value, *end) {
        Ok(asked) => {
            let wrong = |source| Error::Log { session_id: session_id.clone(), source };
            let slice = brain.logs.slice(session_id, asked.range.start, asked.range.end).await;
            let mut entries = slice.map_err(wrong)?;
            call_model::resolve(&*brain.blobs, &mut entries).await?;
            let text = own_log::shown(&asked, &entries, *end);
            Executed { content: vec![Block::text(text)], is_error: false, lost: false, hand_lost: false }
        }
        Err(refused) => Executed::error(refused.to_string()),
    };
    let id = ids::derive(ids::prefix::EVENT, &[session_id, &call.tool_use_id, "result"]);
    Ok(hands::outcome(&*brain.blobs, id, call, executed).await?)
}
