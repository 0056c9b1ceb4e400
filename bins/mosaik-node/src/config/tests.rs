//! Every setting, from every place.

use super::*;

/// For each setting two values that are not the default.
const SAMPLES: [(&str, &str, &str); 36] = [
    ("data_dir", "/a", "/b"),
    ("name", "hq", "team"),
    ("listen", "0.0.0.0:4242", "[::]:4343"),
    ("dht", "false", "true"),
    ("dht_bootstrap", "a.example:6881", "b.example:6881"),
    ("pkarr_relays", "https://a.example", "http://b.example"),
    ("relay", "false", "true"),
    ("relays", "https://a.example", "https://b.example"),
    ("relay_only", "true", "false"),
    ("relay_ca", "/etc/ca.pem", "/home/team/ca.pem"),
    ("peers", "", ""),
    ("mdns", "false", "true"),
    ("lan", "true", "false"),
    ("lan_only", "true", "false"),
    ("lab", "true", "false"),
    ("metered", "true", "false"),
    ("sync_interval", "7", "8"),
    ("sync_jitter", "9", "10"),
    ("rate_down", "1000", "2000"),
    ("rate_up", "3000", "4000"),
    ("connections_max", "1", "4096"),
    ("rns", "rnsd", "tcp://192.0.2.1:4242"),
    ("rns_config", "/e", "/f"),
    ("rns_bitrate", "3125", "1200"),
    ("rns_airtime", "1%", "100%"),
    ("rns_first", "alert", "alert.*"),
    ("rns_meshlog", "true", "false"),
    ("rns_broadcast", "true", "false"),
    ("store_max", "3000000", "0"),
    ("retention", "x:5d", "y.*:1GB"),
    ("attachments", "none", "photo:20MB"),
    ("attachments_max", "1000", "0"),
    ("archive", "true", "false"),
    ("log_level", "debug", "error"),
    ("log_format", "json", "text"),
    ("log_dir", "/c", "/d"),
];

fn ticket(byte: u8) -> String {
    Ticket {
        node: mosaik_core::id::NodeId([byte; 32]),
        relays: Vec::new(),
        addresses: vec!["192.0.2.1:4242".parse().expect("an address")],
    }
    .to_string()
}

fn samples() -> Vec<(&'static Key, String, String)> {
    SAMPLES
        .iter()
        .map(|(name, one, other)| {
            let key = KEYS.into_iter().find(|key| key.name == *name).expect("a setting");
            match *name {
                "peers" => (key, ticket(1), ticket(2)),
                _ => (key, (*one).to_owned(), (*other).to_owned()),
            }
        })
        .collect()
}

fn machine() -> Machine {
    Machine { is_root: false, home: Some("/home/u".into()), host_name: "host".into() }
}

fn flag(key: &Key, value: &str) -> Layer {
    Layer::from([(key.name, vec![value.to_owned()])])
}

fn loaded(flags: &Layer, env: &[(&str, &str)], file: Option<&str>) -> Result<Loaded, ConfigError> {
    let lookup = |name: &str| {
        env.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    };
    load(&Sources {
        flags,
        env: &lookup,
        file: file.map(|text| (Path::new("/etc/node.toml"), text)),
        machine: &machine(),
    })
}

fn shown(loaded: &Loaded, key: &Key) -> (String, Origin) {
    let (_, value, origin) = loaded
        .settings
        .iter()
        .find(|(name, ..)| *name == key.name)
        .expect("every setting is shown");
    (value.clone(), origin.clone())
}

fn toml_line(key: &Key, value: &str) -> String {
    match key.kind {
        // It takes a way into Reticulum.
        _ if *key == RNS_MESHLOG => format!("rns = [\"rnsd\"]\n{} = {value}", key.name),
        Kind::Text => format!("{} = {value:?}", key.name),
        Kind::List => format!("{} = [{value:?}]", key.name),
        Kind::Number | Kind::Switch => format!("{} = {value}", key.name),
    }
}

