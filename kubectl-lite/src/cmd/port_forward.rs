//! `port-forward`: local ports that lead into a pod.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use clap::Args;
use coracle_api::json::Value;
use coracle_api::meta;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use super::exec::api;
use crate::{
    error::{Error, Result},
    pods,
    session::Session,
};

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  kubectl-lite port-forward pod/web-0 8080:80\n  kubectl-lite port-forward service/web :80\n  kubectl-lite port-forward deployment/web 5000 6000"
)]
pub struct Options {
    /// POD or TYPE/NAME
    resource: String,
    /// The local port (none or 0 for a free one) and the pod's
    #[arg(required = true, value_name = "[LOCAL:]REMOTE")]
    ports: Vec<String>,
    /// Where to listen: addresses, or localhost for 127.0.0.1 and ::1
    #[arg(long, value_delimiter = ',', default_value = "localhost")]
    address: Vec<String>,
}

struct Pair {
    local: u16,
    remote: String,
}

pub async fn run(session: &Session, options: &Options) -> Result<()> {
    let pod = pods::of(session, &options.resource, "forward ports of").await?;
    let service = service(session, &options.resource).await?;
    let mut listeners = JoinSet::new();
    for text in &options.ports {
        let pair = pair(text)?;
        let target = target(&pair.remote, service.as_ref(), &pod)?;
        for listener in listen(&options.address, pair.local).await? {
            println!("Forwarding from {} -> {target}", listener.local_addr()?);
            listeners.spawn(accept(listener, api(session), meta::name(&pod).to_owned(), target));
        }
    }
    while let Some(ended) = listeners.join_next().await {
        ended.map_err(|error| Error::usage(error.to_string()))??;
    }
    Ok(())
}

fn pair(text: &str) -> Result<Pair> {
    let (local, remote) = text.split_once(':').unwrap_or((text, text));
    let invalid = || Error::usage(format!("invalid port format '{text}'"));
    let local = match local {
        "" => 0,
        // A name stands for the pod's port alone.
        local => match local.parse() {
            Ok(local) => local,
            Err(_) if local == remote => 0,
            Err(_) => return Err(invalid()),
        },
    };
    if remote.is_empty() || remote == "0" {
        return Err(invalid());
    }
    Ok(Pair { local, remote: remote.to_owned() })
}

async fn service(session: &Session, resource: &str) -> Result<Option<Value>> {
    match resource.split_once('/') {
        Some(("service" | "services" | "svc", name)) => {
            let services = session.discovery().await?.find("services")?.clone();
            Ok(Some(session.get(&services.object_path(session.namespace(), name)).await?))
        }
        _ => Ok(None),
    }
}

/// The container's port that is meant: by number, by the service's port, or by name.
fn target(remote: &str, service: Option<&Value>, pod: &Value) -> Result<u16> {
    let number = |value: &Value| value.as_u64().and_then(|port| u16::try_from(port).ok());
    let unknown = || Error::usage(format!("unable to find port \"{remote}\""));
    if let Some(service) = service {
        let mut ports = service["spec"]["ports"].as_array().into_iter().flatten();
        let is_meant = |port: &&Value| {
            port["name"] == remote || port["port"].as_u64().is_some_and(|number| number.to_string() == remote)
        };
        let port = ports.find(is_meant).ok_or_else(|| {
            Error::usage(format!("Service {} does not have a service port {remote}", meta::name(service)))
        })?;
        return match &port["targetPort"] {
            Value::Null => number(&port["port"]).ok_or_else(unknown),
            Value::String(name) => container_port(name, pod).ok_or_else(unknown),
            target => number(target).ok_or_else(unknown),
        };
    }
    remote.parse().ok().filter(|port| *port != 0).or_else(|| container_port(remote, pod)).ok_or_else(unknown)
}

fn container_port(name: &str, pod: &Value) -> Option<u16> {
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    let mut ports = containers.flat_map(|container| container["ports"].as_array().into_iter().flatten());
    ports.find(|port| port["name"] == name).and_then(|port| port["containerPort"].as_u64()?.try_into().ok())
}

/// Listeners at every address; `localhost` must have one of its two.
async fn listen(addresses: &[String], port: u16) -> Result<Vec<TcpListener>> {
    let mut listeners = Vec::new();
    let failed = |address: SocketAddr, error| Error::usage(format!("unable to listen on {address}: {error}"));
    for address in addresses {
        if address == "localhost" {
            let first = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let first = TcpListener::bind(first).await.map_err(|error| failed(first, error))?;
            let second = SocketAddr::from((Ipv6Addr::LOCALHOST, first.local_addr()?.port()));
            listeners.push(first);
            // A machine without IPv6 has one of them.
            listeners.extend(TcpListener::bind(second).await.ok());
        } else {
            let ip = address.parse().map_err(|_| Error::usage(format!("{address} is not a valid IP")))?;
            let address = SocketAddr::new(ip, port);
            listeners.push(TcpListener::bind(address).await.map_err(|error| failed(address, error))?);
        }
    }
    Ok(listeners)
}

async fn accept(listener: TcpListener, pods: Api<Pod>, pod: String, target: u16) -> Result<()> {
    let local = listener.local_addr()?.port();
    loop {
        let (stream, _) = listener.accept().await?;
        println!("Handling connection for {local}");
        let (pods, pod) = (pods.clone(), pod.clone());
        tokio::spawn(async move {
            if let Err(error) = forward(stream, &pods, &pod, target).await {
                eprintln!("error forwarding port {target} to pod {pod}: {error}");
            }
        });
    }
}

async fn forward(mut stream: TcpStream, pods: &Api<Pod>, pod: &str, target: u16) -> Result<()> {
    let mut forwarder = pods.portforward(pod, &[target]).await?;
    let error = forwarder.take_error(target);
    if let Some(mut inside) = forwarder.take_stream(target) {
        // Either side may end the conversation in any way it likes.
        let _ = copy_bidirectional(&mut stream, &mut inside).await;
    }
    forwarder.abort();
    match error {
        Some(error) => match error.await {
            Some(why) => Err(Error::usage(why)),
            None => Ok(()),
        },
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use coracle_api::json::json;

    use super::*;

    #[test]
    fn ports_are_found_by_number_name_and_service() {
        let pod = json!({"spec": {"containers": [{"ports": [{"name": "http", "containerPort": 8080}]}]}});
        let service =
            json!({"metadata": {"name": "web"}, "spec": {"ports": [{"name": "w", "port": 80, "targetPort": "http"}]}});
        assert_eq!(target("81", None, &pod).unwrap(), 81);
        assert_eq!(target("http", None, &pod).unwrap(), 8080);
        assert_eq!(target("80", Some(&service), &pod).unwrap(), 8080);
        assert_eq!(target("w", Some(&service), &pod).unwrap(), 8080);
        let missing = target("81", Some(&service), &pod).unwrap_err().to_string();
        assert_eq!(missing, "error: Service web does not have a service port 81");
        let local = |text: &str| pair(text).map(|pair| (pair.local, pair.remote)).ok();
        assert_eq!(local("5000"), Some((5000, "5000".into())));
        assert_eq!(local(":80"), Some((0, "80".into())));
        assert_eq!(local("8080:http"), Some((8080, "http".into())));
        assert!(local("x:80").is_none() && local("80:").is_none());
    }
}
