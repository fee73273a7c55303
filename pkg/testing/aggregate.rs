//! Given, when, then: tests of aggregates without a store and without a runtime.

use std::fmt::Debug;

use bson::DateTime;

use crate::aggregate::{Aggregate, DecideContext, read_back};
use crate::document::{DocumentId, Version};
use crate::event::Metadata;

/// A test of an aggregate: some events have happened, a command comes, and then?
///
/// Every event is also written and read as the log does it, so a serde attribute that loses something is
/// found here.
///
/// # Examples
/// ```
/// # use nodestorage::testing::cqrs::account::{Account, AccountCommand, AccountError, AccountEvent};
/// use nodestorage::testing::AggregateTest;
///
/// let opened = AccountEvent::AccountOpened { owner: "Kim".into(), balance: 10 };
///
/// AggregateTest::<Account>::given([opened.clone()])
///     .when(AccountCommand::Deposit { amount: 5 })
///     .then([AccountEvent::MoneyDeposited { amount: 5 }])
///     .then_state(|account| assert_eq!(account.balance, 15));
///
/// AggregateTest::<Account>::given([opened])
///     .when(AccountCommand::Withdraw { amount: 11 })
///     .then_rejected(AccountError::Balance);
/// ```
#[derive(Debug)]
#[must_use = "nothing is tested before `when` and `then`"]
pub struct AggregateTest<A> {
    state: Option<A>,
    events: u64,
    id: DocumentId,
    now: DateTime,
    metadata: Metadata,
    command_id: Option<String>,
}

impl<A: Aggregate> AggregateTest<A>
where
    A::Event: Debug + PartialEq,
{
    /// Nothing has happened yet.
    pub fn given_nothing() -> Self {
        Self::given([])
    }

    /// These events have happened, each in a version of its own.
    ///
    /// # Panics
    /// When one of them does not read back as it is written.
    pub fn given(events: impl IntoIterator<Item = A::Event>) -> Self {
        let mut test = Self {
            state: None,
            events: 0,
            id: DocumentId::from("test"),
            now: DateTime::from_millis(0),
            metadata: Metadata::new(),
            command_id: None,
        };
        for event in events {
            test.events += 1;
            test.state = applied(test.state, &event);
        }
        test
    }

    /// Sets the aggregate's id. Default: `test`.
    pub fn with_id(mut self, id: impl Into<DocumentId>) -> Self {
        self.id = id.into();
        self
    }

    /// Sets the time at which the command comes. Default: the Unix epoch.
    pub fn at(mut self, time: DateTime) -> Self {
        self.now = time;
        self
    }

    /// Says where the command comes from.
    pub fn with_metadata(mut self, metadata: Metadata) -> Self {
        self.metadata = metadata;
        self
    }

    /// Sets the command's id, from which the ids derive that a decision makes.
    pub fn with_command_id(mut self, id: impl Into<String>) -> Self {
        self.command_id = Some(id.into());
        self
    }

    /// Has a command decided.
    ///
    /// # Panics
    /// When deciding twice comes to different events: `decide` is not pure.
    pub fn when(self, command: impl Into<A::Command>) -> Decided<A> {
        let command = command.into();
        let next = Version::new(self.events + 1);
        let exists = self.state.is_some();
        if A::creates(&command) && exists {
            return Decided {
                state: self.state,
                result: Err(Refused::Exists),
            };
        }
        let ctx = DecideContext::of_test(
            (A::COLLECTION, self.id),
            (exists.then_some(Version::new(self.events)), next),
            self.now,
            (self.metadata, self.command_id),
        );
        let decide = || match &self.state {
            Some(state) => state.decide(&command, &ctx),
            None => A::default().decide(&command, &ctx),
        };
        let (first, second) = (decide(), decide());
        match (&first, &second) {
            (Ok(first), Ok(second)) => {
                assert_eq!(first, second, "the same command was decided in two ways");
            }
            (Err(_), Err(_)) => {}
            _ => panic!("the same command was decided in two ways: accepted and rejected"),
        }
        let mut state = self.state;
        for event in first.iter().flatten() {
            state = applied(state, event);
        }
        Decided {
            state,
            result: first.map_err(Refused::Rejected),
        }
    }
}

fn applied<A: Aggregate>(state: Option<A>, event: &A::Event) -> Option<A>
where
    A::Event: Debug + PartialEq,
{
    match read_back::<A>(event) {
        Ok(read) => assert_eq!(&read, event, "an event reads back as another one"),
        Err(error) => panic!("{error}: {error:?}"),
    }
    let state = A::apply(state, event);
    (!state.is_deleted()).then_some(state)
}

/// What became of the command of an [`AggregateTest`].
#[derive(Debug)]
#[must_use = "nothing is checked before `then`"]
pub struct Decided<A: Aggregate> {
    state: Option<A>,
    result: Result<Vec<A::Event>, Refused<A::Error>>,
}

#[derive(Debug)]
enum Refused<E> {
    Rejected(E),
    /// It creates, and there is one.
    Exists,
}

