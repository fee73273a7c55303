//! What every bus must show.

mod jetstream {
    use std::sync::Arc;

    use nodestorage::bus::{EventBus, NatsBus};

    use crate::nats::{Nats, fresh_prefix};
    use crate::world::options;

    async fn bus() -> Arc<dyn EventBus> {
        let options = options(&fresh_prefix());
        let bus = NatsBus::connect(Nats::shared().url(), options).await;
        Arc::new(bus.expect("the server of the fixture takes a bus"))
    }

    nodestorage::bus_conformance!(bus);
}

mod core {
    use std::sync::Arc;

    use nodestorage::bus::nats::NatsMode;
    use nodestorage::bus::{EventBus, NatsBus};

    use crate::nats::{Nats, fresh_prefix};
    use crate::world::options;

    async fn bus() -> Arc<dyn EventBus> {
        let options = options(&fresh_prefix()).with_mode(NatsMode::Core);
        let bus = NatsBus::connect(Nats::shared().url(), options).await;
        Arc::new(bus.expect("the server of the fixture takes a bus"))
    }

    nodestorage::bus_conformance!(bus);
}
