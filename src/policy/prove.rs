//! Questions about every possible request, answered by proof or by one request that shows the contrary. Cedar's own
//! symbolic compiler turns policies into formulas; the solver cvc5 decides them.
//!
//! **What is proven is about our verdicts, not Cedar's.** They differ in one thing: Cedar skips a policy that errs, here
//! nothing is allowed then ([`Slice::decide`]). So whatever we allow, Cedar allows, and not always the other way round:
//!
//! - "Never" needs no more than Cedar's answer: what Cedar never allows, we never allow.
//! - Where we have to *allow* for something to hold ("always"; the old policy in a [`diff`]), it is first proven that none of
//!   its policies can err, for the action in question. If one can (an overflow), the answer is [`Answer::Unknown`] and says which.
//! - A counterexample is a typed request on which [`Slice::decide`] was asked; one that doesn't hold there is no answer.
//!
//! A missing fact refuses too, so that "always" means: always when every fact is known. What connectors never say (counts
//! below zero, an eighth day of the week, times before 2000 or after 2199) is left out of consideration.

#![allow(clippy::result_large_err, reason = "the symbolic compiler's own error is large")]

mod case;
mod demands;
mod found;
#[cfg(test)]
mod tests;

use std::{path::PathBuf, str::FromStr as _, thread, time::Duration};

use cedar_policy::{
    EntityId, EntityTypeName, EntityUid, Policy, PolicyId, PolicySet, RequestEnv, Schema, ValidationMode, Validator,
};
use cedar_policy_symcc::{
    CedarSymCompiler, CompiledPolicy, CompiledPolicySet,
    err::{Error, SolverError},
    solver::LocalSolver,
};
use tokio::process::Command;

pub use self::{
    case::case,
    demands::{Loosened, loosened},
    found::Counterexample,
};
use crate::policy::{Action, ContextFact, FactKind, PolicyError, Slice, bounds, problem::explained, slice::schema};

/// Where the solver is, and how long it may think about one question.
#[derive(Clone, Debug)]
pub struct Solver {
    /// cvc5.
    pub binary: PathBuf,
    /// For each question.
    pub patience: Duration,
}

/// What is known of a question, for one action or policy.
#[derive(Debug)]
pub enum Answer {
    /// It holds for every request.
    Proven,
    /// It doesn't: look at this request.
    Counterexample(Box<Counterexample>),
    /// Neither, and why.
    Unknown(String),
}

/// What a new policy allows in comparison with an old one, for one action.
#[derive(Debug)]
pub struct Change {
    /// Which action.
    pub action: Action,
    /// Whether it allows nothing that the old one didn't.
    pub more: Answer,
    /// Whether it allows everything that the old one did.
    pub less: Answer,
}

