//! Which events a view has seen.

use std::collections::HashMap;

use crate::document::{DocumentId, DocumentKey};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;

/// How far the log may repeat itself: a scan begins anew at most two lives of a transaction before the
/// checkpoint, which are two minutes on a server with default settings. Five times as long leaves room
/// for servers where transactions may live longer.
pub(super) const WINDOW_SECONDS: u32 = 600;

/// The form of the stored bytes.
const FORM: u8 = 1;

/// Source, version, index, second.
const MARK_BYTES: usize = 16 + 8 + 4 + 4;

/// The newest event of each document that a view has seen, for as long as the log might hand it out again.
///
/// Most views see one document, so one mark takes no map.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) enum Marks {
    #[default]
    None,
    One(u128, Mark),
    Many(HashMap<u128, Mark>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    version: u64,
    index: u32,
    /// When the event was logged, by the store's clock.
    seconds: u32,
}

/// What a mark is compared by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    source: u128,
    mark: Mark,
}

impl Seen {
    pub(super) fn new(event: &Event, seconds: u32) -> Self {
        Self {
            source: source(event.document()),
            mark: Mark {
                version: event.version().get(),
                index: event.index(),
                seconds,
            },
        }
    }
}

impl Marks {
    fn of(&self, source: u128) -> Option<&Mark> {
        match self {
            Self::None => None,
            Self::One(only, mark) => (*only == source).then_some(mark),
            Self::Many(marks) => marks.get(&source),
        }
    }

    /// Whether the event is not above the last one of its document.
    pub(super) fn has(&self, seen: &Seen) -> bool {
        let at = |mark: &Mark| (mark.version, mark.index);
        self.of(seen.source)
            .is_some_and(|last| at(last) >= at(&seen.mark))
    }

    /// Notes an event that is new.
    pub(super) fn note(&mut self, seen: &Seen) {
        match self {
            Self::None => *self = Self::One(seen.source, seen.mark),
            Self::One(source, mark) if *source == seen.source => *mark = seen.mark,
            Self::One(source, mark) => {
                let both = [(*source, *mark), (seen.source, seen.mark)];
                *self = Self::Many(HashMap::from(both));
            }
            Self::Many(marks) => {
                marks.insert(seen.source, seen.mark);
            }
        }
    }

    /// Drops marks of before this second.
    pub(super) fn prune(&mut self, before: u32) {
        match self {
            Self::None => {}
            // One is kept whatever its age: it is small, and the order by version holds for ever then.
            Self::One(..) => {}
            Self::Many(marks) => {
                marks.retain(|_, mark| mark.seconds >= before);
                if marks.len() * 4 < marks.capacity() {
                    marks.shrink_to_fit();
                }
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::One(..) => 1,
            Self::Many(marks) => marks.len(),
        }
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(1 + self.len() * MARK_BYTES);
        bytes.push(FORM);
        let mut append = |source: &u128, mark: &Mark| {
            bytes.extend_from_slice(&source.to_le_bytes());
            bytes.extend_from_slice(&mark.version.to_le_bytes());
            bytes.extend_from_slice(&mark.index.to_le_bytes());
            bytes.extend_from_slice(&mark.seconds.to_le_bytes());
        };
        match self {
            Self::None => {}
            Self::One(source, mark) => append(source, mark),
            Self::Many(marks) => marks.iter().for_each(|(source, mark)| append(source, mark)),
        }
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let corrupt = || Error::new(ErrorKind::Corrupt, "the marks of a view do not read back");
        let (form, rest) = bytes.split_first().ok_or_else(corrupt)?;
        if *form != FORM || rest.len() % MARK_BYTES != 0 {
            return Err(corrupt());
        }
        let mut marks = Vec::with_capacity(rest.len() / MARK_BYTES);
        for bytes in rest.chunks_exact(MARK_BYTES) {
            marks.push(read(bytes).ok_or_else(corrupt)?);
        }
        Ok(match marks.as_slice() {
            [] => Self::None,
            [(source, mark)] => Self::One(*source, *mark),
            _ => Self::Many(marks.into_iter().collect()),
        })
    }
}

fn read(bytes: &[u8]) -> Option<(u128, Mark)> {
    let (source, rest) = bytes.split_first_chunk()?;
    let (version, rest) = rest.split_first_chunk()?;
    let (index, rest) = rest.split_first_chunk()?;
    let (seconds, _) = rest.split_first_chunk()?;
    let mark = Mark {
        version: u64::from_le_bytes(*version),
        index: u32::from_le_bytes(*index),
        seconds: u32::from_le_bytes(*seconds),
    };
    Some((u128::from_le_bytes(*source), mark))
}

/// A document in 128 bits: an FNV-1a hash of collection, kind of id and id. Part of the stored form.
fn source(document: &DocumentKey) -> u128 {
    // Offset basis and prime of the 128-bit FNV-1a hash.
    let mut hash: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    let mut feed = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u128::from(*byte)).wrapping_mul(0x0100_0000_0000_0000_0000_013b);
        }
    };
    feed(document.collection().as_bytes());
    match document.id() {
        DocumentId::Int(number) => {
            feed(b"\0i");
            feed(&number.to_le_bytes());
        }
        DocumentId::String(text) => {
            feed(b"\0s");
            feed(text.as_bytes());
        }
        DocumentId::Uuid(uuid) => {
            feed(b"\0u");
            feed(uuid.as_bytes());
        }
        DocumentId::ObjectId(id) => {
            feed(b"\0o");
            feed(&id.bytes());
        }
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(document: i64, version: u64, index: u32, seconds: u32) -> Seen {
        Seen {
            source: source(&DocumentKey::new("users", document)),
            mark: Mark {
                version,
                index,
                seconds,
            },
        }
    }

    #[test]
    fn what_is_not_above_the_last_event_of_its_document_was_seen() {
        let mut marks = Marks::default();
        for document in 1..=3 {
            assert!(!marks.has(&seen(document, 2, 1, 5)));
            marks.note(&seen(document, 2, 1, 5));
            for (version, index, is_seen) in [(1, 9, true), (2, 0, true), (2, 1, true)] {
                assert_eq!(marks.has(&seen(document, version, index, 5)), is_seen);
            }
            assert!(!marks.has(&seen(document, 2, 2, 5)) && !marks.has(&seen(document, 3, 0, 5)));
        }
        assert_eq!(marks.len(), 3);
    }

    #[test]
    fn marks_read_back() {
        let mut marks = Marks::default();
        for document in 0..5 {
            assert_eq!(Marks::from_bytes(&marks.to_bytes()).unwrap(), marks);
            marks.note(&seen(document, u64::MAX, u32::MAX, u32::MAX));
        }
        let bytes = marks.to_bytes();
        for bad in [&bytes[..0], &bytes[..bytes.len() - 1], &[9], &bytes[1..]] {
            assert_eq!(
                Marks::from_bytes(bad).unwrap_err().kind(),
                ErrorKind::Corrupt
            );
        }
    }

    #[test]
    fn old_marks_are_dropped_and_newer_ones_kept() {
        let mut marks = Marks::default();
        for document in 0..100 {
            marks.note(&seen(document, 1, 0, document as u32));
        }
        marks.prune(90);
        assert_eq!(marks.len(), 10);
        assert!(marks.has(&seen(95, 1, 0, 95)) && !marks.has(&seen(80, 1, 0, 80)));
    }

    #[test]
    fn the_kinds_of_ids_are_told_apart() {
        let ids = [DocumentId::from(1), DocumentId::from("1")];
        let [number, text] = ids.map(|id| source(&DocumentKey::new("users", id)));
        assert_ne!(number, text);
    }
}
