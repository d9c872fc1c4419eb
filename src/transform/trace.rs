//! Whose copy a leaked table was: the marks and pseudonyms in it, held against those of each recipient.
//!
//! The chance that is told is exact, whatever the data look like: who knows nothing of a candidate's key can say nothing
//! of its bits, so each row that the key marks agrees with its bit like a coin. Rows of the same key values share one
//! bit and are one toss; so nobody is accused by a row that was copied a thousand times.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fs::File,
    io::{Seek as _, SeekFrom},
    sync::Arc,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::hmac;

use crate::{
    policy::{Column, ColumnKind, Columns},
    source::{Broken, Csv, Format, Json, Parquet, Records, Row},
    transform::{
        HashKey, TransformError,
        mark::{Seal, add, parity},
        rules::PSEUDONYM,
    },
};

/// Most marked rows that are looked at for one mark: the chance is beyond doubt long before.
const MAX_MARKED: usize = 100_000;
/// Most pseudonyms that are kept of one column of the leak.
const MAX_PSEUDONYMS: usize = 1_000_000;
/// Who is named by marks: chance would name anybody of all the candidates less often than this (its decimal logarithm).
const NAMED_LOG10: f64 = -6.0;

/// Somebody who got a copy.
pub struct Candidate<'a> {
    /// Who.
    pub name: String,
    /// The keys of this one's copy: those of `hash` and, beside them, of marks.
    pub key: &'a dyn HashKey,
    /// What was marked in it, as in [`Obligations`](crate::policy::Obligations).
    pub watermark: BTreeMap<String, BTreeSet<String>>,
    /// What was hashed in it.
    pub hashes: Vec<Hashed<'a>>,
}

/// A column that left as pseudonyms.
pub struct Hashed<'a> {
    /// The column.
    pub column: String,
    /// The domain of its key.
    pub domain: String,
    /// The source's own values, to make the pseudonyms of once more.
    pub values: Box<dyn Iterator<Item = String> + 'a>,
}

/// What was found of one candidate.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Who.
    pub name: String,
    /// A line a mark.
    pub marks: Vec<MarkFound>,
    /// A line a hashed column.
    pub pseudonyms: Vec<PseudonymsFound>,
}

/// What was found of a mark.
#[derive(Clone, Debug, PartialEq)]
pub struct MarkFound {
    /// The marked column.
    pub column: String,
    /// Columns without which the mark can't be read, and that the leak lacks.
    pub missing: Vec<String>,
    /// Rows that this candidate's key marks: distinct ones, by the columns by which they are known.
    pub marked: u64,
    /// How many of them have the bit that it gives.
    pub matching: u64,
    /// The chance that so many or more do by themselves, as a decimal logarithm: −9 is one in a billion.
    pub chance_log10: f64,
}

/// What was found of a hashed column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PseudonymsFound {
    /// The column.
    pub column: String,
    /// Whether the leak lacks it.
    pub missing: bool,
    /// Distinct pseudonyms in the leak.
    pub leaked: u64,
    /// How many of them only this candidate's key makes. One is proof.
    pub matching: u64,
}

/// Whose copy it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// These; several where copies were put together.
    Named {
        /// By their names.
        names: Vec<String>,
    },
    /// Nobody can be named.
    Nobody,
}

/// Who is named by what was found: by one pseudonym, or by marks whose agreement chance doesn't explain.
pub fn verdict(found: &[Found]) -> Verdict {
    // the more are asked, the more often chance answers
    let asked = found.iter().map(|found| found.marks.len()).sum::<usize>().max(1) as f64;
    let by_mark = |mark: &MarkFound| mark.chance_log10 + asked.log10() <= NAMED_LOG10;
    let is_named = |found: &&Found| {
        found.pseudonyms.iter().any(|pseudonyms| pseudonyms.matching > 0) || found.marks.iter().any(by_mark)
    };
    let names: Vec<String> = found.iter().filter(is_named).map(|found| found.name.clone()).collect();
    if names.is_empty() { Verdict::Nobody } else { Verdict::Named { names } }
}

