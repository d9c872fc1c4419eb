//! What we send: where each message goes and what its body is, and when it is tried again. Pure.

use std::{fmt::Write as _, time::Duration};

use serde_json::Value;

use crate::{
    id::{DatasetId, MessageId, Pid},
    protocol::{
        Party,
        message::{CatalogRequest, Counterpart, EventType, NegotiationMessage, Root, TransferMessage, write},
    },
};

/// How long a message for a peer is tried before its process is given up, unless the caller sets another time.
pub const GIVE_UP_AFTER: Duration = Duration::from_secs(10 * 60);

/// How long one attempt may take. The official test kit leaves connections hanging, so it is short.
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long to wait after the failed attempt number `attempt` (from 0): 100 ms, doubling, at most 30 s.
pub const fn backoff(attempt: u32) -> Duration {
    // 100 ms × 2^9 = 51.2 s is past the cap already
    let doublings = if attempt > 9 { 9 } else { attempt };
    let millis = 100_u64 << doublings;
    Duration::from_millis(if millis > 30_000 { 30_000 } else { millis })
}

/// A message on its way.
#[derive(Clone, Debug, PartialEq)]
pub struct Outgoing {
    /// Its `@id`; the same at every attempt.
    pub id: MessageId,
    /// The role of the receiver.
    pub to: Party,
    /// What it says.
    pub message: Message,
}

/// Any message that we send.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// Asks for a catalog.
    Catalog(CatalogRequest),
    /// Of a negotiation.
    Negotiation(NegotiationMessage),
    /// Of a transfer process.
    Transfer(TransferMessage),
}

impl Outgoing {
    /// The path below the receiver's `<base>` (a provider's endpoint, or the process's `callbackAddress`): pids in it
    /// are the receiver's (DSP 2025-1 §6, §8, §10).
    pub fn path(&self) -> String {
        match &self.message {
            Message::Catalog(_) => "/catalog/request".into(),
            Message::Negotiation(message) => self.negotiation_path(message),
            Message::Transfer(message) => self.transfer_path(message),
        }
    }

    /// The body.
    pub fn body(&self) -> Value {
        let id = Some(&self.id);
        match &self.message {
            Message::Catalog(m) => write(m, id),
            Message::Negotiation(message) => match message {
                NegotiationMessage::Request(m) => write(m, id),
                NegotiationMessage::Offer(m) => write(m, id),
                NegotiationMessage::Agreement(m) => write(m, id),
                NegotiationMessage::Verification(m) => write(m, id),
                NegotiationMessage::Event(m) => write(m, id),
                NegotiationMessage::Termination(m) => write(m, id),
            },
            Message::Transfer(message) => match message {
                TransferMessage::Request(m) => write(m, id),
                TransferMessage::Start(m) => write(m, id),
                TransferMessage::Completion(m) => write(m, id),
                TransferMessage::Suspension(m) => write(m, id),
                TransferMessage::Termination(m) => write(m, id),
            },
        }
    }

    fn negotiation_path(&self, message: &NegotiationMessage) -> String {
        let below = |pid: &Pid, rest: &str| format!("/negotiations/{}/{rest}", segment(pid.as_str()));
        match message {
            NegotiationMessage::Request(m) => match &m.counterpart {
                Counterpart::New { .. } => "/negotiations/request".into(),
                Counterpart::Known(provider) => below(provider, "request"),
            },
            NegotiationMessage::Offer(m) => match &m.counterpart {
                Counterpart::New { .. } => "/negotiations/offers".into(),
                Counterpart::Known(consumer) => below(consumer, "offers"),
            },
            NegotiationMessage::Agreement(m) => below(&m.consumer_pid, "agreement"),
            NegotiationMessage::Verification(m) => below(&m.provider_pid, "agreement/verification"),
            NegotiationMessage::Event(m) => match m.event_type {
                EventType::Accepted => below(&m.provider_pid, "events"),
                EventType::Finalized => below(&m.consumer_pid, "events"),
            },
            NegotiationMessage::Termination(m) => below(self.receiver(&m.provider_pid, &m.consumer_pid), "termination"),
        }
    }

    fn transfer_path(&self, message: &TransferMessage) -> String {
        let below = |provider: &Pid, consumer: &Pid, rest: &str| {
            format!("/transfers/{}/{rest}", segment(self.receiver(provider, consumer).as_str()))
        };
        match message {
            TransferMessage::Request(_) => "/transfers/request".into(),
            TransferMessage::Start(m) => below(&m.provider_pid, &m.consumer_pid, "start"),
            TransferMessage::Completion(m) => below(&m.provider_pid, &m.consumer_pid, "completion"),
            TransferMessage::Suspension(m) => below(&m.provider_pid, &m.consumer_pid, "suspension"),
            TransferMessage::Termination(m) => below(&m.provider_pid, &m.consumer_pid, "termination"),
        }
    }

    fn receiver<'a>(&self, provider: &'a Pid, consumer: &'a Pid) -> &'a Pid {
        match self.to {
            Party::Provider => provider,
            Party::Consumer => consumer,
        }
    }
}

/// `GET` of a dataset, below `<base>`.
pub fn dataset_path(dataset: &DatasetId) -> String {
    format!("/catalog/datasets/{}", segment(dataset.as_str()))
}

/// `GET` of a negotiation by the receiver's pid, below `<base>`.
pub fn negotiation_path(pid: &Pid) -> String {
    format!("/negotiations/{}", segment(pid.as_str()))
}

/// `GET` of a transfer process by the receiver's pid, below `<base>`.
pub fn transfer_path(pid: &Pid) -> String {
    format!("/transfers/{}", segment(pid.as_str()))
}

/// The body of an answer: a [`Root`] without message id.
pub fn answer<R: Root>(root: &R) -> Value {
    write(root, None)
}

/// Opaque text as one path segment (RFC 3986 §3.3): all but unreserved characters, `:`, `@` and a few more is
/// percent-encoded. A segment of dots alone would vanish in URL normalisation; the routes take no such pid.
pub fn segment(text: &str) -> String {
    let mut segment = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' | b'@' | b'=' => {
                segment.push(char::from(byte));
            }
            _ => {
                // writing to a `String` cannot fail
                let _ = write!(segment, "%{byte:02X}");
            }
        }
    }
    segment
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_back_off_doubles_from_100_ms_to_30_s() {
        let millis: Vec<_> = (0..12).map(|attempt| backoff(attempt).as_millis()).collect();
        assert_eq!(millis, [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000, 30_000]);
        assert_eq!(backoff(u32::MAX), Duration::from_secs(30));
    }

    #[test]
    fn a_message_is_tried_often_before_it_is_given_up() {
        let mut waited = Duration::ZERO;
        let attempts = (0..).take_while(|attempt| {
            waited += backoff(*attempt);
            waited < GIVE_UP_AFTER
        });
        assert!(attempts.count() > 20);
    }
}
