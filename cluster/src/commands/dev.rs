//! `ledgerctl dev`: a cluster on this machine until Ctrl-C.
//!
//! **Owns** its start, its words and its clean end. **Must never** leave a process behind. **Read next**: [`crate::dev_cluster`].

use serde::Serialize;

use crate::catalog::Catalog;
use crate::cli::DevArgs;
use crate::dev_cluster::{DevCluster, NodeProgram};
use crate::limits;
use crate::output::{Failure, Outcome, Printer, num, table, text};

#[derive(Debug, Serialize)]
struct DevDoc {
    endpoints: Vec<String>,
    directory: String,
    nodes: Vec<DevNodeDoc>,
}

#[derive(Debug, Serialize)]
struct DevNodeDoc {
    node: u64,
    pid: Option<u32>,
    client: String,
    http: String,
    log: String,
}

pub(super) async fn run(args: DevArgs, printer: Printer) -> Outcome {
    let refused = |e: &dyn std::fmt::Display| Failure::refused(e.to_string());
    let catalog = args
        .catalog
        .as_ref()
        .map(|path| Catalog::open(path).map_err(|errors| super::import::bad_file(path, &errors)))
        .transpose()?;
    let temporary = match &args.dir {
        Some(_) => None,
        None => Some(tempfile::Builder::new().prefix("holdfast-dev-").tempdir().map_err(|e| refused(&e))?),
    };
    let dir = args.dir.clone().or_else(|| temporary.as_ref().map(|t| t.path().to_owned())).unwrap_or_default();
    let program = NodeProgram::this().map_err(|e| refused(&e))?;
    eprintln!("starting {} nodes in {} …", args.nodes, dir.display());
    let mut cluster = DevCluster::start(program, &dir, args.nodes, 0, &[]).await.map_err(|e| refused(&e))?;
    if let Some(catalog) = catalog {
        let client = crate::link::connect(&cluster.endpoints()).await?;
        let done = super::import_lines(&client, &catalog.lines, "dev-catalog").await;
        eprintln!("imported {} units of {} products", done.received_units, done.created);
        client.close().await;
    }
    let document = DevDoc {
        endpoints: cluster.endpoints(),
        directory: dir.display().to_string(),
        nodes: cluster
            .nodes()
            .iter()
            .map(|n| DevNodeDoc {
                node: n.id,
                pid: n.pid(),
                client: n.client.clone(),
                http: n.http.clone(),
                log: n.log().display().to_string(),
            })
            .collect(),
    };
    printer.print(&document, |d| {
        table(
            ["NODE", "PID", "CLIENT", "HTTP", "LOG"],
            d.nodes.iter().map(|n| {
                [
                    num(n.node),
                    num(n.pid.unwrap_or(0)),
                    text(&n.client),
                    text(format!("http://{}", n.http)),
                    text(&n.log),
                ]
            }),
        )
    })?;
    eprintln!("hint: export HOLDFAST_ENDPOINTS={}", cluster.endpoints().join(","));
    eprintln!("hint: ledgerctl status");
    eprintln!("Ctrl-C stops it.");
    let ended = until_interrupted(&mut cluster).await;
    eprintln!("stopping …");
    cluster.stop_all().await;
    ended
}

async fn until_interrupted(cluster: &mut DevCluster) -> Outcome {
    let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .map_err(|e| Failure::refused(format!("signals: {e}")))?;
    let mut tick = tokio::time::interval(limits::TRY_WITHIN);
    loop {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => return Ok(()),
            _ = term.recv() => return Ok(()),
            _ = tick.tick() => {
                for id in 1..=cluster.nodes().len() as u64 {
                    cluster.check_alive(id).map_err(|e| Failure::refused(e.to_string()))?;
                }
            }
        }
    }
}
