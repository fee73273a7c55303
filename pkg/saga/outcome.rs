/// What starting a saga came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartOutcome {
    /// It was started.
    Started,
    /// It had been started before, with the same data.
    Existing,
}

/// What became of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SignalOutcome {
    /// A step was waiting for it.
    Delivered,
    /// It is kept until a step waits for it.
    Kept,
    /// One with the same id came before.
    Repeated,
    /// The saga has ended or is being compensated. It is not kept.
    TooLate,
}
