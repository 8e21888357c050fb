//! What a ratio means: whether it keeps what was promised, and which side of 1 it is on.
//!
//! # Invariants
//! - The worse end of the interval decides about a goal, never the ratio itself.
//! - A row that is unresolved neither meets nor misses, and neither wins nor loses.
//! - Against another Ringway, or against no proxy, nobody wins or loses; a goal may be missed.

use super::input::{DIRECT, GOAL, Input, OURS};
use crate::{
    results::{
        Row,
        detail::{Detail, Goal},
    },
    sample::Ratio,
};

/// A ratio closer to 1 than this is a tie, however narrow its interval.
const TIE: f64 = 0.01;
/// What rounding to four digits may add to a figure that is just at its goal.
const ROUNDING: f64 = 1e-9;

/// How a row stands to its goal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    MeetsAim,
    /// Within the must. There may be no aim.
    MeetsMust,
    Misses,
}

/// Which side of 1 the whole interval is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Less,
    Alike,
    More,
}

/// One row, judged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Judged<'a> {
    pub(super) detail: &'a Detail,
    pub(super) row: &'a Row,
    goal: Option<Bounds>,
}

/// `must` and `aim` as ratios to what stands in the row's `theirs`.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    must: f64,
    aim: Option<f64>,
}

/// Judges all rows, in the order of the report.
pub(super) fn all(input: &Input) -> Vec<Judged<'_>> {
    let mut judged = Vec::new();
    for detail in &input.details {
        let mut rows: Vec<&Row> = detail.rows.iter().collect();
        rows.sort_by_key(|row| (&row.metric, super::input::contender_order(&row.peer)));
        judged.extend(rows.into_iter().map(|row| Judged::new(detail, row)));
    }
    judged
}

/// Goals that no row speaks of.
pub(super) fn not_measured(input: &Input) -> Vec<(&Detail, &Goal)> {
    let mut found = Vec::new();
    for detail in &input.details {
        for goal in &detail.goals {
            if !detail.rows.iter().any(|row| same(row, goal)) {
                found.push((detail, goal));
            }
        }
    }
    found
}

fn same(row: &Row, goal: &Goal) -> bool {
    row.metric == goal.metric && row.peer == goal.peer
}

impl<'a> Judged<'a> {
    pub(super) fn new(detail: &'a Detail, row: &'a Row) -> Self {
        let promised = detail.goals.iter().find(|goal| same(row, goal));
        let goal = match promised {
            // Figures, where the row has a ratio: both in the row's terms.
            Some(goal) if row.peer == GOAL => Some(Bounds {
                must: goal.must / row.theirs,
                aim: goal.aim.map(|aim| aim / row.theirs),
            }),
            Some(goal) => Some(Bounds { must: goal.must, aim: goal.aim }),
            // A goal that was measured itself stands in the row alone.
            None if row.peer == GOAL => Some(Bounds { must: 1.0, aim: None }),
            None => None,
        };
        Self { detail, row, goal }
    }

    pub(super) fn ratio(&self) -> Ratio {
        Ratio { ratio: self.row.ratio, low: self.row.low, high: self.row.high }
    }

    /// `None` without a goal, and for an unresolved row.
    pub(super) fn standing(&self) -> Option<Standing> {
        if self.row.unresolved {
            return None;
        }
        let Bounds { must, aim } = self.goal?;
        let worse_end_within = |bound: f64| self.row.high <= bound * (1.0 + ROUNDING);
        if !worse_end_within(must) {
            return Some(Standing::Misses);
        }
        Some(if aim.is_some_and(worse_end_within) {
            Standing::MeetsAim
        } else {
            Standing::MeetsMust
        })
    }

    pub(super) fn side(&self) -> Side {
        if self.row.high < 1.0 - TIE {
            Side::Less
        } else if self.row.low > 1.0 + TIE {
            Side::More
        } else {
            Side::Alike
        }
    }

    /// Somebody else's proxy, so that less is a win and more a loss.
    pub(super) fn is_rival(&self) -> bool {
        let peer = &self.row.peer;
        peer != GOAL && peer != DIRECT && !peer.starts_with(OURS)
    }

    pub(super) fn has_goal(&self) -> bool {
        self.goal.is_some()
    }

    pub(super) fn loses(&self) -> bool {
        let more = !self.row.unresolved && self.is_rival() && self.side() == Side::More;
        more || self.standing() == Some(Standing::Misses)
    }

    pub(super) fn meets_must_misses_aim(&self) -> bool {
        self.standing() == Some(Standing::MeetsMust)
            && self.goal.is_some_and(|bounds| bounds.aim.is_some())
    }

    /// The goal as it was promised, for instance `must 0.85, aim 0.70` or `must 10 MiB`.
    pub(super) fn promise(&self) -> String {
        let Some(Bounds { must, aim }) = self.goal else {
            return String::new();
        };
        let written = |bound: f64| {
            if self.row.peer != GOAL {
                return format!("{bound:.2}");
            }
            let figure = bound * self.row.theirs;
            format!("{} {}", super::text::short(figure), self.row.unit)
        };
        let must = format!("must {}", written(must));
        match aim {
            Some(aim) => format!("{must}, aim {}", written(aim)),
            None => must,
        }
    }

    /// One or a few words for a table.
    pub(super) fn words(&self) -> String {
        if self.row.unresolved {
            return "unresolved".to_owned();
        }
        let more = if self.is_rival() && self.side() == Side::More { "**more**; " } else { "" };
        match self.standing() {
            Some(Standing::MeetsAim) => format!("{more}meets aim ({})", self.promise()),
            Some(Standing::MeetsMust) if self.meets_must_misses_aim() => {
                format!("{more}meets must, misses aim ({})", self.promise())
            }
            Some(Standing::MeetsMust) => format!("{more}meets must ({})", self.promise()),
            Some(Standing::Misses) => format!("{more}**misses must** ({})", self.promise()),
            None => match self.side() {
                Side::Less => "less".to_owned(),
                Side::Alike => "no clear difference".to_owned(),
                Side::More if self.is_rival() => "**more**".to_owned(),
                Side::More => "more".to_owned(),
            },
        }
    }

    /// Whether even the better end of the interval is above the must.
    pub(super) fn misses_wholly(&self) -> bool {
        let above = |bounds: Bounds| self.row.low > bounds.must * (1.0 + ROUNDING);
        self.standing() == Some(Standing::Misses) && self.goal.is_some_and(above)
    }
}
