//! `scenario.toml`: who plays, and what happens. Whatever can't be played is refused before anybody is on the stage.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use toml::{Spanned, Table, Value};

use super::step::{Act, Code, Step};
use crate::{
    id::Did,
    policy::{did_you_mean, nearest},
    time::{Timestamp, Zone},
};

/// The file's name in its folder.
pub const FILE: &str = "scenario.toml";
/// Most parties, and most at once in a race.
const MANY: usize = 64;
const DAY: i64 = 86_400_000;

/// A scenario, read and found to fit together.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Its folder.
    pub folder: PathBuf,
    /// Its id.
    pub id: String,
    /// What it is called.
    pub title: String,
    /// The same in Chinese.
    pub title_zh: String,
    /// What it is about.
    pub about: String,
    /// The same in Chinese.
    pub about_zh: String,
    /// The denials that it promises to show.
    pub denials: Vec<String>,
    /// When it begins: at the next such moment.
    pub clock: Option<Start>,
    /// Who plays.
    pub parties: Vec<Party>,
    /// What happens.
    pub steps: Vec<Step>,
}

/// A moment of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// ISO 8601: Monday is 1.
    weekday: u8,
    /// Milliseconds since midnight.
    time: i64,
}

/// Who plays.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Party {
    /// Its place: `did:web:NAME.invalid`.
    pub name: String,
    /// What it is called.
    pub title: String,
    /// The same in Chinese.
    #[serde(default)]
    pub title_zh: Option<String>,
    /// What every other party records of it at pairing.
    #[serde(default)]
    pub groups: BTreeSet<String>,
    #[serde(default)]
    pub roles: BTreeSet<String>,
    #[serde(default)]
    pub certifications: BTreeSet<String>,
    #[serde(default)]
    pub jurisdiction: Option<String>,
    #[serde(default)]
    pub physical_address: Option<String>,
    /// Those who don't know it, and whom it doesn't know.
    #[serde(default)]
    pub unpaired_with: BTreeSet<String>,
}

