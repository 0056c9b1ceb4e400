//! The repository's rules: what may be depended on, which of our crates uses which, and what lies
//! where. All of it offline, from `cargo metadata` and the files themselves.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
    sync::OnceLock,
};

use cargo_metadata::{Metadata, MetadataCommand, Package};
use mosaik_tests::{data, repository};
use spdx::{Expression, Licensee, ParseMode};

/// Licences that ask for no more than a notice, or for the changes to the licensed file itself.
/// `.deny.toml` has the same list for those who run cargo-deny.
const LICENCES: [&str; 14] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MPL-2.0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
    "bzip2-1.0.6",
];

/// The only place that dependencies come from.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Faults that the radio of others has, and that of this one has not.
const FAULTS: usize = 17;

/// Crates whose types or state pass between others: a second version would not fit the first.
const ONLY_ONE: [&str; 12] = [
    "blake3",
    "iroh",
    "iroh-base",
    "iroh-gossip",
    "iroh-relay",
    "mainline",
    "pkarr",
    "rand",
    "redb",
    "ring",
    "rustls",
    "tokio",
];

/// Crates that are there in two versions, and who is behind.
const DOUBLED: [(&str, &str); 30] = [
    ("aead", "aes-gcm 0.10 of noq-proto; chacha20poly1305 has the new one"),
    ("base64", "igd-next, acme and websockets of iroh"),
    ("bitflags", "smoltcp, optional for personal-rns, in the lock file only"),
    ("block-buffer", "sha2 0.10"),
    ("cipher", "aes-gcm 0.10 of noq-proto"),
    ("cpufeatures", "aes-gcm 0.10 of noq-proto"),
    ("crypto-common", "aes-gcm 0.10 of noq-proto"),
    ("curve25519-dalek", "personal-rns has the old one; its keys stay in mosaik-reticulum"),
    ("digest", "sha2 0.10"),
    ("ed25519", "ed25519-dalek 2"),
    ("ed25519-dalek", "personal-rns has the old one; its keys stay in mosaik-reticulum"),
    ("embedded-hal", "optional for smoltcp, in the lock file only"),
    ("embedded-io", "optional ones of postcard and smoltcp, in the lock file only"),
    ("getrandom", "ring, and ntimestamp of pkarr"),
    ("hash32", "heapless 0.7"),
    ("hashbrown", "dashmap of iroh-relay"),
    ("heapless", "optional ones of postcard and smoltcp; personal-rns has its own"),
    ("inout", "aes-gcm 0.10 of noq-proto"),
    ("nb", "optional for smoltcp, in the lock file only"),
    ("netlink-packet-core", "netwatch of iroh"),
    ("netlink-packet-route", "netwatch of iroh"),
    ("netlink-sys", "netwatch of iroh"),
    ("pem", "acme of iroh-relay"),
    ("rand_core", "ed25519-dalek 2"),
    ("sha2", "ed25519-dalek 2"),
    ("signature", "ed25519-dalek 2"),
    ("spin", "flume of mainline"),
    ("syn", "macros move from 2 to 3 one by one; build time only"),
    ("synstructure", "asn1-rs, with syn 2; build time only"),
    ("universal-hash", "aes-gcm 0.10 of noq-proto"),
];

/// Who may use whom among our crates: the arrows of `crates/README.md`.
const ARROWS: [(&str, &[&str]); 11] = [
    ("mosaik-core", &[]),
    ("mosaik-proto", &["mosaik-core"]),
    ("mosaik-store", &["mosaik-core"]),
    ("mosaik-dht", &["mosaik-core"]),
    ("mosaik-api", &["mosaik-core"]),
    ("mosaik-net", &["mosaik-core", "mosaik-proto"]),
    ("mosaik-reticulum", &["mosaik-core", "mosaik-proto"]),
    ("mosaik-sim", &["mosaik-core", "mosaik-proto", "mosaik-reticulum", "mosaik-store"]),
    (
        "mosaik-node",
        &[
            "mosaik-api",
            "mosaik-core",
            "mosaik-dht",
            "mosaik-net",
            "mosaik-proto",
            "mosaik-reticulum",
            "mosaik-store",
        ],
    ),
    (
        "mosaik-lab",
        &[
            "mosaik-api",
            "mosaik-core",
            "mosaik-dht",
            "mosaik-net",
            "mosaik-node",
            "mosaik-proto",
            "mosaik-reticulum",
            "mosaik-sim",
            "mosaik-store",
        ],
    ),
    (
        "mosaik-tests",
        &[
            "mosaik-api",
            "mosaik-core",
            "mosaik-dht",
            "mosaik-lab",
            "mosaik-proto",
            "mosaik-reticulum",
            "mosaik-sim",
        ],
    ),
];

