//! Applies obligations to a file, and says how fast and in how much memory.
//!
//! `cargo run --release --example transform -- csv 'keep(a, b); filter(a > 5); band(b, 10)' in.csv out.csv`

use std::{
    env,
    error::Error,
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use counterseal::{
    policy::{PolicySource, Slice},
    source::{self, Format, Roots},
    transform::{HashKey, Plan},
};

/// One key for all domains: this is a tool to measure with, nobody's pseudonyms.
struct OneKey;

impl HashKey for OneKey {
    fn key(&self, _: &str) -> [u8; 32] {
        [7; 32]
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [format, obligations, from, to] = arguments.as_slice() else {
        return Err("give FORMAT (csv, jsonl, json, parquet), OBLIGATIONS, IN and OUT".into());
    };
    let format: Format = format.parse()?;
    let from = fs::canonicalize(from)?;
    let folder = from.parent().map_or_else(|| PathBuf::from("/"), Path::to_owned);
    let name = from.file_name().and_then(|name| name.to_str()).ok_or("IN has no name")?;
    // nothing lies in this home; sources only must not lie in it either
    let home = tempfile::tempdir()?;
    let opened = Roots::new(vec![folder], home.path())?.open(name)?;
    let columns = source::header(&opened, format)?;
    let own = PolicySource { name: "none", text: "@id(\"any\") permit (principal, action, resource);" };
    let global = PolicySource { name: "none", text: "" };
    let met = Slice::compile(own, global, obligations, "", &columns)?.floor();
    let plan = Plan::compile(&met, &columns, format, Arc::new(OneKey))?;

    let begun = Instant::now();
    let mut out = File::create(to)?;
    let outcome = plan.run(opened.file()?, &mut out, &|| false)?;
    out.flush()?;
    let seconds = begun.elapsed().as_secs_f64();
    opened.unchanged()?;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).map_or("unknown", str::trim);
    println!(
        "{{\"records\": {}, \"bytes\": {}, \"seconds\": {seconds:.3}, \"mb_s\": {:.1}, \"peak_rss\": \"{peak}\"}}",
        outcome.records,
        outcome.bytes,
        opened.len() as f64 / 1e6 / seconds,
    );
    Ok(())
}
