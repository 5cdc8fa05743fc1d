//! How the sessions of both versions do, out of their rows.

use domain::Summary;
use domain::rollout::{Figures, Moments, Observed, Price, Spec};
use serde::{Deserialize, Serialize};

use super::assign::{self, Arm};
use crate::app::App;
use crate::error::Result;
use crate::resources::sessions::row::SessionRow;

/// What a session has behind it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Counts {
    pub turns: u64,
    pub failed: u64,
    pub requests: u64,
    pub input: u64,
    pub output: u64,
    pub cache_read: u64,
    pub cache_write: u64,
    pub active_ms: u64,
}

impl Counts {
    pub fn of(summary: &Summary) -> Self {
        let usage = &summary.usage;
        Counts {
            turns: summary.turns_ended(),
            failed: summary.failed_turns,
            requests: summary.requests,
            input: usage.input_tokens,
            output: usage.output_tokens,
            cache_read: usage.cache_read_input_tokens,
            cache_write: usage.cache_creation(),
            active_ms: summary.active_ms,
        }
    }

    pub fn since(self, base: Counts) -> Self {
        Counts {
            turns: self.turns.saturating_sub(base.turns),
            failed: self.failed.saturating_sub(base.failed),
            requests: self.requests.saturating_sub(base.requests),
            input: self.input.saturating_sub(base.input),
            output: self.output.saturating_sub(base.output),
            cache_read: self.cache_read.saturating_sub(base.cache_read),
            cache_write: self.cache_write.saturating_sub(base.cache_write),
            active_ms: self.active_ms.saturating_sub(base.active_ms),
        }
    }

    fn tokens(&self) -> u64 {
        self.input + self.output + self.cache_read + self.cache_write
    }

    fn dollars(&self, price: &Price) -> f64 {
        let priced = [
            (self.input, price.input),
            (self.output, price.output),
            (self.cache_read, price.cache_read),
            (self.cache_write, price.cache_write),
        ];
        priced.iter().map(|(tokens, price)| *tokens as f64 * price / 1e6).sum()
    }
}

/// Takes in one session. One without a turn behind it says nothing yet.
fn count(figures: &mut Figures, counts: Counts, price: Option<&Price>) {
    if counts.turns == 0 {
        return;
    }
    let turns = counts.turns as f64;
    figures.sessions += 1;
    figures.failed += u64::from(counts.failed > 0);
    figures.turns += counts.turns;
    figures.requests.add(counts.requests as f64 / turns);
    figures.tokens.add(counts.tokens() as f64 / turns);
    figures.active_ms.add(counts.active_ms as f64 / turns);
    if let Some(price) = price {
        figures.cost.get_or_insert_with(Moments::default).add(counts.dollars(price) / turns);
    }
}

/// Both versions, over everyone who takes part and is still there.
pub async fn observe(app: &App, rollout_id: &str, spec: &Spec) -> Result<Observed> {
    let mut observed = Observed { old: Figures::default(), new: Figures::default() };
    for enrolled in assign::enrolled(&*app.catalog, rollout_id).await? {
        let Some(read) = app.catalog.row::<SessionRow>(&enrolled.session_id).await? else { continue };
        let Some(projection) = read.row.projection else { continue };
        let figures = match enrolled.arm {
            Arm::Old => &mut observed.old,
            Arm::New => &mut observed.new,
        };
        let price = spec.watch.price.as_ref();
        count(figures, Counts::of(&projection.summary).since(enrolled.base), price);
        // One that was swapped stays what the new version is held against, or at 100 percent nothing would.
        count(&mut observed.old, enrolled.before, price);
    }
    Ok(observed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_counts_once_with_the_mean_of_its_turns() {
        let price = Price { input: 3.0, output: 15.0, cache_read: 0.3, cache_write: 3.75 };
        let mut figures = Figures::default();
        let counts = Counts { turns: 3, failed: 2, requests: 9, input: 2_000_000, output: 100, ..Counts::default() };
        let base = Counts { turns: 1, input: 1_000_000, ..Counts::default() };
        count(&mut figures, counts.since(base), Some(&price));
        count(&mut figures, base.since(base), Some(&price));
        assert_eq!((figures.sessions, figures.failed, figures.turns), (1, 1, 2));
        assert_eq!((figures.requests.mean(), figures.tokens.mean()), (4.5, 500_050.0));
        assert!((figures.cost.unwrap().mean() - (3.0 + 0.0015) / 2.0).abs() < 1e-9);
    }
}
