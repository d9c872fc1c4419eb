//! What docs/performance.md promises, measured as ratios within one run: a decision by the size of everything
//! published, durable signed receipts beside bare sled, a sealed release beside a bare server, memory, start.
//!
//! Ends with an error when a promise isn't kept. `cargo bench -- --test` only tries whether everything runs;
//! `cargo bench -- decision` (or `slices`, `receipts`, `start`, `negotiation`, `release`) measures one part.

mod bare;
mod decision;
#[path = "../../tests/it/house.rs"]
#[allow(dead_code, reason = "shared with the integration tests, which need more of it")]
mod house;
mod life;
mod negotiation;
mod plain;
mod receipts;
mod release;
mod start;

use std::sync::atomic::{AtomicBool, Ordering};

use criterion::Criterion;

static BROKEN: AtomicBool = AtomicBool::new(false);

/// Prints a figure beside its promise.
fn promise(what: &str, figure: f64, kept: bool) {
    println!("  {} {what}: {figure:.2}", if kept { "kept   " } else { "BROKEN " });
    if !kept {
        BROKEN.store(true, Ordering::Relaxed);
    }
}

fn main() {
    if life::reopened() {
        return;
    }
    if let Some(job) = bare::Job::from_environment() {
        return job.serve();
    }
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    if std::env::args().any(|word| word == "--test") {
        return;
    }
    let wanted = |part: &str| words.is_empty() || words.iter().any(|word| word == part);
    if wanted("decision") || wanted("slices") {
        decision::slices();
    }
    if wanted("decision") {
        let mut criterion = Criterion::default();
        decision::decisions(&mut criterion);
        criterion.final_summary();
    }
    if wanted("receipts") {
        receipts::receipts();
    }
    if wanted("life") {
        life::life();
    }
    if wanted("start") {
        start::start();
    }
    if wanted("negotiation") {
        negotiation::negotiations();
    }
    if wanted("release") {
        release::releases();
    }
    if BROKEN.load(Ordering::Relaxed) {
        std::process::exit(1);
    }
}
