//! Which recorded sessions are looked at: chosen by what they were run with, by age or one by one, in an order that is by chance and always
//! the same.

use std::collections::BTreeSet;

use domain::Summary;
use domain::committed::Recording;
use domain::rollout::Recorded;
use harness::rollout::threshold;
use jiff::{SignedDuration, Timestamp};

use crate::app::App;
use crate::error::{ApiError, Result};
use crate::query::{Param, Query};
use crate::resources::sessions::row as session_row;

/// How many may be named one by one.
const IDS_MAX: usize = 200;

/// What a session has to be. Nothing of it: any.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// Id of its agent.
    pub agent: Option<String>,
    /// Made within so many seconds.
    pub age_s: Option<u64>,
    /// One of these.
    pub session_ids: Vec<String>,
}

impl Sample {
    pub fn params() -> [Param; 3] {
        [Param::text("agent"), Param::number("age_s", 0..=u64::MAX), Param::texts("session_ids")]
    }

    pub fn of(query: &Query) -> Result<Self> {
        Ok(Sample {
            agent: query.text("agent")?.map(str::to_owned),
            age_s: query.parsed("age_s", "a number of seconds")?,
            session_ids: query.list("session_ids").into_iter().map(str::to_owned).collect(),
        })
    }

    /// How many of them are wanted: whoever names sessions one by one means all of those.
    pub fn count(&self, asked: Option<usize>, otherwise: usize) -> usize {
        let named = Some(self.session_ids.len()).filter(|count| *count > 0);
        asked.or(named).unwrap_or(otherwise)
    }

    /// Sessions with a turn behind them. A name that is none of the tenant's is an error: nothing would be said of it.
    pub async fn sessions(&self, app: &App, is_meant: impl Fn(&Summary) -> bool) -> Result<Vec<Recorded>> {
        let wanted: BTreeSet<&str> = self.session_ids.iter().map(String::as_str).collect();
        if wanted.len() > IDS_MAX {
            return Err(ApiError::field("session_ids", format!("must be at most {IDS_MAX}")));
        }
        for id in &wanted {
            session_row::find(app, id).await?;
        }
        let after = self.age_s.map(|age| since(app.clock.now(), age));
        let mut sample = Vec::new();
        session_row::each(app, |row| {
            let Some(summary) = row.projection.as_ref().map(|projection| &projection.summary) else { return };
            let is_chosen = self.agent.as_deref().is_none_or(|agent| row.agent_id == agent)
                && after.is_none_or(|after| row.created_at >= after)
                && (wanted.is_empty() || wanted.contains(row.id.as_str()));
            if row.is_there() && is_chosen && summary.turn > 0 && is_meant(summary) {
                sample.push(Recorded { session_id: row.id.clone(), sealed: row.sealed.clone() });
            }
        })
        .await?;
        sample.sort_by(|one, other| threshold(&one.session_id).total_cmp(&threshold(&other.session_id)));
        Ok(sample)
    }
}

/// The time so many seconds ago, or the first that there is.
fn since(now: Timestamp, age_s: u64) -> Timestamp {
    let age = SignedDuration::from_secs(i64::try_from(age_s).unwrap_or(i64::MAX));
    now.checked_sub(age).unwrap_or(Timestamp::MIN)
}

/// The sessions that those of a sample began as. A fork has the turns of its parent: counted as well it would say the same twice, and
/// intervals would be narrower than what is known.
#[derive(Default)]
pub struct Roots(BTreeSet<String>);

impl Roots {
    /// Whether nothing of this one was seen before.
    pub fn is_news(&mut self, recording: &Recording) -> bool {
        self.0.insert(recording.first_session_id().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use domain::commit::Fork;
    use domain::{PrivateEntry, Take, Time};
    use harness::{kit, registry};

    use super::*;

    #[test]
    fn of_sessions_that_are_named_all_are_wanted() {
        let named = Sample { session_ids: vec![String::new(); 60], ..Sample::default() };
        assert_eq!((named.count(None, 50), named.count(Some(7), 50)), (60, 7));
        assert_eq!(Sample::default().count(None, 50), 50);
    }

    #[test]
    fn an_age_beyond_all_times_is_any_age() {
        let now = Timestamp::from_second(100).unwrap();
        assert_eq!(since(now, 40), Timestamp::from_second(60).unwrap());
        assert_eq!(since(now, u64::MAX), Timestamp::MIN);
    }

    #[test]
    fn a_fork_is_no_session_of_its_own_whichever_is_seen_first() {
        let mut session = kit::Session::new(kit::attributes(), registry::default_harness());
        session.message("the task");
        session.settle();
        let parent = session.recording();
        let forked = |session_id: &str| {
            let fork = Fork {
                parent: parent.session_id.clone(),
                session_id: session_id.to_owned(),
                created_at: Time::from_ms(0),
                attributes: kit::attributes(),
                harness: registry::default_harness(),
                goes_on: false,
            };
            let mut recording = Recording { session_id: session_id.to_owned(), ..parent.clone() };
            let take = Take::Private { entry: PrivateEntry::Forked { fork: Box::new(fork) } };
            recording.commits.last_mut().expect("a turn was begun").commit.takes.insert(0, take);
            recording
        };
        let (one, other) = (forked("sesn_one"), forked("sesn_other"));
        let unrelated = Recording { session_id: "sesn_unrelated".to_owned(), ..parent.clone() };
        for order in [[&parent, &one, &other], [&one, &other, &parent]] {
            let mut roots = Roots::default();
            assert_eq!(order.map(|recording| roots.is_news(recording)), [true, false, false]);
            assert!(roots.is_news(&unrelated));
        }
    }
}
