//! The first few of many documents in sort order.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use bson::{RawBson, RawBsonRef, RawDocument, RawDocumentBuf};

use super::super::paths::sort_values;
use crate::document::compare;
use crate::storage::query::Order;

/// A match with what it is sorted by.
#[derive(Debug)]
struct Ranked {
    value: RawBson,
    order: Order,
    id: Vec<u8>,
    document: RawDocumentBuf,
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        rank(
            self.order,
            (self.value.as_raw_bson_ref(), &self.id),
            (other.value.as_raw_bson_ref(), &other.id),
        )
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Ranked {}

fn rank(order: Order, a: (RawBsonRef<'_>, &[u8]), b: (RawBsonRef<'_>, &[u8])) -> Ordering {
    let values = match order {
        Order::Ascending => compare(a.0, b.0),
        Order::Descending => compare(b.0, a.0),
    };
    // Ties are in order of the id in both directions.
    values.then_with(|| a.1.cmp(b.1))
}

/// Keeps the first `keep` of what it is given.
#[derive(Debug)]
pub(super) struct Top<'q> {
    path: &'q str,
    order: Order,
    keep: usize,
    /// The last of those kept is on top.
    heap: BinaryHeap<Ranked>,
}

impl<'q> Top<'q> {
    pub(super) fn new(path: &'q str, order: Order, keep: usize) -> Self {
        Self {
            path,
            order,
            keep,
            heap: BinaryHeap::new(),
        }
    }

    pub(super) fn add(&mut self, id: &[u8], document: &RawDocument) {
        if self.keep == 0 {
            return;
        }
        let value = sort_value(document, self.path, self.order);
        if self.heap.len() >= self.keep {
            let beaten = self.heap.peek().is_some_and(|last| {
                let last = (last.value.as_raw_bson_ref(), last.id.as_slice());
                rank(self.order, (value, id), last).is_lt()
            });
            if !beaten {
                return;
            }
            self.heap.pop();
        }
        self.heap.push(Ranked {
            value: value.into(),
            order: self.order,
            id: id.to_vec(),
            document: document.to_owned(),
        });
    }

    /// Those kept, in order.
    pub(super) fn into_documents(self) -> impl Iterator<Item = RawDocumentBuf> {
        let sorted = self.heap.into_sorted_vec();
        sorted.into_iter().map(|ranked| ranked.document)
    }
}

/// What a document is sorted by: the smallest of its values ascending, the largest descending.
fn sort_value<'d>(document: &'d RawDocument, path: &str, order: Order) -> RawBsonRef<'d> {
    let mut best: Option<RawBsonRef<'d>> = None;
    sort_values(document, path, &mut |value| {
        let better = best.is_none_or(|best| match order {
            Order::Ascending => compare(value, best).is_lt(),
            Order::Descending => compare(value, best).is_gt(),
        });
        if better {
            best = Some(value);
        }
    });
    best.unwrap_or(RawBsonRef::Null)
}
