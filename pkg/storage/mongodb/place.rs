//! Where a tail stands, and how that is kept in a cursor.

use bson::raw::cstr;
use bson::{RawBsonRef, RawDocument, RawDocumentBuf, Timestamp};

use crate::storage::backend::{Cursor, Position};

/// A place in the log. Stored in a cursor's token as `{ time, scan?, resume? }`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Place {
    /// The cluster time whose state is being read, or up to which the change stream has come.
    pub(super) time: Position,
    /// While scanning: the last position passed in the state at `time`.
    pub(super) scanned: Option<Position>,
    /// While following: the change stream's resume token.
    pub(super) resume: Option<RawDocumentBuf>,
}

impl Place {
    pub(super) const BEGINNING: Self = Self {
        time: Position::START,
        scanned: Some(Position::START),
        resume: None,
    };

    /// Everything up to `time` is passed, nothing after it.
    pub(super) fn after(time: Position) -> Self {
        Self {
            time,
            scanned: None,
            resume: None,
        }
    }

    pub(super) fn to_cursor(&self, position: Position) -> Cursor {
        let mut token = RawDocumentBuf::new();
        token.append(cstr!("time"), Timestamp::from(self.time));
        if let Some(scanned) = self.scanned {
            token.append(cstr!("scan"), Timestamp::from(scanned));
        }
        if let Some(resume) = &self.resume {
            token.append(cstr!("resume"), resume);
        }
        Cursor { position, token }
    }

    /// A token that does not read is as good as a lost one: what the cursor's position says still holds.
    pub(super) fn from_cursor(cursor: &Cursor) -> Self {
        let token = &cursor.token;
        let Ok(time) = token.get_timestamp("time") else {
            return Self {
                scanned: Some(cursor.position),
                ..Self::after(cursor.position)
            };
        };
        Self {
            time: time.into(),
            scanned: token.get_timestamp("scan").ok().map(Position::from),
            resume: token.get_document("resume").ok().map(RawDocument::to_owned),
        }
    }

    /// Where a new scan must begin to miss nothing that was not passed.
    ///
    /// Positions are drawn when an entry is inserted, so a transaction that commits after `time` may hold
    /// one before it, but not by more than a transaction can live; `margin` is twice that, in seconds.
    pub(super) fn scan_start(&self, margin: u32) -> Position {
        let before = Position::new(self.time.seconds().saturating_sub(margin), 0);
        self.scanned.map_or(before, |scanned| scanned.min(before))
    }
}

/// The cluster time in a change stream's resume token: a key string in hexadecimal that begins with the
/// type byte of a timestamp (0x82) and its eight bytes, biggest first (server source,
/// `resume_token.cpp`). `None` for any other form; then positions only move with events.
pub(super) fn time_of(token: &RawDocument) -> Option<Position> {
    let data = match token.get("_data") {
        Ok(Some(RawBsonRef::String(data))) => data,
        _ => return None,
    };
    let time = data.strip_prefix("82")?.get(..16)?;
    u64::from_str_radix(time, 16).ok().map(Position::from_u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::rawdoc;

    #[test]
    fn places_survive_in_cursors() {
        for place in [
            Place::BEGINNING,
            Place::after(Position::new(7, 1)),
            Place {
                time: Position::new(9, 1),
                scanned: None,
                resume: Some(rawdoc! { "_data": "82" }),
            },
        ] {
            assert_eq!(Place::from_cursor(&place.to_cursor(Position::START)), place);
        }
    }

    #[test]
    fn a_new_scan_begins_before_the_oldest_open_transaction() {
        let place = Place {
            time: Position::new(1_000, 5),
            scanned: Some(Position::new(990, 1)),
            resume: None,
        };
        assert_eq!(place.scan_start(120), Position::new(880, 0));
        let early = Place {
            scanned: Some(Position::new(500, 1)),
            ..place
        };
        assert_eq!(early.scan_start(120), Position::new(500, 1));
        assert_eq!(Place::BEGINNING.scan_start(120), Position::START);
    }

    #[test]
    fn a_foreign_token_falls_back_to_the_position() {
        let cursor = Cursor {
            position: Position::new(1_000, 0),
            token: rawdoc! { "odd": true },
        };
        let place = Place::from_cursor(&cursor);
        assert_eq!(place.scan_start(120), Position::new(880, 0));
    }

    #[test]
    fn the_time_is_in_the_token() {
        let token = rawdoc! { "_data": "826B010864000000082B0229296E04" };
        assert_eq!(time_of(&token), Some(Position::new(0x6B01_0864, 8)));
        assert_eq!(time_of(&rawdoc! { "_data": "82" }), None);
        assert_eq!(time_of(&rawdoc! {}), None);
    }
}
