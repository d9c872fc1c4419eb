//! Local applications: registered, shown, removed.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{
    crypto::canonical_json,
    error::Refusal,
    exchange::{Exchange, UseRequest, refuse, retry},
    id::Sha256,
    receipt::{Commit, Kind, Row, list, read},
    vault::{self, Algorithm, Application, Way},
};

/// What an operator registers. The algorithm is named by a file, which is hashed, or by its hash.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Registration {
    /// The application; its own hash and time are set by us.
    pub application: Application,
    /// The file that is hashed now, and again at each use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm_file: Option<PathBuf>,
    /// Its SHA-256, where there is no file to hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm_sha256: Option<Sha256>,
}

impl Exchange {
    /// Registers an application, or its next version.
    pub async fn register_application(&self, wanted: Registration) -> Result<Application, Refusal> {
        let Registration { mut application, algorithm_file, algorithm_sha256 } = wanted;
        application.check()?;
        for agreement in &application.agreements {
            self.agreement(agreement).await?;
        }
        application.algorithm = match (algorithm_file, algorithm_sha256) {
            (Some(_), Some(_)) => {
                return Err(Refusal::new("application-invalid", "give the algorithm as a file or as a hash, not both"));
            }
            (Some(file), None) => {
                let hashed = file.clone();
                let sha256 = tokio::task::spawn_blocking(move || vault::hash(&hashed))
                    .await
                    .map_err(refuse("internal"))?
                    .map_err(|error| {
                        Refusal::new("application-invalid", format!("the algorithm {}: {error}", file.display()))
                    })?;
                Some(Algorithm { sha256, file: Some(file) })
            }
            (None, sha256) => sha256.map(|sha256| Algorithm { sha256, file: None }),
        };
        application.registered = Some(self.clock.now());
        let before = retry!(self.keep_application(&application))?;
        // what is handed out from now on lies elsewhere, and the start would not look here any more
        self.sweep_left(before.as_ref(), &application).await?;
        Ok(application)
    }

    /// Gives the registration before. Files that were handed out under that one go first: one whose folder can't be swept
    /// is not forgotten.
    async fn keep_application(&self, application: &Application) -> Result<Option<Application>, Refusal> {
        let row = self.application_row(&application.name).await?;
        self.sweep_left(row.value.as_ref(), application).await?;
        let mut commit = Commit::new();
        self.configured(
            &mut commit,
            application,
            Refusal::new("application-registered", "an application was registered"),
        )?;
        commit.put(&row, application).map_err(refuse("internal"))?;
        self.commit(commit).await?;
        Ok(row.value)
    }

    /// Sweeps the folder of the registration before, if that is no application's any more.
    async fn sweep_left(&self, before: Option<&Application>, now: &Application) -> Result<(), Refusal> {
        let Some(before) = before.filter(|before| folder(before).is_some() && folder(before) != folder(now)) else {
            return Ok(());
        };
        let others = self.applications().await?;
        let shared = others.iter().any(|other| other.name != now.name && folder(other) == folder(before));
        if shared { Ok(()) } else { sweep(before).await }
    }

    /// All that are registered, by name.
    pub async fn applications(&self) -> Result<Vec<Application>, Refusal> {
        let rows = list::<Application>(&*self.store, Application::PREFIX.as_bytes(), None, 10_000)
            .await
            .map_err(refuse("store-unreadable"))?;
        let mut applications: Vec<Application> = rows.into_iter().filter_map(|row| row.value).collect();
        applications.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(applications)
    }

    /// One of them.
    pub async fn application(&self, name: &str) -> Result<Application, Refusal> {
        self.application_row(name).await?.value.ok_or_else(|| {
            Refusal::new(
                "application-unknown",
                format!(
                    "no application `{}` is registered; the operator does that: counterseal application register",
                    name.escape_debug().to_string().chars().take(80).collect::<String>()
                ),
            )
        })
    }

    /// Removes one: uses that it makes are stopped, files that were handed to it removed.
    pub async fn remove_application(&self, name: &str) -> Result<(), Refusal> {
        let application = self.application(name).await?;
        sweep(&application).await?;
        retry!(self.forget_application(name))
    }

    async fn forget_application(&self, name: &str) -> Result<(), Refusal> {
        let row = self.application_row(name).await?;
        let Some(application) = &row.value else { return Ok(()) };
        let mut commit = Commit::new();
        self.configured(&mut commit, application, Refusal::new("application-removed", "an application was removed"))?;
        commit.delete(&row);
        self.commit(commit).await.map(|_| ())
    }

    /// Removes files that uses before a crash left with applications.
    pub async fn sweep_handovers(&self) -> Result<(), Refusal> {
        for application in self.applications().await? {
            // a folder that is gone holds nothing, and one that can't be read keeps no other from being swept
            if let Err(refusal) = sweep(&application).await {
                tracing::error!(application = application.name, %refusal, "files that were handed out are left");
            }
        }
        Ok(())
    }

    /// The application that a use names.
    pub(super) async fn application_of(&self, request: &UseRequest) -> Result<Option<Application>, Refusal> {
        match &request.application {
            Some(name) => self.application(name).await.map(Some),
            None => Ok(None),
        }
    }

    async fn application_row(&self, name: &str) -> Result<Row<Application>, Refusal> {
        read::<Application>(&*self.store, &Application::key(name)).await.map_err(refuse("store-unreadable"))
    }

    /// A receipt that commits to the registration: what it names stays with us.
    fn configured(&self, commit: &mut Commit, application: &Application, what: Refusal) -> Result<(), Refusal> {
        let mut receipt = self.receipt(Kind::Configured, None);
        receipt.reason = Some(what);
        let content = canonical_json(application).map_err(refuse("internal"))?;
        self.record_commitment(commit, &mut receipt, "application", &content);
        self.node_receipt(commit, receipt).map(|_| ())
    }
}

/// Where files are handed to it, if they are.
fn folder(application: &Application) -> Option<&Path> {
    match &application.way {
        Way::File { path } => Some(path),
        _ => None,
    }
}

async fn sweep(application: &Application) -> Result<(), Refusal> {
    let Some(path) = folder(application).map(Path::to_owned) else { return Ok(()) };
    tokio::task::spawn_blocking(move || vault::sweep(&path))
        .await
        .map_err(refuse("internal"))?
        .map(|_| ())
        .map_err(refuse("application-folder"))
}
