//! The log entries of one document, as a chain from the newest to the first.
//!
//! The log is keyed by position alone. Each entry points to the one before it of the same document, and
//! to one further back: the jump pointers of Myers, "An applicative random-access stack" (1983). With
//! them every entry of a chain of `n` is reached in O(log n) steps. How far an entry jumps depends only
//! on its depth, and the next jump can be computed from the jumps of the newest entry alone; the
//! document's row keeps those, so appending reads nothing from the log. A table from document and version
//! to position would do the same at nearly twice the cost per commit, because it is written at random
//! places.

use super::varint;
use crate::document::Version;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::backend::{EntryKind, LogHead};

/// A pointer to a log entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Link {
    /// The entry's key in the log.
    pub(super) position: u64,
    /// The entry's version.
    pub(super) version: u64,
    /// How many entries the chain has up to this one.
    pub(super) depth: u64,
}

impl Link {
    /// Before the first entry.
    pub(super) const ROOT: Self = Self {
        position: 0,
        version: 0,
        depth: 0,
    };
}

/// What an entry knows of its chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Node {
    /// The entry itself.
    pub(super) this: Link,
    /// The entry before; the root for the first.
    pub(super) previous: Link,
    /// An entry further back, or the same as `previous`.
    pub(super) jump: Link,
}

impl Node {
    /// Appends the stored form. The position of the entry is its key and is left out; the rest is kept
    /// as distances, which are small.
    pub(super) fn append(&self, bytes: &mut Vec<u8>) {
        varint::append(self.this.version, bytes);
        varint::append(self.this.depth, bytes);
        append_link(self.this, self.previous, bytes);
        append_link(self.this, self.jump, bytes);
    }

    /// Takes the stored form from the front.
    pub(super) fn take(position: u64, bytes: &mut &[u8]) -> Option<Self> {
        let this = Link {
            position,
            version: varint::take(bytes)?,
            depth: varint::take(bytes)?,
        };
        let previous = take_link(this, bytes)?;
        let jump = take_link(this, bytes)?;
        Some(Self {
            this,
            previous,
            jump,
        })
    }
}

fn append_link(from: Link, to: Link, bytes: &mut Vec<u8>) {
    varint::append(from.position.wrapping_sub(to.position), bytes);
    varint::append(from.version.wrapping_sub(to.version), bytes);
    varint::append(from.depth.wrapping_sub(to.depth), bytes);
}

fn take_link(from: Link, bytes: &mut &[u8]) -> Option<Link> {
    Some(Link {
        position: from.position.checked_sub(varint::take(bytes)?)?,
        version: from.version.checked_sub(varint::take(bytes)?)?,
        depth: from.depth.checked_sub(varint::take(bytes)?)?,
    })
}

/// The newest entry of a document, and the chain of jumps from it to the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    /// The newest entry's kind.
    pub(super) kind: EntryKind,
    /// The newest entry, the one it jumps to, the one that jumps to, and so on, without the root.
    /// Never empty; about twice the logarithm of the depth at most.
    links: Vec<Link>,
}

impl Head {
    /// The newest entry.
    pub(super) fn newest(&self) -> Link {
        self.links.first().copied().unwrap_or(Link::ROOT)
    }

    /// As the contract tells it.
    pub(super) fn log_head(&self) -> LogHead {
        LogHead {
            version: Version::new(self.newest().version),
            kind: self.kind,
        }
    }

    /// Appends an entry to the chain that ends in `head`: the new head, and what the entry stores.
    pub(super) fn push(
        head: Option<Self>,
        position: u64,
        version: u64,
        kind: EntryKind,
    ) -> (Self, Node) {
        let mut links = head.map(|head| head.links).unwrap_or_default();
        let at = |index: usize| links.get(index).copied().unwrap_or(Link::ROOT);
        let (previous, second, third) = (at(0), at(1), at(2));
        let this = Link {
            position,
            version,
            depth: previous.depth + 1,
        };
        // Two equal strides in a row become one stride over both: the rule that keeps all jumps
        // logarithmic.
        let equal_strides =
            previous.depth > 0 && previous.depth - second.depth == second.depth - third.depth;
        let jump = if equal_strides { third } else { previous };
        if equal_strides {
            links.drain(..2.min(links.len()));
        }
        links.insert(0, this);
        let node = Node {
            this,
            previous,
            jump,
        };
        (Self { kind, links }, node)
    }

