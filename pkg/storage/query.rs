use std::ops::{Bound, RangeBounds};

use bson::Bson;

use crate::document::DocumentId;
use crate::error::{Error, ErrorKind, Result};

/// What a collection is: its name and the indexes it must have.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CollectionSpec {
    /// The name.
    pub name: String,
    /// The declared indexes, without the one on `_id`.
    pub indexes: Vec<Index>,
    /// The name of the integer field that holds the version.
    pub version_field: String,
}

impl CollectionSpec {
    /// A collection without indexes of its own, with the version in `version`.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            indexes: Vec::new(),
            version_field: "version".to_owned(),
        }
    }

    /// Sets the name of the field that holds the version.
    #[must_use]
    pub fn with_version_field(mut self, name: impl Into<String>) -> Self {
        self.version_field = name.into();
        self
    }

    /// Declares an index.
    #[must_use]
    pub fn with_index(mut self, index: Index) -> Self {
        self.indexes.push(index);
        self
    }
}

/// An index over one or more paths, ascending.
///
/// A path names fields by dots: `address.city`. A field that is an array is indexed element by element,
/// and a missing field as null, as MongoDB does. At most one path of an index may meet an array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    pub(crate) paths: Vec<String>,
    pub(crate) unique: bool,
}

impl Index {
    /// An index on `path`.
    #[must_use]
    pub fn on(path: impl Into<String>) -> Self {
        Self {
            paths: vec![path.into()],
            unique: false,
        }
    }

    /// Adds a further path.
    #[must_use]
    pub fn then(mut self, path: impl Into<String>) -> Self {
        self.paths.push(path.into());
        self
    }

    /// No two documents may have the same values. A document that breaks this fails its own update
    /// with `Constraint`.
    #[must_use]
    pub fn unique(mut self) -> Self {
        self.unique = true;
        self
    }

    /// The paths.
    #[must_use]
    pub fn paths(&self) -> &[String] {
        &self.paths
    }

    /// Whether values are unique.
    #[must_use]
    pub fn is_unique(&self) -> bool {
        self.unique
    }

    /// The name it has in the store: `nodestorage_email` or `nodestorage_city_1_street`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("nodestorage_{}", self.paths.join("_1_"))
    }
}

/// A sort direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// Smallest first.
    #[default]
    Ascending,
    /// Largest first.
    Descending,
}

/// One condition of a query.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Filter {
    /// The value at the path, or an element of the array there, equals this; null also matches a
    /// missing field. Numbers are equal by value whatever their type.
    Equal(String, Bson),
    /// As `Equal`, with any of these.
    In(String, Vec<Bson>),
    /// The value at the path, or an element of the array there, lies between the bounds and is of the
    /// bounds' own type (all numbers are one type).
    Range(String, Bound<Bson>, Bound<Bson>),
    /// The string at the path, or a string in the array there, contains this text; case counts.
    Contains(String, String),
}

impl Filter {
    /// The path it looks at.
    #[must_use]
    pub fn path(&self) -> &str {
        match self {
            Self::Equal(path, _)
            | Self::In(path, _)
            | Self::Range(path, ..)
            | Self::Contains(path, _) => path,
        }
    }
}

/// Which part of the matches to return.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Page {
    /// From the first match.
    #[default]
    First,
    /// After the document with this id (keyset paging); the order is by id.
    After(DocumentId),
    /// Leaves out this many matches.
    Skip(u64),
}

/// A query over one collection: all filters must match.
///
/// Paths name fields by dots and look into arrays, as in MongoDB. Values compare in BSON order.
///
/// ```
/// use nodestorage::{Order, Query};
///
/// let query = Query::new()
///     .equal("status", "paid")
///     .range("total", 10..=20)
///     .sort("placed_at", Order::Descending)
///     .limit(20);
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct Query {
    /// The conditions; all must hold.
    pub filters: Vec<Filter>,
    /// The path to sort by and the direction; ties and queries without it are in order of the id.
    pub sort: Option<(String, Order)>,
    /// At most this many documents.
    pub limit: Option<u64>,
    /// Where to begin.
    pub page: Page,
    /// Whether all documents of the collection may be looked at.
    pub allow_scan: bool,
}

impl Query {
    /// Every document, in order of the id.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Requires a value at `path`.
    #[must_use]
    pub fn equal(mut self, path: impl Into<String>, value: impl Into<Bson>) -> Self {
        self.filters.push(Filter::Equal(path.into(), value.into()));
        self
    }

    /// Requires one of several values at `path`.
    #[must_use]
    pub fn is_in<V: Into<Bson>>(
        mut self,
        path: impl Into<String>,
        values: impl IntoIterator<Item = V>,
    ) -> Self {
        let values = values.into_iter().map(Into::into).collect();
        self.filters.push(Filter::In(path.into(), values));
        self
    }

    /// Requires a value within bounds at `path`.
    #[must_use]
    pub fn range<V: Into<Bson> + Clone>(
        mut self,
        path: impl Into<String>,
        range: impl RangeBounds<V>,
    ) -> Self {
        let low = range.start_bound().cloned().map(Into::into);
        let high = range.end_bound().cloned().map(Into::into);
        self.filters.push(Filter::Range(path.into(), low, high));
        self
    }

