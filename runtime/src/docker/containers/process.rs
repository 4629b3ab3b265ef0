//! `docker top`: the processes of a container, as `ps` shows them.

use std::{collections::BTreeSet, process::Stdio};

use serde_json::json;
use tokio::process::Command;

use super::super::http::{Answer, Call, Problem, ok};

/// `ps` reads /proc; it is done in milliseconds.
const LIMIT: std::time::Duration = std::time::Duration::from_secs(10);

pub async fn top(call: Call) -> Answer {
    let container = call.docker.container(call.name())?;
    if !container.runs() {
        return Err(Problem::conflict(format!("container {} is not running", container.id)));
    }
    let arguments = match call.query.text("ps_args") {
        "" => "-ef",
        arguments => arguments,
    };
    // As dockerd: no argument may make ps write elsewhere or show pids by another name.
    if arguments.contains(|letter: char| letter.is_control()) {
        return Err(Problem::bad(format!("invalid ps arguments: {arguments:?}")));
    }
    let group = call.docker.engine.group_of(&container.engine)?;
    let own: BTreeSet<i32> = tokio::task::spawn_blocking(move || group.processes().into_iter().collect())
        .await
        .map_err(crate::Error::from)?;
    let mut command = Command::new("ps");
    command.args(arguments.split_whitespace()).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(LIMIT, command.output()).await;
    let (titles, rows) = match output {
        Ok(Ok(output)) if output.status.success() => table(&String::from_utf8_lossy(&output.stdout), &own)?,
        // A host without ps: what /proc says, in the columns of `ps -ef`.
        Ok(Err(_)) if arguments == "-ef" => from_proc(&own),
        Ok(Ok(output)) => {
            return Err(Problem::internal(format!("ps: {}", String::from_utf8_lossy(&output.stderr).trim())));
        }
        Ok(Err(error)) => return Err(Problem::internal(format!("ps: {error}"))),
        Err(_) => return Err(Problem::internal("ps does not end")),
    };
    call.docker.tell(&container, "top");
    ok(&json!({ "Titles": titles, "Processes": rows }))
}

type Table = (Vec<String>, Vec<Vec<String>>);

/// The rows whose pid is one of `own`.
fn table(text: &str, own: &BTreeSet<i32>) -> Result<Table, Problem> {
    let mut lines = text.lines();
    let titles: Vec<String> = lines.next().unwrap_or_default().split_whitespace().map(str::to_owned).collect();
    let pid = titles
        .iter()
        .position(|title| title == "PID")
        .ok_or_else(|| Problem::internal("Couldn't find PID field in ps output"))?;
    let mut rows = Vec::new();
    for line in lines {
        let words: Vec<&str> = line.split_whitespace().collect();
        if words.get(pid).and_then(|word| word.parse().ok()).is_none_or(|pid: i32| !own.contains(&pid)) {
            continue;
        }
        // The last column takes the rest.
        let last = titles.len() - 1;
        let mut row: Vec<String> = words.iter().take(last).map(|word| (*word).to_owned()).collect();
        row.push(words.get(last..).unwrap_or_default().join(" "));
        rows.push(row);
    }
    Ok((titles, rows))
}

fn from_proc(own: &BTreeSet<i32>) -> Table {
    let titles = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"].map(str::to_owned).to_vec();
    let row = |pid: i32| -> Option<Vec<String>> {
        use std::os::unix::fs::MetadataExt;
        let path = format!("/proc/{pid}");
        let uid = std::fs::metadata(&path).ok()?.uid();
        let stat = std::fs::read_to_string(format!("{path}/stat")).ok()?;
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
        let seconds = ticks / 100;
        let command = std::fs::read(format!("{path}/cmdline")).ok()?;
        let command = String::from_utf8_lossy(&command).trim_end_matches('\0').replace('\0', " ");
        let user = if uid == 0 { "root".to_owned() } else { uid.to_string() };
        let time = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
        Some(vec![
            user,
            pid.to_string(),
            (*fields.get(1)?).to_owned(),
            "0".into(),
            "?".into(),
            "?".into(),
            time,
            command,
        ])
    };
    (titles, own.iter().filter_map(|&pid| row(pid)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_others_are_left_out() {
        let text = "UID   PID  CMD\nroot  1    init\nroot  7    sleep 10\n";
        let (titles, rows) = table(text, &[7].into()).unwrap();
        assert_eq!(titles, ["UID", "PID", "CMD"]);
        assert_eq!(rows, [["root", "7", "sleep 10"]]);
        assert!(table("UID CMD\n", &[1].into()).is_err());
    }
}
