//! Security options and capabilities.

use bollard_stubs::models as m;
use skep_runtime::spec::normalize_capabilities;

use crate::container::Security;
use crate::error::{EngineError, Result};

/// Checks the names in `CapAdd` and `CapDrop`.
pub(crate) fn check_capabilities(host: &m::HostConfig) -> Result<()> {
    for (list, what) in [
        (&host.cap_add, "invalid CapAdd"),
        (&host.cap_drop, "invalid CapDrop"),
    ] {
        normalize_capabilities(list.as_deref().unwrap_or_default())
            .map_err(|error| EngineError::invalid(error.to_string()).context(what))?;
    }
    Ok(())
}

/// Understands `--security-opt`.
pub(crate) fn parse(options: Option<&Vec<String>>, no_new_privileges: bool) -> Result<Security> {
    let mut security = Security {
        no_new_privileges,
        ..Security::default()
    };
    for option in options.into_iter().flatten() {
        match option.as_str() {
            "no-new-privileges" => security.no_new_privileges = true,
            "writable-cgroups" => security.writable_cgroups = Some(true),
            "disable" => {}
            _ => parse_pair(option, &mut security)?,
        }
    }
    Ok(security)
}

fn parse_pair(option: &str, security: &mut Security) -> Result<()> {
    let (key, value) = option
        .split_once('=')
        .or_else(|| option.split_once(':'))
        .ok_or_else(|| EngineError::invalid(format!("invalid --security-opt 1: {option:?}")))?;
    let bad = || EngineError::invalid(format!("invalid --security-opt 2: {option:?}"));
    let truth = || match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(bad()),
    };
    match key {
        // There is no SELinux here: asking for none is all that can be asked.
        "label" if value == "disable" => {}
        "label" => {
            return Err(EngineError::not_implemented(
                "SELinux labels are not supported",
            ));
        }
        "apparmor" => security.apparmor = Some(value.to_owned()),
        "seccomp" => security.seccomp = Some(value.to_owned()),
        "no-new-privileges" => security.no_new_privileges = truth()?,
        "writable-cgroups" => security.writable_cgroups = Some(truth()?),
        _ => return Err(bad()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::unnecessary_wraps, reason = "the models' lists are optional")]
    fn strings(list: &[&str]) -> Option<Vec<String>> {
        Some(list.iter().map(|&text| text.to_owned()).collect())
    }

    #[test]
    fn security_options_are_understood_or_refused() {
        let security = parse(
            strings(&["no-new-privileges", "seccomp=unconfined", "apparmor:x"]).as_ref(),
            false,
        )
        .unwrap();
        assert!(security.no_new_privileges);
        assert_eq!(security.seccomp.as_deref(), Some("unconfined"));
        assert_eq!(security.apparmor.as_deref(), Some("x"));
        assert_eq!(
            parse(strings(&["foo"]).as_ref(), false)
                .unwrap_err()
                .message,
            "invalid --security-opt 1: \"foo\""
        );
        assert_eq!(
            parse(strings(&["foo=bar"]).as_ref(), false)
                .unwrap_err()
                .message,
            "invalid --security-opt 2: \"foo=bar\""
        );
    }
}
