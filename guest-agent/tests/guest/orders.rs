//! What comes of the host's orders, on a guest of one zone.

use super::*;
use proto::{Done, Order, Stopped, Trimmed};

pub const MIB: u64 = 1 << 20;

/// A workload that does what each line of its input says.
pub struct Guest {
    pub machine: Machine,
    said: u32,
    asked: u32,
    _disk: tempfile::TempDir,
}

impl Guest {
    pub fn start(change: impl FnOnce(&mut Spec)) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let disk = scratch.path().join("disk");
        std::fs::File::create(&disk).unwrap().set_len(128 << 20).unwrap();
        let made = std::process::Command::new("/sbin/mkfs.ext4").arg("-q").arg(&disk).status().unwrap();
        assert!(made.success());
        let mut spec = shell("n=0; while read -r line; do eval \"$line\"; n=$((n + 1)); echo did $n.; done");
        spec.volumes = vec![proto::Volume { serial: "vol".into(), path: c("/data"), read_only: false }];
        change(&mut spec);
        let disks = [machine::Disk { file: &disk, serial: "vol", read_only: false }];
        let machine = Machine::with_disks(&spec, &[&BUSYBOX], &disks);
        Self { machine, said: 0, asked: 0, _disk: scratch }
    }

    pub fn does(&mut self, line: &str) {
        self.said += 1;
        self.machine.input(format!("{line}\n").as_bytes());
        self.machine.wait_for_output(&format!("did {}.", self.said));
    }

    fn is_ordered(&mut self, order: Order) {
        self.asked += 1;
        self.machine.send(&ToGuest::Order { id: self.asked, order });
    }

    fn answer(&mut self, wanted: u32) -> Done {
        let find = |machine: &Machine| {
            machine.messages.iter().find_map(|message| match message {
                ToHost::Done { id, done } if *id == wanted => Some(done.clone()),
                _ => None,
            })
        };
        self.machine.wait_until("an answer", |machine| find(machine).is_some());
        find(&self.machine).unwrap()
    }

    pub fn obeys(&mut self, order: Order) -> Done {
        self.is_ordered(order);
        let done = self.answer(self.asked);
        println!("{order:?}: {done:?}");
        done
    }

    pub fn trims(&mut self, bytes: Option<u64>) -> Trimmed {
        match self.obeys(Order::Trim { zone: None, bytes }) {
            Done::Trimmed(trimmed) => trimmed,
            other => panic!("{other:?}\n{}", self.machine.report()),
        }
    }

    pub fn refuses(&mut self, order: Order) -> String {
        match self.obeys(order) {
            Done::Refused(why) => why.to_string(),
            other => panic!("{other:?}\n{}", self.machine.report()),
        }
    }
}

#[test]
fn orders_are_carried_out_and_answered() {
    let mut guest = Guest::start(|_| {});
    guest.does("dd if=/dev/zero of=/data/cache bs=1M count=60 2> /dev/null; sync");

    // As much as was asked for, then the rest, then nothing.
    let some = guest.trims(Some(20 * MIB));
    assert_eq!(some.stopped, Stopped::Reached);
    assert!((20 * MIB..24 * MIB).contains(&some.reclaimed_bytes), "{some:?}");
    let rest = guest.trims(None);
    assert!(rest.reclaimed_bytes > 36 * MIB && rest.file_bytes < 4 * MIB, "{rest:?}");

    // Anonymous memory has nowhere to go.
    guest.does("dd if=/dev/zero of=/dev/shm/held bs=1M count=40 2> /dev/null");
    let held = guest.trims(None);
    assert_eq!(held.stopped, Stopped::NoSwap);
    assert!(held.anonymous_bytes >= 40 * MIB && held.reclaimed_bytes < 4 * MIB, "{held:?}");

    // A limit below it is refused, with the numbers, and changes nothing.
    let too_low = Order::Limit { zone: Some(0), max_bytes: Some(20 * MIB) };
    let why = guest.refuses(too_low);
    assert!(why.contains("to do with 20 MiB") && why.contains("may not push into swap"), "{why}");
    guest.does("cat /sys/fs/cgroup/memory.max; cat /dev/shm/held | wc -c");
    assert!(guest.machine.stdout_text().contains("max\n41943040\n"), "{}", guest.machine.report());
    // One that page cache can make room for is kept.
    guest.does("cat /data/cache > /dev/null");
    let done = guest.obeys(Order::Limit { zone: Some(0), max_bytes: Some(64 * MIB) });
    let Done::Limited { max_bytes, current_bytes } = done else { panic!("{done:?}") };
    assert_eq!(max_bytes, Some(64 * MIB));
    assert!(current_bytes <= 64 * MIB, "{done:?}");
    guest.does("echo limit $(cat /sys/fs/cgroup/memory.max) $(wc -c < /dev/shm/held)");
    assert!(guest.machine.stdout_text().contains("limit 67108864 41943040\n"));

    // The guest's share is more than the workload's; what cannot hold its kernel is refused.
    let done = guest.obeys(Order::Limit { zone: None, max_bytes: Some(200 * MIB) });
    let Done::Limited { max_bytes: Some(share), .. } = done else { panic!("{done:?}") };
    assert!((40 * MIB..150 * MIB).contains(&share), "{share}");
    assert!(guest.refuses(Order::Limit { zone: None, max_bytes: Some(48 * MIB) }).contains("kernel"));
    let lifted = guest.obeys(Order::Limit { zone: None, max_bytes: None });
    assert!(matches!(lifted, Done::Limited { max_bytes: None, .. }), "{lifted:?}");

    assert!(guest.refuses(Order::Trim { zone: Some(3), bytes: None }).contains("no zone 3"));
    assert!(guest.refuses(Order::Move { pid: 1, zone: 0 }).contains("nowhere to move"));

    // Many at once: what is over the limit is refused, all are answered, and the streams go on meanwhile.
    guest.does("cat /data/cache > /dev/null");
    let first = guest.asked + 1;
    for _ in 0..proto::MAX_ORDERS + 4 {
        guest.is_ordered(Order::Trim { zone: None, bytes: Some(MIB) });
    }
    guest.does("echo between");
    let answers: Vec<Done> = (first..=guest.asked).map(|id| guest.answer(id)).collect();
    let refused = answers.iter().filter(|done| matches!(done, Done::Refused(_))).count();
    assert!((1..=4).contains(&refused), "{answers:?}");

    guest.machine.end_input();
    assert_eq!(guest.machine.finish(), exited(ExitStatus::Code(0)), "{}", guest.machine.report());
}

#[test]
fn a_workload_that_exceeds_its_limit_is_killed() {
    let mut guest = Guest::start(|spec| spec.memory_max_bytes = Some(160 * MIB));
    guest.does("cat /sys/fs/cgroup/memory.max; grep MemFree /proc/meminfo");
    guest.machine.input(b"head -c 150m /dev/zero | tail > /dev/null; exit 3\n");
    match guest.machine.finish() {
        End::Exited { oom_killed: true, .. } => println!("{}", guest.machine.stdout_text()),
        other => panic!("{other:?}\n{}", guest.machine.report()),
    }
    let console = guest.machine.console();
    assert!(!console.contains("Out of memory: "), "the guest's kernel ran out itself\n{console}");
}
