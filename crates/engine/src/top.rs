//! `docker top`: the host's `ps`, or, where there is none, its default columns from /proc.

use bollard_stubs::models as m;

use crate::container::Phase;
use crate::engine::{Engine, blocking};
use crate::error::{EngineError, Result};

impl Engine {
    /// The container's processes.
    pub async fn top_container(&self, id: &str, ps_args: &str) -> Result<m::ContainerTopResponse> {
        let args = if ps_args.is_empty() {
            "-ef".to_owned()
        } else {
            ps_args.to_owned()
        };
        check_args(&args)?;
        let container = self.containers.get(id)?;
        if container.record().state.phase == Phase::Restarting {
            return Err(EngineError::conflict(format!(
                "Container {} is restarting, wait until the container is running",
                container.id
            )));
        }
        let pids = container.shim()?.pids()?;
        let response = blocking(move || match run_ps(&args, &pids) {
            Ok(text) => parse(&text, &pids),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && args == "-ef" => {
                Ok(from_proc(&pids))
            }
            Err(error) => Err(EngineError::system(format!("ps: {error}"))),
        })
        .await?;
        self.container_event(&container, "top");
        Ok(response)
    }
}

/// `-o pid=PID…` with another key would let one column pass for the pids.
fn check_args(args: &str) -> Result<()> {
    let compact = args.replace("= ", "=");
    for word in compact.split_whitespace().skip(1) {
        if let Some((key, value)) = word.split_once('=')
            && value.starts_with("PID")
            && key != "pid"
        {
            return Err(EngineError::invalid(format!(
                "specifying \"{key}={value}\" is not allowed"
            )));
        }
    }
    Ok(())
}

fn run_ps(args: &str, pids: &[i32]) -> std::io::Result<String> {
    let words: Vec<_> = args.split(' ').filter(|word| !word.is_empty()).collect();
    let list: Vec<_> = pids.iter().map(i32::to_string).collect();
    let narrow = std::process::Command::new("ps")
        .args(&words)
        .arg(format!("-q{}", list.join(",")))
        .output()?;
    // Some options do not go with -q.
    let output = if narrow.status.success() {
        narrow
    } else {
        std::process::Command::new("ps").args(&words).output()?
    };
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let complaint = String::from_utf8_lossy(&output.stderr)
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned();
    Err(std::io::Error::other(if complaint.is_empty() {
        output.status.to_string()
    } else {
        complaint
    }))
}

fn parse(text: &str, pids: &[i32]) -> Result<m::ContainerTopResponse> {
    let mut lines = text.lines();
    let titles: Vec<String> = lines
        .next()
        .unwrap_or_default()
        .split_ascii_whitespace()
        .map(str::to_owned)
        .collect();
    let column = titles
        .iter()
        .position(|title| title == "PID")
        .ok_or_else(|| EngineError::system("Couldn't find PID field in ps output"))?;
    let mut processes = Vec::new();
    let mut ours = false;
    for line in lines.filter(|line| !line.trim().is_empty()) {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        let pid = fields.get(column).copied().unwrap_or_default();
        // "-" is a thread of the process above.
        if pid != "-" {
            let number: i32 = pid
                .parse()
                .map_err(|_| EngineError::system(format!("Unexpected pid '{pid}'")))?;
            ours = pids.contains(&number);
        }
        if ours {
            let last = titles.len() - 1;
            let mut row: Vec<String> = fields
                .iter()
                .take(last)
                .map(|&field| field.to_owned())
                .collect();
            row.push(fields.get(last..).unwrap_or_default().join(" "));
            processes.push(row);
        }
    }
    Ok(m::ContainerTopResponse {
        titles: Some(titles),
        processes: Some(processes),
    })
}

/// `ps -ef` without ps.
fn from_proc(pids: &[i32]) -> m::ContainerTopResponse {
    let titles = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
        .map(str::to_owned)
        .to_vec();
    m::ContainerTopResponse {
        titles: Some(titles),
        processes: Some(pids.iter().filter_map(|&pid| row(pid)).collect()),
    }
}

fn row(pid: i32) -> Option<Vec<String>> {
    use std::os::unix::fs::MetadataExt as _;
    let dir = std::path::PathBuf::from(format!("/proc/{pid}"));
    let stat = std::fs::read_to_string(dir.join("stat")).ok()?;
    let (name, rest) = stat.rsplit_once(')')?;
    let name = name.split_once('(')?.1;
    let fields: Vec<_> = rest.split_ascii_whitespace().collect();
    let ticks = |index: usize| {
        fields
            .get(index)
            .and_then(|field| field.parse::<u64>().ok())
            .unwrap_or(0)
    };
    let cpu = (ticks(11) + ticks(12)) / 100;
    let uptime: f64 = std::fs::read_to_string("/proc/uptime")
        .ok()?
        .split(' ')
        .next()?
        .parse()
        .ok()?;
    let age = (uptime - ticks(19) as f64 / 100.0).max(0.0);
    let started = jiff::Zoned::now()
        .checked_sub(jiff::SignedDuration::from_secs_f64(age))
        .ok()?;
    let command = std::fs::read(dir.join("cmdline")).ok()?;
    let command = String::from_utf8_lossy(&command)
        .trim_end_matches('\0')
        .replace('\0', " ");
    let uid = std::fs::metadata(&dir).ok()?.uid();
    Some(vec![
        user_name(uid),
        pid.to_string(),
        fields.get(1)?.to_string(),
        format!(
            "{}",
            if age > 0.0 {
                (cpu as f64 * 100.0 / age) as u64
            } else {
                0
            }
        ),
        started
            .strftime(if age < 86_400.0 { "%H:%M" } else { "%b%d" })
            .to_string(),
        tty_name(ticks(4)),
        format!("{:02}:{:02}:{:02}", cpu / 3600, cpu / 60 % 60, cpu % 60),
        if command.is_empty() {
            format!("[{name}]")
        } else {
            command
        },
    ])
}

fn user_name(uid: u32) -> String {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let wanted = uid.to_string();
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == wanted).then(|| name.to_owned())
    });
    name.unwrap_or(wanted)
}

/// From the kernel's device number.
fn tty_name(device: u64) -> String {
    let (major, minor) = (
        (device >> 8) & 0xfff,
        (device & 0xff) | ((device >> 12) & 0xfff00),
    );
    match major {
        136..=143 => format!("pts/{}", (major - 136) * 256 + minor),
        4 => format!("tty{minor}"),
        _ => "?".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_other_processes_are_left_out() {
        let text = "UID PID CMD\nroot 1 init\nroot 20 sleep 1 2\n- - -\nroot 30 x\n- - -\n";
        let top = parse(text, &[20]).unwrap();
        assert_eq!(
            top.processes.unwrap(),
            [vec!["root", "20", "sleep 1 2"], vec!["-", "-", "-"]]
        );
        assert!(parse("A B\n", &[1]).is_err());
    }

    #[test]
    fn a_column_may_not_pass_for_the_pids() {
        assert!(check_args("-o pid=PID,cmd").is_ok());
        assert_eq!(
            check_args("-o ppid=PID").unwrap_err().message,
            "specifying \"ppid=PID\" is not allowed"
        );
    }

    #[test]
    fn this_process_is_found_in_proc() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let row = row(pid).unwrap();
        assert_eq!((row.len(), row[1].as_str()), (8, pid.to_string().as_str()));
    }
}
