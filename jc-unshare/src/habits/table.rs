//! The table of options that people type for docker(1), podman(1), skopeo(1), bwrap(1), unshare(1), nsenter(1) and
//! cgexec(1), and the answer of each program: the option that means the same, or the line that does the same.

mod translate;

use crate::error::exists;
use Answer::{Instead, Nothing, Same, Words};

/// The answer to an option of another program.
pub enum Answer {
    /// An option with the same meaning, which gets the value.
    Same(&'static str),
    /// The program does that without an option.
    Nothing,
    /// Options with the same meaning, made of the value. The error is a hint.
    Words(fn(&str) -> Result<Vec<String>, String>),
    /// A line that does the same, in which `{1}` and `{2}` are the values.
    Instead(&'static str),
}

/// A row of the table.
pub struct Habit {
    /// The programs, with a space between two.
    programs: &'static str,
    /// The spellings, with a space between two. A spelling `--option=value` is one of that value only.
    spellings: &'static str,
    /// The number of values.
    pub values: u8,
    pub answer: Answer,
}

/// The spelling of a word that is no option.
pub const OPERAND: &str = "OPERAND";

/// The row of a spelling.
pub fn find(program: &str, spelling: &str) -> Option<&'static Habit> {
    let has = |list: &str, word: &str| list.split(' ').any(|listed| listed == word);
    HABITS.iter().find(|row| has(row.programs, program) && has(row.spellings, spelling))
}

/// All spellings of a program.
pub fn spellings(program: &str) -> impl Iterator<Item = &'static str> {
    let is_its = move |row: &&Habit| row.programs.split(' ').any(|listed| listed == program);
    HABITS.iter().filter(is_its).flat_map(|row| row.spellings.split(' '))
}

/// An option of `-v SRC:DST:OPTION` or `--tmpfs DST:OPTION` in the spelling of jc-rootfs; `None` if it changes nothing
/// here. The error is a text for the user.
pub fn mount_option(option: &str) -> Result<Option<&'static str>, String> {
    let has_selinux = || exists("/sys/fs/selinux/enforce").map_err(|error| error.to_string());
    Ok(match option {
        "z" | "Z" if has_selinux()? => {
            return Err(format!("{option}: chcon -Rt container_file_t SRC sets the label"));
        }
        "z" | "Z" | "cached" | "delegated" | "consistent" | "nocopy" | "notmpcopyup" => None,
        "rprivate" => Some("private"),
        "rslave" => Some("slave"),
        "rshared" => Some("shared"),
        "rbind" => Some("rec"),
        "bind" => Some("norec"),
        "U" => return Err("U: chown -R UID:GID SRC, or --userns keep-id".to_owned()),
        "O" => return Err("O: jc-rootfs --layer SRC --upper tmpfs shows SRC as it is".to_owned()),
        _ if option.starts_with("uid=") || option.starts_with("gid=") => {
            return Err(format!(
                "{option}: a tmpfs belongs to root; mode=1777 lets every user write"
            ));
        }
        _ => return Err(format!("unknown option {option:?}")),
    })
}

const fn row(programs: &'static str, spellings: &'static str, values: u8, answer: Answer) -> Habit {
    Habit { programs, spellings, values, answer }
}

