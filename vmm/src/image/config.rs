//! An image's configuration: what to run and how, from the JSON that docker and OCI images carry. Pure.
//!
//! [`parse`] is called by the readers of container archives, and by the fuzz target.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use oci_spec::image::{Arch, ImageConfiguration, Os};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::digest::Digest;

/// The largest configuration that is read, in bytes.
pub const CONFIG_BYTES_MAX: u64 = 8 << 20;

/// More layers than any tool makes (overlayfs takes 500, docker 127).
const LAYERS_MAX: usize = 1024;

/// What an image says about running it. Everything may be overridden by the user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageConfig {
    /// The program and its first arguments.
    pub entrypoint: Vec<String>,
    /// Arguments after the entrypoint, or the program if there is none.
    pub cmd: Vec<String>,
    /// `NAME=VALUE`, in order.
    pub env: Vec<String>,
    /// Absolute; empty if the image says nothing.
    pub working_dir: String,
    /// `user`, `uid`, `user:group` or `uid:gid`; empty if the image says nothing.
    pub user: String,
    /// A signal's name or number.
    pub stop_signal: Option<String>,
    /// Absolute paths that the image wants on volumes, sorted.
    pub volumes: Vec<String>,
    /// Ports that the workload listens on, as `80/tcp`, sorted.
    pub exposed_ports: Vec<String>,
    /// Free annotations.
    pub labels: BTreeMap<String, String>,
}

/// A parsed configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// What concerns running.
    pub config: ImageConfig,
    /// Digests of the uncompressed layers, lowest first.
    pub diff_ids: Vec<Digest>,
    /// `linux/amd64`.
    pub platform: String,
}

