//! A connector that plays a part: its home, its node, and what people do with it.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, bail};
use tokio::sync::mpsc;

use crate::{
    cli::{NewHome, create, receipt::write as write_folder, refused},
    config::Config,
    crypto::SystemRandom,
    error::Refusal,
    evidence::{Scope, folder::Files},
    exchange::{FetchEvent, FetchRequest, NegotiationRequest, NegotiationView, Pairing, UseRequest},
    id::{AgreementId, CopyId, DatasetId, Did, ParticipantId},
    identity::{Attributes, Invitation},
    node::Node,
    time::{Clock, SystemClock},
};

/// One connector of the story.
pub struct Actor {
    /// Its folder.
    pub home: PathBuf,
    /// Its connector.
    pub node: Node,
}

impl Actor {
    /// Makes a home below this folder and starts its connector, by this clock.
    pub async fn start(folder: &Path, place: &str, name: &str, clock: Arc<dyn Clock>) -> anyhow::Result<Self> {
        let home = folder.join(place);
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let new = NewHome {
            did: Did::parse(format!("did:web:{place}.invalid"))?,
            name: name.to_owned(),
            partner: any,
            management: any,
            public_url: None,
            plain: None,
        };
        create(&home, &new, &SystemRandom, SystemClock.now())?;
        let config = Config::load(&home, [])?;
        let node = Node::start(&home, config, clock, Arc::new(SystemRandom), false).await?;
        Ok(Self { home, node })
    }

    /// Who it is.
    pub fn did(&self) -> &Did {
        &self.node.exchange.us
    }

    /// Writes our invitation to a file, as it would be handed over.
    pub fn invite(&self) -> anyhow::Result<(PathBuf, Invitation)> {
        let invitation = self.node.exchange.invitation();
        let path = self.home.join("invitation.json");
        fs::write(&path, serde_json::to_string_pretty(&invitation)?)?;
        Ok((path, invitation))
    }

    /// Adds a partner by its invitation file; the fingerprint as we see it.
    pub async fn add(&self, other: &Self, attributes: Attributes) -> anyhow::Result<String> {
        let (file, _) = other.invite()?;
        Ok(self
            .node
            .exchange
            .add_peer(&file, Pairing { attributes, ..Pairing::default() })
            .await
            .map_err(refused)?
            .fingerprint)
    }

    /// Negotiates until it is over, one way or the other.
    pub async fn negotiate(&self, provider: &Did, dataset: &str) -> Result<NegotiationView, Refusal> {
        let exchange = &self.node.exchange;
        let dataset = DatasetId::parse(dataset).map_err(|error| Refusal::new("id-invalid", error.to_string()))?;
        let pid = exchange.negotiate(&NegotiationRequest::about(provider.clone(), dataset)).await?;
        exchange.negotiation_end(&pid, std::time::Duration::from_secs(10)).await
    }

    /// An agreement about this dataset, in force.
    pub async fn agree(&self, provider: &Did, dataset: &str) -> anyhow::Result<AgreementId> {
        let view = self.negotiate(provider, dataset).await.map_err(refused)?;
        if let Some(why) = view.ended {
            return Err(refused(why));
        }
        view.agreement.context("the negotiation came to no agreement")
    }

    /// Fetches; the copy, or the refusal.
    pub async fn fetch(&self, request: FetchRequest) -> anyhow::Result<Result<CopyId, Refusal>> {
        let (sender, mut events) = mpsc::unbounded_channel();
        self.node.exchange.fetch(request, sender).await;
        let mut last = None;
        while let Ok(event) = events.try_recv() {
            last = Some(event);
        }
        match last {
            Some(FetchEvent::Opened { copy, .. } | FetchEvent::Sealed { copy }) => Ok(Ok(copy)),
            Some(FetchEvent::Failed { refusal }) => Ok(Err(refusal)),
            other => bail!("a fetch ended with {other:?}"),
        }
    }

    /// A local application reads; the plaintext, or the refusal.
    pub async fn read(&self, of: &str, purpose: &str) -> anyhow::Result<Result<String, Refusal>> {
        let request =
            UseRequest { of: of.to_owned(), purpose: purpose.to_owned(), action: "read".to_owned(), application: None };
        let mut used = match self.node.exchange.use_copy(&request).await {
            Ok(used) => used,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let mut plain = Vec::new();
        while let Some(block) = used.data.recv().await {
            plain.extend_from_slice(&block?);
        }
        Ok(Ok(String::from_utf8(plain)?))
    }

    /// Whether this partner has cosigned all that we wrote about it.
    pub async fn is_cosigned_by(&self, witness: &Self) -> anyhow::Result<bool> {
        let exchange = &self.node.exchange;
        let partner = witness.node.exchange.us.clone();
        let last = exchange.receipts.last_with(&ParticipantId::from(partner.clone())).await?;
        let cosigned = exchange.witnessed().await.map_err(refused)?.into_iter().find(|(did, _)| *did == partner);
        Ok(last.is_none_or(|last| cosigned.is_some_and(|(_, size)| size > last)))
    }

    /// Our export, as a verifier gets it: a folder in the home.
    pub async fn export(&self) -> anyhow::Result<Files> {
        let files = self.node.exchange.export_files(Scope::default(), true).await.map_err(refused)?;
        write_folder(&self.home.join("export"), &files)?;
        Ok(files)
    }
}
