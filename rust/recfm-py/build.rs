//! Hands the target triple, which only Cargo knows, to `build_info`.

fn main() {
    println!(
        "cargo::rustc-env=RECFM_TARGET={}",
        std::env::var("TARGET").unwrap_or_default()
    );
    println!("cargo::rerun-if-changed=build.rs");
}
