//! What becomes of a transaction once its closure has returned.

use super::super::Inner;
use super::super::backend::Position;
use super::super::codec::Codec;
use super::super::engine::{Answer, Part, Proposal, Want};
use super::super::plan::{Decision, Planned, Stamp};
use super::super::retry::Attempts;
use super::State;
use crate::error::{Error, Result};

impl Inner {
    /// Whether the documents that a transaction has read were all as it read them at one moment: they are
    /// still so now. Each by itself was read since the call began.
    pub(super) async fn was_one_state(&self, ended: &State, attempts: &Attempts) -> Result<bool> {
        if ended.touched.len() < 2 {
            return Ok(true);
        }
        let want = Want::Since(self.engine.tick());
        let reads = ended.touched.iter().map(|(key, touched)| async move {
            let deadline = attempts.deadline();
            let (_, view) = self
                .engine
                .begin(key, &touched.spec, want, deadline)
                .await?;
            Ok::<_, Error>(view.base.is_same(&touched.base))
        });
        let same = futures_util::future::try_join_all(reads).await?;
        Ok(same.into_iter().all(|same| same))
    }

    /// Hands over what a transaction decided; `None` if one of its documents has moved on.
    pub(super) async fn commit_transaction(
        &self,
        ended: State,
        attempts: &Attempts,
    ) -> Result<Option<Answer>> {
        let mut proposal = Proposal {
            parts: Vec::with_capacity(ended.touched.len()),
            entries: Vec::new(),
            checks: Vec::new(),
            records: Vec::new(),
            deadline: attempts.deadline(),
        };
        let mut lanes = Vec::with_capacity(ended.touched.len());
        let mut has_events = false;
        let stamp = Stamp::new(self);
        for (key, touched) in ended.touched {
            let codec = Codec {
                key: &key,
                version_field: &touched.spec.version_field,
            };
            let mut collected = touched.collected;
            if collected.metadata.is_empty() {
                collected.metadata = ended.metadata.clone();
            }
            let decision = Decision {
                after: touched.current.as_deref().cloned(),
                changed: touched.changed
                    && touched.current.as_deref() != touched.base.document.as_deref(),
                collected,
            };
            let base = touched.base;
            let (after, writes) = match Planned::new(self, codec, &base, decision, stamp)? {
                Some(planned) => {
                    let mut events = planned.entries.iter().map(|entry| entry.events.len());
                    has_events |= events.any(|events| events > 0);
                    proposal.entries.extend(planned.entries);
                    proposal.records.extend(planned.records);
                    (base.after(planned.after), planned.writes)
                }
                // Only read: what was seen together still has to be confirmed as one state.
                None => {
                    proposal.checks.push((key.clone(), base.condition));
                    (base.clone(), false)
                }
            };
            lanes.push(touched.lane);
            proposal.parts.push(Part {
                key,
                generation: touched.generation,
                seen: touched.seen,
                before: base,
                after,
                writes,
            });
        }
        if proposal.parts.is_empty() {
            return Ok(Some(Answer::Committed {
                position: Position::START,
                entries: Vec::new(),
            }));
        }
        // Whoever has turns has the others wait for them, so it must not wait for a place of theirs.
        let _place = match ended.turns.is_empty() {
            true => Some(self.engine.admit(attempts.deadline()).await?),
            false => None,
        };
        let answer = self.engine.propose(proposal, ended.turns).await?;
        if let Some(Answer::Committed { position, .. }) = &answer {
            self.note_commit(*position, has_events);
        }
        Ok(answer)
    }
}
