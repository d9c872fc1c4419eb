//! Local applications as the operator registered them: rows `app/…`. What reads a copy, and how it gets it.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Read as _},
    net::IpAddr,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    agreement::Software,
    crypto::Hasher,
    error::Refusal,
    id::{AgreementId, Sha256},
    receipt::row_key,
    time::Timestamp,
};

/// Longest name, in bytes.
const MAX_NAME: usize = 64;
/// Most arguments of a command, models and agreements.
const MAX_LIST: usize = 64;
/// The dictionary's codes of environments (TC609-6-2025-14 C.6, executionEnv).
const ENVIRONMENTS: [&str; 6] = ["01", "02", "03", "04", "05", "06"];

/// A registered application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Application {
    /// Its name: the fact `application`.
    pub name: String,
    /// How it gets the plaintext.
    pub way: Way,
    /// What it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<Algorithm>,
    /// The models that it runs, by id or hash.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub models: BTreeSet<String>,
    /// Where it runs, by the dictionary's code; "" where nobody says.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub environment: String,
    /// The agreements that it is bound to; none: any.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub agreements: BTreeSet<AgreementId>,
    /// When it was registered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registered: Option<Timestamp>,
}

/// How an application gets the plaintext.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Way {
    /// On its standard input: this program with these arguments is started for each use.
    Pipe {
        /// Program, by its whole path, and arguments. No shell reads them.
        command: Vec<String>,
    },
    /// As a file below this folder.
    File {
        /// The folder: ours, and nobody else may look into it.
        path: PathBuf,
    },
    /// As the body of a request.
    Http {
        /// `http://127.0.0.1:PORT/…` or `http://[::1]:PORT/…`.
        url: String,
        /// `POST` or `PUT`.
        #[serde(default)]
        method: Method,
    },
}

/// How an application is asked over HTTP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs, reason = "HTTP's own words")]
pub enum Method {
    #[default]
    Post,
    Put,
}

/// What an application runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Algorithm {
    /// Its SHA-256: the fact `algorithm`.
    pub sha256: Sha256,
    /// The file that was hashed, and is again at each use; none where the operator gave the hash alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
}

impl Application {
    /// Where applications lie in the store.
    pub const PREFIX: &'static str = "app/";

    /// The row's key.
    pub fn key(name: &str) -> Vec<u8> {
        row_key(Self::PREFIX, &[name])
    }

