//! Users and groups by the image's own `/etc/passwd` and `/etc/group`.

use std::{fs::File, io::Read};

use coracle_launcher::home::home_of;

use super::model::{Security, User};
use crate::error::{Error, Result};

/// More than any image's file; what is beyond is not read.
const MAX_FILE: u64 = 1 << 20;

/// Finds user, group and additional groups. `open` opens a file of the container.
pub fn resolve(security: &Security, image_user: &str, open: impl Fn(&str) -> Option<File>) -> Result<User> {
    let read = |path: &str| -> String {
        let mut text = Vec::new();
        if let Some(file) = open(path) {
            // A file that cannot be read names nobody.
            let _ = file.take(MAX_FILE).read_to_end(&mut text);
        }
        String::from_utf8_lossy(&text).into_owned()
    };
    let (image_name, image_group) = image_user.split_once(':').map_or((image_user, ""), |(user, group)| (user, group));
    let (name, group) = match (security.run_as_user, security.run_as_username.as_str()) {
        (Some(uid), _) => (uid.to_string(), ""),
        (None, "") => (image_name.to_owned(), image_group),
        (None, name) => (name.to_owned(), ""),
    };
    let name = if name.is_empty() { "0".to_owned() } else { name };
    let passwd = read("/etc/passwd");
    let entry = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.len() >= 4 && (fields[0] == name || fields[2] == name));
    let number = |text: &str| text.parse::<u32>().ok();
    let uid = match (number(&name), &entry) {
        (Some(uid), _) => uid,
        (None, Some(fields)) => {
            number(fields[2]).ok_or_else(|| Error::invalid(format!("malformed user {name:?} in /etc/passwd")))?
        }
        (None, None) => {
            return Err(Error::invalid(format!("unable to find user {name}: no matching entries in passwd file")));
        }
    };
    let groups = read("/etc/group");
    let lines = || groups.lines().map(|line| line.split(':').collect::<Vec<_>>()).filter(|fields| fields.len() >= 3);
    let gid = match (security.run_as_group, group) {
        (Some(gid), _) => u32::try_from(gid).map_err(|_| Error::invalid(format!("invalid group {gid}")))?,
        (None, "") => entry.as_ref().and_then(|fields| number(fields[3])).unwrap_or(0),
        (None, group) => match number(group)
            .or_else(|| lines().find(|fields| fields[0] == group).and_then(|fields| number(fields[2])))
        {
            Some(gid) => gid,
            None => {
                return Err(Error::invalid(format!("unable to find group {group}: no matching entries in group file")));
            }
        },
    };
    let mut additional = vec![gid];
    if !security.strict_groups
        && let Some(fields) = &entry
    {
        let member =
            |list: &Vec<&str>| list.get(3).is_some_and(|members| members.split(',').any(|member| member == fields[0]));
        additional.extend(lines().filter(member).filter_map(|fields| number(fields[2])));
    }
    additional.extend(security.supplemental_groups.iter().filter_map(|&gid| u32::try_from(gid).ok()));
    additional.sort_unstable();
    additional.dedup();
    Ok(User { uid, gid, groups: additional, home: home_of(passwd.as_bytes(), uid).unwrap_or_else(|| "/".into()) })
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};

    use super::*;

    fn open(path: &str) -> Option<File> {
        let text = match path {
            "/etc/passwd" => "root:x:0:0:root:/root:/bin/sh\nweb:x:33:44:::\n",
            _ => "root:x:0:\nextra:x:70:web,other\nother:x:80:other\n",
        };
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file.rewind().unwrap();
        Some(file)
    }

    #[test]
    fn users_are_found_by_name_and_number() {
        let with = |user: Option<i64>, image: &str| {
            resolve(&Security { run_as_user: user, ..Security::default() }, image, open)
        };
        let user = |uid, gid, groups: &[u32], home: &str| User { uid, gid, groups: groups.to_vec(), home: home.into() };
        assert_eq!(with(None, "").unwrap(), user(0, 0, &[0], "/root"));
        assert_eq!(with(None, "web").unwrap(), user(33, 44, &[44, 70], "/"));
        assert_eq!(with(None, "web:other").unwrap(), user(33, 80, &[70, 80], "/"));
        assert_eq!(with(Some(1000), "web").unwrap(), user(1000, 0, &[0], "/"));
        assert!(with(None, "nobody").unwrap_err().to_string().contains("no matching entries in passwd file"));
        assert_eq!(resolve(&Security::default(), "12:13", |_| None).unwrap(), user(12, 13, &[13], "/"));
    }

    #[test]
    fn a_home_is_that_of_the_first_line_with_the_number() {
        let passwd = "bad\na:x:9\nz:x:9:9::/z:\nb:x:7:7::/b:\nc:x:7:7::/c:\nd:x:8:8::/\0:\n:x::::/e:\n";
        let of = |uid| home_of(passwd.as_bytes(), uid).unwrap_or_else(|| "/".into());
        // Also a line that ends too soon (runc `libcontainer/init_linux.go`, `setupUser`).
        assert_eq!((of(7), of(8), of(9), of(0)), ("/b".into(), "/".into(), "/".into(), "/".to_owned()));
    }
}
