use std::time::Duration;

use super::tail::Cursor;
use super::unit::Fence;

/// A request for the right to be the only one who does something, for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseRequest {
    /// What the lease is for: `"relay"`, `"subscription/invoices"`.
    pub name: String,
    /// Who asks; unique to the process and purpose.
    pub owner: String,
    /// How long the lease lives without being renewed, on the store's clock.
    pub ttl: Duration,
}

/// A lease that was granted.
#[derive(Debug, Clone, PartialEq)]
pub struct Lease {
    /// Proof of it for later writes.
    pub fence: Fence,
    /// The checkpoint that the last owner stored, if any.
    pub checkpoint: Option<Cursor>,
}
