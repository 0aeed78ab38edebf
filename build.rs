//! Lists the kernels: every file of `shaders/` by its path, so that no list is kept by hand.

use std::{env, fs, path::Path};

fn main() {
    println!("cargo::rerun-if-changed=shaders");
    let root = Path::new(&env::var("CARGO_MANIFEST_DIR").expect("set by cargo")).join("shaders");
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