/// Why nothing can be asked.
#[derive(Debug, thiserror::Error)]
pub enum ProveError {
    /// No solver.
    #[error("the solver {0} can't be started ({1}); install it with `apt-get install cvc5`, or name it in CVC5")]
    Solver(PathBuf, String),
    /// A question that can't be read.
    #[error("the condition `{0}` can't be asked about: {1}")]
    Condition(String, String),
    /// Policies that Cedar can't take apart.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

/// Whether a condition (Cedar, over principal, action, resource and context) is never allowed, for each action.
///
/// # Errors
/// A condition that isn't one, or no solver.
pub fn never(
    slice: &Slice,
    condition: &str,
    actions: &[Action],
    solver: &Solver,
) -> Result<Vec<(Action, Answer)>, ProveError> {
    on_thread(|| {
        let world = World::new(&[slice], condition)?;
        let asked = world.permit_when(condition)?;
        each(actions, solver, async |asking, action| {
            if asking.fails(&world, &asked, action).await?.is_some() {
                return Ok(Answer::Unknown(FAILING.into()));
            }
            let (ours, asked) = (asking.compile(&slice.set, action)?, asking.compile(&asked, action)?);
            let env = asking.solver.check_disjoint_with_counterexample_opt(&ours, &asked).await?;
            Ok(found::shown(env, action, &[slice], |decisions| decisions[0].permits()))
        })
    })
}

/// Whether a condition is always allowed (perhaps conditionally), for each action.
///
/// # Errors
/// As for [`never`].
pub fn always(
    slice: &Slice,
    condition: &str,
    actions: &[Action],
    solver: &Solver,
) -> Result<Vec<(Action, Answer)>, ProveError> {
    on_thread(|| {
        let world = World::new(&[slice], condition)?;
        let asked = world.permit_when(condition)?;
        each(actions, solver, async |asking, action| {
            if asking.fails(&world, &asked, action).await?.is_some() {
                return Ok(Answer::Unknown(FAILING.into()));
            }
            if let Some(policy) = asking.fails(&world, &slice.set, action).await? {
                return Ok(failing(&policy));
            }
            let (ours, asked) = (asking.compile(&slice.set, action)?, asking.compile(&asked, action)?);
            let env = asking.solver.check_implies_with_counterexample_opt(&asked, &ours).await?;
            Ok(found::shown(env, action, &[slice], |decisions| !decisions[0].permits()))
        })
    })
}

/// What a new policy allows that the old one didn't, and the other way round, for each action.
///
/// # Errors
/// As for [`never`].
pub fn diff(old: &Slice, new: &Slice, actions: &[Action], solver: &Solver) -> Result<Vec<Change>, ProveError> {
    let both = [old, new];
    on_thread(|| {
        let world = World::new(&both, "")?;
        let in_world = [world.with(&old.set)?, world.with(&new.set)?];
        let direction = |wide: usize, narrow: usize| {
            let (world, in_world) = (&world, &in_world);
            each(actions, solver, async move |asking, action| {
                if let Some(policy) = asking.fails(world, &both[narrow].set, action).await? {
                    return Ok(failing(&policy));
                }
                let sets = (asking.compile(&in_world[wide], action)?, asking.compile(&both[narrow].set, action)?);
                let env = asking.solver.check_implies_with_counterexample_opt(&sets.0, &sets.1).await?;
                Ok(found::shown(env, action, &both, |decisions| {
                    decisions[wide].permits() && !decisions[narrow].permits()
                }))
            })
        };
        let (more, less) = (direction(1, 0)?, direction(0, 1)?);
        let changes = more.into_iter().zip(less).map(|((action, more), (_, less))| Change { action, more, less });
        Ok(changes.collect())
    })
}

/// For each policy, by its `@id`: whether it applies to no request at all, with a request to which it does.
///
/// # Errors
/// As for [`never`].
pub fn unreachable(slice: &Slice, solver: &Solver) -> Result<Vec<(String, Answer)>, ProveError> {
    on_thread(|| {
        let world = World::new(&[slice], "")?;
        let mut answers = Vec::new();
        for (id, compiled) in &slice.policies {
            let one = slice.policy(id).ok_or_else(|| ProveError::Failed(format!("the policy `{id}` is not there")))?;
            // as a permit of its own: whether it applies, not whether others forbid
            let alone = world.with(&world.permit_like(one)?)?;
            let actions: Vec<Action> = compiled.actions.iter().copied().collect();
            let mut answer = Answer::Proven;
            for action in actions {
                let (_, one) = each(&[action], solver, async |asking, action| {
                    let (alone, asked) =
                        (asking.compile(&alone, action)?, asking.compile(&world.everything()?, action)?);
                    let env = asking.solver.check_disjoint_with_counterexample_opt(&alone, &asked).await?;
                    Ok(found::shown(env, action, &[slice], |_| true))
                })?
                .remove(0);
                let applies = matches!(one, Answer::Counterexample(_));
                if !matches!(one, Answer::Proven) {
                    answer = one;
                }
                if applies {
                    break;
                }
            }
            answers.push((id.clone(), answer));
        }
        Ok(answers)
    })
}

/// Cedar's recursion needs the stack, and a runtime within another one needs a thread.
fn on_thread<T: Send>(ask: impl FnOnce() -> Result<T, ProveError> + Send) -> Result<T, ProveError> {
    thread::scope(|scope| {
        thread::Builder::new()
            .name("prove".into())
            .stack_size(bounds::STACK)
            .spawn_scoped(scope, ask)
            .map_err(|error| ProveError::Failed(error.to_string()))?
            .join()
            .unwrap_or_else(|_| Err(ProveError::Failed("the symbolic compiler gave up on these policies".into())))
    })
}

/// One question for each action, each to a solver of its own.
fn each(
    actions: &[Action],
    solver: &Solver,
    ask: impl AsyncFn(&mut Asking, Action) -> Result<Answer, Error>,
) -> Result<Vec<(Action, Answer)>, ProveError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| ProveError::Failed(error.to_string()))?;
    runtime.block_on(async {
        let mut answers = Vec::new();
        for action in actions {
            let mut asking = Asking::new(solver)?;
            // the solver is told to give up by itself; this is for one that doesn't
            let guard = solver.patience.saturating_mul(4).saturating_add(Duration::from_secs(5));
            let answer = match tokio::time::timeout(guard, ask(&mut asking, *action)).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(Error::SolverUnknown)) | Err(_) => {
                    Answer::Unknown(format!("the solver did not find an answer in {} s", solver.patience.as_secs()))
                }
                Ok(Err(Error::SolverError(error))) => Answer::Unknown(format!("the solver failed: {error}")),
                Ok(Err(error)) => Answer::Unknown(error.to_string()),
            };
            answers.push((*action, answer));
        }
        Ok(answers)
    })
}

