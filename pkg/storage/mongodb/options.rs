use std::time::Duration;

/// How to connect to MongoDB. What the URL says itself takes precedence.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MongoOptions {
    /// How long to look for a primary before an operation fails with `Unavailable`. Default: five
    /// seconds, longer than an election usually takes to be noticed and shorter than a caller's
    /// patience.
    pub server_selection_timeout: Duration,
    /// How long one attempt to open a connection may take. Default: three seconds, so that a host that
    /// swallows packets still leaves time for another one.
    pub connect_timeout: Duration,
    /// How long the server may work on one query. Default: 30 seconds.
    pub query_timeout: Duration,
    /// How often the driver asks each server about its state; less than 500 milliseconds count as that. After an error
    /// that says "not primary" or "shutting down" the driver takes a server for lost until the next answer,
    /// so this is also how long commits stand still after it. Default: 500 milliseconds; the driver's own
    /// default is ten seconds.
    pub heartbeat_frequency: Duration,
    /// At most this many connections to one server. Default: 32; a tail occupies one while it waits.
    pub max_connections: u32,
}

impl Default for MongoOptions {
    fn default() -> Self {
        Self {
            server_selection_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(3),
            query_timeout: Duration::from_secs(30),
            heartbeat_frequency: Duration::from_millis(500),
            max_connections: 32,
        }
    }
}

impl MongoOptions {
    /// Sets how long to look for a primary.
    #[must_use]
    pub fn with_server_selection_timeout(mut self, timeout: Duration) -> Self {
        self.server_selection_timeout = timeout;
        self
    }

    /// Sets how long opening a connection may take.
    #[must_use]
    pub fn with_connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Sets how long the server may work on one query.
    #[must_use]
    pub fn with_query_timeout(mut self, timeout: Duration) -> Self {
        self.query_timeout = timeout;
        self
    }

    /// Sets how often the driver asks each server about its state.
    #[must_use]
    pub fn with_heartbeat_frequency(mut self, frequency: Duration) -> Self {
        self.heartbeat_frequency = frequency;
        self
    }

    /// Sets the largest number of connections to one server.
    #[must_use]
    pub fn with_max_connections(mut self, connections: u32) -> Self {
        self.max_connections = connections;
        self
    }
}
