//! Mount options of tmpfs.

use bollard_stubs::models as m;

/// `TmpfsOptions` as a comma-separated list for the kernel.
pub(crate) fn tmpfs_options(
    options: Option<&m::MountTmpfsOptions>,
    read_only: bool,
) -> Result<String, String> {
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
}
