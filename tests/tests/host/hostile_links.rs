//! Whatever listens where microVMs do, or talks to the daemon's socket: the daemon goes on, stays small and believes none
//! of it.

use balloon::control::fleet::SOCKET;
use balloon::control::link::{FromVm, Hello, Offer, Report, Usage, ZoneUse, encode};
use balloon::zone::Limits;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tests::crowd::{SWITCHED, Sleeper};
use tests::daemon::Daemon;
use tests::run::until;
use tests::{Ballast, is_long};

const POOL: &str = "[pool]\ncapacity = '4g'\n";
/// More than it has with a few microVMs, and less than what anybody could have it keep without bounds.
const MOST_BYTES: u64 = 48 << 20;

/// Listens as microVM `name` would and says `words` to whoever asks for a link, again and again; counts them.
pub(crate) fn listen(ballast: &Ballast, name: &str, words: Vec<u8>, asked: &'static AtomicUsize) {
    let directory = ballast.path("state/vms").join(name);
    fs::create_dir_all(&directory).unwrap();
    let listener = UnixListener::bind(directory.join("control.sock")).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let words = words.clone();
            std::thread::spawn(move || {
                let _ = stream.read(&mut [0; 4096]);
                asked.fetch_add(1, Ordering::Relaxed);
                // For ever, unless it is hung up on; and never a look at what it is sent.
                while stream.write_all(&words).is_ok() && !words.is_empty() {}
                std::thread::sleep(Duration::from_secs(600));
            });
        }
    });
}

pub(crate) fn hello(name: &str, pid: u32) -> Hello {
    let limits = Limits { max: Some(1 << 30), ..Limits::default() };
    let zones = (0..2000).map(|number| format!("zone{number}")).collect();
    let (name, group) = (name.into(), String::new());
    Hello { name, pid, group, limits, memory_bytes: 1 << 30, zones, inherits: false }
}

/// A link that says these things after it was switched to.
pub(crate) fn link(documents: &[FromVm]) -> Vec<u8> {
    let mut words = SWITCHED.to_vec();
    documents.iter().for_each(|document| encode(document, &mut words));
    words
}

fn report(sequence: u64) -> FromVm {
    let zones =
        ["ram", "zone1", "nosuch"].map(|name| ZoneUse { name: name.into(), resident_bytes: Some(1 << 60) });
    let limits = Limits { max: Some(1 << 30), ..Limits::default() };
    FromVm::Report(Report {
        sequence,
        ceiling_bytes: 0,
        manual: false,
        floor_bytes: 0,
        limits,
        zones: zones.into(),
        offer: Offer::default(),
        usage: Usage::default(),
    })
}

fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// It is answered, the books hold, and it is as small as before.
fn is_well(daemon: &Daemon) {
    let tree = daemon.tree();
    let pool = tree.nodes.first().unwrap();
    assert_eq!(tree.host.main_bytes, (4 << 30) - i64::try_from(pool.charge_bytes).unwrap());
    let bytes = resident(tree.host.pid);
    assert!(bytes < MOST_BYTES, "it has grown to {bytes} bytes");
}

