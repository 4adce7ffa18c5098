use super::*;

/// A host that lacks nothing.
fn good() -> Facts {
    let kernel = KernelSource {
        image: "/boot/vmlinuz-6.1".into(),
        release: "6.1".into(),
        modules: "/lib/modules/6.1".into(),
        origin: Origin::Host,
    };
    let directory = |path: &str| Directory {
        path: path.into(),
        existing: "/var".into(),
        writable: true,
        file_system: Some("ext4".into()),
        free_bytes: Some(20 << 30),
        direct: Some(true),
        user_xattrs: Some(true),
    };
    Facts {
        kvm: Kvm::Working { backend: Some("kvm_intel".into()) },
        in_hypervisor: false,
        kernel: Ok(kernel),
        survey: Some(Ok(Survey { modules: 14, disks: true, notices: vec![] })),
        vmm: Ok("/usr/bin/ballast-vmm".into()),
        agent: Ok("/usr/bin/agent".into()),
        mkfs_erofs: MkfsErofs::Found("mkfs.erofs 1.5".into()),
        memory: Some(Memory { total_bytes: 8 << 30, available_bytes: 4 << 30 }),
        swaps: vec![Swap { name: "/dev/zram0".into(), size_bytes: 1 << 30, used_bytes: 0 }],
        cgroup: Ok("/sys/fs/cgroup/x/ballast".into()),
        pressure: true,
        user: User {
            root: false,
            name: "ann".into(),
            namespaces: Ok(()),
            subordinate_ids: (65536, 65536),
            map_programs: true,
        },
        data: directory("/var/lib/ballast"),
        state: directory("/run/ballast"),
    }
}

/// The finding of `check` after `change`, all others being well.
fn after(check: &str, change: impl FnOnce(&mut Facts)) -> Finding {
    let mut facts = good();
    change(&mut facts);
    let mut findings = judge(&facts);
    findings.retain(|finding| finding.status != Status::Ok);
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert_eq!(findings[0].check, check);
    let told = matches!(&facts.kernel, Err(error) if !matches!(error, kernel::Error::NoKernel(_)))
        || matches!(facts.survey, Some(Err(_)));
    assert_eq!(findings[0].remedy.is_none(), told, "what to do is said once");
    findings.remove(0)
}

#[test]
fn a_good_host_is_ready() {
    let findings = judge(&good());
    assert!(findings.iter().all(|finding| finding.status == Status::Ok && finding.remedy.is_none()));
    assert_eq!(findings.len(), 14);
    assert!(Finding::all_ready(&findings));
}

#[test]
fn what_stands_against_a_run_fails() {
    let fails = |check: &str, change: &dyn Fn(&mut Facts)| {
        let finding = after(check, change);
        assert_eq!(finding.status, Status::Fail, "{finding:?}");
        assert!(!Finding::all_ready(&[finding]));
    };
    for kvm in [
        || Kvm::Missing,
        || Kvm::Closed(ErrorKind::PermissionDenied),
        || Kvm::Closed(ErrorKind::NotFound),
        || Kvm::Closed(ErrorKind::Other),
        || Kvm::Version(11),
        || Kvm::Lacking(vec!["ReadonlyMem".into()]),
        || Kvm::Refusing("busy".into()),
    ] {
        fails("kvm", &move |facts| facts.kvm = kvm());
    }
    for error in [|| kernel::Error::NoKernel(vec!["x".into()]), || kernel::Error::NoRelease("/x".into())] {
        fails("kernel", &|facts| (facts.kernel, facts.survey) = (Err(error()), None));
    }
    fails("hardware", &|facts| facts.kvm = Kvm::Working { backend: Some("kvm_pvm".into()) });
    fails("modules", &|facts| facts.survey = Some(Err(kernel::Error::NoRelease("/x".into()))));
    fails("ballast-vmm", &|facts| facts.vmm = Err("none".into()));
    fails("agent", &|facts| facts.agent = Err("dynamic".into()));
    fails("mkfs.erofs", &|facts| facts.mkfs_erofs = MkfsErofs::Missing);
    fails("memory", &|facts| facts.memory = Some(Memory { total_bytes: 1 << 30, available_bytes: 1 << 20 }));
    fails("data", &|facts| facts.data.writable = false);
    fails("state", &|facts| facts.state.writable = false);
}

#[test]
fn what_makes_a_run_worse_warns() {
    let warns = |check: &str, change: &dyn Fn(&mut Facts)| {
        assert_eq!(after(check, change).status, Status::Warn);
    };
    warns("hardware", &|facts| facts.in_hypervisor = true);
    warns("hardware", &|facts| facts.kvm = Kvm::Working { backend: Some("kvm_new".into()) });
    warns("modules", &|facts| {
        let notices = vec!["no rng".into()];
        facts.survey = Some(Ok(Survey { modules: 13, disks: true, notices }));
    });
    warns("mkfs.erofs", &|facts| facts.mkfs_erofs = MkfsErofs::Found("mkfs.erofs v1.2.1".into()));
    warns("mkfs.erofs", &|facts| facts.mkfs_erofs = MkfsErofs::Found("?".into()));
    warns("data", &|facts| facts.data.direct = Some(false));
    warns("data", &|facts| facts.data.user_xattrs = Some(false));
    warns("data", &|facts| facts.data.free_bytes = Some(1 << 20));
    warns("memory", &|facts| facts.memory = None);
    warns("swap", &|facts| facts.swaps.clear());
    for obstacle in [Obstacle::NoHierarchy, Obstacle::Off, Obstacle::Foreign("/c".into())] {
        warns("cgroup", &|facts| facts.cgroup = Err(obstacle.clone()));
    }
    warns("pressure", &|facts| facts.pressure = false);
    warns("user", &|facts| facts.user.namespaces = Err("max_user_namespaces is 0".into()));
    warns("user", &|facts| facts.user.subordinate_ids = (65536, 0));
    warns("user", &|facts| facts.user.map_programs = false);
}

#[test]
fn root_needs_no_subordinate_ids_and_state_no_direct_files() {
    let mut facts = good();
    facts.user.root = true;
    facts.user.subordinate_ids = (0, 0);
    facts.state.direct = Some(false);
    facts.state.user_xattrs = Some(false);
    facts.state.free_bytes = Some(1 << 20);
    facts.data.direct = None;
    facts.kvm = Kvm::Working { backend: None };
    assert!(judge(&facts).iter().all(|finding| finding.status == Status::Ok));
}
