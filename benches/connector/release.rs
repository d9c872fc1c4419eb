//! A sealed release of 1 GiB over TLS loopback, and one with obligations, beside a bare server: the same client reads
//! from all of them and throws away what it gets, so that the difference is the servers'. Then the whole walk, fetch to
//! opened copy, with both connectors' memory.

use std::{
    fs,
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use counterseal::{config::Config, identity::Keys, net, protocol::extension};
use reqwest::Client;
use serde_json::{Value, json};

use crate::{
    bare::Job,
    house::{House, pair},
    plain, promise,
    start::{process_of, status_kib},
};

const GIB: f64 = (1_u64 << 30) as f64;
/// Streams of one release at most (`MAX_BODIES`), less the fetch's own and those that it may resume.
const ROUNDS: usize = 4;
/// Of the times in `/proc` (USER_HZ, 100 on Linux).
const TICKS_PER_SECOND: f64 = 100.0;

/// What reading everything once took.
#[derive(Clone, Copy)]
struct Reading {
    bytes: u64,
    wall: Duration,
    /// CPU seconds of the server.
    cpu: f64,
}

impl Reading {
    fn gib_per_second(&self, of: u64) -> f64 {
        of as f64 / GIB / self.wall.as_secs_f64()
    }

    fn cpu_per_gib(&self, of: u64) -> f64 {
        self.cpu / (of as f64 / GIB)
    }
}

/// Measures, and holds the promises to the figures.
pub fn releases() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut hospital, mut research) = (House::new(folder.path(), "hospital"), House::new(folder.path(), "research"));
    // foreign connectors ask over plain HTTP, and pull over the partners' TLS listener
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port");
    hospital.serve_with(
        &[],
        &[
            ("COUNTERSEAL_LISTEN_PARTNER", &port.to_string()),
            ("COUNTERSEAL_LISTEN_PLAIN", "127.0.0.1:0"),
            ("COUNTERSEAL_LISTEN_PLAIN_URL", &format!("https://{port}")),
        ],
    );
    research.serve();
    pair(&hospital, &research);
    let source = hospital.data("rows.csv");
    let length = write_rows(&source);
    for (name, during) in [("sealed", ""), ("obliged", "@during(\"hash(id); band(age, 10)\")")] {
        publish(&hospital, &research, name, during);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let client = client(&research.home, &hospital.home);

    let bare_port = folder.path().join("bare.port");
    let mut bare = Job::new(hospital.home.clone(), source, bare_port.clone()).spawn();
    let bare_url = format!("https://{}/rows.csv", wait_for(&bare_port));
    let sealed = open_release(&runtime, &hospital, &research, "sealed");
    let obliged = open_release(&runtime, &hospital, &research, "obliged");
    let (plain_url, plain_token) = runtime.block_on(plain::start(&hospital));

    // turn by turn, so that a noisy minute is everybody's; the best of each
    let mut best: [Option<Reading>; 4] = [None; 4];
    for _ in 0..ROUNDS {
        for (best, (server, url, token)) in best.iter_mut().zip([
            (bare.id(), &bare_url, &String::new()),
            (process_of(&hospital), &sealed.url, &sealed.token),
            (process_of(&hospital), &obliged.url, &obliged.token),
            (process_of(&hospital), &plain_url, &plain_token),
        ]) {
            let reading = runtime.block_on(read(&client, url, token, server));
            if best.is_none_or(|best| reading.wall < best.wall) {
                *best = Some(reading);
            }
        }
    }
    let [bare_reading, sealed_reading, obliged_reading, plain_reading] = best.map(|reading| reading.expect("was read"));
    bare.kill().expect("the bare server ends");
    let _ = bare.wait();
    assert_eq!(bare_reading.bytes, length);
    assert!(sealed_reading.bytes > length, "sealed bytes are more than the plain ones");
    assert_eq!(plain_reading.bytes, length);
    for (name, reading) in
        [("bare", bare_reading), ("sealed", sealed_reading), ("obliged", obliged_reading), ("plain", plain_reading)]
    {
        println!(
            "release, {name}: {:.2} GiB/s, {:.2} server CPU seconds per GiB of source",
            reading.gib_per_second(length),
            reading.cpu_per_gib(length)
        );
    }
    let ratio = bare_reading.wall.as_secs_f64() / sealed_reading.wall.as_secs_f64();
    promise("a sealed release, of a bare server", ratio, ratio >= 0.5);
    let ratio = bare_reading.wall.as_secs_f64() / plain_reading.wall.as_secs_f64();
    promise("a plain release to a foreign connector, of a bare server", ratio, ratio >= 0.6);
    println!(
        "          with hash(id); band(age, 10), of a bare server: {:.2}",
        bare_reading.wall.as_secs_f64() / obliged_reading.wall.as_secs_f64()
    );

    for release in [&sealed, &obliged] {
        let begun = Instant::now();
        let events = runtime.block_on(fetch(&research, &release.agreement, false));
        assert_eq!(events.last().expect("an end")["event"], "opened", "{events:?}");
        println!("fetch, whole walk ({}): {:.1?}", release.name, begun.elapsed());
    }
    for (who, house) in [("provider", &hospital), ("consumer", &research)] {
        let mib = status_kib(process_of(house), "VmHWM:") as f64 / 1024.0;
        promise(&format!("memory of the {who} under 100 MB over all of it"), mib, mib < 100.0);
    }
}

