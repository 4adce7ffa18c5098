//! Kernels, initramfs and layers for the machine.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use cpio::newc::{Builder, ModeFileType, trailer};

/// Names the unpacked kernel package to test with: a directory with a `vmlinuz` and `lib/modules/` below it.
const VARIABLE: &str = "BALLAST_TEST_KERNEL_PACKAGE";

/// What the guest needs, by condition; what they depend on is added. libcrc32c asks for crc32c by name only.
const WANTED: [(&str, &[&str]); 3] = [
    (
        "base",
        &["crc32c_generic", "virtio_pci", "virtio_console", "virtio_pmem", "nd_pmem", "erofs", "overlay"],
    ),
    ("disk", &["virtio_blk", "ext4"]),
    ("swap", &["lzo_rle", "zram"]),
];

pub struct Kernel {
    pub image: PathBuf,
    modules: HashMap<String, PathBuf>,
}

impl Kernel {
    pub fn from_environment() -> Self {
        let package = PathBuf::from(std::env::var_os(VARIABLE).unwrap_or_else(|| {
            panic!("{VARIABLE} must name an unpacked kernel package, with a vmlinuz and lib/modules/")
        }));
        let mut files = Vec::new();
        walk(&package, &mut files);
        let image = files.iter().find(|path| name_of(path).starts_with("vmlinuz")).unwrap().clone();
        let modules = files
            .into_iter()
            .filter_map(|path| {
                let (name, _) = name_of(&path).split_once(".ko")?;
                Some((name.replace('-', "_"), path.clone()))
            })
            .collect();
        Self { image, modules }
    }

    /// Packs the agent and its modules.
    pub fn initramfs(&self, agent: &Path, scratch: &Path) -> PathBuf {
        let path = scratch.join("initramfs");
        let mut archive = Archive(Some(File::create(&path).unwrap()), 1);
        archive.entry("init", ModeFileType::Regular, 0o755, &fs::read(agent).unwrap());
        archive.entry("modules", ModeFileType::Directory, 0o755, b"");
        let (mut list, mut packed) = (String::new(), Vec::new());
        for (condition, names) in WANTED {
            for name in names {
                for name in self.with_dependencies(name) {
                    if !packed.contains(&name) {
                        let content = decompressed(&self.modules[&name]);
                        archive.entry(&format!("modules/{name}.ko"), ModeFileType::Regular, 0o644, &content);
                        list.push_str(&format!("{condition} {name}.ko\n"));
                        packed.push(name);
                    }
                }
            }
        }
        archive.entry("modules/load", ModeFileType::Regular, 0o644, list.as_bytes());
        trailer(archive.0.take().unwrap()).unwrap();
        path
    }

    /// The module after all that it needs; nothing if it is built in.
    fn with_dependencies(&self, name: &str) -> Vec<String> {
        let Some(path) = self.modules.get(name) else { return Vec::new() };
        let output = Command::new("/sbin/modinfo").args(["-F", "depends"]).arg(path).output().unwrap();
        let depends = String::from_utf8(output.stdout).unwrap();
        let mut order = Vec::new();
        for needed in depends.trim().split(',').filter(|name| !name.is_empty()) {
            for name in self.with_dependencies(&needed.replace('-', "_")) {
                if !order.contains(&name) {
                    order.push(name);
                }
            }
        }
        order.push(name.to_owned());
        order
    }
}

struct Archive(Option<File>, u32);

impl Archive {
    fn entry(&mut self, name: &str, kind: ModeFileType, mode: u32, content: &[u8]) {
        let builder = Builder::new(name).ino(self.1).mode(mode).nlink(1).set_mode_file_type(kind);
        self.1 += 1;
        let mut writer = builder.write(self.0.take().unwrap(), content.len() as u32);
        writer.write_all(content).unwrap();
        self.0 = Some(writer.finish().unwrap());
    }
}

fn decompressed(module: &Path) -> Vec<u8> {
    if name_of(module).ends_with(".xz") {
        Command::new("xz").arg("-dc").arg(module).output().unwrap().stdout
    } else {
        fs::read(module).unwrap()
    }
}

fn walk(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_symlink() {
            continue;
        }
        if path.is_dir() { walk(&path, files) } else { files.push(path) }
    }
}

fn name_of(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

/// A layer in a file of its own.
pub struct Layer {
    pub file: tempfile::NamedTempFile,
    pub uuid: [u8; 16],
}

impl Layer {
    /// Builds a layer from what `fill` puts into a directory.
    pub fn build(number: u8, fill: impl FnOnce(&Path)) -> Self {
        let tree = tempfile::tempdir().unwrap();
        fs::set_permissions(tree.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fill(tree.path());
        let file = tempfile::NamedTempFile::new().unwrap();
        let uuid = [number; 16];
        let hex = format!("{number:02x}").repeat(16);
        let uuid_text =
            format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]);
        let made = Command::new("mkfs.erofs")
            .args(["--quiet", "-Enoinline_data", "--all-root", "-U", &uuid_text])
            .arg(file.path())
            .arg(tree.path())
            .status()
            .unwrap();
        assert!(made.success());
        // A device of persistent memory is mapped in pages of 2 MiB.
        let size = fs::metadata(file.path()).unwrap().len().next_multiple_of(2 << 20);
        file.as_file().set_len(size).unwrap();
        Self { file, uuid }
    }

    /// A small system: busybox and users.
    pub fn busybox(number: u8) -> Self {
        Self::build(number, |root| {
            for directory in ["bin", "sbin", "etc", "tmp", "root", "home/alice", "var"] {
                fs::create_dir_all(root.join(directory)).unwrap();
            }
            fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
            fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
            let applets = Command::new("/bin/busybox").arg("--list").output().unwrap().stdout;
            for applet in String::from_utf8(applets).unwrap().lines().filter(|name| *name != "busybox") {
                symlink("/bin/busybox", root.join("bin").join(applet)).unwrap();
            }
            fs::write(
                root.join("etc/passwd"),
                "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n",
            )
            .unwrap();
            fs::write(root.join("etc/group"), "root:x:0:\ntty:x:5:\nalice:x:1000:\naudio:x:29:alice\n")
                .unwrap();
            let script = |name: &str, content: &str, mode| {
                fs::write(root.join("bin").join(name), content).unwrap();
                fs::set_permissions(root.join("bin").join(name), fs::Permissions::from_mode(mode)).unwrap();
            };
            script("forbidden", "#!/bin/sh\n", 0o644);
            script("no-interpreter", "#!/bin/nothing\n", 0o755);
            script("garbage", "not a program", 0o755);
        })
    }

    pub fn bytes(&self) -> u64 {
        self.file.as_file().metadata().unwrap().len()
    }
}
