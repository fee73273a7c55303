use super::{Content, Desk, Item, Lane, Owned};
use crate::bus::broker::{Acknowledgement, Claim, Payload, Position};
use crate::event::Event;

/// What to read.
#[derive(Debug)]
pub(in crate::bus::broker) struct Wanted {
    pub(in crate::bus::broker) claims: Vec<Claim>,
    pub(in crate::bus::broker) room: usize,
    pub(in crate::bus::broker) draining: bool,
    /// For [`Desk::changed`].
    pub(in crate::bus::broker) revision: u64,
}

/// Something read, as the desk has to know it.
#[derive(Debug)]
pub(in crate::bus::broker) enum Incoming {
    /// An event that does not pass the filter.
    Unwanted,
    Event {
        event: Event,
        redriven: bool,
        times: u32,
    },
    Foreign {
        payload: Payload,
        error: String,
    },
}

/// What comes in, and how far that is all.
impl Desk {
    /// What to read now and how much of it; `None` while nothing should be read.
    pub(in crate::bus::broker) fn wanted(&self) -> Option<Wanted> {
        let state = self.state();
        let wanted = |it: &&Owned| !(it.yielding || state.draining && it.exhausted);
        let kept = state.owned.values().filter(wanted);
        let claims: Vec<Claim> = kept.map(|it| it.claim).collect();
        let room = self.capacity.saturating_sub(state.held());
        // Many small reads would cost more than they bring while there is work to do.
        let worth_it = room >= self.capacity.div_ceil(4) || !state.has_ready();
        (!claims.is_empty() && room > 0 && worth_it).then_some(Wanted {
            claims,
            room,
            draining: state.draining,
            revision: state.revision,
        })
    }

    /// Waits until the claims that may be read are not those of that revision any more.
    pub(in crate::bus::broker) async fn changed(&self, revision: u64) {
        self.until(|| self.state().revision != revision).await;
    }

    /// Accepts something read, in order. What repeats an event or is not wanted counts as handled.
    pub(in crate::bus::broker) fn accept(
        &self,
        claim: Claim,
        position: Position,
        incoming: Incoming,
    ) {
        let mut state = self.state();
        let Some(owned) = state.current(claim).filter(|it| !it.yielding) else {
            // Not acknowledged, so the next owner gets it.
            return;
        };
        let (lane, content, times) = match incoming {
            Incoming::Unwanted => {
                state.handled.push(Acknowledgement { claim, position });
                drop(state);
                self.handled.notify_one();
                return;
            }
            Incoming::Event {
                event,
                redriven,
                times,
            } => {
                if !owned.recent.remember(event.id()) && !redriven {
                    state.handled.push(Acknowledgement { claim, position });
                    drop(state);
                    self.handled.notify_one();
                    return;
                }
                let lane = Lane::Document(event.document().clone());
                (lane, Content::Event(event), times)
            }
            Incoming::Foreign { payload, error } => {
                let content = Content::Foreign { payload, error };
                (Lane::Foreign(position), content, 1)
            }
        };
        let item = Item {
            position,
            content,
            times,
        };
        owned.lanes.append(lane, item);
        drop(state);
        self.work.notify_one();
    }

    /// From here on reads go on until the broker has nothing more. One that is under way began too
    /// early to tell, so it is given up.
    pub(in crate::bus::broker) fn begin_drain(&self) {
        let mut state = self.state();
        state.draining = true;
        state.revision += 1;
        drop(state);
        self.moved();
    }

    /// A read that gave nothing.
    pub(in crate::bus::broker) fn exhausted(&self, claims: &[Claim]) {
        let mut state = self.state();
        for claim in claims {
            if let Some(owned) = state.current(*claim) {
                owned.exhausted = true;
            }
        }
        drop(state);
        self.moved();
    }

    /// Whether `partitions` are held, the broker has nothing more for them, and all is acknowledged.
    pub(in crate::bus::broker) fn is_drained(&self, partitions: usize) -> bool {
        let state = self.state();
        state.held() == 0
            && state.owned.len() >= partitions
            && state.owned.values().all(|it| it.exhausted)
    }

    /// How many events were read and are not finished.
    pub(in crate::bus::broker) fn queued(&self) -> usize {
        self.state().queued()
    }
}
