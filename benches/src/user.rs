//! The document of all scenarios but one: about 500 bytes.

use std::collections::BTreeSet;
use std::ops::Range;

use anyhow::{Context as _, Result};
use bson::{RawDocumentBuf, rawdoc};
use fastrand::Rng;
use serde::{Deserialize, Serialize};

pub(crate) const COLLECTION: &str = "users";

/// The document as a user of the library declares it: `_id` and the version are the storage's.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) email: String,
    pub(crate) status: String,
    pub(crate) counter: i64,
    pub(crate) active: bool,
    pub(crate) rating: f64,
    pub(crate) address: Address,
    pub(crate) tags: Vec<String>,
    pub(crate) about: String,
}

/// The same with what a hand-written compare and swap needs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct StoredUser {
    #[serde(rename = "_id")]
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) email: String,
    pub(crate) status: String,
    pub(crate) counter: i64,
    pub(crate) active: bool,
    pub(crate) rating: f64,
    pub(crate) address: Address,
    pub(crate) tags: Vec<String>,
    pub(crate) about: String,
    pub(crate) version: i64,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Address {
    pub(crate) street: String,
    pub(crate) city: String,
    pub(crate) zip: String,
    pub(crate) country: String,
}

/// The change of every update: the counter, and one of many short strings.
pub(crate) fn new_status(rng: &mut Rng) -> String {
    format!("status {:06}", rng.u32(0..1_000_000))
}

pub(crate) fn id(index: usize) -> String {
    format!("user-{index:06}")
}

/// So many different ids of a range, in order.
pub(crate) fn distinct_ids(rng: &mut Rng, range: Range<usize>, count: usize) -> Vec<String> {
    let mut chosen = BTreeSet::new();
    while chosen.len() < count {
        chosen.insert(rng.usize(range.clone()));
    }
    chosen.into_iter().map(id).collect()
}

impl StoredUser {
    /// Document number `index` at version 1.
    pub(crate) fn new(index: usize) -> Self {
        Self {
            id: id(index),
            name: format!("John Doe the {index}th"),
            email: format!("john.doe.{index:06}@example.com"),
            status: "status 000000".into(),
            counter: 0,
            active: true,
            rating: 4.5,
            address: Address {
                street: format!("{index} Long Winding Road"),
                city: "Springfield".into(),
                zip: format!("{index:05}"),
                country: "Republic of Somewhere".into(),
            },
            tags: ["early adopter", "newsletter", "premium"]
                .map(String::from)
                .into(),
            about: "Writes programs that keep documents and wants to know what happened to them, \
                    in order and without a gap; has tried it by hand, twice."
                .into(),
            version: 1,
        }
    }

    pub(crate) fn to_raw(&self) -> Result<RawDocumentBuf> {
        bson::serialize_to_raw_document_buf(self).context("a user has a BSON form")
    }

    /// The two fields of an update and the version, for `$set`.
    pub(crate) fn change(&self, status: &str) -> RawDocumentBuf {
        rawdoc! {
            "counter": self.counter + 1,
            "status": status,
            "version": self.version + 1,
        }
    }
}
