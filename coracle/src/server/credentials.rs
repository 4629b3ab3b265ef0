//! The cluster's keys: made once, renewed before they end, 0600.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use base64::{Engine, engine::general_purpose::STANDARD};
use coracle_api::json::json;
use coracle_pki::{Authority, Identity, Subject, Usage, write_private};
use jiff::Timestamp;

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
/// Names of the API inside the cluster (upstream's certificate of the API server), and its service address.
const NAMES: [&str; 7] = [
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
    "localhost",
    "127.0.0.1",
    "10.96.0.1",
];

/// Everything secret that the server starts from.
pub struct Credentials {
    dir: PathBuf,
    /// The cluster's authority.
    pub authority: std::sync::Arc<Authority>,
    /// The authority of kubelets' serving certificates. By it the server alone knows kubelets: with the cluster's own a node
    /// could get one for the server's address, which it says is its own.
    pub kubelet_authority: std::sync::Arc<Authority>,
    /// What the server shows to clients.
    pub server: Identity,
    /// What the server shows to kubelets.
    pub kubelet_client: Identity,
    /// What service accounts' tokens are signed with: PKCS #8 in PEM.
    pub service_account_key: String,
    admin: Identity,
    /// What a node joins with.
    pub token: JoinToken,
}

/// A bootstrap token (KEP-1379): an identifier that may be known and a secret that may not.
#[derive(Clone)]
pub struct JoinToken {
    /// Six characters.
    pub id: String,
    /// Sixteen characters.
    pub secret: String,
}

impl Credentials {
    /// Loads the keys of `dir`, making what is missing or about to end.
    pub fn prepare(dir: &Path, bind: SocketAddr, names: &[String], now: Timestamp) -> Result<Self> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.with_context(|| format!("make {}", dir.display()))?;
        let pki = dir.join("pki");
        let authority = Authority::load_or_create(&pki, "coracle", now).context("load the certificate authority")?;
        let kubelet_authority = Authority::load_or_create(&pki.join("kubelet"), "coracle-kubelet", now)
            .context("load the certificate authority of kubelets")?;
        let mut server_names: Vec<String> = NAMES.iter().map(|name| (*name).to_owned()).collect();
        server_names.push(bind.ip().to_string());
        server_names.extend(names.iter().cloned());
        server_names.sort();
        server_names.dedup();
        let issue = |file: &str, subject: Subject, names: &[String], usage| {
            renew(&authority, &pki, file, &subject, names, usage, now)
        };
        let server = issue("apiserver", Subject::user("kube-apiserver"), &server_names, Usage::Server)?;
        let masters = |name: &str| Subject::member(name, "system:masters");
        let kubelet_client =
            issue("apiserver-kubelet-client", masters("kube-apiserver-kubelet-client"), &[], Usage::Client)?;
        let admin = issue("admin", masters("kubernetes-admin"), &[], Usage::Client)?;
        let token = JoinToken::load_or_create(&dir.join("join-token"), &authority.fingerprint())?;
        let service_account_key = service_account_key(&pki.join("sa.key"))?;
        Ok(Self {
            dir: dir.to_path_buf(),
            authority: authority.into(),
            kubelet_authority: kubelet_authority.into(),
            server,
            kubelet_client,
            service_account_key,
            admin,
            token,
        })
    }

    /// Writes admin.kubeconfig for clients of this machine.
    pub fn write_kubeconfig(&self, server: SocketAddr) -> Result<()> {
        let data = |text: &str| STANDARD.encode(text);
        // A kubeconfig is YAML, and JSON is YAML.
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "coracle", "cluster": {
                "server": format!("https://{server}"),
                "certificate-authority-data": data(self.authority.cert_pem()),
            }}],
            "users": [{"name": "admin", "user": {
                "client-certificate-data": data(&self.admin.cert_pem),
                "client-key-data": data(&self.admin.key_pem),
            }}],
            "contexts": [{"name": "coracle", "context": {"cluster": "coracle", "user": "admin"}}],
            "current-context": "coracle",
        });
        let text = coracle_api::yaml::to_string(&config);
        Ok(write_private(&self.dir.join("admin.kubeconfig"), text.as_bytes())?)
    }
}

/// The key of service accounts' tokens, made once: another one would end every token there is.
fn service_account_key(path: &Path) -> Result<String> {
    if path.exists() {
        return fs::read_to_string(path).with_context(|| format!("read {}", path.display()));
    }
    let (_, key) = coracle_pki::request(&Subject::user("service-accounts"), &[]).context("make a key")?;
    write_private(path, key.as_bytes())?;
    Ok(key)
}

/// The identity kept as `file`, or a new one when that is missing, about to end, or lacks a name.
fn renew(
    authority: &Authority,
    dir: &Path,
    file: &str,
    subject: &Subject,
    names: &[String],
    usage: Usage,
    now: Timestamp,
) -> Result<Identity> {
    if let Some(identity) = Identity::load(dir, file)? {
        let held = coracle_pki::certificate_names(&identity.cert_pem)?;
        if identity.validity()?.fresh(now) && names.iter().all(|name| held.contains(name)) {
            return Ok(identity);
        }
    }
    let identity = authority.issue(subject, names, usage, now, YEAR).with_context(|| format!("issue {file}"))?;
    identity.save(dir, file)?;
    Ok(identity)
}

impl JoinToken {
    /// The file holds `AUTHORITY.ID.SECRET`: the first part is the hash by which a node recognises the cluster.
    fn load_or_create(path: &Path, fingerprint: &str) -> Result<Self> {
        if path.exists() {
            let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
            let mut parts = text.trim().split('.');
            return match (parts.next(), parts.next(), parts.next(), parts.next()) {
                (Some(known), Some(id), Some(secret), None) if known == fingerprint => {
                    Ok(Self { id: id.to_owned(), secret: secret.to_owned() })
                }
                _ => bail!("{} is not of this cluster; remove it to have a new one made", path.display()),
            };
        }
        let token = Self { id: random(6)?, secret: random(16)? };
        write_private(path, format!("{fingerprint}.{}.{}\n", token.id, token.secret).as_bytes())?;
        Ok(token)
    }
}

/// Characters of a bootstrap token, from the kernel's generator.
fn random(length: usize) -> Result<String> {
    const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut text = String::with_capacity(length);
    let mut source = fs::File::open("/dev/urandom").context("open the random generator")?;
    while text.len() < length {
        let mut byte = [0];
        std::io::Read::read_exact(&mut source, &mut byte)?;
        // Only as many values as divide evenly, so that every character is as likely as any other.
        if byte[0] < 252 {
            text.push(ALPHABET[usize::from(byte[0] % 36)].into());
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_kept_and_a_new_name_renews_only_the_server() {
        let dir = tempfile::tempdir().unwrap();
        let bind = "127.0.0.1:6443".parse().unwrap();
        let now = Timestamp::now();
        let first = Credentials::prepare(dir.path(), bind, &[], now).unwrap();
        let again = Credentials::prepare(dir.path(), bind, &[], now).unwrap();
        assert_eq!((&first.server.cert_pem, &first.token.secret), (&again.server.cert_pem, &again.token.secret));
        let named = Credentials::prepare(dir.path(), bind, &["10.9.9.9".into()], now).unwrap();
        assert_ne!(first.server.cert_pem, named.server.cert_pem);
        assert_eq!(first.admin.cert_pem, named.admin.cert_pem);
        assert_eq!((first.token.id.len(), first.token.secret.len()), (6, 16));
    }
}
