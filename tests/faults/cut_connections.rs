//! Connections that break.

use std::process::Command;
use std::time::Duration;

use crate::chance::{eventually_async, moment, rounds, server, with_database};
use crate::check::{Acks, check_thoroughly};
use crate::load::{Load, open};
use crate::proxy::Proxy;

fn through(proxy: &Proxy) -> String {
    // Else the driver would go to the address that the server names.
    format!(
        "mongodb://127.0.0.1:{}/cut?directConnection=true&heartbeatFrequencyMS=500",
        proxy.port()
    )
}

/// The commit was carried out and the answer is gone; or it never arrived; or nobody knows.
#[tokio::test(flavor = "multi_thread")]
async fn commits_that_lose_their_answers_count_once() {
    let mongod = server();
    let proxy = Proxy::start(mongod.port()).await;
    let load = Load::start(open(&through(&proxy)).await, 16, 32);
    load.goes_on(50).await;
    proxy.cut_commits(rounds(60));
    eventually_async(
        "all were cut",
        Duration::from_secs(60 + rounds(120)),
        async || proxy.left() == 0,
    )
    .await;
    load.goes_on(100).await;
    let mut acks = Acks::new();
    let failures = load.stop(&acks.next_file()).await;
    let [before, under, after] = proxy.cut();
    eprintln!(
        "faults: commits cut before sending {before}, under way {under}, after the commit {after}; {failures}"
    );
    assert!(after > 0);
    let url = with_database(mongod.url(), "cut", "");
    check_thoroughly(
        "commits_that_lose_their_answers_count_once",
        &url,
        acks.files(),
    );
}

/// Every connection at once, again and again: those of the proxy, and with `ss -K`, where this process
/// may do that, the server's own.
#[tokio::test(flavor = "multi_thread")]
async fn cut_connections_lose_nothing_that_was_acknowledged() {
    let mongod = server();
    let proxy = Proxy::start(mongod.port()).await;
    let load = Load::start(open(&through(&proxy)).await, 16, 32);
    let mut by_kernel = 0;
    for round in 0..rounds(30) {
        load.goes_on(20).await;
        tokio::time::sleep(moment(100)).await;
        if round % 2 == 0 && kernel_cuts(mongod.port()) {
            by_kernel += 1;
        } else {
            proxy.cut_all();
        }
    }
    load.goes_on(100).await;
    let mut acks = Acks::new();
    let failures = load.stop(&acks.next_file()).await;
    eprintln!(
        "faults: connections cut by ss {by_kernel} of {} times; {failures}",
        rounds(30)
    );
    let url = with_database(mongod.url(), "cut", "");
    let what = "cut_connections_lose_nothing_that_was_acknowledged";
    check_thoroughly(what, &url, acks.files());
}

/// Whether the kernel has ended the connections to a port. It needs `CAP_NET_ADMIN`.
fn kernel_cuts(port: u16) -> bool {
    let cut = Command::new("ss")
        .args(["-K", "dst", "127.0.0.1", "dport", "=", &port.to_string()])
        .output();
    // It succeeds also where it may not do it; then it lists nothing below the headings.
    cut.is_ok_and(|cut| String::from_utf8_lossy(&cut.stdout).lines().count() > 1)
}
