//! A disk that is really full: a connector on a file system of its own, of a few megabytes.
//!
//! Needs a mount namespace (`unshare -rm`); where the system forbids that, the test says so and ends.

use std::{
    fs,
    io::Write as _,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::house::{COHORT, House, publish_cohort};

const MEBIBYTES: u64 = 64;

/// A connector whose home lies on a small disk that only it sees.
struct Confined {
    house: House,
    process: Child,
    /// The small disk, as others reach it.
    disk: PathBuf,
}

impl Confined {
    /// `None` where no file system can be mounted.
    fn new(folder: &Path, name: &str) -> Option<Self> {
        let mount = folder.join("disk");
        fs::create_dir_all(&mount).unwrap();
        let binary = env!("CARGO_BIN_EXE_counterseal");
        let script = format!(
            "mount -t tmpfs -o size={MEBIBYTES}m tmpfs {mount} && cd {mount} && \
             {binary} --home {mount}/{name} init --name {name} --partner 127.0.0.1:0 --management 127.0.0.1:0 && \
             exec {binary} --home {mount}/{name} serve",
            mount = mount.display()
        );
        let log = fs::File::create(folder.join("confined.log")).unwrap();
        let mut command = Command::new("unshare");
        command.args(["-rm", "sh", "-c", &script]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command.process_group(0);
        let mut process = command.spawn().ok()?;
        let disk = PathBuf::from(format!("/proc/{}/root{}", process.id(), mount.display()));
        let begun = Instant::now();
        while !disk.join(name).join("running.json").exists() {
            if process.try_wait().unwrap().is_some() {
                let why = fs::read_to_string(folder.join("confined.log")).unwrap();
                assert!(!why.contains("error"), "{why}");
                return None;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "not ready");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(Self { house: House::elsewhere(disk.join(name), name), process, disk })
    }

    /// Takes what room is left, but for so many bytes.
    fn fill(&self, left: u64) {
        let mut file = fs::File::create(self.disk.join("filler")).unwrap();
        let block = vec![0_u8; 64 << 10];
        while file.write_all(&block).is_ok() {}
        let length = file.metadata().unwrap().len();
        file.set_len(length.saturating_sub(left)).unwrap();
    }

    fn free(&self) {
        fs::remove_file(self.disk.join("filler")).unwrap();
    }
}

impl Drop for Confined {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_full_disk_is_said_and_nothing_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let Some(research) = Confined::new(folder.path(), "research") else {
        eprintln!("not run: this system lets nobody mount a file system of their own (unshare -rm)");
        return;
    };
    let mut hospital = House::new(folder.path(), "hospital");
    hospital.serve();
    for (house, file) in [(&research.house, "research.json"), (&hospital, "hospital.json")] {
        house.json(&["peer", "invite", "--out", folder.path().join(file).to_str().unwrap()]);
    }
    let invitation = |file| folder.path().join(file).display().to_string();
    research.house.json(&["peer", "add", &invitation("hospital.json")]);
    hospital.json(&["peer", "add", &invitation("research.json"), "--group", "research"]);
    publish_cohort(&hospital, &research.house.did);
    let agreement =
        research.house.json(&["negotiate", &hospital.did, COHORT])["agreement"].as_str().unwrap().to_owned();

    // no room for the copy: said before a byte of it comes
    let mut rows = fs::read(hospital.data("lymph_node.csv")).unwrap();
    let body = rows.split_off(rows.iter().position(|byte| *byte == b'\n').unwrap() + 1);
    while rows.len() as u64 <= MEBIBYTES << 20 {
        rows.extend_from_slice(&body);
    }
    fs::write(hospital.data("large.csv"), rows).unwrap();
    fs::copy(hospital.home.join("cohort.cedar"), hospital.home.join("large.cedar")).unwrap();
    let policy = fs::read_to_string(hospital.home.join("large.cedar")).unwrap().replace(COHORT, "large");
    fs::write(hospital.home.join("large.cedar"), policy).unwrap();
    let offer = fs::read_to_string(hospital.home.join("offer.toml")).unwrap();
    let offer = offer.replace(COHORT, "large").replace("lymph_node", "large").replace("cohort", "large");
    let offer = hospital.write("large.toml", &offer);
    hospital.json(&["offer", "publish", &offer]);
    let large = research.house.json(&["negotiate", &hospital.did, "large"])["agreement"].as_str().unwrap().to_owned();
    let (code, sentence) = research.house.refused(&["fetch", &large, "--purpose", "research"]);
    assert_eq!(code, "disk-full", "{sentence}");
    println!("no room for the copy: {sentence}");

    // no room at all: nothing is decided, since nothing could be recorded
    let fetched = research.house.json(&["fetch", &agreement, "--purpose", "research"]);
    assert_eq!(fetched["event"], "opened");
    let before = research.house.json(&["status"])["receipts"].as_u64().unwrap();
    research.fill(0);
    let (code, sentence) = research.house.refused(&["use", COHORT, "--purpose", "research"]);
    assert_eq!(code, "disk-full", "{sentence}");
    println!("no room at all: {sentence}");
    assert_eq!(research.house.json(&["status"])["receipts"], before);

    // with room again it goes on, without a restart
    research.free();
    assert_eq!(research.house.ok(&["use", COHORT, "--purpose", "research"]).lines().count(), 687);
    assert_eq!(research.house.json(&["status"])["receipts"], before + 1);
    let file = folder.path().join("export").display().to_string();
    research.house.json(&["receipt", "export", "--out", &file]);
    assert_eq!(research.house.run(&["receipt", "verify", &file]).status.code(), Some(3), "consistent");
}
