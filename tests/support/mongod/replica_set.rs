//! A replica set of three nodes, for what a single node cannot show: elections and rollbacks.

use std::time::Instant;

use ::mongodb::Client;
use bson::{Document, doc};

use super::ready::{direct_client, hello, initiate_as, run_on};
use super::runtime::on_fixture_runtime;
use super::{Mongod, MongodOptions, POLL_INTERVAL, START_DEADLINE};

/// Three servers of this machine. Elections take one or two seconds instead of ten.
#[derive(Debug)]
pub(crate) struct ReplicaSet {
    members: Vec<Mongod>,
}

/// The state numbers of members that serve.
const PRIMARY: i32 = 1;
const SECONDARY: i32 = 2;

impl ReplicaSet {
    /// Starts the three and waits until one is primary and the others follow it.
    pub(crate) fn start() -> Self {
        let options = MongodOptions {
            // The three share this machine with the tests.
            cache_gb: 0.25,
            ..MongodOptions::default()
        };
        let started: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..3)
                .map(|_| scope.spawn(|| Mongod::start_member(&options)))
                .collect();
            let joined = threads.into_iter().map(|it| it.join().expect("no panic"));
            joined.collect()
        });
        let members = started
            .into_iter()
            .map(|it| it.unwrap_or_else(|reason| panic!("{reason}")));
        let set = Self {
            members: members.collect(),
        };
        let hosts = set.members.iter().zip(0..).map(|(member, id)| {
            doc! { "_id": id, "host": format!("127.0.0.1:{}", member.port()) }
        });
        let config = doc! {
            "_id": "rs0",
            "members": hosts.collect::<Vec<_>>(),
            "settings": {
                "electionTimeoutMillis": 1_000,
                "heartbeatIntervalMillis": 300,
                // A new primary asks everybody what it has missed; one that is paused does not answer.
                "heartbeatTimeoutSecs": 1,
                "catchUpTimeoutMillis": 2_000,
            },
        };
        let port = set.members[0].port();
        on_fixture_runtime(initiate_as(port, config)).unwrap_or_else(|reason| panic!("{reason}"));
        set.await_healthy();
        set
    }

    /// The connection string, with a driver that looks at the servers as often as it may.
    pub(crate) fn url(&self) -> String {
        let hosts = self
            .members
            .iter()
            .map(|it| format!("127.0.0.1:{}", it.port()));
        let hosts = hosts.collect::<Vec<_>>().join(",");
        format!("mongodb://{hosts}/?replicaSet=rs0&heartbeatFrequencyMS=500")
    }

    pub(crate) fn members(&self) -> &[Mongod] {
        &self.members
    }

    /// Runs a command on one member, whatever state it is in.
    pub(crate) fn run(
        &self,
        member: usize,
        database: &str,
        command: Document,
    ) -> ::mongodb::error::Result<Document> {
        let (port, database) = (self.members[member].port(), database.to_owned());
        on_fixture_runtime(async move { run_on(port, &database, command).await })
    }

    /// The member that takes writes, leaving out one that may not know yet that it no longer does.
    pub(crate) fn await_primary(&self, but: Option<usize>) -> usize {
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            for member in (0..self.members.len()).filter(|member| Some(*member) != but) {
                let port = self.members[member].port();
                let is_primary = on_fixture_runtime(async move {
                    let hello = hello(&direct_client(port).await?).await?;
                    Ok::<_, ::mongodb::error::Error>(
                        hello.get_bool("isWritablePrimary").unwrap_or(false),
                    )
                });
                if is_primary.unwrap_or(false) {
                    return member;
                }
            }
            assert!(Instant::now() < deadline, "the replica set has no primary");
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    /// Waits until others follow the primary, whom they may not have found yet: they give up a member
    /// that stands still only after some seconds.
    pub(crate) fn await_majority(&self, primary: usize) {
        let write = doc! {
            "insert": "written",
            "documents": [{}],
            "writeConcern": { "w": "majority", "wtimeout": 60_000 },
        };
        let reply = self.run(primary, "fixture", write);
        let confirmed = matches!(&reply, Ok(reply) if !reply.contains_key("writeConcernError"));
        assert!(confirmed, "nobody follows the primary: {reply:?}");
    }

    /// Starts a member that was killed.
    pub(crate) fn restart(&self, member: usize) {
        self.members[member].start_again();
    }

    /// Waits until all agree on one primary and the others follow it. One that was paused may believe
    /// for a moment that it still is what it was.
    pub(crate) fn await_healthy(&self) {
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            let views: Vec<_> = (0..self.members.len()).map(|it| self.view(it)).collect();
            let (_, states) = &views[0];
            let count = |state| states.iter().filter(|it| **it == state).count();
            let agreed = views.iter().all(|view| *view == views[0]);
            if agreed && (count(PRIMARY), count(SECONDARY)) == (1, 2) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "the replica set does not recover: {views:?}"
            );
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    /// The term and the states of all members, as one of them sees it.
    fn view(&self, member: usize) -> (i64, Vec<i32>) {
        let status = self.run(member, "admin", doc! { "replSetGetStatus": 1 });
        let status = status.unwrap_or_default();
        let members = status.get_array("members").into_iter().flatten();
        let states = members.filter_map(|it| it.as_document()?.get_i32("state").ok());
        (status.get_i64("term").unwrap_or_default(), states.collect())
    }

    /// A client of the whole set.
    pub(crate) async fn client(&self) -> Client {
        Client::with_uri_str(self.url())
            .await
            .expect("the URL of the fixture is valid")
    }

    /// Steps a primary down, by force if its secondaries are too far behind.
    pub(crate) fn step_down(&self, primary: usize) {
        let down = |force: bool| {
            let command = doc! {
                "replSetStepDown": 5, "secondaryCatchUpPeriodSecs": 2, "force": force,
            };
            self.run(primary, "admin", command)
        };
        if down(false).is_err() {
            // It may have stepped down all the same.
            let _ = down(true);
        }
    }

    /// Lets the members other than the primary take nothing over from it, or again.
    pub(crate) fn hold_replication(&self, primary: usize, hold: bool) {
        let mode = if hold { "alwaysOn" } else { "off" };
        for member in (0..self.members.len()).filter(|member| *member != primary) {
            let command = doc! { "configureFailPoint": "stopReplProducer", "mode": mode };
            self.run(member, "admin", command)
                .expect("test commands are on");
        }
    }
}
