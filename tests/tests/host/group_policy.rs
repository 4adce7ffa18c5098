//! What a group says of how the laws of its microVMs work reaches them, and goes with them where they go.

use balloon::control::link::{GroupPolicy, Inherited};
use tests::Ballast;
use tests::crowd::Crowd;
use tests::daemon::{Daemon, command};
use tests::run::until;

const CONFIGURATION: &str = "[groups.ci]\nworking-set-age = '60s'\nstall-budget = '0.3%'\n\
                             [groups.'ci/linux']\nstall-budget = '0.05%'\n";

fn said(group: &str, value: u64) -> Option<Inherited> {
    Some(Inherited { group: group.into(), value })
}

/// Waits until the microVM of this name has been told so in this group.
#[track_caller]
fn wait_for(crowd: &Crowd, name: &str, group: &str, ages: [Option<Inherited>; 2]) {
    let [working_set_age_ms, stall_budget_ppm] = ages;
    let wanted = Some(GroupPolicy { working_set_age_ms, stall_budget_ppm });
    let is_so = || crowd.last(name).is_some_and(|told| told.group == group && told.policy == wanted);
    until(is_so, || format!("not {wanted:?}, but {:?}", crowd.last(name)));
}

#[test]
fn microvms_are_told_what_their_groups_say() {
    let ballast = Ballast::empty();
    let daemon = Daemon::start(&ballast, CONFIGURATION);
    let crowd = Crowd::start(&ballast, 2);
    daemon.wait_until(|tree| tree.host.vms == 2);
    wait_for(&crowd, "vm0", "", [None, None]);
    daemon.move_vm("vm0", "ci/linux/x");
    daemon.move_vm("vm1", "ci");
    wait_for(&crowd, "vm0", "ci/linux/x", [said("ci", 60_000), said("ci/linux", 500)]);
    wait_for(&crowd, "vm1", "ci", [said("ci", 60_000), said("ci", 3000)]);

    // What cannot be had changes nothing.
    daemon.reload(&ballast, "[groups.ci]\nworking-set-age = '0s'\n");
    daemon.reload(&ballast, "[groups.'ci/linux']\nworking-set-age = '1h'\n");
    wait_for(&crowd, "vm0", "ci/linux/x", [said("ci/linux", 3_600_000), None]);
    wait_for(&crowd, "vm1", "ci", [None, None]);
    daemon.move_vm("vm0", "");
    wait_for(&crowd, "vm0", "", [None, None]);

    // One that starts anew says what its configuration does, to those who know where they are.
    daemon.kill();
    let _daemon = Daemon::start(&ballast, CONFIGURATION);
    wait_for(&crowd, "vm1", "ci", [said("ci", 60_000), said("ci", 3000)]);
}

#[test]
fn a_dry_run_says_what_holds_in_each_group() {
    let ballast = Ballast::empty();
    let output =
        command(&ballast, CONFIGURATION).arg("--dry-run").stdout(std::process::Stdio::piped()).output();
    let text = String::from_utf8(output.unwrap().stdout).unwrap();
    for words in [
        "group ci: weight 100; working-set age 60 s, stall budget 0.3 %;",
        "group ci/linux: weight 100; working-set age 60 s (group ci), stall budget 0.05 %;",
    ] {
        assert!(text.contains(words), "{text}");
    }
}
