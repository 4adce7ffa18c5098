use super::*;
use crate::Decoder;
use proptest::prelude::*;

fn c(text: &str) -> CString {
    CString::new(text).unwrap()
}

fn minimal() -> Spec {
    Spec {
        args: vec![c("/bin/true")],
        env: vec![],
        cwd: c(""),
        user: String::new(),
        hostname: "box".into(),
        tty: None,
        layers: vec![[1; 16]],
        volumes: vec![],
        ulimits: vec![],
        pids_limit: None,
        zones: vec!["ram".into()],
        zone: 0,
        memory_bytes: 256 << 20,
        memory_max_bytes: None,
        samples: true,
        swap: false,
    }
}

fn c_string(max: usize) -> impl Strategy<Value = CString> {
    prop::collection::vec(1u8..=255, 0..max).prop_map(|bytes| CString::new(bytes).unwrap())
}

fn path() -> impl Strategy<Value = CString> {
    "/[a-z./]{0,30}".prop_map(|path| c(&path))
}

fn spec() -> impl Strategy<Value = Spec> {
    let env = ("[A-Z_]{1,9}", "[^\0]{0,40}").prop_map(|(name, value)| c(&format!("{name}={value}")));
    let volume = ("[!-~]{1,20}", path(), any::<bool>()).prop_map(|(serial, path, read_only)| Volume {
        serial,
        path,
        read_only,
    });
    let limits = prop::collection::vec((any::<u64>(), any::<u64>()), 0..16).prop_map(|pairs| {
        let named = Resource::names().iter().zip(pairs);
        named
            .map(|(name, (a, b))| Ulimit {
                resource: Resource::from_name(name).unwrap(),
                soft: a.min(b),
                hard: a.max(b),
            })
            .collect::<Vec<_>>()
    });
    let size = (any::<u16>(), any::<u16>()).prop_map(|(rows, cols)| WindowSize { rows, cols });
    (
        prop::collection::vec(c_string(60), 1..20),
        prop::collection::vec(env, 0..20),
        prop_oneof![Just(c("")), path()],
        "[a-z0-9:_-]{0,40}",
        "[A-Za-z0-9.-]{1,64}",
        prop::option::of(size),
        prop::collection::vec(any::<[u8; 16]>(), 1..=MAX_LAYERS),
        prop::collection::vec(volume, 0..=MAX_VOLUMES),
        limits,
        prop::option::of(1u32..),
        prop::collection::vec("[a-z0-9-]{1,32}", 1..=MAX_ZONES),
        (any::<u64>(), prop::option::of(any::<u64>())),
    )
        .prop_map(
            |(args, env, cwd, user, hostname, tty, layers, volumes, ulimits, pids_limit, zones, memory)| {
                Spec {
                    args,
                    env,
                    cwd,
                    user,
                    hostname,
                    tty,
                    layers,
                    volumes,
                    ulimits,
                    pids_limit,
                    zone: u8::try_from(zones.len().saturating_sub(1)).unwrap(),
                    zones,
                    memory_bytes: memory.0,
                    memory_max_bytes: memory.1.map(|max| max.min(memory.0)),
                    samples: memory.0 % 2 == 0,
                    swap: memory.0 % 3 == 0,
                }
            },
        )
}

proptest! {
    #[test]
    fn round_trip(spec in spec()) {
        prop_assert_eq!(Spec::decode(&spec.encode().unwrap()), Ok(spec));
    }

    #[test]
    fn every_prefix_is_refused(spec in spec(), cut: prop::sample::Index) {
        let encoded = spec.encode().unwrap();
        prop_assert!(Spec::decode(&encoded[..cut.index(encoded.len())]).is_err());
    }

    /// One changed byte is refused or is another valid spec with that encoding: never a panic, never a
    /// second way to write the same.
    #[test]
    fn accepted_bytes_are_canonical(spec in spec(), at: prop::sample::Index, byte: u8) {
        let mut encoded = spec.encode().unwrap();
        let at = at.index(encoded.len());
        encoded[at] = byte;
        if let Ok(other) = Spec::decode(&encoded) {
            prop_assert_eq!(other.encode(), Ok(encoded));
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..500)) {
        let _ = Spec::decode(&bytes);
    }
}

#[test]
fn a_large_spec_travels_in_chunks() {
    let mut spec = minimal();
    spec.args.extend((0..30).map(|_| c(&"x".repeat(MAX_STRING))));
    let mut stream = Vec::new();
    encode_chunks(&spec.encode().unwrap(), &mut stream);

    let (mut decoder, mut buffer, mut received) = (Decoder::new(), SpecBuffer::default(), None);
    let mut rest = stream.as_slice();
    while let Some(message) = decoder.next(&mut rest).unwrap() {
        let ToGuest::Spec { last, chunk } = message else { panic!("only spec frames were sent") };
        assert_eq!(received, None, "nothing follows the last piece");
        received = buffer.push(last, &chunk).unwrap();
    }
    assert_eq!(received, Some(spec));
}

#[test]
fn an_endless_spec_is_refused_at_the_limit() {
    let chunk = Chunk::new(&[0; MAX_CHUNK]).unwrap();
    let mut buffer = SpecBuffer::default();
    let taken = (0..1000).take_while(|_| buffer.push(false, &chunk) == Ok(None)).count();
    assert_eq!(taken, MAX_SPEC / MAX_CHUNK);
}

#[test]
fn announced_counts_take_no_memory() {
    // 65,536 arguments announced, none there.
    assert_eq!(Spec::decode(&65_536u32.to_le_bytes()), Err(SpecError::Field(bad("args", Fault::Truncated))));
    assert_eq!(
        Spec::decode(&65_537u32.to_le_bytes()),
        Err(SpecError::Field(bad("args", Fault::OverLimit(MAX_STRINGS))))
    );
}

#[test]
fn what_the_agent_would_refuse_is_not_encoded() {
    let nofile = Resource::from_name("nofile").unwrap();
    let volume = |serial: &str, path: &str| Volume { serial: serial.into(), path: c(path), read_only: false };
    let refused = |spec: &Spec| match spec.encode() {
        Err(SpecError::Field(error)) => error.field,
        other => panic!("{other:?}"),
    };
    let changed = |change: fn(&mut Spec)| {
        let mut spec = minimal();
        change(&mut spec);
        refused(&spec)
    };
    assert_eq!(changed(|s| s.args.clear()), "args");
    assert_eq!(changed(|s| s.env.push(c("=value"))), "env");
    assert_eq!(changed(|s| s.cwd = c("relative")), "cwd");
    assert_eq!(changed(|s| s.hostname = "a b".into()), "hostname");
    assert_eq!(changed(|s| s.layers.clear()), "layers");
    assert_eq!(changed(|s| s.pids_limit = Some(0)), "pids_limit");
    assert_eq!(changed(|s| s.zone = 1), "zone");
    assert_eq!(changed(|s| s.memory_max_bytes = Some(s.memory_bytes + 1)), "memory_max_bytes");
    assert_eq!(changed(|s| s.zones = vec!["../agent".into()]), "zones");
    for bad_volume in [volume("", "/data"), volume("a b", "/data"), volume("vol0", "data")] {
        assert_eq!(refused(&Spec { volumes: vec![bad_volume], ..minimal() }), "volumes");
    }
    for limits in [
        vec![Ulimit { resource: nofile, soft: 2, hard: 1 }],
        vec![Ulimit { resource: nofile, soft: 1, hard: 1 }; 2],
    ] {
        assert_eq!(refused(&Spec { ulimits: limits, ..minimal() }), "ulimits");
    }
}
