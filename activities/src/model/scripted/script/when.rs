//! The conditions of a rule.

use serde::Deserialize;

use crate::model::scripted::facts::Facts;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::model::scripted) struct When {
    user_contains: Option<String>,
    system_contains: Option<String>,
    result_contains: Option<String>,
    result_is_error: Option<bool>,
    turn: Option<Count>,
    results: Option<Count>,
    tries: Option<Count>,
    model: Option<String>,
    tool_offered: Option<String>,
}

impl When {
    pub(super) fn holds(&self, facts: &Facts) -> bool {
        let within = |text: &Option<String>, whole: &str| text.as_deref().is_none_or(|text| whole.contains(text));
        let counts = |count: &Option<Count>, value: u64| count.as_ref().is_none_or(|count| count.holds(value));
        within(&self.user_contains, &facts.user)
            && within(&self.system_contains, &facts.system)
            && within(&self.result_contains, &facts.result)
            && self.result_is_error.is_none_or(|is_error| facts.result_is_error == Some(is_error))
            && counts(&self.turn, facts.turn)
            && counts(&self.results, facts.results)
            && counts(&self.tries, u64::from(facts.tries))
            && self.model.as_deref().is_none_or(|model| model == facts.model)
            && self.tool_offered.as_ref().is_none_or(|tool| facts.tools.contains(tool))
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "expected a number, or { min, max }")]
enum Count {
    Exactly(u64),
    Range(Range),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Range {
    min: Option<u64>,
    max: Option<u64>,
}

impl Count {
    fn holds(&self, value: u64) -> bool {
        match self {
            Count::Exactly(count) => value == *count,
            Count::Range(Range { min, max }) => {
                min.is_none_or(|min| min <= value) && max.is_none_or(|max| value <= max)
            }
        }
    }
}
