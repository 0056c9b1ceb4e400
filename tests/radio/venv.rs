//! The Python side: a virtual environment with the reference implementation and with meshlogd.
//!
//! It is made once, in the target directory, and used by all who come after.

use std::{
    env, fs,
    fs::File,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

/// What is installed. Each is a test's peer, and nothing of it comes into the program.
const PACKAGES: [&str; 2] = ["rns==1.5.7", "meshlogd==0.5.0"];

/// The environment.
#[derive(Debug, Clone)]
pub(crate) struct Venv(PathBuf);

/// Why there is none, in words for a test's list.
pub(crate) struct Missing(pub(crate) &'static str);

impl Venv {
    /// The one that is there, or a new one.
    pub(crate) fn find() -> Result<Self, Missing> {
        let runs = |words: &[&str]| {
            let mut command = Command::new("python3");
            command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        };
        if !runs(&["-c", "import sys; sys.exit(sys.version_info < (3, 9))"]) {
            return Err(Missing("needs python3, 3.9 or newer"));
        }
        if !runs(&["-c", "import venv, ensurepip"]) {
            return Err(Missing("needs the package python3-venv"));
        }
        Self::make().map_err(|error| {
            // The list has room for a word only.
            say(&format!("no Python environment for the tests of radio: {error:#}"));
            Missing("needs pip and its registry")
        })
    }

    fn make() -> Result<Self> {
        let name = format!("radio-venv-{}", PACKAGES.join("-").replace("==", "-"));
        let path = target()?.join(name);
        let (complete, lock) = (path.join("complete"), path.with_extension("lock"));
        let lock = File::create(&lock).with_context(|| format!("cannot write {lock:?}"))?;
        // Others make it now: they are waited for.
        lock.lock().context("cannot lock")?;
        if !complete.exists() {
            if path.exists() {
                fs::remove_dir_all(&path).context("cannot remove half an environment")?;
            }
            run(Command::new("python3").args(["-m", "venv"]).arg(&path))?;
            let mut pip = Command::new(path.join("bin/python"));
            let quiet = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
            run(pip.args(quiet).args(PACKAGES))?;
            File::create(&complete)?;
        }
        Ok(Self(path))
    }

    /// A program of it.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.0.join("bin").join(name)
    }
}

/// The target directory, in which this program lies.
fn target() -> Result<PathBuf> {
    let program = env::current_exe()?;
    let found = program.ancestors().nth(3).filter(|path| path.join("CACHEDIR.TAG").exists());
    Ok(found.map_or_else(env::temp_dir, Path::to_owned))
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("cannot run {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {said}");
    Ok(())
}

#[expect(clippy::print_stderr, reason = "nothing captures what is said before the tests")]
fn say(text: &str) {
    eprintln!("{text}");
}
