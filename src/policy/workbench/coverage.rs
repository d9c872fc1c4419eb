//! Which policies, and which parts of their conditions, a test file has seen both ways.

use serde::Serialize;

use crate::policy::{
    Facts, Slice,
    workbench::{Anatomy, Said, anatomy::Asked},
};

/// What all cases together have seen.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Coverage {
    /// Each policy of the slice.
    pub policies: Vec<PolicyCovered>,
}

/// What was seen of a policy.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyCovered {
    /// `@id`.
    pub id: String,
    /// Cases that it is about by its scope.
    pub reached: usize,
    /// Cases in which it applied.
    pub satisfied: usize,
    /// Cases that it is about, in which its condition was false.
    pub unsatisfied: usize,
    /// Each part of its condition.
    pub conjuncts: Vec<ConjunctCovered>,
}

/// What was seen of a part of a condition, in cases that the policy is about.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConjunctCovered {
    /// As it was written.
    pub text: String,
    /// Cases in which it let the policy apply.
    pub held: usize,
    /// Cases in which it did not.
    pub failed: usize,
}

impl Coverage {
    pub(super) fn new(anatomies: &[Anatomy]) -> Self {
        let policies = anatomies
            .iter()
            .map(|policy| PolicyCovered {
                id: policy.id.clone(),
                reached: 0,
                satisfied: 0,
                unsatisfied: 0,
                conjuncts: policy
                    .conjuncts()
                    .map(|piece| ConjunctCovered { text: piece.shown(), held: 0, failed: 0 })
                    .collect(),
            })
            .collect();
        Self { policies }
    }

    /// Takes one more case in.
    pub(super) fn see(&mut self, slice: &Slice, anatomies: &[Anatomy], facts: &Facts) {
        let asked = Asked::new(slice, facts);
        for (policy, covered) in anatomies.iter().zip(&mut self.policies) {
            let mut scope = policy.pieces.iter().filter(|piece| !piece.is_condition());
            if !scope.all(|piece| piece.holds(&asked) == Some(true)) {
                continue;
            }
            covered.reached += 1;
            let held: Vec<Option<bool>> = policy.conjuncts().map(|piece| piece.holds(&asked)).collect();
            for (held, conjunct) in held.iter().zip(&mut covered.conjuncts) {
                conjunct.held += usize::from(*held == Some(true));
                conjunct.failed += usize::from(*held == Some(false));
            }
            covered.satisfied += usize::from(held.iter().all(|held| *held == Some(true)));
            covered.unsatisfied += usize::from(held.contains(&Some(false)));
        }
    }

    /// What no case has seen.
    pub fn gaps(&self) -> Vec<Said> {
        let mut gaps = Vec::new();
        for PolicyCovered { id, reached, satisfied, unsatisfied, conjuncts } in &self.policies {
            if *reached == 0 {
                gaps.push(Said::new(format!("`{id}`: no case is about it"), format!("`{id}`：没有用例涉及")));
                continue;
            }
            if *satisfied == 0 {
                gaps.push(Said::new(format!("`{id}`: it applies in no case"), format!("`{id}`：没有用例使其适用")));
            }
            if *unsatisfied == 0 && !conjuncts.is_empty() {
                gaps.push(Said::new(
                    format!("`{id}`: its condition is false in no case"),
                    format!("`{id}`：没有用例使其条件不成立"),
                ));
            }
            for ConjunctCovered { text, held, failed } in conjuncts {
                if *held == 0 {
                    gaps.push(Said::new(
                        format!("`{id}`: `{text}` is so in no case"),
                        format!("`{id}`：没有用例使 `{text}` 成立"),
                    ));
                }
                if *failed == 0 {
                    gaps.push(Said::new(
                        format!("`{id}`: `{text}` is not so in no case"),
                        format!("`{id}`：没有用例使 `{text}` 不成立"),
                    ));
                }
            }
        }
        gaps
    }

    /// How many of how many things were seen.
    pub fn seen(&self) -> (usize, usize) {
        let mut of = (0, 0);
        let mut count = |seen: bool| of = (of.0 + usize::from(seen), of.1 + 1);
        for policy in &self.policies {
            count(policy.satisfied > 0);
            if !policy.conjuncts.is_empty() {
                count(policy.unsatisfied > 0);
            }
            for conjunct in &policy.conjuncts {
                count(conjunct.held > 0);
                count(conjunct.failed > 0);
            }
        }
        of
    }
}