/// Everything at the top of the repository, besides dotfiles.
const TOP: [&str; 8] =
    ["Cargo.lock", "Cargo.toml", "LICENSE", "README.md", "bins", "crates", "deploy", "tests"];

/// Crates that put bytes on a wire or a disk, and so describe them.
const WITH_FORMAT: [&str; 7] = [
    "mosaik-api",
    "mosaik-core",
    "mosaik-dht",
    "mosaik-net",
    "mosaik-proto",
    "mosaik-reticulum",
    "mosaik-store",
];

#[test]
fn every_licence_is_on_the_permissive_list() {
    let allowed: Vec<_> =
        LICENCES.map(|name| Licensee::parse(name).expect("the list holds SPDX names")).into();
    let mut refused = Vec::new();
    for package in foreign() {
        let text = package.license.as_deref().unwrap_or("none");
        let passes = Expression::parse_mode(text, ParseMode::LAX)
            .is_ok_and(|e| e.evaluate(|asked| allowed.iter().any(|a| a.satisfies(asked))));
        if !passes {
            refused.push(format!("{} {}: {text}", package.name, package.version));
        }
    }
    assert!(refused.is_empty(), "licences outside the list:\n{}", refused.join("\n"));
}

#[test]
fn a_licence_outside_the_list_would_be_seen() {
    let mit = Licensee::parse("MIT").expect("an SPDX name");
    let passes = |text: &str| {
        Expression::parse_mode(text, ParseMode::LAX)
            .is_ok_and(|expression| expression.evaluate(|asked| mit.satisfies(asked)))
    };
    assert!(passes("GPL-3.0-only OR MIT") && passes("Apache-2.0/MIT"));
    assert!(!passes("GPL-3.0-only") && !passes("MIT AND GPL-3.0-only") && !passes("none"));
}

#[test]
fn cargo_deny_is_told_the_same_licences() {
    let text = read(".deny.toml");
    let list = text.split("allow = [").nth(1).and_then(|rest| rest.split(']').next());
    let listed: BTreeSet<_> = list
        .expect("[licenses] has a list")
        .split(',')
        .map(|item| item.trim().trim_matches('"'))
        .filter(|item| !item.is_empty())
        .collect();
    assert_eq!(listed, BTreeSet::from(LICENCES));
}

#[test]
fn every_dependency_comes_from_the_registry() {
    let elsewhere: Vec<_> = foreign()
        .filter(|package| package.source.as_ref().is_none_or(|source| source.repr != REGISTRY))
        .map(|package| format!("{} from {:?}", package.name, package.source))
        .collect();
    assert!(elsewhere.is_empty(), "{}", elsewhere.join("\n"));
}

#[test]
fn crates_whose_types_are_shared_are_there_once() {
    let versions = versions();
    for name in ONLY_ONE {
        let found = versions.get(name).cloned().unwrap_or_default();
        assert_eq!(found.len(), 1, "{name} is there as {found:?}");
    }
}

#[test]
fn every_doubled_crate_has_a_known_reason() {
    let known = BTreeMap::from(DOUBLED);
    let unknown: Vec<_> = versions()
        .into_iter()
        .filter(|(name, versions)| versions.len() > 1 && !known.contains_key(name.as_str()))
        .collect();
    assert!(unknown.is_empty(), "doubled without a reason: {unknown:?}");
}

