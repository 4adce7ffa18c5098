//! Every constant of the law, with its unit and why it is what it is.
//!
//! Users set none of them: theirs are the working-set age and the stall budget ([`Settings`](super::Settings)). The
//! simulator sweeps them, and a recording carries those that it was made with.

use serde::{Deserialize, Serialize};

const MIB: u64 = 1 << 20;

/// Constants of the law for one microVM. [`Tuning::default`] argues each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tuning {
    /// Time between two steps. TMO's six seconds: long enough for the refaults of one step to come before the next.
    pub step_ms: u64,
    /// Share of the lists that a step of gain 1 takes: TMO's reclaim ratio, 0.05 %.
    pub ratio_ppm: u64,
    /// Gain without pressure on the group. TMO has 1 and takes an hour for the first 26 %; 10 takes six minutes,
    /// streams' pages among it, and saves a point more at the same budget than 5. What it harms, the
    /// gate below keeps.
    pub gain: u64,
    /// Gain under pressure on the group: the largest step is reached, and no more than that.
    pub pressed_gain: u64,
    /// Harm below which the gain is that, too, of a guest that needs something again: a quarter. It is at work then, so
    /// that the next steps would show if they hurt; of one that needs nothing, nobody knows what it will need when it works.
    pub answered_permille: u64,
    /// How much of what steps evicted a guest must need again to count as at work, in thousandths of a page a second: one.
    /// Clocks and logs need less.
    pub answered_millis: u64,
    /// Most that a step takes of the lists where nothing is known of age. One per cent is TMO's and Senpai's bound:
    /// over two periods, which is the time until harm shows, two per cent can be taken too much.
    pub unverified_ppm: u64,
    /// Most that a step takes of the lists of an idle guest that has not missed anything for the whole window.
    pub quiet_ppm: u64,
    /// Longest working-set age for which each step may take that; for longer ones as many fewer do. What is not verified must
    /// have the time to be used: at 1 % a step and 300 s, a turn over the lists takes two ages.
    pub unverified_age_ms: u64,
    /// Verified cold memory is taken at such a rate that a step takes this time's part of it in a working-set age:
    /// three steps' time, so 6 % at 300 s, and a guest that went idle is trimmed to 2 % of it within four ages.
    pub cold_ms: u64,
    /// Most that a step takes of verified cold memory: half. A wrong guess costs half.
    pub cold_permille: u64,
    /// Most bytes that are ordered in a second: 1 GiB takes half a minute. Evicting is work of the guest's, and
    /// free page reporting cannot keep up with much more.
    pub bytes_per_s: u64,
    /// Least that is worth an order, which costs a message and an answer. At gain 10 it is the step of a guest with
    /// 50 MiB on its lists.
    pub least_bytes: u64,
    /// What anonymous memory still takes when the guest has swapped it out, compressed: a third, as zstd makes of heaps. So
    /// much of what is directed is ordered again.
    pub compressed_permille: u64,
    /// Time over which harm is measured. At 0.1 % of six seconds a single slow fault would exceed the budget.
    pub window_ms: u64,
    /// What one refault is taken to cost where the kernel has no pressure statistics: a read of fast flash.
    pub refetch_us: u64,
    /// Pages below which what was evicted is too little to tell its mean re-use time: 4 MiB.
    pub evidence_pages: u64,
    /// What was evicted so many working-set ages ago says half as much: what did not come back in four was not needed.
    pub memory_ages: u64,
    /// No step so long after a start, as Google's far memory leaves young jobs alone: what a start reads is not
    /// what is used.
    pub start_ms: u64,
    /// First hold after pressure: PSI's shortest average, after which what is over shows as over.
    pub hold_ms: u64,
    /// Longest hold, and time within which pressure counts as repeated. In the field, balloons that were shrunk and
    /// given back every five minutes came to rest at ten (arcbox).
    pub longest_hold_ms: u64,
    /// First rest after trimming brought nothing, doubling up to [`longest_rest_ms`](Self::longest_rest_ms). As the
    /// longest hold: what was futile is futile for a while.
    pub rest_ms: u64,
    /// Longest rest: an hour, as in the field (arcbox). A guest may be compacted or changed by then.
    pub longest_rest_ms: u64,
    /// Share of the ceiling that it rises by under pressure. A guest that needs more says so again half a second
    /// later, and then gets all.
    pub raise_permille: u64,
    /// Least that the ceiling rises by under pressure: what a small guest's runtime takes at its start.
    pub raise_bytes: u64,
    /// Periods of silence after which no step is made: one sample may be late and one lost.
    pub stale_periods: u64,
    /// Silence after which the ceiling climbs: an agent that is starved for memory speaks within that, or never.
    pub silent_ms: u64,
    /// While safe: share of the size by which the ceiling climbs every [`climb_ms`](Self::climb_ms): from half of
    /// the size to all of it in 100 s, in which a host sees its pressure rise.
    pub climb_permille: u64,
    /// While safe: how often the ceiling climbs: PSI's shortest average shows what the last rise did to the host.
    pub climb_ms: u64,
    /// Pressure of the host above which no ceiling climbs or rises beyond a grant: ten stall budgets, 1 %.
    pub host_stall_ppm: u64,
    /// Available share of the host's memory below which it is short: 4 %, ESX's soft state.
    pub host_available_permille: u64,
    /// Page cache that may come in unexplained: share of the cache, a 32nd.
    pub stream_permille: u64,
    /// Page cache that may come in unexplained: at least. A small guest reads a program or two without being
    /// trimmed for it.
    pub stream_least_bytes: u64,
    /// Page cache that may come in unexplained: at most. It is what a stream costs for good.
    pub stream_most_bytes: u64,
    /// Pages by which page cache may grow for each that refaults and was not expected to: what came back needs room.
    /// With two, a guest whose trimmed pages come back now and then would grow for good.
    pub growth_per_refault: u64,
    /// Most of what makes room for a stream that is expected to come back: the wrong victims of the kernel's. A tenth is
    /// what its lists take at any age in the simulator's model, an eighth leaves room; a set that is read again comes
    /// back whole, and seven eighths of it show.
    pub wrong_permille: u64,
    /// Share of the lists below which what steps evicted is next to nothing, so that what comes back is not theirs: 2 %.
    pub clear_permille: u64,
    /// CPU below which a guest is idle, in thousandths of one CPU: one per cent.
    pub idle_cpu_permille: u64,
    /// Time between samples of a busy guest: six to a step, so that one may be lost.
    pub busy_pace_ms: u64,
    /// Time between samples of an idle guest, which wakes for each.
    pub idle_pace_ms: u64,
    /// Most by which pressure on the group multiplies the stall budget: sixteen budgets are 1.6 % of the time.
    /// Beyond that a guest loses more than its neighbours gain.
    pub most_harm_permille: u64,
    /// Stall of a sample's interval that is pressure where the kernel takes no trigger: the trigger's 20 ms in 500.
    pub trigger_ppm: u64,
    /// Available share of a guest's memory below which waiting for reclaim is pressure: a tenth, above the kernel's
    /// watermarks by several times.
    pub scarce_permille: u64,
    /// Available share of a guest's memory below which that alone is pressure, for a guest without an agent: twice
    /// the kernel's high watermark.
    pub empty_permille: u64,
    /// Time after which an order to reclaim is not waited for any longer: more than any order takes at the bound
    /// above.
    pub answer_ms: u64,
    /// Share of an order below which it brought next to nothing: an eighth.
    pub fruitful_permille: u64,
    /// So many orders in a row that brought next to nothing are followed by a rest: one may meet a busy moment.
    pub fruitless_orders: u64,
    /// First rest if what was not reclaimed is in use: ten steps.
    pub short_rest_ms: u64,
    /// Shortest time in which what the guest freed must have come to the host. Free page reporting takes 2 s, a
    /// pass over all zones some more.
    pub gain_ms: u64,
    /// Least freed memory of which a missing gain tells something: eight blocks.
    pub gain_bytes: u64,
    /// Share of what the guest freed that must have come. Half is what whole huge pages bring in published data
    /// (8.0 of 16 GiB were left after all caches had been dropped); half of that is a sign that something is wrong.
    pub gain_permille: u64,
    /// Share of what the host holds that the guest has free, at which pages are compacted and reported finely
    /// though the guest is busy: 10 s in 150 s cost 1.2 % at the price of fine reporting.
    pub kept_permille: u64,
    /// And at least so much: sixteen blocks, below which fine reporting has little to gain.
    pub kept_bytes: u64,
    /// What trimming leaves a guest above what it had taken when it had booted: a shell and its libraries, as of ceilings.
    pub boot_room_bytes: u64,
    /// How much less trimming leaves in use than ceilings leave: about what a kernel of such a guest keeps free.
    pub reserve_bytes: u64,
    /// Least time for which a lifted ceiling stays: a guest takes two windows to show what it makes of it.
    pub lifted_ms: u64,
    /// Least time between two rises of the ceiling: the balloon's driver gives back 1 GiB in it.
    pub lift_ms: u64,
    /// Least time between two aging passes: each looks at all page tables.
    pub least_aging_ms: u64,
    /// Order of free page reporting while idle, after compaction: every page. In published data of a compile
    /// (HyperAlloc, EuroSys'25) 0.98 GiB were left with it and 8.0 GiB with order 9.
    pub fine_order: u8,
    /// Order of free page reporting in the first seconds, of what booting has left free: on a guest of 256 MiB with
    /// Debian's 6.1 cloud kernel 15.0 MiB go back with it, 15.6 with order 0, and none with order 9. Blocks of 64 KiB
    /// take a few requests only.
    pub start_order: u8,
    /// Order of free page reporting while busy: whole huge pages. Finer orders cost 18.6 % of that compile's time.
    pub coarse_order: u8,
    /// How long reporting is fine: several of its cycles of 2 s.
    pub fine_ms: u64,
    /// Least time from one fine phase of a busy guest to the next, as what was freed did not come: 10 s in 150 s cost
    /// 1.2 % at the price of fine reporting.
    pub busy_fine_ms: u64,
    /// Longest time for which the balloon fetches what a guest has freed when memory was directed, and least time to the
    /// next: two ticks of the daemon's, in which it has a GiB.
    pub gather_ms: u64,
    /// Room that a guest is left above its use meanwhile: share of its size. Kernels with transparent huge pages keep up to 5 %
    /// free (`set_recommended_min_free_kbytes()` in mm/khugepaged.c).
    pub gather_room_permille: u64,
    /// And at least so much: above a small kernel's watermarks by several times.
    pub gather_room_bytes: u64,
    /// Room that a guest without an agent is left above its use: share of that. As for lifted ceilings.
    pub headroom_permille: u64,
    /// Room that a guest without an agent is left above its use: at least. What it allocates until the next
    /// statistics.
    pub headroom_bytes: u64,
    /// Share of its page cache that a guest without an agent keeps, as reads of the cache show nowhere.
    pub cache_permille: u64,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            step_ms: 6000,
            ratio_ppm: 500,
            gain: 10,
            pressed_gain: 20,
            answered_permille: 250,
            answered_millis: 1000,
            unverified_ppm: 10_000,
            quiet_ppm: 30_000,
            unverified_age_ms: 300_000,
            cold_ms: 18_000,
            cold_permille: 500,
            bytes_per_s: 32 * MIB,
            least_bytes: 256 << 10,
            compressed_permille: 333,
            window_ms: 30_000,
            refetch_us: 100,
            evidence_pages: 1024,
            memory_ages: 4,
            start_ms: 60_000,
            hold_ms: 10_000,
            longest_hold_ms: 600_000,
            rest_ms: 600_000,
            longest_rest_ms: 3_600_000,
            raise_permille: 250,
            raise_bytes: 128 * MIB,
            stale_periods: 3,
            silent_ms: 30_000,
            climb_permille: 50,
            climb_ms: 10_000,
            host_stall_ppm: 10_000,
            host_available_permille: 40,
            stream_permille: 31,
            stream_least_bytes: 16 * MIB,
            stream_most_bytes: 64 * MIB,
            growth_per_refault: 1,
            wrong_permille: 125,
            clear_permille: 20,
            idle_cpu_permille: 10,
            busy_pace_ms: 1000,
            idle_pace_ms: 10_000,
            most_harm_permille: 16_000,
            trigger_ppm: 40_000,
            scarce_permille: 100,
            empty_permille: 30,
            answer_ms: 60_000,
            fruitful_permille: 125,
            fruitless_orders: 3,
            short_rest_ms: 60_000,
            gain_ms: 30_000,
            gain_bytes: 32 * MIB,
            gain_permille: 250,
            kept_permille: 100,
            kept_bytes: 64 * MIB,
            boot_room_bytes: 16 * MIB,
            reserve_bytes: 8 * MIB,
            lifted_ms: 60_000,
            lift_ms: 500,
            least_aging_ms: 5000,
            fine_order: 0,
            start_order: 4,
            coarse_order: 9,
            fine_ms: 10_000,
            busy_fine_ms: 150_000,
            gather_ms: 4000,
            gather_room_permille: 60,
            gather_room_bytes: 16 * MIB,
            headroom_permille: 50,
            headroom_bytes: 64 * MIB,
            cache_permille: 500,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::fleet::FleetTuning;

    #[test]
    fn the_documentation_names_every_constant() {
        let text = include_str!("../../../docs/policy.md");
        let all = [serde_json::to_value(Tuning::default()), serde_json::to_value(FleetTuning::default())];
        for constants in all {
            for name in constants.unwrap().as_object().unwrap().keys() {
                assert!(text.contains(&format!("| `{name}` | ")), "{name}");
            }
        }
    }
}