    /// Requires a string at `path` that contains `text`.
    #[must_use]
    pub fn contains(mut self, path: impl Into<String>, text: impl Into<String>) -> Self {
        self.filters
            .push(Filter::Contains(path.into(), text.into()));
        self
    }

    /// Sorts by the value at `path`; ties are in order of the id.
    #[must_use]
    pub fn sort(mut self, path: impl Into<String>, order: Order) -> Self {
        self.sort = Some((path.into(), order));
        self
    }

    /// Returns at most this many.
    #[must_use]
    pub fn limit(mut self, limit: u64) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Continues after the document with this id: the last of the page before. Only in order of the
    /// id, that is without [`sort`](Self::sort).
    #[must_use]
    pub fn after(mut self, id: impl Into<DocumentId>) -> Self {
        self.page = Page::After(id.into());
        self
    }

    /// Returns page `number`, from 1, of `size` documents.
    #[must_use]
    pub fn page(mut self, number: u64, size: u64) -> Self {
        self.page = Page::Skip(number.saturating_sub(1).saturating_mul(size));
        self.limit = Some(size);
        self
    }

    /// Allows looking at every document of the collection where no declared index serves.
    #[must_use]
    pub fn allow_scan(mut self) -> Self {
        self.allow_scan = true;
        self
    }

    /// Refuses what no backend can answer, and scans that were not allowed.
    pub(crate) fn check(&self, spec: &CollectionSpec) -> Result<()> {
        let invalid = |what: String| Err(Error::new(ErrorKind::InvalidConfig, what));
        let paths = self.filters.iter().map(Filter::path);
        for path in paths.chain(self.sort.iter().map(|(path, _)| path.as_str())) {
            if path
                .split('.')
                .any(|part| part.is_empty() || part.starts_with('$'))
                || path.contains('\0')
            {
                return invalid(format!("query on {}: {path:?} is no path", spec.name));
            }
        }
        if self.sort.is_some() && matches!(self.page, Page::After(_)) {
            return invalid(format!(
                "query on {}: keyset paging works in order of the id, without a sort",
                spec.name
            ));
        }
        if self.allow_scan || self.is_served_by(spec) {
            return Ok(());
        }
        invalid(format!(
            "query on {}: no declared index begins with one of its paths; declare one or allow a scan",
            spec.name
        ))
    }

    /// As [`check`](Self::check), of a query whose matches are only counted. Counting all documents of a
    /// collection needs no permission: whoever asks for that knows that it is no look-up.
    pub(crate) fn check_count(&self, spec: &CollectionSpec) -> Result<()> {
        let mut counted = self.filters_only();
        counted.allow_scan |= counted.filters.is_empty();
        counted.check(spec)
    }

    /// The filters, without order, limit and page.
    pub(crate) fn filters_only(&self) -> Self {
        Self {
            filters: self.filters.clone(),
            allow_scan: self.allow_scan,
            ..Self::default()
        }
    }

    /// Whether an index narrows the query down or gives its order with a limit.
    fn is_served_by(&self, spec: &CollectionSpec) -> bool {
        let leads =
            |path: &str| path == "_id" || spec.indexes.iter().any(|index| index.paths[0] == path);
        let narrowed = self
            .filters
            .iter()
            .any(|filter| !matches!(filter, Filter::Contains(..)) && leads(filter.path()));
        let ordered = self.limit.is_some()
            && self.filters.is_empty()
            && self.sort.as_ref().is_none_or(|(path, _)| leads(path));
        narrowed || ordered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> CollectionSpec {
        CollectionSpec::new("orders").with_index(Index::on("status").then("placed_at"))
    }

    #[test]
    fn a_scan_must_be_allowed() {
        let by_total = Query::new().equal("total", 5);
        assert_eq!(
            by_total.check(&spec()).unwrap_err().kind(),
            ErrorKind::InvalidConfig
        );
        by_total.allow_scan().check(&spec()).unwrap();
        Query::new().equal("status", "paid").check(&spec()).unwrap();
        Query::new().equal("_id", 5).check(&spec()).unwrap();
        Query::new().limit(5).check(&spec()).unwrap();
        assert!(Query::new().check(&spec()).is_err());
        assert!(
            Query::new()
                .contains("status", "pa")
                .check(&spec())
                .is_err()
        );
        assert!(Query::new().equal("placed_at", 5).check(&spec()).is_err());
    }

    #[test]
    fn bad_paths_and_mixed_paging_are_refused() {
        for path in ["", "a..b", "$where", "a.$b", "a\0"] {
            assert!(
                Query::new()
                    .equal(path, 1)
                    .allow_scan()
                    .check(&spec())
                    .is_err()
            );
        }
        let mixed = Query::new()
            .sort("status", Order::Ascending)
            .after("x")
            .allow_scan();
        assert!(mixed.check(&spec()).is_err());
    }
}