    /// The way's name.
    pub const fn kind(&self) -> &'static str {
        match self.way {
            Way::Pipe { .. } => "pipe",
            Way::File { .. } => "file",
            Way::Http { .. } => "http",
        }
    }

    /// The dictionary's code of the delivery method (TC609-6-2025-14 C.6): 01 file, 02 stream, 03 API.
    pub const fn delivery(&self) -> &'static str {
        match self.way {
            Way::File { .. } => "01",
            Way::Pipe { .. } => "02",
            Way::Http { .. } => "03",
        }
    }

    /// What policies see of it.
    pub fn software(&self) -> Software {
        Software {
            application: self.name.clone(),
            algorithm: self.algorithm.as_ref().map(|algorithm| algorithm.sha256.to_string()).unwrap_or_default(),
            machine_learning_models: self.models.clone(),
            execution_env: self.environment.clone(),
        }
    }

    /// Whether it may read what came under this agreement at all.
    pub fn bound_to(&self, agreement: &AgreementId) -> Result<(), Refusal> {
        if self.agreements.is_empty() || self.agreements.contains(agreement) {
            return Ok(());
        }
        Err(Refusal::new(
            "application-not-bound",
            format!(
                "the application `{}` is bound to other agreements than {agreement}; register it anew with --agreement",
                self.name
            ),
        ))
    }

    /// Refuses what could not be handed over to as it was registered.
    pub fn check(&self) -> Result<(), Refusal> {
        let wrong = |what: String| Err(Refusal::new("application-invalid", what));
        let fine = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
        if self.name.is_empty() || self.name.len() > MAX_NAME || !self.name.chars().all(fine) {
            return wrong(format!(
                "`{}` is no name for an application: 1 to {MAX_NAME} bytes of letters, digits and `-_.`",
                self.name.escape_debug().to_string().chars().take(80).collect::<String>()
            ));
        }
        if !self.environment.is_empty() && !ENVIRONMENTS.contains(&self.environment.as_str()) {
            return wrong(format!(
                "`{}` is no execution environment: 01 usage control, 02 sandbox, 03 MPC, 04 federated learning, 05 TEE, 06 confidential computing",
                self.environment.escape_debug()
            ));
        }
        if self.models.len() > MAX_LIST || self.agreements.len() > MAX_LIST {
            return wrong(format!("an application names at most {MAX_LIST} models and {MAX_LIST} agreements"));
        }
        match &self.way {
            Way::Pipe { command } => match command.first() {
                None => wrong("a pipe needs a command: give --command PROGRAM ARGUMENT…".into()),
                Some(_) if command.len() > MAX_LIST => wrong(format!("a command has at most {MAX_LIST} words")),
                Some(_) if command.iter().any(|word| word.contains('\0')) => wrong("a command holds no NUL".into()),
                Some(program) if !Path::new(program).is_absolute() => {
                    wrong(format!("`{program}` is not a whole path: name the program from `/` on"))
                }
                Some(program) if !Path::new(program).is_file() => wrong(format!("`{program}` is not a file")),
                Some(_) => Ok(()),
            },
            Way::File { path } => private(path),
            Way::Http { url, .. } => loopback(url).map(|_| ()),
        }
    }

    /// Refuses if what it runs is not what was registered.
    pub fn unchanged(&self) -> Result<(), Refusal> {
        let Some(Algorithm { sha256, file: Some(file) }) = &self.algorithm else { return Ok(()) };
        let found = hash(file).map_err(|error| self.changed(format!("{} can't be read: {error}", file.display())))?;
        if found == *sha256 {
            return Ok(());
        }
        Err(self.changed(format!("{} has the SHA-256 {found} now; {sha256} was registered", file.display())))
    }

    fn changed(&self, how: String) -> Refusal {
        let name = &self.name;
        Refusal::new("application-changed", format!("the application `{name}` is not what was registered: {how}"))
    }
}

/// SHA-256 of a file.
pub fn hash(path: &Path) -> io::Result<Sha256> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let mut file = File::open(path)?;
    let mut hasher = Hasher::new();
    let mut block = vec![0; 1 << 16];
    loop {
        match file.read(&mut block)? {
            0 => return Ok(hasher.finish()),
            read => hasher.update(&block[..read]),
        }
    }
}

/// A folder that is ours and that nobody else can look into.
pub(super) fn private(folder: &Path) -> Result<(), Refusal> {
    let wrong = |what: &str| {
        Err(Refusal::new("application-folder", format!("{} can't take plaintext: {what}", folder.display())))
    };
    if !folder.is_absolute() {
        return wrong("give its whole path");
    }
    match fs::symlink_metadata(folder) {
        Err(error) => wrong(&error.to_string()),
        Ok(found) if !found.is_dir() => wrong("it is no folder (links are not followed)"),
        Ok(found) if found.uid() != rustix::process::geteuid().as_raw() => wrong("it belongs to somebody else"),
        Ok(found) if found.permissions().mode() & 0o077 != 0 => {
            wrong("others may look into it: `chmod 700` makes it private")
        }
        Ok(_) => Ok(()),
    }
}

