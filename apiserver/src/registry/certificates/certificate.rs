//! What a signer may put into `status.certificate` (certificates `validateCertificate`).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Checks the certificates, which are PEM in base64; nothing is right, too.
pub(super) fn check(encoded: &str) -> Result<(), String> {
    let pem = STANDARD.decode(encoded).map_err(|error| error.to_string())?;
    if pem.is_empty() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&pem);
    let (mut rest, mut blocks) = (text.as_ref(), 0);
    while let Some(block) = next_block(&mut rest) {
        if block.label != "CERTIFICATE" {
            return Err(format!("only CERTIFICATE PEM blocks are allowed, found {:?}", block.label));
        }
        if block.has_headers {
            return Err("no PEM block headers are permitted".to_owned());
        }
        blocks += 1;
        all_certificates(&block.content)?;
    }
    if blocks == 0 { Err("must contain at least one CERTIFICATE PEM block".to_owned()) } else { Ok(()) }
}

/// One or more certificates, one after the other.
fn all_certificates(mut der: &[u8]) -> Result<(), String> {
    if der.is_empty() {
        return Err("found CERTIFICATE PEM block containing 0 certificates".to_owned());
    }
    while !der.is_empty() {
        let (rest, _) = X509Certificate::from_der(der).map_err(|_| "x509: malformed certificate".to_owned())?;
        der = rest;
    }
    Ok(())
}

struct Block<'t> {
    label: &'t str,
    has_headers: bool,
    content: Vec<u8>,
}

/// The next block that is well-formed: as Go's `pem.Decode`, which goes past all else.
fn next_block<'t>(text: &mut &'t str) -> Option<Block<'t>> {
    const BEGIN: &str = "-----BEGIN ";
    const DASHES: &str = "-----";
    loop {
        let at = if text.starts_with(BEGIN) { 0 } else { text.find("\n-----BEGIN ")? + 1 };
        let after = &text[at + BEGIN.len()..];
        let (line, body) = after.split_once('\n').unwrap_or((after, ""));
        *text = body;
        let Some(label) = line.trim_end().strip_suffix(DASHES) else { continue };
        let end = format!("{DASHES}END {label}{DASHES}");
        let Some((content, rest)) = body.split_once(end.as_str()) else { continue };
        // Nothing but blanks may follow on the line.
        let (tail, rest) = rest.split_once('\n').unwrap_or((rest, ""));
        if !tail.trim().is_empty() || !(content.is_empty() || content.ends_with('\n')) {
            continue;
        }
        let headers = content.lines().take_while(|line| line.contains(':')).count();
        let packed: String = content.lines().skip(headers).flat_map(|line| line.split_whitespace()).collect();
        let Ok(content) = STANDARD.decode(packed) else { continue };
        *text = rest;
        return Some(Block { label, has_headers: headers > 0, content });
    }
}
