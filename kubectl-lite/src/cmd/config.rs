//! `config`: the kubeconfig.

use clap::Subcommand;
use coracle_api::yaml;
use kube::config::Kubeconfig;

use crate::{
    cli::Connection,
    error::{Error, Result},
};

#[derive(Debug, Subcommand)]
pub enum Action {
    /// Print the kubeconfig; secrets are left out unless --raw
    View {
        #[arg(long)]
        raw: bool,
    },
    /// Print the current context
    CurrentContext,
    /// List the contexts
    GetContexts,
    /// Choose the current context
    UseContext { name: String },
}

pub fn run(connection: &Connection, action: &Action) -> Result<()> {
    let failed = |error: &dyn std::fmt::Display| Error::usage(error.to_string());
    let config = match &connection.kubeconfig {
        Some(path) => Kubeconfig::read_from(path).map_err(|error| failed(&error))?,
        None => Kubeconfig::read().map_err(|error| failed(&error))?,
    };
    match action {
        Action::View { raw } => {
            let mut value = coracle_api::json::to_value(&config)?;
            if !raw {
                redact(&mut value);
            }
            print!("{}", yaml::to_string(&value));
            Ok(())
        }
        Action::CurrentContext => match config.current_context {
            Some(name) => {
                println!("{name}");
                Ok(())
            }
            None => Err(Error::usage("current-context is not set")),
        },
        Action::GetContexts => {
            println!("CURRENT   NAME");
            for context in &config.contexts {
                let mark = if config.current_context.as_ref() == Some(&context.name) { "*" } else { " " };
                println!("{mark}         {}", context.name);
            }
            Ok(())
        }
        Action::UseContext { name } => use_context(connection, config, name),
    }
}

fn use_context(connection: &Connection, mut config: Kubeconfig, name: &str) -> Result<()> {
    if !config.contexts.iter().any(|context| context.name == *name) {
        return Err(Error::usage(format!("no context exists with the name: \"{name}\"")));
    }
    config.current_context = Some(name.to_owned());
    let path = match (&connection.kubeconfig, std::env::var("KUBECONFIG")) {
        (Some(path), _) => path.clone(),
        (None, Ok(path)) if path.contains(':') => {
            return Err(Error::usage("KUBECONFIG names several files; say which with --kubeconfig"));
        }
        (None, Ok(path)) => path.into(),
        (None, Err(_)) => std::env::home_dir().unwrap_or_default().join(".kube/config"),
    };
    let text = yaml::to_string(&coracle_api::json::to_value(&config)?);
    let beside = path.with_extension("new");
    let write = || {
        use std::{io::Write, os::unix::fs::OpenOptionsExt};
        let mut file = std::fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&beside)?;
        file.write_all(text.as_bytes())?;
        std::fs::rename(&beside, &path)
    };
    write().map_err(|error| Error::usage(format!("{}: {error}", path.display())))?;
    println!("Switched to context \"{name}\".");
    Ok(())
}

fn redact(value: &mut coracle_api::json::Value) {
    const SECRET: [&str; 4] = ["client-key-data", "token", "password", "client-certificate-data"];
    match value {
        coracle_api::json::Value::Object(fields) => {
            for (key, value) in fields {
                match key.as_str() {
                    "certificate-authority-data" => *value = "DATA+OMITTED".into(),
                    key if SECRET.contains(&key) => {
                        *value = if key.ends_with("data") { "DATA+OMITTED" } else { "REDACTED" }.into()
                    }
                    _ => redact(value),
                }
            }
        }
        coracle_api::json::Value::Array(items) => items.iter_mut().for_each(redact),
        _ => {}
    }
}
