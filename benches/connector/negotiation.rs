//! Full negotiations a second, request to finalized, durable on both sides, between two processes on this machine; and
//! catalog requests a second with 1,000 datasets.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use reqwest::Client;
use serde_json::{Value, json};

use crate::{
    house::{House, paired},
    release::{client, cpu_seconds, loopback},
    start::process_of,
};

const ROUND: Duration = Duration::from_secs(8);
const DATASETS: usize = 1000;

/// Measures both.
pub fn negotiations() {
    let folder = tempfile::tempdir().expect("a folder");
    let (hospital, research) = paired(folder.path());
    publish(&hospital, "d");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    for abreast in [1, 16, 256] {
        let before = [&hospital, &research].map(|house| cpu_seconds(process_of(house)));
        let begun = Instant::now();
        let done = runtime.block_on(negotiate(&hospital, &research, abreast));
        let seconds = begun.elapsed().as_secs_f64();
        let after = [&hospital, &research].map(|house| cpu_seconds(process_of(house)));
        let cpu = |side: usize| (after[side] - before[side]) * 1e3 / done as f64;
        println!(
            "negotiation, {abreast} at once: {:.0}/s; {:.2} ms of provider CPU and {:.2} ms of consumer CPU each",
            done as f64 / seconds,
            cpu(0),
            cpu(1)
        );
    }
    for n in 1..DATASETS {
        publish(&hospital, &format!("d{n}"));
    }
    let http = client(&research.home, &hospital.home);
    for abreast in [1, 16] {
        let before = cpu_seconds(process_of(&hospital));
        let begun = Instant::now();
        let done = runtime.block_on(catalogs(&http, &hospital, abreast));
        let seconds = begun.elapsed().as_secs_f64();
        println!(
            "catalog of {DATASETS} datasets (the first page, 100), {abreast} at once: {:.0}/s; {:.2} ms of CPU each",
            done as f64 / seconds,
            (cpu_seconds(process_of(&hospital)) - before) * 1e3 / done as f64
        );
    }
}

fn publish(hospital: &House, dataset: &str) {
    let source = hospital.data("d.csv");
    if !source.exists() {
        fs::write(source, "id,age\n1,38\n").expect("written");
        hospital.write("open.cedar", "@id(\"open\") permit (principal, action, resource);");
    }
    let offer = hospital.write(
        "offer.toml",
        &format!("id = \"{dataset}\"\n[dataset]\nid = \"{dataset}\"\ntitle = \"D\"\nsource = \"d.csv\"\n[policy]\nfile = \"open.cedar\"\n"),
    );
    hospital.json(&["offer", "publish", &offer]);
}

async fn negotiate(hospital: &House, research: &House, abreast: usize) -> u64 {
    let (http, base, token) = loopback(research);
    let done = Arc::new(AtomicU64::new(0));
    let until = Instant::now() + ROUND;
    let workers: Vec<_> = (0..abreast)
        .map(|_| {
            let (http, base, token, done) = (http.clone(), base.clone(), token.clone(), done.clone());
            let body = json!({ "provider": hospital.did, "dataset": "d", "waitSeconds": 60 });
            tokio::spawn(async move {
                while Instant::now() < until {
                    let answer = http.post(format!("{base}/v1/negotiations")).bearer_auth(&token).json(&body).send();
                    let view: Value = answer.await.expect("an answer").json().await.expect("JSON");
                    assert_eq!(view["state"], "FINALIZED", "{view}");
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.expect("a worker");
    }
    done.load(Ordering::Relaxed)
}

async fn catalogs(http: &Client, hospital: &House, abreast: usize) -> u64 {
    let endpoint = hospital.json(&["status"])["endpoint"].as_str().expect("an endpoint").to_owned();
    let body =
        json!({ "@context": ["https://w3id.org/dspace/2025/1/context.jsonld"], "@type": "CatalogRequestMessage" });
    let done = Arc::new(AtomicU64::new(0));
    let until = Instant::now() + ROUND;
    let workers: Vec<_> = (0..abreast)
        .map(|_| {
            let (http, url, body, done) =
                (http.clone(), format!("{endpoint}/2025-1/catalog/request"), body.clone(), done.clone());
            tokio::spawn(async move {
                while Instant::now() < until {
                    let answer = http.post(&url).json(&body).send().await.expect("an answer");
                    assert!(answer.status().is_success());
                    assert!(answer.headers().contains_key("link"), "there is a next page");
                    answer.bytes().await.expect("a catalog");
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.expect("a worker");
    }
    done.load(Ordering::Relaxed)
}