/// An address at this very machine, by number: no name that somebody else resolves.
pub(super) fn loopback(url: &str) -> Result<reqwest::Url, Refusal> {
    let wrong = |why: &str| {
        let url: String = url.chars().take(200).collect();
        Err(Refusal::new(
            "application-address",
            format!("`{url}` {why}: give http://127.0.0.1:PORT/… or http://[::1]:PORT/…"),
        ))
    };
    let Ok(parsed) = reqwest::Url::parse(url) else { return wrong("is no URL") };
    let host = parsed.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    if parsed.scheme() != "http" || !parsed.username().is_empty() || parsed.password().is_some() {
        return wrong("is not plain http without a user");
    }
    if !host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()) {
        return wrong("is not this machine: plaintext goes to no other");
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn application(way: Way) -> Application {
        Application {
            name: "stats".into(),
            way,
            algorithm: None,
            models: BTreeSet::new(),
            environment: String::new(),
            agreements: BTreeSet::new(),
            registered: None,
        }
    }

    #[test]
    fn plaintext_goes_over_http_to_this_machine_by_number_only() {
        for fine in ["http://127.0.0.1:8080/in", "http://[::1]:9/", "http://127.9.9.9/x"] {
            loopback(fine).unwrap();
        }
        for wrong in [
            "http://localhost:8080/",
            "https://127.0.0.1/",
            "http://127.0.0.1@evil.example/",
            "http://u:p@127.0.0.1/",
            "http://10.0.0.1/",
            "http://0.0.0.0/",
            "http://127.0.0.1.evil.example/",
            "file:///etc/passwd",
            "x",
        ] {
            assert!(loopback(wrong).unwrap_err().is("application-address"), "{wrong}");
        }
    }

    #[test]
    fn a_folder_that_others_may_look_into_takes_no_plaintext() {
        let folder = tempfile::tempdir().unwrap();
        let mode = |mode| fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
        mode(0o700);
        private(folder.path()).unwrap();
        mode(0o750);
        assert!(private(folder.path()).unwrap_err().is("application-folder"));
        mode(0o700);
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/tmp", &link).unwrap();
        assert!(private(&link).unwrap_err().is("application-folder"));
        assert!(private(Path::new("here")).unwrap_err().is("application-folder"));
    }

    #[test]
    fn what_it_runs_is_hashed_again() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("model.py");
        fs::write(&file, "print(1)").unwrap();
        let mut stats = application(Way::Pipe { command: vec!["/bin/cat".into()] });
        stats.check().unwrap();
        stats.algorithm = Some(Algorithm { sha256: hash(&file).unwrap(), file: Some(file.clone()) });
        stats.unchanged().unwrap();
        assert_eq!(stats.software().algorithm, hash(&file).unwrap().to_string());
        fs::write(&file, "print(2)").unwrap();
        assert!(stats.unchanged().unwrap_err().is("application-changed"));
        fs::remove_file(&file).unwrap();
        assert!(stats.unchanged().unwrap_err().is("application-changed"));
    }

    #[test]
    fn what_could_not_be_started_is_refused_by_name() {
        for command in
            [vec![], vec!["cat".to_owned()], vec!["/no/such/program".into()], vec!["/bin/cat".into(), "\0".into()]]
        {
            assert!(application(Way::Pipe { command }).check().unwrap_err().is("application-invalid"));
        }
        let cat = || Way::Pipe { command: vec!["/bin/cat".into()] };
        let bad_name = Application { name: "a b".into(), ..application(cat()) };
        let bad_place = Application { environment: "07".into(), ..application(cat()) };
        for wrong in [bad_name, bad_place] {
            assert!(wrong.check().unwrap_err().is("application-invalid"));
        }
    }

    #[test]
    fn an_application_is_bound_to_the_agreements_that_it_names() {
        let (a, b) = (AgreementId::parse("urn:a").unwrap(), AgreementId::parse("urn:b").unwrap());
        let free = application(Way::Pipe { command: vec!["/bin/cat".into()] });
        free.bound_to(&a).unwrap();
        let bound = Application { agreements: BTreeSet::from([a.clone()]), ..free };
        bound.bound_to(&a).unwrap();
        assert!(bound.bound_to(&b).unwrap_err().is("application-not-bound"));
    }
}
