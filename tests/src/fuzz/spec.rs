//! The workload's specification, as the agent reads it: what decodes, encodes to the same again.

use proto::Spec;

pub fn run(input: &[u8]) {
    let Ok(spec) = Spec::decode(input) else { return };
    let encoded = spec.encode().expect("what was decoded is within all limits");
    assert_eq!(Spec::decode(&encoded).as_ref(), Ok(&spec));
}
