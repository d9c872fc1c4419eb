//! Steps that a person, or a program of theirs, takes in a transfer.

use crate::{
    dataplane::Grant,
    error::Refusal,
    exchange::{Exchange, refuse, retry, rows::TransferRow, transfer::both},
    id::Pid,
    protocol::{
        Party, TransferState,
        message::{TransferCompletion, TransferMessage, TransferStart, TransferSuspension, TransferTermination},
        transfer,
    },
    receipt::{Commit, read},
};

/// A step of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransferAction {
    /// The provider starts; either resumes.
    Start,
    /// Hold: a running stream stops.
    Suspend,
    /// Done.
    Complete,
    /// The end.
    Terminate,
}

impl TransferAction {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Start, Self::Suspend, Self::Complete, Self::Terminate];

    /// As in the management API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Suspend => "suspend",
            Self::Complete => "complete",
            Self::Terminate => "terminate",
        }
    }

    /// By its name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == name)
    }

    const fn event(self) -> transfer::Event {
        match self {
            Self::Start => transfer::Event::Start,
            Self::Suspend => transfer::Event::Suspend,
            Self::Complete => transfer::Event::Complete,
            Self::Terminate => transfer::Event::Terminate,
        }
    }

    /// Those that we may take in a transfer as it stands.
    pub fn legal(row: &TransferRow) -> impl Iterator<Item = Self> {
        let (state, ours) = (row.state, row.ours);
        Self::ALL.into_iter().filter(move |action| transfer::next(Some(state), ours, action.event()).is_ok())
    }
}

impl Exchange {
    /// Takes a step, if the state machine lets us; `reason` goes to the partner with a suspension or termination.
    ///
    /// # Errors
    /// `action-illegal`, and whatever the step itself can meet.
    pub async fn act_on_transfer(&self, pid: &Pid, action: TransferAction, reason: &str) -> Result<(), Refusal> {
        let done = retry!(self.transfer_act(pid, action, reason));
        self.post();
        done
    }

    async fn transfer_act(&self, pid: &Pid, action: TransferAction, reason: &str) -> Result<(), Refusal> {
        let (kept, mut row) = self.transfer_row(pid).await?;
        let state = transfer::next(Some(row.state), row.ours, action.event()).map_err(|_| {
            let legal: Vec<&str> = TransferAction::legal(&row).map(TransferAction::as_str).collect();
            Refusal::new(
                "action-illegal",
                format!(
                    "`{}` is not possible in {} for the {}; possible: {}",
                    action.as_str(),
                    row.state.as_str(),
                    row.ours,
                    if legal.is_empty() { "nothing".into() } else { legal.join(", ") }
                ),
            )
        })?;
        let (consumer_pid, provider_pid) = both(&row)?;
        row.moved = self.clock.now();
        let said = |default: &str| {
            let sentence = if reason.is_empty() { default } else { reason };
            sentence.chars().take(500).collect::<String>()
        };
        let mut commit = Commit::new();
        let closed = match action {
            TransferAction::Start if row.ours == Party::Provider => {
                let (_, agreement) = self.agreement(&row.agreement).await?;
                agreement.in_force(self.clock.now())?;
                let grant = read::<Grant>(&*self.store, &Grant::key(pid)).await.map_err(refuse("store-unreadable"))?;
                self.start_transfer(&mut commit, &mut row, Some(&grant))?;
                self.keep_transfer(&mut commit, &kept, &row)?;
                return self.commit(commit).await.map(|_| ());
            }
            TransferAction::Start => {
                row.ended = None;
                let start = TransferStart { provider_pid, consumer_pid, data_address: None };
                row.state = state;
                self.say_transfer(&mut commit, &row, TransferMessage::Start(start), false, None)?;
                None
            }
            TransferAction::Suspend => {
                let why = Refusal::new("transfer-suspended", said("a person suspended the transfer"));
                let message = TransferSuspension {
                    provider_pid,
                    consumer_pid,
                    code: Some(why.code.as_str().to_owned()),
                    reason: vec![why.sentence.clone()],
                };
                row.state = state;
                self.say_transfer(&mut commit, &row, TransferMessage::Suspension(message), false, None)?;
                Some(why)
            }
            TransferAction::Complete => {
                row.state = state;
                let message = TransferCompletion { provider_pid, consumer_pid };
                self.say_transfer(&mut commit, &row, TransferMessage::Completion(message), true, None)?;
                Some(Refusal::new("transfer-completed", "the transfer is completed"))
            }
            TransferAction::Terminate => {
                let why = Refusal::new("declined", said("a person ended the transfer"));
                let message = TransferTermination {
                    provider_pid,
                    consumer_pid,
                    code: Some(why.code.as_str().to_owned()),
                    reason: vec![why.sentence.clone()],
                };
                row.state = state;
                self.say_transfer(&mut commit, &row, TransferMessage::Termination(message), true, None)?;
                Some(why)
            }
        };
        if closed.is_some() {
            row.ended.clone_from(&closed);
        }
        if row.ours == Party::Provider {
            self.set_grant(&mut commit, &row, closed).await?;
        }
        self.keep_transfer(&mut commit, &kept, &row)?;
        self.commit(commit).await?;
        if matches!(row.state, TransferState::Completed | TransferState::Terminated) {
            self.forget_token(&row);
        }
        Ok(())
    }
}
