//! Handing plaintext to a registered application: on a pipe, as a file, or to this machine over HTTP.
//!
//! Its command line and what it writes go to nobody but who asked: not to a log, not to a receipt.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read as _, Write},
    os::unix::{
        fs::{OpenOptionsExt as _, PermissionsExt as _},
        process::{CommandExt as _, ExitStatusExt as _},
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use tokio::sync::oneshot;

use crate::{
    error::Refusal,
    net::loopback_client,
    vault::{
        VaultError,
        application::{Method, loopback, private},
        stream::{Plain, Stop, Stopping, stream},
    },
};

/// How files are named that an application reads.
const PREFIX: &str = "counterseal-use-";
/// How often a running application is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Writes the plaintext; what a copy is opened with.
pub trait Feed: FnOnce(&mut dyn Write) -> Result<u64, VaultError> + Send + 'static {}
impl<F: FnOnce(&mut dyn Write) -> Result<u64, VaultError> + Send + 'static> Feed for F {}

/// How an application on a pipe ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its exit code, where it ended by itself.
    pub exit: Option<i32>,
    /// What went wrong.
    pub problem: Option<Refusal>,
}

/// Streams the plaintext, for a terminal.
pub fn to_stream(stop: Arc<Stop>, feed: impl Feed) -> Plain {
    let (mut blocks, plain) = stream(stop);
    tokio::task::spawn_blocking(move || {
        if let Err(error) = feed(&mut blocks) {
            blocks.fail(io::Error::other(error));
        }
    });
    plain
}

