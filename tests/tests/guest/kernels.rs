//! Unmodified distribution kernels boot.

use std::fs;
use std::path::PathBuf;
use tests::setup;

fn boots(name: &str) {
    let directory =
        PathBuf::from(std::env::var_os("BALLAST_TEST_KERNELS").expect("set by ci/promises")).join(name);
    let release = fs::read_to_string(directory.join("release")).unwrap();
    let kernel = directory.join("vmlinuz");
    let modules = directory.join("lib/modules").join(release.trim());
    let options = ["--kernel".as_ref(), kernel.as_os_str(), "--modules".as_ref(), modules.as_os_str()];
    setup().run("busybox", &["uname", "-r"]).options(options).end().exits(0).prints(&release);
}

#[test]
fn debian_6_1_cloud() {
    boots("6.1-cloud");
}

#[test]
fn debian_6_1() {
    boots("6.1");
}

#[test]
fn debian_6_12_cloud() {
    boots("6.12-cloud");
}
