//! Random requests against a naive model, and random rings against nothing but the rule that they end.

use super::*;
use proptest::prelude::*;

/// A request and how its parts are cut into descriptors.
#[derive(Clone, Debug)]
struct Plan {
    kind: u32,
    sector: u64,
    out: Vec<u8>,
    room: usize,
    cuts: Vec<usize>,
}

fn plan() -> impl Strategy<Value = Plan> {
    let sectors =
        (0usize..5, prop_oneof![9 => Just(0usize), 1 => Just(1usize)]).prop_map(|(n, odd)| n * 512 + odd);
    let kind = prop_oneof![
        4 => Just(READ), 4 => Just(WRITE), 1 => Just(FLUSH), 1 => Just(GET_ID), 1 => Just(DISCARD),
        1 => Just(WRITE_ZEROES), 1 => 0u32..20
    ];
    let sector = prop_oneof![8 => 0u64..SECTORS as u64 + 2, 1 => any::<u64>()];
    let list = prop::collection::vec((0u64..SECTORS as u64 + 1, 0u32..4, 0u32..3), 0..4);
    (kind, sector, sectors, list, any::<u8>(), prop::collection::vec(1usize..700, 0..8)).prop_map(
        |(kind, sector, len, list, seed, cuts)| {
            let out = match kind {
                WRITE => (0..len).map(|i| seed.wrapping_add(i as u8)).collect(),
                DISCARD | WRITE_ZEROES => {
                    list.iter().flat_map(|&(at, n, flags)| range(at, n, flags)).collect()
                }
                _ => Vec::new(),
            };
            let room = match kind {
                READ => len,
                GET_ID => len.min(20),
                _ => 0,
            };
            Plan { kind, sector, out, room, cuts }
        },
    )
}

/// What must come of a request, worked out the naive way: status and data.
fn expected(plan: &Plan, disk: &mut [u8]) -> (u8, Option<Vec<u8>>) {
    let span = |sector: u64, len: usize| {
        let start = usize::try_from(sector).ok()?.checked_mul(512)?;
        (start.checked_add(len)? <= DISK).then_some(start..start + len)
    };
    let entries: Vec<(u64, u32, u32)> = plan
        .out
        .chunks_exact(16)
        .map(|entry| {
            let word = |at: usize| u32::from_le_bytes(entry[at..at + 4].try_into().unwrap());
            (u64::from_le_bytes(entry[..8].try_into().unwrap()), word(8), word(12))
        })
        .collect();
    let spans: Option<Vec<_>> = entries.iter().map(|&(at, n, _)| span(at, n as usize * 512)).collect();
    match plan.kind {
        READ | WRITE if !(plan.out.len() + plan.room).is_multiple_of(512) => (IOERR, None),
        READ => match span(plan.sector, plan.room) {
            Some(span) => (OK, Some(disk[span].to_vec())),
            None => (IOERR, None),
        },
        WRITE => match span(plan.sector, plan.out.len()) {
            Some(span) => {
                disk[span].copy_from_slice(&plan.out);
                (OK, None)
            }
            None => (IOERR, None),
        },
        FLUSH => (OK, None),
        GET_ID => (OK, Some(b"vol0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"[..plan.room].to_vec())),
        DISCARD | WRITE_ZEROES => {
            let (most, known) = if plan.kind == DISCARD { (16, 0) } else { (1, 1) };
            if entries.is_empty() || entries.len() > most {
                return (IOERR, None);
            }
            // The first entry that is wrong decides; in it, flags come first.
            for &(at, n, flags) in &entries {
                if flags & !known != 0 {
                    return (UNSUPP, None);
                }
                if span(at, n as usize * 512).is_none() {
                    return (IOERR, None);
                }
            }
            for span in spans.unwrap() {
                disk[span].fill(0);
            }
            (OK, None)
        }
        _ => (UNSUPP, None),
    }
}

