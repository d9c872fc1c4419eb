//! Handing over: what happens to the plaintext once a use was decided.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::Serialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    agreement::Software,
    error::Refusal,
    exchange::{
        Exchange, Handing, UseRequest, Used, refuse, retry,
        use_copy::{How, Target, decide::Decided, destroyed, use_action, watch::Watch, without_stream},
    },
    id::{CopyId, DatasetId, ReceiptId},
    policy::UseAction,
    time::Timestamp,
    vault::{self, Application, Feed, Method, Plain, Stop, Way},
};

/// How many uses through applications are remembered after they ended.
const REMEMBERED: usize = 1000;
/// How long a question about a use waits for its end.
const PATIENCE: Duration = Duration::from_secs(5);

/// A use that was done.
#[derive(Debug)]
pub enum Handed {
    /// A stream: the plaintext, or what the application on the pipe makes of it.
    Stream(Used),
    /// A file, or a request that was answered.
    Over(Handover),
    /// The copy is gone.
    Deleted {
        /// Which.
        copy: CopyId,
        /// Its dataset.
        dataset: DatasetId,
    },
}

/// A use through an application, and how it went.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Handover {
    /// The `used` receipt's id.
    pub id: ReceiptId,
    /// The use's number in our series.
    pub number: u64,
    /// Which application.
    pub application: String,
    /// `pipe`, `file` or `http`.
    pub kind: &'static str,
    /// What was read.
    pub dataset: DatasetId,
    /// Where it stands.
    pub state: HandoverState,
    /// The application's exit code, where it ended by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// What the application answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// Until when the file stays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// What went wrong; the use stays counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<Refusal>,
}

/// Where a handing over stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum HandoverState {
    /// The application reads.
    Running,
    /// It is over.
    Over,
    /// It failed, or was stopped.
    Failed,
}

/// Uses through applications since the start.
#[derive(Default)]
pub(super) struct Handovers(Mutex<Vec<Arc<Entry>>>);

struct Entry {
    view: watch::Sender<Handover>,
    done: CancellationToken,
}

impl Entry {
    fn end(&self, change: impl FnOnce(&mut Handover)) {
        self.view.send_modify(|view| {
            change(view);
            view.state = if view.problem.is_some() { HandoverState::Failed } else { HandoverState::Over };
        });
    }
}

impl Handovers {
    fn begin(&self, view: Handover) -> Arc<Entry> {
        let entry = Arc::new(Entry { view: watch::Sender::new(view), done: CancellationToken::new() });
        let mut all = self.locked();
        if all.len() >= REMEMBERED {
            let over = all.iter().position(|entry| entry.view.borrow().state != HandoverState::Running);
            if let Some(oldest) = over {
                all.remove(oldest);
            }
        }
        all.push(entry.clone());
        entry
    }

    fn get(&self, id: &ReceiptId) -> Result<Arc<Entry>, Refusal> {
        let found = self.locked().iter().find(|entry| entry.view.borrow().id == *id).cloned();
        found.ok_or_else(|| {
            Refusal::new(
                "use-unknown",
                format!("no use through an application has the id `{id}` since the connector started"),
            )
        })
    }

