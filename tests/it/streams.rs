//! Streams that break: cut, held, continued after a restart, over a source that moves, under a reader that stops.
//!
//! Between the two connectors lies a wire of ours, which carries bytes until it is told to cut or to hold.

use std::{
    fs::OpenOptions,
    io::Write as _,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use counterseal::{
    cli::data_folder,
    exchange::{About, FetchRequest, UseRequest},
    id::AgreementId,
    protocol::TransferState,
    receipt::Kind,
    time::SystemClock,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Notify,
};

use crate::locks::{Actor, OPEN, again, start_at, wanted};

const MIB: u64 = 1 << 20;
/// Two resume points and a bit.
const LENGTH: u64 = 150 * MIB;

/// What the wire does when so many bytes came down one connection.
#[derive(Clone, Copy)]
enum Fault {
    Cut(u64),
    Hold(u64),
}

/// A TCP relay in front of the provider.
#[derive(Clone)]
struct Wire(Arc<Relay>);

struct Relay {
    address: SocketAddr,
    upstream: Mutex<Option<SocketAddr>>,
    fault: Mutex<Option<Fault>>,
    /// Bytes from the provider, over all connections.
    carried: AtomicU64,
    struck: Notify,
    go_on: Notify,
}

impl Wire {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let wire = Self(Arc::new(Relay {
            address: listener.local_addr().unwrap(),
            upstream: Mutex::default(),
            fault: Mutex::default(),
            carried: AtomicU64::new(0),
            struck: Notify::new(),
            go_on: Notify::new(),
        }));
        let relay = wire.clone();
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let relay = relay.clone();
                tokio::spawn(async move { relay.carry(socket).await });
            }
        });
        wire
    }

    fn lead_to(&self, provider: SocketAddr) {
        *self.0.upstream.lock().unwrap() = Some(provider);
    }

    fn fault(&self, fault: Fault) {
        *self.0.fault.lock().unwrap() = Some(fault);
    }

    fn carried(&self) -> u64 {
        self.0.carried.load(Ordering::Relaxed)
    }

    /// Until the fault has struck.
    async fn struck(&self) {
        tokio::time::timeout(Duration::from_secs(60), self.0.struck.notified()).await.expect("the fault strikes");
    }

    async fn carry(&self, down: TcpStream) {
        let upstream = self.0.upstream.lock().unwrap().expect("a provider");
        let Ok(up) = TcpStream::connect(upstream).await else { return };
        let (mut down_read, mut down_write) = down.into_split();
        let (mut up_read, mut up_write) = up.into_split();
        let requests = tokio::spawn(async move {
            let _ = tokio::io::copy(&mut down_read, &mut up_write).await;
        });
        let (mut block, mut count) = (vec![0; 64 << 10], 0);
        while let Ok(read) = up_read.read(&mut block).await
            && read > 0
        {
            count += read as u64;
            self.0.carried.fetch_add(read as u64, Ordering::Relaxed);
            let fault = {
                let mut fault = self.0.fault.lock().unwrap();
                fault.take_if(|fault| matches!(fault, Fault::Cut(at) | Fault::Hold(at) if count >= *at))
            };
            match fault {
                Some(Fault::Cut(_)) => {
                    self.0.struck.notify_one();
                    break;
                }
                Some(Fault::Hold(_)) => {
                    self.0.struck.notify_one();
                    self.0.go_on.notified().await;
                }
                None => {}
            }
            if down_write.write_all(&block[..read]).await.is_err() {
                break;
            }
        }
        requests.abort();
    }
}

/// A provider behind the wire, a consumer, an agreement about 150 MiB.
async fn behind_a_wire(folder: &Path) -> (Actor, Actor, AgreementId, Wire) {
    let wire = Wire::new().await;
    let clock = Arc::new(SystemClock);
    let provider = start_at(folder, "p", clock.clone(), Some(format!("https://{}", wire.0.address))).await;
    wire.lead_to(provider.node.running.partner);
    let consumer = start_at(folder, "c", clock, None).await;
    provider.add(&consumer).await;
    consumer.add(&provider).await;
    write_rows(&provider);
    provider.publish_as_it_lies(OPEN).await;
    let agreement = consumer.agree(&provider).await;
    (provider, consumer, agreement, wire)
}

fn write_rows(provider: &Actor) {
    let mut file = std::io::BufWriter::new(std::fs::File::create(data_folder(&provider.home).join("d.csv")).unwrap());
    file.write_all(b"id,age\n").unwrap();
    let (mut length, mut n) = (7, 0_u64);
    while length < LENGTH {
        let row = format!("{n},{:0>120}\n", n.wrapping_mul(2_654_435_761));
        file.write_all(row.as_bytes()).unwrap();
        (length, n) = (length + row.len() as u64, n + 1);
    }
    file.flush().unwrap();
}

fn touch(provider: &Actor) {
    let path = data_folder(&provider.home).join("d.csv");
    OpenOptions::new().append(true).open(path).unwrap().write_all(b"0,0\n").unwrap();
}

/// What the copy holds is what the provider's file holds.
async fn holds_the_source(consumer: &Actor, provider: &Actor) {
    let request = UseRequest { of: "d".into(), purpose: "x".into(), action: "read".into(), application: None };
    let mut used = consumer.node.exchange.use_copy(&request).await.unwrap();
    let source = std::fs::read(data_folder(&provider.home).join("d.csv")).unwrap();
    let mut at = 0;
    while let Some(block) = used.data.recv().await {
        let block = block.unwrap();
        assert!(source[at..].starts_with(&block), "at byte {at}");
        at += block.len();
    }
    assert_eq!(at, source.len());
}

