use std::collections::HashMap;

use redis::{Value, cmd};
use uuid::Uuid;

use super::broker::{MOST_IDS, Streams};
use super::keys;
use crate::bus::broker::{Acknowledgement, Burial, Letter};
use crate::error::{Error, ErrorKind, Result};
use crate::event::EventId;

/// Dead letters: a stream per group, and a hash that finds them by their ids.
impl Streams {
    pub(super) async fn bury(
        &self,
        group: &str,
        done: Acknowledgement,
        letter: &Letter,
        at_most: usize,
    ) -> Result<Burial> {
        let mut script = self.scripts.bury.prepare_invoke();
        script
            .key(&self.base)
            .arg(group)
            .arg(done.claim.partition)
            .arg(done.claim.fence)
            .arg(done.position.source)
            .arg(keys::id(done.position))
            .arg(at_most)
            .arg(letter.id.to_string())
            .arg(&letter.error)
            .arg(letter.attempts)
            .arg(&*letter.payload.0);
        let answer: i64 = self
            .connection
            .script("store a dead letter", &script)
            .await?;
        Ok(match answer {
            0 => Burial::Stored,
            1 => Burial::Full,
            _ => Burial::NotOwner,
        })
    }

    pub(super) async fn letters(&self, group: &str, at_most: usize) -> Result<Vec<Letter>> {
        if at_most == 0 {
            return Ok(Vec::new());
        }
        let mut range = cmd("XRANGE");
        range
            .arg(keys::dead_letters(&self.base, group))
            .arg("-")
            .arg("+")
            .arg("COUNT")
            .arg(at_most);
        let entries: Vec<(String, Vec<(String, Value)>)> =
            self.connection.command("list dead letters", &range).await?;
        entries
            .into_iter()
            .map(|(_, fields)| {
                letter(fields).ok_or_else(|| {
                    Error::new(
                        ErrorKind::Corrupt,
                        format!("a dead letter of group {group} in redis has another form"),
                    )
                })
            })
            .collect()
    }

    pub(super) async fn take_letters(
        &self,
        group: &str,
        ids: &[EventId],
        redrive: bool,
    ) -> Result<usize> {
        let mut found = 0;
        for ids in ids.chunks(MOST_IDS) {
            let mut script = self.scripts.take_letters.prepare_invoke();
            script.key(&self.base).arg(group).arg(u8::from(redrive));
            for id in ids {
                script.arg(id.to_string());
            }
            found += self
                .connection
                .script::<usize>("take dead letters out", &script)
                .await?;
        }
        Ok(found)
    }
}

fn letter(fields: Vec<(String, Value)>) -> Option<Letter> {
    let mut fields: HashMap<String, Value> = fields.into_iter().collect();
    let mut text =
        |name: &str| -> Option<String> { redis::from_redis_value(fields.remove(name)?).ok() };
    let (id, partition) = (text("id")?, text("partition")?);
    let (error, attempts) = (text("error")?, text("attempts")?);
    let payload: Vec<u8> = redis::from_redis_value(fields.remove("event")?).ok()?;
    Some(Letter {
        id: Uuid::parse_str(&id).ok()?.into(),
        partition: partition.parse().ok()?,
        payload: payload.into(),
        error,
        attempts: attempts.parse().ok()?,
    })
}
