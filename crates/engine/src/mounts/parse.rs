//! Parsing `-v`, `--mount` and `--volumes-from`, with dockerd's rules and texts.

use std::path::Path;

use bollard_stubs::models as m;

use super::tmpfs::tmpfs_options;
use super::{MountKind, MountPoint};
use crate::error::{EngineError, Result};

const PROPAGATIONS: &[&str] = &[
    "private", "rprivate", "slave", "rslave", "shared", "rshared",
];

/// A mount as the user wrote it; volumes are not looked up yet.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ParsedMount {
    pub(crate) point: MountPoint,
    pub(crate) volume_labels: std::collections::HashMap<String, String>,
    pub(crate) volume_driver: Option<String>,
    pub(crate) volume_options: std::collections::HashMap<String, String>,
}

/// Parses `[source:]destination[:mode]`.
pub(crate) fn parse_bind(raw: &str) -> Result<ParsedMount> {
    let invalid = || EngineError::invalid(format!("invalid volume specification: '{raw}'"));
    let parts: Vec<_> = raw.splitn(4, ':').collect();
    let (source, target, mode) = match *parts.as_slice() {
        ["", ..] => return Err(invalid()),
        [target] => ("", target, ""),
        // "/foo:rw" gives a volume a mode but no name, which is not a thing.
        [_, second] if is_mode(second) => return Err(invalid()),
        [source, target] => (source, target, ""),
        [source, target, mode] => (source, target, mode),
        _ => return Err(invalid()),
    };
    if !is_mode(mode) {
        return Err(EngineError::invalid(format!("invalid mode: {mode}")));
    }
    let kind = if source.starts_with('/') {
        MountKind::Bind
    } else {
        MountKind::Volume
    };
    check_target(target)
        .map_err(|text| invalid().message + ": " + &mount_error(kind.as_str(), &text))
        .map_err(EngineError::invalid)?;
    let words: Vec<_> = mode.split(',').collect();
    let propagation = words
        .iter()
        .find(|word| PROPAGATIONS.contains(word))
        .copied();
    if kind == MountKind::Volume && propagation.is_some() {
        let text = mount_error("volume", "field BindOptions must not be specified");
        return Err(EngineError::invalid(format!(
            "{}: {text}",
            invalid().message
        )));
    }
    Ok(ParsedMount {
        point: MountPoint {
            kind,
            destination: clean_path(target),
            source: if kind == MountKind::Bind {
                clean_path(source)
            } else {
                String::new()
            },
            name: (kind == MountKind::Volume && !source.is_empty()).then(|| source.to_owned()),
            rw: !words.contains(&"ro"),
            mode: mode.to_owned(),
            propagation: match kind {
                MountKind::Bind => propagation.unwrap_or("rprivate").to_owned(),
                _ => String::new(),
            },
            non_recursive: false,
            read_only_non_recursive: false,
            read_only_force_recursive: false,
            create_source: true,
            copy_data: kind == MountKind::Volume && !words.contains(&"nocopy"),
            subpath: None,
            data: String::new(),
            anonymous: kind == MountKind::Volume && source.is_empty(),
        },
        volume_labels: Default::default(),
        volume_driver: None,
        volume_options: Default::default(),
    })
}

/// Parses one entry of `HostConfig.Mounts`.
pub(crate) fn parse_mount(mount: &m::Mount) -> Result<ParsedMount> {
    let typ = mount.typ.map_or_else(String::new, |typ| typ.to_string());
    let fail = |text: &str| EngineError::invalid(mount_error(&typ, text));
    for (given, wanted, field) in [
        (mount.bind_options.is_some(), "bind", "BindOptions"),
        (mount.volume_options.is_some(), "volume", "VolumeOptions"),
        (mount.image_options.is_some(), "image", "ImageOptions"),
        (mount.tmpfs_options.is_some(), "tmpfs", "TmpfsOptions"),
    ] {
        if given && typ != wanted {
            return Err(fail(&format!("field {field} must not be specified")));
        }
    }
    let target = mount.target.as_deref().unwrap_or_default();
    if target.is_empty() {
        return Err(fail("field Target must not be empty"));
    }
    check_target(target).map_err(|text| fail(&text))?;

    let source = mount.source.as_deref().unwrap_or_default();
    let kind = match mount.typ {
        Some(m::MountType::BIND) => MountKind::Bind,
        Some(m::MountType::VOLUME) => MountKind::Volume,
        Some(m::MountType::TMPFS) => MountKind::Tmpfs,
        Some(m::MountType::IMAGE | m::MountType::CLUSTER) => {
            return Err(EngineError::not_implemented(format!(
                "mounts of type {typ:?} are not supported yet"
            )));
        }
        _ => return Err(fail("mount type unknown")),
    };
    let mut parsed = ParsedMount {
        point: MountPoint {
            kind,
            destination: clean_path(target),
            source: String::new(),
            name: None,
            rw: !mount.read_only.unwrap_or(false),
            mode: String::new(),
            propagation: String::new(),
            non_recursive: false,
            read_only_non_recursive: false,
            read_only_force_recursive: false,
            create_source: false,
            copy_data: false,
            subpath: None,
            data: String::new(),
            anonymous: false,
        },
        volume_labels: Default::default(),
        volume_driver: None,
        volume_options: Default::default(),
    };
    match kind {
        MountKind::Bind => {
            parse_bind_mount(mount, source, &mut parsed.point).map_err(|text| fail(&text))?;
        }
        MountKind::Volume => {
            parse_volume_mount(mount, source, &mut parsed).map_err(|text| fail(&text))?;
        }
        MountKind::Tmpfs => {
            if !source.is_empty() {
                return Err(fail("field Source must not be specified"));
            }
            parsed.point.data = tmpfs_options(mount.tmpfs_options.as_ref(), !parsed.point.rw)
                .map_err(|text| fail(&text))?;
        }
    }
    Ok(parsed)
}

