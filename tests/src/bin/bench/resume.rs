//! How long after `kill -9` of everything the next step begins.

use crate::{
    clock,
    metric::{Metric, Samples},
    rig::Rig,
    workload::{self, ParkedInput},
};

const SAMPLES: usize = 5;

/// A workflow waits for a signal with `steps` behind it. From the kill, over the start of everything and the signal, to
/// the first line of the next step; the median of some.
pub async fn resume(name: &'static str, steps: u64) -> anyhow::Result<Vec<Metric>> {
    let mut rig = Rig::new().await?;
    let mut times = Vec::new();
    for n in 0..SAMPLES {
        let id = format!("resume-{n}");
        workload::start_parked(&rig.client, ParkedInput { name: id.clone(), steps }).await?;
        rig.node.mark(&workload::parked(&id)).await?;

        let killed = clock::now();
        rig = Rig::on(rig.kill()?).await?;
        workload::go(&rig.client, &id).await?;
        times.push(rig.steps.mark(&id).await?.saturating_sub(killed));
    }
    rig.stop().await?;
    Ok(vec![Metric::ms(name, Samples::new(times).at(0.5))])
}
