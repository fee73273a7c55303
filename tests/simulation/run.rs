//! One simulation from beginning to end.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bson::{RawDocumentBuf, rawdoc};
use futures_util::{FutureExt, future::join_all};
use nodestorage::{DocumentKey, Storage};

use crate::calls::{Called, Caller, Deed, guess};
use crate::chance::{Chance, pass};
use crate::coverage::count;
use crate::ledger::{Ledger, Verdict};
use crate::model::Model;
use crate::setting::{Setting, TOTAL, accounts, counter, counters, streams};
use crate::verify::verify;
use crate::world::Moment;

/// More simulated time than anything takes that goes on at all, less than any deadline.
const LIMIT: Duration = Duration::from_secs(600);

pub(crate) async fn run(seed: u64) {
    // Deadlines are compared with the real clock too. Where the simulated one is far ahead of it, what
    // has no patience loses it at once, however fast this machine is.
    tokio::time::advance(LIMIT).await;
    let mut chance = Chance::new(seed);
    let setting = Setting::new(&mut chance);
    if crate::number("NODESTORAGE_SEED").is_some() {
        println!("{setting:#?}");
    }
    // One more than usual, where there is a whole batch for it.
    let in_flight = setting.options.commits_in_flight + 1;
    let model = Model::new(chance.fork(), setting.rates, in_flight);
    for (key, n) in accounts().iter().zip(1..) {
        model.world().put(key, Some(document(key, 100, -n, 1)));
    }
    let storage = Storage::builder()
        .shared_backend(model.clone())
        .commits(setting.options.clone())
        .retry(setting.retry.clone())
        .open()
        .await
        .unwrap();
    let caller = Caller {
        storage,
        model,
        ledger: Arc::new(Ledger::default()),
        retry: setting.retry.clone(),
    };
    let held = Arc::new(Mutex::new(Vec::new()));
    let mut tasks: Vec<_> = (0..setting.tasks)
        .map(|_| {
            let work = work(
                caller.clone(),
                chance.fork(),
                setting.calls,
                held.clone(),
                setting.held,
            );
            tokio::spawn(work)
        })
        .collect();
    tasks.push(tokio::spawn(meddle(
        caller.model.clone(),
        chance.fork(),
        setting.foreign,
    )));
    let made = tokio::time::timeout(LIMIT, join_all(tasks)).await;
    let Ok(made) = made else {
        let calls = caller.ledger.calls();
        let open = calls.iter().filter(|(_, call)| call.to == Moment::MAX);
        panic!(
            "these calls hang, or were left: {:#?}",
            open.collect::<Vec<_>>()
        );
    };
    for result in made {
        result.unwrap();
    }
    end(&caller).await;
    drop(held);
    assert_eq!(TOTAL, sum(&caller.model), "the accounts' sum");
    verify(&caller.model, &caller.ledger).await;
}

/// Everything still works, and comes to rest.
async fn end(caller: &Caller) {
    caller.model.calm();
    let keys = accounts().into_iter().chain(counters());
    let touched = keys.map(|key| caller.update(Deed::Touch, key, None, true));
    let appended = streams()
        .into_iter()
        .map(|key| caller.append(key, None, true));
    let first = caller.ledger.calls().len() as i64;
    let last: Vec<_> = touched.chain(appended).collect();
    within("the last updates", join_all(last)).await;
    for (tag, call) in caller.ledger.calls().range(first + 1..) {
        let done = matches!(call.verdict, Verdict::Committed(_));
        assert!(done, "{tag} at the end: {call:?}");
    }
    within("closing", caller.storage.close()).await;
}

async fn within<F: Future>(what: &str, future: F) -> F::Output {
    let done = tokio::time::timeout(LIMIT, future).await;
    done.unwrap_or_else(|_| panic!("{what} hang"))
}

fn sum(model: &Model) -> i64 {
    let world = model.world();
    let accounts = accounts();
    let values = accounts
        .iter()
        .map(|key| world.document(key).unwrap().get_i64("value").unwrap());
    values.sum()
}

type Held = Arc<Mutex<Vec<Called>>>;

async fn work(caller: Caller, mut chance: Chance, calls: u64, held: Held, most: usize) {
    for _ in 0..calls {
        pass(chance.pause(3)).await;
        let call = any_call(&caller, &mut chance);
        make(call, &mut chance, &held, most).await;
    }
}

