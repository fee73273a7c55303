//! The reply subjects of deliveries, on which they are acknowledged (ADR-15 of the NATS project).

/// Which delivery a reply subject belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// The message's number in the stream.
    pub(super) stream: u64,
    /// The delivery's number in the consumer; repetitions count.
    pub(super) delivery: u64,
    /// How often the message was delivered, this time included.
    pub(super) times: u64,
}

impl Place {
    /// `$JS.ACK.<stream>.<consumer>.<times>.<stream number>.<delivery number>.<time>.<pending>`, or the
    /// same with domain and account after `ACK`.
    pub(super) fn of(reply: &str) -> Option<Self> {
        let rest = reply.strip_prefix("$JS.ACK.")?;
        let more = rest.split('.').count();
        let skipped = if more < 9 { 2 } else { 4 };
        let mut tokens = rest.split('.').skip(skipped);
        let mut next = || tokens.next()?.parse().ok();
        Some(Self {
            times: next()?,
            stream: next()?,
            delivery: next()?,
        })
    }
}

/// The subject on which a delivery is given back that somebody else has received: the server looks at
/// the message's number, and that the delivery's is one it has given out.
pub(super) fn of_another(stream: &str, consumer: &str, place: Place) -> String {
    let Place {
        stream: number,
        delivery,
        times,
    } = place;
    format!("$JS.ACK.{stream}.{consumer}.{times}.{number}.{delivery}.0.0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        let place = Some(Place {
            stream: 17,
            delivery: 5,
            times: 2,
        });
        for reply in [
            "$JS.ACK.EVENTS.g_1.2.17.5.1795698708990151911.19",
            "$JS.ACK.hub.ACCOUNT.EVENTS.g_1.2.17.5.1795698708990151911.19",
            "$JS.ACK.hub.ACCOUNT.EVENTS.g_1.2.17.5.1795698708990151911.19.x7",
        ] {
            assert_eq!(Place::of(reply), place);
        }
        for wrong in ["", "$JS.ACK.", "$JS.ACK.a.b.1.x.2.3.4", "other.1.2.3.4.5"] {
            assert_eq!(Place::of(wrong), None);
        }
        let own = of_another("EVENTS", "g_1", place.unwrap());
        assert_eq!(Place::of(&own), place);
    }
}