/// Why a scenario can't be played.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// The file can't be read.
    #[error("{path} can't be read: {error}; a scenario is a folder with a {FILE}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// It doesn't fit together.
    #[error("{path}{place}: {problem}")]
    Wrong {
        /// Which file.
        path: PathBuf,
        /// `:line`, and the step.
        place: String,
        /// What is wrong, and what to do.
        problem: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    id: String,
    title: String,
    title_zh: Option<String>,
    #[serde(default)]
    about: String,
    about_zh: Option<String>,
    #[serde(default)]
    denials: Vec<String>,
    clock: Option<ClockSection>,
    party: Vec<Party>,
    step: Vec<Spanned<Table>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClockSection {
    weekday: u8,
    time: String,
}

// === impl Scenario ===

impl Scenario {
    /// Reads the scenario of a folder.
    ///
    /// # Errors
    /// The file can't be read, or something in it that nobody could play: with its line, its step and its key.
    pub fn read(folder: &Path) -> Result<Self, ScenarioError> {
        let path = folder.join(FILE);
        let text = fs::read_to_string(&path).map_err(|error| ScenarioError::Read { path: path.clone(), error })?;
        Self::parse(folder, &text).map_err(|(place, problem)| ScenarioError::Wrong {
            path,
            place,
            problem: problem.trim_end().to_owned(),
        })
    }

    fn parse(folder: &Path, text: &str) -> Result<Self, (String, String)> {
        let line = |at: usize| 1 + text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count();
        let anywhere = |problem: String| (String::new(), problem);
        let file: File = toml::from_str(text).map_err(|error| {
            let place = error.span().map_or_else(String::new, |span| format!(":{}", line(span.start)));
            (place, suggesting(error.message()))
        })?;
        let clock = file.clock.map(ClockSection::checked).transpose().map_err(anywhere)?;
        check_parties(&file.party).map_err(anywhere)?;
        let mut named = BTreeSet::new();
        let mut steps = Vec::new();
        for (index, step) in file.step.into_iter().enumerate() {
            let line = line(step.span().start);
            let (what, step) = read_step(line, step.into_inner());
            let step = step.and_then(|step| {
                check_step(&step, folder, &file.party, &file.denials, &mut named)?;
                Ok(step)
            });
            steps.push(step.map_err(|problem| (format!(":{line}: step {} ({what})", index + 1), problem))?);
        }
        Ok(Self {
            folder: folder.to_owned(),
            title_zh: file.title_zh.unwrap_or_else(|| file.title.clone()),
            about_zh: file.about_zh.unwrap_or_else(|| file.about.clone()),
            id: file.id,
            title: file.title,
            about: file.about,
            denials: file.denials,
            clock,
            parties: file.party,
            steps,
        })
    }

    /// Denials that no step shows.
    pub fn not_shown(&self) -> Vec<&str> {
        let shown = |denial: &&str| self.steps.iter().any(|step| step.denies() && step.deny.as_deref() == Some(denial));
        self.denials.iter().map(String::as_str).filter(|denial| !shown(denial)).collect()
    }
}

// === impl Start ===

impl Start {
    /// The next such moment in Beijing's time.
    pub fn after(self, now: Timestamp) -> Timestamp {
        let civil = Zone::BEIJING.civil(now);
        let days = i64::from(self.weekday) - i64::from(civil.weekday);
        let ahead = (days * DAY + self.time - civil.since_midnight).rem_euclid(7 * DAY);
        Timestamp::from_millis(now.millis() + ahead)
    }
}

impl ClockSection {
    fn checked(self) -> Result<Start, String> {
        let wrong = || {
            format!(
                "[clock]: weekday = {}, time = \"{}\" is no moment: weekday is 1 (Monday) to 7, time as in \"10:00\"",
                self.weekday, self.time
            )
        };
        let (hours, minutes) = self.time.split_once(':').ok_or_else(wrong)?;
        let number = |text: &str, below: i64| {
            let fine = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse::<i64>().ok().filter(|number| fine && *number < below)
        };
        match (number(hours, 24), number(minutes, 60)) {
            (Some(hours), Some(minutes)) if (1..=7).contains(&self.weekday) => {
                Ok(Start { weekday: self.weekday, time: (hours * 60 + minutes) * 60_000 })
            }
            _ => Err(wrong()),
        }
    }
}

// === impl Party ===

impl Party {
    /// Whether these two get to know each other.
    pub fn knows(&self, other: &Self) -> bool {
        !self.unpaired_with.contains(&other.name) && !other.unpaired_with.contains(&self.name)
    }
}

/// A length of time that is the same for everybody.
pub fn length(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`for = \"{text}\"` is no time to wait: write P90D, PT1H or PT30M");
    let parsed = iso8601::duration(text).map_err(|_| wrong())?;
    match parsed {
        iso8601::Duration::YMDHMS { year: 0, month: 0, .. } | iso8601::Duration::Weeks(_) => {
            let time = Duration::from(parsed);
            if time.is_zero() || time > Duration::from_secs(3660 * 86_400) { Err(wrong()) } else { Ok(time) }
        }
        iso8601::Duration::YMDHMS { .. } => Err(format!("{}; months and years differ in length", wrong())),
    }
}

fn check_parties(parties: &[Party]) -> Result<(), String> {
    if parties.is_empty() || parties.len() > MANY {
        return Err(format!("{} parties: a scenario has 1 to {MANY}", parties.len()));
    }
    let mut seen = BTreeSet::new();
    for party in parties {
        let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if party.name.is_empty()
            || !party.name.chars().all(fine)
            || Did::parse(format!("did:web:{}.invalid", party.name)).is_err()
        {
            return Err(format!("party `{}`: a name has lower-case letters, digits and `-`", party.name));
        }
        if !seen.insert(party.name.as_str()) {
            return Err(format!("there are two parties `{}`", party.name));
        }
    }
    let others = parties.iter().flat_map(|party| party.unpaired_with.iter().map(move |other| (party, other)));
    for (party, other) in others {
        known("unpaired_with", other, parties).map_err(|problem| format!("party `{}`: {problem}", party.name))?;
    }
    Ok(())
}

fn known(key: &str, name: &str, parties: &[Party]) -> Result<(), String> {
    let names = || parties.iter().map(|party| party.name.as_str());
    if names().any(|known| known == name) {
        return Ok(());
    }
    Err(format!("{key} = \"{name}\": no such party{}", did_you_mean(nearest(name, names()), "")))
}

/// What the step does, for messages; and the step.
fn read_step(line: usize, mut table: Table) -> (String, Result<Step, String>) {
    let what = table.get("do").and_then(Value::as_str).unwrap_or("no `do`").to_owned();
    let step = (|| {
        let mut text = |key: &str| match table.remove(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(format!("{key} = {other}: this is a text")),
        };
        let (say, say_zh, deny) = (text("say")?, text("say_zh")?, text("deny")?);
        let (expect, says) = (text("expect")?, text("says")?);
        let say = say.ok_or("`say` is missing: what is told of this step")?;
        let act = Value::Table(table).try_into::<Act>().map_err(|error| suggesting(error.message()))?;
        Ok(Step {
            line,
            say_zh: say_zh.unwrap_or_else(|| say.clone()),
            say,
            deny,
            expect: expect.filter(|expect| expect != "ok"),
            says,
            act,
        })
    })();
    (what, step)
}

fn check_step(
    step: &Step,
    folder: &Path,
    parties: &[Party],
    denials: &[String],
    named: &mut BTreeSet<String>,
) -> Result<(), String> {
    for (key, party) in step.act.parties() {
        known(key, party, parties)?;
    }
    for agreement in step.act.agreements() {
        if !named.contains(agreement) {
            let near = nearest(agreement, named.iter().map(String::as_str));
            return Err(format!(
                "under = \"{agreement}\": no step before negotiates `as = \"{agreement}\"`{}",
                did_you_mean(near, "")
            ));
        }
    }
    if let Some((key, file)) = step.act.file() {
        let inside = file.is_relative() && !file.components().any(|part| part.as_os_str() == "..");
        if !inside || !folder.join(file).is_file() {
            return Err(format!("{key} = \"{}\": there is no such file in {}", file.display(), folder.display()));
        }
    }
    if let Some(deny) = &step.deny
        && !denials.contains(deny)
    {
        let near = nearest(deny, denials.iter().map(String::as_str));
        return Err(format!("deny = \"{deny}\" is not in `denials`{}", did_you_mean(near, "")));
    }
    if step.deny.is_some() && !step.denies() {
        return Err("it shows a denial (`deny`), but nothing is denied in it: give `expect`".to_owned());
    }
    if step.says.is_some() && step.expect.is_none() {
        return Err("`says` is a part of a refusal's sentence: give its code in `expect`, too".to_owned());
    }
    match &step.act {
        Act::Race { .. } | Act::Tamper { .. } | Act::Evidence { .. } | Act::Duties { .. } | Act::Wait { .. }
            if step.expect.is_some() =>
        {
            Err("this step says itself what has to come out: leave out `expect`".to_owned())
        }
        Act::Negotiate { name: Some(name), .. } if step.expect.is_none() && !named.insert(name.clone()) => {
            Err(format!("as = \"{name}\": an agreement has this name already"))
        }
        Act::Negotiate { name: None, .. } if step.expect.is_none() => {
            Err("`as` is missing: the name by which later steps know the agreement".to_owned())
        }
        Act::Fetch(fetch) if fetch.code.is_some() && fetch.person.is_none() => {
            Err("`code` is a person's: give `person`, too".to_owned())
        }
        Act::Fetch(fetch) if matches!(fetch.code, Some(Code::Right(false))) => {
            Err("code = false: leave it out, or give digits that are wrong".to_owned())
        }
        Act::Use(wanted) if step.expect.is_some() => {
            let checks = [wanted.columns.is_some(), wanted.rows.is_some(), !wanted.shows.is_empty()];
            if checks.contains(&true) || !wanted.hides.is_empty() {
                return Err("a use that is refused shows nothing: leave out columns, rows, shows and hides".to_owned());
            }
            Ok(())
        }
        Act::Wait { time } => length(time).map(|_| ()),
        Act::Race { times, succeed, .. } if !(1..=MANY).contains(times) || succeed > times => {
            Err(format!("times = {times}, succeed = {succeed}: 1 to {MANY} race, and no more succeed"))
        }
        Act::Evidence { between: [one, other] } if one == other => {
            Err(format!("between = [\"{one}\", \"{other}\"]: evidence is held against another party's"))
        }
        _ => Ok(()),
    }
}

/// Serde's message, with the nearest of the names that it lists.
fn suggesting(message: &str) -> String {
    let names: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let near = match names.split_first() {
        Some((written, known)) if message.starts_with("unknown ") => nearest(written, known.iter().copied()),
        _ => None,
    };
    format!("{}{}", message.trim_end(), did_you_mean(near, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "id = \"x\"\ntitle = \"X\"\ndenials = [\"too many\"]\n[[party]]\nname = \"a\"\ntitle = \"A\"\n[[party]]\nname = \"beta\"\ntitle = \"B\"\n";

    fn refused(rest: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("offer.toml"), "").unwrap();
        fs::write(folder.path().join(FILE), format!("{HEAD}{rest}")).unwrap();
        let error = Scenario::read(folder.path()).expect_err(rest).to_string();
        error.replace(&folder.path().display().to_string(), "F")
    }

    fn step(rest: &str) -> String {
        refused(&format!("[[step]]\nsay = \"s\"\n{rest}"))
    }

    #[test]
    fn a_step_that_nobody_could_play_is_named_with_its_line_its_key_and_a_suggestion() {
        for (rest, parts) in [
            ("do = \"fetsh\"", vec!["F/scenario.toml:10: step 1 (fetsh)", "did you mean `fetch`"]),
            (
                "do = \"publish\"\nby = \"a\"\noffr = \"offer.toml\"",
                vec!["(publish)", "`offr`", "did you mean `offer`"],
            ),
            ("do = \"publish\"\nby = \"a\"", vec!["missing field `offer`"]),
            ("do = \"publish\"\nby = \"bet\"\noffer = \"offer.toml\"", vec!["by = \"bet\"", "did you mean `beta`"]),
            ("do = \"publish\"\nby = \"a\"\noffer = \"none.toml\"", vec!["no such file"]),
            ("do = \"publish\"\nby = \"a\"\noffer = \"../offer.toml\"", vec!["no such file"]),
            ("do = \"revoke\"\nat = \"a\"\nunder = \"a1\"\nreason = \"r\"", vec!["under = \"a1\"", "no step before"]),
            ("do = \"negotiate\"\nby = \"a\"\nwith = \"beta\"\ndataset = \"d\"", vec!["`as` is missing"]),
            ("do = \"tamper\"\nat = \"a\"\ndeny = \"too mny\"", vec!["not in `denials`", "did you mean `too many`"]),
            ("do = \"wait\"\nfor = \"PT1H\"\ndeny = \"too many\"", vec!["nothing is denied"]),
            ("do = \"wait\"\nfor = \"P1M\"", vec!["`for = \"P1M\"`", "differ in length"]),
            ("do = \"wait\"\nfor = \"soon\"", vec!["`for = \"soon\"`"]),
            ("do = \"wait\"\nfor = \"PT1H\"\nexpect = \"x\"", vec!["leave out `expect`"]),
            ("do = \"tamper\"\nat = \"a\"\nsays = \"no\"", vec!["`expect`"]),
            ("do = \"use\"\nby = \"a\"\nof = \"d\"\npurpose = \"p\"\nrows = 1\nexpect = \"x\"", vec!["shows nothing"]),
            ("do = \"evidence\"\nbetween = [\"a\", \"a\"]", vec!["another party's"]),
            ("do = \"tamper\"\nat = 1", vec!["expected a string"]),
            ("at = \"a\"", vec!["(no `do`)", "missing field `do`"]),
        ] {
            let told = step(rest);
            for part in parts {
                assert!(told.contains(part), "{rest}\n{told}\nlacks {part}");
            }
        }
        assert!(refused("[[step]]\ndo = \"tamper\"\nat = \"a\"").contains("`say` is missing"));
        assert!(refused("[[step]]\nsay = 1\ndo = \"tamper\"\nat = \"a\"").contains("this is a text"));
    }

    #[test]
    fn what_is_wrong_around_the_steps_is_named_too() {
        let none = "[[step]]\nsay = \"s\"\ndo = \"tamper\"\nat = \"a\"\n";
        for (rest, part) in [
            (format!("[[party]]\nname = \"a\"\ntitle = \"A\"\n{none}"), "two parties `a`"),
            (format!("[[party]]\nname = \"A b\"\ntitle = \"A\"\n{none}"), "party `A b`"),
            (format!("[[party]]\nname = \"c\"\ntitle = \"A\"\nunpaired_with = [\"d\"]\n{none}"), "no such party"),
            (format!("[[party]]\nname = \"c\"\ntitle = \"A\"\ngroup = [\"d\"]\n{none}"), "did you mean `groups`"),
            (format!("[clock]\nweekday = 8\ntime = \"10:00\"\n{none}"), "[clock]"),
            (format!("[clock]\nweekday = 1\ntime = \"1000\"\n{none}"), "[clock]"),
            (format!("[clock]\nweekday = 1\ntime = \"24:00\"\n{none}"), "[clock]"),
        ] {
            assert!(refused(&rest).contains(part), "{rest}\n{}", refused(&rest));
        }
        let missing = Scenario::read(Path::new("/nowhere")).unwrap_err().to_string();
        assert!(missing.contains("/nowhere/scenario.toml") && missing.contains("a scenario is a folder"), "{missing}");
    }

    #[test]
    fn a_promised_denial_that_no_step_shows_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let read = |rest: &str| {
            fs::write(folder.path().join(FILE), format!("{HEAD}[[step]]\nsay = \"s\"\n{rest}")).unwrap();
            Scenario::read(folder.path()).unwrap().not_shown().len()
        };
        assert_eq!(read("do = \"tamper\"\nat = \"a\""), 1);
        assert_eq!(read("do = \"tamper\"\nat = \"a\"\ndeny = \"too many\""), 0);
    }

    #[test]
    fn a_scenario_begins_at_the_next_such_moment_and_never_before_now() {
        let now = Timestamp::parse("2026-03-04T10:00:00+08:00").unwrap();
        for (weekday, time, expected) in [
            (3, "10:00", "2026-03-04T10:00:00+08:00"),
            (3, "09:59", "2026-03-11T09:59:00+08:00"),
            (1, "10:00", "2026-03-09T10:00:00+08:00"),
            (4, "00:00", "2026-03-05T00:00:00+08:00"),
        ] {
            let start = ClockSection { weekday, time: time.into() }.checked().unwrap();
            assert_eq!(start.after(now), Timestamp::parse(expected).unwrap(), "{weekday} {time}");
        }
    }
}