/// A gibibyte of rows such as a register has.
fn write_rows(path: &Path) -> u64 {
    let mut file = BufWriter::with_capacity(1 << 20, fs::File::create(path).expect("a file"));
    file.write_all(b"id,age,city,note\n").expect("written");
    let (mut length, mut n) = (17_u64, 0_u64);
    while length < 1 << 30 {
        let row = format!(
            "{n},{},{},follow-up visit {:06x}-{:06x} without findings; next in {} months\n",
            n % 97,
            ["Guangzhou", "Shenzhen", "Foshan", "Zhuhai"][(n % 4) as usize],
            n.wrapping_mul(2_654_435_761) & 0xff_ffff,
            n & 0xff_ffff,
            n % 24
        );
        file.write_all(row.as_bytes()).expect("written");
        length += row.len() as u64;
        n += 1;
    }
    file.flush().expect("written");
    length
}

fn publish(hospital: &House, research: &House, name: &str, during: &str) {
    hospital.write(
        &format!("{name}.cedar"),
        &format!("@id(\"{name}\") {during} permit (principal in Group::\"research\", action, resource);"),
    );
    let offer = hospital.write(
        &format!("{name}.toml"),
        &format!(
            "id = \"{name}\"\n[dataset]\nid = \"{name}\"\ntitle = \"Rows\"\nsource = \"rows.csv\"\n\
             [policy]\nfile = \"{name}.cedar\"\n[audience]\nsealed_for = [\"{}\"]\n",
            research.did
        ),
    );
    hospital.json(&["offer", "publish", &offer]);
}

/// A release that was decided and may be read.
struct Open {
    name: &'static str,
    agreement: String,
    url: String,
    token: String,
}

/// Agrees, and fetches without an acknowledgement: the release stays open, and may be read again.
fn open_release(runtime: &tokio::runtime::Runtime, hospital: &House, research: &House, name: &'static str) -> Open {
    let before = tokens(&research.home);
    let agreement =
        research.json(&["negotiate", &hospital.did, name])["agreement"].as_str().expect("agreed").to_owned();
    let events = runtime.block_on(fetch(research, &agreement, true));
    let release = events.iter().find_map(|event| event["release"].as_str()).expect("a release").to_owned();
    let token = tokens(&research.home).into_iter().find(|path| !before.contains(path)).expect("a token");
    let id = counterseal::id::ReleaseId::parse(release).expect("an id");
    let endpoint = hospital.json(&["status"])["endpoint"].as_str().expect("an endpoint").to_owned();
    Open {
        name,
        agreement,
        url: format!("{endpoint}{}{}", counterseal::protocol::BASE, extension::stream_path(&id)),
        token: fs::read_to_string(token).expect("a token"),
    }
}

fn tokens(home: &Path) -> Vec<PathBuf> {
    fs::read_dir(home.join("tokens")).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// The management API's fetch: its events.
async fn fetch(house: &House, agreement: &str, without_acknowledgement: bool) -> Vec<Value> {
    let (http, base, token) = loopback(house);
    let body =
        json!({"agreement": agreement, "purpose": "research", "withoutAcknowledgement": without_acknowledgement});
    let answer = http.post(format!("{base}/v1/fetch")).bearer_auth(token).json(&body).send().await.expect("an answer");
    let text = answer.text().await.expect("events");
    text.lines().map(|line| serde_json::from_str(line).expect("an event")).collect()
}

/// The management API of a house: a client, its address, the operator's token.
pub fn loopback(house: &House) -> (Client, String, String) {
    let running = counterseal::node::Running::load(&house.home).expect("a running connector");
    let token = fs::read_to_string(house.home.join("operator.token")).expect("a token");
    let http = Client::builder()
        .no_proxy()
        .tls_backend_preconfigured(net::client_config(&keys(&house.home).tls, Vec::new()).expect("TLS"))
        .build()
        .expect("a client");
    (http, format!("http://{}", running.management), token.trim().to_owned())
}

fn keys(home: &Path) -> Keys {
    let config = Config::load(home, std::env::vars()).expect("a configuration");
    Keys::load(home, &config.participant.did).expect("keys")
}

/// Shows the consumer's certificate, and expects the provider's.
pub fn client(consumer: &Path, provider: &Path) -> Client {
    let spki = keys(provider).certificate().spki;
    Client::builder()
        .no_proxy()
        .http1_only()
        .tls_backend_preconfigured(net::client_config(&keys(consumer).tls, vec![spki]).expect("TLS"))
        .build()
        .expect("a client")
}

async fn read(client: &Client, url: &str, token: &str, server: u32) -> Reading {
    let (begun, before) = (Instant::now(), cpu_seconds(server));
    let mut response = client.get(url).bearer_auth(token).send().await.expect("an answer");
    assert!(response.status().is_success(), "{}: {}", response.status(), response.text().await.unwrap_or_default());
    let mut bytes = 0;
    while let Some(chunk) = response.chunk().await.expect("a whole stream") {
        bytes += chunk.len() as u64;
    }
    Reading { bytes, wall: begun.elapsed(), cpu: cpu_seconds(server) - before }
}

/// User and system time of a process, in seconds.
pub fn cpu_seconds(process: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).expect("a process");
    let fields: Vec<&str> = text.rsplit(") ").next().expect("fields").split(' ').collect();
    let ticks: f64 = fields[11..13].iter().map(|field| field.parse::<f64>().expect("ticks")).sum();
    ticks / TICKS_PER_SECOND
}

fn wait_for(path: &Path) -> String {
    for _ in 0..1000 {
        if let Ok(text) = fs::read_to_string(path) {
            return text;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("the bare server is not ready");
}
