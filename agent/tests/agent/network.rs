//! What a guest reaches and what not, tried from inside: each refusal is of something that is there, and that the host
//! itself reaches.

use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket},
    path::PathBuf,
    time::{Duration, Instant},
};

use ovenbird_host::net::Namespace;
use ovenbird_hostagent::v1 as host;
use ovenbird_testkit::wait_for;
use tonic::Code;

use crate::{
    probe::*,
    support::*,
    world::{METADATA, PRIVATE, PUBLIC, RESOLVER, SHORT, World, ask, has_ip6},
};

/// The host's own end of a sandbox's pair of addresses.
fn host_end(host_ip: &str) -> Ipv4Addr {
    Ipv4Addr::from_bits(host_ip.parse::<Ipv4Addr>().unwrap().to_bits() - 1)
}

fn namespace_of(host: &Host, host_ip: &str) -> Namespace {
    let subnet = host.subnet();
    let first: Ipv4Addr = subnet.split('/').next().unwrap().parse().unwrap();
    // Two addresses for each, behind the first two of the subnet.
    let slot = (host_end(host_ip).to_bits() - first.to_bits()) / 2 - 1;
    Namespace::at(PathBuf::from(format!("/run/netns/ovb-{}-{slot}", host.instance)))
}

/// What a process in a namespace comes to at an address.
fn connect_in(namespace: &Namespace, to: SocketAddr) -> std::io::Result<()> {
    namespace.enter(|| TcpStream::connect_timeout(&to, SHORT).map(drop))
}

#[tokio::test]
async fn guest_reaches_names_and_the_web_of_public_addresses_and_nothing_else() {
    let settings = format!("egress_dns = ['{RESOLVER}']");
    let options = Options { settings, listen: Some("0.0.0.0"), ..Options::default() };
    let host = Host::start_with(options).await;
    let world = World::around(&host);
    let (a, b) = tokio::join!(host.create("minimal", "a"), host.create("minimal", "b"));
    let of_host = TcpListener::bind((world.host_address(), 443)).unwrap();
    let everywhere = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = everywhere.local_addr().unwrap().port();
    serve(&host, "b").await;
    assert_serves(&b.host_ip).await;

    let reached =
        places([(PUBLIC, 53), (PUBLIC, 80), (PUBLIC, 443), ("198.51.100.9", 80), (RESOLVER, 53)]);
    let of_world = places(
        [(PUBLIC, 22), (PUBLIC, 5432), (PUBLIC, 8080), (RESOLVER, 80), (METADATA, 80)]
            .into_iter()
            .chain([(METADATA, 53), (METADATA, 443)])
            .chain(PRIVATE.map(|address| (address, 80)))
            .chain(PRIVATE.map(|address| (address, 53))),
    );
    // All of it is there.
    for place in reached.iter().chain(&of_world) {
        let address: SocketAddrV4 = place.parse().unwrap();
        assert_eq!(world.says(address).await, *place);
    }
    let (first, second) = (host_end(&a.host_ip), host_end(&b.host_ip));
    let of_host_and_neighbours = places([
        (world.host_address(), 443),
        (world.host_address(), host.port()),
        (world.host_address(), port),
        (first, host.port()),
        (first, port),
        (second, port),
        (b.host_ip.parse().unwrap(), 8080),
        (b.host_ip.parse().unwrap(), 80),
    ]);
    let of_namespace = places([("172.16.0.1", host.port()), (&a.host_ip, port)]);
    for port in [port, host.port()] {
        TcpStream::connect_timeout(&(world.host_address(), port).into(), LONG).unwrap();
    }
    let udp = places([(PUBLIC, 53), (RESOLVER, 53)]);
    let no_udp = places([(PUBLIC, 123), (PUBLIC, 443), (METADATA, 53)]);
    let forbidden = [of_world, of_host_and_neighbours].concat();
    assert_told(&host, "a", BY_TCP, &reached, &forbidden).await;
    host.pause("a").await.unwrap();
    host.resume("a", 0).await.unwrap();
    assert_told(&host, "a", BY_TCP, &reached, &forbidden).await;
    assert_told(&host, "a", BY_UDP, &udp, &no_udp).await;
    let of_namespace = tried(&host, "a", BY_TCP, SHORT, &of_namespace).await;
    assert!(of_namespace.values().all(|said| said == SILENT), "{of_namespace:?}");
    for listener in [&of_host, &everywhere] {
        listener.set_nonblocking(true).unwrap();
    }
    assert!(of_host.accept().is_err(), "somebody came through all the same");

    assert_no_spoofing(&host, &world, &b.host_ip).await;
    assert_no_ip6(&host, &world, &a.host_ip).await;
    // Nobody from elsewhere begins anything with a guest.
    let guest = SocketAddr::new(b.host_ip.parse().unwrap(), 8080);
    connect_in(&world.namespace(), guest).unwrap_err();
    assert_serves(&b.host_ip).await;
    assert_own_rules_of_the_host(&host, &world, &b.host_ip, &a.host_ip).await;
    for id in ["a", "b"] {
        host.destroy(id).await;
    }
    assert_eq!(host.left(), Vec::<String>::new());
    drop(world);
    host.stop().await;
}