    fn locked(&self) -> MutexGuard<'_, Vec<Arc<Entry>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Exchange {
    pub(super) async fn hand_over_if(
        &self,
        request: &UseRequest,
        handing: &Handing,
        only_streams: bool,
    ) -> Result<Handed, Refusal> {
        let action = use_action(&request.action)?;
        let target = self.target(&request.of).await?;
        if action == UseAction::Delete {
            if request.application.is_some() {
                return Err(Refusal::new("application-invalid", "no application deletes a copy: leave it out"));
            }
            return if only_streams { Err(without_stream()) } else { self.delete(target, request, handing).await };
        }
        let mut keys = target.keys();
        keys.extend(request.application.as_deref().map(Application::key));
        // watched before anything is read that the decision rests on
        let watch = self.open_uses.watch(keys);
        let application = match self.application_of(request).await {
            Ok(application) => application,
            Err(refusal) => return self.deny_application(&target, request, action, handing, refusal).await,
        };
        let streams = application.as_ref().is_none_or(|application| matches!(application.way, Way::Pipe { .. }));
        if only_streams && !streams {
            return Err(without_stream());
        }
        if let Some(application) = &application
            && let Err(refusal) = fits(application, &target).await
        {
            return self.deny_application(&target, request, action, handing, refusal).await;
        }
        let software = application.as_ref().map(Application::software).unwrap_or_default();
        let method = application.as_ref().map_or("01", Application::delivery);
        let how = How {
            action,
            purpose: &request.purpose,
            software: &software,
            method,
            from: handing.from,
            shown: handing.first.shown(),
        };
        let decided = retry!(self.use_once(&target, &how))?;
        self.post();
        self.keep_time(&watch.stop, target.by_agreement().into_keys().collect());
        let given = Given::new(&target, decided, watch)?;
        let feed = self.feed(&target)?;
        let Some(application) = application else {
            let stop = given.watch.stop.clone();
            return Ok(Handed::Stream(given.stream(vault::to_stream(stop, feed))));
        };
        let entry = self.open_uses.handovers.begin(given.view(&application));
        let now = self.clock.now();
        match application.way {
            Way::Pipe { command } => given
                .on_pipe(&command, handing.quiet, feed, &entry)
                .inspect_err(|refusal| entry.end(|view| view.problem = Some(refusal.clone()))),
            Way::File { path } => {
                to_its_end(&entry, given.in_file(path, handing.keep_seconds, now, feed, entry.clone())).await
            }
            Way::Http { url, method } => to_its_end(&entry, given.by_request(url, method, feed, entry.clone())).await,
        }
    }

    /// A use through an application; waits a moment for its end.
    pub async fn handover(&self, id: &ReceiptId) -> Result<Handover, Refusal> {
        let entry = self.open_uses.handovers.get(id)?;
        let mut view = entry.view.subscribe();
        let over = view.wait_for(|view| view.state != HandoverState::Running || view.path.is_some());
        let _ = tokio::time::timeout(PATIENCE, over).await;
        Ok(entry.view.borrow().clone())
    }

    /// The application has read its file: it is removed now.
    pub async fn use_done(&self, id: &ReceiptId) -> Result<Handover, Refusal> {
        let entry = self.open_uses.handovers.get(id)?;
        if entry.view.borrow().path.is_none() {
            return Err(Refusal::new("use-not-a-file", "this use handed out no file: it ends by itself"));
        }
        entry.done.cancel();
        let mut view = entry.view.subscribe();
        let over = view.wait_for(|view| view.state != HandoverState::Running);
        let _ = tokio::time::timeout(PATIENCE, over).await;
        Ok(entry.view.borrow().clone())
    }

    async fn deny_application<T>(
        &self,
        target: &Target,
        request: &UseRequest,
        action: UseAction,
        handing: &Handing,
        refusal: Refusal,
    ) -> Result<T, Refusal> {
        let software = Software::default();
        let how = How {
            action,
            purpose: &request.purpose,
            software: &software,
            method: "01",
            from: handing.from,
            shown: handing.first.shown(),
        };
        match target.copies.first() {
            Some(copy) => self.deny_use(&self.agreement(&copy.agreement).await?.1, copy, &how, None, refusal).await,
            None => Err(refusal),
        }
    }
}

/// A use that was decided and recorded: what there is to hand over.
struct Given {
    receipt: ReceiptId,
    number: u64,
    copy: CopyId,
    dataset: DatasetId,
    length: u64,
    watch: Watch,
}

impl Given {
    fn new(target: &Target, decided: Decided, watch: Watch) -> Result<Self, Refusal> {
        Ok(Self {
            receipt: decided.receipt,
            number: decided.number,
            copy: target.id().ok_or_else(destroyed)?.clone(),
            dataset: target.dataset().ok_or_else(destroyed)?.clone(),
            length: target.bytes(),
            watch,
        })
    }

    fn view(&self, application: &Application) -> Handover {
        Handover {
            id: self.receipt.clone(),
            number: self.number,
            application: application.name.clone(),
            kind: application.kind(),
            dataset: self.dataset.clone(),
            state: HandoverState::Running,
            exit_code: None,
            status: None,
            path: None,
            until: None,
            problem: None,
        }
    }

