//! The file in which consumers write down what they handled, in the order in which they did.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;

use nodestorage::Event;

use crate::ledger::Sighting;

/// Appends to the file that all consumers share. Each line is one write at its end, so the lines of two
/// processes never mix.
pub(crate) struct Pen(File);

impl Pen {
    pub(crate) fn open(path: &Path) -> Self {
        let file = OpenOptions::new().append(true).create(true).open(path);
        Self(file.unwrap())
    }

    pub(crate) fn write(&self, event: &Event) {
        let document = event.document();
        let (version, index, id) = (event.version().get(), event.index(), event.id());
        let line = format!("{id} {version} {index} {document}\n");
        (&self.0).write_all(line.as_bytes()).unwrap();
    }
}

/// Reads the file as it grows.
pub(crate) struct Follower {
    file: File,
    /// A line that has not been read to its end.
    rest: String,
    seen: Vec<Sighting>,
    distinct: HashSet<String>,
}

impl Follower {
    pub(crate) fn open(path: &Path) -> Self {
        Self {
            file: OpenOptions::new()
                .append(true)
                .create(true)
                .read(true)
                .open(path)
                .unwrap(),
            rest: String::new(),
            seen: Vec::new(),
            distinct: HashSet::new(),
        }
    }

    /// How many different events were handled so far.
    pub(crate) fn distinct(&mut self) -> usize {
        self.file.read_to_string(&mut self.rest).unwrap();
        let end = self.rest.rfind('\n').map_or(0, |at| at + 1);
        let rest = self.rest.split_off(end);
        for line in self.rest.lines() {
            let sighting = Sighting::from_line(line);
            self.distinct.insert(sighting.id.clone());
            self.seen.push(sighting);
        }
        self.rest = rest;
        self.distinct.len()
    }

    pub(crate) fn into_seen(mut self) -> Vec<Sighting> {
        self.distinct();
        assert_eq!(self.rest, "", "the file ends with a whole line");
        self.seen
    }
}
