//! Duties of permissions.

use serde_json::Value as Json;

use crate::policy::{
    Action, After, Before, Obligation,
    odrl::{
        NAMESPACE, OdrlError,
        json_read::{At, action_name, kind},
        literal,
        rule::{Rule, Statement},
        term::short,
        value_read,
    },
    parse,
};

/// What a duty's one constraint says.
struct Said<'a> {
    left: String,
    operator: String,
    right: &'a Json,
    at: At,
}

/// Reads a duty into its permission.
pub(super) fn add(rule: &mut Rule, json: &Json, at: &At) -> Result<(), OdrlError> {
    let duty = at.members(json, "duty", &["@id", "uid", "@type", "type", "action", "constraint"])?;
    kind(&duty, &["Duty", "Rule"])?;
    let Some((action, action_at)) = duty.get("action") else { return Err(at.says("a duty needs an `action`")) };
    let said = match duty.get("constraint") {
        None => None,
        Some((list, list_at)) => match list_at.many(list).as_slice() {
            [] => None,
            [(one, at)] => Some(read(one, at)?),
            _ => return Err(list_at.wrong(list, "a duty has at most one constraint that is understood here")),
        },
    };
    let name = action_name(action, action_at)?;
    let own = name.strip_prefix("odrl:").unwrap_or(&name);
    let statement = match (own, &said) {
        ("delete", Some(said)) => delete(said)?,
        ("inform", None) => "notify".to_owned(),
        ("obtainConsent", None) => "consent(obtainConsent)".to_owned(),
        ("obtainConsent", Some(said)) => format!("consent({})", said.text("consent")?),
        _ => match name.strip_prefix(NAMESPACE) {
            Some("contract") => {
                let words =
                    said.as_ref().ok_or_else(|| at.says("`contract` needs its `statement`"))?.text("statement")?;
                if words.trim().is_empty() || rule.contract.is_some() {
                    return Err(at.says("one `contract` with words in it is understood"));
                }
                rule.contract = Some(words);
                return Ok(());
            }
            // these have ODRL's own names
            Some(ours) if !matches!(ours, "consent" | "delete_within" | "notify") => match &said {
                None => ours.to_owned(),
                Some(said) => format!("{ours}({})", said.text("arguments")?),
            },
            _ => return Err(unknown(action_at, action)),
        },
    };
    place(rule, &statement, action, action_at, at)
}

/// Puts a statement into the phase that knows it.
fn place(rule: &mut Rule, statement: &str, action: &Json, action_at: &At, at: &At) -> Result<(), OdrlError> {
    let quotes = || action_at.wrong(action, "a word with both kinds of quotes in it is not understood");
    let name = statement.split('(').next().unwrap_or_default();
    let wrong = |error: &dyn std::fmt::Display| action_at.wrong(action, &error.to_string());
    let releases = rule.actions.contains(&Action::Release);
    if Before::NAMES.contains(&name) {
        let read = parse::before(statement).map_err(|error| wrong(&error))?;
        if !rule.actions.iter().any(|action| action.waits()) {
            return Err(
                at.says("nothing is done first to discover or negotiate; put this duty under a release or a use")
            );
        }
        if read.len() != 1 {
            return Err(action_at.wrong(action, "one duty says one thing"));
        }
        let read: Vec<Statement> = read.iter().map(Statement::before).collect::<Option<_>>().ok_or_else(quotes)?;
        rule.before.extend(read);
        return Ok(());
    }
    let known = After::NAMES.contains(&name) || Obligation::known(name).is_ok();
    if !known {
        return Err(unknown(action_at, action));
    }
    if !releases {
        return Err(at.says(
            "this duty is about the copy that leaves; put it under `use`, or under our `release`, the action by which it leaves",
        ));
    }
    let (into, read) = if After::NAMES.contains(&name) {
        let read = parse::after(statement).map_err(|error| wrong(&error))?;
        (&mut rule.after, read.iter().map(Statement::after).collect::<Option<Vec<_>>>().ok_or_else(quotes)?)
    } else {
        (&mut rule.during, Statement::during(statement).map_err(|error| wrong(&error))?)
    };
    if read.len() != 1 {
        return Err(action_at.wrong(action, "one duty says one thing"));
    }
    into.extend(read);
    Ok(())
}

fn unknown(at: &At, action: &Json) -> OdrlError {
    at.wrong(
        action,
        &format!(
            "no duty that is known here; known are ODRL's delete (within `elapsedTime` or `delayPeriod`), inform and \
             obtainConsent, and ours ({NAMESPACE}hash, {NAMESPACE}approve, …)"
        ),
    )
}

/// `elapsedTime lteq P90D`, or `delayPeriod eq P90D`.
fn delete(said: &Said<'_>) -> Result<String, OdrlError> {
    let left = said.left.strip_prefix("odrl:").unwrap_or(&said.left);
    let fits =
        matches!((left, said.operator.as_str()), ("elapsedTime", "eq" | "lteq") | ("delayPeriod", "eq" | "lteq"));
    let text = value_read::duration(said.right, &said.at)?;
    let seconds = literal::parse_iso_span(&text).filter(|millis| millis % 1000 == 0).map(|millis| millis / 1000);
    match seconds.and_then(|seconds| u64::try_from(seconds).ok()) {
        Some(seconds) if fits => Ok(format!("delete_within({})", crate::policy::iso(seconds))),
        _ => Err(said.at.says(
            "`delete` is understood within an `elapsedTime` (lteq, eq) or after a `delayPeriod` (eq, lteq), as a duration such as P90D",
        )),
    }
}

fn read<'a>(json: &'a Json, at: &At) -> Result<Said<'a>, OdrlError> {
    let members =
        at.members(json, "constraint", &["@id", "uid", "@type", "type", "leftOperand", "operator", "rightOperand"])?;
    kind(&members, &["AtomicConstraint", "Constraint"])?;
    let get = |name: &str| members.get(name).ok_or_else(|| at.says(&format!("there is no `{name}`")));
    let ((left, left_at), (operator, operator_at), (right, right_at)) =
        (get("leftOperand")?, get("operator")?, get("rightOperand")?);
    let operator = short(&operator_at.name(operator)?);
    Ok(Said {
        left: short(&left_at.name(left)?),
        operator: operator.strip_prefix("odrl:").unwrap_or(&operator).to_owned(),
        right,
        at: right_at.clone(),
    })
}

impl Said<'_> {
    /// The text that our operand of this name is equal to.
    fn text(&self, ours: &str) -> Result<String, OdrlError> {
        if self.left != format!("{NAMESPACE}{ours}") || self.operator != "eq" {
            return Err(self.at.says(&format!("expected `{NAMESPACE}{ours}` `eq` a text")));
        }
        value_read::text(self.right, &self.at)
    }
}
