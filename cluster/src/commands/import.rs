//! `ledgerctl import`: a catalog file into products and deliveries.
//!
//! **Owns** the import and what it tells. **Must never** send anything of a file with an error in it, or add a line twice.
//! **Read next**: [`crate::catalog`].

use std::path::Path;
use std::time::Duration;

use client_sdk::{Client, NotOk, Refusal};
use futures::StreamExt;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::Desk;
use crate::catalog::{Catalog, CatalogErrors, CatalogLine, reference};
use crate::cli::ImportArgs;
use crate::limits;
use crate::output::{Failure, Outcome, Printer};

/// What an import did.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub struct ImportDoc {
    /// Lines in the file.
    pub lines: u64,
    /// Products that were new.
    pub created: u64,
    /// Products that were there with another policy, which was left as it is.
    pub kept: u64,
    /// Lines whose units were received now.
    pub received_lines: u64,
    /// Units received now.
    pub received_units: u128,
    /// Lines that had been received before: nothing was added.
    pub already_there: u64,
    /// Lines that were refused or are unknown.
    pub failed_lines: u64,
    /// Of those, the ones that may have happened all the same.
    pub unknown_lines: u64,
    /// The first [`limits::IMPORT_FAILED_KEPT`] of them that were answered, by line.
    pub failed: Vec<FailedLine>,
}

/// What a file would import.
#[derive(Debug, Serialize)]
struct CheckDoc {
    lines: u64,
    units: u128,
}

/// A line that was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FailedLine {
    /// Line in the file.
    pub line: u64,
    /// Its product.
    pub sku: String,
    /// Why.
    pub why: String,
    /// It may have happened all the same.
    pub unknown: bool,
}

pub(crate) fn bad_file(path: &Path, errors: &CatalogErrors) -> Failure {
    let mut what = format!("{}: {} lines are wrong; nothing was sent", path.display(), errors.count);
    for error in &errors.first {
        what.push_str(&format!("\n  {error}"));
    }
    let more = errors.count - errors.first.len() as u64;
    if more > 0 {
        what.push_str(&format!("\n  … and {more} more"));
    }
    Failure::usage(what).hint(format!("mend the file, then: ledgerctl import {} --check", path.display()))
}

pub(super) fn check(args: &ImportArgs, printer: Printer) -> Outcome {
    let catalog = Catalog::open(&args.file).map_err(|errors| bad_file(&args.file, &errors))?;
    let document = CheckDoc { lines: catalog.lines.len() as u64, units: catalog.units() };
    printer.print(&document, |doc| format!("{} lines, {} units: good", doc.lines, doc.units))
}

pub(super) async fn run(desk: &Desk, args: ImportArgs) -> Outcome {
    let catalog = Catalog::open(&args.file).map_err(|errors| bad_file(&args.file, &errors))?;
    let file_name = args.file.file_name().map_or("catalog".into(), |n| n.to_string_lossy().into_owned());
    let batch = args.batch.unwrap_or(file_name);
    reference(&batch, u64::MAX).map_err(|e| Failure::usage(format!("--batch {batch:?}: {e}")))?;
    let units = catalog.units();
    let will = format!(
        "create what is missing of {} products and receive {units} units, under references {batch}:LINE (lines imported before add nothing)",
        catalog.lines.len()
    );
    desk.printer.ask(&will)?;
    let client = desk.client().await?;
    let done = import_lines(&client, &catalog.lines, &batch).await;
    desk.printer.print(&done, to_text)?;
    let again = format!(
        "ledgerctl import {} --batch {batch} --yes   (what is there already is not added again)",
        args.file.display()
    );
    match (done.failed_lines == 0, done.unknown_lines > 0) {
        (true, _) => Ok(()),
        (false, true) => {
            Err(Failure::unknown(format!("{} lines were not done for certain", done.failed_lines)).hint(again))
        }
        (false, false) => Err(Failure::refused(format!("{} lines were refused", done.failed_lines)).hint(again)),
    }
}

