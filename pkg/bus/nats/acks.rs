//! Acknowledging deliveries.

use futures_util::future::join_all;

use super::error;
use super::jetstream::Shared;
use super::settle::look_up;
use crate::bus::broker::Acknowledgement;
use crate::error::{Error, ErrorKind, Result};

const ACK: &str = "+ACK";

impl Shared {
    /// See [`Broker::acknowledge`](crate::bus::broker::Broker::acknowledge).
    ///
    /// The server takes in a connection's messages in order: it has got all acknowledgements of a
    /// partition once it confirms the last of them, unless the connection changed on the way.
    pub(super) async fn acknowledge(
        &self,
        group: &str,
        member: &str,
        done: &[Acknowledgement],
    ) -> Result<()> {
        let what = "an acknowledgement";
        let client = self.server.client();
        self.server.check_connected()?;
        let connects = self.server.connects();
        let mut claims: Vec<_> = done.iter().map(|done| done.claim).collect();
        claims.sort_unstable_by_key(|claim| (claim.partition, claim.fence));
        claims.dedup();
        let leases = self.leases.current(group, member, &claims);
        let mut last = Vec::with_capacity(leases.len());
        for lease in &leases {
            look_up(&self.server, &self.stream, lease).await?;
            let mut replies: Vec<_> = {
                let mut hand = lease.hand();
                let own = done.iter().filter(|done| done.claim == lease.claim);
                own.filter_map(|done| hand.acknowledge(done.position))
                    .collect()
            };
            last.extend(replies.pop());
            for reply in replies {
                client
                    .publish(reply, ACK.into())
                    .await
                    .map_err(|error| error::unsent(what, error))?;
            }
        }
        let confirmations = last.into_iter().map(|reply| {
            let request = async_nats::Request::new()
                .payload(ACK.into())
                .timeout(Some(self.server.timeout()));
            client.send_request(reply, request)
        });
        for confirmation in join_all(confirmations).await {
            if let Err(error) = confirmation {
                for lease in &leases {
                    lease.hand().doubt();
                }
                return Err(error::no_reply(what, error));
            }
        }
        if self.server.connects() != connects {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "nats: the connection changed while events were acknowledged",
            ));
        }
        for lease in &leases {
            let mut hand = lease.hand();
            for done in done.iter().filter(|done| done.claim == lease.claim) {
                hand.acknowledged(done.position);
            }
        }
        for lease in &leases {
            self.forget_attempts(lease, done).await;
        }
        Ok(())
    }
}
