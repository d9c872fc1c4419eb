//! Homes and processes for the tests: the binary, as a user runs it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

/// A connector of the binary, in a home of its own.
pub struct House {
    pub home: PathBuf,
    pub did: String,
    process: Option<Child>,
}

pub fn command(home: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_counterseal"));
    command.arg("--home").arg(home).args(args).env_remove("COUNTERSEAL_HOME");
    command
}

impl House {
    /// `init`, on ports that the system picks.
    pub fn new(folder: &Path, name: &str) -> Self {
        let home = folder.join(name);
        fs::create_dir_all(folder).unwrap();
        let house = Self { home, did: format!("did:web:{name}.invalid"), process: None };
        house.ok(&["init", "--name", name, "--partner", "127.0.0.1:0", "--management", "127.0.0.1:0"]);
        house
    }

    /// A home whose process somebody else runs.
    pub fn elsewhere(home: PathBuf, name: &str) -> Self {
        Self { home, did: format!("did:web:{name}.invalid"), process: None }
    }

    /// `serve`, until it is ready.
    pub fn serve(&mut self) {
        self.serve_with(&[], &[]);
    }

    pub fn serve_with(&mut self, args: &[&str], environment: &[(&str, &str)]) {
        let _ = fs::remove_file(self.home.join("running.json"));
        let log = fs::File::create(self.home.join("serve.log")).unwrap();
        let mut all = vec!["serve"];
        all.extend(args);
        let mut command = command(&self.home, &all);
        command.envs(environment.iter().copied()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.process = Some(command.spawn().unwrap());
        let begun = Instant::now();
        while !self.home.join("running.json").exists() {
            if let Some(status) = self.process.as_mut().unwrap().try_wait().unwrap() {
                panic!("serve ended with {status}: {}", self.log());
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "not ready: {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Keeps the partners' port that the system picked: who restarts is found where it was.
    pub fn settle(&self) {
        let running: Value = serde_json::from_slice(&fs::read(self.home.join("running.json")).unwrap()).unwrap();
        let toml = fs::read_to_string(self.home.join("counterseal.toml")).unwrap();
        let settled = toml.replace("partner = \"127.0.0.1:0\"", &format!("partner = {}", running["partner"]));
        assert_ne!(settled, toml);
        fs::write(self.home.join("counterseal.toml"), settled).unwrap();
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.home.join("serve.log")).unwrap_or_default()
    }

    /// SIGKILL: no goodbye.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
        let _ = fs::remove_file(self.home.join("running.json"));
    }

    /// SIGTERM, and its end.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let pid = rustix::process::Pid::from_child(&process);
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
            let status = process.wait().unwrap();
            assert!(status.success(), "{status}: {}", self.log());
        }
    }

    pub fn run(&self, args: &[&str]) -> Output {
        command(&self.home, args).stdin(Stdio::null()).output().unwrap()
    }

    /// Runs a command that must succeed; its standard output.
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let said = [&output.stdout, &output.stderr].map(|said| String::from_utf8_lossy(said));
        assert!(output.status.success(), "{args:?}: {}\n{}", said.join("\n"), self.log());
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command with `--json` that must succeed; what it printed.
    pub fn json(&self, args: &[&str]) -> Value {
        let mut all = vec!["--json"];
        all.extend(args);
        serde_json::from_str(self.ok(&all).lines().last().unwrap_or("null")).unwrap()
    }

    /// Runs a command that must be refused; code and sentence.
    pub fn refused(&self, args: &[&str]) -> (String, String) {
        let mut all = vec!["--json"];
        all.extend(args);
        let output = self.run(&all);
        assert!(!output.status.success(), "{args:?} was not refused: {}", String::from_utf8_lossy(&output.stdout));
        let text = String::from_utf8_lossy(&output.stderr);
        let line = text.lines().last().unwrap_or_default();
        let value: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{args:?}: {text}"));
        (value["code"].as_str().unwrap().to_owned(), value["reason"].as_str().unwrap().to_owned())
    }

    pub fn path(&self, name: &str) -> String {
        self.home.join(name).display().to_string()
    }

    /// A file among its datasets.
    pub fn data(&self, name: &str) -> PathBuf {
        counterseal::cli::data_folder(&self.home).join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> String {
        fs::write(self.home.join(name), text).unwrap();
        self.path(name)
    }
}

impl Drop for House {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

pub const COHORT: &str = "lymph-node-cohort";

/// Two connectors, running and paired: a hospital, and a research company in the group `research`.
pub fn paired(folder: &Path) -> (House, House) {
    let (mut hospital, mut research) = (House::new(folder, "hospital"), House::new(folder, "research"));
    hospital.serve();
    research.serve();
    pair(&hospital, &research);
    (hospital, research)
}

pub fn pair(hospital: &House, research: &House) {
    let mut said = Vec::new();
    for house in [hospital, research] {
        said.push(house.json(&["peer", "invite", "--out", &house.path("invitation.json")])["fingerprint"].clone());
    }
    let seen = research.json(&["peer", "add", &hospital.path("invitation.json")]);
    assert_eq!(seen["fingerprint"], said[0]);
    let told = said[1].as_str().unwrap();
    hospital.json(&["peer", "add", &research.path("invitation.json"), "--group", "research", "--fingerprint", told]);
}

/// Publishes the real cohort, sealed for `recipient`.
pub fn publish_cohort(hospital: &House, recipient: &str) -> Value {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::copy(root.join("examples/data/lymph_node.csv"), hospital.data("lymph_node.csv")).unwrap();
    fs::copy(root.join("policies/examples/cohort-research.cedar"), hospital.home.join("cohort.cedar")).unwrap();
    let offer = hospital.write("offer.toml", &cohort_offer(recipient));
    hospital.json(&["offer", "publish", &offer])
}

pub fn cohort_offer(recipient: &str) -> String {
    format!(
        "id = \"cohort\"\n[dataset]\nid = \"{COHORT}\"\ntitle = \"Lymph node cohort\"\nsource = \"lymph_node.csv\"\n\
         [policy]\nfile = \"cohort.cedar\"\n[audience]\nsealed_for = [\"{recipient}\"]\n"
    )
}

/// The agreement about the cohort.
pub fn agreed(hospital: &House, research: &House) -> String {
    publish_cohort(hospital, &research.did);
    research.json(&["negotiate", &hospital.did, COHORT])["agreement"].as_str().unwrap().to_owned()
}