/// Starts the command and writes the plaintext to its standard input. Gives its standard output (empty if `quiet`), and
/// how it ends. It has no shell, only `PATH` and `LANG`, and an empty folder of its own; what it leaves running in its
/// process group ends with it.
pub fn to_pipe(
    command: &[String],
    quiet: bool,
    stop: Arc<Stop>,
    feed: impl Feed,
) -> Result<(Plain, oneshot::Receiver<Ended>), Refusal> {
    let failed =
        |error: io::Error| Refusal::new("application-failed", format!("the application could not be started: {error}"));
    let (program, arguments) =
        command.split_first().ok_or_else(|| Refusal::new("application-invalid", "a pipe needs a command"))?;
    let only_ours = fs::Permissions::from_mode(0o700);
    let folder = tempfile::Builder::new().prefix("counterseal-").permissions(only_ours).tempdir().map_err(failed)?;
    let kept = ["PATH", "LANG"].into_iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(kept)
        .current_dir(folder.path())
        .stdin(Stdio::piped())
        .stdout(if quiet { Stdio::null() } else { Stdio::piped() })
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(failed)?;
    let (input, output) = (child.stdin.take(), child.stdout.take());
    let (mut blocks, plain) = stream(stop.clone());
    let feeder = {
        let stop = stop.clone();
        tokio::task::spawn_blocking(move || {
            let Some(inner) = input else { return Ok(()) };
            match feed(&mut Stopping { inner, stop }) {
                // it has read enough: that is its business
                Err(VaultError::Reader(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
                result => result.map(|_| ()),
            }
        })
    };
    let reader = tokio::task::spawn_blocking(move || {
        let Some(mut output) = output else { return };
        let mut block = vec![0; 1 << 16];
        // whoever asked may go away: the application goes on, its output goes nowhere
        let mut wanted = true;
        while let Ok(read @ 1..) = output.read(&mut block) {
            wanted = wanted && blocks.write_all(&block[..read]).is_ok();
        }
    });
    let (ended, end) = oneshot::channel();
    let watched = tokio::task::spawn_blocking({
        let stop = stop.clone();
        move || {
            let status = attend(&mut child, &stop);
            drop(folder);
            status
        }
    });
    tokio::spawn(async move {
        let status = watched.await.map_err(|error| io::Error::other(error.to_string())).and_then(|status| status);
        let _ = reader.await;
        let fed = feeder.await.unwrap_or_else(|error| Err(VaultError::Reader(io::Error::other(error.to_string()))));
        let _ = ended.send(how_it_ended(status, fed, &stop));
    });
    Ok((plain, end))
}

/// Waits for the end, ends it on a stop; and with it whatever it left in its group.
fn attend(child: &mut Child, stop: &Stop) -> io::Result<ExitStatus> {
    let pid = Pid::from_child(child);
    let looked = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    // not reaped before its group is ended: the number can't be another's meanwhile
    while stop.check().is_ok() && rustix::process::waitid(WaitId::Pid(pid), looked)?.is_none() {
        std::thread::sleep(LOOK);
    }
    let _ = rustix::process::kill_process_group(pid, Signal::KILL);
    child.wait()
}

fn how_it_ended(status: io::Result<ExitStatus>, fed: Result<(), VaultError>, stop: &Stop) -> Ended {
    let failed = |what: String| Some(Refusal::new("application-failed", what));
    if let Some(why) = stop.why() {
        return Ended { exit: None, problem: Some(why.clone()) };
    }
    let status = match status {
        Ok(status) => status,
        Err(error) => return Ended { exit: None, problem: failed(format!("the application was lost: {error}")) },
    };
    let problem = match (fed, status.code(), status.signal()) {
        (Err(error), ..) => failed(format!("the plaintext could not be handed over whole: {error}")),
        (Ok(()), Some(0), _) => None,
        (Ok(()), Some(code), _) => failed(format!("the application ended with exit code {code}")),
        (Ok(()), None, signal) => failed(format!("the application was ended by signal {}", signal.unwrap_or(0))),
    };
    Ended { exit: status.code(), problem }
}

/// Writes the plaintext to a new file below the folder that nobody else can read. For threads.
pub fn to_file(folder: &Path, name: &str, stop: Arc<Stop>, feed: impl Feed) -> Result<PathBuf, Refusal> {
    private(folder)?;
    let path = folder.join(format!("{PREFIX}{name}"));
    let failed = |error: &dyn std::fmt::Display| {
        Refusal::new("application-failed", format!("{} could not be written: {error}", path.display()))
    };
    let file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(|error| failed(&error))?;
    let written = feed(&mut Stopping { inner: &file, stop: stop.clone() })
        .map_err(|error| failed(&error))
        .and_then(|_| stop.why().map_or(Ok(()), |why| Err(why.clone())));
    match written {
        Ok(()) => Ok(path),
        Err(refusal) => {
            let _ = fs::remove_file(&path);
            Err(stop.why().cloned().unwrap_or(refusal))
        }
    }
}

/// Removes files that earlier uses left in this folder; how many.
pub fn sweep(folder: &Path) -> io::Result<usize> {
    let mut removed = 0;
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX)) {
            fs::remove_file(entry.path())?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Sends the plaintext as the body of one request; the answer's status.
pub async fn to_address(
    url: &str,
    method: Method,
    length: u64,
    stop: Arc<Stop>,
    mut plain: Plain,
) -> Result<u16, Refusal> {
    let url = loopback(url)?;
    let failed = |what: String| Refusal::new("application-failed", what);
    let client = loopback_client().map_err(|error| failed(error.to_string()))?;
    let method = match method {
        Method::Post => reqwest::Method::POST,
        Method::Put => reqwest::Method::PUT,
    };
    let (sender, body) = tokio::sync::mpsc::channel(1);
    let pump = async move {
        while let Some(block) = plain.recv().await {
            if sender.send(block).await.is_err() {
                break;
            }
        }
    };
    let blocks = futures_util::stream::unfold(body, |mut body| async move { Some((body.recv().await?, body)) });
    let request = client
        .request(method, url)
        .header(reqwest::header::CONTENT_TYPE, "application/octet-stream")
        .header(reqwest::header::CONTENT_LENGTH, length)
        .body(reqwest::Body::wrap_stream(blocks));
    let sent = async {
        let (answer, ()) = tokio::join!(request.send(), pump);
        answer
    };
    tokio::select! {
        biased;
        () = stop.stopped() => Err(stop.why().cloned().unwrap_or_else(|| failed("the use was stopped".into()))),
        answer = sent => match answer {
            Ok(answer) if answer.status().is_success() => Ok(answer.status().as_u16()),
            Ok(answer) => Err(failed(format!("the application answered {}", answer.status()))),
            Err(_) => Err(failed("the application did not take the whole body; does it listen?".into())),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"id,age\n1,38\n";

    fn feed(out: &mut dyn Write) -> Result<u64, VaultError> {
        out.write_all(TEXT).map_err(VaultError::Reader)?;
        Ok(TEXT.len() as u64)
    }

    /// Plaintext that has no end.
    fn endless(out: &mut dyn Write) -> Result<u64, VaultError> {
        loop {
            out.write_all(&[b'x'; 1 << 12]).map_err(VaultError::Reader)?;
        }
    }

    async fn all(mut plain: Plain) -> Vec<u8> {
        let mut read = Vec::new();
        while let Some(Ok(block)) = plain.recv().await {
            read.extend_from_slice(&block);
        }
        read
    }

    fn sh(script: &str) -> Vec<String> {
        ["/bin/sh", "-c", script].map(str::to_owned).to_vec()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_application_on_a_pipe_reads_everything_and_its_exit_code_is_told() {
        let stop = Arc::new(Stop::default());
        let (plain, end) = to_pipe(&["/bin/cat".to_owned()], false, stop.clone(), feed).unwrap();
        assert_eq!(all(plain).await, TEXT);
        assert_eq!(end.await.unwrap(), Ended { exit: Some(0), problem: None });
        let (plain, end) = to_pipe(&sh("cat >/dev/null; exit 3"), false, stop.clone(), feed).unwrap();
        assert!(all(plain).await.is_empty());
        let ended = end.await.unwrap();
        assert_eq!(ended.exit, Some(3));
        assert!(ended.problem.unwrap().is("application-failed"));
        // it need not read to the end
        let (plain, end) = to_pipe(&sh("head -c 1 >/dev/null; echo enough"), false, stop.clone(), endless).unwrap();
        assert_eq!(all(plain).await, b"enough\n");
        assert_eq!(end.await.unwrap(), Ended { exit: Some(0), problem: None });
        let missing = to_pipe(&["/no/such".to_owned()], false, stop, feed).unwrap_err();
        assert!(missing.is("application-failed"));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn it_gets_no_environment_but_path_and_lang_and_an_empty_folder_of_its_own() {
        let stop = Arc::new(Stop::default());
        let script = "cat >/dev/null; pwd; stat -c %a .; ls -A | wc -l; env | cut -d= -f1 | grep -vxE 'PATH|LANG|PWD|SHLVL|_|OLDPWD'";
        let (plain, end) = to_pipe(&sh(script), false, stop, feed).unwrap();
        let said = String::from_utf8(all(plain).await).unwrap();
        end.await.unwrap();
        let lines: Vec<&str> = said.lines().map(str::trim).collect();
        assert_eq!(lines[1..], ["700", "0"], "{said}");
        assert!(!Path::new(lines[0]).exists(), "the folder went with it");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_stop_ends_the_application_and_what_it_started_within_a_second() {
        // one that reads nothing, one that reads and keeps on working, one with a child that holds the pipes
        for script in ["sleep 60", "cat >/dev/null & sleep 60", "sleep 60 & sleep 60 & wait"] {
            let stop = Arc::new(Stop::default());
            let (plain, end) = to_pipe(&sh(script), false, stop.clone(), endless).unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
            let begun = std::time::Instant::now();
            stop.now(Refusal::new("agreement-revoked", "it was revoked"));
            let ended = end.await.unwrap();
            assert!(begun.elapsed() < Duration::from_secs(1), "{script}: {:?}", begun.elapsed());
            assert!(ended.problem.unwrap().is("agreement-revoked"));
            assert!(all(plain).await.is_empty());
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_stop_ends_a_request_that_nobody_reads() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let stop = Arc::new(Stop::default());
        let plain = to_stream(stop.clone(), endless);
        let sent = tokio::spawn({
            let stop = stop.clone();
            async move { to_address(&url, Method::Post, 1 << 40, stop, plain).await }
        });
        let (_open, _) = tokio::task::spawn_blocking(move || listener.accept().unwrap()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(!sent.is_finished());
        let begun = std::time::Instant::now();
        stop.now(Refusal::new("agreement-revoked", "it was revoked"));
        assert!(sent.await.unwrap().unwrap_err().is("agreement-revoked"));
        assert!(begun.elapsed() < Duration::from_secs(1));
    }

    #[test]
    fn a_file_is_readable_by_us_alone_and_a_stopped_one_is_not_left() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let stop = Arc::new(Stop::default());
        let path = to_file(folder.path(), "1", stop.clone(), feed).unwrap();
        assert_eq!(fs::read(&path).unwrap(), TEXT);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(to_file(folder.path(), "1", stop.clone(), feed).is_err(), "never over another");
        fs::write(folder.path().join("other"), "stays").unwrap();
        stop.now(Refusal::new("agreement-revoked", "it was revoked"));
        let refusal = to_file(folder.path(), "2", stop, feed).unwrap_err();
        assert!(refusal.is("agreement-revoked") && !folder.path().join(format!("{PREFIX}2")).exists());
        assert_eq!(sweep(folder.path()).unwrap(), 1);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert_eq!(sweep(Path::new("/no/such/folder")).unwrap(), 0);
    }
}