fn to_text(done: &ImportDoc) -> String {
    let mut text = format!(
        "{} lines: {} products created, {} units received on {} lines, {} lines were there already",
        done.lines, done.created, done.received_units, done.received_lines, done.already_there
    );
    if done.kept > 0 {
        text.push_str(&format!(
            "\n{} products have another policy than the file says; it was left as it is",
            done.kept
        ));
    }
    for failed in done.failed.iter().take(limits::CATALOG_ERRORS_SHOWN) {
        text.push_str(&format!("\nline {}: {}: {}", failed.line, failed.sku, failed.why));
    }
    let more = done.failed_lines.saturating_sub(limits::CATALOG_ERRORS_SHOWN as u64);
    if more > 0 {
        text.push_str(&format!("\n… and {more} more"));
    }
    text
}

enum LineDone {
    Created { kept: bool, replayed: bool, units: Option<(u64, bool)> },
    Failed(FailedLine),
}

/// Creates and receives all lines, many at a time; lines of one product one after the other.
pub async fn import_lines(client: &Client, lines: &[CatalogLine], batch: &str) -> ImportDoc {
    let bar = ProgressBar::with_draw_target(Some(lines.len() as u64), ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("importing {bar:30} {pos}/{len} lines, {per_sec}, {eta} left") {
        bar.set_style(style);
    }
    let mut by_product: Vec<Vec<&CatalogLine>> = Vec::new();
    let mut place: std::collections::HashMap<&client_sdk::Sku, usize> = std::collections::HashMap::new();
    for line in lines {
        let at = *place.entry(&line.sku).or_insert_with(|| {
            by_product.push(Vec::new());
            by_product.len() - 1
        });
        by_product[at].push(line);
    }
    let mut done = ImportDoc { lines: lines.len() as u64, ..ImportDoc::default() };
    // A product may have all the lines, so that each result is added up as it comes.
    let work = by_product.into_iter().map(|lines| {
        let results = futures::stream::iter(lines).then(|line| import_line(client, line, batch));
        results.inspect(|_| bar.inc(1)).boxed()
    });
    let mut results = futures::stream::iter(work).flatten_unordered(limits::IMPORT_IN_FLIGHT);
    while let Some(result) = results.next().await {
        done.add(result);
    }
    bar.finish_and_clear();
    done.failed.sort_by_key(|f| f.line);
    done
}

impl ImportDoc {
    fn add(&mut self, line: LineDone) {
        match line {
            LineDone::Created { kept, replayed, units } => {
                self.kept += u64::from(kept);
                self.created += u64::from(!replayed && !kept);
                match units {
                    Some((_, true)) => self.already_there += 1,
                    Some((units, false)) => {
                        self.received_lines += 1;
                        self.received_units += u128::from(units);
                    }
                    None => {}
                }
            }
            LineDone::Failed(failed) => {
                self.failed_lines += 1;
                self.unknown_lines += u64::from(failed.unknown);
                if self.failed.len() < limits::IMPORT_FAILED_KEPT {
                    self.failed.push(failed);
                }
            }
        }
    }
}

async fn import_line(client: &Client, line: &CatalogLine, batch: &str) -> LineDone {
    try_line(client, line, batch).await.unwrap_or_else(|not_ok| {
        LineDone::Failed(FailedLine {
            line: line.line,
            sku: line.sku.to_string(),
            why: not_ok.to_string(),
            unknown: matches!(not_ok, NotOk::Unknown(_)),
        })
    })
}

async fn try_line(client: &Client, line: &CatalogLine, batch: &str) -> Result<LineDone, NotOk> {
    let within = limits::COMMAND_WITHIN + Duration::from_secs(20);
    let created = client.create_product(&line.sku, line.policy.clone()).deadline(within).await;
    let kept = matches!(created.refusal(), Some(Refusal::AlreadyExists));
    let replayed = if kept { true } else { created.into_result()?.replayed };
    let units = match line.units {
        None => None,
        Some(units) => {
            let reference = reference(batch, line.line).map(|r| r.to_string()).unwrap_or_default();
            let stocked =
                client.receive(&line.sku, units.get() as i64, reference).deadline(within).await.into_result()?;
            Some((units.get(), stocked.replayed))
        }
    };
    Ok(LineDone::Created { kept, replayed, units })
}
