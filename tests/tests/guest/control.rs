//! A running microVM can be asked and told things, by whom it belongs to and by nobody else.

use balloon::size::Size;
use rustix::process::{Signal, kill_process};
use rustix::thread::set_thread_res_uid;
use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt;
use tests::control::{ask, socket};
use tests::memory::{Guest, Memory};
use tests::run::Running;
use tests::{Ballast, process, setup};

#[test]
fn a_microvm_is_seen_and_is_its_owners_alone() {
    let ballast = setup();
    let run = ballast.run("busybox", &["sh", "-c", "echo up; sleep 1000"]);
    let web = run.options(["--name", "web", "-m", "192m"]).start();
    web.wait_for("up");
    tests::each_of!([
        inspect_shows_the_memory_stats_the_use_and_ps_the_microvm,
        top_shows_it_and_gives_the_terminal_back,
        what_cannot_be_is_refused_with_a_sentence,
        a_microvm_that_hangs_is_listed_as_such,
        another_user_is_refused,
    ](&ballast, &web));
    a_killed_ballast_leaves_nothing_that_the_next_start_does_not_sweep(&ballast, web);
}

#[test]
fn the_socket_answers_while_the_workload_floods_its_output() {
    let ballast = setup();
    let running = ballast.run("busybox", &["yes"]).options(["--name", "loud"]).start();
    running.wait_for("y\n");
    for _ in 0..20 {
        let (head, content) = ask(&socket(&ballast, "loud"), "GET", "/v1/vm", "").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(
            content.contains("\"name\":\"loud\"") && content.contains("\"image\":\"busybox\""),
            "{content}"
        );
    }
    running.signal(Signal::TERM);
    running.end().exits(143);
}

fn inspect_shows_the_memory_stats_the_use_and_ps_the_microvm(ballast: &Ballast, _: &Running) {
    let table = ballast.command(&["inspect", "web"]).end().exits(0);
    println!("{table}");
    let text = String::from_utf8_lossy(&table.stdout).into_owned();
    for (word, fact) in
        [("name", "web"), ("memory", "192 MiB"), ("kernel", "6.1"), ("ceiling", "192 MiB, automatic")]
    {
        let said = text.lines().any(|line| {
            line.strip_prefix(word).is_some_and(|rest| rest.starts_with(' ') && rest.trim().starts_with(fact))
        });
        assert!(said, "no {word} {fact}; {table}");
    }
    // The host's truth: a booted kernel holds something, and never more than the guest has.
    let (_, content) = ask(&socket(ballast, "web"), "GET", "/v1/memory", "").unwrap();
    let resident = content.split("\"resident_bytes\":").nth(1).unwrap().split(',').next().unwrap();
    let resident: u64 = resident.parse().unwrap();
    assert!((20 << 20..=192 << 20).contains(&resident), "{content}");

    println!("{}", ballast.command(&["stats", "--no-stream", "web"]).end().exits(0));
    let stats = ballast.command(&["stats", "--no-stream", "--format", "json"]).end().exits(0);
    let stats: serde_json::Value = serde_json::from_slice(&stats.stdout).unwrap();
    let [saved, resident] =
        ["saved_bytes", "resident_bytes"].map(|member| stats[0][member].as_u64().unwrap());
    assert_eq!((&stats[0]["name"], saved + resident), (&"web".into(), 192 << 20), "{stats}");
    assert!(stats[0]["cpu_percent"].as_f64() >= Some(0.0), "{stats}");

    let list = ballast.command(&["ps"]).end().exits(0);
    println!("{list}");
    let text = String::from_utf8_lossy(&list.stdout).into_owned();
    assert!(text.contains("up ") && text.contains("192 MiB") && text.contains("busybox"), "{list}");
}

fn top_shows_it_and_gives_the_terminal_back(ballast: &Ballast, _: &Running) {
    let mut top = ballast.command(&["top"]).start_on_terminal(24, 80);
    // Words only, as blanks are not drawn: the microVM, and its zone among the details.
    top.shows("web");
    top.shows("ram");
    assert!(!top.is_cooked());
    top.types("q");
    top.exits(0);
    top.shows("\x1b[?1049l");
    assert!(top.is_cooked());
}

