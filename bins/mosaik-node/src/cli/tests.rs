//! What the command line takes, and what it refuses.

use clap::error::ErrorKind;

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("mosaik-node").chain(line.split_whitespace()))
}

fn noun(line: &str) -> Noun {
    match parse(line) {
        Ok(Cli { noun: Some(noun), .. }) => noun,
        Ok(_) => panic!("{line}: no noun"),
        Err(error) => panic!("{line}: {error}"),
    }
}

#[test]
fn the_grammar_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn without_a_noun_a_node_runs() {
    let cli = parse("--network x --listen 127.0.0.1:1 --listen [::1]:2 --peer a --peer b")
        .expect("a run");
    assert!(cli.noun.is_none());
    assert_eq!(cli.place.network.as_deref(), Some("x"));
    let said = layer(&cli.place, &cli.run);
    assert_eq!(said["listen"], ["127.0.0.1:1", "[::1]:2"]);
    assert_eq!(said["peers"], ["a", "b"]);
}

#[test]
fn every_run_flag_reaches_its_setting() {
    let cli = parse(
        "run --name n --listen a --dht-bootstrap b --pkarr-relay i --relay c --peer d --no-mdns --lan --lab --metered --sync-interval 1 \
         --sync-jitter 2 --rate-down 3 --rate-up 6 --connections-max 7 --store-max 4 --retention x:5d --log-level debug --log-format json --log-dir e \
         --data-dir f --network-file g",
    )
    .expect("all of them");
    let Some(Noun::Run(run)) = cli.noun else { panic!("a run") };
    let said = layer(&cli.place, &run);
    for (name, value) in [
        ("name", "n"),
        ("listen", "a"),
        ("dht", "true"),
        ("dht_bootstrap", "b"),
        ("pkarr_relays", "i"),
        ("relay", "true"),
        ("relays", "c"),
        ("peers", "d"),
        ("mdns", "false"),
        ("lan", "true"),
        ("lab", "true"),
        ("metered", "true"),
        ("sync_interval", "1"),
        ("sync_jitter", "2"),
        ("rate_down", "3"),
        ("rate_up", "6"),
        ("connections_max", "7"),
        ("store_max", "4"),
        ("retention", "x:5d"),
        ("log_level", "debug"),
        ("log_format", "json"),
        ("log_dir", "e"),
        ("data_dir", "f"),
        ("network_file", "g"),
    ] {
        assert_eq!(said.get(name).map(Vec::as_slice), Some(&[value.to_owned()][..]), "{name}");
    }
    let off = parse("--no-dht --no-relay --lan-only").expect("all of them");
    let said = layer(&off.place, &off.run);
    assert_eq!((said["dht"][0].as_str(), said["relay"][0].as_str()), ("false", "false"));
    assert_eq!(said["lan_only"], ["true"]);
    assert!(layer(&Place::default(), &RunFlags::default()).is_empty());
}

#[test]
fn flags_before_and_after_run_are_the_same() {
    let cli = parse("--name a --sync-interval 5 run --name b").expect("both places");
    let Some(Noun::Run(own)) = cli.noun else { panic!("a run") };
    let said = layer(&cli.place, &own.or(cli.run));
    assert_eq!((said["name"][0].as_str(), said["sync_interval"][0].as_str()), ("b", "5"));
}

#[test]
fn singular_and_plural_of_a_noun_are_one_word() {
    for (one, many) in [
        ("peer", "peers"),
        ("slot", "slots"),
        ("feed", "feeds"),
        ("event", "events"),
        ("record", "records"),
        ("network", "networks"),
        ("conflict", "conflicts"),
    ] {
        let (one, many) = (format!("{:?}", noun(one)), format!("{:?}", noun(many)));
        assert_eq!(one, many);
    }
}

