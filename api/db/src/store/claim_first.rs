//! The first attempt of a build begun in one statement, for that is what a build waits for.
//!
//! What is counted in a statement is as old as its beginning, so the room on the chosen host is taken only if nobody
//! took some since: everybody who does raises the host's `bookings`. Otherwise, and wherever anything else is in the way,
//! nothing is written, and the claim is made step by step, which also says why not.

use ovenbird_contract::build::{Event, Status};
use sea_orm::{
    ConnectionTrait, EntityTrait, FromQueryResult, IdenStatic as _, Iterable, QueryResult,
};

use super::{
    Error, Store,
    claim::{BEGUN, Claimed, Request, claimed, terms},
    sql,
};
use crate::entity::{host, template, template_build};

impl Store {
    /// The claim, or nothing when it has to be made step by step.
    pub(super) async fn build_claim_first(
        &self,
        request: &Request,
    ) -> Result<Option<Claimed>, Error> {
        let Ok(next) = Status::Queued.apply(Event::Claimed) else { return Ok(None) };
        if request.attempt != 1 || self.key_builds_max > 0 {
            return Ok(None);
        }
        let row = self.db.query_one_raw(sql(&statement(), terms(request, next, None))).await?;
        row.map(|row| read(&row)).transpose()
    }
}

/// The build is locked before the host, as everywhere.
fn statement() -> String {
    let choice = super::claim::choice();
    format!(
        "WITH build AS MATERIALIZED (
           SELECT * FROM template_builds WHERE id = $1 AND status = 'queued' AND attempt = $4 - 1
           FOR NO KEY UPDATE),
         chosen AS MATERIALIZED ({choice}),
         h AS (
           UPDATE hosts h SET bookings = h.bookings + 1 FROM chosen
           WHERE h.id = chosen.id AND chosen.fits AND h.bookings = chosen.bookings AND h.status = 'online'
           RETURNING h.*),
         begun AS (
           UPDATE template_builds b SET {BEGUN}
           FROM h JOIN templates t ON t.deleted_at IS NULL
           WHERE b.id = $1 AND b.status = 'queued' AND b.attempt = $4 - 1 AND t.id = b.base_template_id
           RETURNING b.*)
         SELECT {}, {}, {} FROM begun b JOIN templates t ON t.id = b.base_template_id CROSS JOIN h",
        columns::<template_build::Entity>("b"),
        columns::<template::Entity>("t"),
        columns::<host::Entity>("h"),
    )
}

/// `b.id AS b_id, …`
fn columns<E: EntityTrait>(table: &str) -> String {
    let column = |column: E::Column| format!("{table}.{0} AS {table}_{0}", column.as_str());
    E::Column::iter().map(column).collect::<Vec<_>>().join(", ")
}

fn read(row: &QueryResult) -> Result<Claimed, Error> {
    Ok(claimed(
        template_build::Model::from_query_result(row, "b_")?,
        template::Model::from_query_result(row, "t_")?,
        host::Model::from_query_result(row, "h_")?,
    ))
}
