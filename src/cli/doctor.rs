//! `counterseal doctor`: what is wrong with this home.

use std::{path::Path, process::ExitCode, time::Duration};

use serde_json::{Value, json};

use crate::{
    cli::{
        client::connect,
        output::{Output, plain, text},
    },
    config::Config,
    identity::Keys,
    node::{Running, STEWARD, TOKEN, read_token},
    source::Roots,
    time::{Clock as _, SystemClock},
};

/// A certificate that ends within this time is worth a word.
const SOON: Duration = Duration::from_secs(30 * 24 * 3600);

/// Looks at everything that can be looked at without starting; exit code 1 if something is wrong.
pub async fn run(home: &Path, out: &Output) -> anyhow::Result<ExitCode> {
    let mut problems = Vec::new();
    match Config::load(home, std::env::vars()) {
        Err(error) => problems.push(error.to_string()),
        Ok(config) => {
            match Keys::load(home, &config.participant.did) {
                Err(error) => problems.push(error.to_string()),
                Ok(keys) => {
                    let certificate = keys.certificate();
                    let now = SystemClock.now();
                    if now >= certificate.not_after {
                        problems
                            .push(format!("the certificate ended at {}: partners refuse it", certificate.not_after));
                    } else if now.plus(SOON) >= certificate.not_after {
                        problems.push(format!("the certificate ends soon, at {}", certificate.not_after));
                    }
                    if !certificate.dids.contains(&config.participant.did) {
                        problems.push(format!(
                            "the certificate doesn't name {}: partners refuse it",
                            config.participant.did
                        ));
                    }
                }
            }
            if let Err(error) = Roots::new(config.sources.roots.clone(), home) {
                problems.push(error.to_string());
            }
            for root in config.sources.roots.iter().filter(|root| !root.is_dir()) {
                problems.push(format!("sources.roots: {} is not there", root.display()));
            }
        }
    }
    for name in [TOKEN, STEWARD] {
        if let Err(error) = read_token(home, name) {
            problems.push(error.to_string());
        }
    }
    let running = Running::load(home);
    problems.extend(said_by_status(home).await);
    // nothing wrong, but something to do
    let waiting = Config::load(home, std::env::vars())
        .is_ok_and(|config| Keys::rotated(home, &config.participant.did).is_ok_and(|keys| keys.is_some()));
    out.show(&json!({ "problems": problems, "running": running, "rotationWaits": waiting }), |_| {
        let mut lines: String = problems.iter().map(|problem| format!("! {problem}\n")).collect();
        if problems.is_empty() {
            lines.push_str("nothing is wrong\n");
        }
        if waiting {
            lines.push_str("a rotated key waits: it takes its place when the connector is started (again)\n");
        }
        match &running {
            Some(running) => lines.push_str(&format!("running as process {}\n", running.process)),
            None => lines.push_str("not running\n"),
        }
        lines
    });
    Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What a running connector says of itself that is wrong.
async fn said_by_status(home: &Path) -> Vec<String> {
    let Ok(client) = connect(home) else { return Vec::new() };
    let status = match client.get("/v1/status").await {
        Ok(status) => status,
        Err(error) => return vec![format!("{error:#}")],
    };
    let sentences = [&status["clock"], &status["log"]["behind"]].map(|problem| problem["sentence"].as_str());
    let mut problems: Vec<String> = sentences.into_iter().flatten().map(plain).collect();
    for partner in status["restoring"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        problems
            .push(format!("restored: {} has not said yet what it knows; nothing is decided with it", plain(partner)));
    }
    for alarm in status["alarms"].as_array().into_iter().flatten() {
        problems.push(format!("ALARM {}", text(alarm, "sentence")));
    }
    problems
}