/// Senders that are not the guest's own address do not come out.
async fn assert_no_spoofing(host: &Host, world: &World, neighbour: &str) {
    let to = format!("{PUBLIC}:53");
    let send = |from: &str, word: &str| {
        let args = [from, &to, word].map(str::to_owned);
        async move { run_perl(host, "a", SEND_FROM, &args).await }
    };
    for other in ["203.0.113.99", "172.16.0.1", neighbour] {
        host.shell("a", &format!("busybox ip addr add {other}/32 dev lo")).await;
        send(other, "spoofed").await;
    }
    // By the same way, so it would be the last to arrive.
    send("172.16.0.2", "genuine").await;
    let heard = wait_for("the datagram", PATIENCE, || async {
        Some(world.heard()).filter(|heard| heard.iter().any(|word| word == "genuine"))
    });
    let heard = heard.await.unwrap();
    assert!(!heard.iter().any(|word| word == "spoofed"), "{heard:?}");
    for other in ["203.0.113.99", "172.16.0.1", neighbour] {
        host.shell("a", &format!("busybox ip addr del {other}/32 dev lo")).await;
    }
}

/// A guest that gives itself IPv6 addresses and routes speaks to nobody.
async fn assert_no_ip6(host: &Host, world: &World, host_ip: &str) {
    let in_namespace = || std::fs::read_to_string("/proc/thread-self/net/if_inet6");
    let addresses = namespace_of(host, host_ip).enter(in_namespace).unwrap_or_default();
    assert!(!addresses.contains("up0") && !addresses.contains("tap0"), "{addresses}");
    if !has_ip6() {
        return;
    }
    let server = world.ip6();
    let stream = tokio::net::TcpStream::connect(server).await.unwrap();
    assert_eq!(ask(stream).await, server.to_string());
    let script = format!(
        "busybox ip -6 addr add fd00::2/64 dev eth0 && busybox ip -6 route add default via fd00::1 \
         && timeout 4 bash -c 'exec 3<>/dev/tcp/{}/80'",
        server.ip()
    );
    let answer = host.exec("a", &script).await.unwrap();
    let said = String::from_utf8_lossy(&answer.stderr).into_owned();
    assert!(matches!(answer.exit_code, 1 | 124), "{} {said}", answer.exit_code);
    assert!(answer.exit_code == 124 || said.contains("/dev/tcp"), "{said}");
}