/// Reads a leaked table, once or twice from its start, and says what is in it of each candidate. Rows may be missing, or
/// in another order, or with fewer columns.
///
/// # Errors
/// A leak that can't be read as this format.
pub fn trace(mut leak: File, format: Format, candidates: Vec<Candidate<'_>>) -> Result<Vec<Found>, TransformError> {
    match format {
        Format::Csv => {
            let mut rows = Csv::open(leak, false)?;
            let names = rows.names().to_vec();
            held_against(&mut rows, &names, candidates)
        }
        Format::JsonLines | Format::Json => {
            let array = format == Format::Json;
            let mut rows = Json::new(&mut leak, array, None, false);
            while rows.fill()? {
                rows.each(|_| Ok::<_, Broken>(true))?;
            }
            let names = rows.names().to_vec();
            leak.seek(SeekFrom::Start(0))?;
            let column = |name: &String| Column { name: name.clone(), kind: ColumnKind::Text };
            let columns = Columns::new(names.iter().map(column).collect());
            let columns = columns.map_err(|error| Broken::Header(error.to_string()))?;
            held_against(&mut Json::new(leak, array, Some(&columns), false), &names, candidates)
        }
        Format::Parquet => {
            let parquet = Parquet::open(Arc::new(leak))?;
            let names: Vec<String> = parquet.columns().map(|(name, _)| name.to_owned()).collect();
            let all: Vec<usize> = (0..names.len()).collect();
            held_against(&mut parquet.batches(&all)?, &names, candidates)
        }
    }
}

fn held_against<S: Records>(
    rows: &mut S,
    names: &[String],
    candidates: Vec<Candidate<'_>>,
) -> Result<Vec<Found>, TransformError> {
    let mut marks = Vec::new();
    let mut leaked: BTreeMap<String, Pseudonyms> = BTreeMap::new();
    for (at, candidate) in candidates.iter().enumerate() {
        for (column, keys) in &candidate.watermark {
            marks.push((at, MarkTally::new(candidate.key, column, keys, names)));
        }
        for hashed in &candidate.hashes {
            let place = names.iter().position(|name| *name == hashed.column);
            leaked.entry(hashed.column.clone()).or_insert_with(|| Pseudonyms { place, seen: HashSet::new() });
        }
    }
    let mut scratch = String::new();
    while rows.fill()? {
        rows.each(|row| -> Result<bool, Broken> {
            marks.iter_mut().try_for_each(|(_, mark)| mark.look(row, &mut scratch))?;
            leaked.values_mut().try_for_each(|pseudonyms| pseudonyms.look(row, &mut scratch))?;
            Ok(true)
        })?;
    }
    let mut found: Vec<Found> = Vec::new();
    for (at, candidate) in candidates.into_iter().enumerate() {
        let marks = marks.iter().filter(|(of, _)| *of == at).map(|(_, mark)| mark.found()).collect();
        let pseudonyms = candidate.hashes.into_iter().map(|hashed| {
            let leaked = leaked.get(&hashed.column);
            let key = hmac::Key::new(hmac::HMAC_SHA256, &candidate.key.key(&hashed.domain));
            let seen = leaked.map_or(0, |leaked| leaked.seen.len() as u64);
            let missing = leaked.is_none_or(|leaked| leaked.place.is_none());
            let matching = leaked.map_or(0, |leaked| leaked.made_of(&key, hashed.values));
            PseudonymsFound { column: hashed.column, missing, leaked: seen, matching }
        });
        found.push(Found { pseudonyms: pseudonyms.collect(), name: candidate.name, marks });
    }
    Ok(found)
}

/// The rows that one key marks.
struct MarkTally {
    column: String,
    missing: Vec<String>,
    seal: Seal,
    /// Places in the leak of the marked column and of those by which a row is known; `None` if one is missing.
    places: Option<(usize, Vec<usize>)>,
    /// By what the key makes of the known values: agreeing and other rows.
    rows: HashMap<[u8; 16], (u32, u32)>,
}

impl MarkTally {
    fn new(key: &dyn HashKey, column: &str, keys: &BTreeSet<String>, names: &[String]) -> Self {
        let place = |wanted: &str| names.iter().position(|name| name == wanted);
        let keyed: Option<Vec<usize>> = keys.iter().map(|key| place(key)).collect();
        let missing = keys.iter().map(String::as_str).chain([column]).filter(|name| place(name).is_none());
        Self {
            missing: missing.map(str::to_owned).collect(),
            seal: Seal::new(key, column),
            places: place(column).zip(keyed),
            column: column.to_owned(),
            rows: HashMap::new(),
        }
    }

