//! Time to first token when hands are made on first use, against hands that are made before the first model request.
//!
//! Both arms run on the same service, in turns. It only has lazy hands, so the eager arm emulates: a real sandbox of the
//! same provider is made between the user's message and its POST. That leaves out what the engine would add to it.

use crate::{
    clock,
    metric::{Metric, Samples},
    model::{Model, USE_A_HAND},
    service::{self, Workplace},
};
use activities::hands::{Local, Provider};
use domain::HandName;
use domain::session::ProvisionInput;
use hand::{
    hands::{By, Hands},
    spec::{Mode, Walls},
};
use std::{sync::Arc, time::Duration};
use steadyhand_tests::service::program;
use store::MemoryBlobs;

const SESSIONS: usize = 60;
const WARM_UP: usize = 5;
/// Of five sessions, so many need no hand: 40 %.
const OF: usize = 5;
const WITHOUT_HAND: usize = 2;

pub async fn lazy_against_eager() -> anyhow::Result<Vec<Metric>> {
    let model = Model::start().await?;
    let service = service::start(&model.url).await?;
    let workplace = Workplace::new(service.client()).await?;
    let by = By::Itself { program: program("steadyhand-hand"), mode: Mode::Dev, walls: Walls::Bubblewrap };
    let hands = Hands { dir: service.hands_dir(), by };
    let provider = Local::new("bench", hands, Arc::new(MemoryBlobs::new()));
    let (mut lazy, mut eager) = (Vec::new(), Vec::new());
    for n in 0..WARM_UP + SESSIONS {
        let text = if n % OF < WITHOUT_HAND { "hello" } else { USE_A_HAND };
        let (lazily, eagerly) =
            (first_token(&workplace, text, None).await?, first_token(&workplace, text, Some((&provider, n))).await?);
        if n >= WARM_UP {
            lazy.push(lazily);
            eager.push(eagerly);
        }
    }
    service.stop().await?;
    let (lazy, eager) = (Samples::new(lazy), Samples::new(eager));
    Ok(vec![
        Metric::ms("lazy_ttft_p50_ms", lazy.at(0.5)),
        Metric::ms("lazy_ttft_p95_ms", lazy.at(0.95)),
        Metric::ms("eager_ttft_p50_ms", eager.at(0.5)),
        Metric::ms("eager_ttft_p95_ms", eager.at(0.95)),
    ])
}

/// Of a new session. `eager`: what makes a hand first, and its number.
async fn first_token(workplace: &Workplace, text: &str, eager: Option<(&Local, usize)>) -> anyhow::Result<Duration> {
    let mut session = workplace.session().await?;
    let started = clock::now();
    let mut made = None;
    if let Some((provider, n)) = eager {
        let input = ProvisionInput {
            restore: None,
            name: HandName::default(),
            session_id: format!("eager-{n}"),
            hand: format!("eager-{n}"),
            environment_id: "bench".to_owned(),
            resources: Vec::new(),
            turn_event: None,
        };
        let provisioned = provider.provision(&input).await.map_err(|failure| anyhow::anyhow!("{failure:?}"))?;
        made = Some((provider, provisioned.hand));
    }
    session.message(text).await?;
    let token = session.events.next("event_delta").await?.saturating_sub(started);
    session.idle().await?;
    session.delete().await?;
    if let Some((provider, hand)) = made {
        provider.release(&hand).await.map_err(|failure| anyhow::anyhow!("{failure:?}"))?;
    }
    Ok(token)
}
