//! The contract negotiation state machine (DSP 2025-1 §7.2), pure.

use std::fmt;

use crate::protocol::Party;

pub use crate::protocol::message::NegotiationState;

/// What a negotiation message does, whoever sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// `ContractRequestMessage`: a first request or a counter-offer of the consumer's.
    Request,
    /// `ContractOfferMessage`: a first offer or a counter-offer of the provider's.
    Offer,
    /// `ContractNegotiationEventMessage` `ACCEPTED`.
    Accept,
    /// `ContractAgreementMessage`.
    Agree,
    /// `ContractAgreementVerificationMessage`.
    Verify,
    /// `ContractNegotiationEventMessage` `FINALIZED`.
    Finalize,
    /// `ContractNegotiationTerminationMessage`.
    Terminate,
}

/// The state that follows when `sender` sends `event` in `state` (`None`: no process yet).
///
/// Each event belongs to one party, except termination, which either may send in any state that is not final (the
/// prose of §7.2; the figure draws fewer arrows). A second offer by the provider in `OFFERED` is allowed, as the
/// official test kit and EDC do. Repeated messages are known by their `@id` before the machine is asked, never by
/// state.
///
/// # Errors
/// [`Illegal`], which a peer sees as status 400 (or 404 where there is no process), with no transition made.
pub fn next(state: Option<NegotiationState>, sender: Party, event: Event) -> Result<NegotiationState, Illegal> {
    use NegotiationState::{Accepted, Agreed, Finalized, Offered, Requested, Terminated, Verified};
    use Party::{Consumer, Provider};

    match (state, sender, event) {
        (None | Some(Offered), Consumer, Event::Request) => Ok(Requested),
        (None | Some(Requested | Offered), Provider, Event::Offer) => Ok(Offered),
        (Some(Offered), Consumer, Event::Accept) => Ok(Accepted),
        (Some(Requested | Accepted), Provider, Event::Agree) => Ok(Agreed),
        (Some(Agreed), Consumer, Event::Verify) => Ok(Verified),
        (Some(Verified), Provider, Event::Finalize) => Ok(Finalized),
        (Some(Requested | Offered | Accepted | Agreed | Verified), _, Event::Terminate) => Ok(Terminated),
        _ => Err(Illegal { state, sender, event }),
    }
}

/// A message that does not belong in this state, or not to this sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{event} by the {sender} is not legal in {}", state.map_or("a negotiation that does not exist", NegotiationState::as_str))]
pub struct Illegal {
    /// The state it arrived in.
    pub state: Option<NegotiationState>,
    /// Who sent it.
    pub sender: Party,
    /// What it would have done.
    pub event: Event,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Request => "a contract request",
            Self::Offer => "a contract offer",
            Self::Accept => "the event ACCEPTED",
            Self::Agree => "a contract agreement",
            Self::Verify => "an agreement verification",
            Self::Finalize => "the event FINALIZED",
            Self::Terminate => "a negotiation termination",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Event::{Accept, Agree, Finalize, Offer, Request, Terminate, Verify};
    use NegotiationState::{Accepted, Agreed, Finalized, Offered, Requested, Terminated, Verified};
    use Party::{Consumer, Provider};

    const EVENTS: [Event; 7] = [Request, Offer, Accept, Agree, Verify, Finalize, Terminate];
    const NO: Option<NegotiationState> = None;

    /// One row a state and sender; columns as in [`EVENTS`]; `NO` is refused.
    type Row = (Option<NegotiationState>, Party, [Option<NegotiationState>; 7]);

    #[rustfmt::skip]
    const TABLE: [Row; 16] = [
        //                            Request          Offer          Accept          Agree         Verify          Finalize         Terminate
        (None,             Consumer, [Some(Requested), NO,            NO,             NO,           NO,             NO,              NO]),
        (None,             Provider, [NO,              Some(Offered), NO,             NO,           NO,             NO,              NO]),
        (Some(Requested),  Consumer, [NO,              NO,            NO,             NO,           NO,             NO,              Some(Terminated)]),
        (Some(Requested),  Provider, [NO,              Some(Offered), NO,             Some(Agreed), NO,             NO,              Some(Terminated)]),
        (Some(Offered),    Consumer, [Some(Requested), NO,            Some(Accepted), NO,           NO,             NO,              Some(Terminated)]),
        (Some(Offered),    Provider, [NO,              Some(Offered), NO,             NO,           NO,             NO,              Some(Terminated)]),
        (Some(Accepted),   Consumer, [NO,              NO,            NO,             NO,           NO,             NO,              Some(Terminated)]),
        (Some(Accepted),   Provider, [NO,              NO,            NO,             Some(Agreed), NO,             NO,              Some(Terminated)]),
        (Some(Agreed),     Consumer, [NO,              NO,            NO,             NO,           Some(Verified), NO,              Some(Terminated)]),
        (Some(Agreed),     Provider, [NO,              NO,            NO,             NO,           NO,             NO,              Some(Terminated)]),
        (Some(Verified),   Consumer, [NO,              NO,            NO,             NO,           NO,             NO,              Some(Terminated)]),
        (Some(Verified),   Provider, [NO,              NO,            NO,             NO,           NO,             Some(Finalized), Some(Terminated)]),
        (Some(Finalized),  Consumer, [NO,              NO,            NO,             NO,           NO,             NO,              NO]),
        (Some(Finalized),  Provider, [NO,              NO,            NO,             NO,           NO,             NO,              NO]),
        (Some(Terminated), Consumer, [NO,              NO,            NO,             NO,           NO,             NO,              NO]),
        (Some(Terminated), Provider, [NO,              NO,            NO,             NO,           NO,             NO,              NO]),
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
        let mut states: Vec<_> = NegotiationState::ALL.into_iter().map(Some).collect();
        states.push(None);
        for state in states {
            for sender in [Consumer, Provider] {
                assert_eq!(TABLE.iter().filter(|row| (row.0, row.1) == (state, sender)).count(), 1);
            }
        }
    }

    #[test]
    fn a_state_is_final_exactly_if_nothing_leads_out_of_it() {
        for state in NegotiationState::ALL {
            let leads_on = TABLE.iter().filter(|row| row.0 == Some(state)).any(|row| row.2.iter().any(Option::is_some));
            assert_eq!(state.is_final(), !leads_on, "{state:?}");
        }
    }

    #[test]
    fn a_refusal_says_who_what_and_where() {
        let refusal = next(Some(Finalized), Provider, Offer).unwrap_err();
        assert_eq!(refusal.to_string(), "a contract offer by the provider is not legal in FINALIZED");
        let refusal = next(None, Consumer, Verify).unwrap_err().to_string();
        assert_eq!(
            refusal,
            "an agreement verification by the consumer is not legal in a negotiation that does not exist"
        );
    }
}
