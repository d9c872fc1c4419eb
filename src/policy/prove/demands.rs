//! Whether a new policy demands less than the old one where both allow.

use std::collections::BTreeSet;

use cedar_policy::PolicySet;

use super::{Answer, Counterexample, ProveError, Solver, World, each, found, on_thread};
use crate::policy::{Action, Decision, Duties, Obligations, Slice};

/// A request that both policies allow, on which the new one demands less.
#[derive(Debug)]
pub struct Loosened {
    /// Which action.
    pub action: Action,
    /// The permit of the new policy that was looked at.
    pub policy: String,
    /// The request; the old policy's decision first.
    pub found: Box<Counterexample>,
    /// What is demanded no more, or less of.
    pub less: Vec<String>,
}

/// For each permit of the new policy, one request that it and the old policy allow; those where less is demanded. One
/// request a permit is looked at: that nothing is found proves nothing. What could not be asked is said beside.
///
/// # Errors
/// As for [`super::never`].
pub fn loosened(
    old: &Slice,
    new: &Slice,
    actions: &[Action],
    solver: &Solver,
) -> Result<(Vec<Loosened>, Vec<String>), ProveError> {
    let both = [old, new];
    on_thread(|| {
        let world = World::new(&both, "")?;
        let (mut found, mut unknown) = (Vec::new(), Vec::new());
        for (id, compiled) in new.policies.iter().filter(|(_, policy)| policy.permit) {
            let one = world.with(&only(new, id)?)?;
            let actions: Vec<Action> =
                actions.iter().copied().filter(|action| compiled.actions.contains(action)).collect();
            let answers = each(&actions, solver, async |asking, action| {
                let sets = (asking.compile(&one, action)?, asking.compile(&old.set, action)?);
                let env = asking.solver.check_disjoint_with_counterexample_opt(&sets.0, &sets.1).await?;
                Ok(found::shown(env, action, &both, |decisions| decisions.iter().all(Decision::permits)))
            })?;
            for (action, answer) in answers {
                match answer {
                    Answer::Counterexample(at) => {
                        let less = less(&both, &at);
                        if !less.is_empty() {
                            found.push(Loosened { action, policy: id.clone(), found: at, less });
                        }
                    }
                    Answer::Unknown(why) => unknown.push(format!("{}, policy `{id}`: {why}", action.as_str())),
                    Answer::Proven => {}
                }
            }
        }
        Ok((found, unknown))
    })
}

/// This permit and all forbids.
fn only(slice: &Slice, id: &str) -> Result<PolicySet, ProveError> {
    let ids = slice.policies.iter().filter(|(other, policy)| *other == id || !policy.permit).map(|(id, _)| id);
    let policies = ids.filter_map(|id| slice.policy(id));
    PolicySet::from_policies(policies.cloned()).map_err(|error| ProveError::Failed(error.to_string()))
}

fn less([old, new]: &[&Slice; 2], at: &Counterexample) -> Vec<String> {
    let [before, after] = at.decisions.as_slice() else { return Vec::new() };
    let mut less = Vec::new();
    // what comes first
    let first = |slice: &Slice, decision: &Decision| {
        let permits = decision.policies.iter().filter_map(|id| slice.policies.get(id));
        permits.flat_map(|policy| policy.before.clone()).collect::<BTreeSet<_>>()
    };
    let (was, is) = (first(old, before), first(new, after));
    less.extend(was.difference(&is).map(|gone| format!("{gone} is no longer asked first")));
    if at.facts.action != Action::Release {
        return less;
    }
    // of the bytes: with what was demanded added, is more demanded than now?
    let of = |slice: &Slice, decision: &Decision| {
        let permits = decision.policies.iter().filter_map(|id| slice.policies.get(id));
        let mut all: Vec<_> = permits.flat_map(|policy| policy.obligations.clone()).collect();
        all.extend(slice.floors.iter().cloned());
        all
    };
    let (was, is) = (of(old, before), of(new, after));
    let (together, now) = (Obligations::meet(was.iter().chain(&is)), Obligations::meet(&is));
    if together != now {
        let text = |obligations: &Obligations| serde_json::to_string(obligations).unwrap_or_default();
        less.push(format!("of the bytes was demanded {}, now {}", text(&Obligations::meet(&was)), text(&now)));
    }
    let (was, is) = (old.duties(&before.policies), new.duties(&after.policies));
    let shorter = |was: Option<u64>, is: Option<u64>| was.is_some_and(|was| is.is_none_or(|is| is > was));
    let Duties { delete_within, notify, report } = was;
    if shorter(delete_within, is.delete_within) || shorter(report, is.report) || (notify && !is.notify) {
        let text = |duties: &Duties| if duties.is_empty() { "nothing".to_owned() } else { duties.written().join("; ") };
        less.push(format!("afterwards was owed {}, now {}", text(&was), text(&is)));
    }
    less
}
