//! Merges what the user typed with what the image says into what the agent is told. Pure.

use super::reclaim_argument::Mode;
use super::run_args::RunArgs;
use crate::image::config::ImageConfig;
use proto::{Resource, Spec, Ulimit, WindowSize};
use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// What cannot be run.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nothing says which program to run.
    #[error("the image names no command to run: write one after it, such as sh")]
    NoCommand,
    /// The first word is empty.
    #[error("the command is empty: name a program, such as sh")]
    EmptyCommand,
    /// A user that no file can name.
    #[error("-u '{0}' is no user: write NAME or NUMBER, with :GROUP after it if wanted")]
    User(String),
    /// A zero byte cannot be passed to a program.
    #[error("{0} contains a zero byte")]
    Zero(&'static str),
    /// A variable without a name.
    #[error("'{0}' is no environment variable: write NAME=VALUE")]
    Variable(String),
    /// A limit that cannot be read.
    #[error("'{0}' is no limit: write NAME=SOFT or NAME=SOFT:HARD with whole numbers or 'unlimited'")]
    Limit(String),
    /// A limit that is above itself.
    #[error("'{0}': the soft limit, which comes first, is above the hard one")]
    SoftAboveHard(String),
    /// A limit of unknown name.
    #[error("'{name}' is no resource that can be limited: use one of {}", Resource::names().join(", "))]
    Resource {
        /// What was written.
        name: String,
    },
    /// A limit given twice.
    #[error("the limit of {0} is given twice")]
    TwoLimits(&'static str),
}

/// The specification's parts that come from user and image; the caller adds layers and volumes.
///
/// # Errors
/// The user typed something that cannot be run.
pub fn specify(
    args: &RunArgs,
    image: &ImageConfig,
    hostname: &str,
    tty: Option<WindowSize>,
    environment: impl Fn(&OsStr) -> Option<OsString>,
) -> Result<Spec, Error> {
    let user = args.user.clone().unwrap_or_else(|| image.user.clone());
    check_user(&user)?;
    Ok(Spec {
        args: command(args, image)?,
        env: variables(args, image, environment)?,
        cwd: working_directory(args, image)?,
        user,
        hostname: hostname.into(),
        tty,
        layers: Vec::new(),
        volumes: Vec::new(),
        ulimits: limits(&args.ulimit)?,
        pids_limit: args.pids_limit,
        zones: Vec::new(),
        zone: 0,
        memory_bytes: 0,
        memory_max_bytes: None,
        samples: args.reclaim != Mode::Off,
        swap: matches!(args.reclaim, Mode::Auto | Mode::Trim),
    })
}

/// What is wrong with the words typed, whatever the image.
///
/// # Errors
/// As [`specify`].
pub fn check(args: &RunArgs) -> Result<(), Error> {
    limits(&args.ulimit)?;
    args.user.as_deref().map_or(Ok(()), check_user)?;
    variables(args, &ImageConfig::default(), |_| None).map(|_| ())
}

fn check_user(user: &str) -> Result<(), Error> {
    if user.contains(char::is_control) { Err(Error::User(user.into())) } else { Ok(()) }
}

/// Docker's rule: a command replaces the image's Cmd, an entrypoint replaces both.
fn command(args: &RunArgs, image: &ImageConfig) -> Result<Vec<CString>, Error> {
    let own = |strings: &[String]| strings.iter().map(OsString::from).collect::<Vec<_>>();
    let mut words = match &args.entrypoint {
        Some(entrypoint) if entrypoint.is_empty() => Vec::new(),
        Some(entrypoint) => vec![entrypoint.clone()],
        None => own(&image.entrypoint),
    };
    if !args.command().is_empty() {
        words.extend(args.command().iter().cloned());
    } else if args.entrypoint.is_none() {
        words.extend(own(&image.cmd));
    }
    match words.first() {
        None => return Err(Error::NoCommand),
        Some(program) if program.is_empty() => return Err(Error::EmptyCommand),
        Some(_) => {}
    }
    words.into_iter().map(|word| c_string(word, "the command")).collect()
}

fn variables(
    args: &RunArgs,
    image: &ImageConfig,
    environment: impl Fn(&OsStr) -> Option<OsString>,
) -> Result<Vec<CString>, Error> {
    let mut all: Vec<OsString> = image.env.iter().map(OsString::from).collect();
    for variable in &args.env {
        let bytes = variable.as_bytes();
        let name = bytes.split(|byte| *byte == b'=').next().unwrap_or(bytes);
        if name.is_empty() {
            return Err(Error::Variable(variable.to_string_lossy().into_owned()));
        }
        all.retain(|other| other.as_bytes().split(|byte| *byte == b'=').next() != Some(name));
        if name.len() < bytes.len() {
            all.push(variable.clone());
        } else if let Some(value) = environment(variable) {
            let mut whole = variable.clone();
            whole.push("=");
            whole.push(value);
            all.push(whole);
        }
    }
    all.into_iter().map(|variable| c_string(variable, "an environment variable")).collect()
}

fn working_directory(args: &RunArgs, image: &ImageConfig) -> Result<CString, Error> {
    let dir = match &args.workdir {
        Some(dir) => dir.clone(),
        None if image.working_dir.is_empty() => "/".into(),
        None => OsString::from(&image.working_dir),
    };
    // Relative to the root, as docker takes it.
    let dir = if dir.as_bytes().starts_with(b"/") {
        dir
    } else {
        let mut absolute = OsString::from("/");
        absolute.push(dir);
        absolute
    };
    c_string(dir, "the working directory")
}

fn limits(texts: &[String]) -> Result<Vec<Ulimit>, Error> {
    let mut all: Vec<Ulimit> = Vec::new();
    for text in texts {
        let bad = || Error::Limit(text.clone());
        let (name, values) = text.split_once('=').ok_or_else(bad)?;
        let resource = Resource::from_name(name).ok_or_else(|| Error::Resource { name: name.into() })?;
        let (soft, hard) = values.split_once(':').unwrap_or((values, values));
        let (soft, hard) = (limit(soft).ok_or_else(bad)?, limit(hard).ok_or_else(bad)?);
        if soft > hard {
            return Err(Error::SoftAboveHard(text.clone()));
        }
        if all.iter().any(|other| other.resource == resource) {
            return Err(Error::TwoLimits(resource.name()));
        }
        all.push(Ulimit { resource, soft, hard });
    }
    Ok(all)
}

fn limit(text: &str) -> Option<u64> {
    if matches!(text, "unlimited" | "-1") { Some(u64::MAX) } else { text.parse().ok() }
}

fn c_string(text: OsString, what: &'static str) -> Result<CString, Error> {
    CString::new(text.into_vec()).map_err(|_| Error::Zero(what))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: RunArgs,
    }

    fn image() -> ImageConfig {
        ImageConfig {
            entrypoint: vec!["/entry".into()],
            cmd: vec!["a".into(), "b".into()],
            env: vec!["PATH=/bin".into(), "X=1".into()],
            working_dir: "/srv".into(),
            user: "app".into(),
            ..ImageConfig::default()
        }
    }

    fn spec(line: &[&str]) -> Result<Spec, Error> {
        let line = ["ballast"].into_iter().chain(line.iter().copied());
        let args = Line::try_parse_from(line).unwrap().args;
        specify(&args, &image(), "host", None, |name| (name == "HOME").then(|| "/h".into()))
    }

    fn words(list: &[CString]) -> Vec<&str> {
        list.iter().map(|word| word.to_str().unwrap()).collect()
    }

    #[test]
    fn commands_merge_as_with_docker() {
        for (line, expected) in [
            (&["i"][..], &["/entry", "a", "b"][..]),
            (&["i", "c"], &["/entry", "c"]),
            (&["--entrypoint", "e", "i"], &["e"]),
            (&["--entrypoint", "e", "i", "-x", "--", "y"], &["e", "-x", "--", "y"]),
            (&["--entrypoint", "", "i", "c"], &["c"]),
            // What follows the image is the command's, whatever it looks like.
            (
                &["--entrypoint", "e", "i", "-t", "-m", "1g", "--name=x", "--help"],
                &["e", "-t", "-m", "1g", "--name=x", "--help"],
            ),
            (&["-i", "--", "i", "--", "-t"], &["/entry", "--", "-t"]),
        ] {
            assert_eq!(words(&spec(line).unwrap().args), expected, "{line:?}");
        }
        assert_eq!(spec(&["--entrypoint", "", "i"]), Err(Error::NoCommand));
        assert_eq!(spec(&["--entrypoint", "", "i", ""]), Err(Error::EmptyCommand));
    }

    #[test]
    fn variables_replace_and_inherit() {
        let spec = spec(&["-e", "X=2", "-e", "HOME", "-e", "UNSET", "-e", "E=", "i"]).unwrap();
        assert_eq!(words(&spec.env), ["PATH=/bin", "X=2", "HOME=/h", "E="]);
        assert!(matches!(super::tests::spec(&["-e", "=1", "i"]), Err(Error::Variable(_))));
    }

    #[test]
    fn image_settings_hold_unless_replaced() {
        let plain = spec(&["i"]).unwrap();
        assert_eq!((plain.cwd.to_str(), plain.user.as_str()), (Ok("/srv"), "app"));
        let own = spec(&["-w", "tmp", "-u", "0:0", "i"]).unwrap();
        assert_eq!((own.cwd.to_str(), own.user.as_str()), (Ok("/tmp"), "0:0"));
    }

    #[test]
    fn what_is_typed_wrong_is_wrong_for_any_image() {
        let checked = |line: &[&str]| {
            let line = ["ballast"].into_iter().chain(line.iter().copied());
            check(&Line::try_parse_from(line).unwrap().args)
        };
        assert_eq!(checked(&["-u", "app:1", "-e", "A=b", "--ulimit", "core=1", "i"]), Ok(()));
        assert_eq!(checked(&["-u", "x\x1b", "i"]), Err(Error::User("x\x1b".into())));
        assert!(matches!(checked(&["-e", "=b", "i"]), Err(Error::Variable(_))));
        assert!(matches!(checked(&["--ulimit", "core", "i"]), Err(Error::Limit(_))));
    }

    #[test]
    fn the_number_of_cpus_is_whole() {
        let parse = |cpus: &str| Line::try_parse_from(["ballast", "--cpus", cpus, "i"]);
        assert_eq!(parse("64").unwrap().args.cpus, 64);
        for bad in ["1.5", "0", "65", "x"] {
            let error = parse(bad).err().unwrap().to_string();
            assert!(error.contains("a whole number from 1 to 64"), "{error}");
        }
    }

    #[test]
    fn limits_are_checked() {
        let own = spec(&["--ulimit", "nofile=10:20", "--ulimit", "core=unlimited", "i"]).unwrap();
        assert_eq!(own.ulimits.len(), 2);
        assert_eq!((own.ulimits[0].soft, own.ulimits[0].hard), (10, 20));
        assert_eq!(own.ulimits[1].soft, u64::MAX);
        for bad in ["nofile", "nofile=x", "nofile=20:10", "nofile=1:", "=1"] {
            assert!(spec(&["--ulimit", bad, "i"]).is_err(), "{bad}");
        }
        assert_eq!(spec(&["--ulimit", "core=1", "--ulimit", "core=2", "i"]), Err(Error::TwoLimits("core")));
    }
}