async fn segments(consumer: &Actor) -> Vec<u64> {
    let copy = consumer.node.exchange.all_copies().await.unwrap().remove(0);
    copy.segments.iter().map(|segment| segment.bytes).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_breaks_off_goes_on_from_its_last_whole_64_mib() {
    let folder = tempfile::tempdir().unwrap();
    let (provider, consumer, agreement, wire) = behind_a_wire(folder.path()).await;
    let before = wire.carried();
    wire.fault(Fault::Cut(100 * MIB));
    consumer.fetch(wanted(&agreement)).await.unwrap();
    let segments = segments(&consumer).await;
    assert_eq!(segments.len(), 2, "{segments:?}");
    assert_eq!(segments[0], 64 + 1024 * 65_536, "a whole number of records after the header");
    let carried = wire.carried() - before;
    assert!(carried < LENGTH + 50 * MIB, "the kept 64 MiB were not sent again: {} MiB", carried / MIB);
    holds_the_source(&consumer, &provider).await;
    assert_eq!(provider.count(Kind::Released).await, 1, "one release, however often it was continued");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_that_lost_the_resume_points_starts_over() {
    let folder = tempfile::tempdir().unwrap();
    let (provider, consumer, agreement, wire) = behind_a_wire(folder.path()).await;
    wire.fault(Fault::Cut(100 * MIB));
    let (fetched, provider) = tokio::join!(consumer.fetch(wanted(&agreement)), async {
        wire.struck().await;
        let (home, ports) = (provider.home.clone(), provider.node.running.clone());
        provider.node.stop().await;
        again(&home, ports).await
    });
    fetched.unwrap();
    assert_eq!(segments(&consumer).await.len(), 1, "from record 0");
    holds_the_source(&consumer, &provider).await;
    assert_eq!((provider.count(Kind::Released).await, provider.count(Kind::Delivered).await), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_changes_in_mid_stream_never_ends_well() {
    let folder = tempfile::tempdir().unwrap();
    let (provider, consumer, agreement, wire) = behind_a_wire(folder.path()).await;
    wire.fault(Fault::Hold(20 * MIB));
    let (fetched, ()) = tokio::join!(consumer.fetch(wanted(&agreement)), async {
        wire.struck().await;
        touch(&provider);
        wire.0.go_on.notify_one();
    });
    let refusal = fetched.unwrap_err();
    assert!(refusal.is("source-changed"), "{refusal}");
    assert_eq!((consumer.count(Kind::Acknowledged).await, provider.count(Kind::Delivered).await), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_changes_between_two_parts_is_not_continued() {
    let folder = tempfile::tempdir().unwrap();
    let (provider, consumer, agreement, wire) = behind_a_wire(folder.path()).await;
    wire.fault(Fault::Cut(100 * MIB));
    let (fetched, ()) = tokio::join!(consumer.fetch(wanted(&agreement)), async {
        wire.struck().await;
        touch(&provider);
    });
    let refusal = fetched.unwrap_err();
    assert!(refusal.is("source-changed"), "{refusal}");
    assert_eq!((consumer.count(Kind::Acknowledged).await, provider.count(Kind::Delivered).await), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspension_stops_a_running_stream_and_after_a_new_start_the_release_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (provider, consumer, agreement, wire) = behind_a_wire(folder.path()).await;
    wire.fault(Fault::Hold(20 * MIB));
    let transfer = async || provider.node.exchange.transfers().await.unwrap()[0].clone();
    let (fetched, ()) = tokio::join!(consumer.fetch(wanted(&agreement)), async {
        wire.struck().await;
        let pid = transfer().await.pid;
        provider.node.exchange.act(About::Transfer, pid.as_str(), "suspend", "for the night").await.unwrap();
        wire.0.go_on.notify_one();
    });
    let refusal = fetched.unwrap_err();
    assert!(refusal.is("transfer-suspended") && refusal.sentence.contains("for the night"), "{refusal}");
    provider.node.exchange.act(About::Transfer, transfer().await.pid.as_str(), "start", "").await.unwrap();
    for _ in 0..400 {
        if consumer.node.exchange.transfers().await.unwrap()[0].state == TransferState::Started {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    consumer.fetch(wanted(&agreement)).await.unwrap();
    holds_the_source(&consumer, &provider).await;
    assert_eq!(
        (provider.count(Kind::Released).await, provider.count(Kind::Delivered).await),
        (1, 1),
        "the same release"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_cuts_a_reader_that_has_stopped_reading() {
    let folder = tempfile::tempdir().unwrap();
    let (provider, consumer, agreement, wire) = behind_a_wire(folder.path()).await;
    let before = wire.carried();
    let key = consumer.node.exchange.keys.certificate().spki;
    let open = || provider.node.exchange.connections.open(&key);
    wire.fault(Fault::Hold(20 * MIB));
    let (fetched, took) = tokio::join!(consumer.fetch(FetchRequest { another: true, ..wanted(&agreement) }), async {
        wire.struck().await;
        // until nothing moves: the provider is blocked in write
        tokio::time::sleep(Duration::from_millis(300)).await;
        let blocked = open();
        provider.node.exchange.revoke_agreement(&agreement, "no longer").await.unwrap();
        let begun = std::time::Instant::now();
        while open() == blocked {
            assert!(begun.elapsed() < Duration::from_secs(20), "the connection is still there");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let took = begun.elapsed();
        wire.0.go_on.notify_one();
        took
    });
    assert!(fetched.is_err());
    assert!(wire.carried() - before < 60 * MIB, "what lay in buffers, and no more");
    println!("cut after {took:?}");
    assert_eq!(provider.count(Kind::Delivered).await, 0);
}
