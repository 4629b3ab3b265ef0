//! What the user names on the command line: `pods`, `pod/web`, `deployments,services`, `deployment web db`.

use crate::{
    discovery::Resource,
    error::{Error, Result},
    session::Session,
};

/// A resource, and which of its objects.
#[derive(Clone, Debug)]
pub struct Target {
    pub resource: Resource,
    /// None for all of them.
    pub name: Option<String>,
}

impl Target {
    /// The name, where a command needs one.
    pub fn require_name(&self) -> Result<&str> {
        self.name.as_deref().ok_or_else(|| Error::usage("resource name may not be empty"))
    }

    /// `deployment.apps/web`: how kubectl names an object in its messages.
    pub fn display(&self) -> String {
        format!("{}/{}", self.resource.qualified_singular(), self.name.as_deref().unwrap_or_default())
    }
}

/// Reads the arguments as kubectl's resource builder does.
pub async fn parse(session: &Session, arguments: &[String]) -> Result<Vec<Target>> {
    let Some(first) = arguments.first() else {
        return Err(Error::usage("you must specify the type of resource, for instance: pods, deployment/web"));
    };
    let discovery = session.discovery().await?;
    if arguments.iter().any(|argument| argument.contains('/')) {
        let mut targets = Vec::new();
        for argument in arguments {
            let Some((kind, name)) = argument.split_once('/') else {
                return Err(Error::usage(
                    "there is no need to specify a resource type as a separate argument when passing arguments in resource/name form \
                     (e.g. 'kubectl get resource/<resource_name>' instead of 'kubectl get resource resource/<resource_name>'",
                ));
            };
            check_name(name)?;
            targets.push(Target { resource: discovery.find(kind)?.clone(), name: Some(name.to_owned()) });
        }
        return Ok(targets);
    }
    let mut resources = Vec::new();
    for kind in first.split(',').filter(|kind| !kind.is_empty()) {
        let category = discovery.category(kind);
        if category.is_empty() {
            resources.push(discovery.find(kind)?.clone());
        } else {
            resources.extend(category.into_iter().cloned());
        }
    }
    if arguments.len() == 1 {
        return Ok(resources.into_iter().map(|resource| Target { resource, name: None }).collect());
    }
    let mut targets = Vec::new();
    for name in &arguments[1..] {
        check_name(name)?;
        targets
            .extend(resources.iter().map(|resource| Target { resource: resource.clone(), name: Some(name.clone()) }));
    }
    Ok(targets)
}

/// A name goes into a path: nothing in it may leave its place there.
fn check_name(name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(Error::usage("resource name may not be empty"));
    }
    if matches!(name, "." | "..") || name.contains(['/', '?', '#', '%']) || name.contains(char::is_whitespace) {
        return Err(Error::usage(format!("invalid resource name {name:?}")));
    }
    Ok(())
}
