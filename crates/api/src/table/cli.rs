//! The commands of Docker's CLI and the calls they make, for `docs/compatibility.md`: a command
//! works if all its calls do.

/// One group of commands and flags.
pub(super) struct Group {
    pub(super) command: &'static str,
    pub(super) flags: &'static str,
    pub(super) calls: &'static [&'static str],
    /// What of it does not work although the calls do.
    pub(super) but: &'static str,
}

const fn group(
    command: &'static str,
    flags: &'static str,
    calls: &'static [&'static str],
    but: &'static str,
) -> Group {
    Group {
        command,
        flags,
        calls,
        but,
    }
}

const CREATE: &[&str] = &[
    "POST /containers/create",
    "POST /containers/{name}/attach",
    "POST /containers/{name}/wait",
    "POST /containers/{name}/start",
    "POST /containers/{name}/resize",
];
const UPDATE_SERVICE: &[&str] = &[
    "GET /services/{id}",
    "POST /services/{id}/update",
    "GET /tasks",
];

pub(super) const GROUPS: &[Group] = &[
    group(
        "version, info",
        "`--format`",
        &["HEAD /_ping", "GET /version", "GET /info"],
        "",
    ),
    group(
        "login, logout, search",
        "",
        &["POST /auth", "GET /images/search"],
        "",
    ),
    group(
        "load",
        "`-i`, `-q`",
        &["POST /images/load"],
        "other platforms than this machine's",
    ),
    group(
        "save",
        "`-o`, several images",
        &["GET /images/get"],
        "other platforms than this machine's",
    ),
    group(
        "import",
        "`-`, `-c`, `-m`, a name",
        &["POST /images/create"],
        "a URL: fetch it first",
    ),
    group(
        "image ls, images",
        "`-a`, `-q`, `--filter`, `--digests`, `--no-trunc`",
        &["GET /images/json"],
        "",
    ),
    group(
        "image inspect, history",
        "`--format`, `--no-trunc`",
        &["GET /images/{name}/json", "GET /images/{name}/history"],
        "",
    ),
    group(
        "tag, rmi, image prune",
        "`-f`, `--no-prune`, `-a`, `--filter`",
        &[
            "POST /images/{name}/tag",
            "DELETE /images/{name}",
            "POST /images/prune",
        ],
        "",
    ),
    group("push", "", &["POST /images/{name}/push"], ""),
    group(
        "build",
        "with `DOCKER_BUILDKIT=0`, or without the buildx plugin",
        &["POST /build"],
        "",
    ),
    group(
        "run, create",
        "`-d`, `--rm`, `-i`, `-t`, `-e`, `-w`, `-u`, `--name`, `--entrypoint`, `-l`, `--hostname`, \
          `--init`, `--stop-signal`, `--stop-timeout`",
        CREATE,
        "",
    ),
    group(
        "run, create",
        "`--restart`, `-m`, `--cpus`, `--cpu-*`, `--cpuset-*`, `--pids-limit`, `--ulimit`, \
          `--shm-size`, `--oom-*`",
        CREATE,
        "",
    ),
    group(
        "run, create",
        "`-v`, `--mount` (bind, volume, tmpfs), `--tmpfs`, `--volumes-from`, `--read-only`",
        CREATE,
        "what the engine refuses by name",
    ),
    group(
        "run, create",
        "`--privileged`, `--cap-add`, `--cap-drop`, `--security-opt`, `--device`, `--sysctl`, \
          `--userns`, `--pid`, `--ipc`, `--uts`, `--cgroupns`",
        CREATE,
        "what the engine refuses by name",
    ),
    group(
        "run, create",
        "`-p`, `-P`, `--network`, `--ip`, `--mac-address`, `--dns*`, `--add-host`, `--link`",
        CREATE,
        "what the engine refuses by name",
    ),
    group(
        "run of an image that is not here, pull",
        "`-a`, `-q`, `--platform`",
        &["POST /images/create"],
        "",
    ),
    group(
        "start, attach",
        "`-a`, `-i`, `--detach-keys`",
        &[
            "POST /containers/{name}/start",
            "POST /containers/{name}/attach",
        ],
        "`--checkpoint`",
    ),
    group(
        "stop, restart, kill",
        "`-s`, `-t`",
        &[
            "POST /containers/{name}/stop",
            "POST /containers/{name}/restart",
            "POST /containers/{name}/kill",
        ],
        "",
    ),
    group(
        "pause, unpause, rename, wait, update",
        "",
        &[
            "POST /containers/{name}/pause",
            "POST /containers/{name}/unpause",
            "POST /containers/{name}/rename",
            "POST /containers/{name}/wait",
            "POST /containers/{name}/update",
        ],
        "",
    ),
    group(
        "rm, container prune",
        "`-f`, `-v`, `-l`, `--filter`",
        &["DELETE /containers/{name}", "POST /containers/prune"],
        "",
    ),
    group(
        "ps",
        "`-a`, `--last`, `-n`, `-q`, `-s`, `--filter`, `--format`, `--no-trunc`",
        &["GET /containers/json"],
        "",
    ),
    group(
        "inspect",
        "`-f`, `-s`, `--type`",
        &["GET /containers/{name}/json", "GET /images/{name}/json"],
        "",
    ),
    group(
        "logs",
        "`-f`, `--since`, `--until`, `--tail`, `-t`, `--details`",
        &["GET /containers/{name}/logs"],
        "",
    ),
    group(
        "top, stats, diff, port",
        "",
        &[
            "GET /containers/{name}/top",
            "GET /containers/{name}/stats",
            "GET /containers/{name}/changes",
        ],
        "",
    ),
    group(
        "exec",
        "`-d`, `-i`, `-t`, `-e`, `-w`, `-u`, `--privileged`, `--detach-keys`",
        &[
            "POST /containers/{name}/exec",
            "POST /exec/{name}/start",
            "POST /exec/{name}/resize",
            "GET /exec/{id}/json",
        ],
        "",
    ),
    group(
        "cp, export, commit",
        "",
        &[
            "HEAD /containers/{name}/archive",
            "GET /containers/{name}/archive",
            "PUT /containers/{name}/archive",
            "GET /containers/{name}/export",
            "POST /commit",
        ],
        "",
    ),
    group(
        "checkpoint",
        "",
        &["POST /containers/{name}/checkpoints"],
        "",
    ),
    group(
        "events, system df",
        "`--since`, `--until`, `--filter`, `--format`, `-v`",
        &["GET /events", "GET /system/df"],
        "",
    ),
    group(
        "network ls, inspect",
        "`--filter`, `-v`",
        &["GET /networks", "GET /networks/{id}"],
        "",
    ),
    group(
        "network create, rm, connect, disconnect, prune",
        "",
        &[
            "POST /networks/create",
            "DELETE /networks/{id}",
            "POST /networks/{id}/connect",
            "POST /networks/{id}/disconnect",
            "POST /networks/prune",
        ],
        "what the engine or the managers refuse by name; overlays and the routing mesh reach the tasks of one node so far",
    ),
    group(
        "volume create, ls, inspect, rm, prune",
        "",
        &[
            "POST /volumes/create",
            "GET /volumes",
            "GET /volumes/{name}",
            "DELETE /volumes/{name}",
            "POST /volumes/prune",
        ],
        "drivers other than local; cluster volumes",
    ),
    group("plugin ls", "", &["GET /plugins"], ""),
    group(
        "plugin install, create, enable, …",
        "",
        &["POST /plugins/pull", "POST /plugins/create"],
        "",
    ),
    group(
        "swarm init, leave",
        "`--advertise-addr`, `--listen-addr`, `--autolock`, `-f`, `--task-history-limit`, …",
        &["POST /swarm/init", "POST /swarm/leave"],
        "",
    ),
    group(
        "swarm join",
        "`--token`, `--advertise-addr`, `--listen-addr`, `--data-path-addr`, `--availability`",
        &["POST /swarm/join"],
        "",
    ),
    group(
        "swarm join-token, update, unlock, unlock-key, ca",
        "`--rotate`, `-q`",
        &[
            "GET /swarm",
            "POST /swarm/update",
            "GET /swarm/unlockkey",
            "POST /swarm/unlock",
        ],
        "",
    ),
    group(
        "node ls, ps, inspect",
        "`-q`, `--filter`, `--format`, `--pretty`, `self`",
        &["GET /nodes", "GET /nodes/{id}", "GET /tasks"],
        "",
    ),
    group(
        "node update, promote, demote, rm",
        "",
        &["POST /nodes/{id}/update", "DELETE /nodes/{id}"],
        "",
    ),
    group(
        "service create",
        "all flags of a container, `--replicas`, `--mode`, `--constraint`, `--placement-pref`, \
          `--limit-*`, `--reserve-*`, `--restart-*`, `--update-*`, `--rollback-*`, `-d`, `-q`",
        &["POST /services/create", "GET /services/{id}", "GET /tasks"],
        "what the managers refuse by name",
    ),
    group(
        "service ls, ps, inspect",
        "`--filter`, `-q`, `-f`, `--pretty`, `--no-trunc`",
        &[
            "GET /services",
            "GET /services/{id}",
            "GET /tasks",
            "GET /nodes/{id}",
        ],
        "",
    ),
    group(
        "service update, scale, rollback",
        "`--image`, `--force`, `--rollback`, `--with-registry-auth`",
        UPDATE_SERVICE,
        "",
    ),
    group("service rm", "", &["DELETE /services/{id}"], ""),
    group(
        "service logs",
        "`-f`, `--since`, `--tail`, `-t`, `--details`, `--raw`, `--no-task-ids`",
        &["GET /services/{id}/logs", "GET /tasks/{id}/logs"],
        "",
    ),
    group(
        "secret, config",
        "create, ls, inspect, rm",
        &[
            "POST /secrets/create",
            "GET /secrets",
            "GET /secrets/{id}",
            "DELETE /secrets/{id}",
            "POST /configs/create",
            "GET /configs",
            "GET /configs/{id}",
            "DELETE /configs/{id}",
        ],
        "drivers",
    ),
    group(
        "manifest, trust",
        "",
        &["GET /distribution/{name}/json"],
        "",
    ),
];
