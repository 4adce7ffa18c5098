//! `--zone name=N,size=S[,node=H][,hugepages=on|off]`: a further zone of a microVM's memory, or without a size what the
//! first is made of. Pure.

use crate::config::ZoneConfig;
use crate::machine::layout::ZONES;
use balloon::size::Size;
use balloon::zone::{BOOT_ZONE, SECTION_BYTES};

/// Longest name.
const MOST_LETTERS: usize = 32;

/// What is wrong with zones.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArgumentError {
    /// Not `KEY=VALUE`, a key that there is not, or one said twice.
    #[error(
        "--zone {argument}: '{part}' is not one of name=NAME, size=SIZE, node=NUMBER, hugepages=on|off, each at most once"
    )]
    Part {
        /// All of it.
        argument: String,
        /// What is wrong.
        part: String,
    },
    /// Without it nothing is known of the zone.
    #[error("--zone {argument}: {missing} is missing: write --zone name=NAME,size=SIZE")]
    Missing {
        /// All of it.
        argument: String,
        /// Which.
        missing: &'static str,
    },
    /// Not a name.
    #[error("--zone {argument}: use 1 to {MOST_LETTERS} lowercase letters, digits and hyphens as a name")]
    Name {
        /// All of it.
        argument: String,
    },
    /// Two zones of one name, or a size for the first.
    #[error("two zones are called '{0}'; what -m says is called '{BOOT_ZONE}', and has no other size")]
    Twice(String),
    /// Not made of sections.
    #[error(
        "{zone} has {bytes}: with --zone each zone, also what -m says, is a multiple of {unit}",
        bytes = Size::from_bytes(*bytes), unit = Size::from_bytes(SECTION_BYTES)
    )]
    Size {
        /// Its name.
        zone: String,
        /// Its size.
        bytes: u64,
    },
    /// Too many.
    #[error("a microVM has at most {most} zones, what -m says is one of them", most = ZONES)]
    TooMany,
    /// `--in-zone` names none.
    #[error("--in-zone {zone}: there is no such zone; its zones are: {}", names.join(", "))]
    Unknown {
        /// What was named.
        zone: String,
        /// What there is.
        names: Vec<String>,
    },
}

/// All zones of a microVM: the first one of `memory_bytes`, and what the user says of it and adds.
///
/// # Errors
/// The user asks for what cannot be.
pub fn zones(memory_bytes: u64, arguments: &[String]) -> Result<Vec<ZoneConfig>, ArgumentError> {
    let mut zones = vec![ZoneConfig::only(memory_bytes)];
    let mut is_first_described = false;
    for argument in arguments {
        let zone = parse(argument, memory_bytes)?;
        match zones.iter_mut().find(|other| other.name == zone.config.name) {
            Some(first) if zone.is_first && !is_first_described => {
                *first = zone.config;
                is_first_described = true;
            }
            Some(_) => return Err(ArgumentError::Twice(zone.config.name)),
            None => zones.push(zone.config),
        }
    }
    if zones.len() > ZONES {
        return Err(ArgumentError::TooMany);
    }
    match zones.iter().find(|zone| zone.bytes == 0 || !zone.bytes.is_multiple_of(SECTION_BYTES)) {
        Some(zone) if zones.len() > 1 => {
            Err(ArgumentError::Size { zone: zone.name.clone(), bytes: zone.bytes })
        }
        _ => Ok(zones),
    }
}

/// The number of the zone called `name`.
///
/// # Errors
/// None is.
pub fn find_zone(zones: &[ZoneConfig], name: &str) -> Result<usize, ArgumentError> {
    zones.iter().position(|zone| zone.name == name).ok_or_else(|| ArgumentError::Unknown {
        zone: name.into(),
        names: zones.iter().map(|zone| zone.name.clone()).collect(),
    })
}

/// What an argument describes.
struct Described {
    config: ZoneConfig,
    /// It is the zone that every microVM has.
    is_first: bool,
}

