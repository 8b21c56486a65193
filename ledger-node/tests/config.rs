//! Configuration: which source wins, what is refused, and that what is printed can be read back.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use ledger_node::config::NodeConfig;
use settings::{ConfigError, Settings as _};

type Loaded = settings::Loaded<NodeConfig>;

fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("node.toml");
    std::fs::write(&path, text).expect("written");
    (dir, path)
}

fn load(flags: &[(&'static str, &str)], environment: &[(&str, &str)], text: &str) -> Result<Loaded, ConfigError> {
    let (_dir, path) = file(text);
    let flags: BTreeMap<_, _> = flags.iter().map(|&(key, value)| (key, value.to_owned())).collect();
    let environment = environment.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
    Loaded::from_sources(&flags, environment, Some(&path))
}

#[test]
fn flags_win_over_the_environment_over_the_file_over_defaults() {
    let text = "[raft]\nheartbeat = \"100ms\"\nelection_min = \"450ms\"\nkeep_entries = 7\n";
    let environment = [("HOLDFAST_RAFT_HEARTBEAT", "110ms"), ("HOLDFAST_RAFT_ELECTION_MIN", "500ms")];
    let loaded = load(&[("raft.heartbeat", "120ms")], &environment, text).expect("valid");
    assert_eq!(loaded.config.raft.heartbeat, Duration::from_millis(120));
    assert_eq!(loaded.config.raft.election_min, Duration::from_millis(500));
    assert_eq!(loaded.config.raft.keep_entries, 7);
    let printed = loaded.to_toml();
    for line in [
        "heartbeat = \"120ms\" # flag --raft-heartbeat",
        "election_min = \"500ms\" # environment HOLDFAST_RAFT_ELECTION_MIN",
        "election_max = \"600ms\" # default",
    ] {
        assert!(printed.contains(line), "{line} in\n{printed}");
    }
    assert!(printed.contains("keep_entries = 7 # file "), "{printed}");
}

#[test]
fn what_is_printed_is_a_file_that_means_the_same() {
    let loaded = load(
        &[("client.advertise", "node-1:7101"), ("node_id", "3"), ("http.hosts", "ledger.example, proxy")],
        &[],
        "",
    )
    .expect("valid");
    let again = load(&[], &[], &loaded.to_toml()).expect("the printed file is valid");
    assert_eq!(format!("{:?}", again.config), format!("{:?}", loaded.config));
}

#[test]
fn an_unknown_key_is_an_error_that_names_the_nearest() {
    let refused = load(&[], &[], "[raft]\nheartbeet = \"1s\"\n").expect_err("unknown");
    assert!(
        matches!(&refused, ConfigError::UnknownKey { key, nearest: "raft.heartbeat", .. } if key == "raft.heartbeet"),
        "{refused}"
    );
    assert!(matches!(load(&[], &[], "x = [\n"), Err(ConfigError::NotToml { .. })));
}

#[test]
fn mistyped_variable_is_an_error_and_those_of_other_programs_pass() {
    let refused = load(&[], &[("HOLDFAST_RAFT_HEARTBEET", "1s")], "").expect_err("unknown").to_string();
    assert!(refused.contains("did you mean HOLDFAST_RAFT_HEARTBEAT?"), "{refused}");
    let refused = load(&[], &[("HOLDFAST_ENDPOINT", "n1:7101")], "").expect_err("unknown").to_string();
    assert!(refused.contains("did you mean HOLDFAST_ENDPOINTS?"), "{refused}");
    let others = [
        ("HOLDFAST_WORKER_LEASE", "1s"),
        ("HOLDFAST_BRIDGE_FROM", "now"),
        ("HOLDFAST_ENDPOINTS", "n1:7101"),
        ("HOLDFAST_CONFIG", "node.toml"),
        ("HOLDFAST_SERVICE_PORT", "7101"),
        ("HOLDFAST_PORT", "tcp://10.0.0.1:7101"),
    ];
    load(&[], &others, "").expect("none of them is a mistyped key");
}

#[test]
fn bad_values_name_the_key_where_it_was_set_and_what_is_allowed() {
    let cases = [
        ("raft.heartbeat", "5", "a duration from 1ms"),
        ("queue.calls", "1", "a whole number from 64"),
        ("raft.segment_bytes", "65536", "a whole number from 20971520"),
        ("raft.segment_bytes", "4294967296", "to 2147483648"),
        ("client.listen", "localhost", "an address is host:port"),
        ("client.listen", "::1:7101", "an address is host:port"),
        ("client.advertise", "here:0", "other hosts can connect"),
        ("http.hosts", "ledger.example:80", "names without ports"),
        ("balance.on", "maybe", "true or false"),
        ("log.format", "xml", "text or json"),
    ];
    for (key, value, allowed) in cases {
        let refused = load(&[(key, value)], &[], "").expect_err(key).to_string();
        let flag = format!("flag --{}", key.replace(['.', '_'], "-"));
        assert!(refused.contains(key) && refused.contains(allowed) && refused.contains(&flag), "{refused}");
    }
}

#[test]
fn values_that_contradict_each_other_are_refused() {
    let conflicts: [&[(&'static str, &str)]; 5] = [
        &[("raft.heartbeat", "400ms")],
        &[("raft.election_max", "400ms")],
        &[("call.within_default", "2m")],
        &[("raft.clock_jump_max", "900ms")],
        &[("client.listen", "0.0.0.0:7101")],
    ];
    for flags in conflicts {
        assert!(matches!(load(flags, &[], ""), Err(ConfigError::Conflict(_))), "{flags:?}");
    }
    let advertised = [("client.listen", "0.0.0.0:7101"), ("client.advertise", "n1:7101"), ("insecure", "true")];
    load(&advertised, &[], "").expect("advertised");
}

#[test]
fn listener_that_others_can_reach_needs_insecure() {
    for (port, address) in [
        ("client.listen", "10.0.0.1:7101"),
        ("http.listen", "[fd00::1]:7102"),
        ("peer.listen", "node-1:7103"),
        ("peer.listen", "192.168.0.1:0"),
    ] {
        let refused = load(&[(port, address)], &[], "").expect_err(address).to_string();
        assert!(refused.contains(port) && refused.contains(address) && refused.contains("--insecure"), "{refused}");
        load(&[(port, address), ("insecure", "true")], &[], "").expect("by name");
        load(&[(port, address)], &[("HOLDFAST_INSECURE", "true")], "").expect("by its variable");
        load(&[(port, address)], &[], "insecure = true\n").expect("by its key");
    }
    for address in ["127.0.0.1:7101", "127.0.0.9:0", "localhost:7101", "[::1]:7101"] {
        load(&[("client.listen", address)], &[], "").expect(address);
    }
}

#[test]
fn every_key_has_its_own_flag_and_variable() {
    let mut flags: Vec<_> = NodeConfig::KEYS.iter().map(settings::Key::flag).collect();
    flags.sort();
    flags.dedup();
    assert_eq!(flags.len(), NodeConfig::KEYS.len());
}
