//! The row of a document: the head of its log chain and its bytes. A deleted document keeps its row
//! for the head, so that it continues its numbering when it is created again.

use super::chain::Head;
use super::failure::damaged;
use super::seal;
use crate::error::Result;

const HAS_DOCUMENT: u8 = 1;
const HAS_HEAD: u8 = 2;

/// What the store holds under a document's key.
#[derive(Debug)]
pub(super) struct Row<'a> {
    /// The end of the log chain; `None` when the key was never logged.
    pub(super) head: Option<Head>,
    /// The document's bytes.
    pub(super) document: Option<&'a [u8]>,
}

impl<'a> Row<'a> {
    /// Reads a stored row.
    ///
    /// # Errors
    /// `Corrupt` for anything that [`write`] did not write under this key.
    pub(super) fn read(key: &[u8], stored: &'a [u8]) -> Result<Self> {
        let row = seal::open("a document", key, stored)?;
        Self::parse(row).ok_or_else(|| damaged("a document"))
    }

    fn parse(row: &'a [u8]) -> Option<Self> {
        let (flags, mut rest) = row.split_first()?;
        let head = if flags & HAS_HEAD != 0 {
            Some(Head::take(&mut rest)?)
        } else {
            None
        };
        let document = (flags & HAS_DOCUMENT != 0).then_some(rest);
        Some(Self { head, document })
    }
}

/// The stored form of a row.
pub(super) fn write(key: &[u8], head: Option<&Head>, document: Option<&[u8]>) -> Vec<u8> {
    // 64 more: flags, and the head of a document with a few hundred versions.
    let mut row = seal::room(64 + document.map_or(0, <[u8]>::len));
    let flags = if document.is_some() { HAS_DOCUMENT } else { 0 }
        | if head.is_some() { HAS_HEAD } else { 0 };
    row.push(flags);
    if let Some(head) = head {
        head.append(&mut row);
    }
    if let Some(document) = document {
        row.extend_from_slice(document);
    }
    seal::seal(key, &mut row);
    row
}
