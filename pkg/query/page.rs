use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};

/// Which page of the matches is asked for, and how large a page is. Deserializes from the parameters of a
/// URL, unchecked: [`checked`](Self::checked), and everything that takes one, refuses what makes no sense.
///
/// ```
/// use nodestorage::query::PageRequest;
///
/// let request = PageRequest::new(3, 20);
/// assert_eq!(request.skip(), 40);
/// assert!(PageRequest::new(0, 20).checked().is_err());
/// let request: PageRequest = serde_json::from_str("{}")?;
/// assert_eq!(request, PageRequest::new(1, 20));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[allow(clippy::exhaustive_structs)]
pub struct PageRequest {
    /// The number of the page, from 1. Default 1.
    pub page: u64,
    /// How many items a page has at most. Default 20.
    pub limit: u64,
}

impl Default for PageRequest {
    fn default() -> Self {
        Self { page: 1, limit: 20 }
    }
}

/// How large a page may be.
///
/// # Examples
/// ```
/// use nodestorage::query::{PageLimits, PageRequest};
///
/// let limits = PageLimits { max_limit: 50 };
/// assert!(PageRequest::new(1, 50).within(limits).is_ok());
/// assert!(PageRequest::new(1, 51).within(limits).is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct PageLimits {
    /// The most items in a page. Default 1,000: they are in memory together.
    pub max_limit: u64,
}

impl Default for PageLimits {
    fn default() -> Self {
        Self { max_limit: 1_000 }
    }
}

impl PageRequest {
    /// A page of so many items.
    #[must_use]
    pub const fn new(page: u64, limit: u64) -> Self {
        Self { page, limit }
    }

    /// The request, if it makes sense within the default limits.
    ///
    /// # Errors
    /// `InvalidConfig` for page 0, for a limit of 0 or above 1,000.
    pub fn checked(self) -> Result<Self> {
        self.within(PageLimits::default())
    }

    /// The request, if it makes sense within limits.
    ///
    /// # Errors
    /// `InvalidConfig` for page 0, for a limit of 0 or above the largest.
    pub fn within(self, limits: PageLimits) -> Result<Self> {
        let wrong = if self.page == 0 {
            "page must be at least 1".to_owned()
        } else if self.limit == 0 {
            "limit must be at least 1".to_owned()
        } else if self.limit > limits.max_limit {
            format!(
                "limit must be at most {}, found {}",
                limits.max_limit, self.limit
            )
        } else {
            return Ok(self);
        };
        Err(Error::new(ErrorKind::InvalidConfig, wrong))
    }

    /// How many items lie before the page.
    #[must_use]
    pub const fn skip(self) -> u64 {
        self.page.saturating_sub(1).saturating_mul(self.limit)
    }
}

/// A page of items, and how many there are.
///
/// ```
/// use nodestorage::query::{PageRequest, Paged};
///
/// let page = Paged::new(vec!["c"], PageRequest::new(2, 2), 3);
/// assert_eq!(page.pages, 2);
/// assert_eq!(
///     serde_json::to_string(&page)?,
///     r#"{"items":["c"],"page":2,"limit":2,"total":3,"pages":2}"#,
/// );
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::exhaustive_structs)]
pub struct Paged<T> {
    /// The items of the page; none beyond the last page.
    pub items: Vec<T>,
    /// The number of the page, from 1.
    pub page: u64,
    /// How many items a page has at most.
    pub limit: u64,
    /// How many items all pages have, counted beside the page: what changes in between may show in one and
    /// not in the other.
    pub total: u64,
    /// How many pages there are; 0 without items.
    pub pages: u64,
}

impl<T> Paged<T> {
    /// A page of a total.
    #[must_use]
    pub fn new(items: Vec<T>, request: PageRequest, total: u64) -> Self {
        Self {
            items,
            page: request.page,
            limit: request.limit,
            total,
            pages: total.div_ceil(request.limit.max(1)),
        }
    }

    /// The same page with other items.
    #[must_use]
    pub fn map<U>(self, f: impl FnMut(T) -> U) -> Paged<U> {
        Paged {
            items: self.items.into_iter().map(f).collect(),
            page: self.page,
            limit: self.limit,
            total: self.total,
            pages: self.pages,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_that_make_no_sense_are_refused() {
        for (page, limit, word) in [
            (0, 20, "page"),
            (1, 0, "limit"),
            (1, 1_001, "1000"),
            (1, u64::MAX, "1000"),
        ] {
            let error = PageRequest::new(page, limit).checked().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(error.to_string().contains(word), "{error}");
        }
        PageRequest::new(u64::MAX, 1_000).checked().unwrap();
        let limits = PageLimits { max_limit: 10 };
        assert!(PageRequest::new(1, 11).within(limits).is_err());
        PageRequest::new(1, 10).within(limits).unwrap();
    }

    #[test]
    fn totals_become_pages() {
        let pages =
            |total, limit| Paged::<()>::new(Vec::new(), PageRequest::new(1, limit), total).pages;
        assert_eq!(
            [pages(0, 10), pages(1, 10), pages(10, 10), pages(11, 10)],
            [0, 1, 1, 2]
        );
        assert_eq!(pages(u64::MAX, 1), u64::MAX);
        assert_eq!(PageRequest::new(u64::MAX, 1_000).skip(), u64::MAX);
    }
}
