//! Who asks, and whether they may.

mod authenticate;
mod authorize;
pub mod impersonate;
pub mod tokens;

pub use authenticate::{Authenticated, bearer_token, from_certificate, from_token};
pub use authorize::{Attributes, Decision, authorize, forbidden};

use std::collections::BTreeMap;

/// An authenticated identity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserInfo {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

impl UserInfo {
    /// A user in some groups and in `system:authenticated`.
    pub fn new(name: impl Into<String>, groups: &[&str]) -> Self {
        let mut groups: Vec<String> = groups.iter().map(|group| (*group).to_owned()).collect();
        if !groups.iter().any(|group| group == AUTHENTICATED) {
            groups.push(AUTHENTICATED.to_owned());
        }
        Self { name: name.into(), groups, ..Self::default() }
    }

    /// The cluster's administrator, as kubeadm's first client certificate names it.
    pub fn admin() -> Self {
        Self::new("kubernetes-admin", &[MASTERS])
    }

    /// Whoever did not say who they are.
    pub fn anonymous() -> Self {
        Self { name: "system:anonymous".to_owned(), groups: vec![UNAUTHENTICATED.to_owned()], ..Self::default() }
    }

    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|known| known == group)
    }
}

/// May do everything.
pub const MASTERS: &str = "system:masters";
/// Everybody who said who they are.
pub const AUTHENTICATED: &str = "system:authenticated";
/// Everybody else.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// Kubelets.
pub const NODES: &str = "system:nodes";
/// Holders of a bootstrap token.
pub const BOOTSTRAPPERS: &str = "system:bootstrappers";
