//! Answering queries.

mod filter;
mod plan;
mod sorted;
mod top;

use std::collections::BTreeSet;

use bson::{RawDocument, RawDocumentBuf};
use redb::ReadTransaction;

use self::filter::Filter;
use self::plan::{Access, Span};
use self::top::Top;
use super::catalog::Collection;
use super::failure::{damaged, translate};
use super::index::Entry;
use super::keys;
use super::row::Row;
use super::tables::{DOCUMENTS, INDEXES, Reading};
use crate::error::Result;
use crate::storage::query::{Page, Query};

/// The documents that a query asks for, in its order.
pub(super) fn answer(
    transaction: &ReadTransaction,
    collection: &Collection,
    query: &Query,
) -> Result<Vec<RawDocumentBuf>> {
    let source = Source::new(transaction, collection, query)?;
    let access = plan::choose(collection, query, &source.filters);
    let skip = match query.page {
        Page::Skip(skip) => usize::try_from(skip).unwrap_or(usize::MAX),
        _ => 0,
    };
    let limit = query.limit.map_or(usize::MAX, |limit| {
        usize::try_from(limit).unwrap_or(usize::MAX)
    });
    let mut part = Part {
        skip,
        limit,
        found: Vec::new(),
    };
    match (&query.sort, access) {
        (Some((path, order)), Access::Sorted(index)) => {
            sorted::walk(&source, index, path, *order, &mut part)?;
        }
        (Some((path, order)), access) => {
            let mut top = Top::new(path, *order, skip.saturating_add(limit));
            source.each(&access, &mut |id, document| {
                top.add(id, document);
                true
            })?;
            for document in top.into_documents() {
                part.add(document);
            }
        }
        (None, access) => {
            if !part.is_full() {
                source.each(&access, &mut |_, document| {
                    part.add(document.to_owned());
                    !part.is_full()
                })?;
            }
        }
    }
    Ok(part.found)
}

/// How many documents match the filters of a query that has nothing else.
pub(super) fn count(
    transaction: &ReadTransaction,
    collection: &Collection,
    query: &Query,
) -> Result<u64> {
    let source = Source::new(transaction, collection, query)?;
    let access = plan::choose(collection, query, &source.filters);
    let mut count = 0;
    source.each(&access, &mut |_, _| {
        count += 1;
        true
    })?;
    Ok(count)
}

/// The part of the matches that is asked for.
#[derive(Debug)]
struct Part {
    skip: usize,
    limit: usize,
    found: Vec<RawDocumentBuf>,
}

impl Part {
    /// Takes the next match.
    fn add(&mut self, document: RawDocumentBuf) {
        if self.skip > 0 {
            self.skip -= 1;
        } else if !self.is_full() {
            self.found.push(document);
        }
    }

    fn is_full(&self) -> bool {
        self.found.len() >= self.limit
    }

    /// How many matches it still takes.
    fn room(&self) -> usize {
        self.skip.saturating_add(self.limit - self.found.len())
    }
}

/// Where documents come from.
struct Source {
    documents: Reading,
    indexes: Reading,
    /// Of the collection's rows.
    prefix: Vec<u8>,
    filters: Vec<Filter>,
    /// Only ids above this one.
    after: Option<Vec<u8>>,
}

impl Source {
    fn new(transaction: &ReadTransaction, collection: &Collection, query: &Query) -> Result<Self> {
        let filters = query.filters.iter().map(Filter::new);
        Ok(Self {
            documents: transaction.open_table(DOCUMENTS).map_err(translate)?,
            indexes: transaction.open_table(INDEXES).map_err(translate)?,
            prefix: keys::collection_prefix(&collection.name),
            filters: filters.collect::<Result<_>>()?,
            after: match &query.page {
                Page::After(id) => {
                    let mut after = Vec::new();
                    keys::append_id(id, &mut after);
                    Some(after)
                }
                _ => None,
            },
        })
    }

