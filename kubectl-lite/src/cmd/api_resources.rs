//! `api-resources` and `api-versions`.

use std::{collections::BTreeSet, io::Write};

use clap::Args;

use crate::{error::Result, output, session::Session};

#[derive(Debug, Args)]
pub struct Options {
    /// Only those that are in namespaces, or with =false only those that are not
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    namespaced: Option<bool>,
    /// Only those of this group
    #[arg(long)]
    api_group: Option<String>,
    /// Print no heads
    #[arg(long)]
    no_headers: bool,
    /// wide or name
    #[arg(short, long, value_parser = ["wide", "name"])]
    output: Option<String>,
}

pub async fn resources(session: &Session, options: &Options) -> Result<()> {
    let discovery = session.discovery().await?;
    let mut resources: Vec<_> = discovery
        .all()
        .iter()
        .filter(|resource| options.namespaced.is_none_or(|namespaced| resource.namespaced == namespaced))
        .filter(|resource| options.api_group.as_ref().is_none_or(|group| resource.group == *group))
        .collect();
    resources.sort_by(|a, b| (&a.group, &a.plural).cmp(&(&b.group, &b.plural)));
    let mut out = output::aligned(std::io::stdout().lock());
    if options.output.as_deref() == Some("name") {
        for resource in resources {
            writeln!(out, "{}", resource.qualified_plural())?;
        }
        return Ok(out.flush()?);
    }
    let wide = options.output.is_some();
    if !options.no_headers {
        writeln!(
            out,
            "NAME\tSHORTNAMES\tAPIVERSION\tNAMESPACED\tKIND{}",
            if wide { "\tVERBS\tCATEGORIES" } else { "" }
        )?;
    }
    for resource in resources {
        write!(
            out,
            "{}\t{}\t{}\t{}\t{}",
            resource.plural,
            resource.short.join(","),
            resource.api_version(),
            resource.namespaced,
            resource.kind
        )?;
        if wide {
            write!(out, "\t{}\t{}", resource.verbs.join(","), resource.categories.join(","))?;
        }
        writeln!(out)?;
    }
    Ok(out.flush()?)
}

pub async fn versions(session: &Session) -> Result<()> {
    let versions: BTreeSet<_> =
        session.discovery().await?.all().iter().map(|resource| resource.api_version()).collect();
    versions.iter().for_each(|version| println!("{version}"));
    Ok(())
}