#[test]
fn arrows_between_our_crates_are_those_of_the_map() {
    let mut found = BTreeMap::new();
    for package in ours() {
        let used: BTreeSet<_> = package
            .dependencies
            .iter()
            .filter(|dependency| dependency.path.is_some())
            .map(|dependency| dependency.name.clone())
            .collect();
        found.insert(package.name.to_string(), used);
    }
    let expected: BTreeMap<_, BTreeSet<_>> = ARROWS
        .into_iter()
        .map(|(name, used)| (name.to_owned(), used.iter().map(|&name| name.to_owned()).collect()))
        .collect();
    assert_eq!(found, expected);
}

/// `--no-default-features` builds a node without the radio: nothing of it is compiled.
#[test]
fn a_node_without_the_radio_depends_on_nothing_of_it() {
    let tree = |switches: &[&str]| -> String {
        let output = Command::new(env!("CARGO"))
            .current_dir(repository())
            .args(["tree", "--locked", "--offline", "--edges", "normal,build"])
            .args(["--prefix", "none", "--format", "{p} has {f}", "--target", &host()])
            .args(switches)
            .output()
            .expect("cargo runs these tests");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let node = |switches: &[&str]| -> BTreeSet<String> {
        let text = tree(&[&["--package", "mosaik-node"], switches].concat());
        text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
    };
    let of_radio = |name: &&String| {
        ["personal-rns", "prns-", "mosaik-reticulum"].iter().any(|it| name.starts_with(it))
    };
    let whole = node(&[]);
    assert!(whole.iter().filter(of_radio).count() >= 3, "{whole:?}");
    let without = node(&["--no-default-features"]);
    assert!(without.contains("mosaik-net"), "{without:?}");
    assert_eq!(without.iter().filter(of_radio).collect::<Vec<_>>(), Vec::<&String>::new());
    // Built at the top, where cargo joins what all of our crates ask of it.
    let features = |switches: &[&str]| -> String {
        let text = tree(&[&["--workspace", "--depth", "0"], switches].concat());
        let mut lines = text.lines().filter(|line| line.starts_with("mosaik-node "));
        let (_, features) =
            lines.next().and_then(|line| line.split_once(" has ")).expect("it is ours");
        features.to_owned()
    };
    assert_eq!(features(&[]), "default,reticulum");
    assert_eq!(features(&["--no-default-features"]), "");
}

/// The table of the radio's README names for each fault the tests that show that it doesn't hold here, as
/// `file::test`. They are there.
#[test]
fn each_fault_that_the_radio_is_without_has_its_tests() {
    let readme = read("crates/mosaik-reticulum/README.md");
    let (_, table) = readme.split_once("| fault | shown by |").expect("the table");
    let table = table.split("\n\n").next().unwrap_or_default();
    let faults: Vec<_> =
        table.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| -")).collect();
    assert_eq!(faults.len(), FAULTS, "{faults:#?}");
    for fault in faults {
        let tests: Vec<_> = fault.split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "nothing shows that this doesn't hold: {fault}");
        for test in tests {
            let (file, name) = test.rsplit_once("::").unwrap_or_default();
            let (file, name) = (format!("/{file}.rs"), format!("fn {name}("));
            let mut of_that_name = files().iter().filter(|path| path.ends_with(&file));
            assert!(of_that_name.any(|path| read(path).contains(&name)), "{test} is not there");
        }
    }
}

#[test]
fn our_crates_are_never_published_by_accident_and_share_one_licence() {
    for package in ours() {
        assert_eq!(package.publish.as_deref(), Some(&[][..]), "{} may be published", package.name);
        assert_eq!(package.license.as_deref(), Some("Apache-2.0"), "{}", package.name);
    }
    assert!(read("LICENSE").contains("Version 2.0, January 2004"));
}

#[test]
fn the_top_of_the_repository_holds_what_it_should_and_nothing_else() {
    let top: BTreeSet<_> = files()
        .iter()
        .map(|path| path.split('/').next().unwrap_or(path).to_owned())
        .filter(|name| !name.starts_with('.'))
        .collect();
    assert_eq!(top, TOP.map(str::to_owned).into());
}