#[rustfmt::skip]
const HABITS: &[Habit] = &[
    // docker run, podman run: the same by another name.
    row("jc-run jc-net", "--net", 1, Same("--network")),
    row("jc-run", "-l --annotation", 1, Same("--label")),
    row("jc-run", "--policy", 1, Same("--pull")),
    row("jc-run", "--pids", 1, Same("--pids-limit")),
    row("jc-run", "--parent", 1, Same("--cgroup-parent")),
    row("jc-run", "--bind", 1, Same("--volume")),
    row("jc-run", "--seccomp", 1, Words(translate::seccomp)),
    row("jc-run", "-c --cpu-shares", 1, Words(translate::cpu_shares)),
    row("jc-run", "--mount", 1, Words(translate::mount)),
    row("jc-run", "--device-read-bps", 1, Words(|value| translate::io("rbps", value))),
    row("jc-run", "--device-write-bps", 1, Words(|value| translate::io("wbps", value))),
    row("jc-run", "--device-read-iops", 1, Words(|value| translate::io("riops", value))),
    row("jc-run", "--device-write-iops", 1, Words(|value| translate::io("wiops", value))),
    // Done without an option.
    row("jc-run", "--no-healthcheck --sig-proxy --no-new-privs --disable-content-trust", 0, Nothing),
    row("jc-run", "--restart=no --ipc=shareable --cgroupns=private --systemd=false", 1, Nothing),
    row("jc-run", "--network=default --net=default", 1, Nothing),
    // Another line.
    row("jc-run", "--rm=false", 0, Instead("--keep keeps the state and the changes")),
    row("jc-run", "--sig-proxy=false", 0, Instead("setsid jc-run ...")),
    row("jc-run", "-a --attach", 1, Instead("jc-run without -d is attached; jc-logs -f ID follows one that is not")),
    row("jc-run", "-q --quiet", 0, Instead("jc-pull -q IMAGE | jc-run ...")),
    row("jc-run", "--link", 1, Instead("--network container:ID shares a network; --add-host NAME:ADDRESS names a container")),
    row("jc-run", "--network-alias --net-alias", 1, Instead("--add-host {1}:ADDRESS in the other containers; jc-list --json has the address")),
    row("jc-run", "--sysctl", 1, Instead("jc-net -- sh -c 'sysctl -w {1}; exec jc-run --network host ...'")),
    row("jc-run", "--cidfile", 1, Instead("jc-run -d ... > {1}")),
    row("jc-run", "--pidfile --conmon-pidfile", 1, Instead("jc-list --json | jq .pid")),
    row("jc-run", "--platform", 1, Instead("jc-pull --platform {1} IMAGE | jc-run ...")),
    row("jc-run", "--arch", 1, Instead("jc-pull --platform linux/{1} IMAGE | jc-run ...")),
    row("jc-run", "--os --variant", 1, Instead("jc-pull --platform OS/ARCH/VARIANT IMAGE | jc-run ...")),
    row("jc-run", "--authfile", 1, Instead("jc-pull --authfile {1} IMAGE | jc-run ...")),
    row("jc-run", "--creds", 1, Instead("jc-pull --username USER --password-stdin IMAGE < FILE; then jc-run --image IMAGE")),
    row("jc-run", "--tls-verify=false", 0, Instead("jc-pull --insecure IMAGE | jc-run ...")),
    row("jc-run", "--oom-score-adj", 1, Instead("choom -n {1} -- jc-run ...")),
    row("jc-run", "--health-cmd", 1, Instead("watch jc-exec ID sh -c {1}")),
    row("jc-run", "--health-interval --health-retries --health-timeout --health-start-period --health-start-interval --health-on-failure", 1, Instead("watch -n SECONDS jc-exec ID PROG")),
    row("jc-run", "--label-file", 1, Instead("--label NAME=VALUE for each line of {1}")),
    row("jc-run", "--memory-reservation", 1, Instead("jc-cgroup --memory-low {1} -- jc-run ... (cgroup v2)")),
    row("jc-run", "--memory-swappiness", 1, Instead("jc-cgroup --set memory.swappiness={1} -- jc-run ... (cgroup v1)")),
    row("jc-run", "--kernel-memory", 1, Instead("-m {1}, which counts kernel memory too")),
    row("jc-run", "--oom-kill-disable", 0, Instead("a run without -m has no limit; jc-cgroup --memory-high SIZE -- jc-run ... only slows it down")),
    row("jc-run", "--cpu-period --cpu-quota", 1, Instead("--cpus N, where N is the quota divided by the period")),
    row("jc-run", "--blkio-weight", 1, Instead("jc-cgroup --set io.weight={1} -- jc-run ... (cgroup v2), or --io-max DEV:rbps=SIZE,wbps=SIZE")),
    row("jc-run", "--cgroupns", 1, Instead("the container always has a cgroup namespace of its own")),
    row("jc-run", "--cgroups", 1, Instead("a container without limits has no cgroup")),
    row("jc-run", "--storage-opt", 1, Instead("--upper tmpfs:SIZE limits the changes")),
    row("jc-run", "--runtime --isolation", 1, Instead("jc-run runs the container itself, by the chain that --print shows")),
    row("jc-run", "--replace", 0, Instead("jc-rm -f NAME; jc-run --name NAME ...")),
    row("jc-run", "--pod", 1, Instead("--network container:ID --ipc container:ID")),
    row("jc-run", "--secret", 1, Instead("-v FILE:/run/secrets/NAME:ro")),
    row("jc-run", "--tz", 1, Instead("-e TZ={1}")),
    row("jc-run", "--rmi", 0, Instead("jc-run --image IMAGE ...; jc-rmi IMAGE")),
    row("jc-run", "--pull=newer", 1, Instead("--pull always")),
    row("jc-run", "--gpus", 1, Instead("--device /dev/DEVICE for each device, and -v DIR:DIR:ro for the libraries of the driver")),
    row("jc-run", "--dns-option --dns-opt", 1, Instead("-v FILE:/etc/resolv.conf:ro")),
    row("jc-run", "--hosts-file", 1, Instead("-v {1}:/etc/hosts:ro")),
    row("jc-run", "--device-cgroup-rule", 1, Instead("--device PATH; other device nodes do not open")),
    row("jc-run", "--read-only-tmpfs", 0, Instead("--tmpfs /tmp --tmpfs /run --tmpfs /var/tmp")),
    row("jc-run", "--volume-driver", 1, Instead("mount(8) on the host, and -v DIR:DST")),
    row("jc-run", "--volumes-from", 1, Instead("-v SRC:DST, as for the other container")),
    row("jc-run", "--detach-keys", 1, Instead("jc-run -d, and then jc-exec -it ID sh")),
    row("jc-run", "--log-driver --log-opt", 1, Instead("--log-size SIZE, or jc-run ... | logger")),
    row("jc-run", "--restart", 1, Instead("systemd-run -p Restart=always -- jc-run ..., or: until jc-run ...; do sleep 1; done")),
    row("jc-run", "--stop-timeout", 1, Instead("jc-stop -t {1} ID")),
    row("jc-run", "--nice", 1, Instead("nice -n {1} jc-run ...")),
    row("jc-run", "--timeout", 1, Instead("timeout {1} jc-run ...")),
    row("jc-run", "--umask", 1, Instead("(umask {1}; jc-run ...)")),
    row("jc-run", "--systemd --sdnotify", 1, Instead("a systemd unit with ExecStart=jc-run ...")),
    row("jc-run", "--preserve-fds", 1, Instead("jc-run --print shows the chain, whose jc-rootfs takes --preserve-fds {1}")),
    row("jc-run", "--env-host", 0, Instead("-e NAME for each variable")),

    // docker exec, ps, images, rmi, logs, stop, rm.
    row("jc-exec", "-d --detach", 0, Instead("jc-exec ID PROG &")),
    row("jc-exec", "--privileged", 0, Instead("nsenter -a -t PID PROG as root; jc-list has the PID")),
    row("jc-exec", "--detach-keys", 1, Instead("setsid jc-exec ID PROG &")),
    row("jc-exec", "-l --latest", 0, Instead("jc-exec $(jc-list -q | head -1) PROG")),
    row("jc-exec", "--preserve-fds", 1, Instead("jc-exec --print shows the chain, whose jc-rootfs takes --preserve-fds {1}")),
    row("jc-list", "-f --filter", 1, Instead("jc-list --json | jq 'select(.annotations.\"jc.name\" == \"NAME\")'")),
    row("jc-list", "--format", 1, Instead("jc-list --json | jq -r '[.id, .status] | @tsv'")),
    row("jc-list", "-l --latest", 0, Instead("jc-list -aq | head -1")),
    row("jc-list", "-n --last", 1, Instead("jc-list -aq | head -{1}")),
    row("jc-list", "-s --size", 0, Instead("jc-run --keep has the changes in the store: du -sh DIR/changes")),
    row("jc-list", "--noheading", 0, Instead("jc-list | tail -n +2")),
    row("jc-list", "--sort", 1, Instead("jc-list | sort")),
    row("jc-images", "-a --all", 0, Nothing),
    row("jc-images", "-q --quiet", 0, Instead("jc-images --json | jq -r .ref")),
    row("jc-images", "--digests --no-trunc", 0, Instead("jc-images --json | jq -r '[.ref, .target] | @tsv'")),
    row("jc-images", "-f --filter", 1, Instead("jc-images --json | jq 'select(.ref | contains(\"NAME\"))'")),
    row("jc-images", "--format", 1, Instead("jc-images --json | jq -r '[.ref, .size] | @tsv'")),
    row("jc-images", OPERAND, 0, Instead("jc-images | grep {1}")),
    row("jc-rmi", "-f --force", 0, Instead("jc-rmi REF; jc-rm -f ID ends a container that uses the image")),
    row("jc-rmi", "-a --all", 0, Instead("jc-images --json | jq -r .ref | xargs -r jc-rmi")),
    row("jc-rmi", "-i --ignore", 0, Instead("jc-rmi REF || :")),
    row("jc-rmi", "--no-prune", 0, Nothing),
    row("jc-logs", "--tail=all --lines=all -n=all", 1, Nothing),
    row("jc-logs", "--tail", 1, Same("-n")),
    row("jc-logs", "-t --timestamps", 0, Instead("jc-logs -f ID | ts (of moreutils)")),
    row("jc-logs", "--since --until", 1, Instead("jc-logs has no times: jc-run ... | ts > FILE has them")),
    row("jc-logs", "-l --latest", 0, Instead("jc-logs $(jc-list -aq | head -1)")),
    row("jc-stop", "--timeout", 1, Same("--time")),
    row("jc-stop", "-a --all", 0, Instead("jc-list -q | xargs -r jc-stop")),
    row("jc-stop", "-l --latest", 0, Instead("jc-stop $(jc-list -q | head -1)")),
    row("jc-stop jc-rm", "-i --ignore", 0, Instead("jc-list -aq | xargs -r jc-rm -f")),
    row("jc-rm", "-v --volumes", 0, Nothing),
    row("jc-rm", "-a --all", 0, Instead("jc-list -aq | xargs -r jc-rm")),
    row("jc-rm", "-t --time", 1, Instead("jc-stop -t {1} ID; jc-rm ID")),

    // docker pull, podman pull, skopeo copy.
    row("jc-pull", "--tls-verify=false --src-tls-verify=false", 0, Same("--insecure")),
    row("jc-pull", "--tls-verify --src-tls-verify --disable-content-trust", 0, Nothing),
    row("jc-pull", "--pull", 1, Same("--policy")),
    row("jc-pull", "--arch --override-arch", 1, Words(translate::architecture)),
    row("jc-pull", "--os --variant --override-os --override-variant", 1, Instead("--platform OS/ARCH/VARIANT")),
    row("jc-pull", "-a --all-tags", 0, Instead("jc-pull IMAGE:TAG for each tag, as skopeo list-tags prints them")),
    row("jc-pull", "--creds --src-creds", 1, Instead("jc-pull --username USER --password-stdin IMAGE < FILE")),
    row("jc-pull", "--cert-dir --src-cert-dir", 1, Instead("--ca {1}/ca.crt")),

    // bwrap, chroot, and options of docker that another link has.
    row("jc-rootfs", "--volume", 1, Same("--bind")),
    row("jc-rootfs", "--chdir", 1, Same("--workdir")),
    row("jc-rootfs", "--userspec", 1, Same("--user")),
    row("jc-rootfs", "--clearenv", 0, Same("--clear-env")),
    row("jc-rootfs", "--overlay-src", 1, Same("--layer")),
    row("jc-rootfs", "--remount-ro", 1, Same("--ro-path")),
    row("jc-rootfs jc-unshare jc-cgroup jc-net", "--die-with-parent", 0, Nothing),
    row("jc-rootfs", "--as-pid-1", 0, Nothing),
    row("jc-rootfs", "--ro-bind --ro-bind-try", 2, Instead("-v {1}:{2}:ro")),
    row("jc-rootfs", "--bind-try", 2, Instead("-v {1}:{2}")),
    row("jc-rootfs", "--dev-bind --dev-bind-try", 2, Instead("-v {1}:{2}:dev")),
    row("jc-rootfs", "--file --bind-data --ro-bind-data", 2, Instead("-v FILE:{2}:ro")),
    row("jc-rootfs", "--symlink", 2, Instead("sh -c 'ln -s {1} {2}; exec PROG' behind jc-rootfs ... --")),
    row("jc-rootfs", "--setenv", 2, Instead("-e {1}={2}")),
    row("jc-rootfs", "--unsetenv", 1, Instead("env -u {1} jc-rootfs ...")),
    row("jc-rootfs", "--tmp-overlay", 1, Instead("--upper tmpfs")),
    row("jc-rootfs", "--dir", 1, Instead("--tmpfs {1}")),
    row("jc-rootfs", "--perms", 1, Instead("--tmpfs DST:mode={1}")),
    row("jc-rootfs", "--size", 1, Instead("--tmpfs DST:size={1}")),
    row("jc-rootfs", "--uid --gid", 1, Instead("-u UID:GID")),
    row("jc-rootfs", "--info-fd --json-status-fd", 1, Instead("--status-fd {1}")),
    row("jc-rootfs", "--unshare-all", 0, Instead("jc-unshare --all --map-root -- jc-rootfs ...")),
    row("jc-rootfs", "--unshare-net", 0, Instead("jc-unshare -n --loopback -- jc-rootfs ...")),
    row("jc-rootfs", "--unshare-pid", 0, Instead("jc-unshare -p -- jc-rootfs ...")),
    row("jc-rootfs", "--unshare-ipc", 0, Instead("jc-unshare -i -- jc-rootfs ...")),
    row("jc-rootfs", "--unshare-uts", 0, Instead("jc-unshare -u -- jc-rootfs ...")),
    row("jc-rootfs", "--unshare-cgroup --unshare-cgroup-try", 0, Instead("jc-unshare -C -- jc-rootfs ...")),
    row("jc-rootfs", "--unshare-user --unshare-user-try", 0, Instead("jc-unshare -U --map-root -- jc-rootfs ...")),
    row("jc-rootfs", "--share-net", 0, Instead("jc-unshare -puiCU --map-root -- jc-rootfs ..., without -n")),
    row("jc-rootfs", "--hostname", 1, Instead("jc-unshare -u --hostname {1} -- jc-rootfs ...")),
    row("jc-rootfs jc-unshare jc-net", "-m --memory", 1, Instead("jc-cgroup -m {1} -- ...")),
    row("jc-rootfs jc-unshare", "--network --net -p --publish", 1, Instead("jc-net --network bridge -- ...")),
    row("jc-rootfs", "--image", 1, Instead("jc-run --image {1}, or jc-pull --to DIR {1} and jc-rootfs DIR -- PROG")),

    // unshare, nsenter.
    row("jc-unshare", "-f --fork", 0, Nothing),
    row("jc-unshare", "--map-root-user", 0, Same("--map-root")),
    row("jc-unshare", "--map-current-user", 0, Same("--map-current")),
    row("jc-unshare", "--map-user", 1, Instead("--map-users {1}:$(id -u):1")),
    row("jc-unshare", "--map-group", 1, Instead("--map-groups {1}:$(id -g):1")),
    row("jc-unshare", "-t --target", 1, Instead("--join {1}")),
    row("jc-unshare", "-a", 0, Instead("--join PID")),
    row("jc-unshare", "-R --root", 1, Instead("jc-unshare ... -- jc-rootfs {1} -- PROG")),
    row("jc-unshare", "-w --wd --wdns", 1, Instead("env -C {1} jc-unshare ...")),
    row("jc-unshare", "-S --setuid", 1, Instead("jc-unshare ... -- setpriv --reuid {1} PROG")),
    row("jc-unshare", "-G --setgid", 1, Instead("jc-unshare ... -- setpriv --regid {1} PROG")),
    row("jc-unshare", "--keep-caps", 0, Instead("jc-unshare ... -- setpriv --ambient-caps +all --inh-caps +all PROG")),

    // cgexec, systemd-run, and spellings of docker.
    row("jc-cgroup", "--pids-limit --pids-max", 1, Same("--pids")),
    row("jc-cgroup", "--pids=-1 --pids=max --pids-limit=-1 --pids-limit=0 --pids-limit=max", 1, Nothing),
    row("jc-cgroup", "--cgroup-parent --slice", 1, Same("--parent")),
    row("jc-cgroup", "--memory-reservation", 1, Same("--memory-low")),
    row("jc-cgroup", "-c --cpu-shares", 1, Words(translate::cpu_shares)),
    row("jc-cgroup", "-g", 1, Instead("jc-cgroup --join NAME -- PROG")),
    row("jc-net", "--mac-address", 1, Same("--mac")),
    row("jc-net", "--subnets", 1, Same("--subnet")),
];