    fn look(&mut self, row: &impl Row, scratch: &mut String) -> Result<(), Broken> {
        let Some((column, keys)) = &self.places else { return Ok(()) };
        let Some(odd) = parity(row.text(*column, scratch)?) else { return Ok(()) };
        let mut known = self.seal.row();
        for key in keys {
            add(&mut known, row.text(*key, scratch)?);
        }
        let Some((bit, id)) = super::mark::marked(known) else { return Ok(()) };
        if self.rows.len() < MAX_MARKED || self.rows.contains_key(&id) {
            let (agreeing, other) = self.rows.entry(id).or_default();
            let count = if bit == odd { agreeing } else { other };
            *count = count.saturating_add(1);
        }
        Ok(())
    }

    fn found(&self) -> MarkFound {
        // where rows of the same values disagree among themselves, the more count; as many on both sides say nothing
        let marked = self.rows.values().filter(|(agreeing, other)| agreeing != other).count() as u64;
        let matching = self.rows.values().filter(|(agreeing, other)| agreeing > other).count() as u64;
        MarkFound {
            column: self.column.clone(),
            missing: self.missing.clone(),
            marked,
            matching,
            chance_log10: chance_ln(marked, matching) / std::f64::consts::LN_10,
        }
    }
}

/// The pseudonyms of a column of the leak.
struct Pseudonyms {
    place: Option<usize>,
    seen: HashSet<[u8; PSEUDONYM]>,
}

impl Pseudonyms {
    fn look(&mut self, row: &impl Row, scratch: &mut String) -> Result<(), Broken> {
        let Some(place) = self.place else { return Ok(()) };
        let mut bytes = [0; PSEUDONYM];
        let decoded = URL_SAFE_NO_PAD.decode_slice(row.text(place, scratch)?, &mut bytes);
        if decoded == Ok(PSEUDONYM) && self.seen.len() < MAX_PSEUDONYMS {
            self.seen.insert(bytes);
        }
        Ok(())
    }

    /// How many of them this key makes of these values.
    fn made_of(&self, key: &hmac::Key, values: impl Iterator<Item = String>) -> u64 {
        let mut made = HashSet::new();
        if self.seen.is_empty() {
            return 0;
        }
        for value in values.filter(|value| !value.is_empty()) {
            let mut pseudonym = [0; PSEUDONYM];
            pseudonym.copy_from_slice(&hmac::sign(key, value.as_bytes()).as_ref()[..PSEUDONYM]);
            if self.seen.contains(&pseudonym) {
                made.insert(pseudonym);
            }
        }
        made.len() as u64
    }
}

/// The natural logarithm of the chance that of `tosses` of a coin `heads` or more are heads.
fn chance_ln(tosses: u64, heads: u64) -> f64 {
    if heads == 0 {
        return 0.0;
    }
    if heads * 2 <= tosses {
        // the upper part is the larger: what is missing from the whole is exact
        return (-chance_ln(tosses, tosses - heads + 1).exp()).ln_1p();
    }
    // ln C(tosses, heads), then the terms behind the first as multiples of it; each is smaller than the one before
    let chosen = tosses - heads;
    let first: f64 = (1..=chosen).map(|i| ((heads + i) as f64 / i as f64).ln()).sum();
    let (mut sum, mut term) = (1.0, 1.0);
    for more in heads..tosses {
        term *= (tosses - more) as f64 / (more + 1) as f64;
        sum += term;
        if term < 1e-18 {
            break;
        }
    }
    first - tosses as f64 * std::f64::consts::LN_2 + f64::ln(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chance_is_that_of_a_coin() {
        // python3: sum(comb(n, i) for i in range(k, n + 1)) / 2**n
        for (tosses, heads, chance) in [
            (1, 1, 0.5),
            (10, 0, 1.0),
            (10, 5, 0.623_046_875),
            (10, 6, 0.376_953_125),
            (10, 10, 9.765_625e-4),
            (100, 60, 0.028_443_966_820_490_392),
            (100, 40, 0.982_399_899_891_122_4),
            (500, 350, 9.171_233_384_919_267e-20),
        ] {
            let computed = chance_ln(tosses, heads).exp();
            assert!((computed / chance - 1.0).abs() < 1e-9, "{heads} of {tosses}: {computed}");
        }
        assert!((chance_ln(100_000, 100_000) + 100_000.0 * std::f64::consts::LN_2).abs() < 1e-6);
        assert!(chance_ln(100_000, 1) > -1e-9 && chance_ln(0, 0) == 0.0);
    }
}
