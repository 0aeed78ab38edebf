//! Lists the kernels: every file of `shaders/` by its path, so that no list is kept by hand. Says what was built by what.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=shaders");
    let manifest = PathBuf::from(env::var("CARGO_MANIFEST_DIR").expect("set by cargo"));
    list_kernels(&manifest.join("shaders"));
    provenance(&manifest);
}

fn list_kernels(root: &Path) {
    let mut names: Vec<String> = Vec::new();
    for folder in ["", "lib"] {
        let entries = fs::read_dir(root.join(folder)).expect("shaders/ exists");
        for entry in entries {
            let name = entry.expect("readable").file_name();
            let name = name.to_str().expect("UTF-8 file name");
            if let Some(stem) = name.strip_suffix(".wgsl") {
                names.push(match folder {
                    "" => stem.to_owned(),
                    _ => format!("{folder}/{stem}"),
                });
            }
        }
    }
    names.sort();
    let rows: String = names
        .iter()
        .map(|n| {
            format!(
                "    ({n:?}, include_str!(concat!(env!(\"CARGO_MANIFEST_DIR\"), \"/shaders/{n}.wgsl\"))),\n"
            )
        })
        .collect();
    let text = format!("pub const SOURCES: &[(&str, &str)] = &[\n{rows}];\n");
    let out = Path::new(&env::var("OUT_DIR").expect("set by cargo")).join("sources.rs");
    fs::write(out, text).expect("OUT_DIR is writable");
}

/// For results of benchmarks: revision of the source, compiler, wgpu. What cannot be found out is left out.
fn provenance(manifest: &Path) {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=Cargo.toml");
    let set = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            println!("cargo::rustc-env=AQUATINT_BUILD_{name}={value}");
        }
    };
    let rustc = env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    set("RUSTC", said_by(Command::new(rustc).arg("--version")));
    set("WGPU", locked(manifest, "wgpu"));
    // Only where it is measured in earnest: every commit would have debug builds, all tests among them, made anew.
    if env::var("PROFILE").is_ok_and(|profile| profile == "release") {
        set("GIT", published(manifest).or_else(|| revision(manifest)));
    }
}

/// First line of what a program prints; none when it fails or is not there.
fn said_by(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.lines().next().unwrap_or_default().trim().to_owned())
}

/// Version of a package in the lock file of this package, or of the one that is built.
fn locked(manifest: &Path, package: &str) -> Option<String> {
    let out = env::var("OUT_DIR").ok()?;
    let folders = std::iter::once(manifest).chain(Path::new(&out).ancestors());
    let lock = folders.map(|folder| folder.join("Cargo.lock")).find(|path| path.is_file())?;
    println!("cargo::rerun-if-changed={}", lock.display());
    let text = fs::read_to_string(lock).ok()?;
    let entry = text.split("[[package]]").find(|e| e.contains(&format!("\nname = \"{package}\"\n")))?;
    let version = entry.lines().find_map(|line| line.strip_prefix("version = "))?;
    Some(version.trim_matches('"').to_owned())
}

/// The revision that cargo writes into packages.
fn published(manifest: &Path) -> Option<String> {
    let text = fs::read_to_string(manifest.join(".cargo_vcs_info.json")).ok()?;
    let hash = text.split("\"sha1\"").nth(1)?.split('"').nth(1)?;
    Some(hash.get(..12).unwrap_or(hash).to_owned())
}

/// The revision that is checked out, if this is the top of a repository.
fn revision(manifest: &Path) -> Option<String> {
    let git = |arguments: &[&str]| said_by(Command::new("git").current_dir(manifest).args(arguments));
    let top = git(&["rev-parse", "--show-toplevel"])?;
    if fs::canonicalize(top).ok()? != fs::canonicalize(manifest).ok()? {
        return None;
    }
    for file in ["HEAD", "logs/HEAD"] {
        let path = manifest.join(git(&["rev-parse", "--git-path", file])?);
        if path.is_file() {
            println!("cargo::rerun-if-changed={}", path.display());
        }
    }
    // What is changed is compiled anew in any case.
    println!("cargo::rerun-if-changed=src");
    let hash = git(&["rev-parse", "--short=12", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(if changed.is_empty() { hash } else { format!("{hash}-dirty") })
}
