//! The guest has the machine that was asked for.

use tests::setup;

#[test]
fn it_has_the_cpus() {
    setup().run("busybox", &["nproc"]).options(["--cpus", "2"]).end().exits(0).prints("2\n");
}

#[test]
fn it_has_the_memory_on_both_sides_of_the_mmio_gap() {
    let script = "sed -n 's/MemTotal: *//p' /proc/meminfo";
    let ended = setup().run("busybox", &["sh", "-c", script]).options(["-m", "5g"]).end().exits(0);
    let text = String::from_utf8(ended.stdout).unwrap();
    let total_kib: u64 = text.trim().strip_suffix(" kB").unwrap().parse().unwrap();
    assert!((4_700_000..5 << 20).contains(&total_kib), "{total_kib} KiB of 5 GiB");
}

#[test]
fn it_runs_in_96_mib() {
    setup().run("busybox", &["echo", "small"]).options(["-m", "96m"]).end().exits(0).prints("small\n");
}

#[test]
fn it_has_the_name_the_environment_and_the_directory() {
    let options = ["--name", "ship", "-e", "CARGO=tea", "-w", "/etc", "-u", "1000:1000"];
    let script = "hostname; echo $CARGO; pwd; id -u";
    let ended = setup().run("busybox", &["sh", "-c", script]).options(options).end();
    ended.exits(0).prints("ship\ntea\n/etc\n1000\n");
}

#[test]
fn it_has_entropy_at_once() {
    let script = "head -c 16 /dev/random | wc -c; cat /sys/class/misc/hw_random/rng_current";
    let ended = setup().run("busybox", &["sh", "-c", script]).end().exits(0);
    assert!(ended.stdout.starts_with(b"16\nvirtio_rng"), "{ended}");
}