/// A machine that came out of its guest, into the namespace, sends nothing by itself; and were there no rules in the
/// namespace at all, those of the host would still stand.
async fn assert_own_rules_of_the_host(host: &Host, world: &World, host_ip: &str, neighbour: &str) {
    let namespace = namespace_of(host, host_ip);
    let send = || UdpSocket::bind("0.0.0.0:0")?.send_to(b"escaped", (PUBLIC, 53));
    let escaped = namespace.enter(send).unwrap_err();
    assert_eq!(escaped.kind(), std::io::ErrorKind::PermissionDenied);
    let public = SocketAddr::new(PUBLIC.parse().unwrap(), 80);
    connect_in(&namespace, public).unwrap_err();
    serve(host, "a").await;
    assert_serves(neighbour).await;
    let flush = || {
        let flushed = std::process::Command::new("nft").args(["flush", "ruleset"]).status()?;
        flushed.success().then_some(()).ok_or_else(|| std::io::Error::other("nft failed"))
    };
    namespace.enter(flush).unwrap();
    connect_in(&namespace, public).unwrap();
    for (address, port) in [
        (world.host_address(), 443),
        (world.host_address(), host.port()),
        (host_end(neighbour), host.port()),
        (neighbour.parse().unwrap(), 8080),
    ] {
        let refused = connect_in(&namespace, SocketAddr::new(address.into(), port)).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::HostUnreachable, "{address}:{port}");
    }
}

#[tokio::test]
async fn lists_open_and_close_single_places_and_a_limit_holds_in_both_directions() {
    let settings = "egress_private = true\negress_dns = []".to_owned();
    let options = Options { settings, listen: Some("0.0.0.0"), ..Options::default() };
    let host = Host::start_with(options).await;
    let world = World::around(&host);
    let slow = host::CreateSandboxRequest { bandwidth_kbit: 512, ..sandbox("minimal", "slow") };
    let slow = host.client.clone().create_sandbox(slow).await.unwrap_or_else(|error| {
        panic!("a bandwidth limit needs the kernel's sch_tbf: {error}\n{}", host.log_text())
    });
    let slow = slow.into_inner();
    serve(&host, "slow").await;
    assert_serves(&slow.host_ip).await;
    let own = world.host_address();
    let egress = host::Egress {
        allow: vec![
            format!("{PUBLIC}:22/tcp"),
            "203.0.113.0/24:5000-6000/tcp".into(),
            "198.51.100.9:123/udp".into(),
            "10.99.0.0/24:8080".into(),
            // Of no use: neither the host nor neighbours are opened by any list.
            format!("{own}"),
            host.subnet(),
            "0.0.0.0/0:8080".into(),
        ],
        deny: vec![
            "203.0.113.9".into(),
            format!("{PUBLIC}:443/tcp"),
            format!("{PUBLIC}:53/udp"),
            "10.99.0.9".into(),
        ],
    };
    let request =
        host::CreateSandboxRequest { egress: Some(egress), ..sandbox("minimal", "listed") };
    host.client.clone().create_sandbox(request).await.unwrap();
    let reached = places([
        (PUBLIC, 22),
        (PUBLIC, 5432),
        (PUBLIC, 53),
        (PUBLIC, 80),
        ("203.0.113.8", 5432),
        ("203.0.113.8", 443),
        ("10.99.0.7", 8080),
        ("198.51.100.9", 8080),
    ]);
    let of_world = places([
        ("203.0.113.8", 22),
        ("198.51.100.9", 22),
        ("203.0.113.9", 80),
        ("203.0.113.9", 5432),
        (PUBLIC, 443),
        ("10.99.0.9", 8080),
        ("10.99.0.7", 80),
        ("10.99.0.7", 22),
        ("172.20.0.7", 8080),
        ("192.168.99.7", 8080),
        (METADATA, 80),
        (METADATA, 8080),
    ]);
    for place in reached.iter().chain(&of_world) {
        let address: SocketAddrV4 = place.parse().unwrap();
        assert_eq!(world.says(address).await, *place);
    }
    let never = places([
        (own, host.port()),
        (host_end(&slow.host_ip), host.port()),
        (slow.host_ip.parse().unwrap(), 8080),
    ]);
    let forbidden = [of_world, never].concat();
    assert_told(&host, "listed", BY_TCP, &reached, &forbidden).await;
    host.pause("listed").await.unwrap();
    host.resume("listed", 0).await.unwrap();
    assert_told(&host, "listed", BY_TCP, &reached, &forbidden).await;
    let udp = places([("198.51.100.9", 123)]);
    assert_told(&host, "listed", BY_UDP, &udp, &places([(PUBLIC, 53), (PUBLIC, 123)])).await;
    assert_slow(&host).await;
    drop(world);
    host.stop().await;
}