/// Why a configuration cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// No JSON, or not of this shape.
    #[error("the image's configuration is malformed")]
    Json(#[source] oci_spec::OciSpecError),
    /// A layer whose digest cannot be checked.
    #[error("the image's configuration names a layer by {0:?}, which is no SHA-256 digest")]
    DiffId(String),
    /// A string that no process can be given.
    #[error("the image's configuration has a NUL byte in {0}")]
    Nul(&'static str),
    /// A variable without a name or value.
    #[error("the image's environment has {0:?}, which is not NAME=VALUE")]
    Environment(String),
    /// A stack beyond what can be mounted.
    #[error("the image has {0} layers, more than {LAYERS_MAX}")]
    Layers(usize),
}

/// The platform that guests run.
pub const PLATFORM: &str = "linux/amd64";

/// `os/architecture` as images spell it.
pub fn platform(os: &Os, architecture: &Arch) -> String {
    format!("{os}/{architecture}")
}

/// Reads a configuration file.
///
/// # Errors
/// [`ConfigError`] for whatever could not be honoured as it stands.
pub fn parse(json: &[u8]) -> Result<Parsed, ConfigError> {
    let file = ImageConfiguration::from_reader(json).map_err(ConfigError::Json)?;
    let diff_ids = file.rootfs().diff_ids();
    if diff_ids.len() > LAYERS_MAX {
        return Err(ConfigError::Layers(diff_ids.len()));
    }
    let diff_ids = diff_ids
        .iter()
        .map(|text| text.parse().map_err(|_| ConfigError::DiffId(text.clone())))
        .collect::<Result<_, _>>()?;
    let platform = platform(file.os(), file.architecture());
    let config = file.config().clone().unwrap_or_default();
    let sorted = |list: &Option<Vec<String>>| {
        let mut list = list.clone().unwrap_or_default();
        list.sort();
        list
    };
    let mut working_dir = config.working_dir().clone().unwrap_or_default();
    if !working_dir.is_empty() && !working_dir.starts_with('/') {
        working_dir.insert(0, '/');
    }
    let config = ImageConfig {
        entrypoint: config.entrypoint().clone().unwrap_or_default(),
        cmd: config.cmd().clone().unwrap_or_default(),
        env: config.env().clone().unwrap_or_default(),
        working_dir,
        user: config.user().clone().unwrap_or_default(),
        stop_signal: config.stop_signal().clone().filter(|signal| !signal.is_empty()),
        volumes: sorted(config.volumes()),
        exposed_ports: sorted(config.exposed_ports()),
        labels: config.labels().clone().unwrap_or_default().into_iter().collect(),
    };
    check(&config)?;
    Ok(Parsed { config, diff_ids, platform })
}

fn check(config: &ImageConfig) -> Result<(), ConfigError> {
    let lists = [
        ("Entrypoint", &config.entrypoint),
        ("Cmd", &config.cmd),
        ("Env", &config.env),
        ("Volumes", &config.volumes),
    ];
    for (field, list) in lists {
        if list.iter().any(|text| text.contains('\0')) {
            return Err(ConfigError::Nul(field));
        }
    }
    for (field, text) in [("WorkingDir", &config.working_dir), ("User", &config.user)] {
        if text.contains('\0') {
            return Err(ConfigError::Nul(field));
        }
    }
    match config.env.iter().find(|text| text.find('=').is_none_or(|equals| equals == 0)) {
        Some(text) => Err(ConfigError::Environment(text.chars().take(200).collect())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn json(config: &str) -> String {
        format!(
            r#"{{"architecture":"amd64","os":"linux","config":{config},"rootfs":{{"type":"layers","diff_ids":
            ["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]}},"history":[]}}"#
        )
    }

    #[test]
    fn what_docker_writes_is_read() {
        let parsed = parse(
            json(
                r#"{"Hostname":"","User":"app:app","AttachStdin":false,"Tty":false,"Env":["PATH=/bin","A=b=c"],
                "Cmd":["-c","x"],"Entrypoint":["/bin/sh"],"WorkingDir":"srv","Volumes":{"/z":{},"/data":{}},
                "ExposedPorts":{"80/tcp":{}},"StopSignal":"SIGQUIT","Labels":{"a":"b"},"OnBuild":null,"Image":"x"}"#,
            )
            .as_bytes(),
        )
        .unwrap();
        assert_eq!(parsed.config.entrypoint, ["/bin/sh"]);
        assert_eq!(parsed.config.cmd, ["-c", "x"]);
        assert_eq!(parsed.config.env, ["PATH=/bin", "A=b=c"]);
        assert_eq!(parsed.config.working_dir, "/srv");
        assert_eq!(parsed.config.user, "app:app");
        assert_eq!(parsed.config.stop_signal.as_deref(), Some("SIGQUIT"));
        assert_eq!(parsed.config.volumes, ["/data", "/z"]);
        assert_eq!(parsed.platform, PLATFORM);
        assert_eq!(parsed.diff_ids, [Digest::of(b"")]);
    }

    #[test]
    fn absent_and_null_fields_are_empty() {
        let nulls =
            r#"{"Cmd":null,"Env":null,"Entrypoint":null,"Volumes":null,"Labels":null,"StopSignal":""}"#;
        for config in ["{}", "null", nulls] {
            assert_eq!(parse(json(config).as_bytes()).unwrap().config, ImageConfig::default(), "{config}");
        }
    }

    #[test]
    fn what_cannot_be_honoured_is_refused() {
        for config in [
            r#"{"Env":["NOVALUE"]}"#,
            r#"{"Env":["=x"]}"#,
            r#"{"Cmd":["a\u0000b"]}"#,
            r#"{"User":"a\u0000b"}"#,
            r#"{"Cmd":"text"}"#,
        ] {
            assert!(parse(json(config).as_bytes()).is_err(), "{config}");
        }
        assert!(parse(b"").is_err());
        assert!(parse(b"{}").is_err());
        let unknown = json("{}").replace("sha256:", "sha512:");
        assert!(matches!(parse(unknown.as_bytes()), Err(ConfigError::DiffId(_))));
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused(text in ".{0,60}") {
            let _ = parse(text.as_bytes());
            let _ = parse(json(&text).as_bytes());
        }
    }
}