impl<A: Aggregate> Decided<A>
where
    A::Event: Debug + PartialEq,
{
    /// These events happened, in this order.
    ///
    /// # Panics
    /// When others did, or the command was rejected.
    #[allow(clippy::must_use_candidate)]
    pub fn then(self, events: impl IntoIterator<Item = A::Event>) -> Checked<A> {
        let wanted: Vec<_> = events.into_iter().collect();
        match &self.result {
            Ok(events) => assert_eq!(*events, wanted, "other events happened"),
            Err(Refused::Rejected(error)) => {
                panic!("the command was rejected: {error}; wanted {wanted:?}")
            }
            Err(Refused::Exists) => panic!("the command creates, and there is one already"),
        }
        Checked { state: self.state }
    }

    /// Nothing happened.
    ///
    /// # Panics
    /// When something did, or the command was rejected.
    pub fn then_nothing(self) {
        let _ = self.then([]);
    }

    /// The command was rejected for this reason.
    ///
    /// # Panics
    /// When it was not.
    pub fn then_rejected(self, reason: A::Error)
    where
        A::Error: PartialEq,
    {
        match self.result {
            Err(Refused::Rejected(error)) => assert_eq!(error, reason, "rejected otherwise"),
            Err(Refused::Exists) => panic!("the command creates, and there is one already"),
            Ok(events) => panic!("the command was not rejected: {events:?}"),
        }
    }

    /// The command was rejected; `check` looks at the reason.
    ///
    /// # Panics
    /// When it was not, and when `check` does.
    pub fn then_error(self, check: impl FnOnce(&A::Error)) {
        match &self.result {
            Err(Refused::Rejected(error)) => check(error),
            Err(Refused::Exists) => panic!("the command creates, and there is one already"),
            Ok(events) => panic!("the command was not rejected: {events:?}"),
        }
    }

    /// The command [creates](Aggregate::creates), and there is an aggregate: `VersionConflict`.
    ///
    /// # Panics
    /// When it was decided.
    pub fn then_exists_already(self) {
        match &self.result {
            Err(Refused::Exists) => {}
            Err(Refused::Rejected(error)) => panic!("the command was rejected: {error}"),
            Ok(events) => panic!("the command was decided: {events:?}"),
        }
    }
}

/// A decision that was as wanted, and what came of it.
#[derive(Debug)]
pub struct Checked<A> {
    state: Option<A>,
}

impl<A: Aggregate> Checked<A> {
    /// The aggregate is as `check` wants it afterwards.
    ///
    /// # Panics
    /// When there is none, and when `check` does.
    #[allow(clippy::must_use_candidate, clippy::return_self_not_must_use)]
    pub fn then_state(self, check: impl FnOnce(&A)) -> Self {
        match &self.state {
            Some(state) => check(state),
            None => panic!("there is no {} afterwards", A::TYPE),
        }
        self
    }

    /// There is no aggregate afterwards.
    ///
    /// # Panics
    /// When there is one.
    pub fn then_gone(self) {
        assert!(self.state.is_none(), "there is a {} afterwards", A::TYPE);
    }
}

#[cfg(test)]
mod tests {
    use super::super::cqrs::account::{
        Account, AccountCommand, AccountError, AccountEvent, deposit, opening, withdraw,
    };
    use super::*;

    fn opened() -> AccountEvent {
        AccountEvent::AccountOpened {
            owner: "Kim".into(),
            balance: 10,
        }
    }

    #[test]
    fn what_happened_is_compared() {
        AggregateTest::<Account>::given_nothing()
            .when(opening("Kim", 10))
            .then([opened()])
            .then_state(|account| assert!(account.active))
            .then_state(|account| assert_eq!(account.balance, 10));
        AggregateTest::<Account>::given([opened()])
            .when(AccountCommand::Look)
            .then_nothing();
        AggregateTest::<Account>::given([opened()])
            .when(withdraw(11))
            .then_rejected(AccountError::Balance);
        AggregateTest::<Account>::given([opened()])
            .when(opening("Lee", 1))
            .then_exists_already();
        AggregateTest::<Account>::given([opened(), AccountEvent::AccountErased])
            .when(deposit(1))
            .then_error(|error| assert_eq!(*error, AccountError::Inactive));
        AggregateTest::<Account>::given([opened()])
            .when(AccountCommand::EraseAccount)
            .then([AccountEvent::AccountErased])
            .then_gone();
    }

    #[test]
    #[should_panic(expected = "other events happened")]
    fn other_events_fail_the_test() {
        let _ = AggregateTest::<Account>::given([opened()])
            .when(deposit(1))
            .then([AccountEvent::MoneyDeposited { amount: 2 }]);
    }

    #[test]
    #[should_panic(expected = "the command was rejected: insufficient balance")]
    fn a_rejection_fails_the_test() {
        let _ = AggregateTest::<Account>::given([opened()])
            .when(withdraw(11))
            .then([]);
    }

    #[test]
    #[should_panic(expected = "was not rejected")]
    fn a_missing_rejection_fails_the_test() {
        AggregateTest::<Account>::given([opened()])
            .when(withdraw(1))
            .then_rejected(AccountError::Balance);
    }
}