/// What 512 kbit/s let through, less than what goes at once.
async fn assert_slow(host: &Host) {
    let bytes: u32 = 256 << 10;
    for way in ["send", "take"] {
        let args = [format!("{PUBLIC}:80"), way.to_owned(), bytes.to_string()];
        let mut times = Vec::new();
        for id in ["listed", "slow"] {
            let started = Instant::now();
            let moved = run_perl(host, id, MOVE, &args).await;
            times.push(started.elapsed());
            assert_eq!(moved.trim(), bytes.to_string());
        }
        println!("{way} {bytes} bytes: {:?} without a limit, {:?} with", times[0], times[1]);
        // 16 KiB go through at once, the rest at 64 000 bytes a second: almost 4 s. A busy machine takes longer.
        assert!(times[1] > Duration::from_secs(3), "{:?} is too fast", times[1]);
    }
}

#[tokio::test]
async fn entries_and_limits_that_make_no_sense_or_are_not_the_callers_to_give_are_refused() {
    let host = Host::start().await;
    let place = ["203.0.113.7:22/tcp".to_owned()];
    let egress = |allow: &[String], deny: &[String]| host::CreateSandboxRequest {
        egress: Some(host::Egress { allow: allow.to_vec(), deny: deny.to_vec() }),
        ..sandbox("minimal", "a")
    };
    let mut wrong = Vec::new();
    for (entry, word) in [
        ("", "is not an address"),
        ("example.org", "is not an address"),
        ("203.0.113", "is not an address"),
        ("203.0.113.7:0", "has no valid ports"),
        ("203.0.113.7:65536", "has no valid ports"),
        ("203.0.113.7:9-8", "has no valid ports"),
        ("203.0.113.7:+80", "has no valid ports"),
        ("203.0.113.7/33", "has no valid prefix"),
        ("203.0.113.7/-1", "has no valid prefix"),
        ("203.0.113.7/24", "has bits behind its prefix"),
        ("203.0.113.7/icmp", "has no valid prefix"),
        ("2001:db8::7", "is not IPv4, and sandboxes have no IPv6"),
        ("[2001:db8::7]:80/tcp", "is not IPv4, and sandboxes have no IPv6"),
        ("203.0.113.7\0", "is not an address"),
    ] {
        for request in [egress(&[entry.into()], &[]), egress(&place, &[entry.into()])] {
            wrong.push((request, format!("{entry:?} {word}; write ADDRESS")));
        }
    }
    for private in PRIVATE.into_iter().chain(["10.0.0.0/8", "192.168.0.0/16:80/tcp"]) {
        wrong.push((egress(&[private.into()], &[]), "egress_private is off".to_owned()));
    }
    for never in [METADATA, "127.0.0.1:80/tcp", "224.0.0.1", "255.255.255.255", "0.0.0.0"] {
        wrong.push((egress(&[never.into()], &[]), "never reachable".to_owned()));
    }
    let many = vec![place[0].clone(); 65];
    wrong.push((egress(&many, &[]), "the allow list has more than 64 entries".to_owned()));
    wrong.push((egress(&[], &many), "the deny list has more than 64 entries".to_owned()));
    wrong.push((egress(&["x".repeat(100_000)], &[]), "is not an address".to_owned()));
    for bandwidth_kbit in [-1, 1, 63, 10_000_001, i64::MIN, i64::MAX] {
        let request = host::CreateSandboxRequest { bandwidth_kbit, ..sandbox("minimal", "a") };
        wrong.push((request, "from 64 to 10000000".to_owned()));
    }
    for (request, word) in wrong {
        let error = host.client.clone().create_sandbox(request.clone()).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{request:?}: {error}");
        assert!(error.message().contains(&word), "not {word:?} but {error}");
    }
    assert_eq!(host.status("a").await, None);
    assert_eq!(host.left(), Vec::<String>::new());
    host.stop().await;
}