    /// Hands the matches to `see` in order of the id, until it returns false.
    fn each(
        &self,
        access: &Access<'_>,
        see: &mut dyn FnMut(&[u8], &RawDocument) -> bool,
    ) -> Result<()> {
        match access {
            Access::Documents(spans) => {
                for span in spans {
                    if !self.each_row(span, see)? {
                        break;
                    }
                }
                Ok(())
            }
            Access::Index(spans) => {
                // Several entries may lead to one document, and they come in order of the values.
                let mut ids = BTreeSet::new();
                for span in spans {
                    self.each_entry(span, &mut |entry| {
                        if self.is_wanted(entry.id) {
                            ids.insert(entry.id.to_vec());
                        }
                        true
                    })?;
                }
                for id in ids {
                    if !self.with_document(&id, see)? {
                        break;
                    }
                }
                Ok(())
            }
            Access::Sorted(index) => {
                let span = (index.prefix(), keys::after_prefix(&index.prefix()));
                self.each(&Access::Index(vec![span]), see)
            }
        }
    }

    fn each_row(
        &self,
        (begin, end): &Span,
        see: &mut dyn FnMut(&[u8], &RawDocument) -> bool,
    ) -> Result<bool> {
        for stored in range(&self.documents, begin, end.as_deref())? {
            let (key, stored) = stored.map_err(translate)?;
            let Some(id) = key.value().strip_prefix(self.prefix.as_slice()) else {
                break;
            };
            if self.is_wanted(id) && !self.look(key.value(), id, stored.value(), see)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Hands index entries to `see` until it returns false.
    fn each_entry(
        &self,
        (begin, end): &Span,
        see: &mut dyn FnMut(&Entry<'_>) -> bool,
    ) -> Result<()> {
        for stored in range(&self.indexes, begin, end.as_deref())? {
            let (key, stored) = stored.map_err(translate)?;
            if !see(&Entry::read(key.value(), stored.value())?) {
                break;
            }
        }
        Ok(())
    }

    /// Hands the last index entry to `see`.
    fn last_entry(
        &self,
        (begin, end): &Span,
        see: &mut dyn FnMut(&Entry<'_>) -> bool,
    ) -> Result<()> {
        if let Some(stored) = range(&self.indexes, begin, end.as_deref())?.next_back() {
            let (key, stored) = stored.map_err(translate)?;
            see(&Entry::read(key.value(), stored.value())?);
        }
        Ok(())
    }

    /// Hands the document of an index entry to `see`, if it matches.
    fn with_document(
        &self,
        id: &[u8],
        see: &mut dyn FnMut(&[u8], &RawDocument) -> bool,
    ) -> Result<bool> {
        let row = [self.prefix.as_slice(), id].concat();
        match self.documents.get(row.as_slice()).map_err(translate)? {
            Some(stored) => self.look(&row, id, stored.value(), see),
            None => Err(damaged("the document of an index entry")),
        }
    }

    fn look(
        &self,
        row: &[u8],
        id: &[u8],
        stored: &[u8],
        see: &mut dyn FnMut(&[u8], &RawDocument) -> bool,
    ) -> Result<bool> {
        // A deleted document has a row, but no entry in an index leads to it.
        let Some(bytes) = Row::read(row, stored)?.document else {
            return Ok(true);
        };
        let document =
            RawDocument::from_bytes(bytes).map_err(|e| damaged("a document").with_source(e))?;
        let matches = self.filters.iter().all(|filter| filter.matches(document));
        Ok(!matches || see(id, document))
    }

    fn is_wanted(&self, id: &[u8]) -> bool {
        self.after.as_deref().is_none_or(|after| id > after)
    }
}

/// A part of a table, in order.
fn range(
    table: &Reading,
    begin: &[u8],
    end: Option<&[u8]>,
) -> Result<redb::Range<'static, &'static [u8], &'static [u8]>> {
    match end {
        // Bounds that contradict each other hold nothing; the table would not take them.
        Some(end) if end <= begin => table.range(begin..begin),
        Some(end) => table.range(begin..end),
        None => table.range(begin..),
    }
    .map_err(translate)
}
