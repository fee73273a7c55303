//! Connections with TLS.

use nodestorage::bus::redis::{RedisBus, RedisBusOptions, RedisMode};
use nodestorage::bus::{EventBus, RootCertificates, Subscription};
use nodestorage::testing::bus::Recorder;
use nodestorage::{Error, ErrorKind};

use crate::certificates::{Authority, Identity};
use crate::redis::{Redis, fresh_prefix};
use crate::world::{all_arrive_in_order, events, options, publish, record};

fn start(identity: &Identity, more: &[&str]) -> Redis {
    let certificate = identity.certificate.display().to_string();
    let key = identity.key.display().to_string();
    let mut arguments = vec!["--tls-cert-file", &certificate, "--tls-key-file", &key];
    // It wants one of the client otherwise, and an authority to check it by.
    arguments.extend([
        "--tls-auth-clients",
        "no",
        "--tls-ca-cert-file",
        &certificate,
    ]);
    arguments.extend(more);
    Redis::private_with_tls(&arguments)
}

fn trusting(authority: &Authority) -> RedisBusOptions {
    options(&fresh_prefix()).with_root_certificates(RootCertificates::from_pem(authority.pem()))
}

/// With an authority of one's own, and again after the server was killed, in both modes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bus_over_tls_survives_a_killed_server() {
    let authority = Authority::new();
    let identity = authority.identity();
    let server = start(&identity, &[]);
    let url = format!("rediss://127.0.0.1:{}/", server.tls_port());
    let durable = trusting(&authority);
    let live = trusting(&authority).with_mode(RedisMode::PubSub);
    for options in [durable, live] {
        let bus = RedisBus::connect(&url, options.clone()).await.unwrap();
        let seen = Recorder::new();
        record(&bus, Subscription::to_all(), &seen).await;
        let all = events(5, 1..=40);
        let (before, after) = all.split_at(100);
        publish(&bus, before).await;
        seen.wait_for(before.len()).await;
        server.kill();
        tokio::task::block_in_place(|| server.restart());
        if options.mode == RedisMode::PubSub {
            // What is published before it listens again does not reach it.
            let probe = Recorder::new();
            let other = RedisBus::connect(&url, options).await.unwrap();
            record(&other, Subscription::to_all(), &probe).await;
            listens_again(&other, &seen).await;
            continue;
        }
        publish(&bus, after).await;
        all_arrive_in_order(&seen, &all).await;
        bus.close().await.unwrap();
    }
}

/// Publishes events of their own until a subscription gets one.
async fn listens_again(publisher: &RedisBus, seen: &Recorder) {
    let before = seen.events().len();
    for version in 1_000.. {
        publish(publisher, &events(1, version..=version)).await;
        if seen.events().len() > before {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        assert!(version < 2_000, "it does not listen again");
    }
}

/// The error says what is wrong and with whom, and shows no password.
fn refused(error: &Error, port: u16, reason: &str) {
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error:?}");
    let text = error.to_string();
    assert!(text.contains(&format!("127.0.0.1:{port}")), "{text}");
    assert!(text.contains(reason), "{text}");
    assert!(
        !format!("{error:?} {error}").contains("t0psecret"),
        "{error:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_not_trusted_is_refused() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let identity = authority.identity();
    let server = start(&identity, &["--requirepass", "t0psecret"]);
    let url = |port: u16| format!("rediss://:t0psecret@127.0.0.1:{port}/");
    let port = server.tls_port();
    RedisBus::connect(&url(port), trusting(&authority))
        .await
        .unwrap();
    let untrusted = trusting(&stranger);
    for options in [
        untrusted.clone(),
        untrusted.with_mode(RedisMode::PubSub),
        options(&fresh_prefix()),
    ] {
        let error = RedisBus::connect(&url(port), options).await.unwrap_err();
        refused(&error, port, "UnknownIssuer");
    }
}

#[tokio::test]
async fn root_certificates_that_nothing_uses_are_refused() {
    let options = trusting(&Authority::new());
    let url = Redis::shared().url();
    let client = ::redis::Client::open(url).unwrap();
    let none = options
        .clone()
        .with_root_certificates(RootCertificates::from_pem("none"));
    let broken = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
    let broken = options
        .clone()
        .with_root_certificates(RootCertificates::from_pem(broken));
    for error in [
        RedisBus::connect(url, options.clone()).await,
        RedisBus::from_client(client, options).await,
        RedisBus::connect("rediss://127.0.0.1:1/", none).await,
        RedisBus::connect("rediss://127.0.0.1:1/", broken).await,
    ] {
        let error = error.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error:?}");
        assert!(error.to_string().contains("root certificates"), "{error}");
    }
}