fn parse(argument: &str, memory_bytes: u64) -> Result<Described, ArgumentError> {
    let (mut name, mut bytes, mut host_node, mut huge_pages) = (None, None, None, None);
    for part in argument.split(',') {
        let taken = match part.split_once('=') {
            Some(("name", value)) => name.replace(value.to_owned()).is_none(),
            Some(("size", value)) => {
                value.parse::<Size>().is_ok_and(|size| bytes.replace(size.bytes()).is_none())
            }
            Some(("node", value)) => value.parse().is_ok_and(|node| host_node.replace(node).is_none()),
            Some(("hugepages", "on")) => huge_pages.replace(true).is_none(),
            Some(("hugepages", "off")) => huge_pages.replace(false).is_none(),
            _ => false,
        };
        if !taken {
            return Err(ArgumentError::Part { argument: argument.into(), part: part.into() });
        }
    }
    let missing = |missing| ArgumentError::Missing { argument: argument.into(), missing };
    let name = name.ok_or_else(|| missing("name"))?;
    let is_letter = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-';
    if name.is_empty() || name.len() > MOST_LETTERS || !name.chars().all(is_letter) || name.starts_with('-') {
        return Err(ArgumentError::Name { argument: argument.into() });
    }
    let is_first = name == BOOT_ZONE && bytes.is_none();
    let bytes = bytes.or(is_first.then_some(memory_bytes)).ok_or_else(|| missing("size"))?;
    let config = ZoneConfig { name, bytes, host_node, huge_pages: huge_pages.unwrap_or(true) };
    Ok(Described { config, is_first })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn all(memory_mib: u64, arguments: &[&str]) -> Result<Vec<ZoneConfig>, ArgumentError> {
        zones(memory_mib * MIB, &arguments.iter().map(|text| (*text).into()).collect::<Vec<_>>())
    }

    #[test]
    fn a_zone_has_what_was_said_of_it() {
        let zones = all(256, &["name=cache,size=128m", "size=1g,node=1,hugepages=off,name=big-2"]).unwrap();
        let said: Vec<_> = zones
            .iter()
            .map(|zone| (&zone.name[..], zone.bytes / MIB, zone.host_node, zone.huge_pages))
            .collect();
        assert_eq!(
            said,
            [("ram", 256, None, true), ("cache", 128, None, true), ("big-2", 1024, Some(1), false)]
        );
        assert_eq!(find_zone(&zones, "cache"), Ok(1));
        let error = find_zone(&zones, "cash").unwrap_err().to_string();
        assert!(error.ends_with("its zones are: ram, cache, big-2"), "{error}");
    }

    #[test]
    fn the_first_is_what_is_said_of_it_and_as_large_as_ever() {
        let first = &all(100, &["name=ram,hugepages=off,node=1"]).unwrap()[0];
        assert_eq!((first.bytes / MIB, first.host_node, first.huge_pages), (100, Some(1), false));
        let names = all(256, &["name=cache,size=128m", "hugepages=off,name=ram"]).unwrap();
        assert_eq!(
            names.iter().map(|zone| (&zone.name[..], zone.huge_pages)).collect::<Vec<_>>(),
            [("ram", false), ("cache", true)]
        );
    }

    #[test]
    fn one_zone_may_have_any_size() {
        assert_eq!(all(100, &[]).unwrap().len(), 1);
    }

    #[test]
    fn what_cannot_be_is_refused_with_what_is_wrong() {
        for (memory, arguments, word) in [
            (256, &["cache"][..], "'cache'"),
            (256, &["name=cache,size=much"], "'size=much'"),
            (256, &["name=cache,size=128m,size=128m"], "'size=128m'"),
            (256, &["name=cache,size=128m,hugepages=yes"], "'hugepages=yes'"),
            (256, &["name=cache,size=128m,"], "''"),
            (256, &["name=cache"], "size is missing"),
            (256, &["size=128m"], "name is missing"),
            (256, &["name=,size=128m"], "as a name"),
            (256, &["name=Cache,size=128m"], "as a name"),
            (256, &["name=ram,size=128m"], "two zones are called 'ram'"),
            (256, &["name=ram,node=1", "name=ram,hugepages=off"], "two zones are called 'ram'"),
            (256, &["name=a,size=128m", "name=a,size=256m"], "two zones are called 'a'"),
            (256, &["name=a,size=100m"], "a has 100 MiB"),
            (256, &["name=a,size=0"], "a has 0"),
            (200, &["name=a,size=128m"], "ram has 200 MiB"),
        ] {
            let error = all(memory, arguments).unwrap_err().to_string();
            assert!(error.contains(word), "{arguments:?}: {error}");
        }
        let many: Vec<String> = (0..ZONES).map(|n| format!("name=z{n},size=128m")).collect();
        assert_eq!(zones(128 * MIB, &many), Err(ArgumentError::TooMany));
    }
}
