use crate::aggregate::Aggregate;

/// A type that is a command of an aggregate: what makes `dispatcher.send(id, command)` know where to go.
///
/// For the aggregate's own command enum it is one line. A type of its own for one command converts into the
/// enum.
///
/// # Examples
/// ```
/// # use nodestorage::aggregate::{Aggregate, DecideContext};
/// # use nodestorage::command::DomainCommand;
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Default, Serialize, Deserialize)] struct Account;
/// # #[derive(Serialize, Deserialize)] enum AccountEvent { Opened }
/// #[derive(Serialize, Deserialize)]
/// enum AccountCommand {
///     OpenAccount { owner: String },
///     CloseAccount,
/// }
///
/// impl DomainCommand for AccountCommand {
///     type Aggregate = Account;
/// }
///
/// struct OpenAccount {
///     owner: String,
/// }
///
/// impl From<OpenAccount> for AccountCommand {
///     fn from(open: OpenAccount) -> Self {
///         Self::OpenAccount { owner: open.owner }
///     }
/// }
///
/// impl DomainCommand for OpenAccount {
///     type Aggregate = Account;
/// }
/// # impl Aggregate for Account {
/// #     const TYPE: &'static str = "Account";
/// #     const COLLECTION: &'static str = "accounts";
/// #     type Command = AccountCommand;
/// #     type Event = AccountEvent;
/// #     type Error = std::convert::Infallible;
/// #     fn decide(&self, _: &AccountCommand, _: &DecideContext) -> Result<Vec<AccountEvent>, Self::Error> { Ok(vec![]) }
/// #     fn apply(_: Option<Self>, _: &AccountEvent) -> Self { Self }
/// # }
/// ```
pub trait DomainCommand: Into<<Self::Aggregate as Aggregate>::Command> + Send + 'static {
    /// Who decides on it.
    type Aggregate: Aggregate;
}
