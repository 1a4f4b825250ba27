//! How the processes of a platform are configured, and what they find where the configuration says.

use std::path::{Path, PathBuf};

use anyhow::Context;
use fs_err as fs;
use ovenbird_contract::nats_access::Role;
use ovenbird_testkit::{Authority, certificates::Files};
use serde_json::{Value, json};
use tokio::process::Command;

use super::{BASE_TEMPLATE, Hypervisor, Options, Platform, config};
use crate::{cache::Artifacts, program};

/// What agents without machines promise at the same time.
const MEMORY_SANDBOXES: u16 = 64;
/// Their base image.
const MEMORY_IMAGE_BYTES: u64 = 1024 * 1024;
/// Where Prometheus would look; each process says in its log where that is.
const METRICS_LISTEN: &str = "127.0.0.1:0";

impl Platform {
    /// The section `[telemetry]` of every process.
    fn telemetry(&self) -> Value {
        let endpoint = self.options.otlp_port.map(|port| format!("http://127.0.0.1:{port}"));
        json!({
            "format": if self.options.json_logs { "json" } else { "text" },
            "otlp_endpoint": endpoint.unwrap_or_default(),
        })
    }

    /// Where the seed of one of our processes is, for NATS.
    pub(super) fn nats_seed(&self, role: Role) -> PathBuf {
        self.nats_file(role.as_str())
    }

    fn nats_file(&self, name: &str) -> PathBuf {
        self.place.path().join("nats-access").join(format!("{name}.nk"))
    }

    pub(super) async fn api_config(&self, authority: &Authority) -> anyhow::Result<Value> {
        let signer = authority.write_signer(&self.place.path().join("tls"))?;
        Ok(json!({
            "listen": format!("127.0.0.1:{}", self.api_port),
            "metrics_listen": METRICS_LISTEN,
            "telemetry": self.telemetry(),
            "database_url": self.postgres.database("ovenbird").await?,
            "redis_url": self.redis.url(),
            "nats_url": self.nats.url(),
            "nats_nkey": self.nats_seed(Role::Api),
            "nats_access": { "nkeys": {
                "issuer": self.nats_file("issuer"),
                "callout": self.nats_seed(Role::Callout),
                "revoker": self.nats_seed(Role::Revoker),
            }},
            "agents": { "tls": config::tls(&self.client_of(authority, "api")?) },
            "registration": { "authority": { "cert": signer.0, "key": signer.1 } },
            // The platform is reached over plain http.
            "http": { "session": { "secure": false } },
        }))
    }

    pub(super) fn bridge_config(
        &self,
        authority: &Authority,
        options: Options,
    ) -> anyhow::Result<Value> {
        let mut config = json!({
            "database_url": self.postgres.url_of("ovenbird"),
            "redis_url": self.redis.url(),
            "nats_url": self.nats.url(),
            "nats_nkey": self.nats_seed(Role::Bridge),
            "nats_replicas": if options.nats_servers >= 3 { 3 } else { 1 },
            "metrics_listen": METRICS_LISTEN,
            "telemetry": self.telemetry(),
            "tls": config::tls(&self.client_of(authority, "bridge")?),
        });
        if let Some(lease) = options.lease {
            config["lease"] = format!("{}ms", lease.as_millis()).into();
        }
        if let Some(attempts_max) = options.attempts_max {
            config["attempts_max"] = attempts_max.into();
        }
        if let Some(time_max) = options.build_time_max {
            config["build_time_max"] = format!("{}ms", time_max.as_millis()).into();
        }
        if let Some(bytes) = options.log_step_bytes {
            config["log_step_bytes"] = bytes.into();
        }
        Ok(config)
    }

    pub(super) fn runner_config(
        &self,
        authority: &Authority,
        options: Options,
    ) -> anyhow::Result<Value> {
        let mut config = json!({
            "nats_url": self.nats.url(),
            "nats_nkey": self.nats_seed(Role::Runner),
            "metrics_listen": METRICS_LISTEN,
            "telemetry": self.telemetry(),
            "slots": options.slots,
            "tls": config::tls(&self.client_of(authority, "runner")?),
        });
        if let Some(away) = options.host_away {
            config["host_away_max"] = format!("{}ms", away.as_millis()).into();
        }
        Ok(config)
    }

    /// Makes the agent's folder with the base image in it, and its configuration, for the host that the api
    /// announced.
    pub(super) async fn agent_config(
        &mut self,
        at: usize,
        artifacts: &Artifacts,
        announced: &Value,
    ) -> anyhow::Result<PathBuf> {
        let text = |value: &Value| value.as_str().map(str::to_owned).context("no announcement");
        self.agents[at].server_name = text(&announced["host"]["server_name"])?;
        let agent = &self.agents[at];
        let name = format!("agent-{}", at + 1);
        let data = self.disk.path().join(&name);
        let image = data.join("images").join(BASE_TEMPLATE);
        fs::create_dir_all(&image)?;
        if self.options.hypervisor == Hypervisor::Memory {
            // Nobody looks into it.
            fs::File::create(image.join("rootfs.ext4"))?.set_len(MEMORY_IMAGE_BYTES)?;
        } else {
            self.copy_image(at, artifacts, &image).await?;
        }

        let token_file = config::write_secret(
            &self.place.path().join(format!("{name}.token")),
            &text(&announced["token"])?,
        )?;
        let number = agent.number.number();
        let mut content = json!({
            "listen": agent.address(),
            "metrics_listen": format!("127.0.0.1:{}", agent.metrics_port),
            "data_dir": data,
            "kernel": artifacts.kernel,
            "initrd": artifacts.initrd,
            "name": format!("d{number}"),
            "subnet": format!("10.{}.{}.0/20", 200 + number / 16, number % 16 * 16),
            "uid_base": 2_000_000 + u32::from(number) * 4096,
            "storage": self.disk.driver(),
            // An emulated machine beside others boots slowly.
            "ready_timeout": "60s",
            // A platform leaves nothing behind.
            "sandboxes_on_exit": "destroy",
            "telemetry": self.telemetry(),
            "registration": { "api": self.url(), "token_file": token_file },
        });
        if self.options.hypervisor == Hypervisor::Memory {
            content["hypervisor"] = "memory".into();
            content["creates_at_once"] = MEMORY_SANDBOXES.into();
            content["capacity"] = json!({
                "sandboxes": MEMORY_SANDBOXES, "vcpus": MEMORY_SANDBOXES, "memory_mb": 1_000_000,
            });
        }
        let config = config::write(self.place.path(), &name, &content)?;
        if agent.apart.is_some() {
            // From its own network it does not reach the api.
            let mut register = Command::new(self.binary("ovenbird-agent"));
            register.arg("register").arg("--config").arg(&config);
            program::output(register).await?;
        }
        Ok(config)
    }

    async fn copy_image(
        &self,
        at: usize,
        artifacts: &Artifacts,
        image: &Path,
    ) -> anyhow::Result<()> {
        let mut copy = Command::new("cp");
        // The second agent shares the first one's blocks, where the file system can.
        let first = self.disk.path().join("agent-1/images").join(BASE_TEMPLATE).join("rootfs.ext4");
        let source = if at == 0 { artifacts.image.clone() } else { first };
        copy.args(["--reflink=auto", "--sparse=always"]).arg(source).arg(image.join("rootfs.ext4"));
        program::output(copy).await.map(drop)
    }

    fn client_of(&self, authority: &Authority, name: &str) -> anyhow::Result<Files> {
        let leaf = authority.client(&format!("{name}.ovenbird"))?;
        Ok(authority.write(&leaf, &self.place.path().join("tls"), name)?)
    }
}
