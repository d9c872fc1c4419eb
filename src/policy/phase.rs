//! The phases before and after a release: what has to be done first, and what the consumer owes afterwards.
//!
//! ```text
//!   @before("approve(ethics_board); consent(research); second_factor; accept('no re-identification')")
//!   @after("delete_within(P90D); notify; report(P30D)")
//! ```

use std::{collections::BTreeSet, fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::policy::{
    ObligationError,
    obligation::Args,
    problem::{harmless, nearest},
};

/// Longest name of a role or a consent, in bytes.
const MAX_NAME: usize = 64;
/// Longest statement that a consumer accepts, in bytes.
const MAX_STATEMENT: usize = 512;
/// Shortest time between reports, in seconds.
const MIN_REPORT: u64 = 3600;
/// Longest time of a duty.
const MAX_DAYS: u64 = 36_500;

/// What has to be done before a request may be granted (TC609-6-2025-15 §7.1.2.4, 前置义务). Until it is, the verdict is
/// `conditional`; then the request is decided anew.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Before {
    /// Somebody in this role approves exactly this request. Used once.
    Approve(String),
    /// A consent of this name is on record for the participant and the dataset, and not withdrawn.
    Consent(String),
    /// The acting person shows a second factor.
    SecondFactor,
    /// The consumer accepts this statement, word for word.
    Accept(String),
}

/// What the consumer owes after a release (后置义务).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum After {
    /// The copy is destroyed within this time of its arrival.
    DeleteWithin(Duration),
    /// Each use is told to the provider.
    Notify,
    /// The uses are reported to the provider each time this has passed.
    Report(Duration),
}

/// Everything that is owed after a release, together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Duties {
    /// Seconds until the copy must be destroyed: the least that any permit demands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delete_within: Option<u64>,
    /// Whether each use is told.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub notify: bool,
    /// Seconds between reports: the least that any permit demands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<u64>,
}

impl Before {
    pub(super) const NAMES: [&str; 4] = ["approve", "consent", "second_factor", "accept"];

    /// Makes one from its name and arguments.
    pub(super) fn build(name: &str, args: &Args) -> Result<Self, ObligationError> {
        let known = known(name, &Self::NAMES)?;
        let one = |takes| match args.words.as_slice() {
            [word] => Ok(word.clone()),
            _ => Err(ObligationError::Arguments { name: known, takes }),
        };
        let named = |takes| -> Result<String, ObligationError> {
            let word = one(takes)?;
            let fine = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
            match word.len() <= MAX_NAME && !word.is_empty() && word.chars().all(fine) {
                true => Ok(word),
                false => Err(ObligationError::Range {
                    name: known,
                    value: harmless(&word),
                    range: "1 to 64 bytes of letters, digits and `-_.`",
                }),
            }
        };
        Ok(match known {
            "approve" => Self::Approve(named("one role")?),
            "consent" => Self::Consent(named("the name of one consent")?),
            "accept" => {
                let statement = one("one statement in quotes")?;
                if statement.trim().is_empty() || statement.len() > MAX_STATEMENT {
                    let value = harmless(&statement);
                    return Err(ObligationError::Range { name: known, value, range: "a statement of 1 to 512 bytes" });
                }
                Self::Accept(statement)
            }
            _ if args.words.is_empty() => Self::SecondFactor,
            _ => return Err(ObligationError::Arguments { name: known, takes: "nothing" }),
        })
    }

    /// Reads one as [`fmt::Display`] writes it.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "second_factor" {
            return Some(Self::SecondFactor);
        }
        let (name, rest) = text.split_once('(')?;
        let argument = rest.strip_suffix(')')?.to_owned();
        Some(match name {
            "approve" => Self::Approve(argument),
            "consent" => Self::Consent(argument),
            "accept" => Self::Accept(argument),
            _ => return None,
        })
    }

    /// What has to be done, in a sentence.
    pub fn todo(&self) -> String {
        match self {
            Self::Approve(role) => format!("somebody in the role `{role}` has to approve this request"),
            Self::Consent(name) => format!("the consent `{name}` has to be on record and not withdrawn"),
            Self::SecondFactor => "the acting person has to show a second factor".into(),
            Self::Accept(statement) => format!("the consumer has to accept, word for word: \"{statement}\""),
        }
    }

    /// The same in Chinese.
    pub fn todo_zh(&self) -> String {
        match self {
            Self::Approve(role) => format!("须由角色 {role} 审批本次请求"),
            Self::Consent(name) => format!("须有已登记且未撤回的同意 {name}"),
            Self::SecondFactor => "经办人须完成二次认证".into(),
            Self::Accept(statement) => format!("使用方须逐字接受声明：“{statement}”"),
        }
    }
}

impl fmt::Display for Before {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Approve(role) => write!(f, "approve({role})"),
            Self::Consent(name) => write!(f, "consent({name})"),
            Self::SecondFactor => f.write_str("second_factor"),
            Self::Accept(statement) => write!(f, "accept({statement})"),
        }
    }
}

impl After {
    pub(super) const NAMES: [&str; 3] = ["delete_within", "notify", "report"];

    /// Makes one from its name and arguments.
    pub(super) fn build(name: &str, args: &Args) -> Result<Self, ObligationError> {
        let known = known(name, &Self::NAMES)?;
        let time = || match args.words.as_slice() {
            [word] => duration(known, word),
            _ => Err(ObligationError::Arguments { name: known, takes: "one ISO 8601 duration, such as P90D" }),
        };
        Ok(match known {
            "delete_within" => Self::DeleteWithin(time()?),
            // each one is a signed receipt and a letter
            "report" => Self::Report(time()?).at_least(known, MIN_REPORT, &args.words)?,
            _ if args.words.is_empty() => Self::Notify,
            _ => return Err(ObligationError::Arguments { name: known, takes: "nothing" }),
        })
    }
}

