//! From a join token to the node's own certificates, as upstream's TLS bootstrap.
//!
//! ```text
//! token: HASH.ID.SECRET
//!   GET /cacerts (unverified) ── its hash is HASH ──► the cluster's authority
//!   Bearer ID.SECRET ── CSR kubernetes.io/kube-apiserver-client-kubelet ──► client certificate system:node:NAME
//!   client certificate ── CSR kubernetes.io/kubelet-serving ──► serving certificate
//! ```
//!
//! Certificates are kept in `ROOT/pki` (0600), used again while they are good, and replaced before they end.

mod authority;
mod request;
mod rotate;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use coracle_api::clock::Clock;
use coracle_link::Place;
use coracle_pki::{Authority, Identity, Usage};
use kube::Client;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::request::Wish;
use self::rotate::{Current, Kept, Rotation};

/// What a node needs to join a cluster.
#[derive(Clone)]
pub struct Join {
    /// `https://HOST:PORT`
    pub server: String,
    /// The content of the token file, `HASH.ID.SECRET`. Without one, only certificates from an earlier time are used.
    pub token: Option<String>,
    pub node_name: String,
    /// Addresses that the node's server is reached by.
    pub addresses: Vec<IpAddr>,
    /// From where the API server is dialled.
    pub place: Place,
    pub root_dir: PathBuf,
    pub clock: Arc<dyn Clock>,
}

/// What comes of it.
pub struct Joined {
    /// The API with the node's identity; it takes a new certificate by itself.
    pub client: Client,
    /// The cluster's authority, PEM.
    pub ca_pem: String,
    /// The node's client certificate now.
    pub identity: watch::Receiver<Identity>,
    /// The certificate of the node's server; at first, until the cluster has signed one, one that nobody trusts.
    pub serving: watch::Receiver<Identity>,
}

/// Why a node cannot join.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The token is not one.
    #[error("the join token must have the form HASH.ID.SECRET")]
    Token,
    /// There is neither a token nor a certificate from an earlier time.
    #[error("the node has no certificate yet and was given no join token")]
    NoToken,
    /// The server's address is not one.
    #[error("the server's address {0:?} is not of the form https://HOST:PORT")]
    Server(String),
    /// The server that answered is not the one the token is for.
    #[error(
        "the server's certificate authority is not the one that the join token names: is the token of this cluster?"
    )]
    Authority,
    /// The server could not be asked.
    #[error("{operation}: {why}")]
    Request { operation: &'static str, why: String },
    /// The request for a certificate was refused.
    #[error("the certificate request {name} was {verdict}: {message}")]
    Refused { name: String, verdict: &'static str, message: String },
    /// A certificate could not be made, read or kept.
    #[error(transparent)]
    Certificate(#[from] coracle_pki::Error),
    /// The certificates make no connection.
    #[error(transparent)]
    Connect(#[from] coracle_client::ConnectError),
}

fn failed(operation: &'static str) -> impl FnOnce(String) -> Error {
    move |why| Error::Request { operation, why }
}

/// `HASH.ID.SECRET`
struct Token {
    hash: String,
    bearer: String,
}

impl Token {
    fn parse(text: &str) -> Result<Self, Error> {
        let (hash, bearer) = text.trim().split_once('.').ok_or(Error::Token)?;
        let (id, secret) = bearer.split_once('.').ok_or(Error::Token)?;
        let plain = |text: &str, length: usize| {
            text.len() == length && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        };
        let hash_fits = hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit());
        if !hash_fits || !plain(id, 6) || !plain(secret, 16) {
            return Err(Error::Token);
        }
        Ok(Self { hash: hash.to_ascii_lowercase(), bearer: bearer.to_owned() })
    }
}

/// The names of the files in `pki`.
const CLIENT: &str = "kubelet-client";
const SERVING: &str = "kubelet-serving";

/// Joins a cluster: with the certificates of an earlier time where they are good, with new ones where not. Certificates are
/// renewed until `shutdown`.
///
/// # Errors
/// When the token is not of this cluster, or the server refuses. A server that does not answer is an error too: the caller
/// decides about trying again.
pub async fn join(join: Join, shutdown: CancellationToken) -> Result<Joined, Error> {
    coracle_client::install_crypto();
    let pki = join.root_dir.join("pki");
    make_private_dir(&pki)?;
    let token = join.token.as_deref().map(Token::parse).transpose()?;
    let ca_pem = authority::of_cluster(&join, &pki, token.as_ref()).await?;
    let now = join.clock.now();

    let client_wish = Wish::client(&join.node_name);
    let stored =
        Identity::load(&pki, CLIENT)?.filter(|identity| identity.validity().is_ok_and(|validity| validity.holds(now)));
    let identity = match stored {
        Some(identity) => identity,
        None => {
            let token = token.as_ref().ok_or(Error::NoToken)?;
            let bootstrap = authority::connect(&join, &ca_pem, authority::Proof::Bearer(&token.bearer))?;
            let identity = request::obtain(&bootstrap, &client_wish).await?;
            identity.save(&pki, CLIENT)?;
            identity
        }
    };
    let current = Current::new(authority::connect(&join, &ca_pem, authority::Proof::Identity(&identity))?);
    let client = current.client();

    let serving_wish = Wish::serving(&join.node_name, &join.addresses);
    let stored = Identity::load(&pki, SERVING)?;
    let good = |identity: &Identity| {
        identity.validity().is_ok_and(|validity| validity.holds(now)) && serving_wish.names_of(identity)
    };
    let stored = stored.filter(good);
    let provisional = stored.is_none();
    let serving = match stored {
        Some(identity) => identity,
        None => self_signed(&serving_wish, now)?,
    };
    let (identities, identity) = watch::channel(identity);
    let (servings, serving) = watch::channel(serving);
    let joined = Joined { client, ca_pem: ca_pem.clone(), identity, serving };
    let rotation = Rotation { join, ca_pem, pki, current };
    let kept = Kept { wish: client_wish, sender: identities, file: CLIENT, provisional: false };
    tokio::spawn(rotate::keep_fresh(rotation.clone(), kept, shutdown.clone()));
    let kept = Kept { wish: serving_wish, sender: servings, file: SERVING, provisional };
    tokio::spawn(rotate::keep_fresh(rotation, kept, shutdown));
    Ok(joined)
}

/// What the node's server shows until its certificate is signed: whoever signs wants to see the node's object with its
/// addresses first, and the object is the kubelet's to make (upstream's kubelet does the same).
fn self_signed(wish: &Wish, now: jiff::Timestamp) -> Result<Identity, Error> {
    let nobody = Authority::create("a kubelet that waits for its certificate", now)?;
    Ok(nobody.issue(&wish.subject, &wish.names, Usage::Server, now, std::time::Duration::from_secs(24 * 3600))?)
}

fn make_private_dir(path: &std::path::Path) -> Result<(), Error> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| {
        coracle_pki::Error::File { operation: "make directory", path: path.to_owned(), source }.into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens() {
        let hash = "ab".repeat(32);
        assert_eq!(
            Token::parse(&format!("{hash}.abc123.0123456789abcdef\n")).unwrap().bearer,
            "abc123.0123456789abcdef"
        );
        for bad in [
            "",
            "a.b.c",
            &format!("{hash}.abc123"),
            &format!("{hash}.abc12.0123456789abcdef"),
            &format!("{hash}.ABC123.0123456789abcdef"),
            &format!("{}.abc123.0123456789abcdef", &hash[1..]),
        ] {
            assert!(Token::parse(bad).is_err(), "{bad}");
        }
    }
}