#[test]
fn flags_go_before_variables_these_before_the_file_and_this_before_defaults() {
    for (key, one, other) in samples() {
        let in_file = toml_line(key, &one);
        let from_file = loaded(&Layer::new(), &[], Some(&in_file)).expect("a valid file");
        let file_origin = Origin::File("/etc/node.toml".into());
        assert_eq!(shown(&from_file, key), (one.clone(), file_origin), "{}", key.name);

        let env = [(key.env, other.as_str())];
        let from_env = loaded(&Layer::new(), &env, Some(&in_file)).expect("valid");
        assert_eq!(shown(&from_env, key), (other.clone(), Origin::Env(key.env)), "{}", key.name);

        let flags = flag(key, &one);
        let from_flag = loaded(&flags, &env, Some(&toml_line(key, &other))).expect("valid");
        assert_eq!(shown(&from_flag, key), (one, Origin::Flag), "{}", key.name);

        let silent = loaded(&Layer::new(), &[], None).expect("valid");
        assert_eq!(shown(&silent, key).1, Origin::Default, "{}", key.name);
    }
}

#[test]
fn samples_are_of_every_setting_but_the_network() {
    let sampled: Vec<_> = SAMPLES.iter().map(|(name, ..)| *name).collect();
    let all: Vec<_> =
        KEYS.iter().map(|key| key.name).filter(|name| !name.starts_with("network")).collect();
    assert_eq!(sampled, all);
}

#[test]
fn a_bridge_to_meshlogd_takes_a_way_into_reticulum() {
    let refused = loaded(&Layer::new(), &[], Some("rns_meshlog = true")).expect_err("no way");
    let text = refused.to_string();
    assert!(text.starts_with("rns_meshlog = \"true\" (/etc/node.toml): meshlogd is"), "{text}");
}

#[test]
fn a_node_that_has_but_relays_cannot_be_told_to_have_none() {
    for other in ["relay = false", "lan_only = true"] {
        let file = format!("relay_only = true\n{other}\n");
        let refused = loaded(&Layer::new(), &[], Some(&file)).expect_err("nobody could be reached");
        let text = refused.to_string();
        assert!(
            text.starts_with("relay_only = \"true\" (/etc/node.toml): without relays"),
            "{text}"
        );
    }
}

#[test]
fn a_metered_node_saves_where_nothing_else_is_said() {
    let metered = loaded(&flag(&METERED, "true"), &[], None).expect("valid");
    assert_eq!((metered.config.sync_interval_s, metered.config.sync_jitter_s), (600, 300));
    assert_eq!(shown(&metered, &ATTACHMENTS).0, "none");
    assert_eq!(metered.config.attachments, ["none".parse().expect("a rule")]);
    let file = "sync_interval = 60\nattachments = [\"photo:1MB\"]\n";
    let said = loaded(&flag(&METERED, "true"), &[], Some(file)).expect("valid");
    assert_eq!((said.config.sync_interval_s, said.config.sync_jitter_s), (60, 300));
    assert_eq!(said.config.attachments, ["photo:1MB".parse().expect("a rule")]);
}

#[test]
fn an_old_name_counts_where_the_new_one_is_not_set() {
    for (key, one, other) in samples() {
        let Some(old) = key.old_env else { continue };
        let from_old = loaded(&Layer::new(), &[(old, &one)], None).expect("valid");
        assert_eq!(shown(&from_old, key), (one.clone(), Origin::Env(old)));
        let both = [(old, one.as_str()), (key.env, other.as_str())];
        let from_new = loaded(&Layer::new(), &both, None).expect("valid");
        assert_eq!(shown(&from_new, key), (other, Origin::Env(key.env)));
    }
    let old: Vec<_> = KEYS.iter().filter_map(|key| key.old_env).collect();
    assert_eq!(
        old,
        ["STORAGE_DIR", "NETWORK_SYNC_INTERVAL", "NETWORK_SYNC_JITTER", "LOG_LEVEL", "LOG_DIR"]
    );
}

