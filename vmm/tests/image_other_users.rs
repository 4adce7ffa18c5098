//! Imports by users other than root, by the real program: owners survive or the import is refused.
//!
//! Run by root, the tests become another user for the program they start; run by anyone else, they stay who they
//! are.
#![cfg(feature = "cli")]
// The lint's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Somebody without a name, and so without a grant of subordinate ids.
const NOBODY_IN_PARTICULAR: u32 = 54_321;

const PATIENCE: Duration = Duration::from_secs(120);

struct Bench {
    directory: tempfile::TempDir,
    uid: u32,
}

impl Bench {
    /// A data directory and the program, where a user of this id can reach them.
    fn new(uid: u32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        // Copied by another process: a child forked by another test meanwhile would hold the copy open for
        // writing, and what is open for writing cannot be executed.
        let copy = [env!("CARGO_BIN_EXE_ballast").as_ref(), directory.path().as_os_str()];
        assert!(Command::new("cp").args(copy).status().unwrap().success());
        let data = directory.path().join("data");
        fs::create_dir(&data).unwrap();
        let uid =
            if rustix::process::geteuid().is_root() { uid } else { rustix::process::geteuid().as_raw() };
        chown(&data, Some(uid), Some(uid)).unwrap();
        Self { directory, uid }
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn command(&self, uid: u32, data: &Path, image: &str) -> Command {
        let mut command = Command::new(self.directory.path().join("ballast"));
        command.args(["image", "import", image]).current_dir(self.directory.path());
        command.env("BALLAST_DATA", data).env("BALLAST_STATE", data.join("state"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if rustix::process::geteuid().is_root() {
            command.uid(uid).gid(uid);
        }
        command
    }

    fn import(&self, tar: &[u8]) -> Output {
        fs::write(self.directory.path().join("image.tar"), tar).unwrap();
        self.command(self.uid, &self.data(), "./image.tar").output().unwrap()
    }

    fn layers(&self, data: &Path) -> Vec<PathBuf> {
        let mut layers: Vec<_> =
            fs::read_dir(data.join("layers")).unwrap().map(|entry| entry.unwrap().path()).collect();
        layers.sort();
        layers
    }

    fn leftovers(&self) -> usize {
        fs::read_dir(self.data().join("tmp")).unwrap().count()
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Whether namespaces are at hand; says so if not.
fn has_namespaces(output: &Output) -> bool {
    let refused = said(output).contains("user namespaces");
    if refused {
        println!("skipped: {}", said(output));
    }
    !refused
}

fn tar(files: &[(&str, u64)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, owner) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(4);
        header.set_mode(0o4755);
        header.set_uid(*owner);
        header.set_gid(*owner);
        header.set_mtime(1_000_000_000);
        header.set_entry_type(tar::EntryType::Regular);
        builder.append_data(&mut header, name, &b"data"[..]).unwrap();
    }
    builder.into_inner().unwrap()
}

#[test]
fn without_subordinate_ids_roots_files_are_imported_and_others_refused() {
    let bench = Bench::new(NOBODY_IN_PARTICULAR);
    let own = tar(&[("d/su", 0), ("d/.wh..wh..opq", 0), (".wh.gone", 0)]);
    let output = bench.import(&own);
    if !has_namespaces(&output) {
        return;
    }
    assert!(output.status.success(), "{}", said(&output));
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("sha256:"));
    if rustix::process::geteuid().is_root() {
        // Root's image of the same tar is the same file.
        let data = bench.directory.path().join("roots-data");
        let output = bench.command(0, &data, "./image.tar").output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        let (theirs, ours) = (bench.layers(&bench.data()), bench.layers(&data));
        assert_eq!(theirs[0].file_name(), ours[0].file_name());
        assert!(fs::read(&theirs[0]).unwrap() == fs::read(&ours[0]).unwrap());

        let output = bench.import(&tar(&[("f", 1000)]));
        assert_eq!(output.status.code(), Some(125));
        let text = said(&output);
        assert!(text.contains("1000:1000") && text.contains("add-subuids"), "{text}");
    }
    assert_eq!((bench.layers(&bench.data()).len(), bench.leftovers()), (1, 0));
}

#[test]
fn with_subordinate_ids_every_owner_survives() {
    let Some(uid) = granted_user() else {
        println!("skipped: no user of this machine has subordinate ids");
        return;
    };
    let bench = Bench::new(uid);
    let output = bench.import(&tar(&[("root", 0), ("app", 1000), ("nobody", 65_534)]));
    if !has_namespaces(&output) {
        return;
    }
    assert!(output.status.success(), "{}", said(&output));
    let dump = |path: &str| {
        let layer = bench.layers(&bench.data()).remove(0);
        let output = Command::new("dump.erofs").arg(format!("--path={path}")).arg(layer).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    for (path, owner) in
        [("/root", "Uid: 0   Gid: 0 "), ("/app", "Uid: 1000   Gid: 1000 "), ("/nobody", "Uid: 65534 ")]
    {
        assert!(dump(path).contains(owner), "{}", dump(path));
    }
    let output = bench.import(&tar(&[("f", 4_000_000_000)]));
    assert!(said(&output).contains("/etc/subuid"), "{}", said(&output));
    assert_eq!(bench.leftovers(), 0);
}

/// A user who is no root, with a grant in both files; the caller if that is no root.
fn granted_user() -> Option<u32> {
    let passwd = fs::read_to_string("/etc/passwd").ok()?;
    let subuid = fs::read_to_string("/etc/subuid").ok()?;
    let subgid = fs::read_to_string("/etc/subgid").ok()?;
    let euid = rustix::process::geteuid();
    passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let (name, uid) = (*fields.first()?, fields.get(2)?.parse().ok()?);
        let grant = |text: &str| {
            text.lines().any(|line| line.split(':').next() == Some(name) && line.ends_with(":65536"))
        };
        // The group must be the user's own: the program is started with equal ids.
        let usable = uid != 0 && fields.get(3)?.parse() == Ok(uid) && grant(&subuid) && grant(&subgid);
        (usable && (euid.is_root() || euid.as_raw() == uid)).then_some(uid)
    })
}

/// Processes whose parent this is.
fn children(parent: u32) -> Vec<u32> {
    let list = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_killed_import_leaves_nothing_running_and_the_next_one_works() {
    let bench = Bench::new(NOBODY_IN_PARTICULAR);
    let mut command = bench.command(bench.uid, &bench.data(), "-");
    let mut import: Child = command.stdin(Stdio::piped()).spawn().unwrap();
    // It waits for the rest of its input.
    import.stdin.as_mut().unwrap().write_all(&tar(&[("f", 0)])[..512]).unwrap();
    let helper = if bench.uid == 0 {
        import.id()
    } else {
        let ended = &mut import;
        let found = eventually("no helper was started", || match ended.try_wait().unwrap() {
            Some(_) => Some(None),
            None => children(ended.id()).first().map(|&pid| Some(pid)),
        });
        let Some(found) = found else {
            assert!(!has_namespaces(&import.wait_with_output().unwrap()));
            return;
        };
        // Until it is in its namespace, what ends it is the end of its socket.
        eventually("the helper does not start", || {
            let map = fs::read_to_string(format!("/proc/{found}/uid_map")).ok()?;
            let first = map.split_whitespace().nth(1)?.to_owned();
            (first == bench.uid.to_string()).then_some(())
        });
        found
    };
    import.kill().unwrap();
    import.wait().unwrap();
    eventually("the helper lives on", || {
        let status = fs::read_to_string(format!("/proc/{helper}/stat")).unwrap_or_default();
        // A zombie that waits for its new parent is dead enough.
        let state =
            status.rsplit(')').next().and_then(|rest| rest.split_whitespace().next().map(str::to_owned));
        matches!(state.as_deref(), None | Some("Z" | "X")).then_some(())
    });
    let output = bench.import(&tar(&[("f", 0)]));
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(bench.leftovers(), 0);
}
