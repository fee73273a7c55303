use std::collections::{HashMap, HashSet};

use super::Slot;
use crate::document::raw::{Field, Writer};

/// Scans by key before the document gets a hash map.
const SCANS: usize = 4;

struct Node<'a> {
    key: &'a str,
    /// `None` once removed.
    slot: Option<Slot<'a>>,
    previous: Option<usize>,
    next: Option<usize>,
}

/// A document while a patch is applied to it: a linked list, so that fields keep their number
/// wherever others are added.
pub(super) struct DocumentEdit<'a> {
    nodes: Vec<Node<'a>>,
    first: Option<usize>,
    last: Option<usize>,
    /// Where the next key is expected: patches name fields in the order of the document.
    expected: usize,
    scans: usize,
    /// The fields by key, those removed included.
    index: Option<HashMap<&'a str, usize>>,
}

impl<'a> DocumentEdit<'a> {
    pub(super) fn new(fields: Vec<Field<'a>>) -> Self {
        let count = fields.len();
        let nodes = fields.into_iter().enumerate().map(|(number, field)| Node {
            key: field.key,
            slot: Some(field.value.into()),
            previous: number.checked_sub(1),
            next: (number + 1 < count).then_some(number + 1),
        });
        Self {
            nodes: nodes.collect(),
            first: (count > 0).then_some(0),
            last: count.checked_sub(1),
            expected: 0,
            scans: 0,
            index: None,
        }
    }

    pub(super) fn get_mut(&mut self, key: &str) -> Option<&mut Slot<'a>> {
        let number = self.find(key)?;
        self.nodes[number].slot.as_mut()
    }

    /// Adds a field that does not exist, in front of `before` or at the end.
    pub(super) fn add(&mut self, key: &'a str, slot: Slot<'a>, before: Option<&str>) -> Option<()> {
        if self.find(key).is_some() {
            return None;
        }
        let next = match before {
            Some(before) => Some(self.find(before)?),
            None => None,
        };
        let previous = next.map_or(self.last, |next| self.nodes[next].previous);
        let number = self.nodes.len();
        self.nodes.push(Node {
            key,
            slot: Some(slot),
            previous,
            next,
        });
        self.link(previous, Some(number));
        self.link(Some(number), next);
        if let Some(index) = &mut self.index {
            index.insert(key, number);
        }
        Some(())
    }

    pub(super) fn remove(&mut self, key: &str) -> Option<()> {
        let number = self.find(key)?;
        let node = &mut self.nodes[number];
        node.slot = None;
        let (previous, next) = (node.previous, node.next);
        self.link(previous, next);
        Some(())
    }

    /// Hands the places of the named fields out to them in the order given.
    pub(super) fn reorder(&mut self, keys: &[String]) -> Option<()> {
        let numbers = keys.iter().map(|key| self.find(key));
        let numbers = numbers.collect::<Option<Vec<usize>>>()?;
        let moved: HashSet<usize> = numbers.iter().copied().collect();
        if moved.len() < numbers.len() {
            return None;
        }
        let mut replacements = numbers.into_iter();
        let mut order = Vec::with_capacity(self.nodes.len());
        let mut at = self.first;
        while let Some(number) = at {
            at = self.nodes[number].next;
            if moved.contains(&number) {
                order.push(replacements.next()?);
            } else {
                order.push(number);
            }
        }
        self.link(None, order.first().copied());
        for pair in order.windows(2) {
            self.link(Some(pair[0]), Some(pair[1]));
        }
        self.link(order.last().copied(), None);
        Some(())
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        let mut at = self.first;
        while let Some(number) = at {
            let node = &self.nodes[number];
            if let Some(slot) = &node.slot {
                writer.field(node.key, slot.as_raw());
            }
            at = node.next;
        }
    }

    /// Makes two fields neighbours; `None` stands for the document's start or end.
    fn link(&mut self, previous: Option<usize>, next: Option<usize>) {
        match previous {
            Some(previous) => self.nodes[previous].next = next,
            None => self.first = next,
        }
        match next {
            Some(next) => self.nodes[next].previous = previous,
            None => self.last = previous,
        }
    }

    fn find(&mut self, key: &str) -> Option<usize> {
        let is_here = |node: &Node<'_>| node.slot.is_some() && node.key == key;
        if self.nodes.get(self.expected).is_some_and(is_here) {
            self.expected += 1;
            return Some(self.expected - 1);
        }
        let found = if self.index.is_none() && self.scans < SCANS {
            self.scans += 1;
            self.nodes.iter().position(is_here)?
        } else {
            let nodes = &self.nodes;
            let index = self.index.get_or_insert_with(|| {
                let mut index = HashMap::with_capacity(nodes.len());
                for (number, node) in nodes.iter().enumerate() {
                    // A removed field may have been added again; the later one is the valid one.
                    if node.slot.is_some() || !index.contains_key(node.key) {
                        index.insert(node.key, number);
                    }
                }
                index
            });
            *index.get(key).filter(|number| is_here(&nodes[**number]))?
        };
        self.expected = found + 1;
        Some(found)
    }
}
