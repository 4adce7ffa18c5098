//! The streams of a workload, and its terminal.

use super::*;

#[test]
fn streams_are_whole_in_both_directions() {
    let bytes: Vec<u8> =
        (0u64..4 << 20).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
    let mut machine = start(&shell("tee /dev/stderr"));
    machine.wait_for_start();
    machine.input_in_background(bytes.clone());
    machine.end_input();
    assert_eq!(machine.finish(), exited(ExitStatus::Code(0)), "{}", machine.messages.len());
    assert!(machine.stdout == bytes, "stdout differs");
    assert!(machine.stderr == bytes, "stderr differs");
}

#[test]
fn input_ends_before_it_is_announced_and_nothing_lives_on() {
    // The background process holds the pipes open and ignores signals: it is killed, not waited for.
    let script = "trap '' TERM HUP; (sleep 1000; echo late) & (setsid sh -c 'sleep 1000') & cat; echo end";
    let mut machine = start(&shell(script));
    machine.input(b"some input");
    machine.wait_for_output("some input");
    machine.end_input();
    assert_eq!(machine.finish(), exited(ExitStatus::Code(0)), "{}", machine.report());
    assert_eq!(machine.stdout, b"some inputend\n");
}

#[test]
fn a_workload_that_closes_its_streams() {
    let mut machine = start(&shell("exec <&-; echo closed; sleep 1; exec >&-; echo still >&2; exit 3"));
    machine.wait_for_output("closed");
    machine.wait_until("the end of the input", |machine| machine.messages.contains(&ToHost::InputGone));
    // Thrown away, and no obstacle.
    machine.input_in_background(vec![0; 1 << 20]);
    assert_eq!(machine.finish(), exited(ExitStatus::Code(3)), "{}", machine.report());
    assert_eq!(machine.stderr, b"still\n");
}

#[test]
fn a_reader_that_is_gone_ends_the_writer() {
    let mut machine = start(&run(&["yes"]));
    machine.wait_until("output", |machine| machine.stdout.len() > 100_000);
    machine.send(&ToGuest::OutputGone(proto::OutputStream::Stdout));
    assert_eq!(machine.finish(), exited(ExitStatus::Signal(13)), "{}", machine.messages.len());
    assert!(machine.stdout.chunks_exact(2).all(|pair| pair == b"y\n"));
}

#[test]
fn a_terminal() {
    // The timeout of `read` closes busybox's own race between a signal and the start of its wait.
    let script = "tty; stty size; echo $TERM; trap 'stty size' WINCH; echo ready; \
                  while ! read -t 1 line; do :; done; echo \"line $line\"; cat; \
                  trap 'echo interrupted; exit 9' INT; echo done; while :; do sleep 0.1; done";
    let mut spec = shell(script);
    spec.tty = Some(proto::WindowSize { rows: 33, cols: 101 });
    spec.user = "alice".into();
    let mut machine = start(&spec);
    machine.wait_for_output("ready");
    assert!(machine.stdout_text().starts_with("/dev/pts/0\r\n33 101\r\nxterm\r\n"), "{}", machine.report());
    machine.send(&ToGuest::Resize(proto::WindowSize { rows: 44, cols: 202 }));
    machine.wait_for_output("44 202");
    machine.input(b"hello\n");
    machine.wait_for_output("line hello");
    // An unfinished line, then the end: cat sees both.
    machine.input(b"partial");
    machine.end_input();
    machine.wait_for_output("done");
    machine.send(&ToGuest::Signal { number: 2 });
    assert_eq!(machine.finish(), exited(ExitStatus::Code(9)), "{}", machine.report());
    assert!(machine.stderr.is_empty());
}

#[test]
fn control_c_reaches_the_foreground_of_a_terminal() {
    // Ready says the child: then the parent waits, and a signal that comes before its wait is not slept over.
    let mut spec = shell("trap 'echo parent; exit 5' INT; sh -c 'echo ready; exec sleep 1000'; echo never");
    spec.tty = Some(proto::WindowSize { rows: 24, cols: 80 });
    let mut machine = start(&spec);
    machine.wait_for_output("ready");
    machine.input(b"\x03");
    assert_eq!(machine.finish(), exited(ExitStatus::Code(5)), "{}", machine.report());
    assert!(machine.stdout_text().contains("parent"));
    assert!(!machine.stdout_text().contains("never"));
}
