//! What is in which image.

use std::process::Command;

use serde_json::{Value, json};

use super::layer::Layer;
use super::packages::{Packages, Tree};
use super::tarball::Image;
use crate::shell;

pub(super) struct Recipe {
    /// The tarball's name.
    pub(super) file: &'static str,
    pub(super) packages: &'static [&'static str],
    pub(super) build: fn(&Packages) -> anyhow::Result<Vec<Image>>,
}

const BUSYBOX: &[&str] = &["busybox-static"];
const NGINX: &[&str] = &["nginx", "nginx-common"];
const REDIS: &[&str] = &["redis-server", "redis-tools"];

pub(super) const ALL: &[Recipe] = &[
    Recipe {
        file: "busybox",
        packages: BUSYBOX,
        build: busybox,
    },
    Recipe {
        file: "timecheck",
        packages: BUSYBOX,
        build: timecheck,
    },
    Recipe {
        file: "whoami",
        packages: BUSYBOX,
        build: whoami,
    },
    Recipe {
        file: "nginx",
        packages: &["busybox-static", "nginx", "nginx-common"],
        build: nginx,
    },
    Recipe {
        file: "redis",
        packages: &["busybox-static", "redis-server", "redis-tools"],
        build: redis,
    },
];

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Ends at once when it is told to: as process 1 it must say so, or the signal is ignored.
const TIMECHECK: &str = r#"#!/bin/sh
trap 'exit 0' TERM INT
while :; do
    echo "App version: $VERSION; time check: $(date -u +%H:%M:%S)"
    sleep 1 &
    wait $!
done
"#;

const WHOAMI: &str = r"#!/bin/sh
trap 'kill $server 2>/dev/null; exit 0' TERM INT
mkdir -p /tmp/www
hostname > /tmp/www/index.html
httpd -f -p 8000 -h /tmp/www &
server=$!
wait $server
";

