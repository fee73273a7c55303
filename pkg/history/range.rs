use crate::document::Version;

/// How many versions a page holds unless told otherwise.
const DEFAULT_LIMIT: usize = 100;

/// Which versions of a document to read, in which direction, and how many at a time.
///
/// ```
/// use nodestorage::VersionRange;
///
/// let last_ten = VersionRange::new().with_newest_first(true).with_limit(10);
/// let some = VersionRange::new().with_from(5).with_to(8);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct VersionRange {
    /// The lowest version, inclusive. Default: the first.
    pub from: Version,
    /// The highest version, inclusive. Default: the newest.
    pub to: Version,
    /// Newest first instead of oldest first. Default: false.
    pub newest_first: bool,
    /// At most this many versions in a page, at least one. Default: 100.
    pub limit: usize,
}

impl Default for VersionRange {
    fn default() -> Self {
        Self {
            from: Version::NONE,
            to: Version::MAX,
            newest_first: false,
            limit: DEFAULT_LIMIT,
        }
    }
}

impl VersionRange {
    /// All versions, oldest first, 100 in a page.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the lowest version, inclusive.
    #[must_use]
    pub fn with_from(mut self, from: impl Into<Version>) -> Self {
        self.from = from.into();
        self
    }

    /// Sets the highest version, inclusive.
    #[must_use]
    pub fn with_to(mut self, to: impl Into<Version>) -> Self {
        self.to = to.into();
        self
    }

    /// Sets the direction.
    #[must_use]
    pub fn with_newest_first(mut self, newest_first: bool) -> Self {
        self.newest_first = newest_first;
        self
    }

    /// Sets how many versions a page holds at most.
    #[must_use]
    pub fn with_limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    /// The rest of the range, in its direction, from `start` on.
    pub(super) fn starting_at(mut self, start: Version) -> Self {
        if self.newest_first {
            self.to = start;
        } else {
            self.from = start;
        }
        self
    }
}

/// One page of a document's history.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct HistoryPage<T> {
    /// What was found, in the direction that was asked for.
    pub items: Vec<T>,
    /// What to ask for next; `None` when the range is exhausted.
    pub next: Option<VersionRange>,
}

impl<T> HistoryPage<T> {
    /// The version that the next page starts with; `None` when the range is exhausted.
    #[must_use]
    pub fn next_start(&self) -> Option<Version> {
        self.next.map(|next| {
            if next.newest_first {
                next.to
            } else {
                next.from
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_of_a_range_keeps_its_direction_and_its_other_end() {
        let range = VersionRange::new().with_from(5).with_to(90).with_limit(7);
        let rest = range.starting_at(Version::new(12));
        assert_eq!(rest, range.with_from(12));
        let down = range.with_newest_first(true);
        assert_eq!(down.starting_at(Version::new(12)), down.with_to(12));
        let page = HistoryPage {
            items: vec![()],
            next: Some(down.with_to(12)),
        };
        assert_eq!(page.next_start(), Some(Version::new(12)));
    }
}
