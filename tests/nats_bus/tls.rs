//! Connections with TLS.

use nodestorage::bus::nats::{NatsBusOptions, NatsMode};
use nodestorage::bus::{EventBus, NatsBus, RootCertificates, Subscription};
use nodestorage::error::ErrorKind;

use crate::certificates::{Authority, Identity};
use crate::nats::{Nats, fresh_prefix};
use crate::world::{Seen, events, eventually, options, publish};

fn start(identity: &Identity, more: &str) -> Nats {
    Nats::private(&format!(
        "tls {{ cert_file: {:?}, key_file: {:?} }}\n{more}",
        identity.certificate.display().to_string(),
        identity.key.display().to_string()
    ))
}

fn trusting(authority: &Authority) -> NatsBusOptions {
    options(&fresh_prefix()).with_root_certificates(RootCertificates::from_pem(authority.pem()))
}

/// With an authority of one's own, and again after the server was killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bus_over_tls_survives_a_killed_server() {
    let authority = Authority::new();
    let identity = authority.identity();
    let server = start(&identity, "");
    let url = format!("tls://127.0.0.1:{}", server.port());
    let bus = NatsBus::connect(&url, trusting(&authority)).await.unwrap();
    let seen = Seen::default();
    seen.subscribe(&bus, Subscription::to_all().with_group("g"))
        .await;
    let all = events(5, 1..=40);
    let (before, after) = all.split_at(100);
    publish(&bus, before).await;
    eventually("the first half arrives", || {
        seen.different() == before.len()
    })
    .await;
    server.kill();
    server.restart();
    publish(&bus, after).await;
    seen.check(&all).await;
    bus.close().await.unwrap();
}

/// Core NATS subscribes again by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_bus_over_tls_listens_again_after_a_restart() {
    let authority = Authority::new();
    let identity = authority.identity();
    let server = start(&identity, "");
    let url = format!("tls://127.0.0.1:{}", server.port());
    let live = trusting(&authority).with_mode(NatsMode::Core);
    let bus = NatsBus::connect(&url, live).await.unwrap();
    let seen = Seen::default();
    seen.subscribe(&bus, Subscription::to_all()).await;
    publish(&bus, &events(5, 1..=4)).await;
    eventually("the first ones arrive", || seen.different() == 20).await;
    server.kill();
    server.restart();
    publish(&bus, &events(5, 5..=8)).await;
    eventually("those after the restart arrive", || seen.different() == 40).await;
    bus.close().await.unwrap();
}

/// The error says what is wrong and with whom, and shows no password.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_not_trusted_is_refused() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let identity = authority.identity();
    let server = start(
        &identity,
        "authorization { user: alice, password: t0psecret }",
    );
    let address = format!("127.0.0.1:{}", server.port());
    let url = format!("tls://alice:t0psecret@{address}");
    let bus = NatsBus::connect(&url, trusting(&authority)).await.unwrap();
    bus.close().await.unwrap();
    for options in [trusting(&stranger), options(&fresh_prefix())] {
        let error = NatsBus::connect(&url, options).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error:?}");
        let text = error.to_string();
        assert!(text.contains(&address), "{text}");
        assert!(text.contains("UnknownIssuer"), "{text}");
        assert!(
            !format!("{error:?} {error}").contains("t0psecret"),
            "{error:?}"
        );
    }
}

/// Whoever names authorities wants TLS, also where the URL does not say so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_root_certificates_there_is_no_connection_without_tls() {
    let authority = Authority::new();
    let plain = Nats::shared();
    let error = NatsBus::connect(plain.url(), trusting(&authority)).await;
    let error = error.unwrap_err();
    assert!(
        error
            .to_string()
            .contains(plain.url().trim_start_matches("nats://")),
        "{error}"
    );
    let client = async_nats::connect(plain.url()).await.unwrap();
    let error = NatsBus::from_client(client, trusting(&authority)).await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::InvalidConfig);
    for pem in [
        "none",
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
    ] {
        let options = options(&fresh_prefix());
        let options = options.with_root_certificates(RootCertificates::from_pem(pem));
        let error = NatsBus::connect(plain.url(), options).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error:?}");
        assert!(error.to_string().contains("root certificates"), "{error}");
    }
}
