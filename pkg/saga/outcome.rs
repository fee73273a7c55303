/// What starting a saga came to.
///
/// # Examples
/// ```
/// # use nodestorage::Result;
/// # use nodestorage::saga::{Sagas, StartOutcome};
/// # async fn example(greetings: Sagas<String>) -> Result<()> {
/// if greetings.start("G-1", "world".to_owned()).await? == StartOutcome::Existing {
///     println!("was started before");
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartOutcome {
    /// It was started.
    Started,
    /// It had been started before, with the same data.
    Existing,
}

/// What became of a signal.
///
/// # Examples
/// ```
/// # use nodestorage::Result;
/// # use nodestorage::saga::{Sagas, SignalOutcome};
/// # async fn example(orders: Sagas<String>) -> Result<()> {
/// match orders.signal("O-7", "OrderPaid", 120).await? {
///     SignalOutcome::TooLate => println!("the order has ended, so the money goes back"),
///     outcome => println!("{outcome:?}"),
/// }
/// # Ok(())
/// # }
/// ```
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
