use crate::bus::broker::Position;

/// What the events of a partition come from.
pub(super) const EVENTS: u8 = 0;
/// Where a group's redriven dead letters of a partition come from.
pub(super) const REDRIVEN: u8 = 1;

/// The key that the name of every other one begins with. The braces are a hash tag: on a cluster all
/// keys of a bus lie in one slot, as transactions and scripts over several of them need it.
pub(super) fn base(prefix: &str) -> String {
    format!("{{{prefix}}}")
}

pub(super) fn events(base: &str, partition: u32) -> String {
    format!("{base}:events:{partition}")
}

pub(super) fn dead_letters(base: &str, group: &str) -> String {
    format!("{base}:group:{group}:dead")
}

pub(super) fn channel(base: &str) -> String {
    format!("{base}:channel")
}

/// The id of a stream entry.
pub(super) fn id(position: Position) -> String {
    format!("{}-{}", position.major, position.minor)
}

pub(super) fn position(source: u8, id: &str) -> Option<Position> {
    let (major, minor) = id.split_once('-')?;
    Some(Position {
        source,
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
    })
}
