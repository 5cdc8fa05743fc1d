//! What the service adds to a turn: from the user's message to the model, and from the model to the user.

use crate::{
    clock,
    metric::{Metric, Samples},
    model::Model,
    service::{self, Workplace},
};

const SESSIONS: usize = 12;
const TURNS: usize = 25;
/// Sessions that come before and are not counted.
const WARM_UP: usize = 2;

/// One session after another, one turn after another, with a model that answers at once.
pub async fn turns() -> anyhow::Result<Vec<Metric>> {
    let model = Model::start().await?;
    let service = service::start(&model.url).await?;
    let workplace = Workplace::new(service.client()).await?;
    let (mut overheads, mut deltas) = (Vec::new(), Vec::new());
    for n in 0..WARM_UP + SESSIONS {
        let mut session = workplace.session().await?;
        for _ in 0..TURNS {
            let before = model.count();
            let sent = clock::now();
            session.message("hello").await?;
            let (received, first_byte) = model.request(before).await?;
            let delta = session.events.next("event_delta").await?;
            session.idle().await?;
            if n >= WARM_UP {
                overheads.push(received.saturating_sub(sent));
                deltas.push(delta.saturating_sub(first_byte));
            }
        }
        session.delete().await?;
    }
    service.stop().await?;
    let (overheads, deltas) = (Samples::new(overheads), Samples::new(deltas));
    Ok(vec![
        Metric::ms("turn_overhead_p50_ms", overheads.at(0.5)),
        Metric::ms("turn_overhead_p99_ms", overheads.at(0.99)),
        Metric::ms("first_delta_ms", deltas.at(0.5)),
        Metric::ms("first_delta_p99_ms", deltas.at(0.99)),
    ])
}
