//! Regression test: runs the fuzz targets over their corpus on the stable compiler.
#![cfg(all(feature = "gzip", feature = "json", feature = "zstd"))]

use std::path::Path;

#[path = "../../fuzz/targets.rs"]
mod targets;

/// Runs the target on every file of its corpus, on truncated files, and on files with one changed
/// byte.
fn replay(name: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz/corpus")
        .join(name);
    let mut files = 0;
    for file in std::fs::read_dir(&folder).expect("the corpus") {
        let file = file.expect("the corpus");
        let bytes = std::fs::read(file.path()).expect("a readable file");
        files += 1;
        check(&bytes);
        for at in 0..bytes.len().min(200) {
            check(&bytes[..at]);
            let mut changed = bytes.clone();
            for byte in [0xc1, 0xdd, bytes[at] ^ 1] {
                changed[at] = byte;
                check(&changed);
            }
        }
    }
    assert!(files > 0, "no corpus in {}", folder.display());
}

#[test]
fn decoder() {
    replay("decoder", targets::decoder);
}

#[test]
fn decompression() {
    replay("decompression", targets::decompression);
}

#[test]
fn handshake() {
    replay("handshake", targets::handshake);
}

#[test]
fn json() {
    replay("json", targets::json);
}

#[test]
fn session() {
    replay("session", targets::session);
}
