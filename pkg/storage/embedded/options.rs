use std::sync::Arc;

use crate::clock::{Clock, SystemClock};

/// How an [`EmbeddedBackend`](super::EmbeddedBackend) works.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EmbeddedOptions {
    /// Memory for pages of the file, in bytes. Default: 128 MiB, which holds the upper levels of a file
    /// of many gigabytes and the working set of most services, and can be spared next to one; the file
    /// store's own default of 1 GiB cannot.
    pub cache_bytes: usize,
    /// Files up to this size, in bytes, are verified whole when they are opened; larger ones rely on
    /// the checksum that every value is compared with when it is read. Default: 64 MiB, which takes
    /// less than a tenth of a second.
    pub verify_up_to_bytes: u64,
    /// Where the time of positions and leases comes from. Default: the operating system.
    pub clock: Arc<dyn Clock>,
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        Self {
            cache_bytes: 128 << 20,
            verify_up_to_bytes: 64 << 20,
            clock: Arc::new(SystemClock),
        }
    }
}

impl EmbeddedOptions {
    /// Sets the memory for pages of the file, in bytes.
    #[must_use]
    pub fn with_cache_bytes(mut self, bytes: usize) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// Sets the size, in bytes, up to which a file is verified whole when it is opened.
    #[must_use]
    pub fn with_verify_up_to_bytes(mut self, bytes: u64) -> Self {
        self.verify_up_to_bytes = bytes;
        self
    }

    /// Sets where the time of positions and leases comes from.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }
}
