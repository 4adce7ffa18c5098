use super::*;
use proptest::prelude::*;
use std::convert::Infallible;

type Directory = BTreeMap<ModuleName, Found>;

fn names(names: &[&str]) -> Vec<ModuleName> {
    names.iter().map(|name| ModuleName::new(name)).collect()
}

fn directory(modules: &[(&str, &[&str], &[&str])]) -> Directory {
    let module = |(name, needs, likes): &(&str, &[&str], &[&str])| {
        (ModuleName::new(name), Found::Module { needs: names(needs), likes: names(likes) })
    };
    modules.iter().map(module).collect()
}

fn run(wanted: &[Wanted], directory: &Directory) -> Result<LoadOrder, OrderError<Infallible>> {
    order(wanted, |name| Ok(directory.get(name).cloned().unwrap_or(Found::Absent)))
}

fn lines(order: &LoadOrder) -> Vec<String> {
    order.steps.iter().map(|step| format!("{} {}", step.condition, step.name)).collect()
}

const fn needed(name: &'static str) -> Wanted {
    base(name, Need::Required)
}

#[test]
fn needs_come_first_and_what_both_need_is_base() {
    let directory = directory(&[
        ("virtio", &[], &[]),
        ("ring", &["virtio"], &[]),
        ("mmio", &["ring", "virtio"], &[]),
        ("blk", &["virtio", "ring"], &[]),
    ]);
    let order = run(&[disk("blk"), needed("mmio")], &directory).unwrap();
    assert_eq!(lines(&order), ["base virtio", "base ring", "base mmio", "disk blk"]);
    assert_eq!(order.missing, []);
}

#[test]
fn an_algorithm_is_found_by_its_portable_implementation() {
    let mut directory = directory(&[
        ("libcrc32c", &[], &["crc32c"]),
        ("crc32c-generic", &[], &[]),
        ("erofs", &["libcrc32c"], &[]),
    ]);
    let order = run(&[needed("erofs")], &directory).unwrap();
    assert_eq!(lines(&order), ["base crc32c_generic", "base libcrc32c", "base erofs"]);
    directory.insert(ModuleName::new("crc32c_generic"), Found::BuiltIn);
    assert_eq!(lines(&run(&[needed("erofs")], &directory).unwrap()), ["base libcrc32c", "base erofs"]);
    directory.remove(&ModuleName::new("crc32c_generic"));
    assert_eq!(lines(&run(&[needed("erofs")], &directory).unwrap()), ["base libcrc32c", "base erofs"]);
}

#[test]
fn what_is_missing_is_an_error_or_a_lack() {
    let directory = directory(&[("ext4", &["jbd2"], &[]), ("blk", &[], &[])]);
    let order = run(&[disk("blk"), disk("ext4")], &directory).unwrap();
    assert_eq!(lines(&order), ["disk blk"]);
    assert_eq!(order.missing, [disk("ext4")]);
    let error = run(&[needed("ext4")], &directory).unwrap_err();
    assert_eq!(error, OrderError::Missing { missing: ModuleName::new("jbd2") });
}

#[test]
fn what_was_placed_for_a_missing_module_is_taken_back() {
    let directory = directory(&[("a", &["b", "none"], &[]), ("b", &[], &[]), ("c", &["b"], &[])]);
    let order = run(&[disk("a"), disk("c")], &directory).unwrap();
    assert_eq!(lines(&order), ["disk b", "disk c"]);
}

#[test]
fn cycles_end() {
    let hard = directory(&[("a", &["b"], &[]), ("b", &["a"], &[])]);
    assert_eq!(run(&[needed("a")], &hard).unwrap_err(), OrderError::Cycle(ModuleName::new("a")));
    let soft = directory(&[("a", &[], &["b"]), ("b", &[], &["a"])]);
    assert_eq!(lines(&run(&[needed("a")], &soft).unwrap()), ["base b", "base a"]);
}

#[test]
fn a_long_chain_needs_no_deep_stack() {
    let name = |i: u32| ModuleName::new(&format!("m{i}"));
    let module = |i| (name(i), Found::Module { needs: vec![name(i + 1)], likes: vec![] });
    let mut directory: Directory = (0..100_000).map(module).collect();
    directory.insert(name(100_000), Found::BuiltIn);
    assert_eq!(run(&[needed("m0")], &directory).unwrap().steps.len(), 100_000);
}

const NAMES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

/// What a module needs, directly or not, by going round until nothing changes.
fn closure(directory: &Directory, root: &str) -> BTreeSet<ModuleName> {
    let mut closed = BTreeSet::from([ModuleName::new(root)]);
    loop {
        let needs = closed.iter().filter_map(|name| match directory.get(name) {
            Some(Found::Module { needs, .. }) => Some(needs.clone()),
            _ => None,
        });
        let next: BTreeSet<_> = needs.flatten().chain(closed.iter().cloned()).collect();
        if next == closed {
            return closed;
        }
        closed = next;
    }
}

proptest! {
    /// Any graph without cycles: the order holds exactly what is needed, once, needs first.
    #[test]
    fn the_order_agrees_with_the_closure(
        edges in prop::collection::vec((0usize..8, 0usize..8), 0..16),
        wanted in prop::collection::vec(0usize..8, 1..4),
    ) {
        let mut directory = directory(&NAMES.map(|name| (name, &[] as &[&str], &[] as &[&str])));
        for (from, to) in edges.into_iter().filter(|(from, to)| from < to) {
            if let Some(Found::Module { needs, .. }) = directory.get_mut(&ModuleName::new(NAMES[from])) {
                needs.push(ModuleName::new(NAMES[to]));
            }
        }
        let list: Vec<_> = wanted.iter().map(|at| needed(NAMES[*at])).collect();
        let order = run(&list, &directory).unwrap();
        let expected: BTreeSet<_> = wanted.iter().flat_map(|at| closure(&directory, NAMES[*at])).collect();
        let placed: Vec<_> = order.steps.iter().map(|step| step.name.clone()).collect();
        prop_assert_eq!(placed.iter().cloned().collect::<BTreeSet<_>>(), expected);
        for (at, name) in placed.iter().enumerate() {
            prop_assert!(!placed[..at].contains(name));
            if let Found::Module { needs, .. } = &directory[name] {
                prop_assert!(needs.iter().all(|need| placed[..at].contains(need)));
            }
        }
    }

    /// Any graph at all ends in an order or an error.
    #[test]
    fn any_graph_ends(edges in prop::collection::vec((0usize..8, 0usize..10, any::<bool>()), 0..30)) {
        let mut directory = directory(&NAMES.map(|name| (name, &[] as &[&str], &[] as &[&str])));
        for (from, to, hard) in edges {
            if let Some(Found::Module { needs, likes }) = directory.get_mut(&ModuleName::new(NAMES[from])) {
                let to = ModuleName::new(NAMES.get(to).copied().unwrap_or("absent"));
                if hard { needs.push(to) } else { likes.push(to) }
            }
        }
        let _ = run(&[needed("a"), disk("b")], &directory);
    }
}
