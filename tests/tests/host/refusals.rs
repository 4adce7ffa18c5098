//! What cannot work is refused with 125 and a sentence that says what to do.

use std::path::PathBuf;
use std::process::Command;
use tests::Ballast;

fn rootfs() -> PathBuf {
    PathBuf::from(std::env::var_os("BALLAST_TEST_FIXTURES").expect("set by ci/promises"))
        .join("busybox/rootfs")
}

#[test]
fn a_kernel_of_garbage() {
    let ballast = Ballast::empty();
    let kernel = ballast.file("garbage", &[0x55; 1 << 16]);
    let run = ballast.run(rootfs(), &["true"]).options(["--kernel".as_ref(), kernel.as_os_str()]);
    run.end().refuses().says("garbage");
}

#[test]
fn a_kernel_that_is_cut_off() {
    let whole = std::fs::read(std::env::var_os("BALLAST_KERNEL").expect("set by ci/promises")).unwrap();
    let ballast = Ballast::empty();
    let kernel = ballast.file("half", &whole[..whole.len() / 2]);
    let run = ballast.run(rootfs(), &["true"]).options(["--kernel".as_ref(), kernel.as_os_str()]);
    run.end().refuses().says("half");
}

#[test]
fn an_image_that_is_not_there() {
    Ballast::empty().run("no-such-image", &["true"]).end().refuses().says("no-such-image");
}

#[test]
fn an_image_of_garbage() {
    let ballast = Ballast::empty();
    let image = ballast.file("garbage.tar", &[0x55; 1 << 16]);
    ballast.run(&image, &["true"]).end().refuses().says("garbage.tar");
}

#[test]
fn a_memory_too_small() {
    Ballast::empty().run(rootfs(), &["true"]).options(["-m", "16m"]).end().refuses().says("96 MiB");
}

#[test]
fn a_terminal_that_is_none() {
    Ballast::empty().run(rootfs(), &["true"]).options(["-t"]).end().refuses().says("terminal");
}

#[test]
fn a_name_that_is_none() {
    Ballast::empty().run(rootfs(), &["true"]).options(["--name", "../x"]).end().refuses().says("../x");
}

#[test]
fn an_option_that_is_none() {
    Ballast::empty().run(rootfs(), &["true"]).options(["--no-such-option"]).end().refuses();
}

#[test]
fn a_volume_that_is_none() {
    Ballast::empty().run(rootfs(), &["true"]).options(["-v", "nonsense"]).end().refuses().says("nonsense");
}

#[test]
fn help_that_cannot_be_written() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let ended = Command::new(Ballast::empty().program()).arg("--help").stdout(full).output().unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert!(ended.status.code() == Some(125) && said.contains("standard output"), "{said}");
}