#[test]
fn whoever_listens_in_a_microvms_place_is_bounded() {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    let ballast = Ballast::empty();
    let sleepers = [(); 3].map(|()| Sleeper::start());
    let [first, second, third] = sleepers.each_ref().map(|sleeper| sleeper.id());
    // In their order, as the daemon finds them: who comes first is believed, within what the host says.
    listen(&ballast, "true", link(&[FromVm::Hello(hello("true", first)), report(1), report(1)]), &ASKED);
    let daemon = Daemon::start(&ballast, POOL);
    daemon.wait_until(|tree| tree.host.vms == 1);

    let garbage: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let mut too_long = SWITCHED.to_vec();
    too_long.extend_from_slice(&[255; 4]);
    let mut endless = b"HTTP/1.1 101 ".to_vec();
    endless.extend_from_slice(&[b'x'; 60_000]);
    let twice = [FromVm::Hello(hello("twice", second)), FromVm::Hello(hello("twice", second))];
    for (name, words) in [
        ("garbage", garbage),
        ("too-long", too_long),
        ("endless", endless),
        ("no-link", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec()),
        ("half", SWITCHED[..20].to_vec()),
        ("silent", Vec::new()),
        ("other-name", link(&[FromVm::Hello(hello("true", second))])),
        ("another", link(&[FromVm::Hello(hello("another", first))])),
        ("init", link(&[FromVm::Hello(hello("init", 1))])),
        ("nobody", link(&[FromVm::Hello(hello("nobody", u32::MAX))])),
        ("early", link(&[report(0), FromVm::Hello(hello("early", second))])),
        ("twice", link(&twice)),
        ("deep", link(&[FromVm::Hello(Hello { group: "a/".repeat(15_000) + "a", ..hello("deep", third) })])),
        ("bad-name", link(&[FromVm::Hello(Hello { group: "../../x".into(), ..hello("bad-name", third) })])),
    ] {
        listen(&ballast, name, words, &ASKED);
    }
    // What is no socket of a microVM's at all.
    let vms = ballast.path("state/vms");
    let entry = |name: &str| {
        fs::create_dir_all(vms.join(name)).unwrap();
        vms.join(name).join("control.sock")
    };
    fs::write(entry("file"), "").unwrap();
    std::os::unix::fs::symlink("/dev/zero", entry("device")).unwrap();
    std::os::unix::fs::symlink(vms.join("true/control.sock"), entry("symlink")).unwrap();
    std::os::unix::fs::symlink(ballast.path("state").join(SOCKET), entry("itself")).unwrap();
    std::os::unix::fs::symlink(vms.join("true"), vms.join("directory")).unwrap();
    std::os::unix::fs::symlink("loop", vms.join("loop")).unwrap();
    let status = Command::new("mkfifo").arg(entry("fifo")).status().unwrap();
    assert!(status.success());
    // A listener that nobody accepts for.
    let _deaf = UnixListener::bind(entry("deaf")).unwrap();

    // Some rounds: each link that ended was made anew.
    let start = ASKED.load(Ordering::Relaxed);
    until(|| ASKED.load(Ordering::Relaxed) > start + 30, || "the daemon looks for no microVMs".into());
    is_well(&daemon);
    let tree = daemon.tree();
    let charged = tree.nodes.first().unwrap().charge_bytes;
    let held = resident(first) + resident(second) + resident(third) + (4 << 20);
    assert!(charged <= held, "{charged} bytes are charged for processes that have {held}");
    let names = |name: &str| tree.nodes.iter().any(|node| node.name == name);
    for name in [
        "other-name",
        "another",
        "init",
        "nobody",
        "early",
        "deep",
        "bad-name",
        "symlink",
        "directory",
        "itself",
    ] {
        assert!(!names(name), "{name} is in {tree:#?}");
    }
    assert!(names("true") && tree.nodes.len() < 50, "{tree:#?}");
    // Those whom the host knows to be gone are gone.
    drop(sleepers);
    daemon.wait_until(|tree| tree.host.vms == 0 && tree.nodes.len() == 1);
}

#[test]
fn a_crowd_at_the_daemons_own_socket_keeps_nobody_out() {
    let ballast = Ballast::empty();
    let daemon = Daemon::start(&ballast, POOL);
    let socket = ballast.path("state").join(SOCKET);
    let mut crowd = Vec::new();
    let start = Instant::now();
    // They are served in their turn, sixteen a second where nobody makes room: a thousand take a minute.
    for number in 0..if is_long() { 1000 } else { 200 } {
        if start.elapsed() > Duration::from_secs(30) {
            break;
        }
        // Those beyond what waits to be accepted are refused by the host.
        let Some(mut stream) = connect(&socket) else { continue };
        let words: &[u8] = match number % 4 {
            0 => b"GET /v1/tree HTTP/1.1\r\n",
            1 => &[0; 8192],
            2 => b"POST /v1/vms HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n{",
            _ => b"",
        };
        let _ = stream.write(words);
        crowd.push(stream);
    }
    println!("{} clients", crowd.len());
    let answers = || tests::control::ask(&socket, "GET", "/v1/host", "").is_ok();
    until(answers, || "nobody else is served".into());
    is_well(&daemon);
    let words = "a".repeat(60_000);
    for content in [
        "",
        "{",
        "[]",
        "{\"name\":1}",
        &format!("{{\"name\":\"{words}\"}}"),
        "{\"name\":\"a\",\"group\":\"\\u0000\"}",
    ] {
        for (method, path) in [
            ("POST", "/v1/vms"),
            ("PUT", "/v1/groups"),
            ("PUT", "/v1/vms/x/limits"),
            ("PUT", "/v1/vms/x/group"),
        ] {
            if let Ok((head, answer)) = tests::control::ask(&socket, method, path, content) {
                assert!(head.starts_with("HTTP/1.1 4"), "{method} {path}: {head}");
                assert!(answer.len() < 8192, "{} bytes", answer.len());
            }
        }
    }
    is_well(&daemon);
    assert_eq!(daemon.tree().nodes.len(), 1);
}

/// A connection, unless the host has no more room for one.
fn connect(socket: &Path) -> Option<UnixStream> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).ok()?;
    rustix::net::connect(&fd, &SocketAddrUnix::new(socket).ok()?).ok()?;
    Some(fd.into())
}