/// Cuts `len` bytes from `address` on into descriptors with gaps between them; returns their places.
fn scatter(address: &mut u64, len: usize, cuts: &mut impl Iterator<Item = usize>) -> Vec<(u64, u32)> {
    let mut pieces = Vec::new();
    let mut left = len;
    while left > 0 {
        let piece = cuts.next().unwrap_or(left).min(left);
        pieces.push((*address, piece as u32));
        *address += piece as u64 + 3;
        left -= piece;
    }
    pieces
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Requests of every kind, however cut into descriptors, do to disk and guest memory exactly what a naive
    /// model does, and nothing else; each chain comes back once with an honest length.
    #[test]
    fn does_what_the_model_does(plans in prop::collection::vec(plan(), 1..20), event_idx: bool) {
        let mut machine = Machine::new(false, none());
        machine.queues = [machine.driver.queue(event_idx)];
        let mut model_disk = pattern();
        let mut model_memory: Vec<(u64, Vec<u8>)> = Vec::new();
        let mut wanted_used = Vec::new();
        let mut address = 0x1_0000u64;
        let mut head = 0;
        for plan in &plans {
            let mut cuts = plan.cuts.iter().copied();
            let out = [header(plan.kind, plan.sector), plan.out.clone()].concat();
            let sources = scatter(&mut address, out.len(), &mut cuts);
            let targets = scatter(&mut address, plan.room + 1, &mut cuts);
            if usize::from(head) + sources.len() + targets.len() > usize::from(QUEUE_SIZE) {
                break;
            }
            let mut rest = out.as_slice();
            for &(at, len) in &sources {
                let (now, later) = rest.split_at(len as usize);
                machine.driver.write(at, now);
                model_memory.push((at, now.to_vec()));
                rest = later;
            }
            let (status, data) = expected(plan, &mut model_disk);
            let mut answer = data.clone().unwrap_or_else(|| vec![0; plan.room]);
            answer.push(status);
            let mut rest = answer.as_slice();
            for &(at, len) in &targets {
                let (now, later) = rest.split_at(len as usize);
                model_memory.push((at, now.to_vec()));
                rest = later;
            }
            let honest = if data.is_some() || plan.room == 0 { plan.room as u32 + 1 } else { 0 };
            wanted_used.push((u32::from(head), honest));
            let chain: Vec<Descriptor> = sources.iter().map(|&(at, len)| readable(at, len))
                .chain(targets.iter().map(|&(at, len)| writable(at, len))).collect();
            machine.driver.offer(head, &chain);
            head += chain.len() as u16;
        }
        let mut passes = 0;
        while machine.serve().again {
            passes += 1;
            prop_assert!(passes < 100);
        }
        prop_assert_eq!(machine.driver.take_used(), wanted_used);
        machine.disk.look(|disk| assert!(disk.bytes == model_disk, "the disk differs"));
        let mut wanted = vec![0; MEMORY - 0x1_0000];
        for (at, bytes) in model_memory {
            wanted[(at - 0x1_0000) as usize..][..bytes.len()].copy_from_slice(&bytes);
        }
        prop_assert!(machine.driver.read(0x1_0000, wanted.len()) == wanted, "guest memory differs");
    }

    /// Garbage in table, rings and headers ends, and never reaches beyond queue and memory.
    #[test]
    fn survives_any_ring(
        garbage in prop::collection::vec(any::<u8>(), 0x2000),
        small in prop::collection::vec((0u16..8, 0u64..0x3000, 0u32..600, 0u16..8, 0u16..8), 0..12),
        heads in prop::collection::vec(0u16..8, 0..20),
    ) {
        let mut machine = Machine::new(false, none());
        machine.driver.write(0x2000, &garbage);
        for (index, address, len, flags, next) in small {
            machine.driver.store(index, Descriptor::new(address, len, flags, next));
        }
        for &head in &heads {
            machine.driver.publish(head);
        }
        let mut served = 0;
        for _ in 0..heads.len() + 1 {
            match machine.block.serve(0, &mut machine.queues, machine.driver.memory()) {
                Ok(effects) if effects.again => served += 4,
                // The garbage may have overwritten the ring, which is then broken.
                Ok(_) | Err(_) => break,
            }
        }
        prop_assert!(served <= heads.len() + 4);
    }
}
