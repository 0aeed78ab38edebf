//! The program from outside: what it prints where, its exit codes, the files it leaves.

use std::process::{Command, Output, Stdio};

fn aquatint() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aquatint"));
    command.env_remove("RUST_BACKTRACE");
    command
}

/// On a machine without any driver, whatever this one has.
fn without_gpu() -> Command {
    let mut command = aquatint();
    command.env("VK_ICD_FILENAMES", "/nonexistent").env("VK_DRIVER_FILES", "/nonexistent");
    command.args(["--backend", "vulkan"]);
    command
}

fn has_gpu() -> bool {
    let found = !aquatint::gpu::adapters(&aquatint::AdapterOptions::from_env()).unwrap().is_empty();
    if !found {
        assert!(std::env::var_os("REQUIRE_GPU").is_none(), "REQUIRE_GPU is set, and there is no adapter");
        eprintln!("skipped: no GPU adapter");
    }
    found
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

/// Runs, expects success and returns stdout.
fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}\n{}", stdout(&output), stderr(&output));
    stdout(&output).to_owned()
}

/// Runs, expects `code`, one message on stderr and none of the marks of a crash; returns the message.
fn fail(command: &mut Command, code: i32) -> String {
    let output = command.output().unwrap();
    let message = stderr(&output).to_owned();
    assert_eq!(output.status.code(), Some(code), "{}\n{message}", stdout(&output));
    assert_eq!(message.matches("error: ").count(), 1, "{message}");
    assert!(!message.contains("panicked"), "{message}");
    message
}

fn json(command: &mut Command) -> serde_json::Value {
    serde_json::from_str(&succeed(command)).unwrap()
}

#[test]
fn wrong_usage_exits_with_2() {
    for args in
        [&["frobnicate"][..], &["devices", "--colour"], &["--backend", "opengl", "devices"], &["classify"]]
    {
        fail(aquatint().args(args), 2);
    }
    let output = aquatint().env("AQUATINT_BACKEND", "glide").arg("devices").output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
}

#[test]
fn help_and_version_go_to_stdout() {
    assert!(succeed(aquatint().arg("--help")).contains("devices"));
    assert!(succeed(aquatint().arg("--version")).contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn devices_are_listed_and_chosen() {
    if !has_gpu() {
        return;
    }
    let all = json(aquatint().args(["devices", "--json"]));
    let first = &all[0];
    assert_eq!(first["index"], 0);
    assert_eq!(first["chosen"], true);
    assert!(first["limits"]["max_binding"].as_u64().unwrap() >= 1 << 20, "{first}");
    assert!(first["features"]["f16"].is_boolean(), "{first}");
    let name = first["name"].as_str().unwrap();
    let text = succeed(aquatint().arg("devices"));
    assert!(text.contains(name) && text.contains("shared memory"), "{text}");
    // By name, by number, by variable, the option before the variable.
    succeed(aquatint().args(["devices", "--adapter", &name.to_uppercase()]));
    succeed(aquatint().env("AQUATINT_ADAPTER", "0").arg("devices"));
    succeed(aquatint().env("AQUATINT_ADAPTER", "none such").args(["--adapter", "0", "devices"]));
    let message = fail(aquatint().env("AQUATINT_ADAPTER", "none such").arg("devices"), 1);
    assert!(message.contains("none such") && message.contains(name), "{message}");
}

#[test]
fn no_driver_is_one_clear_message() {
    let message = fail(without_gpu().arg("devices"), 1);
    assert!(message.contains("mesa-vulkan-drivers"), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let mut child = aquatint().arg("--help").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(!stderr(&output).contains("panicked"), "{}", stderr(&output));
}
