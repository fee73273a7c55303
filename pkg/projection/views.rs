use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::build::Build;
use super::shared::Shared;
use super::target::StoredView;
use crate::document::{DocumentId, Version};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::{Query, Stored};

/// The views of a projection, as readers get them: those of the build in use, whichever that is. Cheap to
/// clone.
///
/// While views are built anew, readers get the ones before; from the moment of the swap on they get the
/// new ones, in other processes within a second. So under a new version of the code a `V` also reads views
/// of the version before, until the new ones have caught up.
///
/// ```
/// # use nodestorage::{Query, Result};
/// # use nodestorage::projection::Views;
/// # use serde::Deserialize;
/// #[derive(Deserialize)]
/// struct Spent { orders: u64, cents: i64 }
///
/// # async fn example(views: Views<Spent>) -> Result<()> {
/// if let Some(spent) = views.find("kim").await? {
///     println!("{} orders, {} cents", spent.orders, spent.cents);
/// }
/// // An index on `cents` serves it: see `ProjectionOptions::with_index`.
/// for spent in views.query(&Query::new().range("cents", 100_000..)).await? {
///     println!("{}", spent.id());
/// }
/// # Ok(())
/// # }
/// ```
pub struct Views<V> {
    shared: Arc<Shared>,
    view: PhantomData<fn() -> V>,
}

impl<V: DeserializeOwned> Views<V> {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            view: PhantomData,
        }
    }

    /// Reads a view; `None` if there is none.
    ///
    /// # Errors
    /// `Serialization` if it is not a `V`; those of the target.
    pub async fn find(&self, key: impl Into<DocumentId>) -> Result<Option<Stored<V>>> {
        let key = key.into();
        let Some(build) = self.build().await? else {
            return Ok(None);
        };
        let found = self
            .shared
            .target
            .load(build, std::slice::from_ref(&key))
            .await?;
        match found.into_iter().next() {
            Some(view) => decode(view),
            None => Ok(None),
        }
    }

    /// Reads a view that must be there.
    ///
    /// # Errors
    /// `NotFound`, and those of [`find`](Self::find).
    pub async fn load(&self, key: impl Into<DocumentId>) -> Result<Stored<V>> {
        let key = key.into();
        let found = self.find(&key).await?;
        found.ok_or_else(|| {
            let what = format!("view {key} of {} not found", self.shared.name);
            Error::new(ErrorKind::NotFound, what)
        })
    }

    /// Reads the views that match a query, in the query's order.
    ///
    /// # Errors
    /// `InvalidConfig` for a query that no declared index serves and that does not allow a scan;
    /// `Unsupported` if the target answers no queries; those of [`find`](Self::find).
    pub async fn query(&self, query: &Query) -> Result<Vec<Stored<V>>> {
        let Some(build) = self.build().await? else {
            return Ok(Vec::new());
        };
        let found = self.shared.target.query(build, query).await?;
        let views = found
            .into_iter()
            .filter_map(|view| decode(view).transpose());
        views.collect()
    }

    /// Counts the views that match a query's filters, whatever its order, limit and page.
    ///
    /// # Errors
    /// As for [`query`](Self::query).
    pub async fn count(&self, query: &Query) -> Result<u64> {
        match self.build().await? {
            Some(build) => self.shared.target.count(build, query).await,
            None => Ok(0),
        }
    }

    /// The build that readers get now; `None` before the first.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn build(&self) -> Result<Option<Build>> {
        Ok(self.shared.current().await?.live)
    }
}

fn decode<V: DeserializeOwned>(view: StoredView) -> Result<Option<Stored<V>>> {
    let Some(document) = &view.document else {
        return Ok(None);
    };
    let value = bson::deserialize_from_slice(document.as_bytes()).map_err(|e| {
        let wanted = std::any::type_name::<V>();
        let what = format!("view {} is not a {wanted}", view.key);
        Error::new(ErrorKind::Serialization, what).with_source(e)
    })?;
    let revision = Version::new(view.revision);
    Ok(Some(Stored::new(view.key, revision, value)))
}

impl<V> Clone for Views<V> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            view: PhantomData,
        }
    }
}

impl<V> fmt::Debug for Views<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Views")
            .field("projection", &self.shared.name)
            .finish_non_exhaustive()
    }
}