fn parse_bind_mount(
    mount: &m::Mount,
    source: &str,
    point: &mut MountPoint,
) -> std::result::Result<(), String> {
    if source.is_empty() {
        return Err("field Source must not be empty".to_owned());
    }
    check_absolute(source)?;
    let options = mount.bind_options.clone().unwrap_or_default();
    let propagation = options
        .propagation
        .map(|mode| mode.to_string())
        .filter(|mode| !mode.is_empty());
    point.source = clean_path(source);
    point.propagation = propagation.unwrap_or_else(|| "rprivate".to_owned());
    point.non_recursive = options.non_recursive.unwrap_or(false);
    point.read_only_non_recursive = options.read_only_non_recursive.unwrap_or(false);
    point.read_only_force_recursive = options.read_only_force_recursive.unwrap_or(false);
    point.create_source = options.create_mountpoint.unwrap_or(false);
    if point.read_only_non_recursive && point.read_only_force_recursive {
        return Err(
            "mount options conflict: ReadOnlyNonRecursive && ReadOnlyForceRecursive".to_owned(),
        );
    }
    if !point.create_source && !Path::new(source).exists() {
        return Err(format!("bind source path does not exist: {source}"));
    }
    Ok(())
}

fn parse_volume_mount(
    mount: &m::Mount,
    source: &str,
    parsed: &mut ParsedMount,
) -> std::result::Result<(), String> {
    let options = mount.volume_options.clone().unwrap_or_default();
    parsed.point.anonymous = source.is_empty();
    parsed.point.name = (!source.is_empty()).then(|| source.to_owned());
    parsed.point.copy_data = !options.no_copy.unwrap_or(false);
    parsed.volume_labels = options.labels.unwrap_or_default();
    if let Some(driver) = options.driver_config {
        parsed.volume_driver = driver.name.filter(|name| !name.is_empty());
        parsed.volume_options = driver.options.unwrap_or_default();
    }
    if let Some(subpath) = options.subpath.filter(|subpath| !subpath.is_empty()) {
        if parsed.point.anonymous {
            return Err("must not set Subpath when using anonymous volumes".to_owned());
        }
        if !is_local(&subpath) {
            return Err("subpath must be a relative path within the volume".to_owned());
        }
        parsed.point.subpath = Some(subpath);
    }
    Ok(())
}

/// Parses `container[:mode]`; true if the mounts may be written.
pub(crate) fn parse_volumes_from(spec: &str) -> Result<(String, bool)> {
    if spec.is_empty() {
        return Err(EngineError::invalid(
            "volumes-from specification cannot be an empty string",
        ));
    }
    let (id, mode) = spec.split_once(':').unwrap_or((spec, ""));
    let words: Vec<_> = mode.split(',').collect();
    let forbidden = words
        .iter()
        .any(|word| PROPAGATIONS.contains(word) || *word == "nocopy");
    if !is_mode(mode) || forbidden {
        return Err(EngineError::invalid(format!("invalid mode: {mode}")));
    }
    Ok((id.to_owned(), !words.contains(&"ro")))
}

/// Checks the destination of `--tmpfs`.
pub(crate) fn check_tmpfs_target(target: &str) -> Result<()> {
    check_target(target).map_err(EngineError::invalid)
}

fn mount_error(typ: &str, text: &str) -> String {
    format!("invalid mount config for type \"{typ}\": {text}")
}

fn check_target(target: &str) -> std::result::Result<(), String> {
    if clean_path(target) == "/" {
        return Err("invalid specification: destination can't be '/'".to_owned());
    }
    check_absolute(target)
}

fn check_absolute(path: &str) -> std::result::Result<(), String> {
    if path.starts_with('/') {
        return Ok(());
    }
    Err(format!(
        "invalid mount path: '{path}' mount path must be absolute"
    ))
}

