//! What the compiler says to somebody who forgot a line.

#![cfg(feature = "full")]

use std::{fs, path::Path, process::Command};

/// Compiles a file against this crate and returns what the compiler said; panics if it was content.
fn complaint(name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let crate_dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(crate_dir.join("src")).unwrap();
    fs::copy(root.join(format!("tests/compile_fail/{name}.rs")), crate_dir.join("src/main.rs")).unwrap();
    if root.join("Cargo.lock").exists() {
        fs::copy(root.join("Cargo.lock"), crate_dir.join("Cargo.lock")).unwrap();
    }
    let manifest = format!(
        "[package]\nname = \"{name}\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[workspace]\n[dependencies]\n\
         buttress = {{ path = {root:?} }}\ntower = {{ version = \"0.5\", features = [\"util\"] }}\n"
    );
    fs::write(crate_dir.join("Cargo.toml"), manifest).unwrap();
    let output = Command::new(env!("CARGO"))
        .args(["check", "--quiet", "--offline", "--color=never"])
        .current_dir(&crate_dir)
        .env("CARGO_TARGET_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).join("target"))
        .env_remove("RUSTFLAGS")
        .output()
        .unwrap();
    assert!(!output.status.success(), "it compiles");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_foreign_error_is_told_which_line_to_add() {
    let complaint = complaint("foreign_error");
    for part in [
        "a layer that refuses needs an error that can carry a refusal, and `std::io::Error` cannot",
        "add this line below the stack: `.map_err(buttress::Error::Service)`",
        "buttress::check::<u32, _>(&stack)",
    ] {
        assert!(complaint.contains(part), "{part:?} is not in:\n{complaint}");
    }
}

#[test]
fn a_handler_without_errors_is_told_what_to_wrap() {
    let complaint = complaint("infallible_handler");
    for part in [
        "a layer that refuses needs an error that can carry a refusal, and `Infallible` cannot",
        "wrap the layers: `buttress::http::respond(layers)`",
    ] {
        assert!(complaint.contains(part), "{part:?} is not in:\n{complaint}");
    }
}