#[test]
fn every_verb_is_taken_after_either_form_of_its_noun() {
    for line in [
        "status",
        "status --json",
        "status --check",
        "doctor --json",
        "--json status",
        "id --ticket",
        "peers list --json",
        "peer show 3f2a",
        "peers add mpeer1x",
        "peers block 3f2a",
        "peer unblock 3f2a",
        "peer forget 3f2a",
        "ping 3f2a --count 1",
        "probe",
        "probe --timeout 5 --csv - --plot probe.svg",
        "slots list",
        "slots --watch --json",
        "slots list --watch",
        "slot show 15",
        "frontier --json",
        "feeds list",
        "feed show 3f2a",
        "conflicts",
        "view --digest",
        "events --since 5 --follow --json",
        "events list --since 5",
        "event emit sensor.reading {}",
        "records --form f --archived",
        "record list --form f",
        "record create --form f",
        "record create R-1 --form f a=1 b:text=2 --if-absent",
        "record set R-1 a=1",
        "record note R-1 hello",
        "record get R-1 --json",
        "record show R-1",
        "record archive R-1 --undo",
        "import a.csv --form f --id-column id",
        "import - --form f --id-column id --format jsonl",
        "import log.jsonl --format meshlog",
        "export --format csv --form f",
        "wait --peers 2 --timeout 5",
        "wait --synced",
        "wait --ready --timeout 0.5",
        "wait --record R-1 --field a=1 --field b:text=2",
        "network new --label l",
        "network new --qr",
        "network show --qr",
        "networks list",
        "config",
        "config show --origin --sync-interval 5",
        "config --origin",
        "config list",
        "config check",
        "serve dht",
        "serve dht --listen 127.0.0.1:6881 --bootstrap a:1 --bootstrap b:2 --public-ip 192.0.2.1 --json",
        "completions bash",
        "run",
    ] {
        noun(line);
    }
}

#[test]
fn place_and_json_may_stand_anywhere() {
    for line in [
        "--data-dir /d --network n --json record get R",
        "record --data-dir /d get --network n R --json",
        "record get R --json --data-dir /d --network n",
    ] {
        let cli = parse(line).expect(line);
        assert!(cli.json);
        assert_eq!(cli.place.network.as_deref(), Some("n"));
        assert_eq!(cli.place.data_dir, Some(PathBuf::from("/d")));
    }
}

#[test]
fn what_is_wrong_is_refused_and_a_typo_gets_a_hint() {
    for (line, kind) in [
        ("statsu", ErrorKind::InvalidSubcommand),
        ("record crete --form f", ErrorKind::InvalidSubcommand),
        ("--netwrok x", ErrorKind::UnknownArgument),
        ("record create", ErrorKind::MissingRequiredArgument),
        ("record set R-1", ErrorKind::MissingRequiredArgument),
        ("record set R-1 a", ErrorKind::ValueValidation),
        ("record set R-1 a:int=x", ErrorKind::ValueValidation),
        ("wait", ErrorKind::MissingRequiredArgument),
        ("wait --peers 1 --synced", ErrorKind::ArgumentConflict),
        ("wait --field a=1 --ready", ErrorKind::ArgumentConflict),
        ("wait --field a=1", ErrorKind::MissingRequiredArgument),
        ("wait --peers x", ErrorKind::ValueValidation),
        ("slot show 16", ErrorKind::ValueValidation),
        ("export --format xml", ErrorKind::InvalidValue),
        ("completions tcsh", ErrorKind::InvalidValue),
        ("--network a --network-file b", ErrorKind::ArgumentConflict),
        ("--no-dht --dht-bootstrap a:1", ErrorKind::ArgumentConflict),
        ("--lan-only --dht-bootstrap a:1", ErrorKind::ArgumentConflict),
        ("--lan-only --relay https://a.example", ErrorKind::ArgumentConflict),
        ("--lan-only --pkarr-relay https://a.example", ErrorKind::ArgumentConflict),
        ("--lan-only --no-mdns", ErrorKind::ArgumentConflict),
        ("--no-relay --relay https://a", ErrorKind::ArgumentConflict),
    ] {
        let error = parse(line).expect_err(line);
        assert_eq!(error.kind(), kind, "{line}: {error}");
        assert_eq!(error.exit_code(), 2, "{line}");
    }
    let hint = parse("statsu").expect_err("a typo").to_string();
    assert!(hint.contains("status"), "{hint}");
}

#[test]
fn a_flag_of_a_node_is_not_silently_passed_over_by_a_verb() {
    let cli = parse("--listen 127.0.0.1:1 status").expect("taken apart");
    let Err(Failed::With(failure)) = execute(cli) else { panic!("refused") };
    assert_eq!(failure.code.exit(), 2);
}
