//! Theirs, to us: a partner's checkpoint, judged by what we saw of its log, and cosigned if it goes on from there.

use crate::{
    error::Refusal,
    exchange::{Exchange, refuse, retry},
    identity::Peer,
    protocol::extension::Witnessing,
    receipt::{
        Commit,
        checkpoint::{Checkpoint, epoch_of, witness_name},
        read,
        witness::{Judgement, Seen, Submission, judge},
    },
};

use super::{Evidence, GONE, seen_key};

impl Exchange {
    /// `add-checkpoint`: judged by what we saw, cosigned if it goes on from there.
    pub(in crate::exchange) async fn take_checkpoint(&self, peer: &Peer, body: &str) -> Result<Witnessing, Refusal> {
        let refused = |status, why: &str| Ok(Witnessing::Refused(status, why.to_owned()));
        let submission = match Submission::parse(body) {
            Ok(submission) => submission,
            Err(why) => return refused(400, why),
        };
        let claimed = match Checkpoint::claimed(&submission.note) {
            Ok(claimed) => claimed,
            Err(error) => return refused(400, &error.to_string()),
        };
        let followed = self.witnesses.followed(&peer.did);
        match epoch_of(&claimed.origin, &peer.did) {
            Some(epoch) if epoch == followed => {}
            Some(epoch) if epoch < followed => return refused(GONE, "you began a later log; we follow that one"),
            _ => return refused(404, "this is not a log of yours that we follow"),
        }
        match Checkpoint::verify(&submission.note, &claimed.origin, &peer.statement.keys.log) {
            Ok(checkpoint) => retry!(self.judge_checkpoint(peer, &submission, &checkpoint)),
            Err(error) => refused(403, &error.to_string()),
        }
    }

    async fn judge_checkpoint(
        &self,
        peer: &Peer,
        submission: &Submission,
        checkpoint: &Checkpoint,
    ) -> Result<Witnessing, Refusal> {
        let row =
            read::<Seen>(&*self.store, &seen_key(&checkpoint.origin)).await.map_err(refuse("store-unreadable"))?;
        let seen = row.value.clone();
        let known = seen.as_ref().map_or(0, |seen| seen.size);
        let unproven = "the proof does not lead from the checkpoint that we cosigned to this one";
        match judge(seen.as_ref(), submission, checkpoint) {
            Judgement::Accept => {
                let next = Seen {
                    origin: checkpoint.origin.clone(),
                    size: checkpoint.size,
                    root: checkpoint.root,
                    note: checkpoint.bare(&submission.note),
                    doubtful: None,
                    restored: seen.and_then(|seen| seen.restored),
                };
                let mut commit = Commit::new();
                commit.put(&row, &next).map_err(refuse("internal"))?;
                self.commit(commit).await?;
                let line = checkpoint.cosign(&witness_name(&self.us), &self.keys.cosigner, self.clock.now());
                Ok(Witnessing::Cosigned(line))
            }
            Judgement::Backwards => Ok(Witnessing::Refused(400, "the old size is larger than the checkpoint's".into())),
            Judgement::Conflict(size) => Ok(Witnessing::Conflict(size)),
            Judgement::Forked => {
                self.forked(peer, seen.map(|seen| seen.note), checkpoint, &submission.note).await?;
                Ok(Witnessing::Conflict(known))
            }
            Judgement::Unproven => {
                if let Some(seen) = seen {
                    let next = Seen { doubtful: Some(submission.note.clone()), ..seen };
                    let mut commit = Commit::new();
                    commit.put(&row, &next).map_err(refuse("internal"))?;
                    self.commit(commit).await?;
                }
                Ok(Witnessing::Refused(422, unproven.into()))
            }
            Judgement::UnprovenAgain => {
                let objects = seen.map(|seen| seen.note).into_iter().chain([submission.body()]).collect();
                let sentence = format!(
                    "`{}` twice failed to prove that its log of {} entries goes on from the {known} that we cosigned",
                    peer.did, checkpoint.size
                );
                self.alarm(peer, Evidence { code: "log-unproven", sentence, proven: false, objects }).await?;
                Ok(Witnessing::Refused(422, unproven.into()))
            }
        }
    }

    /// A checkpoint that came with a proof: of the size that we cosigned, it has to be the same.
    pub(in crate::exchange) async fn compare_with_seen(
        &self,
        peer: &Peer,
        checkpoint: &Checkpoint,
        note: &str,
    ) -> Result<(), Refusal> {
        match self.witnesses.seen_of(&checkpoint.origin) {
            Some((size, root)) if size == checkpoint.size && root != checkpoint.root => {
                let row = read::<Seen>(&*self.store, &seen_key(&checkpoint.origin))
                    .await
                    .map_err(refuse("store-unreadable"))?;
                self.forked(peer, row.value.map(|seen| seen.note), checkpoint, note).await?;
                Err(Refusal::new("log-forked", "two signed checkpoints of one size have different roots"))
            }
            _ => Ok(()),
        }
    }

    async fn forked(
        &self,
        peer: &Peer,
        known: Option<String>,
        checkpoint: &Checkpoint,
        note: &str,
    ) -> Result<(), Refusal> {
        let sentence = format!("`{}` signed two different logs of {} entries", peer.did, checkpoint.size);
        let objects = known.into_iter().chain([note.to_owned()]).collect();
        self.alarm(peer, Evidence { code: "log-forked", sentence, proven: true, objects }).await
    }
}
