//! Limits on the workload hold.

use tests::setup;

#[test]
fn resource_limits_are_the_workloads() {
    let script = "ulimit -Sn; ulimit -Hn";
    let run = setup().run("busybox", &["sh", "-c", script]).options(["--ulimit", "nofile=100:200"]);
    run.end().exits(0).prints("100\n200\n");
}

#[test]
fn the_number_of_processes_is_limited() {
    let script = "for i in $(seq 50); do sleep 100 & done; echo unlimited";
    let ended = setup().run("busybox", &["sh", "-c", script]).options(["--pids-limit", "20"]).end();
    assert_ne!(ended.code, 0, "{ended}");
    assert!(ended.stdout.is_empty(), "{ended}");
}