#[test]
fn the_old_levels_count_and_an_unknown_one_is_refused_with_the_list() {
    for (old, level) in
        [("WARNING", Level::Warn), ("CRITICAL", Level::Error), ("INFO", Level::Info)]
    {
        let loaded = loaded(&Layer::new(), &[("LOG_LEVEL", old)], None).expect("an old level");
        assert_eq!(loaded.config.log_level, level);
    }
    let error = loaded(&Layer::new(), &[("LOG_LEVEL", "LOUD")], None).expect_err("no level");
    let text = error.to_string();
    assert!(
        text.contains("LOUD") && text.contains("LOG_LEVEL") && text.contains("trace"),
        "{text}"
    );
}

#[test]
fn a_boot_node_gets_a_note_that_none_is_needed() {
    let loaded = loaded(&Layer::new(), &[("BOOT_NODE", "tcp://10.0.0.1:1")], None).expect("valid");
    assert!(loaded.notes[0].contains("none is needed"), "{:?}", loaded.notes);
}

#[test]
fn an_empty_variable_counts_as_not_given() {
    let loaded = loaded(&Layer::new(), &[("MOSAIK_SYNC_INTERVAL", "")], None).expect("valid");
    assert_eq!(loaded.config.sync_interval_s, 60);
}

#[test]
fn a_list_in_a_variable_has_commas() {
    let env = [("MOSAIK_LISTEN", "127.0.0.1:1, [::1]:2")];
    let loaded = loaded(&Layer::new(), &env, None).expect("valid");
    let expected: Vec<SocketAddr> =
        vec!["127.0.0.1:1".parse().expect("v4"), "[::1]:2".parse().expect("v6")];
    assert_eq!(loaded.config.listen, expected);
}

#[test]
fn a_bad_value_is_named_with_its_place() {
    for (key, value) in [
        (&LISTEN, "4242"),
        (&DHT, "maybe"),
        (&DHT_BOOTSTRAP, "router.example"),
        (&DHT_BOOTSTRAP, "router.example:0"),
        (&PKARR_RELAYS, "relay.example"),
        (&RELAYS, "relay.example"),
        (&PEERS, "mpeer1qqq"),
        (&SYNC_INTERVAL, "0"),
        (&SYNC_INTERVAL, "1.5"),
        (&SYNC_JITTER, "-1"),
        (&RATE_DOWN, "1k"),
        (&RATE_UP, "1k"),
        (&CONNECTIONS_MAX, "0"),
        (&CONNECTIONS_MAX, "4097"),
        (&CONNECTIONS_MAX, "many"),
        (&LOG_FORMAT, "xml"),
        (&NAME, "a\nb"),
    ] {
        let by_flag = loaded(&flag(key, value), &[], None).expect_err(value).to_string();
        assert!(by_flag.starts_with(key.name) && by_flag.contains("(flag)"), "{by_flag}");
        let by_env = loaded(&Layer::new(), &[(key.env, value)], None).expect_err(value).to_string();
        assert!(by_env.contains(key.env), "{by_env}");
    }
}

#[test]
fn a_file_with_an_unknown_setting_or_a_wrong_type_is_refused() {
    for (text, says) in [
        ("sync_intervall = 5", "no setting"),
        ("sync_interval = \"5\"", "whole number"),
        ("dht = \"no\"", "true or false"),
        ("listen = \"0.0.0.0:1\"", "list"),
        ("listen = [1]", "list"),
        ("name = 5", "quotes"),
        ("name = ", "not readable"),
    ] {
        let error = loaded(&Layer::new(), &[], Some(text)).expect_err(text).to_string();
        assert!(error.contains(says) && error.contains("/etc/node.toml"), "{error}");
    }
}

#[test]
fn a_secret_network_id_has_no_place_in_the_file_and_is_not_repeated() {
    let error =
        loaded(&Layer::new(), &[], Some("network = \"MNET1secret\"")).expect_err("a secret");
    let text = error.to_string();
    assert!(text.contains("network_file") && !text.contains("secret\""), "{text}");
    let loaded = loaded(&flag(&NETWORK, "mnet1secret"), &[], None).expect("read later");
    assert!(!format!("{loaded:?}").contains("mnet1secret"));
}

