//! Which crate may depend on which, as `ARCHITECTURE.md` says. Dev-dependencies are free: tests may use anything.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, MetadataCommand};

/// Direct dependencies by package: `ovenbird-…` without the prefix, and everybody else's by their own names.
struct Graph {
    ours: BTreeMap<String, BTreeSet<String>>,
    others: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    fn read() -> Self {
        let manifest = ovenbird_dev::tree::root().join("Cargo.toml");
        let metadata = MetadataCommand::new().manifest_path(manifest).no_deps().exec().unwrap();
        let mut graph = Self { ours: BTreeMap::new(), others: BTreeMap::new() };
        for package in metadata.packages {
            let name = short(&package.name);
            let (mut ours, mut others) = (BTreeSet::new(), BTreeSet::new());
            for dependency in package.dependencies {
                if dependency.kind == DependencyKind::Development {
                    continue;
                }
                let into = if dependency.path.is_some() { &mut ours } else { &mut others };
                into.insert(short(&dependency.name));
            }
            graph.ours.insert(name.clone(), ours);
            graph.others.insert(name, others);
        }
        graph
    }

    /// Everything of ours that `package` depends on, directly or not.
    fn reach(&self, package: &str) -> BTreeSet<String> {
        let mut reached = BTreeSet::new();
        let mut open = vec![package.to_owned()];
        while let Some(next) = open.pop() {
            for dependency in &self.ours[&next] {
                if reached.insert(dependency.clone()) {
                    open.push(dependency.clone());
                }
            }
        }
        reached
    }

    /// Libraries that `package`, or anything of ours below it, depends on directly.
    fn libraries(&self, package: &str) -> BTreeSet<String> {
        let mut packages = self.reach(package);
        packages.insert(package.to_owned());
        packages.iter().flat_map(|package| self.others[package].clone()).collect()
    }
}

fn short(name: &str) -> String {
    name.strip_prefix("ovenbird-").unwrap_or(name).to_owned()
}

#[test]
fn each_package_depends_directly_only_on_what_the_architecture_allows() {
    // A package that is missing here fails the test: whoever adds one says where it stands.
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("agent", &["guest-protocol", "host", "hostagent", "kit"][..]),
        ("agent-client", &["hostagent", "kit", "contract"]),
        ("api", &["agent-client", "context", "contract", "db", "kit", "migrations", "recipe"]),
        ("bridge", &["agent-client", "contract", "db", "kit", "recipe"]),
        ("context", &[]),
        ("contract", &[]),
        ("db", &["contract"]),
        // The benchmark's floor speaks to guests without an agent.
        ("dev", &["contract", "guest-protocol", "hostagent", "testkit"]),
        ("guest", &["guest-protocol"]),
        ("guest-protocol", &[]),
        ("host", &[]),
        ("hostagent", &[]),
        ("kit", &[]),
        ("migrations", &[]),
        ("recipe", &[]),
        ("runner", &["agent-client", "context", "contract", "kit", "recipe"]),
        // What customers get stands alone.
        ("sdk", &[]),
        ("testkit", &[]),
    ]);
    for (package, dependencies) in Graph::read().ours {
        let Some(allowed) = allowed.get(package.as_str()) else {
            panic!("no rule says what {package} may depend on")
        };
        for dependency in dependencies {
            assert!(
                allowed.contains(&dependency.as_str()),
                "{package} must not depend on {dependency}"
            );
        }
    }
}

#[test]
fn no_package_reaches_what_it_must_not_know() {
    let graph = Graph::read();
    let forbidden: [(&str, &[&str], &[&str]); 7] = [
        ("runner", &["db", "host", "migrations"], &["redis", "sea-orm", "sqlx"]),
        ("agent", &["db", "migrations"], &["async-nats", "redis", "sea-orm", "sqlx"]),
        ("dev", &["agent", "api", "bridge", "db", "host", "runner"], &["sea-orm", "devicemapper"]),
        ("context", &[], &["tokio", "async-nats", "redis", "sea-orm", "tonic"]),
        ("contract", &[], &["tokio", "async-nats", "redis", "sea-orm", "tonic"]),
        ("recipe", &[], &["tokio", "async-nats", "redis", "sea-orm", "tonic"]),
        ("guest", &["host", "kit"], &["async-nats", "redis", "sea-orm"]),
    ];
    for (package, ours, others) in forbidden {
        let (reached, libraries) = (graph.reach(package), graph.libraries(package));
        for name in ours {
            assert!(!reached.contains(*name), "{package} must not reach {name}");
        }
        for name in others {
            assert!(!libraries.contains(*name), "{package} must not reach {name}");
        }
    }
    for (package, libraries) in &graph.others {
        let may = package == "host";
        assert!(may || !libraries.contains("devicemapper"), "{package} must not use devicemapper");
    }
}
