//! What a configuration comes to, in words, for `ballastd --dry-run`. Pure.

#![forbid(unsafe_code)]

use super::config::{Config, Error, KillConfig};
use super::watermarks::Watermarks;
use crate::control::link::{GroupPolicy, Inherited};
use crate::device::LEAST_FLOOR_BYTES;
use crate::policy::Settings;
use crate::size::Size;
use crate::working_set::{StallBudget, WorkingSetAge};
use crate::zone::{Charging, Limits, Scope};
use std::fmt::Write;
use std::net::SocketAddr;

/// What would hold on a host of so much memory: a line for the pool and one for each group.
///
/// # Errors
/// The configuration cannot be had.
pub fn describe(config: &Config, memory_bytes: u64) -> Result<String, Error> {
    let tree = config.tree(memory_bytes)?;
    let (sharing, policies) = (config.sharing(), config.policies());
    let pool = tree.pool();
    // It is there for whom swap is: but who mistyped it should see that.
    let beyond = if pool.capacity_bytes > memory_bytes { " (more than it has)" } else { "" };
    let mut text = format!(
        "pool: {} of the host's {}{beyond}{}, overcommit {}",
        Size::from_bytes(pool.capacity_bytes),
        Size::from_bytes(memory_bytes),
        too_little(pool.capacity_bytes),
        if pool.overcommit { "on" } else { "off" }
    );
    let finish = |text: &mut String, path: &str, charging| {
        let shared = match sharing.scope(path, "", None) {
            Ok(Scope::Host) => "on the whole host".into(),
            Ok(Scope::Group(path)) => format!("within group {path}"),
            // No microVM of a group asks for more than it says: nothing is refused.
            Ok(Scope::Vm(_)) | Err(_) => "with nobody".into(),
        };
        let charged = match charging {
            Charging::Proportional => "proportional",
            Charging::FirstTouch => "first-touch",
            Charging::Common => "common",
        };
        // To write into a string cannot fail.
        let _ = writeln!(text, "; image layers are shared {shared}, charged {charged}");
    };
    finish(&mut text, "", tree.charging(tree.root()));
    let Watermarks { enough, short, critical, refuse } = config.pool.watermarks;
    let killed = match config.pool.kill {
        KillConfig::Never => "nobody is killed",
        KillConfig::LeastProtected => "the least protected is killed where nothing else helps",
    };
    let _ = writeln!(
        text,
        "host: short below {short} of its memory available and until it is {enough}, critical below {critical}; below \
         {refuse} no microVM is started and {killed}"
    );
    let _ = writeln!(text, "metrics: {}", metrics(config.metrics));
    for path in config.groups.keys() {
        let Some((id, node)) = tree.group(path).and_then(|id| Some((id, tree.get(id)?))) else { continue };
        let law = law(path, &policies.of(path));
        let _ = write!(text, "group {path}: {}; {law}", limits(node.limits()));
        finish(&mut text, path, tree.charging(id));
    }
    Ok(text)
}

fn limits(limits: &Limits) -> String {
    let Limits { min, low, high, max, weight } = *limits;
    let named = [("min", min), ("low", low), ("high", high), ("max", max)];
    let set = named.into_iter().filter_map(|(name, bytes)| {
        let bytes = bytes?;
        let note = if name == "max" { too_little(bytes) } else { String::new() };
        Some(format!("{name} {}{note}", Size::from_bytes(bytes)))
    });
    set.chain([format!("weight {weight}")]).collect::<Vec<_>>().join(", ")
}

/// What is said of a limit that nobody can keep to: who left out a unit should see that.
fn too_little(bytes: u64) -> String {
    match bytes {
        LEAST_FLOOR_BYTES.. => String::new(),
        _ => format!(" (no microVM keeps to that: it is left {})", Size::from_bytes(LEAST_FLOOR_BYTES)),
    }
}

fn metrics(address: Option<SocketAddr>) -> String {
    match address {
        None => "on the daemon's socket".into(),
        Some(address) if address.ip().is_loopback() => format!("on the daemon's socket and on {address}"),
        Some(address) => {
            format!(
                "on the daemon's socket and on {address}, for whoever reaches that: nobody is asked who they are"
            )
        }
    }
}

/// What the laws of microVMs in the group at `path` work with, and who says so where that is another.
fn law(path: &str, policy: &GroupPolicy) -> String {
    let of = |inherited: &Option<Inherited>, default| match inherited {
        Some(Inherited { group, value }) if group == path => (*value, String::new()),
        Some(Inherited { group, value }) => (*value, format!(" (group {group})")),
        None => (default, " (default)".into()),
    };
    let (age_ms, age_from) = of(&policy.working_set_age_ms, Settings::WORKING_SET_AGE_MS);
    let (budget_ppm, budget_from) = of(&policy.stall_budget_ppm, Settings::STALL_BUDGET_PPM);
    // Each was checked when it was read.
    let age = WorkingSetAge::from_ms(age_ms).map(|age| age.to_string()).unwrap_or_default();
    let budget = StallBudget::from_ppm(budget_ppm).map(|budget| budget.to_string()).unwrap_or_default();
    format!("working-set age {age}{age_from}, stall budget {budget}{budget_from}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pool_and_groups_have_a_line_each() {
        let text = "[pool]\ncapacity = '8g'\n[groups.ci]\nmax = '4g'\nshare = 'vm'\nworking-set-age = '1m'\n\
                    [groups.'ci/linux']\nmin = '1g'\nweight = 7\ncharging = 'common'\nstall-budget = '0.3%'\n";
        let described = describe(&Config::parse(text).unwrap(), 16 << 30).unwrap();
        assert_eq!(
            described,
            "pool: 8 GiB of the host's 16 GiB, overcommit on; image layers are shared on the whole host, charged \
             proportional\n\
             host: short below 4% of its memory available and until it is 6%, critical below 2%; below 1% no microVM is \
             started and nobody is killed\n\
             metrics: on the daemon's socket\n\
             group ci: max 4 GiB, weight 100; working-set age 60 s, stall budget 0.1 % (default); image layers are \
             shared with nobody, charged proportional\n\
             group ci/linux: min 1 GiB, weight 7; working-set age 60 s (group ci), stall budget 0.3 %; image layers \
             are shared with nobody, charged common\n"
        );
        let large = describe(&Config::parse("[pool]\ncapacity = '17g'\n").unwrap(), 16 << 30).unwrap();
        assert!(large.starts_with("pool: 17 GiB of the host's 16 GiB (more than it has), "), "{large}");
        let small = "metrics = '0.0.0.0:9753'\n[pool]\ncapacity = '95m'\n[groups.ci]\nmax = 1\n[groups.web]\nmax = '96m'\n";
        let small = describe(&Config::parse(small).unwrap(), 16 << 30).unwrap();
        let left = "(no microVM keeps to that: it is left 96 MiB)";
        assert!(small.contains(&format!("pool: 95 MiB of the host's 16 GiB {left}, ")), "{small}");
        assert!(small.contains(&format!("group ci: max 1 B {left}, ")), "{small}");
        assert!(small.contains("group web: max 96 MiB, "), "{small}");
        assert!(
            small.contains("metrics: on the daemon's socket and on 0.0.0.0:9753, for whoever reaches that"),
            "{small}"
        );
        let text = "[pool]\ncapacity = '1g'\n[groups.ci]\nmin = '2g'\n";
        assert!(describe(&Config::parse(text).unwrap(), 16 << 30).is_err());
    }
}
