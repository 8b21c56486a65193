//! The shapes with orders, small: real nodes, a real worker, a real provider, and compared books.

use std::process::Command;

fn ledgerctl(args: &[&str], environment: &[(&str, &str)]) -> (serde_json::Value, std::process::Output) {
    let out = Command::new(env!("CARGO_BIN_EXE_ledgerctl"))
        .args(["bench", "--output", "json", "--memory-reserve", "0", "--warmup", "0"])
        .args(args)
        .envs(environment.iter().copied())
        .env_remove("HOLDFAST_ENDPOINTS")
        .output()
        .expect("ledgerctl runs");
    (serde_json::from_slice(&out.stdout).unwrap_or_default(), out)
}

fn good(args: &[&str], environment: &[(&str, &str)]) -> serde_json::Value {
    let (document, out) = ledgerctl(args, environment);
    assert_eq!(out.status.code(), Some(0), "{}\n{document:#}", String::from_utf8_lossy(&out.stderr));
    document
}

/// Both ways to place, in batches: every order is taken, since the reserve before it was.
#[test]
fn orders_are_accepted_in_batches() {
    let shapes = "orders-accepted,orders-placed";
    let bench = good(&["--spawn", "--shape", shapes, "--seconds", "1", "--callers", "2"], &[]);
    let runs = bench["runs"].as_array().expect("runs");
    assert_eq!(runs.len(), 2, "{bench:#}");
    for run in runs {
        assert!(run["ok"].as_u64() > Some(0), "{run:#}");
        assert_eq!((&run["other"], &run["audit_holds"]), (&0.into(), &true.into()), "{run:#}");
    }
}

/// Every order that was placed is sold, paid once at the provider, and told of.
#[test]
fn orders_go_through_worker_and_provider_and_the_books_agree() {
    let bench = good(&["--spawn", "--shape", "orders", "--seconds", "2", "--rate", "40"], &[]);
    let run = &bench["runs"][0];
    let books = &run["orders"];
    assert!(books["placed"].as_u64() > Some(0), "{run:#}");
    assert_eq!((&books["sold"], &books["paid"]), (&books["placed"], &books["placed"]), "{run:#}");
    assert_eq!((&books["unbalanced"], &run["audit_holds"]), (&0.into(), &true.into()), "{run:#}");
    let names: Vec<_> = run["processes"].as_array().expect("processes").iter().map(|p| &p["name"]).collect();
    assert_eq!(names, ["worker-1", "provider"], "{run:#}");
}

/// The provider fails for a while: reservations do not notice, and no order is lost or paid twice.
#[test]
fn an_outage_of_the_provider_delays_orders_and_nothing_else() {
    let args = "--spawn --shape orders-outage --phases 1,1,2 --rate 50 --order-rate 10".split(' ').collect::<Vec<_>>();
    // Half a minute of an open breaker would be most of the test.
    let patience = [("HOLDFAST_WORKER_BREAKER_OPEN", "1s"), ("HOLDFAST_WORKER_RETRY_PAY_MAX", "1s")];
    let bench = good(&args, &patience);
    let outage = &bench["outages"][0];
    let phases = outage["phases"].as_array().expect("phases");
    let names: Vec<_> = phases.iter().map(|p| &p["provider"]).collect();
    assert_eq!(names, ["well", "3 s slow", "down", "back"], "{outage:#}");
    for phase in phases {
        assert!(phase["reserved"].as_u64() > Some(0), "{outage:#}");
        assert_eq!(phase["not_reserved"], 0, "{outage:#}");
    }
    // What was confirmed just before the provider went down is still paid while it is; most of it waits.
    assert!(phases[2]["waiting"].as_u64() > Some(0), "{outage:#}");
    assert!(phases[3]["paid"].as_u64() > Some(0), "{outage:#}");
    let books = &outage["orders"];
    assert_eq!((&books["sold"], &books["paid"]), (&books["placed"], &books["placed"]), "{outage:#}");
    assert_eq!(outage["holds"], true, "{outage:#}");
    assert!(outage["drained_ms"].as_u64() > Some(0), "{outage:#}");
}

/// On a cluster that is not its own, workers of a bench would take orders that are not its own.
#[test]
fn orders_need_a_cluster_of_their_own() {
    for shape in ["orders-accepted", "orders-placed", "orders", "orders-outage"] {
        for more in [&["--endpoints", "127.0.0.1:1", "--yes"][..], &["--catch-up"]] {
            let (document, out) = ledgerctl(&[&["--shape", shape], more].concat(), &[]);
            let told = String::from_utf8_lossy(&out.stderr);
            assert_eq!(out.status.code(), Some(2), "{told}");
            assert!(told.contains("a cluster of its own") && document.is_null(), "{told}");
        }
    }
}

#[test]
fn phases_are_three_times() {
    for phases in ["1,1", "1,0,1", "1,1,1,1", "soon"] {
        let (_, out) = ledgerctl(&["--spawn", "--shape", "orders-outage", "--phases", phases], &[]);
        let told = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(2), "{told}");
        assert!(told.contains("three numbers of seconds"), "{told}");
    }
}
