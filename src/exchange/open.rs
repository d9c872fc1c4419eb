//! What is under way, in memory: it follows the store, so that nobody scans everything that is over.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{
    dataplane::{ReleaseRow, ReleaseState},
    exchange::{
        push::pushes,
        rows::{About, NegotiationRow, TransferRow},
    },
    id::{AgreementId, ParticipantId, Pid, ReleaseId},
    protocol::TransferState,
    receipt::Mirror,
    time::Timestamp,
};

/// Deadlines of releases that wait for an acknowledgement.
#[derive(Default)]
pub struct OpenReleases(Mutex<HashMap<ReleaseId, Timestamp>>);

impl OpenReleases {
    /// Those whose deadline has passed.
    pub fn due(&self, now: Timestamp) -> Vec<ReleaseId> {
        locked(&self.0).iter().filter(|(_, deadline)| **deadline <= now).map(|(id, _)| id.clone()).collect()
    }

    /// No longer watched.
    pub fn done(&self, id: &ReleaseId) {
        locked(&self.0).remove(id);
    }
}

impl Mirror for OpenReleases {
    fn applied(&self, key: &[u8], value: Option<&[u8]>) {
        if !key.starts_with(ReleaseRow::PREFIX.as_bytes()) {
            return;
        }
        let Some(row) = value.and_then(|bytes| serde_json::from_slice::<ReleaseRow>(bytes).ok()) else { return };
        let mut open = locked(&self.0);
        match row.state {
            ReleaseState::Open => open.insert(row.id, row.deadline),
            _ => open.remove(&row.id),
        };
    }
}

/// A negotiation or transfer that is not over.
#[derive(Clone, Debug)]
pub struct Process {
    /// Which of the two.
    pub about: About,
    /// Our pid.
    pub pid: Pid,
    /// The partner's, once it is known.
    pub peer_pid: Option<Pid>,
    /// The partner.
    pub peer: ParticipantId,
    /// Where the partner's connector takes its messages.
    pub callback: String,
    /// The agreement: what a transfer is under, what came of a negotiation.
    pub agreement: Option<AgreementId>,
    /// Whether nobody but us can take the next step.
    pub our_turn: bool,
    /// Whether it waits for somebody's step at all: a transfer that has started may stay so.
    pub waits: bool,
    /// Whether we bring its data to the partner.
    pub pushes: bool,
    /// When it last moved.
    pub moved: Timestamp,
}

/// Negotiations and transfers that are not over.
#[derive(Default)]
pub struct OpenProcesses(Mutex<HashMap<Pid, Process>>);

impl OpenProcesses {
    /// Those that fit, the oldest first.
    pub fn that(&self, fits: impl Fn(&Process) -> bool) -> Vec<Process> {
        let mut found: Vec<Process> = locked(&self.0).values().filter(|process| fits(process)).cloned().collect();
        found.sort_by_key(|process| process.moved);
        found
    }

    fn set(&self, over: bool, process: Process) {
        let mut open = locked(&self.0);
        if over {
            open.remove(&process.pid);
        } else {
            open.insert(process.pid.clone(), process);
        }
    }
}

impl Mirror for OpenProcesses {
    fn applied(&self, key: &[u8], value: Option<&[u8]>) {
        let Some(value) = value else { return };
        if key.starts_with(NegotiationRow::PREFIX.as_bytes()) {
            let Ok(row) = serde_json::from_slice::<NegotiationRow>(value) else { return };
            self.set(
                row.state.is_final(),
                Process {
                    about: About::Negotiation,
                    our_turn: row.our_turn(),
                    waits: true,
                    pushes: false,
                    pid: row.pid,
                    peer_pid: row.peer_pid,
                    peer: row.peer,
                    callback: row.callback,
                    agreement: row.agreement,
                    moved: row.moved,
                },
            );
        } else if key.starts_with(TransferRow::PREFIX.as_bytes()) {
            let Ok(row) = serde_json::from_slice::<TransferRow>(value) else { return };
            self.set(
                row.state.is_final(),
                Process {
                    about: About::Transfer,
                    our_turn: row.our_turn(),
                    waits: row.state == TransferState::Requested,
                    pushes: pushes(&row),
                    pid: row.pid,
                    peer_pid: row.peer_pid,
                    peer: row.peer,
                    callback: row.callback,
                    agreement: Some(row.agreement),
                    moved: row.moved,
                },
            );
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
