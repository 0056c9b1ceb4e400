//! Finding the `mosaik-node` program.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use anyhow::{Context, Result, anyhow, bail};

/// The program's file name.
const NAME: &str = "mosaik-node";

/// The `mosaik-node` to run: `$MOSAIK_NODE`, else the one beside this executable.
///
/// Where this executable lies in cargo's target directory, `cargo build --bin mosaik-node` of the
/// same profile runs first, once a process: so the program is never missing, and never older than
/// the code.
///
/// # Errors
///
/// If there is none, or it doesn't build.
pub fn node_binary() -> Result<&'static Path> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found = FOUND.get_or_init(|| find().map_err(|error| format!("{error:#}")));
    found.as_deref().map_err(|error| anyhow!("no mosaik-node to run: {error}"))
}

fn find() -> Result<PathBuf> {
    if let Some(path) = env::var_os("MOSAIK_NODE").filter(|path| !path.is_empty()) {
        let path = PathBuf::from(path);
        if !path.is_file() {
            bail!("MOSAIK_NODE names {}, which is no file", path.display());
        }
        return path.canonicalize().context("MOSAIK_NODE");
    }
    let own = env::current_exe().context("cannot tell where this program lies")?;
    let place = Place::of(&own, |path| path.exists()).context("this program lies nowhere")?;
    if let Some(build) = &place.build {
        build.run()?;
    }
    let path = place.directory.join(NAME);
    if !path.is_file() {
        bail!("{} is missing; set MOSAIK_NODE to where it is", path.display());
    }
    Ok(path)
}

/// Where an executable lies.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    /// Where programs are that were built with it.
    directory: PathBuf,
    /// How they are built, in a target directory.
    build: Option<Build>,
}

/// A build into the target directory that an executable lies in.
#[derive(Debug, PartialEq, Eq)]
struct Build {
    target: PathBuf,
    /// The platform, where it was named: `target/<triple>/<profile>`.
    triple: Option<OsString>,
    profile: OsString,
    /// Whether the executable is a test or a benchmark.
    of_tests: bool,
}

impl Place {
    fn of(executable: &Path, exists: impl Fn(&Path) -> bool) -> Option<Self> {
        let directory = executable.parent()?;
        // Tests and benchmarks lie one deeper.
        let is_deps = directory.file_name().is_some_and(|name| name == "deps");
        let directory = if is_deps { directory.parent()? } else { directory };
        Some(Self { directory: directory.to_owned(), build: Build::of(directory, is_deps, exists) })
    }
}

/// A test that is soon built: of core and proto, which have few dependencies.
const SMALL_TEST: &str = "vectors";

/// How the variables begin by which cargo tells a program of the package that it is of.
const PACKAGE_VARIABLES: [&str; 4] =
    ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"];

impl Build {
    /// Cargo marks a target directory by a file; `directory` is one or two below it.
    fn of(directory: &Path, of_tests: bool, exists: impl Fn(&Path) -> bool) -> Option<Self> {
        let is_target = |path: &Path| exists(&path.join(".rustc_info.json"));
        let profile = directory.file_name()?.to_owned();
        let above = directory.parent()?;
        if is_target(above) {
            let (target, triple) = (above.to_owned(), None);
            return Some(Self { target, triple, profile, of_tests });
        }
        let target = above.parent().filter(|path| is_target(path))?;
        let triple = above.file_name().map(Into::into);
        Some(Self { target: target.to_owned(), triple, profile, of_tests })
    }

    /// Runs cargo at the workspace's top, as `cargo test --workspace` there does: then features are
    /// the same, and nothing is built twice.
    fn run(&self) -> Result<()> {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR"))
            .ancestors()
            .nth(2)
            .filter(|path| path.join("Cargo.lock").is_file())
            .context("the source that this was built from is gone; set MOSAIK_NODE")?;
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(&cargo);
        // What cargo tells a test of its own package is no news for a build: build scripts that look
        // at it (ring's does) would run again, and all that depends on them.
        for (name, _) in env::vars_os() {
            let told = name.to_string_lossy();
            if PACKAGE_VARIABLES.iter().any(|prefix| told.starts_with(prefix)) {
                command.env_remove(&name);
            }
        }
        let status = command
            .current_dir(workspace)
            .args(self.arguments())
            .status()
            .with_context(|| format!("cannot run {}", cargo.display()))?;
        if !status.success() {
            bail!("cargo build --bin {NAME} failed ({status})");
        }
        Ok(())
    }

    fn arguments(&self) -> Vec<OsString> {
        // The directory is named for the profile, but for the default one.
        let profile = if self.profile == "debug" { "dev".into() } else { self.profile.clone() };
        let mut arguments: Vec<OsString> = vec!["build".into(), "--bin".into(), NAME.into()];
        arguments.extend(["--profile".into(), profile]);
        arguments.extend(["--target-dir".into(), self.target.clone().into()]);
        if self.of_tests {
            // With a test among what is built, features are those of `cargo test --workspace`, which
            // come from development dependencies too. Else half of all would be built once more.
            arguments.extend(["--test".into(), SMALL_TEST.into()]);
        }
        if let Some(triple) = &self.triple {
            arguments.extend(["--target".into(), triple.clone()]);
        }
        arguments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(executable: &str) -> Place {
        let marked = |path: &Path| path == Path::new("/w/target/.rustc_info.json");
        Place::of(Path::new(executable), marked).expect("an absolute path")
    }

    fn build(triple: Option<&str>, profile: &str, of_tests: bool) -> Option<Build> {
        let (triple, profile) = (triple.map(Into::into), profile.into());
        Some(Build { target: "/w/target".into(), triple, profile, of_tests })
    }

    #[test]
    fn a_program_in_the_target_directory_is_built_with_its_own_profile() {
        let lab = place("/w/target/release/mosaik-lab");
        assert_eq!(lab.directory, Path::new("/w/target/release"));
        assert_eq!(lab.build, build(None, "release", false));
        let built = lab.build.expect("it was compared").arguments();
        assert!(built.windows(2).any(|pair| pair == ["--profile", "release"]));
    }

    #[test]
    fn a_test_binary_lies_one_deeper_and_the_debug_directory_is_profile_dev() {
        let test = place("/w/target/debug/deps/it-0123456789abcdef");
        assert_eq!(test.directory, Path::new("/w/target/debug"));
        assert_eq!(test.build, build(None, "debug", true));
        let built = test.build.expect("it lies in the target directory").arguments();
        assert!(built.windows(2).any(|pair| pair == ["--profile", "dev"]));
        assert!(built.windows(2).any(|pair| pair == ["--test", SMALL_TEST]));
    }

    #[test]
    fn a_named_platform_is_built_for_again() {
        let lab = place("/w/target/aarch64-unknown-linux-gnu/release/mosaik-lab");
        assert_eq!(lab.build, build(Some("aarch64-unknown-linux-gnu"), "release", false));
    }

    #[test]
    fn an_installed_program_builds_nothing() {
        let lab = place("/usr/local/bin/mosaik-lab");
        assert_eq!(lab, Place { directory: "/usr/local/bin".into(), build: None });
    }
}