/// A solver, and what is asked of it.
struct Asking {
    solver: CedarSymCompiler<LocalSolver>,
}

impl Asking {
    fn new(of: &Solver) -> Result<Self, ProveError> {
        let cannot = |error: String| ProveError::Solver(of.binary.clone(), error);
        let mut command = Command::new(&of.binary);
        command.args(["--lang", "smt", &format!("--tlimit-per={}", of.patience.as_millis())]).kill_on_drop(true);
        let solver = LocalSolver::from_command(&mut command).map_err(|error: SolverError| cannot(error.to_string()))?;
        Ok(Self { solver: CedarSymCompiler::new(solver).map_err(|error| cannot(error.to_string()))? })
    }

    fn compile(&self, set: &PolicySet, action: Action) -> Result<CompiledPolicySet, Error> {
        CompiledPolicySet::compile(set, &environment(action)?, known_schema()?)
    }

    /// A policy that may fail on something that connectors say, for this action: then Cedar's allow is not ours.
    async fn fails(&mut self, world: &World, set: &PolicySet, action: Action) -> Result<Option<String>, Error> {
        for policy in set.policies() {
            let guarded = world.guarded(policy).map_err(|error| Error::ActionNotInSchema(error.to_string()))?;
            let compiled = CompiledPolicy::compile(&guarded, &environment(action)?, known_schema()?)?;
            if !self.solver.check_never_errors_opt(&compiled).await? {
                return Ok(Some(policy.id().to_string()));
            }
        }
        Ok(None)
    }
}

const FAILING: &str = "the condition itself can fail (a number that overflows); compare without computing";

fn failing(policy: &str) -> Answer {
    Answer::Unknown(format!(
        "policy `{policy}` can fail (a number that overflows), and nothing is allowed then, which can't be weighed here; \
         compare without computing, or bound the numbers first"
    ))
}

fn known_schema() -> Result<&'static Schema, Error> {
    // compiled before any question is asked
    schema().map_err(|error| Error::ActionNotInSchema(error.to_string()))
}

fn environment(action: Action) -> Result<RequestEnv, Error> {
    let name = |text: &str| EntityTypeName::from_str(text).map_err(|error| Error::ActionNotInSchema(error.to_string()));
    let action = EntityUid::from_type_name_and_id(name("Action")?, EntityId::new(action.as_str()));
    Ok(RequestEnv::new(name("Participant")?, action, name("Dataset")?))
}

/// What connectors can say: of the facts that are spoken of, only values that there are.
struct World {
    condition: String,
}

