//! A zone of memory is a node of the guest's, and what runs in it uses its memory.

use tests::memory::{Guest, MIB};
use tests::{Kernel, setup};

tests::on_every_kernel!(zones_are_nodes);
tests::on_a_kernel_or_every!(a_command_uses_the_memory_of_its_zone);

/// For each node its number, what it holds and its CPUs.
const NODES: &str = r#"
for node in /sys/devices/system/node/node[0-9]*; do
    echo "${node##*/}: $(sed -n 's/.*MemTotal: *//p' $node/meminfo), cpus '$(cat $node/cpulist)', from it $(cat $node/distance)"
done
cat /proc/sys/kernel/numa_balancing 2> /dev/null || echo 0
"#;

fn zones_are_nodes(kernel: &Kernel) {
    let ballast = setup();
    let ended = ballast
        .run("busybox", &["sh", "-c", NODES])
        .options(kernel.options())
        .options([
            "-m",
            "256m",
            "--zone",
            "name=cache,size=128m",
            "--zone",
            "name=big,size=256m,hugepages=off",
        ])
        .start()
        .end();
    let ended = ended.exits(0);
    let output = String::from_utf8_lossy(&ended.stdout);
    let lines: Vec<&str> = output.lines().collect();
    let [nodes @ .., balancing] = &lines[..] else { panic!("{ended}") };
    let zones = [(256, "0", "10 20 20"), (128, "", "20 10 20"), (256, "", "20 20 10")];
    assert_eq!(nodes.len(), zones.len(), "{ended}");
    for (number, (node, (mib, cpus, distances))) in nodes.iter().zip(zones).enumerate() {
        let kib = node.strip_prefix(&format!("node{number}: ")).and_then(|rest| rest.split_once(" kB"));
        let (kib, rest) = kib.unwrap_or_else(|| panic!("{ended}"));
        // Page structures are a zone's own, and the kernel lies in the first.
        let least = if number == 0 { mib * 3 / 4 } else { mib * 31 / 32 };
        assert!((least..=mib).contains(&(kib.parse::<u64>().unwrap() / 1024)), "{ended}");
        assert_eq!(rest, format!(", cpus '{cpus}', from it {distances}"));
    }
    assert_eq!(*balancing, "0", "it would move pages between zones");
}

fn a_command_uses_the_memory_of_its_zone(kernel: &Kernel) {
    let ballast = setup();
    let mut guest = Guest::start_with(&ballast, |run| {
        let run = run.options(kernel.options()).options(["-m", "256m", "--zone", "name=cache,size=256m"]);
        run.options(["--in-zone", "cache"])
    });
    let resident = |guest: &Guest| {
        let _ = guest.fresh_memory();
        let zones = guest.answer("GET", "/v1/zones", "");
        [0, 1].map(|zone| zones.0["zones"][zone]["resident_bytes"].as_u64().unwrap())
    };
    let before = resident(&guest);
    guest.does("zero file 200");
    let after = resident(&guest);
    println!("ram and cache: {before:?}, then {after:?}");
    assert!(after[1] >= before[1] + 190 * MIB, "{before:?} {after:?}");
    assert!(after[0] <= before[0] + 24 * MIB, "{before:?} {after:?}");
    // What it frees is its zone's again.
    guest.does("free file");
    let reported = || {
        let zones = guest.answer("GET", "/v1/zones", "");
        zones.0["zones"][1]["reported_bytes"].as_u64().unwrap()
    };
    tests::run::until(|| reported() > 150 * MIB, || format!("{} bytes", reported()));
    // No more than there is in it.
    guest.is_told("zero file 300");
    guest.ran_out_of_memory();
}
