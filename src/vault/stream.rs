//! Plaintext on its way out of the vault, and what stops it.
//!
//! ```text
//!   copy ─▶ opener (a thread) ─▶ Blocks ─▶ four blocks ─▶ Plain ─▶ terminal, request body
//!                                   ▲                      ▲
//!                                   └──────── Stop ────────┘   revoked, destroyed, status too old
//! ```

use std::{
    io::{self, Write},
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::error::Refusal;

/// Blocks between the opener and whoever reads.
const AHEAD: usize = 4;
/// Longest block: what is let go between two looks at the stop.
const BLOCK: usize = 1 << 16;

/// Ends a use that is under way, and says why.
#[derive(Debug, Default)]
pub struct Stop {
    token: CancellationToken,
    why: OnceLock<Refusal>,
}

impl Stop {
    /// From now on nothing more is handed over. The first reason is kept.
    pub fn now(&self, why: Refusal) {
        let _ = self.why.set(why);
        self.token.cancel();
    }

    /// Why it was stopped, if it was.
    pub fn why(&self) -> Option<&Refusal> {
        if self.token.is_cancelled() { self.why.get() } else { None }
    }

    /// Refuses once it was stopped.
    pub fn check(&self) -> io::Result<()> {
        if self.token.is_cancelled() { Err(self.error()) } else { Ok(()) }
    }

    /// When it is stopped.
    pub async fn stopped(&self) {
        self.token.cancelled().await;
    }

    fn error(&self) -> io::Error {
        io::Error::other(self.why.get().map_or_else(|| "the use was stopped".to_owned(), ToString::to_string))
    }
}

/// Where the opener writes.
pub struct Blocks {
    sender: mpsc::Sender<io::Result<Bytes>>,
    stop: Arc<Stop>,
}

/// Plaintext, block by block; after a stop an error, and nothing more. Dropping it ends the opener.
pub struct Plain {
    blocks: mpsc::Receiver<io::Result<Bytes>>,
    stop: Arc<Stop>,
    over: bool,
    /// Lives as long as the stream: whatever watches for a stop.
    _watch: Option<Box<dyn Send + Sync>>,
}

/// Both ends of a stream.
pub fn stream(stop: Arc<Stop>) -> (Blocks, Plain) {
    let (sender, blocks) = mpsc::channel(AHEAD);
    (Blocks { sender, stop: stop.clone() }, Plain { blocks, stop, over: false, _watch: None })
}

impl Blocks {
    /// Says why there is no more. For threads.
    pub fn fail(&self, error: io::Error) {
        let _ = self.sender.blocking_send(Err(error));
    }
}

impl Write for Blocks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stop.check()?;
        let block = &bytes[..bytes.len().min(BLOCK)];
        if !block.is_empty() {
            self.sender
                .blocking_send(Ok(Bytes::copy_from_slice(block)))
                .map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the application went away"))?;
        }
        Ok(block.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Plain {
    /// Keeps `watch` for as long as the stream lives.
    #[must_use]
    pub fn keeping(mut self, watch: impl Send + Sync + 'static) -> Self {
        self._watch = Some(Box::new(watch));
        self
    }

    /// The next block. What was opened before a stop and not yet taken is not given out after it.
    pub async fn recv(&mut self) -> Option<io::Result<Bytes>> {
        if self.over {
            return None;
        }
        let next = tokio::select! {
            biased;
            () = self.stop.stopped() => Some(Err(self.stop.error())),
            next = self.blocks.recv() => next,
        };
        self.over = !matches!(next, Some(Ok(_)));
        next
    }
}

impl std::fmt::Debug for Plain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plain").field("over", &self.over).finish_non_exhaustive()
    }
}

/// A writer that refuses once its use was stopped.
pub struct Stopping<W> {
    /// Where bytes go.
    pub inner: W,
    /// What ends it.
    pub stop: Arc<Stop>,
}

impl<W: Write> Write for Stopping<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stop.check()?;
        self.inner.write(&bytes[..bytes.len().min(BLOCK)])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn after_a_stop_not_even_what_was_opened_before_is_given_out() {
        let stop = Arc::new(Stop::default());
        let (mut blocks, mut plain) = stream(stop.clone());
        let writer = std::thread::spawn(move || {
            let mut written = 0;
            while written < 1 << 24 {
                match blocks.write(&[7; 1 << 16]) {
                    Ok(more) => written += more,
                    Err(error) => return (written, error.to_string()),
                }
            }
            (written, String::new())
        });
        assert_eq!(plain.recv().await.unwrap().unwrap().len(), BLOCK);
        stop.now(Refusal::new("agreement-revoked", "it was revoked"));
        stop.now(Refusal::new("other", "later"));
        let error = plain.recv().await.unwrap().unwrap_err().to_string();
        assert!(error.contains("agreement-revoked"), "{error}");
        assert!(plain.recv().await.is_none());
        drop(plain);
        let (written, error) = writer.join().unwrap();
        assert!(written <= (AHEAD + 2) * BLOCK && error.contains("revoked") || error.contains("went away"), "{error}");
    }
}
