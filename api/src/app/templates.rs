//! Templates: what there is.

use ovenbird_db::store::{build_admin::After, template_admin::TemplateRow};

use super::{
    App, Error,
    page::{self, Page},
};

impl App {
    /// A page of the catalogue, newest first.
    ///
    /// # Errors
    /// A cursor that is none; Postgres.
    pub async fn template_list(
        &self,
        name: Option<&str>,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<Page<TemplateRow>, Error> {
        let after = cursor.map(page::decode).transpose()?;
        let rows = self.store.template_list(name, after, u64::from(limit) + 1).await?;
        Ok(Page::of(rows, limit, |row| After {
            created_at: row.template.created_at,
            id: row.template.id,
        }))
    }
}
