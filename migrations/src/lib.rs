//! The schema of Postgres. Each migration is one SQL file under `sql/`, run in a transaction of its own:
//! constraints and partial indexes carry rules that a query builder cannot say.
//!
//! A migration that was released is never edited; a change is a new one. There is no way down: a
//! schema goes forward, and every version of the code reads the schema after its own.

use sea_orm_migration::prelude::*;

/// Every migration, in order.
#[derive(Debug)]
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        macro_rules! sql {
            ($($name:literal),+ $(,)?) => {
                vec![$(Box::new(Sql {
                    name: $name,
                    up: include_str!(concat!("../sql/", $name, ".sql")),
                }) as Box<dyn MigrationTrait>),+]
            };
        }
        sql![
            "m0001_hosts_and_templates",
            "m0002_builds",
            "m0003_sandboxes",
            "m0004_keys_and_audit",
            "m0005_cancels_without_proof",
            "m0006_hand_over",
            "m0007_audit_and_repeats",
            "m0008_user_sandboxes",
            "m0009_what_admins_decide",
            "m0010_sessions",
            "m0011_hosts_register",
            "m0012_contexts",
            "m0013_lanes_and_limits",
            "m0014_repeats_and_names",
            "m0015_bookings",
            "m0016_hearing",
        ]
    }
}

struct Sql {
    name: &'static str,
    up: &'static str,
}

impl MigrationName for Sql {
    fn name(&self) -> &str {
        self.name
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Sql {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.get_connection().execute_unprepared(self.up).await?;
        Ok(())
    }
}
