//! One probe: an HTTP request, a TCP connection, a command, a gRPC health check (kubernetes `pkg/probe`).

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{HTTPGetAction, Probe};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Target, grpc, tls};
use crate::pod;
use crate::work::Shared;

/// No more of an answer is read (upstream's `maxRespBodyLength`).
const MAX_BODY: usize = 10 * 1024;

/// What one probe came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Success,
    /// The container answered badly, or not.
    Failure(String),
    /// The probe could not be made.
    Error(String),
}

pub(super) async fn run(shared: &Shared, target: &Target, probe: &Probe, limit: Duration) -> Verdict {
    let ports = target.container.ports.as_deref().unwrap_or_default();
    if let Some(exec) = &probe.exec {
        return command(shared, target, exec.command.as_deref().unwrap_or_default(), limit).await;
    }
    if let Some(action) = &probe.http_get {
        let Some(port) = pod::port(&action.port, ports) else { return Verdict::Error("couldn't find port".into()) };
        return match address(action.host.as_deref(), target) {
            Ok(ip) => http(shared, action, SocketAddr::new(ip, port), limit).await,
            Err(why) => Verdict::Error(why),
        };
    }
    if let Some(action) = &probe.tcp_socket {
        let Some(port) = pod::port(&action.port, ports) else { return Verdict::Error("couldn't find port".into()) };
        return match address(action.host.as_deref(), target) {
            Ok(ip) => match shared.place.connect_tcp(SocketAddr::new(ip, port), limit).await {
                Ok(_) => Verdict::Success,
                Err(error) => Verdict::Failure(dial_error(SocketAddr::new(ip, port), &error)),
            },
            Err(why) => Verdict::Error(why),
        };
    }
    if let Some(action) = &probe.grpc {
        let Some(port) = u16::try_from(action.port).ok() else { return Verdict::Error("couldn't find port".into()) };
        return match address(None, target) {
            Ok(ip) => {
                grpc::check(
                    &shared.place,
                    SocketAddr::new(ip, port),
                    action.service.as_deref().unwrap_or_default(),
                    limit,
                )
                .await
            }
            Err(why) => Verdict::Error(why),
        };
    }
    Verdict::Error("missing probe handler".into())
}

fn address(host: Option<&str>, target: &Target) -> Result<IpAddr, String> {
    let host = host.filter(|host| !host.is_empty()).or(target.address.as_deref()).ok_or("the pod has no address")?;
    host.parse().map_err(|_| format!("the host {host} is no address"))
}

/// A failed connection in Go's words.
fn dial_error(address: SocketAddr, error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => format!("dial tcp {address}: connect: connection refused"),
        std::io::ErrorKind::TimedOut => format!("dial tcp {address}: i/o timeout"),
        _ => format!("dial tcp {address}: {error}"),
    }
}

async fn command(shared: &Shared, target: &Target, command: &[String], limit: Duration) -> Verdict {
    match shared.cri.exec_sync(&target.id, command, limit).await {
        Ok(answer) if answer.exit_code == 0 => Verdict::Success,
        Ok(answer) => {
            let mut output = answer.stdout;
            output.extend_from_slice(&answer.stderr);
            output.truncate(MAX_BODY);
            Verdict::Failure(String::from_utf8_lossy(&output).trim().to_owned())
        }
        Err(error) if error.code == tonic::Code::DeadlineExceeded => {
            Verdict::Failure(format!("command timed out: {:?} timed out after {}s", command.join(" "), limit.as_secs()))
        }
        Err(error) => Verdict::Error(error.to_string()),
    }
}

async fn http(shared: &Shared, action: &HTTPGetAction, address: SocketAddr, limit: Duration) -> Verdict {
    let secure = action.scheme.as_deref() == Some("HTTPS");
    let path = action.path.as_deref().filter(|path| !path.is_empty()).unwrap_or("/");
    let slash = if path.starts_with('/') { "" } else { "/" };
    let url = format!("{}://{address}{slash}{path}", if secure { "https" } else { "http" });
    let asked = async {
        let stream = shared.place.connect_tcp(address, limit).await.map_err(|error| dial_error(address, &error))?;
        if secure {
            let stream = tls::connect(stream, address.ip()).await.map_err(|error| error.to_string())?;
            ask(stream, action, &format!("{slash}{path}"), address).await
        } else {
            ask(stream, action, &format!("{slash}{path}"), address).await
        }
    };
    match tokio::time::timeout(limit, asked).await {
        // Redirects are answers too.
        Ok(Ok(code)) if (200..400).contains(&code) => Verdict::Success,
        Ok(Ok(code)) => Verdict::Failure(format!("HTTP probe failed with statuscode: {code}")),
        Ok(Err(why)) => Verdict::Failure(format!("Get \"{url}\": {why}")),
        Err(_) => Verdict::Failure(format!(
            "Get \"{url}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        )),
    }
}

async fn ask<S>(stream: S, action: &HTTPGetAction, path: &str, address: SocketAddr) -> Result<u16, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let mut request = http::Request::get(path);
    let given = |name: &str| action.http_headers.iter().flatten().any(|header| header.name.eq_ignore_ascii_case(name));
    for (name, value) in [
        ("host", address.to_string().as_str()),
        ("user-agent", "kube-probe/1.36"),
        ("accept", "*/*"),
        ("connection", "close"),
    ] {
        if !given(name) {
            request = request.header(name, value);
        }
    }
    for header in action.http_headers.iter().flatten() {
        request = request.header(&header.name, &header.value);
    }
    let request = request.body(Empty::<bytes::Bytes>::new()).map_err(|error| error.to_string())?;
    let answered = async {
        let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let code = answer.status().as_u16();
        // Only so that the server is not cut off while it still writes.
        let _ = Limited::new(answer.into_body(), MAX_BODY).collect().await;
        Ok(code)
    };
    let mut connection = std::pin::pin!(connection);
    let mut answered = std::pin::pin!(answered);
    tokio::select! {
        answer = &mut answered => answer,
        ended = &mut connection => match ended {
            Err(error) => Err(error.to_string()),
            Ok(()) => answered.await,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// A server that answers one request with these bytes.
    async fn server(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        });
        address
    }

    #[tokio::test]
    async fn http_answers() {
        for (answer, code) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", 200),
            ("HTTP/1.1 503 No\r\n\r\n", 503),
            ("HTTP/1.1 302 Go\r\nlocation: /\r\n\r\n", 302),
        ] {
            let address = server(answer).await;
            let stream = tokio::net::TcpStream::connect(address).await.unwrap();
            assert_eq!(ask(stream, &HTTPGetAction::default(), "/", address).await, Ok(code));
        }
        let address = server("nonsense\r\n\r\n").await;
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        assert!(ask(stream, &HTTPGetAction::default(), "/", address).await.is_err());
    }

    #[test]
    fn errors_are_gos() {
        let address = "10.0.0.1:80".parse().unwrap();
        assert_eq!(
            dial_error(address, &std::io::ErrorKind::ConnectionRefused.into()),
            "dial tcp 10.0.0.1:80: connect: connection refused"
        );
    }
}