fn any_call(caller: &Caller, chance: &mut Chance) -> Called {
    let deed = chance.one_of(&[
        Deed::Increment,
        Deed::Increment,
        Deed::Increment,
        Deed::Increment,
        Deed::Increment,
        Deed::Reject,
        Deed::Unchanged,
        Deed::Delete,
        Deed::Poison,
        Deed::Emit,
        Deed::Panic,
    ]);
    let mut accounts = accounts();
    match chance.below(20) {
        0..10 => {
            let patience = !chance.permille(50);
            caller.update(deed, counter(chance), None, patience)
        }
        10 | 11 => {
            let key = counter(chance);
            let expected = guess(chance, &caller.model, &key);
            caller.update(deed, key, Some(expected), true)
        }
        12 | 13 => caller.update_async(deed, counter(chance), chance.pause(5)),
        14 => {
            let key = chance.one_of(&accounts);
            caller.update(Deed::Touch, key, None, true)
        }
        15 | 16 => {
            shuffle(&mut accounts, chance);
            accounts.truncate(2 + chance.below(2) as usize);
            let rejects = chance.below(5) == 0;
            let patience = !chance.permille(100);
            caller.transfer(&accounts, rejects, chance.pause(3), patience)
        }
        17 if chance.below(2) == 0 => caller.sum(&accounts, Some(TOTAL)),
        17 => {
            shuffle(&mut accounts, chance);
            accounts.truncate(1 + chance.below(3) as usize);
            caller.sum(&accounts, None)
        }
        _ => {
            let key = chance.one_of(&streams());
            let expected = match chance.below(3) {
                0 => Some(guess(chance, &caller.model, &key)),
                _ => None,
            };
            let patience = !chance.permille(50);
            caller.append(key, expected, patience)
        }
    }
}

fn shuffle(keys: &mut [DocumentKey], chance: &mut Chance) {
    for last in (1..keys.len()).rev() {
        keys.swap(last, chance.below(last as u64 + 1) as usize);
    }
}

/// Makes a call as callers do: most wait for it, some lose interest.
async fn make(mut call: Called, chance: &mut Chance, held: &Held, most: usize) {
    match chance.below(20) {
        0 => {
            count("dropped at a poll");
            polled(&mut call, chance.below(12)).await;
        }
        1 => {
            count("dropped after a time");
            let _ = tokio::time::timeout(chance.pause(20), quiet(call)).await;
        }
        2 if held.lock().unwrap().len() < most => {
            count("held unpolled");
            // A place is taken before the call is polled, so that there are never more of them.
            held.lock().unwrap().push(Box::pin(async {}));
            let index = held.lock().unwrap().len() - 1;
            polled(&mut call, 1 + chance.below(4)).await;
            held.lock().unwrap()[index] = call;
        }
        _ => quiet(call).await,
    }
}

/// Polls a call so many times, each time when it wants to be.
async fn polled(call: &mut Called, times: u64) {
    let mut left = times;
    let polling = std::future::poll_fn(|context| {
        if left == 0 {
            return std::task::Poll::Ready(());
        }
        left -= 1;
        let polled = Pin::new(&mut *call).poll(context);
        if left == 0 {
            std::task::Poll::Ready(())
        } else {
            polled
        }
    });
    let _ = unwound(polling).await;
}

/// A call whose closure may panic as it was told to.
async fn quiet(call: Called) {
    unwound(call).await;
}

async fn unwound(future: impl Future<Output = ()>) {
    let result = std::panic::AssertUnwindSafe(future).catch_unwind().await;
    if let Err(panic) = result
        && !crate::is_injected(panic.as_ref())
    {
        std::panic::resume_unwind(panic);
    }
}

/// Another program that changes documents as it likes, raising their versions.
async fn meddle(model: Arc<Model>, mut chance: Chance, times: u64) {
    for n in 0..times as i64 {
        pass(chance.pause(15)).await;
        count("foreign write");
        let tag = -1_000 - n;
        let is_account = chance.below(3) == 0;
        let key = match is_account {
            true => chance.one_of(&accounts()),
            false => counter(&mut chance),
        };
        let mut world = model.world();
        let version = world.highest(&key) + 1 + chance.below(2);
        let found = world
            .document(&key)
            .map(|found| found.get_i64("value").unwrap());
        let changed = match found {
            Some(value) if is_account => Some(document(&key, value, tag, version)),
            Some(_) if chance.below(4) == 0 => None,
            _ => Some(document(&key, 1_000 * n, tag, version)),
        };
        world.put(&key, changed);
    }
}

fn document(key: &DocumentKey, value: i64, tag: i64, version: u64) -> RawDocumentBuf {
    let id = key.id().to_string();
    let version = version as i64;
    rawdoc! { "_id": id, "value": value, "tag": tag, "poison": false, "version": version }
}
