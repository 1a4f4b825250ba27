//! Against the real kernel: what is made, found again and removed, without a guest.

use std::{process::Command, time::Duration};

use super::*;
use crate::{
    Instance,
    net::{Namespace, TAP},
};

const UID_BASE: u32 = 61_000;

fn options(instance: &str, subnet: &str, pool: u16) -> Options {
    Options {
        plan: Plan::new(Instance::new(instance).unwrap(), subnet.parse().unwrap()),
        pool,
        slots: 6,
        uid_base: UID_BASE,
        resolvers: vec!["10.255.0.53".parse().unwrap()],
    }
}

fn owner(slot: u16) -> Identity {
    let id = UID_BASE + u32::from(slot);
    Identity { uid: id, gid: id }
}

fn output(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// What a program says inside of a network's namespace.
fn inside(network: &Network, program: &str, args: &[&str]) -> String {
    let inside = || Ok::<_, io::Error>(output(program, args));
    Namespace::at(&network.namespace).enter(inside).unwrap()
}

/// Everything on the host with the instance's name in it.
fn traces(instance: &str) -> Vec<String> {
    let mut traces = names_in(Path::new("/run/netns")).unwrap();
    traces.extend(super::links().unwrap());
    traces.extend(output("nft", &["list", "tables"]).lines().map(str::to_owned));
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    traces.extend(mounts.lines().map(str::to_owned));
    traces.retain(|trace| trace.contains(instance));
    traces
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let end = tokio::time::Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(tokio::time::Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn network_is_made_twice_listed_adopted_and_removed_twice_without_a_rest() {
    let networks = NetlinkNetworks::new(options("nettest1", "10.231.16.0/24", 0));
    networks.open().await.unwrap();
    networks.open().await.unwrap();
    let policy = Policy { bandwidth_kbit: 8000, ..Policy::default() };
    let network = networks.ensure(Slot(3), owner(3), &policy).await.unwrap();
    assert_eq!(network.host_ip.to_string(), "10.231.16.9");
    assert_eq!(networks.list().await.unwrap(), [Slot(3)]);
    let addresses = inside(&network, "ip", &["-br", "addr"]);
    for address in ["172.16.0.1/30", "10.231.16.9/31"] {
        assert!(addresses.contains(address) && !addresses.contains("fe80"), "{addresses}");
    }
    let tap = inside(&network, "ip", &["-d", "link", "show", TAP]);
    assert!(tap.contains("user 61003 group 61003") && tap.contains("vnet_hdr on"), "{tap}");
    assert!(inside(&network, "ip", &["route"]).contains("default via 10.231.16.8"));
    let link = networks.inner.options.plan.interface(Slot(3));
    for queues in [
        inside(&network, "tc", &["qdisc", "show", "dev", "up0"]),
        output("tc", &["qdisc", "show", "dev", &link]),
    ] {
        assert!(queues.contains("tbf") && queues.contains("rate 8Mbit"), "{queues}");
    }

    // Again over what is there, as after a crash in the middle; now without a limit.
    let network = networks.ensure(Slot(3), owner(3), &Policy::default()).await.unwrap();
    assert_eq!(networks.list().await.unwrap(), [Slot(3)]);
    assert!(!output("tc", &["qdisc", "show", "dev", &link]).contains("tbf"));

    let next = NetlinkNetworks::new(options("nettest1", "10.231.16.0/24", 0));
    let adopted = next.adopt(Slot(3)).await.unwrap().unwrap();
    assert_eq!((adopted.host_ip, &adopted.namespace), (network.host_ip, &network.namespace));
    assert!(next.adopt(Slot(4)).await.unwrap().is_none());

    next.remove(Slot(3)).await.unwrap();
    next.remove(Slot(3)).await.unwrap();
    assert!(next.adopt(Slot(3)).await.unwrap().is_none());
    next.close().await.unwrap();
    next.close().await.unwrap();
    networks.close().await.unwrap();
    assert_eq!(traces("nettest1"), Vec::<String>::new());
}

#[tokio::test]
async fn network_that_lacks_a_part_or_has_another_address_is_not_adopted() {
    let networks = NetlinkNetworks::new(options("nettest2", "10.231.17.0/24", 0));
    networks.open().await.unwrap();
    let breakages: [(&str, &[&str]); 4] = [
        ("ip", &["link", "del", "tap0"]),
        ("ip", &["addr", "flush", "dev", "up0"]),
        ("ip", &["link", "set", "up0", "down"]),
        ("nft", &["flush ruleset"]),
    ];
    for (program, args) in breakages {
        let network = networks.ensure(Slot(0), owner(0), &Policy::default()).await.unwrap();
        assert!(networks.adopt(Slot(0)).await.unwrap().is_some());
        inside(&network, program, args);
        assert!(networks.adopt(Slot(0)).await.unwrap().is_none(), "after {program} {args:?}");
    }
    networks.ensure(Slot(0), owner(0), &Policy::default()).await.unwrap();
    let elsewhere = NetlinkNetworks::new(options("nettest2", "10.231.18.0/24", 0));
    assert!(elsewhere.adopt(Slot(0)).await.unwrap().is_none());
    elsewhere.remove(Slot(0)).await.unwrap();
    networks.close().await.unwrap();
    assert_eq!(traces("nettest2"), Vec::<String>::new());
}

#[tokio::test]
async fn failure_half_way_leaves_nothing_after_remove() {
    let networks = NetlinkNetworks::new(options("nettest3", "10.231.19.0/24", 0));
    let plan = networks.inner.options.plan.clone();
    // The name is taken by a folder that cannot be removed as a file: the last step fails, and the first.
    let taken = plan.namespace_path(Slot(1));
    std::fs::create_dir_all(&taken).unwrap();
    networks.ensure(Slot(1), owner(1), &Policy::default()).await.unwrap_err();
    let made = Prepared::make(&plan, Slot(1), owner(1)).unwrap();
    made.activate(&plan, &Policy::default(), &[]).unwrap_err();
    std::fs::remove_dir(&taken).unwrap();
    assert_eq!(networks.list().await.unwrap(), [Slot(1)], "its link has its name already");
    networks.remove(Slot(1)).await.unwrap();
    // A link with the name of what is prepared, of an agent that was killed, is replaced.
    let stale = plan.prepared_interface(Slot(1));
    output("ip", &["tuntap", "add", &stale, "mode", "tap"]);
    networks.ensure(Slot(1), owner(1), &Policy::default()).await.unwrap();
    networks.remove(Slot(1)).await.unwrap();
    // A link that is gone fails after the rules.
    let wrong = Prepared::make(&plan, Slot(2), owner(2)).unwrap();
    output("ip", &["link", "del", &plan.prepared_interface(Slot(2))]);
    wrong.activate(&plan, &Policy::default(), &[]).unwrap_err();
    networks.remove(Slot(2)).await.unwrap();
    networks.close().await.unwrap();
    assert_eq!(traces("nettest3"), Vec::<String>::new());
}

#[tokio::test]
async fn pool_prepares_the_lowest_free_slots_and_is_no_leftover() {
    let networks = NetlinkNetworks::new(options("nettest4", "10.231.20.0/24", 2));
    networks.open().await.unwrap();
    until("two are prepared", || networks.prepared() == [Slot(0), Slot(1)]).await;
    assert_eq!(networks.list().await.unwrap(), []);
    let held = networks.ensure(Slot(0), owner(0), &Policy::default()).await.unwrap();
    assert_eq!(networks.list().await.unwrap(), [Slot(0)]);
    assert!(networks.adopt(Slot(0)).await.unwrap().is_some());
    until("the next one follows", || networks.prepared() == [Slot(1), Slot(2)]).await;

    // More at once than there are prepared, and one for another user than it was prepared for.
    let policy = Policy::default();
    let burst = [1, 2, 3, 4].map(|slot| networks.ensure(Slot(slot), owner(slot + 1), &policy));
    for network in futures_all(burst).await {
        let addresses = inside(&network, "ip", &["-br", "addr"]);
        assert!(addresses.contains(&network.host_ip.to_string()), "{addresses}");
    }
    let other = Networks::adopt(&networks, Slot(1)).await.unwrap().unwrap();
    assert!(inside(&other, "ip", &["-d", "link", "show", TAP]).contains("user 61002"));
    until("only one is left to prepare", || networks.prepared() == [Slot(5)]).await;
    networks.remove(Slot(0)).await.unwrap();
    assert!(!held.namespace.exists());
    until("a slot that is free again", || networks.prepared() == [Slot(0), Slot(5)]).await;

    // The next agent finds the networks of sandboxes, and nothing that was prepared.
    networks.leave().await.unwrap();
    assert_eq!(networks.prepared(), []);
    assert!(!traces("nettest4").iter().any(|trace| trace.starts_with("p-")));
    let next = NetlinkNetworks::new(options("nettest4", "10.231.20.0/24", 2));
    next.open().await.unwrap();
    until("around what is there", || next.prepared() == [Slot(0), Slot(5)]).await;
    for slot in next.list().await.unwrap() {
        next.remove(slot).await.unwrap();
    }
    next.close().await.unwrap();
    assert_eq!(traces("nettest4"), Vec::<String>::new());
}

#[tokio::test]
async fn longest_lists_reach_the_kernel() {
    let networks = NetlinkNetworks::new(options("nettest5", "10.231.21.0/24", 0));
    let entry = |n: u8| format!("203.0.{n}.0/24:1000-2000").parse().unwrap();
    let list: Vec<_> = (0..64).map(entry).collect();
    let policy = Policy { allow: list.clone(), deny: list, bandwidth_kbit: 64 };
    policy.check(false).unwrap();
    let network = networks.ensure(Slot(0), owner(0), &policy).await.unwrap();
    let rules = inside(&network, "nft", &["list", "chain", "ip", "ovenbird", "egress"]);
    assert_eq!(rules.matches("203.0.63.0/24").count(), 4, "{rules}");
    networks.remove(Slot(0)).await.unwrap();
    networks.close().await.unwrap();
    assert_eq!(traces("nettest5"), Vec::<String>::new());
}

async fn futures_all<const N: usize>(
    networks: [impl Future<Output = Result<Network, Error>>; N],
) -> Vec<Network> {
    let mut made = Vec::new();
    let mut pending: Vec<_> = networks.into_iter().map(Box::pin).collect();
    std::future::poll_fn(|context| {
        pending.retain_mut(|future| match future.as_mut().poll(context) {
            std::task::Poll::Ready(network) => {
                made.push(network.unwrap());
                false
            }
            std::task::Poll::Pending => true,
        });
        if pending.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    made
}

#[tokio::test]
#[ignore = "prints times; run by hand with --no-capture"]
async fn time_of_one_network() {
    let count = 40;
    for pool in [0, 4] {
        let networks = NetlinkNetworks::new(options("nettime", "10.231.22.0/24", pool));
        networks.open().await.unwrap();
        let (mut made, mut removed) = (Vec::new(), Vec::new());
        for _ in 0..count {
            if pool > 0 {
                until("prepared", || networks.prepared().len() == 4).await;
            }
            let start = std::time::Instant::now();
            networks.ensure(Slot(0), owner(0), &Policy::default()).await.unwrap();
            made.push(start.elapsed());
            let start = std::time::Instant::now();
            networks.remove(Slot(0)).await.unwrap();
            removed.push(start.elapsed());
        }
        networks.close().await.unwrap();
        made.sort();
        removed.sort();
        println!(
            "pool {pool}: made in {:?} (least {:?}), removed in {:?} (least {:?})",
            made[count / 2],
            made[0],
            removed[count / 2],
            removed[0]
        );
    }
    let networks = NetlinkNetworks::new(options("nettime", "10.231.22.0/24", 0));
    networks.open().await.unwrap();
    networks.ensure(Slot(0), owner(0), &Policy::default()).await.unwrap();
    println!("{}", output("nft", &["list", "ruleset"]));
    let network = networks.adopt(Slot(0)).await.unwrap().unwrap();
    println!("{}", inside(&network, "nft", &["list", "ruleset"]));
    networks.remove(Slot(0)).await.unwrap();
    networks.close().await.unwrap();
}
