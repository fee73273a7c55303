use bson::{DateTime, Timestamp};

/// A place in the log's order, given by the store: seconds since the Unix epoch on the database's clock
/// in the upper 32 bits, an ordinal in the lower, as in a BSON timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position(u64);

impl Position {
    /// Before every entry.
    pub const START: Self = Self(0);

    /// A position from seconds and ordinal.
    #[must_use]
    pub const fn new(seconds: u32, ordinal: u32) -> Self {
        Self(((seconds as u64) << 32) | ordinal as u64)
    }

    /// A position from its number.
    #[must_use]
    pub const fn from_u64(number: u64) -> Self {
        Self(number)
    }

    /// The position as one number.
    #[must_use]
    pub const fn to_u64(self) -> u64 {
        self.0
    }

    /// The database's time, in seconds since the Unix epoch.
    #[must_use]
    pub const fn seconds(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The last position of the second that `time` lies in: what was logged up to that time.
    #[must_use]
    pub fn end_of(time: DateTime) -> Self {
        let seconds = time.timestamp_millis().div_euclid(1_000);
        match u32::try_from(seconds) {
            Ok(seconds) => Self::new(seconds, u32::MAX),
            Err(_) if seconds < 0 => Self::START,
            Err(_) => Self(u64::MAX),
        }
    }
}

impl From<Timestamp> for Position {
    fn from(timestamp: Timestamp) -> Self {
        Self::new(timestamp.time, timestamp.increment)
    }
}

impl From<Position> for Timestamp {
    fn from(position: Position) -> Self {
        Self {
            time: position.seconds(),
            increment: position.0 as u32,
        }
    }
}
