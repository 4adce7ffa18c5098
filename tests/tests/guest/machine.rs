//! The guest has the machine that was asked for.

use tests::setup;

#[test]
fn it_has_what_was_asked_for_and_entropy_at_once() {
    let options = ["--name", "ship", "-e", "CARGO=tea", "-w", "/etc", "-u", "1000:1000", "--cpus", "2"];
    let script = "echo name $(hostname), cargo $CARGO, in $(pwd), user $(id -u)
        echo cpus $(nproc)
        echo open files $(ulimit -Sn) to $(ulimit -Hn)
        echo entropy $(head -c 16 /dev/random | wc -c), $(cut -d . -f 1 /sys/class/misc/hw_random/rng_current)";
    let run = setup().run("busybox", &["sh", "-c", script]).options(options);
    run.options(["--ulimit", "nofile=100:200"]).end().exits(0).prints(
        "name ship, cargo tea, in /etc, user 1000\ncpus 2\nopen files 100 to 200\nentropy 16, virtio_rng\n",
    );
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
fn its_processes_are_limited() {
    let script = "for i in $(seq 50); do sleep 100 & done; echo unlimited";
    let ended = setup().run("busybox", &["sh", "-c", script]).options(["--pids-limit", "20"]).end();
    assert_ne!(ended.code, 0, "{ended}");
    assert!(ended.stdout.is_empty(), "{ended}");
}
