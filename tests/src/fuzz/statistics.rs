//! Statistics of a guest, as bytes and as an exchange: what is not plausible never shows.

use super::bytes::Bytes;
use balloon::backing::{Backing, Host, Kind, Mapping};
use balloon::device::{Balloon, DriverState, OFFERED, Values};
use balloon::frames::{Books, Layout};

const SIZE: u64 = balloon::BLOCK_BYTES;

pub fn run(input: &[u8]) {
    let (values, unknown) = Values::parse(input);
    assert!(unknown <= (input.len() / 10) as u64);
    if values.plausible(SIZE) {
        assert!(values.free_bytes.unwrap_or(0) <= SIZE && values.total_bytes.unwrap_or(0) <= SIZE);
    }

    let layout = Layout::new(&[(0, SIZE)]).unwrap();
    // SAFETY: nothing is inflated or reported below, so the mapping is never touched.
    let mapping = unsafe { Mapping::new(4096, SIZE, Kind::Anonymous) };
    let backing = Backing::new(Host::without_vectors(), &layout, vec![mapping]).unwrap();
    let mut balloon = Balloon::new(Books::new(layout), backing, 0);
    let mut input = Bytes(input);
    let mut now_ms = 0_u64;
    balloon.activate(OFFERED, now_ms);
    while !input.is_empty() {
        now_ms = now_ms.saturating_add(input.u16().into());
        match input.u8() % 4 {
            0 => {
                let asked = balloon.request_statistics(now_ms);
                assert!(asked.is_err() || balloon.waits_for_statistics());
            }
            1 => {
                balloon.reset();
                assert_eq!(balloon.driver(now_ms), DriverState::Absent);
                assert!(balloon.report(None, now_ms).statistics.is_none_or(|statistics| statistics.stale));
                balloon.activate(OFFERED, now_ms);
            }
            _ => {
                let length = usize::from(input.u8());
                let bytes = input.take(length);
                let ceiling = balloon.report(None, now_ms).ceiling;
                let length = bytes.len() as u64 + u64::from(input.u8() % 2) * 5000;
                let raised = balloon.receive_statistics(bytes, length, now_ms);
                assert!(!balloon.waits_for_statistics());
                assert_eq!(raised, balloon.report(None, now_ms).ceiling > ceiling);
            }
        }
        if let Some(statistics) = balloon.report(None, now_ms).statistics {
            assert!(statistics.values.plausible(SIZE));
            assert!(statistics.age_ms <= now_ms);
        }
    }
}
