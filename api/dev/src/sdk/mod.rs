//! `cargo dev sdk`: the generated parts of the SDKs, from `openapi/openapi.json`.
//!
//! Each generator writes into a folder of its own; what differs from the source tree is then put there or, with
//! `--check`, told. What is written by hand beside it is not touched.

mod difference;
mod python;
mod rust;
mod typescript;

use std::path::Path;

use anyhow::Context;
use fs_err as fs;

use crate::{
    openapi,
    progress::Ui,
    setup::tools::{self, Tools},
    tree,
};

/// Generates what is generated, and replaces or compares it.
///
/// # Errors
/// When a generator fails; with `check`, naming the files that differ and the remedy.
pub async fn run(ui: &Ui, check: bool) -> anyhow::Result<()> {
    let tools = tools::ensure(ui).await?;
    fs::create_dir_all(tree::scratch())?;
    let scratch = tempfile::Builder::new().prefix("sdk-").tempdir_in(tree::scratch())?;
    let document = openapi::folder().join("openapi.json");
    let mut differ = Vec::new();
    for language in Language::ALL {
        let step = ui.step(format!("generate the client in {}", language.name()));
        let fresh = scratch.path().join(language.name());
        fs::create_dir(&fresh)?;
        let made = language.generate(&step, &tools, &document, &fresh).await;
        made.with_context(|| format!("the generator for {} failed", language.name()))?;
        let place = openapi::folder().join("sdk").join(language.place());
        let differences = difference::between(&fresh, &place)?;
        if !check {
            difference::apply(&differences, &fresh, &place)?;
        }
        step.done(&match differences.len() {
            0 => "nothing changed".to_owned(),
            count => format!("{count} files differ"),
        });
        differ.extend(
            differences
                .into_iter()
                .map(|file| format!("  openapi/sdk/{}/{file}", language.place())),
        );
    }
    anyhow::ensure!(
        !check || differ.is_empty(),
        "What is generated is not what openapi/openapi.json says:\n{}\n\
         Run `cargo dev sdk` and commit what it writes.",
        differ.join("\n")
    );
    Ok(())
}

#[derive(Debug, Clone, Copy)]
enum Language {
    Python,
    TypeScript,
    Rust,
}

impl Language {
    const ALL: [Self; 3] = [Self::Python, Self::TypeScript, Self::Rust];

    fn name(self) -> &'static str {
        match self {
            Self::Python => "Python",
            Self::TypeScript => "TypeScript",
            Self::Rust => "Rust",
        }
    }

    /// The folder below `openapi/sdk` that holds nothing that is not generated.
    fn place(self) -> &'static str {
        match self {
            Self::Python => "python/src/ovenbird/rest",
            Self::TypeScript => "typescript/src/rest",
            Self::Rust => "rust/src/rest",
        }
    }

    async fn generate(
        self,
        step: &crate::progress::Step,
        tools: &Tools,
        document: &Path,
        into: &Path,
    ) -> anyhow::Result<()> {
        match self {
            Self::Python => python::generate(step, tools, document, into).await,
            Self::TypeScript => typescript::generate(step, tools, document, into).await,
            Self::Rust => rust::generate(step, document, into).await,
        }
    }
}
