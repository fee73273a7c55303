//! Diff and merge patch of a document of 2 KB, beside the diff of the same as JSON. No server.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bson::RawDocumentBuf;
use nodestorage::Diff;
use serde_json::{Value, json};

use crate::contender::Contender;
use crate::load::{Length, Sample, micros};

/// The clock is read once per so many operations, because reading it costs as much as a tenth of one.
const AT_ONCE: u64 = 64;

/// An order of about 2 KB.
fn before() -> Value {
    let lines: Vec<Value> = (0..10)
        .map(|line| {
            json!({
                "sku": format!("SKU-{line:05}"),
                "title": format!("A thing of the kind number {line}"),
                "quantity": line + 1,
                "price": 12.5 + f64::from(line),
                "tags": ["garden", "summer"],
            })
        })
        .collect();
    json!({
        "_id": "order-000017",
        "customer": { "name": "John Doe", "email": "john.doe@example.com", "tier": "gold" },
        "status": "placed",
        "total": 170.0,
        "currency": "EUR",
        "address": {
            "street": "17 Long Winding Road",
            "city": "Springfield",
            "zip": "00017",
            "country": "Republic of Somewhere",
        },
        "lines": lines,
        "note": "Leave it with the neighbours if nobody is at home, they know about it.",
        "version": 16,
    })
}

/// Three fields differ, one of them nested.
fn after() -> Value {
    let mut after = before();
    after["status"] = "shipped".into();
    after["total"] = 165.5.into();
    after["address"]["zip"] = "00018".into();
    after
}

fn raw(document: &Value) -> Result<Arc<RawDocumentBuf>> {
    let raw = bson::serialize_to_raw_document_buf(document).context("JSON has a BSON form")?;
    Ok(Arc::new(raw))
}

/// How many bytes the document has.
pub(crate) fn document_bytes() -> Result<usize> {
    Ok(raw(&before())?.as_bytes().len())
}

/// Runs one operation over and over on this thread.
fn spin(length: Length, operation: impl Fn() -> Result<()>) -> Result<Sample> {
    let run = |time: Duration| -> Result<Sample> {
        let begin = Instant::now();
        let mut sample = Sample::default();
        let mut last = begin;
        while last - begin < time {
            for _ in 0..AT_ONCE {
                operation()?;
            }
            let now = Instant::now();
            sample
                .latencies_us
                .push(micros(now - last) / AT_ONCE as f32);
            sample.measured += AT_ONCE;
            last = now;
        }
        sample.seconds = (last - begin).as_secs_f64();
        Ok(sample)
    };
    run(length.warm_up)?;
    let mut sample = run(length.measured)?;
    sample.latencies_us.sort_unstable_by(f32::total_cmp);
    Ok(sample)
}

pub(crate) struct Ours {
    before: Arc<RawDocumentBuf>,
    after: Arc<RawDocumentBuf>,
}

impl Ours {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            before: raw(&before())?,
            after: raw(&after())?,
        })
    }

    fn merge_patch(&self) -> Result<Value> {
        let states = (Arc::clone(&self.before), Arc::clone(&self.after));
        let diff = Diff::between(Some(states.0), Some(states.1), &["_id", "version"])?;
        Ok(diff.merge_patch()?.into_value())
    }
}

impl Contender for Ours {
    async fn run(&self, length: Length, _: usize) -> Result<Sample> {
        spin(length, || {
            black_box(self.merge_patch()?);
            Ok(())
        })
    }

    async fn check(&self, _: u64) -> Result<()> {
        let mut patched = before();
        json_patch::merge(&mut patched, &self.merge_patch()?);
        ensure!(
            patched == after(),
            "the merge patch does not lead to the new document"
        );
        Ok(())
    }
}

pub(crate) struct Theirs {
    before: Value,
    after: Value,
}

impl Theirs {
    pub(crate) fn new() -> Self {
        Self {
            before: before(),
            after: after(),
        }
    }
}

impl Contender for Theirs {
    async fn run(&self, length: Length, _: usize) -> Result<Sample> {
        spin(length, || {
            black_box(json_patch::diff(
                black_box(&self.before),
                black_box(&self.after),
            ));
            Ok(())
        })
    }

    async fn check(&self, _: u64) -> Result<()> {
        let mut patched = before();
        let patch = json_patch::diff(&self.before, &self.after);
        json_patch::patch(&mut patched, &patch)?;
        ensure!(
            patched == after(),
            "the JSON patch does not lead to the new document"
        );
        Ok(())
    }
}
