use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;

use super::{Aggregate, Repository, Verification, variants_of};
use crate::document::{DocumentId, Version};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::Stored;

/// Repositories by the names of their aggregates, for code that learns at run time what it deals with:
/// consoles, importers, inspections.
///
/// # Examples
/// ```
/// # use nodestorage::aggregate::{Aggregate, AggregateFactory, Repository};
/// # use nodestorage::{Result, Storage};
/// # async fn example<Account: Aggregate>(storage: Storage) -> Result<()> {
/// let aggregates = AggregateFactory::new().with(Repository::<Account>::new(&storage))?;
/// let account = aggregates.get("Account")?.find(&"ACC-001".into()).await?;
/// # let _ = account;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct AggregateFactory {
    repositories: BTreeMap<&'static str, Arc<dyn AnyRepository>>,
}

impl AggregateFactory {
    /// Knows nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers an aggregate under its [`TYPE`](Aggregate::TYPE).
    ///
    /// # Errors
    /// `AlreadyRegistered` if the name is taken.
    pub fn with<A: Aggregate>(mut self, repository: Repository<A>) -> Result<Self> {
        if self.repositories.contains_key(A::TYPE) {
            let what = format!("aggregate {} is registered already", A::TYPE);
            return Err(Error::new(ErrorKind::AlreadyRegistered, what));
        }
        self.repositories.insert(A::TYPE, Arc::new(repository));
        Ok(self)
    }

    /// The repository of an aggregate.
    ///
    /// # Errors
    /// `NotFound`, with the names there are.
    pub fn get(&self, name: &str) -> Result<&Arc<dyn AnyRepository>> {
        self.repositories.get(name).ok_or_else(|| {
            let known: Vec<_> = self.names().collect();
            let what = format!(
                "no aggregate {name:?} is registered, only {}",
                known.join(", ")
            );
            Error::new(ErrorKind::NotFound, what)
        })
    }

    /// The names of what is registered, in order.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.repositories.keys().copied()
    }
}

/// A repository whose type is not known at compile time: states are JSON.
///
/// # Examples
/// ```
/// # use nodestorage::{DocumentId, Result};
/// # use nodestorage::aggregate::AnyRepository;
/// # async fn example(repository: &dyn AnyRepository) -> Result<()> {
/// if let Some(state) = repository.find(&DocumentId::from("ACC-001")).await? {
///     println!("{} {}: {}", repository.type_name(), state.id(), *state);
/// }
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait AnyRepository: Debug + Send + Sync {
    /// The aggregate's name.
    fn type_name(&self) -> &'static str;

    /// The collection it is stored in.
    fn collection(&self) -> &'static str;

    /// The names of its commands; none if they are no externally tagged enum.
    fn commands(&self) -> &'static [&'static str];

    /// Reads an aggregate; `None` if there is none.
    ///
    /// # Errors
    /// Those of [`Repository::find`], and `Serialization` if the state has no JSON form.
    async fn find(&self, id: &DocumentId) -> Result<Option<Stored<Value>>>;

    /// The aggregate as it was at a version.
    ///
    /// # Errors
    /// Those of [`Repository::load_at`], and `Serialization`.
    async fn load_at(&self, id: &DocumentId, version: Version) -> Result<Option<Stored<Value>>>;

    /// The aggregate from its events alone.
    ///
    /// # Errors
    /// Those of [`Repository::rebuild`], and `Serialization`.
    async fn rebuild(&self, id: &DocumentId) -> Result<Option<Stored<Value>>>;

    /// Whether state and events agree.
    ///
    /// # Errors
    /// Those of [`Repository::verify`].
    async fn verify(&self, id: &DocumentId) -> Result<Verification>;
}

#[async_trait]
impl<A: Aggregate> AnyRepository for Repository<A> {
    fn type_name(&self) -> &'static str {
        A::TYPE
    }

    fn collection(&self) -> &'static str {
        A::COLLECTION
    }

    fn commands(&self) -> &'static [&'static str] {
        variants_of::<A::Command>().unwrap_or_default()
    }

    async fn find(&self, id: &DocumentId) -> Result<Option<Stored<Value>>> {
        to_json(self.find(id).await?)
    }

    async fn load_at(&self, id: &DocumentId, version: Version) -> Result<Option<Stored<Value>>> {
        to_json(self.load_at(id, version).await?)
    }

    async fn rebuild(&self, id: &DocumentId) -> Result<Option<Stored<Value>>> {
        to_json(self.rebuild(id).await?)
    }

    async fn verify(&self, id: &DocumentId) -> Result<Verification> {
        self.verify(id).await
    }
}

fn to_json<A: Aggregate>(stored: Option<Stored<A>>) -> Result<Option<Stored<Value>>> {
    let Some(stored) = stored else {
        return Ok(None);
    };
    let value = serde_json::to_value(&*stored).map_err(|e| {
        let what = format!("{} {} has no JSON form", A::TYPE, stored.id());
        Error::new(ErrorKind::Serialization, what).with_source(e)
    })?;
    let (id, version) = (stored.id().clone(), stored.version());
    Ok(Some(Stored::new(id, version, value)))
}