    /// Appends the stored form.
    pub(super) fn append(&self, bytes: &mut Vec<u8>) {
        bytes.push(kind_code(self.kind));
        varint::append(self.links.len() as u64, bytes);
        let mut from = Link::ROOT;
        for link in &self.links {
            // The first is told from the root, wrapping around; the others from the one before.
            append_link(from, *link, bytes);
            from = *link;
        }
    }

    /// Takes the stored form from the front.
    pub(super) fn take(bytes: &mut &[u8]) -> Option<Self> {
        let (code, rest) = bytes.split_first()?;
        *bytes = rest;
        let kind = kind_of(*code)?;
        let count = varint::take(bytes)?;
        let mut links = Vec::new();
        let mut from = Link::ROOT;
        for _ in 0..count {
            from = Link {
                position: from.position.wrapping_sub(varint::take(bytes)?),
                version: from.version.wrapping_sub(varint::take(bytes)?),
                depth: from.depth.wrapping_sub(varint::take(bytes)?),
            };
            links.push(from);
        }
        (!links.is_empty()).then_some(Self { kind, links })
    }

    /// The newest entry that is not too new, or the root. `too_new` must hold for everything after
    /// an entry it holds for. `read` fetches an entry's node.
    ///
    /// # Errors
    /// As `read`; `Corrupt` if the chain does not lead backwards.
    pub(super) fn seek(
        &self,
        too_new: impl Fn(Link) -> bool,
        mut read: impl FnMut(Link) -> Result<Node>,
    ) -> Result<Link> {
        let passed = self.links.iter().take_while(|link| too_new(**link)).count();
        let Some(mut current) = passed.checked_sub(1).map(|index| self.links[index]) else {
            return Ok(self.newest());
        };
        loop {
            let node = read(current)?;
            if node.previous.depth >= current.depth || node.jump.depth >= current.depth {
                return Err(Error::new(
                    ErrorKind::Corrupt,
                    "log entries of a document do not lead backwards",
                ));
            }
            if node.previous == Link::ROOT || !too_new(node.previous) {
                return Ok(node.previous);
            }
            current = if node.jump != Link::ROOT && too_new(node.jump) {
                node.jump
            } else {
                node.previous
            };
        }
    }
}

fn kind_code(kind: EntryKind) -> u8 {
    match kind {
        EntryKind::Created => 1,
        EntryKind::Updated => 2,
        EntryKind::Deleted => 3,
        EntryKind::Adopted => 4,
        EntryKind::Appended => 5,
    }
}

fn kind_of(code: u8) -> Option<EntryKind> {
    Some(match code {
        1 => EntryKind::Created,
        2 => EntryKind::Updated,
        3 => EntryKind::Deleted,
        4 => EntryKind::Adopted,
        5 => EntryKind::Appended,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn chain(length: u64) -> (Head, HashMap<u64, Node>) {
        let mut head = None;
        let mut nodes = HashMap::new();
        for number in 1..=length {
            let (next, node) = Head::push(head, number * 1_000, number * 2, EntryKind::Updated);
            let mut bytes = Vec::new();
            node.append(&mut bytes);
            assert_eq!(
                Node::take(number * 1_000, &mut bytes.as_slice()),
                Some(node)
            );
            nodes.insert(number * 1_000, node);
            head = Some(next);
        }
        (head.unwrap(), nodes)
    }

    #[test]
    fn any_of_ten_thousand_versions_is_reached_in_few_steps() {
        let (head, nodes) = chain(10_000);
        assert!(head.links.len() < 30, "{} links", head.links.len());
        let mut most = 0;
        for version in 0..=20_001 {
            let mut steps = 0;
            let found = head
                .seek(
                    |link| link.version > version,
                    |link| {
                        steps += 1;
                        Ok(nodes[&link.position])
                    },
                )
                .unwrap();
            assert_eq!(found.version, version / 2 * 2);
            assert_eq!(found.depth, version / 2);
            most = most.max(steps);
        }
        // Two times log2(10,000).
        assert!(most <= 27, "{most} steps");
    }

    #[test]
    fn a_head_reads_back() {
        for length in [1, 2, 3, 100, 9_999] {
            let (head, _) = chain(length);
            let mut bytes = Vec::new();
            head.append(&mut bytes);
            assert!(bytes.len() < 300, "{} bytes", bytes.len());
            let mut rest = bytes.as_slice();
            assert_eq!(Head::take(&mut rest), Some(head));
            assert!(rest.is_empty());
        }
    }

    #[test]
    fn a_chain_that_leads_nowhere_ends() {
        let (head, mut nodes) = chain(8);
        for node in nodes.values_mut() {
            node.previous = node.this;
        }
        let error = head
            .seek(|link| link.version > 2, |link| Ok(nodes[&link.position]))
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }
}
