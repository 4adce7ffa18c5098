//! The agent as PID 1 of a real machine.
//!
//! Each test boots at least one machine under QEMU's emulation, with a host that the test plays: so it can be
//! one that makes no sense. `ci/test init` installs what is needed and runs them.

// The lints spare test functions by themselves, but not the harness around them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod machine;
#[path = "guest/orders.rs"]
mod orders;
#[path = "guest/samples.rs"]
mod samples;
#[path = "guest/streams.rs"]
mod streams;

use std::ffi::CString;
use std::sync::LazyLock;

use machine::{End, Layer, Machine};
use proto::{ExitStatus, Spec, ToGuest, ToHost};

static BUSYBOX: LazyLock<Layer> = LazyLock::new(|| Layer::busybox(1));

fn c(text: &str) -> CString {
    CString::new(text).unwrap()
}

fn run(args: &[&str]) -> Spec {
    Spec {
        args: args.iter().map(|arg| c(arg)).collect(),
        env: vec![],
        cwd: c(""),
        user: String::new(),
        hostname: "box".into(),
        tty: None,
        layers: vec![BUSYBOX.uuid],
        volumes: vec![],
        ulimits: vec![],
        pids_limit: None,
        zones: vec!["ram".into()],
        zone: 0,
        memory_bytes: 256 << 20,
        memory_max_bytes: None,
        samples: false,
        swap: false,
    }
}

fn shell(script: &str) -> Spec {
    run(&["sh", "-c", script])
}

fn start(spec: &Spec) -> Machine {
    Machine::start(spec, &[&BUSYBOX])
}

fn exited(status: ExitStatus) -> End {
    End::Exited { status, oom_killed: false }
}

#[test]
fn output_and_exit_code() {
    let mut machine = start(&shell("echo out; echo err >&2; exit 42"));
    assert_eq!(machine.finish(), exited(ExitStatus::Code(42)), "{}", machine.report());
    assert_eq!(machine.stdout, b"out\n");
    assert_eq!(machine.stderr, b"err\n");
    assert_eq!(machine.notices(), Vec::<String>::new());
    println!("{:#?}", machine.messages);
    machine.hang_up();
}

