//! The consumer's end of a stream: ciphertext from the socket into files, resumed where it broke off.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::StreamExt as _;
use tokio::io::AsyncWriteExt as _;

use crate::{
    crypto::{
        Hasher, b64,
        ece::{RECORD_SIZE, RESUME_EVERY},
    },
    dataplane::release::MAX_SEGMENTS,
    error::{Code, Refusal},
    id::Sha256,
    receipt::Segment,
};

/// Bytes of an RFC 8188 header whose `keyid` is a base64url SHA-256: salt 16, rs 4, idlen 1, keyid 43.
const HEADER: u64 = 64;
/// Bytes of coded body between two resume points.
const STRIDE: u64 = RESUME_EVERY * RECORD_SIZE as u64;
/// A provider that sends nothing for so long is taken as gone.
const STALLED: Duration = Duration::from_secs(30);

/// Why a stream did not arrive.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The provider refused.
    #[error("{0}")]
    Refused(Refusal),
    /// It broke off, and too often.
    #[error("the stream broke off {0} times, last: {1}")]
    Broken(usize, String),
    /// Our disk.
    #[error("the copy can't be written: {0}")]
    Disk(io::Error),
}

/// Called with the coded bytes received so far.
pub type Progress<'a> = &'a (dyn Fn(u64) + Send + Sync);

/// Streams into `<folder>/<n>.ece`, one file a segment, and says what arrived. Files are synced.
pub async fn receive(
    client: &reqwest::Client,
    url: &str,
    token: &str,
    folder: &Path,
    progress: Progress<'_>,
) -> Result<Vec<Segment>, ReceiveError> {
    let mut kept: Vec<Segment> = Vec::new();
    let mut from = 0;
    let mut failures = 0;
    loop {
        let before: u64 = kept.iter().map(|segment| segment.bytes).sum();
        let path = folder.join(format!("{}.ece", kept.len()));
        let error = match attempt(client, &format!("{url}?from={from}"), token, &path, &|n| progress(before + n)).await
        {
            Ok(Attempt::Whole(segment)) => {
                kept.push(segment);
                return Ok(kept);
            }
            Ok(Attempt::Prefix { segment, strides, error }) => {
                if strides > 0 {
                    truncate(&path, segment.bytes).await.map_err(ReceiveError::Disk)?;
                    kept.push(segment);
                    from += strides * RESUME_EVERY;
                }
                error
            }
            Err(ReceiveError::Refused(refusal)) if refusal.is("resume-lost") && from > 0 => {
                kept.clear();
                from = 0;
                refusal.sentence
            }
            Err(error) => return Err(error),
        };
        failures += 1;
        if failures >= MAX_SEGMENTS || kept.len() + 1 > MAX_SEGMENTS {
            return Err(ReceiveError::Broken(failures, error));
        }
        tracing::info!(%error, from, "the stream broke off; resuming");
        tokio::time::sleep(Duration::from_millis(100 << failures.min(6))).await;
    }
}

enum Attempt {
    Whole(Segment),
    /// Broke off; `strides` whole strides may be kept, as `segment`.
    Prefix {
        segment: Segment,
        strides: u64,
        error: String,
    },
}

async fn attempt(
    client: &reqwest::Client,
    url: &str,
    token: &str,
    path: &PathBuf,
    progress: Progress<'_>,
) -> Result<Attempt, ReceiveError> {
    let broken = |error: String| Attempt::Prefix {
        segment: Segment { salt: String::new(), bytes: 0, sha256: Sha256([0; 32]) },
        strides: 0,
        error,
    };
    let response = match client.get(url).bearer_auth(token).send().await {
        Ok(response) => response,
        Err(error) => return Ok(broken(error.to_string())),
    };
    let status = response.status();
    if status.is_server_error() {
        return Ok(broken(format!("the provider answered {status}")));
    }
    if !status.is_success() {
        let body = response.bytes().await.unwrap_or_default();
        return Err(ReceiveError::Refused(refusal_of(status.as_u16(), &body)));
    }
    let mut file =
        tokio::io::BufWriter::with_capacity(1 << 18, tokio::fs::File::create(path).await.map_err(ReceiveError::Disk)?);
    let mut hasher = Hasher::new();
    let mut salt = Vec::with_capacity(16);
    let mut bytes: u64 = 0;
    // the hash at the newest resume point
    let mut point: Option<(u64, Hasher)> = None;
    let mut chunks = response.bytes_stream();
    let error = loop {
        let chunk = match tokio::time::timeout(STALLED, chunks.next()).await {
            Ok(Some(Ok(chunk))) => chunk,
            Ok(Some(Err(error))) => break Some(error.to_string()),
            Ok(None) => break None,
            Err(_) => break Some(format!("nothing arrived for {} s", STALLED.as_secs())),
        };
        if salt.len() < 16 {
            salt.extend(chunk.iter().take(16 - salt.len()));
        }
        let mut rest = &chunk[..];
        while !rest.is_empty() {
            let next_point = HEADER + (bytes.saturating_sub(HEADER) / STRIDE + 1) * STRIDE;
            let step = usize::try_from(next_point - bytes).unwrap_or(usize::MAX).min(rest.len());
            hasher.update(&rest[..step]);
            bytes += step as u64;
            if bytes == next_point {
                point = Some((bytes, hasher.clone()));
            }
            rest = &rest[step..];
        }
        file.write_all(&chunk).await.map_err(ReceiveError::Disk)?;
        progress(bytes);
    };
    file.flush().await.map_err(ReceiveError::Disk)?;
    file.get_ref().sync_data().await.map_err(ReceiveError::Disk)?;
    let salt = b64(&salt);
    Ok(match error {
        None => Attempt::Whole(Segment { salt, bytes, sha256: hasher.finish() }),
        Some(error) => match point {
            Some((bytes, hasher)) => Attempt::Prefix {
                segment: Segment { salt, bytes, sha256: hasher.finish() },
                strides: (bytes - HEADER) / STRIDE,
                error,
            },
            None => broken(error),
        },
    })
}

async fn truncate(path: &Path, bytes: u64) -> io::Result<()> {
    let file = tokio::fs::OpenOptions::new().write(true).open(path).await?;
    file.set_len(bytes).await?;
    file.sync_all().await
}

/// The refusal in an error body of the peer extension.
fn refusal_of(status: u16, body: &[u8]) -> Refusal {
    let value: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let sentence = match &value["reason"] {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Array(items) => items.iter().filter_map(|item| item.as_str()).collect::<Vec<_>>().join(" "),
        _ => format!("the provider answered {status}"),
    };
    Refusal {
        code: Code::received(value["code"].as_str().unwrap_or_default()),
        sentence: sentence.chars().take(500).collect(),
    }
}
