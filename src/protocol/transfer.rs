//! The transfer process state machine (DSP 2025-1 §9.2), pure.

use std::fmt;

use crate::protocol::Party;

pub use crate::protocol::message::TransferState;

/// What a transfer message does, whoever sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// `TransferRequestMessage`.
    Request,
    /// `TransferStartMessage`: the first start, or a resume after a suspension.
    Start,
    /// `TransferCompletionMessage`.
    Complete,
    /// `TransferSuspensionMessage`.
    Suspend,
    /// `TransferTerminationMessage`.
    Terminate,
}

/// The state that follows when `sender` sends `event` in `state` (`None`: no process yet).
///
/// Only the consumer requests, only the provider starts; either resumes, completes, suspends and terminates. Resuming
/// is not tied to whoever suspended (DSP leaves that open, DataspaceProtocol#167): the policy says who may. A repeated
/// request with a known `consumerPid` is answered with the existing process before the machine is asked.
///
/// # Errors
/// [`Illegal`], which a peer sees as status 400 (or 404 where there is no process), with no transition made.
pub fn next(state: Option<TransferState>, sender: Party, event: Event) -> Result<TransferState, Illegal> {
    use Party::{Consumer, Provider};
    use TransferState::{Completed, Requested, Started, Suspended, Terminated};

    match (state, sender, event) {
        (None, Consumer, Event::Request) => Ok(Requested),
        (Some(Requested), Provider, Event::Start) | (Some(Suspended), _, Event::Start) => Ok(Started),
        (Some(Started), _, Event::Complete) => Ok(Completed),
        (Some(Started), _, Event::Suspend) => Ok(Suspended),
        (Some(Requested | Started | Suspended), _, Event::Terminate) => Ok(Terminated),
        _ => Err(Illegal { state, sender, event }),
    }
}

/// A message that does not belong in this state, or not to this sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{event} by the {sender} is not legal in {}", state.map_or("a transfer process that does not exist", TransferState::as_str))]
pub struct Illegal {
    /// The state it arrived in.
    pub state: Option<TransferState>,
    /// Who sent it.
    pub sender: Party,
    /// What it would have done.
    pub event: Event,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Request => "a transfer request",
            Self::Start => "a transfer start",
            Self::Complete => "a transfer completion",
            Self::Suspend => "a transfer suspension",
            Self::Terminate => "a transfer termination",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Event::{Complete, Request, Start, Suspend, Terminate};
    use Party::{Consumer, Provider};
    use TransferState::{Completed, Requested, Started, Suspended, Terminated};

    const EVENTS: [Event; 5] = [Request, Start, Complete, Suspend, Terminate];
    const NO: Option<TransferState> = None;

    /// One row a state and sender; columns as in [`EVENTS`]; `NO` is refused.
    type Row = (Option<TransferState>, Party, [Option<TransferState>; 5]);

    #[rustfmt::skip]
    const TABLE: [Row; 12] = [
        //                            Request          Start          Complete         Suspend          Terminate
        (None,             Consumer, [Some(Requested), NO,            NO,              NO,              NO]),
        (None,             Provider, [NO,              NO,            NO,              NO,              NO]),
        (Some(Requested),  Consumer, [NO,              NO,            NO,              NO,              Some(Terminated)]),
        (Some(Requested),  Provider, [NO,              Some(Started), NO,              NO,              Some(Terminated)]),
        (Some(Started),    Consumer, [NO,              NO,            Some(Completed), Some(Suspended), Some(Terminated)]),
        (Some(Started),    Provider, [NO,              NO,            Some(Completed), Some(Suspended), Some(Terminated)]),
        (Some(Suspended),  Consumer, [NO,              Some(Started), NO,              NO,              Some(Terminated)]),
        (Some(Suspended),  Provider, [NO,              Some(Started), NO,              NO,              Some(Terminated)]),
        (Some(Completed),  Consumer, [NO,              NO,            NO,              NO,              NO]),
        (Some(Completed),  Provider, [NO,              NO,            NO,              NO,              NO]),
        (Some(Terminated), Consumer, [NO,              NO,            NO,              NO,              NO]),
        (Some(Terminated), Provider, [NO,              NO,            NO,              NO,              NO]),
    ];

    #[test]
    fn every_state_event_and_sender_is_as_the_table_says() {
        for (state, sender, row) in TABLE {
            for (event, follows) in EVENTS.into_iter().zip(row) {
                let expected = follows.ok_or(Illegal { state, sender, event });
                assert_eq!(next(state, sender, event), expected, "{state:?} {sender} {event:?}");
            }
        }
    }

    #[test]
    fn the_table_names_every_state_and_sender_once() {
        let mut states: Vec<_> = TransferState::ALL.into_iter().map(Some).collect();
        states.push(None);
        for state in states {
            for sender in [Consumer, Provider] {
                assert_eq!(TABLE.iter().filter(|row| (row.0, row.1) == (state, sender)).count(), 1);
            }
        }
    }

    #[test]
    fn a_state_is_final_exactly_if_nothing_leads_out_of_it() {
        for state in TransferState::ALL {
            let leads_on = TABLE.iter().filter(|row| row.0 == Some(state)).any(|row| row.2.iter().any(Option::is_some));
            assert_eq!(state.is_final(), !leads_on, "{state:?}");
        }
    }

    #[test]
    fn a_refusal_says_who_what_and_where() {
        let refusal = next(Some(Requested), Consumer, Start).unwrap_err();
        assert_eq!(refusal.to_string(), "a transfer start by the consumer is not legal in REQUESTED");
    }
}
