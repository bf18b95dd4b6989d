//! Values of other programs in the spelling of jc. The error is a hint.

/// The default of `--cpu-shares`, as that of `--cpu-weight` is 100.
const SHARES: u64 = 1024;

/// `--cpu-shares N`: the same share beside a group with the default.
pub fn cpu_shares(value: &str) -> Result<Vec<String>, String> {
    match value.parse::<u64>() {
        Ok(0) => Ok(Vec::new()),
        Ok(shares) if shares <= 1 << 18 => {
            let weight = (shares * 100 + SHARES / 2) / SHARES;
            Ok(words(["--cpu-weight", &weight.clamp(1, 10_000).to_string()]))
        }
        _ => Err("--cpu-shares N, or -- in front of the program's own options".to_owned()),
    }
}

/// `--seccomp PROFILE`, which is a value of `--security-opt`.
pub fn seccomp(value: &str) -> Result<Vec<String>, String> {
    Ok(words(["--security-opt", &format!("seccomp={value}")]))
}

/// `--bind SRC:DST`. bwrap(1) has two words.
pub fn bind(value: &str) -> Result<Vec<String>, String> {
    if value.contains(':') {
        Ok(words(["-v", value]))
    } else if value == "/" {
        Err("jc-rootfs / -- PROG, or jc-run --rootfs / -- PROG".to_owned())
    } else {
        Err(format!("-v {value}:DST, in one word"))
    }
}

/// `--device-read-bps DEV:RATE` and the like, by their key of `--io-max`.
pub fn io(key: &str, value: &str) -> Result<Vec<String>, String> {
    match value.rsplit_once(':') {
        Some((device, rate)) => Ok(words(["--io-max", &format!("{device}:{key}={rate}")])),
        None => Err("DEVICE:RATE".to_owned()),
    }
}

/// `--mount type=bind,src=SRC,dst=DST[,readonly]` or `type=tmpfs,dst=DST[,tmpfs-size=SIZE][,tmpfs-mode=MODE]`.
pub fn mount(value: &str) -> Result<Vec<String>, String> {
    let (mut kind, mut source, mut target, mut options) = ("volume", "", "", Vec::new());
    for part in value.split(',') {
        match part.split_once('=').unwrap_or((part, "")) {
            ("type", value) => kind = value,
            ("src" | "source", value) => source = value,
            ("dst" | "destination" | "target", value) => target = value,
            ("readonly" | "ro", "" | "true" | "1") => options.push("ro".to_owned()),
            ("readonly" | "ro", _) | ("rw", "" | "true") => {}
            ("bind-propagation", value) => options.push(value.to_owned()),
            ("bind-nonrecursive", "" | "true") => options.push("norec".to_owned()),
            ("consistency", _) => {}
            ("tmpfs-size", value) => options.push(format!("size={value}")),
            ("tmpfs-mode", value) => options.push(format!("mode={value}")),
            _ => return Err(format!("{part}: -v SRC:DST[:OPTIONS] or --tmpfs DST[:OPTIONS]")),
        }
    }
    if [source, target].iter().any(|path| path.contains(':')) {
        return Err("a path with a colon cannot be mounted".to_owned());
    }
    let options =
        if options.is_empty() { String::new() } else { format!(":{}", options.join(",")) };
    match kind {
        _ if target.is_empty() => Err("dst=PATH is missing".to_owned()),
        "bind" if source.is_empty() => Err("src=PATH is missing".to_owned()),
        "bind" => Ok(words(["-v", &format!("{source}:{target}{options}")])),
        "tmpfs" => Ok(words(["--tmpfs", &format!("{target}{options}")])),
        "volume" if source.is_empty() => Ok(words(["-v", target])),
        "volume" if source.contains('/') => Err(format!("-v {source}:{target}{options}")),
        "volume" => {
            Err(format!("no named volumes: mkdir -p {source}; -v ./{source}:{target}{options}"))
        }
        _ => Err("type=bind or type=tmpfs".to_owned()),
    }
}

fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_weights_have_the_same_ratio_to_their_defaults() {
        for (shares, weight) in [("1024", "100"), ("512", "50"), ("2", "1"), ("262144", "10000")] {
            assert_eq!(cpu_shares(shares).unwrap(), ["--cpu-weight", weight]);
        }
        assert!(cpu_shares("0").unwrap().is_empty());
        assert!(cpu_shares("echo hi").is_err());
    }

    #[test]
    fn a_mount_of_docker_is_a_bind_or_a_tmpfs() {
        for (value, line) in [
            ("type=bind,src=/a,dst=/b", "-v /a:/b"),
            ("type=bind,source=.,target=/b,readonly", "-v .:/b:ro"),
            ("type=bind,src=/a,dst=/b,ro=true,bind-propagation=rslave", "-v /a:/b:ro,rslave"),
            (
                "type=tmpfs,destination=/t,tmpfs-size=64m,tmpfs-mode=1777",
                "--tmpfs /t:size=64m,mode=1777",
            ),
            ("dst=/data", "-v /data"),
        ] {
            assert_eq!(mount(value).unwrap().join(" "), line, "{value}");
        }
        for value in [
            "type=bind,dst=/b",
            "type=bind,src=/a",
            "src=/a,dst=/b",
            "type=npipe,dst=/b",
            "src=v,dst=/b",
            "x",
        ] {
            assert!(mount(value).is_err(), "{value}");
        }
    }

    #[test]
    fn a_rate_has_a_new_spelling() {
        assert_eq!(io("rbps", "/dev/sda:1mb").unwrap(), ["--io-max", "/dev/sda:rbps=1mb"]);
        assert!(io("rbps", "x").is_err());
        assert_eq!(seccomp("f").unwrap(), ["--security-opt", "seccomp=f"]);
    }
}