impl World {
    fn new(slices: &[&Slice], condition: &str) -> Result<Self, ProveError> {
        schema()?;
        let texts: Vec<String> = slices
            .iter()
            .flat_map(|slice| slice.policies.keys().filter_map(|id| slice.policy(id)))
            .map(ToString::to_string)
            .collect();
        let spoken_of =
            |fact: &ContextFact| condition.contains(fact.name()) || texts.iter().any(|text| text.contains(fact.name()));
        let mut parts = vec!["true".to_owned()];
        for fact in ContextFact::ALL.into_iter().filter(spoken_of) {
            let path = format!("context.{}", fact.name());
            let mut number = |path: &str| parts.push(format!("{path} >= 0 && {path} <= 9007199254740991"));
            const PERIODS: [&str; 5] = ["minute", "hour", "day", "month", "year"];
            match (fact, fact.kind()) {
                (ContextFact::Weekday, _) => parts.push(format!("{path} >= 1 && {path} <= 7")),
                (_, FactKind::Long) => number(&path),
                (_, FactKind::Time) => parts.push(format!(
                    "context.now == context.time && {path} >= datetime(\"2000-01-01\") && {path} < datetime(\"2200-01-01\")"
                )),
                (ContextFact::TimeOfDay, _) => {
                    parts.push(format!("{path} >= duration(\"0ms\") && {path} < duration(\"1d\")"));
                }
                (_, FactKind::Span) => {
                    parts.push(format!("{path} >= duration(\"0ms\") && {path} <= duration(\"100000d\")"));
                }
                (_, FactKind::Frequency) => PERIODS.iter().for_each(|period| number(&format!("{path}.{period}"))),
                (_, FactKind::Spent) => {
                    for period in PERIODS.iter().chain(&["total"]) {
                        ["count", "records", "bytes"].iter().for_each(|of| number(&format!("{path}.{period}.{of}")));
                    }
                }
                _ => {}
            }
        }
        Ok(Self { condition: parts.join(" && ") })
    }

    /// Allows exactly where a condition holds.
    fn permit_when(&self, condition: &str) -> Result<PolicySet, ProveError> {
        let wrong = |problem: String| ProveError::Condition(condition.to_owned(), problem);
        bounds::check(condition).map_err(|out| wrong(out.problem))?;
        let text =
            format!("permit (principal, action, resource) when {{ {} }} when {{ {condition}\n}};", self.condition);
        let set = PolicySet::from_str(&text).map_err(|error| wrong(explained(&error)))?;
        let alone = set.policies().count() == 1 && set.templates().next().is_none();
        let conditions = set.policies().next().and_then(|policy| policy.to_json().ok());
        if !alone || conditions.is_none_or(|est| est["conditions"].as_array().is_none_or(|all| all.len() != 2)) {
            return Err(wrong("it is not one condition".into()));
        }
        let result = Validator::new(schema()?.clone()).validate(&set, ValidationMode::Strict);
        match result.validation_errors().next() {
            Some(error) => Err(wrong(explained(error))),
            None => Ok(set),
        }
    }

    fn everything(&self) -> Result<PolicySet, Error> {
        self.permit_when("true").map_err(|error| Error::ActionNotInSchema(error.to_string()))
    }

    /// A set of this policy's conditions, as a permit.
    fn permit_like(&self, policy: &Policy) -> Result<PolicySet, ProveError> {
        let failed = |error: String| ProveError::Failed(error);
        let mut est = policy.to_json().map_err(|error| failed(error.to_string()))?;
        est["effect"] = "permit".into();
        let policy = Policy::from_json(None, est).map_err(|error| failed(error.to_string()))?;
        PolicySet::from_policies([policy]).map_err(|error| failed(error.to_string()))
    }

    /// This policy, which looks at what is said only where it can be said.
    fn guarded(&self, policy: &Policy) -> Result<Policy, ProveError> {
        let failed = |error: String| ProveError::Failed(error);
        let text = format!("permit (principal, action, resource) when {{ {} }};", self.condition);
        let bound = Policy::parse(None, text).map_err(|error| failed(explained(&error)))?;
        let read = |policy: &Policy| policy.to_json().map_err(|error| failed(error.to_string()));
        let (mut est, bound) = (read(policy)?, read(&bound)?);
        if let (Some(conditions), Some(bounds)) = (est["conditions"].as_array_mut(), bound["conditions"].as_array()) {
            conditions.splice(0..0, bounds.iter().cloned());
        }
        Policy::from_json(None, est).map_err(|error| failed(error.to_string()))
    }

    /// These policies, where what is said can be said at all.
    fn with(&self, set: &PolicySet) -> Result<PolicySet, ProveError> {
        let text = format!("forbid (principal, action, resource) unless {{ {} }};", self.condition);
        let failed = |error: String| ProveError::Failed(error);
        let bound = Policy::parse(Some(PolicyId::new("the world")), text).map_err(|error| failed(explained(&error)))?;
        let mut both = set.clone();
        both.add(bound).map_err(|error| failed(error.to_string()))?;
        Ok(both)
    }
}