#[test]
fn crates_with_bytes_describe_them() {
    for name in WITH_FORMAT {
        let path = repository().join("crates").join(name).join("FORMAT.md");
        assert!(path.is_file(), "{} is missing", path.display());
    }
}

#[test]
fn core_and_proto_refuse_clocks_disks_sockets_and_randomness() {
    let core = read("crates/mosaik-core/clippy.toml");
    assert_eq!(core, read("crates/mosaik-proto/clippy.toml"), "the two crates have one rule");
    for path in [
        "std::time::Instant",
        "std::time::SystemTime",
        "std::fs::File",
        "std::fs::read",
        "std::net::UdpSocket",
        "std::env::var",
        "std::thread::sleep",
        "rand::rng",
        "getrandom::fill",
    ] {
        assert!(core.contains(&format!("path = \"{path}\"")), "{path} is not refused");
    }
}

#[test]
fn no_source_file_puts_work_off() {
    let marks = ["todo", "unimplemented"].map(|name| format!("{name}!("));
    let skipped = format!("#[{}", "ignore");
    for path in files().iter().filter(|path| path.ends_with(".rs")) {
        let text = read(path);
        for mark in marks.iter().chain([&skipped]) {
            assert!(!text.contains(mark), "{path} has {mark}");
        }
    }
}

#[test]
fn the_airports_are_those_that_their_readme_names() {
    let bytes = fs::read(data("airports.csv")).expect("test data is part of the repository");
    let rows = bytes.iter().filter(|byte| **byte == b'\n').count() - 1;
    assert_eq!((bytes.len(), rows), (210_365, 3_376));
}

/// What cargo knows of this workspace, for this machine's platform: what it builds from.
fn metadata() -> &'static Metadata {
    static METADATA: OnceLock<Metadata> = OnceLock::new();
    METADATA.get_or_init(|| {
        MetadataCommand::new()
            .manifest_path(repository().join("Cargo.toml"))
            .other_options(
                ["--locked", "--offline", "--filter-platform", &host()].map(str::to_owned),
            )
            .exec()
            .expect("what these tests were built from is here, so cargo can describe it")
    })
}

fn host() -> String {
    let output = Command::new("rustc").arg("-vV").output().expect("rustc built this");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.expect("rustc names its host").to_owned()
}

fn ours() -> Vec<&'static Package> {
    metadata().workspace_packages()
}

fn foreign() -> impl Iterator<Item = &'static Package> {
    let members = &metadata().workspace_members;
    metadata().packages.iter().filter(move |package| !members.contains(&package.id))
}

fn versions() -> BTreeMap<String, BTreeSet<String>> {
    let mut versions = BTreeMap::<_, BTreeSet<_>>::new();
    for package in &metadata().packages {
        versions.entry(package.name.to_string()).or_default().insert(package.version.to_string());
    }
    versions
}

/// All files of the repository, by path from its top; without git what lies there, bar `target`.
fn files() -> &'static [String] {
    static FILES: OnceLock<Vec<String>> = OnceLock::new();
    FILES.get_or_init(|| {
        let top = repository();
        let listed = Command::new("git").arg("-C").arg(&top).args(["ls-files", "-z"]).output();
        if let Ok(output) = listed
            && output.status.success()
            && !output.stdout.is_empty()
        {
            let text = String::from_utf8(output.stdout).expect("our paths are text");
            // One that is deleted and not yet committed is gone.
            let paths = text.split_terminator('\0').filter(|path| top.join(path).exists());
            return paths.map(str::to_owned).collect();
        }
        let mut files = Vec::new();
        walk(&top, "", &mut files);
        files
    })
}

fn walk(top: &Path, under: &str, files: &mut Vec<String>) {
    for entry in fs::read_dir(top.join(under)).expect("the repository can be read").flatten() {
        let name = entry.file_name().into_string().expect("our paths are text");
        let path = if under.is_empty() { name } else { format!("{under}/{name}") };
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            files.push(path);
        } else if path != "target" && path != ".git" {
            walk(top, &path, files);
        }
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(repository().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}
