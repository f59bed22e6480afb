//! Mount options of tmpfs.

use bollard_stubs::models as m;

use crate::error::{EngineError, Result};

/// Of mounts in general.
const FLAGS: &[&str] = &[
    "defaults",
    "ro",
    "rw",
    "suid",
    "nosuid",
    "dev",
    "nodev",
    "exec",
    "noexec",
    "sync",
    "async",
    "dirsync",
    "remount",
    "mand",
    "nomand",
    "atime",
    "noatime",
    "diratime",
    "nodiratime",
    "bind",
    "rbind",
    "unbindable",
    "runbindable",
    "private",
    "rprivate",
    "shared",
    "rshared",
    "slave",
    "rslave",
    "relatime",
    "norelatime",
    "strictatime",
    "nostrictatime",
];
/// Of this file system, with a value.
const VALUES: &[&str] = &[
    "size",
    "mode",
    "uid",
    "gid",
    "nr_inodes",
    "nr_blocks",
    "mpol",
];

/// Refuses options of `--tmpfs` that nobody knows, with Docker's text.
pub(crate) fn check_tmpfs_options(options: &str) -> Result<()> {
    for option in options.split(',').filter(|option| !option.is_empty()) {
        let known = match option.split_once('=') {
            Some((key, _)) => VALUES.contains(&key),
            None => FLAGS.contains(&option),
        };
        if !known {
            let parts: Vec<String> = option
                .splitn(2, '=')
                .map(|part| format!("{part:?}"))
                .collect();
            return Err(EngineError::invalid(format!(
                "invalid tmpfs option [{}]",
                parts.join(" ")
            )));
        }
    }
    Ok(())
}

/// `TmpfsOptions` as a comma-separated list for the kernel.
pub(crate) fn tmpfs_options(
    options: Option<&m::MountTmpfsOptions>,
    read_only: bool,
) -> std::result::Result<String, String> {
    let mut list = Vec::new();
    if read_only {
        list.push("ro".to_owned());
    }
    if let Some(options) = options {
        if let Some(mode) = options.mode.filter(|&mode| mode != 0) {
            list.push(format!("mode={mode:o}"));
        }
        if let Some(size) = options.size_bytes.filter(|&size| size != 0) {
            list.push(format!("size={size}"));
        }
        for option in options.options.iter().flatten() {
            match option.as_slice() {
                [name] | [name, _] if !matches!(name.as_str(), "exec" | "noexec") => {
                    return Err(format!("invalid option: {name}"));
                }
                [name] => list.push(name.clone()),
                [name, value] => list.push(format!("{name}={value}")),
                _ => return Err("invalid option array length".to_owned()),
            }
        }
    }
    Ok(list.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_become_the_kernels() {
        let options = m::MountTmpfsOptions {
            size_bytes: Some(1 << 20),
            mode: Some(0o1770),
            options: Some(vec![vec!["exec".to_owned()]]),
        };
        assert_eq!(
            tmpfs_options(Some(&options), true).unwrap(),
            "ro,mode=1770,size=1048576,exec"
        );
        let bad = m::MountTmpfsOptions {
            options: Some(vec![vec!["uid".to_owned()]]),
            ..Default::default()
        };
        assert_eq!(
            tmpfs_options(Some(&bad), false).unwrap_err(),
            "invalid option: uid"
        );
    }

    #[test]
    fn unknown_options_are_refused_with_dockers_text() {
        assert!(check_tmpfs_options("rw,size=1m,mode=1777,noexec,").is_ok());
        let refused = |text: &str| check_tmpfs_options(text).unwrap_err().message;
        assert_eq!(refused("foo"), r#"invalid tmpfs option ["foo"]"#);
        assert_eq!(refused("ro,foo=1"), r#"invalid tmpfs option ["foo" "1"]"#);
    }
}
