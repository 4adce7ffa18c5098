//! An image's configuration: what is accepted can be given to a process as it is.

use vmm::image::parse_config;

pub fn run(input: &[u8]) {
    let Ok(parsed) = parse_config(input) else { return };
    let config = parsed.config;
    let strings = config.entrypoint.iter().chain(&config.cmd).chain(&config.env);
    for string in strings.chain([&config.working_dir, &config.user]) {
        assert!(!string.contains('\0'), "{string:?}");
    }
    for variable in &config.env {
        assert!(variable.find('=').is_some_and(|at| at > 0), "{variable:?}");
    }
    assert!(config.working_dir.is_empty() || config.working_dir.starts_with('/'));
}
