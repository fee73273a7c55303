//! Log entries as events.

use std::sync::Arc;

use serde_json::{Value, json};

use super::entry::{LogEntry, LoggedData, LoggedEvent};
use crate::document::{Diff, MergePatch};
use crate::error::Result;
use crate::event::{Event, EventParts};

impl LogEntry {
    /// The entry's events with their envelopes, in order.
    ///
    /// The data of an event that stands for the change itself is rendered as
    /// `{ "diff": …, "merge_patch": … }`: an RFC 6902 JSON patch (of the whole document, path `""`, for
    /// creations and deletions) and an RFC 7396 merge patch.
    ///
    /// # Errors
    /// `Corrupt` or `TooLarge` if the stored patch has no JSON form.
    pub fn to_events(&self) -> Result<Vec<Event>> {
        let mut change = None;
        let mut events = Vec::with_capacity(self.events.len());
        for (logged, index) in self.events.iter().zip(0_u32..) {
            let data = match &logged.data {
                LoggedData::Json(value) => value.clone(),
                LoggedData::Change { merge_patch } => {
                    let rendered = match &change {
                        Some(rendered) => rendered,
                        None => change.insert(self.render_change(merge_patch.as_ref())?),
                    };
                    rendered.clone()
                }
            };
            events.push(self.envelope(logged, index, data));
        }
        Ok(events)
    }

    /// As [`to_events`](Self::to_events), with the diff that the entry was made from at hand. A view
    /// that has no JSON form is null.
    pub(crate) fn events_with(&self, diff: &Diff) -> Vec<Event> {
        let mut change = None;
        let events = self.events.iter().zip(0_u32..);
        events
            .map(|(logged, index)| {
                let data = match &logged.data {
                    LoggedData::Json(value) => value.clone(),
                    LoggedData::Change { .. } => change
                        .get_or_insert_with(|| {
                            let patch = diff.json_patch().ok();
                            let merge = diff.merge_patch().ok().map(|merge| merge.into_value());
                            json!({ "diff": patch, "merge_patch": merge })
                        })
                        .clone(),
                };
                self.envelope(logged, index, data)
            })
            .collect()
    }

    fn render_change(&self, kept: Option<&Value>) -> Result<Value> {
        if let Some(patch) = &self.patch {
            let merge_patch = match kept {
                Some(kept) => Some(kept.clone()),
                None => MergePatch::from_patch(patch)?.map(MergePatch::into_value),
            };
            return Ok(json!({ "diff": patch.json_patch()?, "merge_patch": merge_patch }));
        }
        let Some(after) = &self.after else {
            let removal = json!([{ "op": "replace", "path": "", "value": null }]);
            return Ok(json!({ "diff": removal, "merge_patch": null }));
        };
        let own = ["_id", &*self.version_field];
        let diff = Diff::between(None, Some(Arc::new(after.clone())), &own)?;
        Ok(json!({
            "diff": diff.json_patch()?,
            "merge_patch": diff.merge_patch()?.into_value(),
        }))
    }

    fn envelope(&self, logged: &LoggedEvent, index: u32, data: Value) -> Event {
        Event::from_parts(EventParts {
            id: logged.id,
            event_type: logged.event_type.as_str().into(),
            aggregate_type: self.aggregate_type.as_str().into(),
            document: self.key.clone(),
            version: self.version,
            index,
            time: self.at,
            schema: logged.schema,
            data,
            metadata: self.metadata.clone(),
        })
    }
}