    /// The plaintext itself; it is watched for as long as it is read.
    fn stream(self, plain: Plain) -> Used {
        let Self { number, copy, dataset, length, watch, .. } = self;
        Used { copy, dataset, number, length, handover: None, data: plain.keeping(watch) }
    }

    /// What the application makes of it. Watched until the application has ended: what it still computes is the use.
    fn on_pipe(self, command: &[String], quiet: bool, feed: impl Feed, entry: &Arc<Entry>) -> Result<Handed, Refusal> {
        let Self { receipt, number, copy, dataset, length, watch } = self;
        let (data, end) = vault::to_pipe(command, quiet, watch.stop.clone(), feed)?;
        let entry = entry.clone();
        tokio::spawn(async move {
            let ended = end.await;
            drop(watch);
            entry.end(|view| match ended {
                Ok(ended) => (view.exit_code, view.problem) = (ended.exit, ended.problem),
                Err(_) => view.problem = Some(Refusal::new("application-failed", "the application was lost")),
            });
        });
        Ok(Handed::Stream(Used { copy, dataset, number, length, handover: Some(receipt), data }))
    }

    async fn in_file(
        self,
        folder: PathBuf,
        keep_seconds: u64,
        now: Timestamp,
        feed: impl Feed,
        entry: Arc<Entry>,
    ) -> Result<Handed, Refusal> {
        let name = format!("{}.data", self.receipt.as_str().rsplit(':').next().unwrap_or_default());
        let stop = self.watch.stop.clone();
        let path = tokio::task::spawn_blocking(move || vault::to_file(&folder, &name, stop, feed))
            .await
            .map_err(refuse("internal"))??;
        let keep = Duration::from_secs(keep_seconds);
        entry.view.send_modify(|view| (view.path, view.until) = (Some(path.clone()), Some(now.plus(keep))));
        tokio::spawn(keep_file(entry.clone(), path, keep, self.watch));
        Ok(Handed::Over(entry.view.borrow().clone()))
    }

    async fn by_request(
        self,
        url: String,
        method: Method,
        feed: impl Feed,
        entry: Arc<Entry>,
    ) -> Result<Handed, Refusal> {
        let stop = self.watch.stop.clone();
        let plain = vault::to_stream(stop.clone(), feed);
        let status = vault::to_address(&url, method, self.length, stop, plain).await?;
        entry.end(|view| view.status = Some(status));
        Ok(Handed::Over(entry.view.borrow().clone()))
    }
}

/// Hands over in a task of its own. Whoever asked may hang up at any moment, and his request is dropped with him: the file
/// that is being written then must still be removed, and the use still end.
async fn to_its_end(
    entry: &Arc<Entry>,
    handing: impl Future<Output = Result<Handed, Refusal>> + Send + 'static,
) -> Result<Handed, Refusal> {
    let entry = entry.clone();
    let task = tokio::spawn(async move {
        handing.await.inspect_err(|refusal| entry.end(|view| view.problem = Some(refusal.clone())))
    });
    task.await.map_err(refuse("internal"))?
}

/// Whether an application may read this at all, and is still what was registered.
async fn fits(application: &Application, target: &Target) -> Result<(), Refusal> {
    for agreement in target.by_agreement().keys() {
        application.bound_to(agreement)?;
    }
    let application = application.clone();
    tokio::task::spawn_blocking(move || application.check().and_then(|()| application.unchanged()))
        .await
        .map_err(refuse("internal"))?
}

/// Removes a file that was handed out: when it was read, when its time is over, when the use is stopped.
async fn keep_file(entry: Arc<Entry>, path: PathBuf, keep: Duration, watch: Watch) {
    let stop: Arc<Stop> = watch.stop.clone();
    tokio::select! {
        () = stop.stopped() => {}
        () = entry.done.cancelled() => {}
        () = tokio::time::sleep(keep) => {}
    }
    let removed = match tokio::fs::remove_file(&path).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::error!(path = %path.display(), %error, "a file that was handed out could not be removed");
            Some(Refusal::new("application-failed", format!("{} could not be removed: {error}", path.display())))
        }
        _ => None,
    };
    entry.end(|view| view.problem = removed.or_else(|| stop.why().cloned()));
}