#[test]
fn a_ceiling_is_set_refused_and_left_to_ballast_again() {
    const MIB: u64 = 1 << 20;
    let ballast = setup();
    let guest = Guest::start(&ballast, &["-m", "256m"]);
    let set = |size: &str| ballast.command(&["set", "guest", "--memory-ceiling", size]).end();
    let inspect = || String::from_utf8(ballast.command(&["inspect", "guest"]).end().exits(0).stdout).unwrap();
    let says = |line: &str| {
        let text = inspect();
        let said = text.lines().any(|other| other.split_whitespace().eq(line.split(' ')));
        assert!(said, "no '{line}' in\n{text}");
    };
    // The first of its statistics fixes the floor.
    guest.wait_until(|memory| memory.driver() != "absent");
    let _ = guest.answer("GET", "/v1/statistics", "");
    let floor = guest.memory().bytes("floor_bytes");
    let floor_text = Size::from_bytes(floor);

    set("160m").exits(0).prints("guest\n");
    let low = guest.wait_until(Memory::is_settled);
    assert_eq!((low.bytes("guest_bytes"), low.bytes("floor_bytes")), (160 * MIB, floor), "{low:?}");
    says(&format!("ceiling 160 MiB, set by hand; can be {floor_text} to 256 MiB"));
    says("memory 160 MiB of 256 MiB");

    let range = format!("it takes {floor_text} to 256 MiB");
    for (size, said) in [("1m", "1 MiB"), ("512m", "512 MiB")] {
        set(size).refuses().says(&format!("{said} is no ceiling of this microVM: {range}"));
    }
    let below = (floor - balloon::PAGE_BYTES).to_string();
    set(&below).refuses().says(&range);
    says(&format!("ceiling 160 MiB, set by hand; can be {floor_text} to 256 MiB"));

    let auto = ["set", "guest", "--memory-ceiling", "auto", "--format", "json"];
    ballast.command(&auto).end().exits(0).prints("{\"name\":\"guest\",\"changed\":[\"the ceiling\"]}\n");
    let high = guest.wait_until(|memory| memory.is_settled() && memory.bytes("ballooned_bytes") == 0);
    assert_eq!(high.bytes("guest_bytes"), 256 * MIB, "{high:?}");
    says(&format!("ceiling 256 MiB, automatic; can be {floor_text} to 256 MiB"));
    guest.end();
}

fn a_microvm_that_hangs_is_listed_as_such(ballast: &Ballast, web: &Running) {
    kill_process(web.vmm(), Signal::STOP).unwrap();
    let list = ballast.command(&["ps"]).end().exits(0);
    assert!(String::from_utf8_lossy(&list.stdout).contains("no answer"), "{list}");
    ballast.command(&["inspect", "web"]).end().refuses().says("does not answer");
    kill_process(web.vmm(), Signal::CONT).unwrap();
    ballast.command(&["inspect", "web"]).end().exits(0);
}

fn what_cannot_be_is_refused_with_a_sentence(ballast: &Ballast, _: &Running) {
    ballast.command(&["inspect", "wed"]).end().refuses().says("'web'");
    ballast.command(&["set", "web", "--memory-ceiling", "1t"]).end().refuses().says("1 TiB is no ceiling");
    let socket = socket(ballast, "web");
    for (method, path, content, status) in [
        ("GET", "/v2", "", "404"),
        ("POST", "/v1/memory", "{}", "405"),
        ("PUT", "/v1/memory/ceiling", "much", "400"),
    ] {
        let (head, content) = ask(&socket, method, path, content).unwrap();
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        assert!(content.starts_with("{\"error\":{\"message\":\""), "{content}");
    }
}

fn a_killed_ballast_leaves_nothing_that_the_next_start_does_not_sweep(ballast: &Ballast, web: Running) {
    let vmm = web.vmm();
    web.signal(Signal::KILL);
    web.end().exits(-9);
    process::wait_until_gone(vmm);
    ballast.command(&["inspect", "web"]).end().refuses().says("no microVM named 'web'");
    ballast.command(&["ps", "--format", "json"]).end().exits(0).prints("[]\n");
    ballast.run("busybox", &["true"]).options(["--name", "next"]).end().exits(0);
    assert_eq!(std::fs::read_dir(ballast.path("state/vms")).unwrap().count(), 0);
}

fn another_user_is_refused(ballast: &Ballast, _: &Running) {
    if !rustix::process::geteuid().is_root() {
        return println!("only root can become somebody else");
    }
    let socket = socket(ballast, "web");
    let as_nobody = || {
        let socket = socket.clone();
        let thread = move || {
            // This thread's alone.
            let nobody = rustix::process::Uid::from_raw(65534);
            set_thread_res_uid(nobody, nobody, nobody).unwrap();
            ask(&socket, "GET", "/v1/memory", "")
        };
        std::thread::spawn(thread).join().unwrap()
    };
    // The directories keep others out, and so does the VMM where somebody has opened them.
    assert_eq!(as_nobody().unwrap_err().kind(), std::io::ErrorKind::PermissionDenied);
    for name in [".", "state", "state/vms", "state/vms/web"] {
        set_permissions(ballast.path(name), Permissions::from_mode(0o755)).unwrap();
    }
    set_permissions(&socket, Permissions::from_mode(0o666)).unwrap();
    let (head, content) = as_nobody().unwrap();
    assert!(head.starts_with("HTTP/1.1 403 ") && !content.contains("_bytes"), "{head} {content}");
    assert!(ask(&socket, "GET", "/v1/memory", "").unwrap().0.starts_with("HTTP/1.1 200 "));
}