impl After {
    fn at_least(self, name: &'static str, seconds: u64, words: &[String]) -> Result<Self, ObligationError> {
        match self {
            Self::Report(time) if time.as_secs() < seconds => Err(ObligationError::Range {
                name,
                value: harmless(&words.join(", ")),
                range: "one hour or more, such as PT1H or P1D",
            }),
            fine => Ok(fine),
        }
    }
}

impl fmt::Display for After {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DeleteWithin(time) => write!(f, "delete_within({})", iso(time.as_secs())),
            Self::Notify => f.write_str("notify"),
            Self::Report(time) => write!(f, "report({})", iso(time.as_secs())),
        }
    }
}

impl Duties {
    /// All of them together: the shortest times.
    pub fn meet<'a>(demands: impl IntoIterator<Item = &'a After>) -> Self {
        let least = |before: Option<u64>, time: &Duration| Some(before.unwrap_or(u64::MAX).min(time.as_secs()));
        let mut met = Self::default();
        for demand in demands {
            match demand {
                After::DeleteWithin(time) => met.delete_within = least(met.delete_within, time),
                After::Notify => met.notify = true,
                After::Report(time) => met.report = least(met.report, time),
            }
        }
        met
    }

    /// Whether nothing is owed.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// As they are written in a policy, one by one.
    pub fn written(&self) -> Vec<String> {
        let mut written = Vec::new();
        written.extend(self.delete_within.map(|seconds| format!("delete_within({})", iso(seconds))));
        written.extend(self.notify.then(|| "notify".to_owned()));
        written.extend(self.report.map(|seconds| format!("report({})", iso(seconds))));
        written
    }
}

/// What is still open of what was demanded.
pub(super) fn open(demanded: &BTreeSet<Before>, met: &BTreeSet<Before>) -> Vec<Before> {
    demanded.difference(met).cloned().collect()
}

fn known(name: &str, names: &[&'static str]) -> Result<&'static str, ObligationError> {
    names.iter().copied().find(|known| *known == name).ok_or_else(|| {
        let near = nearest(name, names.iter().copied());
        ObligationError::Unknown { name: harmless(name), suggestion: names.iter().copied().find(|n| Some(*n) == near) }
    })
}

/// ISO 8601 durations of a fixed length. Years and months have none: a duty must fall due at the same time for both.
pub(super) fn duration(name: &'static str, text: &str) -> Result<Duration, ObligationError> {
    let wrong = |range| ObligationError::Range { name, value: harmless(text), range };
    let parsed = iso8601::duration(text).map_err(|_| wrong("an ISO 8601 duration, such as P90D or PT12H"))?;
    if let iso8601::Duration::YMDHMS { year, month, .. } = parsed
        && (year, month) != (0, 0)
    {
        return Err(wrong("weeks, days, hours, minutes or seconds (write P365D; months and years differ in length)"));
    }
    let time = Duration::from(parsed);
    let fits = time.as_secs() >= 1 && time.as_secs() <= MAX_DAYS * 86_400 && time.subsec_nanos() == 0;
    if fits { Ok(time) } else { Err(wrong("one second to 36,500 days, in whole seconds")) }
}

/// ISO 8601, for people: the largest unit that divides it.
pub fn iso(seconds: u64) -> String {
    match seconds {
        s if s % 86_400 == 0 => format!("P{}D", s / 86_400),
        s if s % 3600 == 0 => format!("PT{}H", s / 3600),
        s if s % 60 == 0 => format!("PT{}M", s / 60),
        s => format!("PT{s}S"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::parse;

    #[test]
    fn what_comes_before_and_after_is_read_and_written() {
        let text = "approve(ethics_board); consent(research); second_factor; accept('I (the consumer) will not, ever')";
        let before = parse::before(text).unwrap();
        assert_eq!(before.len(), 4);
        for one in &before {
            assert_eq!(Before::parse(&one.to_string()).as_ref(), Some(one));
        }
        let after = parse::after("delete_within(P90D); notify; report(PT12H)").unwrap();
        let written: Vec<String> = after.iter().map(ToString::to_string).collect();
        assert_eq!(written, ["delete_within(P90D)", "notify", "report(PT12H)"]);
        let more = parse::after("delete_within(P2W); report(P1D)").unwrap();
        assert_eq!(
            Duties::meet(after.iter().chain(&more)).written(),
            ["delete_within(P14D)", "notify", "report(PT12H)"]
        );
    }

    #[test]
    fn what_could_not_be_kept_is_refused_by_name() {
        for (wrong, word) in [
            ("aprove(x)", "did you mean `approve`"),
            ("approve", "one role"),
            ("approve(a, b)", "one role"),
            ("approve('a b')", "letters, digits"),
            ("second_factor(x)", "nothing"),
            ("accept(' ')", "1 to 512"),
            ("hash(id)", "unknown"),
        ] {
            let error = parse::before(wrong).unwrap_err().to_string();
            assert!(error.contains(word), "{wrong}: {error}");
        }
        for (wrong, word) in [
            ("delete_within", "ISO 8601"),
            ("delete_within(90)", "ISO 8601"),
            ("delete_within(P1Y)", "P365D"),
            ("delete_within(P1M)", "P365D"),
            ("delete_within(P0D)", "one second"),
            ("report(P40000D)", "36,500"),
            ("report(PT59M)", "one hour"),
            ("notify(x)", "nothing"),
            ("delete_withn(P1D)", "did you mean `delete_within`"),
        ] {
            let error = parse::after(wrong).unwrap_err().to_string();
            assert!(error.contains(word), "{wrong}: {error}");
        }
    }
}