#[test]
fn the_network_is_taken_from_the_strongest_place_that_names_one() {
    let by =
        |flags: &Layer, env: &[(&str, &str)], file| loaded(flags, env, file).map(|l| l.network);
    let none = by(&Layer::new(), &[], None).expect("valid");
    assert_eq!(none, None);
    let file = by(&Layer::new(), &[], Some("network_file = \"/n\"")).expect("valid");
    assert_eq!(file, Some(NetworkSource::File("/n".into(), Origin::File("/etc/node.toml".into()))));
    let env = [("MOSAIK_NETWORK", "demo")];
    let env = by(&Layer::new(), &env, Some("network_file = \"/n\"")).expect("valid");
    assert_eq!(env, Some(NetworkSource::Id("demo".into(), Origin::Env("MOSAIK_NETWORK"))));
    let flags = flag(&NETWORK_FILE, "/m");
    let flags = by(&flags, &[("MOSAIK_NETWORK", "demo")], None).expect("valid");
    assert_eq!(flags, Some(NetworkSource::File("/m".into(), Origin::Flag)));
    let both = [("MOSAIK_NETWORK", "demo"), ("MOSAIK_NETWORK_FILE", "/n")];
    assert!(by(&Layer::new(), &both, None).is_err());
}

#[test]
fn the_data_directory_follows_state_directory_then_the_user() {
    let by_systemd =
        loaded(&Layer::new(), &[("STATE_DIRECTORY", "/state:/more")], None).expect("valid");
    assert_eq!(by_systemd.config.data_dir, Path::new("/state"));
    let by_home = loaded(&Layer::new(), &[], None).expect("valid");
    assert_eq!(by_home.config.data_dir, Path::new("/home/u/.local/share/mosaik-node"));
    let root = Machine { is_root: true, ..machine() };
    let none = Layer::new();
    let by_root =
        load(&Sources { flags: &none, env: &|_| None, file: None, machine: &root }).expect("valid");
    assert_eq!(by_root.config.data_dir, Path::new("/var/lib/mosaik-node"));
}

#[test]
fn a_host_name_that_is_too_long_or_missing_still_gives_a_name() {
    assert_eq!(default_name(&"é".repeat(40)).len(), 64);
    assert_eq!(default_name("\u{7}"), "unnamed");
}

/// The shipped file comments every setting out, at its default: to uncomment a line changes nothing.
#[test]
fn the_shipped_file_has_every_setting_at_its_default() {
    let shipped = include_str!("../../../../deploy/node.toml");
    let is_setting = |line: &&str| line.starts_with('#') && line.contains(" = ");
    let lines: Vec<_> = shipped
        .lines()
        .filter_map(|line| line.strip_prefix('#'))
        .filter(|line| {
            line.split_once(" = ").is_some_and(|(name, _)| KEYS.iter().any(|k| k.name == name))
        })
        .collect();
    let named: Vec<_> =
        lines.iter().map(|line| line.split(" = ").next().expect("a name")).collect();
    let all: Vec<_> = KEYS.iter().map(|key| key.name).collect();
    assert_eq!(named, all);
    let as_shipped = loaded(&Layer::new(), &[], Some(shipped)).expect("valid as it is");
    let silent = loaded(&Layer::new(), &[], None).expect("valid");
    assert_eq!(as_shipped.config, silent.config);
    for line in lines {
        let uncommented = loaded(&Layer::new(), &[], Some(line)).expect(line);
        let depends_on_the_machine =
            ["data_dir", "name", "network", "network_file", "log_dir", "relay_ca", "rns_config"]
                .iter()
                .any(|name| line.starts_with(name));
        if !depends_on_the_machine {
            assert_eq!(uncommented.config, silent.config, "{line}");
        }
    }
    assert!(shipped.lines().filter(is_setting).count() >= KEYS.len());
}
