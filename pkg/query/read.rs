//! Pages of documents and views.

use serde::de::DeserializeOwned;

use super::page::{PageRequest, Paged};
use crate::error::Result;
use crate::projection::Views;
use crate::storage::{Collection, Query, Storage, Stored};

impl Storage {
    /// Reads a page of the documents that match a query, in the query's order, and counts all of them. The
    /// query's own limit and page do not count.
    ///
    /// ```
    /// # use nodestorage::{Order, Query, Result, Storage};
    /// # use nodestorage::query::PageRequest;
    /// # #[derive(serde::Deserialize)] struct Order_ { total: i64 }
    /// # async fn example(storage: Storage) -> Result<()> {
    /// let newest_first = Query::new().equal("status", "paid").sort("placed_at", Order::Descending);
    /// let page = storage.find_page::<Order_>("orders", &newest_first, PageRequest::new(2, 20)).await?;
    /// println!("page {} of {}, {} orders", page.page, page.pages, page.total);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `InvalidConfig` for a page or limit that makes no sense, and those of
    /// [`find_many`](Self::find_many) and [`count`](Self::count).
    pub async fn find_page<T: DeserializeOwned>(
        &self,
        collection: &str,
        query: &Query,
        page: PageRequest,
    ) -> Result<Paged<Stored<T>>> {
        let page = page.checked()?;
        let query = within(query, page);
        let items = self.find_many(collection, &query).await?;
        let total = match counted(page, items.len()) {
            Some(total) => total,
            None => self.count(collection, &query).await?,
        };
        Ok(Paged::new(items, page, total))
    }
}

impl<T: DeserializeOwned> Collection<T> {
    /// Reads a page of the documents that match a query; see [`Storage::find_page`].
    ///
    /// # Errors
    /// Those of [`Storage::find_page`].
    pub async fn find_page(&self, query: &Query, page: PageRequest) -> Result<Paged<Stored<T>>> {
        self.storage().find_page(self.name(), query, page).await
    }
}

impl<V: DeserializeOwned> Views<V> {
    /// Reads a page of the views that match a query, in the query's order, and counts all of them. The
    /// query's own limit and page do not count.
    ///
    /// ```
    /// # use nodestorage::{Order, Query, Result};
    /// # use nodestorage::projection::Views;
    /// # use nodestorage::query::PageRequest;
    /// # async fn example(views: Views<bson::Document>) -> Result<()> {
    /// let best = Query::new().sort("cents", Order::Descending);
    /// let page = views.page(&best, PageRequest::default()).await?;
    /// println!("{} of {} customers", page.items.len(), page.total);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `InvalidConfig` for a page or limit that makes no sense, and those of [`query`](Views::query).
    pub async fn page(&self, query: &Query, page: PageRequest) -> Result<Paged<Stored<V>>> {
        let page = page.checked()?;
        let query = within(query, page);
        let items = self.query(&query).await?;
        let total = match counted(page, items.len()) {
            Some(total) => total,
            None => self.count(&query).await?,
        };
        Ok(Paged::new(items, page, total))
    }
}

fn within(query: &Query, page: PageRequest) -> Query {
    query.clone().page(page.page, page.limit)
}

/// The total, where the page itself tells it: it holds the last items.
fn counted(page: PageRequest, items: usize) -> Option<u64> {
    let items = items as u64;
    let is_last = items < page.limit && (items > 0 || page.page == 1);
    is_last.then(|| page.skip() + items)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_is_not_full_tells_the_total() {
        for (page, limit, items, total) in [
            (1, 10, 0, Some(0)),
            (1, 10, 3, Some(3)),
            (3, 10, 9, Some(29)),
            (1, 10, 10, None),
            // Beyond the end: how many there are is not to be seen.
            (2, 10, 0, None),
        ] {
            assert_eq!(counted(PageRequest::new(page, limit), items), total);
        }
    }
}
