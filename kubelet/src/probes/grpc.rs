//! gRPC's health checking protocol (grpc `doc/health-checking.md`), as much of it as a probe needs.

use std::net::SocketAddr;
use std::time::Duration;

use coracle_link::Place;
use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use tonic::client::Grpc;
use tonic::transport::{Endpoint, Uri};
use tonic_prost::ProstCodec;

use super::check::Verdict;

#[derive(Clone, PartialEq, prost::Message)]
struct CheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct CheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// `ServingStatus.SERVING`
const SERVING: i32 = 1;
const STATUSES: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];

/// Asks the server at `address` how `service` is.
pub(super) async fn check(place: &Place, address: SocketAddr, service: &str, limit: Duration) -> Verdict {
    match tokio::time::timeout(limit, ask(place, address, service, limit)).await {
        Ok(Ok(SERVING)) => Verdict::Success,
        Ok(Ok(status)) => {
            let word = usize::try_from(status).ok().and_then(|status| STATUSES.get(status)).unwrap_or(&"UNKNOWN");
            Verdict::Failure(format!("service unhealthy (responded with \"{word}\")"))
        }
        Ok(Err(why)) => Verdict::Failure(why),
        Err(_) => Verdict::Failure(format!("timeout: failed to connect service \"{address}\" within {limit:?}")),
    }
}

async fn ask(place: &Place, address: SocketAddr, service: &str, limit: Duration) -> Result<i32, String> {
    let place = place.clone();
    let dial = tower::service_fn(move |_: Uri| {
        let place = place.clone();
        async move { place.connect_tcp(address, limit).await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| error.to_string())?;
    let connected = endpoint.connect_with_connector(dial).await;
    let channel = connected.map_err(|_| format!("failed to connect service \"{address}\""))?;
    let mut client = Grpc::new(channel);
    client.ready().await.map_err(|error| error.to_string())?;
    let path = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
    let request = tonic::Request::new(CheckRequest { service: service.to_owned() });
    let answer = client.unary(request, path, ProstCodec::<CheckRequest, CheckResponse>::default()).await;
    match answer {
        Ok(answer) => Ok(answer.into_inner().status),
        Err(status) if status.code() == tonic::Code::Unimplemented => Err(format!(
            "this server does not implement the grpc health protocol (grpc.health.v1.Health): {}",
            status.message()
        )),
        Err(status) => Err(format!("health rpc probe failed: {}", crate::cri::Error::from(status))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nobody_answers() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let verdict = check(&Place::Current, address, "", Duration::from_secs(5)).await;
        assert_eq!(verdict, Verdict::Failure(format!("failed to connect service \"{address}\"")));
    }
}
