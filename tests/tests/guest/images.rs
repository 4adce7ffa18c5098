//! An image runs as its maker meant it, whatever it comes as.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use tests::setup;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(std::env::var_os("BALLAST_TEST_FIXTURES").expect("set by ci/promises")).join(name)
}

#[test]
fn its_configuration_is_honoured() {
    setup().run("layers", &[]).end().exits(0).prints("hello from /tmp as guest\n");
}

#[test]
fn its_layers_are_stacked_with_their_deletions() {
    let script = "cd /; cat kept replaced added deep/er/file; ls old deleted";
    let ended = setup().run("layers", &[script]).options(["-u", "root"]).end().exits(1);
    let ended = ended.prints("first\nsecond\nsecond\nfirst\nold:\nnew\n");
    assert!(ended.stderr.contains("deleted"), "{ended}");
}

/// Layers that say nothing of the root leave it as it is below them, as `docker build` makes them.
#[test]
fn its_root_is_as_the_last_layer_says_that_describes_it() {
    let ballast = setup();
    let script = r#"mkdir -m 1777 root && mkdir root/bin && cp "$1" root/bin/busybox && touch added
        chown 7:0 root && tar -C root -cf base.tar . && tar -cf above.tar added
        ids=$(sha256sum base.tar above.tar | sed 's/ .*/"/; s/^/"sha256:/' | paste -sd,)
        echo '{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":['"$ids"']}}' > config.json
        echo '[{"Config":"config.json","RepoTags":null,"Layers":["base.tar","above.tar"]}]' > manifest.json
        tar -cf image.tar manifest.json config.json base.tar above.tar"#;
    let directory = ballast.path("image");
    fs::create_dir(&directory).unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-ec", script, "sh"]).arg(fixture("busybox/rootfs/bin/busybox")).current_dir(&directory);
    assert!(shell.status().unwrap().success());
    let stat = ["/bin/busybox", "stat", "-c", "%a %u", "/", "/added"];
    ballast.run(directory.join("image.tar"), &stat).end().exits(0).prints("1777 7\n644 0\n");
}

#[test]
fn a_directory_runs() {
    setup().run(fixture("busybox/rootfs"), &["echo", "directory"]).end().exits(0).prints("directory\n");
}

#[test]
fn an_archive_on_standard_input_runs() {
    let archive = fs::read(fixture("oci/docker.tar")).unwrap();
    setup().run("-", &[]).stdin(archive).end().exits(0).prints("hello from /tmp as guest\n");
}

#[test]
fn a_layout_runs() {
    setup().run(fixture("oci/layout"), &[]).end().exits(0).prints("hello from /tmp as guest\n");
    setup().run(fixture("oci/layout.tar"), &[]).end().exits(0).prints("hello from /tmp as guest\n");
}

#[test]
fn a_distribution_runs() {
    let program = "import hashlib, os; print(os.uname().sysname, hashlib.sha256(b'').hexdigest()[:8])";
    setup().run("debian", &["python3", "-c", program]).end().exits(0).prints("Linux e3b0c442\n");
}

#[test]
fn it_is_writable_its_device_is_not_and_every_run_starts_anew() {
    let ballast = setup();
    let script = "cat /etc/new; echo data > /etc/new && rm /etc/passwd && cat /etc/new
        echo x > /dev/pmem0 || echo refused";
    for _ in 0..2 {
        ballast.run("busybox", &["sh", "-c", script]).end().exits(0).prints("data\nrefused\n");
    }
}
