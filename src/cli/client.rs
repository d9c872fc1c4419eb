//! The management API's client.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use reqwest::{Method, Response};
use serde::Serialize;
use serde_json::Value;

use crate::{
    api::OPERATOR,
    error::{Code, Refusal},
    net::loopback_client,
    node::{Running, TOKEN},
};

/// A running connector, as its operator asks it.
pub struct Client {
    http: reqwest::Client,
    base: String,
    token: String,
}

/// Finds the running connector of this home, as its operator.
pub fn connect(home: &Path) -> anyhow::Result<Client> {
    connect_as(home, TOKEN)
}

/// The same, with the token in this file of the home.
pub fn connect_as(home: &Path, token: &str) -> anyhow::Result<Client> {
    if !home.join(crate::config::FILE).exists() {
        bail!("{} is no home of a connector: make one with `counterseal --home {0} init`", home.display());
    }
    let Some(running) = Running::load(home) else {
        bail!("not running: start it with `counterseal --home {} serve`", home.display());
    };
    let token = std::fs::read_to_string(home.join(token)).with_context(|| format!("{token} can't be read"))?;
    Ok(Client {
        http: loopback_client()?,
        base: format!("http://{}", running.management),
        token: token.trim().to_owned(),
    })
}

impl Client {
    /// `GET`.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        Ok(self.send(Method::GET, path, &()).await?.json().await?)
    }

    /// `POST`.
    pub async fn post(&self, path: &str, body: &impl Serialize) -> anyhow::Result<Value> {
        Ok(self.send(Method::POST, path, body).await?.json().await?)
    }

    /// A stream of events.
    pub async fn follow(&self, path: &str, after: Option<u64>) -> anyhow::Result<Response> {
        let mut request = self.http.get(format!("{}{path}", self.base)).bearer_auth(&self.token);
        if let Some(after) = after {
            request = request.header("last-event-id", after.to_string());
        }
        Ok(request.send().await?.error_for_status()?)
    }

    /// Any answer that is a success; else the refusal.
    pub async fn send(&self, method: Method, path: &str, body: &impl Serialize) -> anyhow::Result<Response> {
        let mut request = self.http.request(method, format!("{}{path}", self.base)).bearer_auth(&self.token).json(body);
        if let Some(person) = person() {
            request = request.header(OPERATOR, person);
        }
        let response = request.send().await.map_err(|error| {
            anyhow::anyhow!("the connector does not answer at {}: {error}; is it still running?", self.base)
        })?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let problem: Value = response.json().await.unwrap_or_default();
        let sentence =
            problem["detail"].as_str().map_or_else(|| format!("the connector answered {status}"), str::to_owned);
        Err(super::refused(Refusal { code: Code::received(problem["code"].as_str().unwrap_or_default()), sentence }))
    }
}

/// Who types: `COUNTERSEAL_OPERATOR`, or the system's name for the user. Receipts commit to it; it is declared.
fn person() -> Option<String> {
    let name = ["COUNTERSEAL_OPERATOR", "USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok())?;
    Some(segment(&name)).filter(|name| !name.is_empty())
}

/// A path's segment.
pub fn segment(text: &str) -> String {
    crate::protocol::outgoing::segment(text)
}

/// The connector may have another working directory than we.
pub fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    path.canonicalize().with_context(|| format!("{} can't be read", path.display()))
}
