//! `RUN --mount` (<https://docs.docker.com/reference/dockerfile/#run---mount>).

/// What a step has mounted while it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mount {
    pub kind: String,
    pub target: String,
    pub source: String,
    /// A stage or an image; the context if none is named.
    pub from: Option<String>,
    pub read_only: Option<bool>,
    pub id: Option<String>,
    pub sharing: Option<String>,
    /// Bytes.
    pub size: Option<u64>,
    pub mode: Option<u32>,
    pub uid: u32,
    pub gid: u32,
}

/// Reads one mount; variables are replaced already.
pub fn parse(text: &str) -> Result<Mount, String> {
    let mut mount = Mount { kind: "bind".into(), ..Mount::default() };
    for field in text.split(',') {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_lowercase(), Some(value)),
            None => (field.to_lowercase(), None),
        };
        let truth = || match value.map(str::to_lowercase).as_deref() {
            None | Some("true" | "1") => Ok(true),
            Some("false" | "0") => Ok(false),
            Some(other) => Err(format!("invalid value for {key}: {other}")),
        };
        let needed =
            || value.map(str::to_owned).ok_or_else(|| format!("invalid field '{field}' must be a key=value pair"));
        let number = |radix: u32| {
            let text = needed()?;
            u32::from_str_radix(&text, radix).map_err(|_| format!("invalid value for {key}: {text}"))
        };
        match key.as_str() {
            "type" => mount.kind = needed()?.to_lowercase(),
            "target" | "dst" | "destination" => mount.target = needed()?,
            "source" | "src" => mount.source = needed()?,
            "from" => mount.from = Some(needed()?),
            "readonly" | "ro" => mount.read_only = Some(truth()?),
            "readwrite" | "rw" => mount.read_only = Some(!truth()?),
            "id" => mount.id = Some(needed()?),
            "sharing" => mount.sharing = Some(needed()?),
            "required" | "env" => drop(needed()),
            "size" => {
                let text = needed()?;
                mount.size = Some(bytes(&text).ok_or_else(|| format!("invalid value for {key}: {text}"))?);
            }
            "mode" => mount.mode = Some(number(8)?),
            "uid" => mount.uid = number(10)?,
            "gid" => mount.gid = number(10)?,
            _ => return Err(format!("unexpected key '{key}' in '{field}'")),
        }
    }
    check(&mount)?;
    Ok(mount)
}

fn check(mount: &Mount) -> Result<(), String> {
    match mount.kind.as_str() {
        "secret" | "ssh" => {
            return Err(format!(
                "--mount=type={} needs BuildKit's session protocol, which this engine does not speak",
                mount.kind
            ));
        }
        "bind" | "cache" | "tmpfs" => {}
        other => return Err(format!("unsupported mount type {other:?}")),
    }
    if mount.target.is_empty() {
        return Err("target is required".into());
    }
    if mount.size.is_some() && mount.kind != "tmpfs" {
        return Err("unexpected key 'size': it is for tmpfs mounts".into());
    }
    if mount.kind == "tmpfs" && (mount.from.is_some() || !mount.source.is_empty()) {
        return Err("a tmpfs mount has no source".into());
    }
    match mount.sharing.as_deref() {
        Some(_) if mount.kind != "cache" => Err("unexpected key 'sharing': it is for cache mounts".into()),
        None | Some("shared" | "private" | "locked") => Ok(()),
        Some(other) => Err(format!("unsupported sharing value {other:?}")),
    }
}

/// `64m`
fn bytes(text: &str) -> Option<u64> {
    let lower = text.trim_end_matches(['b', 'B', 'i']).to_lowercase();
    let (digits, factor) = match lower.chars().last()? {
        'k' => (&lower[..lower.len() - 1], 1 << 10),
        'm' => (&lower[..lower.len() - 1], 1 << 20),
        'g' => (&lower[..lower.len() - 1], 1 << 30),
        _ => (&lower[..], 1u64),
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read() {
        let cache = parse("type=cache,target=/root/.cache,id=x,sharing=locked,mode=0700,uid=1").unwrap();
        assert_eq!((cache.id.as_deref(), cache.mode, cache.uid), (Some("x"), Some(0o700), 1));
        let bind = parse("from=base,source=/a,target=/b,rw").unwrap();
        assert_eq!((bind.kind.as_str(), bind.read_only, bind.from.as_deref()), ("bind", Some(false), Some("base")));
        assert_eq!(parse("type=tmpfs,target=/t,size=64m").unwrap().size, Some(64 << 20));
        for (text, word) in [
            ("type=secret,id=x", "session protocol"),
            ("type=ssh", "session protocol"),
            ("type=cache", "target is required"),
            ("type=x,target=/a", "unsupported mount type"),
            ("target=/a,color=red", "unexpected key 'color'"),
            ("type=cache,target=/a,sharing=never", "unsupported sharing"),
        ] {
            assert!(parse(text).unwrap_err().contains(word), "{text}");
        }
    }
}
