//! A volume keeps what was written to it.

use rustix::process::{Signal, kill_process};
use tests::setup;

#[test]
fn synced_data_survives_the_death_of_the_vmm() {
    let ballast = setup();
    let script = "echo precious > /data/file && sync && echo synced && sleep 1000";
    let writer = ballast.run("busybox", &["sh", "-c", script]).options(["-v", "survivor:/data"]).start();
    writer.wait_for("synced");
    kill_process(writer.vmm(), Signal::KILL).unwrap();
    writer.end().exits(137);
    let reader = ballast.run("busybox", &["cat", "/data/file"]).options(["-v", "survivor:/data:ro"]);
    reader.end().exits(0).prints("precious\n");
}

#[test]
fn a_read_only_volume_is_read_only() {
    let ballast = setup();
    ballast.run("busybox", &["touch", "/data/file"]).options(["-v", "fixed:/data"]).end().exits(0);
    let refused = ballast.run("busybox", &["rm", "/data/file"]).options(["-v", "fixed:/data:ro"]).end();
    refused.exits(1).says("Read-only file system");
}

#[test]
fn a_volume_has_one_user_at_a_time() {
    let ballast = setup();
    let options = ["-v", "single:/data"];
    let first = ballast.run("busybox", &["sh", "-c", "echo mine; sleep 1000"]).options(options).start();
    first.wait_for("mine");
    ballast.run("busybox", &["true"]).options(options).end().refuses().says("in use");
}

#[test]
fn a_disk_is_what_its_file_is() {
    let ballast = setup();
    let disk = ballast.file("disk", &[0; 1 << 20]);
    let script = "printf written | dd of=/dev/vda bs=1k seek=512 conv=fsync 2> /dev/null; blockdev --getsize64 /dev/vda";
    let run = ballast.run("busybox", &["sh", "-c", script]).options(["--disk".as_ref(), disk.as_os_str()]);
    run.end().exits(0).prints("1048576\n");
    let content = std::fs::read(&disk).unwrap();
    assert_eq!(&content[512 << 10..(512 << 10) + 8], b"written\0");
}