#[test]
fn the_environment_of_a_workload() {
    let script = r#"
        echo "args: $0 $1"; env | sort; id; pwd; hostname; cat /etc/hosts /etc/hostname
        echo "links: $(readlink /dev/fd) $(readlink /dev/stdout)"
        echo "self: $(cat /proc/self/oom_score_adj) $(cat /proc/1/oom_score_adj) $(cat /proc/1/comm)"
        echo "cgroup: $(cat /proc/self/cgroup) pids.max $(cat /sys/fs/cgroup/pids.max)"
        echo "limits: $(ulimit -Sn) $(ulimit -Hn) $(ulimit -c)"
        echo "lo: $(cat /sys/class/net/lo/flags)"
        echo "mounts:"; cut -d' ' -f2,3 /proc/mounts
        echo "signals:"; grep Sig /proc/self/status
        echo "session: $(cut -d' ' -f6 /proc/self/stat) $(cut -d' ' -f1 /proc/$$/stat)"
        echo "fds:"; ls /proc/$$/fd
        echo again > /dev/stdout
        echo agent: $(grep -E 'VmRSS|VmLck' /proc/1/status)
        for port in /dev/vport*p[1-4]; do echo forged 2>/dev/null > $port && echo "$port is open"; done
        ls /init /modules 2>&1
        awake() { grep ctxt /proc/1/status; }; before=$(awake); sleep 2
        [ "$before" = "$(awake)" ] && echo idle
        touch /usr-test /tmp/x && stat -c '%U %a' / /usr-test /tmp
    "#;
    let mut spec = run(&["sh", "-c", script, "zero", "one two"]);
    spec.env = vec![c("A=b c"), c("HOME=/given")];
    spec.cwd = c("/made/by/agent");
    spec.pids_limit = Some(50);
    spec.ulimits =
        vec![proto::Ulimit { resource: proto::Resource::from_name("core").unwrap(), soft: 0, hard: 0 }];
    let mut machine = start(&spec);
    assert_eq!(machine.finish(), exited(ExitStatus::Code(0)), "{}", machine.report());
    let out = machine.stdout_text();
    println!("{out}");
    for line in [
        "args: zero one two",
        "A=b c",
        "HOME=/given",
        "HOSTNAME=box",
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "uid=0(root) gid=0(root) groups=0(root)",
        "/made/by/agent",
        "box",
        "127.0.1.1\tbox",
        "links: /proc/self/fd /proc/self/fd/1",
        "self: 0 -1000 init",
        "cgroup: 0::/ pids.max 50",
        "limits: 1024 524288 0",
        "lo: 0x9",
        "/ overlay",
        "/dev/pts devpts",
        "/dev/shm tmpfs",
        "/sys/fs/cgroup cgroup2",
        "again",
        "idle",
        "SigBlk:\t0000000000000000",
        "SigIgn:\t0000000000000000",
        "root 755",
        "root 644",
        "root 1777",
    ] {
        assert!(out.lines().any(|other| other == line), "{line:?} is missing\n{}", machine.report());
    }
    assert!(out.contains("fds:\n0\n1\n2\nagain\n"), "{out}");
    assert!(!out.contains("TERM="), "{out}");
    assert!(!out.contains("newroot") && !out.contains("is open"), "{out}");
    let resident = out.split("VmRSS: ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    assert!(resident.parse::<u32>().unwrap() <= 2048, "{resident} KiB resident");
}

#[test]
fn another_user_with_its_groups() {
    let script = "id; echo $HOME; pwd; echo again > /dev/stderr; touch /x 2>/dev/null || echo refused; \
                  cat /proc/self/status | grep CapEff";
    let mut spec = shell(script);
    spec.user = "alice".into();
    let mut machine = start(&spec);
    assert_eq!(machine.finish(), exited(ExitStatus::Code(0)), "{}", machine.report());
    assert_eq!(
        machine.stdout_text(),
        "uid=1000(alice) gid=1000(alice) groups=29(audio),1000(alice)\n/home/alice\n/\nrefused\n\
         CapEff:\t0000000000000000\n",
        "{}",
        machine.report()
    );
    assert_eq!(machine.stderr, b"again\n");
}

#[test]
fn what_cannot_be_executed() {
    let cases = [
        (run(&["nothing"]), 127, "not found in the PATH"),
        (run(&["/bin/nothing"]), 127, "no such file"),
        (run(&["no-interpreter"]), 127, "the interpreter that it names is not"),
        (run(&["forbidden"]), 126, "Permission denied"),
        (run(&["/tmp"]), 126, "Permission denied"),
        (run(&["garbage"]), 126, "Exec format error"),
        (Spec { user: "nobody".into(), ..run(&["true"]) }, 125, "not in the image's /etc/passwd"),
        (Spec { cwd: c("/etc/passwd/x"), ..run(&["true"]) }, 125, "working directory"),
    ];
    for (spec, expected, words) in cases {
        let mut machine = start(&spec);
        match machine.finish() {
            End::Failed { code, message } => {
                println!("{code} {message}");
                assert_eq!(code, expected, "{message}");
                assert!(message.contains(words), "{message}");
            }
            other => panic!("{other:?}\n{}", machine.report()),
        }
    }
}

#[test]
fn deaths_by_signal() {
    let mut machine = start(&shell("kill -9 $$"));
    assert_eq!(machine.finish(), exited(ExitStatus::Signal(9)), "{}", machine.report());

    let mut machine =
        start(&shell("trap 'echo got it; exit 7' TERM; echo ready; while :; do sleep 0.1; done"));
    machine.wait_for_output("ready");
    machine.send(&ToGuest::Signal { number: 15 });
    assert_eq!(machine.finish(), exited(ExitStatus::Code(7)), "{}", machine.report());
    assert_eq!(machine.stdout, b"ready\ngot it\n");

    let mut machine = start(&run(&["sleep", "1000"]));
    machine.wait_for_start();
    machine.send(&ToGuest::Signal { number: 9 });
    assert_eq!(machine.finish(), exited(ExitStatus::Signal(9)), "{}", machine.report());
}

#[test]
fn layers_are_stacked_lowest_first_and_found_by_uuid() {
    let upper = Layer::build(2, |root| {
        std::fs::create_dir_all(root.join("etc")).unwrap();
        std::fs::write(root.join("etc/motd"), "upper\n").unwrap();
        std::fs::create_dir_all(root.join("var/run")).unwrap();
        let whiteout =
            std::process::Command::new("mknod").arg(root.join("bin")).args(["c", "0", "0"]).status();
        assert!(whiteout.unwrap().success());
        std::fs::create_dir_all(root.join("sbin")).unwrap();
        std::fs::copy("/bin/busybox", root.join("sbin/busybox")).unwrap();
    });
    let mut spec = run(&["/sbin/busybox", "sh", "-c"]);
    spec.args.push(c(
        "B=/sbin/busybox; $B cat /etc/motd /etc/group; $B ls -d /bin; $B grep -c dax=always /proc/mounts; \
                      $B rm /etc/motd && $B ls /etc/motd; $B echo new > /etc/passwd; $B cat /etc/passwd",
    ));
    spec.layers = vec![BUSYBOX.uuid, upper.uuid];
    // The devices come in the opposite order.
    let mut machine = Machine::start(&spec, &[&upper, &BUSYBOX]);
    assert_eq!(machine.finish(), exited(ExitStatus::Code(0)), "{}", machine.report());
    assert_eq!(
        machine.stdout_text(),
        "upper\nroot:x:0:\ntty:x:5:\nalice:x:1000:\naudio:x:29:alice\n0\nnew\n",
        "{}",
        machine.report()
    );
    assert_eq!(machine.notices(), Vec::<String>::new());
}

#[test]
fn volumes_keep_what_was_written() {
    let scratch = tempfile::tempdir().unwrap();
    let disk = scratch.path().join("disk");
    std::fs::File::create(&disk).unwrap().set_len(64 << 20).unwrap();
    let made = std::process::Command::new("/sbin/mkfs.ext4").arg("-q").arg(&disk).status().unwrap();
    assert!(made.success());
    let with_volume = |script: &str, read_only| {
        let mut spec = shell(script);
        spec.volumes = vec![proto::Volume { serial: "vol-data".into(), path: c("/srv/data"), read_only }];
        let disks = [machine::Disk { file: &disk, serial: "vol-data", read_only }];
        let mut machine = Machine::with_disks(&spec, &[&BUSYBOX], &disks);
        let end = machine.finish();
        machine.hang_up();
        (end, machine)
    };
    let (end, machine) =
        with_volume("echo kept > /srv/data/file; sleep 1000 > /srv/data/open & exit 0", false);
    assert_eq!(end, exited(ExitStatus::Code(0)), "{}", machine.report());
    assert_eq!(machine.notices(), Vec::<String>::new());
    // Without a journal to replay, although a process had a file open to the end.
    let state = std::process::Command::new("/sbin/dumpe2fs").arg("-h").arg(&disk).output().unwrap().stdout;
    let state = String::from_utf8_lossy(&state).into_owned();
    assert!(
        state.contains("Filesystem state:         clean") && !state.contains("needs_recovery"),
        "{state}"
    );

    let (end, machine) = with_volume("cat /srv/data/file; touch /srv/data/x", true);
    assert_eq!(end, exited(ExitStatus::Code(1)), "{}", machine.report());
    assert_eq!(machine.stdout, b"kept\n");
    assert!(String::from_utf8_lossy(&machine.stderr).contains("Read-only"));
}

#[test]
fn a_workload_that_eats_all_memory_is_killed_and_the_agent_is_not() {
    let mut machine = start(&shell("head -c 1000m /dev/zero | tail"));
    match machine.finish() {
        End::Exited { oom_killed: true, status } => println!("{status:?}"),
        other => panic!("{other:?}\n{}", machine.report()),
    }
}

#[test]
fn too_many_processes_are_refused() {
    let mut spec = shell("for n in $(seq 30); do sleep 100 & done; echo all");
    spec.pids_limit = Some(10);
    let mut machine = start(&spec);
    let end = machine.finish();
    assert!(!machine.stdout_text().contains("all"), "{end:?}\n{}", machine.report());
    assert!(String::from_utf8_lossy(&machine.stderr).contains("fork"), "{}", machine.report());
}

#[test]
fn a_host_that_makes_no_sense_ends_the_run() {
    use proto::Message;
    let frames = |messages: &[ToGuest]| {
        let mut bytes = Vec::new();
        messages.iter().for_each(|message| message.encode(&mut bytes));
        bytes
    };
    let hello = ToGuest::Hello { version: proto::VERSION };
    let mut endless = frames(std::slice::from_ref(&hello));
    endless.extend_from_slice(&u32::MAX.to_le_bytes());
    let cases = [
        (frames(&[ToGuest::Hello { version: 99 }]), "version 99"),
        (frames(&[ToGuest::Signal { number: 9 }]), "before its spec"),
        (endless, "frame of 4294967295 bytes"),
    ];
    for (greeting, words) in cases {
        let mut machine = Machine::boot(&greeting, &[&BUSYBOX], &[]);
        match machine.finish() {
            End::Failed { code: 125, message } => assert!(message.contains(words), "{message}"),
            other => panic!("{other:?}\n{}", machine.report()),
        }
    }
    // In the middle of a run.
    let mut machine = start(&run(&["sleep", "1000"]));
    machine.wait_for_start();
    machine.send(&hello);
    assert!(matches!(machine.finish(), End::Failed { code: 125, .. }), "{}", machine.report());
    machine.hang_up();
}

#[test]
fn a_missing_layer_is_named() {
    let mut spec = run(&["true"]);
    spec.layers.push([9; 16]);
    let mut machine = start(&spec);
    match machine.finish() {
        End::Failed { code: 125, message } => assert!(message.contains("layer 1"), "{message}"),
        other => panic!("{other:?}\n{}", machine.report()),
    }
}