fn is_local(path: &str) -> bool {
    let mut depth = 0_i32;
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => depth -= 1,
            _ => depth += 1,
        }
        if depth < 0 {
            return false;
        }
    }
    !path.starts_with('/')
}

/// At most one word of each kind.
fn is_mode(mode: &str) -> bool {
    if mode.is_empty() {
        return true;
    }
    let kinds: [&[&str]; 5] = [
        &["rw", "ro"],
        &["z", "Z"],
        PROPAGATIONS,
        &["nocopy"],
        &["consistent", "cached", "delegated"],
    ];
    let mut seen = [0; 5];
    for word in mode.split(',') {
        match kinds.iter().position(|kind| kind.contains(&word)) {
            Some(kind) => seen[kind] += 1,
            None => return false,
        }
    }
    seen.iter().all(|&count| count <= 1)
}

/// A path without `.`, `..` and doubled slashes, as Go's `path.Clean` makes it.
pub(crate) fn clean_path(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                if parts.last().is_some_and(|last| *last != "..") {
                    parts.pop();
                } else if !path.starts_with('/') {
                    parts.push("..");
                }
            }
            _ => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (path.starts_with('/'), joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(result: Result<ParsedMount>) -> String {
        result.unwrap_err().message
    }

    #[test]
    fn binds_take_a_source_a_target_and_a_mode() {
        let bind = parse_bind("/srv/./data:/data/:ro,rslave").unwrap().point;
        assert_eq!(
            (bind.kind, bind.source.as_str(), bind.destination.as_str()),
            (MountKind::Bind, "/srv/data", "/data")
        );
        assert_eq!((bind.rw, bind.propagation.as_str()), (false, "rslave"));
        let volume = parse_bind("data:/data:nocopy").unwrap().point;
        assert_eq!(
            (volume.kind, volume.name.as_deref(), volume.copy_data),
            (MountKind::Volume, Some("data"), false)
        );
        assert!(parse_bind("/data").unwrap().point.anonymous);
    }

    #[test]
    fn bad_binds_are_refused_in_dockers_words() {
        assert_eq!(
            text(parse_bind(":/data")),
            "invalid volume specification: ':/data'"
        );
        assert_eq!(
            text(parse_bind("/a:/b:rw:x")),
            "invalid volume specification: '/a:/b:rw:x'"
        );
        assert_eq!(
            text(parse_bind("/a:rw")),
            "invalid volume specification: '/a:rw'"
        );
        assert_eq!(text(parse_bind("/a:/b:nope")), "invalid mode: nope");
        assert_eq!(text(parse_bind("/a:/b:ro,rw")), "invalid mode: ro,rw");
        assert_eq!(
            text(parse_bind("/a:b")),
            "invalid volume specification: '/a:b': invalid mount config for type \"bind\": invalid mount path: 'b' \
             mount path must be absolute"
        );
        assert_eq!(
            text(parse_bind("/a:/")),
            "invalid volume specification: '/a:/': invalid mount config for type \"bind\": invalid specification: \
             destination can't be '/'"
        );
    }

    #[test]
    fn a_mount_needs_its_source_to_exist_unless_told_to_make_it() {
        let mut mount = m::Mount {
            typ: Some(m::MountType::BIND),
            source: Some("/nowhere/x".to_owned()),
            target: Some("/x".to_owned()),
            ..m::Mount::default()
        };
        assert_eq!(
            text(parse_mount(&mount)),
            "invalid mount config for type \"bind\": bind source path does not exist: /nowhere/x"
        );
        mount.bind_options = Some(m::MountBindOptions {
            create_mountpoint: Some(true),
            ..Default::default()
        });
        assert!(parse_mount(&mount).unwrap().point.create_source);
    }

    #[test]
    fn options_of_another_kind_are_refused() {
        let mount = m::Mount {
            typ: Some(m::MountType::TMPFS),
            target: Some("/x".to_owned()),
            volume_options: Some(m::MountVolumeOptions::default()),
            ..m::Mount::default()
        };
        assert_eq!(
            text(parse_mount(&mount)),
            "invalid mount config for type \"tmpfs\": field VolumeOptions must not be specified"
        );
    }

    #[test]
    fn subpaths_stay_inside() {
        assert!(is_local("a/b") && is_local("a/../b"));
        assert!(!is_local("../a") && !is_local("a/../../b") && !is_local("/a"));
    }

    #[test]
    fn paths_are_cleaned_as_go_does() {
        for (path, clean) in [
            ("/a//b/./c/../d/", "/a/b/d"),
            ("/..", "/"),
            ("", "."),
            ("a/..", "."),
            ("../a", "../a"),
        ] {
            assert_eq!(clean_path(path), clean, "{path}");
        }
    }
}
