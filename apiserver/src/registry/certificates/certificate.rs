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

pub(super) struct Block<'t> {
    pub label: &'t str,
    has_headers: bool,
    pub content: Vec<u8>,
}

/// The next block that is well-formed: as Go's `pem.Decode`, which goes past all else. Every line is looked at once, however
/// many begin a block that does not end.
pub(super) fn next_block<'t>(text: &mut &'t str) -> Option<Block<'t>> {
    let mut begun: Option<(&str, &str)> = None;
    while !text.is_empty() {
        let here = *text;
        let (line, rest) = here.split_once('\n').unwrap_or((here, ""));
        *text = rest;
        let labelled = |dashes: &str| line.trim_end().strip_prefix(dashes)?.strip_suffix("-----");
        if let Some(label) = labelled("-----BEGIN ") {
            begun = Some((label, rest));
        }
        let Some(ended) = labelled("-----END ") else { continue };
        let Some((label, body)) = begun.take().filter(|(label, _)| *label == ended) else { continue };
        let content = &body[..body.len() - here.len()];
        let headers = content.lines().take_while(|line| line.contains(':')).count();
        let packed: String = content.lines().skip(headers).flat_map(|line| line.split_whitespace()).collect();
        let Ok(content) = STANDARD.decode(packed) else { continue };
        return Some(Block { label, has_headers: headers > 0, content });
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beginnings_without_ends_are_passed_over() {
        // Looked through to the end for each of them, this would take a minute.
        let begun: String = (0..100_000).map(|nth| format!("-----BEGIN {nth}-----\n")).collect();
        let of = |text: String| check(&STANDARD.encode(text));
        let nothing = "must contain at least one CERTIFICATE PEM block";
        assert_eq!(of(begun.clone()), Err(nothing.to_owned()));
        let other = format!("{begun}-----BEGIN X-----\nAAAA\n-----END X-----\n");
        assert_eq!(of(other), Err("only CERTIFICATE PEM blocks are allowed, found \"X\"".to_owned()));
    }
}
