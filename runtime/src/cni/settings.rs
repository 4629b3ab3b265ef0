//! What plugins are told of a sandbox beyond its namespace (CNI `CONVENTIONS.md`, "Dynamic Plugin specific fields").

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    engine::model::{Dns, PortMapping},
    error::{Error, Result},
};

/// Of each, the plugins that have the capability of its name are told.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    pub port_mappings: Vec<PortMapping>,
    pub bandwidth: Bandwidth,
    pub dns: Option<Dns>,
    /// The group of all of the sandbox's containers; empty for the runtime's own choice.
    pub cgroup_path: String,
    pub annotations: BTreeMap<String, String>,
}

impl Settings {
    /// `runtimeConfig`, with everything in it (containerd `internal/cri/server/sandbox_run.go`, `cniNamespaceOpts`).
    pub fn document(&self) -> Value {
        let mapping = |mapping: &PortMapping| json!({ "hostPort": mapping.host_port, "containerPort": mapping.container_port, "protocol": mapping.protocol, "hostIP": mapping.host_ip });
        let mut out = json!({ "io.kubernetes.cri.pod-annotations": self.annotations });
        if !self.port_mappings.is_empty() {
            out["portMappings"] = self.port_mappings.iter().map(mapping).collect();
        }
        if self.bandwidth != Bandwidth::default() {
            out["bandwidth"] = self.bandwidth.document();
        }
        if let Some(Dns { servers, searches, options }) = &self.dns {
            out["dns"] = json!({ "servers": servers, "searches": searches, "options": options });
        }
        if !self.cgroup_path.is_empty() {
            out["cgroupPath"] = json!(self.cgroup_path);
        }
        out
    }
}

/// Bits in a second that a sandbox may receive and send; none for as many as there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bandwidth {
    pub ingress: Option<u64>,
    pub egress: Option<u64>,
}

impl Bandwidth {
    /// What annotations ask for (Kubernetes `pkg/util/bandwidth/utils.go`, `ExtractPodBandwidthResources`).
    pub fn asked_for(annotations: &BTreeMap<String, String>) -> Result<Bandwidth> {
        let rate = |name: &str| {
            let Some(text) = annotations.get(name) else { return Ok(None) };
            let wrong = |why: &str| Error::invalid(format!("reading pod bandwidth annotations: {name}: {why}"));
            match bits(text) {
                None => Err(wrong(&format!("{text:?} is not a quantity"))),
                Some(bits) if bits < 1_000 => Err(wrong("resource is unreasonably small (< 1kbit)")),
                Some(bits) if bits > 1_000_000_000_000_000 => Err(wrong("resource is unreasonably large (> 1Pbit)")),
                some => Ok(some),
            }
        };
        Ok(Bandwidth {
            ingress: rate("kubernetes.io/ingress-bandwidth")?,
            egress: rate("kubernetes.io/egress-bandwidth")?,
        })
    }

    fn document(&self) -> Value {
        // As much at once as the plugin takes: there is no annotation for that.
        let burst = |rate: Option<u64>| rate.map_or(0, |_| u32::MAX);
        json!({
            "ingressRate": self.ingress.unwrap_or(0), "ingressBurst": burst(self.ingress),
            "egressRate": self.egress.unwrap_or(0), "egressBurst": burst(self.egress),
        })
    }
}

/// Reads a quantity (apimachinery `pkg/api/resource/quantity.go`), rounded up; below zero it is 0, far too much the largest.
fn bits(text: &str) -> Option<u64> {
    let (negative, text) = match text.strip_prefix(['+', '-']) {
        Some(rest) => (text.starts_with('-'), rest),
        None => (false, text),
    };
    let end = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    // More digits than that say nothing more of a rate, and fewer keep all below within 128 bits.
    if whole.len() + fraction.len() > 18 || whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    let binary = |power: u32| (1u128 << (10 * power), 0);
    let (multiplier, exponent) = match suffix {
        "" => (1, 0),
        "n" => (1, -9),
        "u" => (1, -6),
        "m" => (1, -3),
        "k" => (1, 3),
        "M" => (1, 6),
        "G" => (1, 9),
        "T" => (1, 12),
        "P" => (1, 15),
        "E" => (1, 18),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        _ => (1, suffix.strip_prefix(['e', 'E'])?.parse::<i32>().ok().filter(|power| (-18..=18).contains(power))?),
    };
    let exponent = exponent - i32::try_from(fraction.len()).ok()?;
    let scale = 10u128.pow(exponent.unsigned_abs());
    let value = if exponent < 0 { (digits * multiplier).div_ceil(scale) } else { digits * multiplier * scale };
    Some(if negative { 0 } else { u64::try_from(value).unwrap_or(u64::MAX) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_quantities_within_reason() {
        for (text, rate) in [
            ("1k", 1_000),
            ("10M", 10_000_000),
            ("1.5Mi", 1_572_864),
            ("1e6", 1_000_000),
            ("1000.1", 1_001),
            ("1P", 1_000_000_000_000_000),
            ("+2E3", 2_000),
        ] {
            let annotations = [("kubernetes.io/egress-bandwidth".to_owned(), text.to_owned())].into();
            let asked = Bandwidth::asked_for(&annotations).unwrap();
            assert_eq!(asked, Bandwidth { ingress: None, egress: Some(rate) }, "{text}");
        }
        for (text, why) in [
            ("999", "small"),
            ("-1G", "small"),
            ("1000m", "small"),
            ("2P", "large"),
            ("8E", "large"),
            ("999999999999999999Ei", "large"),
            ("999999999999999999e18", "large"),
            ("fast", "quantity"),
            ("", "quantity"),
            (".", "quantity"),
            ("1.2.3", "quantity"),
            ("1 M", "quantity"),
            ("1e99", "quantity"),
            ("1Kib", "quantity"),
            ("１", "quantity"),
        ] {
            let annotations = [("kubernetes.io/ingress-bandwidth".to_owned(), text.to_owned())].into();
            let error = Bandwidth::asked_for(&annotations).unwrap_err().to_string();
            assert!(error.contains("kubernetes.io/ingress-bandwidth") && error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn settings_are_told_by_the_names_that_plugins_know() {
        let settings = Settings {
            bandwidth: Bandwidth { ingress: Some(5_000), egress: None },
            dns: Some(Dns { servers: vec!["10.0.0.10".into()], ..Dns::default() }),
            cgroup_path: "/pods/a".into(),
            annotations: [("a".to_owned(), "b".to_owned())].into(),
            ..Settings::default()
        };
        let expected = json!({
            "bandwidth": { "ingressRate": 5_000, "ingressBurst": 4_294_967_295u32, "egressRate": 0, "egressBurst": 0 },
            "dns": { "servers": ["10.0.0.10"], "searches": [], "options": [] },
            "cgroupPath": "/pods/a",
            "io.kubernetes.cri.pod-annotations": { "a": "b" },
        });
        assert_eq!(settings.document(), expected);
        assert_eq!(Settings::default().document(), json!({ "io.kubernetes.cri.pod-annotations": {} }));
    }
}
