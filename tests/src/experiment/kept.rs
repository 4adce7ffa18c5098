//! What of a set of pages was still there when it was used again. Pure.

use comfy_table::{Table, presets};
use serde::{Deserialize, Serialize};

/// How a guest uses its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// A mapped file.
    Mapped,
    /// A file by `pread`.
    Read,
    /// Memory of its own.
    Anonymous,
}

/// Uses in one working-set age.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uses {
    /// Pages that were used.
    pub used: u64,
    /// Of them, those that were in memory.
    pub there: u64,
}

/// One set of pages, of which each is used in turn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// How.
    pub access: Access,
    /// Time between two uses of a page, in tenths of a working-set age.
    pub every_tenths: u64,
    /// One for each working-set age since the begin. What is used for the first time is not in it.
    pub ages: Vec<Uses>,
}

impl Kept {
    /// Of a set that nobody has used.
    #[must_use]
    pub fn new(access: Access, every_tenths: u64) -> Self {
        Self { access, every_tenths, ages: Vec::new() }
    }

    /// A page was used in that working-set age.
    pub fn used(&mut self, age: usize, there: bool) {
        if self.ages.len() <= age {
            self.ages.resize(age + 1, Uses::default());
        }
        self.ages[age].used += 1;
        self.ages[age].there += u64::from(there);
    }

    /// Share of the uses from that working-set age on that found their page, if there were any.
    #[must_use]
    pub fn share_from(&self, age: usize) -> Option<f64> {
        let sum = |of: fn(&Uses) -> u64| self.ages.iter().skip(age).map(of).sum::<u64>();
        let used = sum(|uses| uses.used);
        (used > 0).then(|| sum(|uses| uses.there) as f64 / used as f64)
    }
}

/// The shares that were there, age by age, and from the fifth on in sum: by then four have passed.
#[must_use]
pub fn table(arms: &[(&str, &[Kept])]) -> String {
    const SETTLED: usize = 4;
    let mut table = Table::new();
    let header = ["arm", "access", "used every", "there after 4 T*", "by age"];
    table.load_preset(presets::NOTHING).set_header(header);
    let percent = |share: Option<f64>| share.map_or("-".into(), |share| format!("{:.1} %", share * 100.0));
    for (arm, kept) in arms.iter().flat_map(|(arm, sets)| sets.iter().map(move |kept| (arm, kept))) {
        let share = |uses: &Uses| percent((uses.used > 0).then(|| uses.there as f64 / uses.used as f64));
        let by_age: Vec<String> = kept.ages.iter().map(share).collect();
        table.add_row([
            (*arm).into(),
            format!("{:?}", kept.access).to_lowercase(),
            format!("{:.1} T*", kept.every_tenths as f64 / 10.0),
            percent(kept.share_from(SETTLED)),
            by_age.join("  "),
        ]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_of_the_uses_since_then() {
        let mut kept = Kept::new(Access::Read, 20);
        assert_eq!(kept.share_from(0), None);
        kept.used(0, true);
        (0..3).for_each(|_| kept.used(5, false));
        kept.used(5, true);
        assert_eq!((kept.share_from(0), kept.share_from(4)), (Some(0.4), Some(0.25)));
        let text = table(&[("auto", &[kept])]);
        assert!(text.contains("2.0 T*") && text.contains("25.0 %") && text.contains("100.0 %"), "{text}");
    }
}