const NGINX_CONF: &str = "\
user www-data;
worker_processes 1;
pid /run/nginx.pid;
error_log /dev/stderr notice;
events { worker_connections 1024; }
http {
    include /etc/nginx/mime.types;
    default_type application/octet-stream;
    access_log /dev/stdout;
    sendfile on;
    include /etc/nginx/conf.d/*.conf;
}
";

const NGINX_SITE: &str = "\
server {
    listen 80;
    server_name localhost;
    location / {
        root /usr/share/nginx/html;
        index index.html;
    }
}
";

const NGINX_PAGE: &str = "\
<!DOCTYPE html>
<html>
<head><title>Welcome to nginx!</title></head>
<body><h1>Welcome to nginx!</h1></body>
</html>
";

const PASSWD: &str = "\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
bin:x:2:2:bin:/bin:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
redis:x:999:999:redis:/data:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
";

const GROUP: &str = "\
root:x:0:
daemon:x:1:
bin:x:2:
tty:x:5:
www-data:x:33:
redis:x:999:
nogroup:x:65534:
";

/// The layer all images stand on: busybox with its applets, accounts, the usual directories.
fn base(packages: &Packages) -> anyhow::Result<Vec<u8>> {
    let busybox = packages.tree(BUSYBOX)?.file("bin/busybox")?;
    let mut layer = Layer::default()
        .symlink("bin", "usr/bin")
        .symlink("sbin", "usr/sbin")
        .symlink("lib", "usr/lib")
        .symlink("lib64", "usr/lib64")
        .directory("usr/sbin", 0o755)
        .directory("usr/lib", 0o755)
        .directory("usr/lib64", 0o755)
        .directory("dev", 0o755)
        .directory("home", 0o755)
        .directory("proc", 0o555)
        .directory("root", 0o700)
        .directory("run", 0o755)
        .directory("sys", 0o555)
        .directory("tmp", 0o1777)
        .directory("var/log", 0o755)
        .directory("var/tmp", 0o1777)
        .file("etc/passwd", 0o644, PASSWD)
        .file("etc/group", 0o644, GROUP)
        .file(
            "etc/nsswitch.conf",
            0o644,
            "passwd: files\ngroup: files\nhosts: files dns\n",
        )
        .copy("usr/bin/busybox", 0o755, &busybox)?;
    for applet in shell::output(Command::new(&busybox).arg("--list"))?.lines() {
        if applet != "busybox" {
            layer = layer.symlink(&format!("usr/bin/{applet}"), "busybox");
        }
    }
    Ok(layer.tar()?)
}

fn busybox(packages: &Packages) -> anyhow::Result<Vec<Image>> {
    Ok(vec![image(
        "busybox:latest",
        vec![base(packages)?],
        json!({"Cmd": ["sh"], "Env": [PATH]}),
    )])
}

fn timecheck(packages: &Packages) -> anyhow::Result<Vec<Image>> {
    let base = base(packages)?;
    let script = Layer::default()
        .file("timecheck.sh", 0o755, TIMECHECK)
        .tar()?;
    let version = |version: &str| {
        image(
            &format!("skep/timecheck:{version}"),
            vec![base.clone(), script.clone()],
            json!({"Cmd": ["/timecheck.sh"], "Env": [PATH, format!("VERSION={version}")]}),
        )
    };
    Ok(vec![version("1.0"), version("2.0")])
}

fn whoami(packages: &Packages) -> anyhow::Result<Vec<Image>> {
    let script = Layer::default().file("whoami.sh", 0o755, WHOAMI).tar()?;
    Ok(vec![image(
        "skep/whoami:1.0",
        vec![base(packages)?, script],
        json!({"Cmd": ["/whoami.sh"], "Env": [PATH], "ExposedPorts": {"8000/tcp": {}}}),
    )])
}

fn nginx(packages: &Packages) -> anyhow::Result<Vec<Image>> {
    let tree = packages.tree(NGINX)?;
    let layer = Layer::default()
        .file("etc/nginx/nginx.conf", 0o644, NGINX_CONF)
        .file("etc/nginx/conf.d/default.conf", 0o644, NGINX_SITE)
        .copy(
            "etc/nginx/mime.types",
            0o644,
            &tree.file("etc/nginx/mime.types")?,
        )?
        .file("usr/share/nginx/html/index.html", 0o644, NGINX_PAGE)
        .directory("var/lib/nginx", 0o755)
        .symlink("var/log/nginx/access.log", "/dev/stdout")
        .symlink("var/log/nginx/error.log", "/dev/stderr");
    let layer = program(layer, &tree, "usr/sbin/nginx", "usr/sbin/nginx")?;
    Ok(vec![image(
        "nginx:latest",
        vec![base(packages)?, layer.tar()?],
        json!({
            "Cmd": ["nginx", "-g", "daemon off;"],
            "Env": [PATH],
            "ExposedPorts": {"80/tcp": {}},
            "StopSignal": "SIGQUIT",
        }),
    )])
}

fn redis(packages: &Packages) -> anyhow::Result<Vec<Image>> {
    let tree = packages.tree(REDIS)?;
    // Debian's redis-server is one program under several names.
    let layer = Layer::default().directory("data", 0o755);
    let layer = program(
        layer,
        &tree,
        "usr/bin/redis-check-rdb",
        "usr/bin/redis-server",
    )?;
    let layer = program(layer, &tree, "usr/bin/redis-cli", "usr/bin/redis-cli")?;
    Ok(vec![image(
        "redis:latest",
        vec![base(packages)?, layer.tar()?],
        json!({
            "Cmd": ["redis-server", "--protected-mode", "no"],
            "Env": [PATH],
            "ExposedPorts": {"6379/tcp": {}},
            "Volumes": {"/data": {}},
            "WorkingDir": "/data",
        }),
    )])
}

/// Adds a program from the packages with all libraries it needs.
fn program(mut layer: Layer, tree: &Tree, from: &str, to: &str) -> anyhow::Result<Layer> {
    let file = tree.file(from)?;
    layer = layer.copy(to, 0o755, &file)?;
    for (path, library) in tree.libraries(&file)? {
        layer = layer.copy(&path, 0o755, &library)?;
    }
    Ok(layer)
}

fn image(name: &str, layers: Vec<Vec<u8>>, config: Value) -> Image {
    Image {
        names: vec![name.to_owned()],
        layers,
        config,
    }
}
