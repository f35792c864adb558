//! `master certs`: which certificates there are, until when, and for whom; and new ones before their time.

use std::net::IpAddr;

use anyhow::{Context as _, Result, bail};
use auth::pki;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::cli::{CertsCommand, Output, RotateSaOptions};
use crate::data_dir::{self, DataDir};
use crate::pki::{Pki, service_account};
use crate::settings::Settings;
use crate::{kubeconfig, rotate_ca, token};

/// The certificates below `pki/` that there always are.
const FILES: [&str; 5] =
    ["ca.crt", "apiserver.crt", "apiserver-kubelet-client.crt", "front-proxy-ca.crt", "front-proxy-client.crt"];
/// Those that there are while the CA is replaced.
const PASSING: [&str; 3] = ["ca-next.crt", "ca-previous.crt", "ca-bridge.crt"];

/// A certificate as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Certificate {
    /// Its file, below the data folder.
    pub file: String,
    /// The subject's common name.
    pub common_name: String,
    pub begins: Timestamp,
    pub expires: Timestamp,
    /// Names and addresses that it is good for; none for clients.
    pub sans: Vec<String>,
}

pub fn run(command: &CertsCommand) -> Result<()> {
    match command {
        CertsCommand::Show { location, output } => show(&DataDir::new(&location.data_dir), *output),
        CertsCommand::Rotate { location } => rotate(&DataDir::new(&location.data_dir)),
        CertsCommand::RotateCa(options) => rotate_ca::run(options),
        CertsCommand::RotateSa(options) => rotate_service_account_key(options),
    }
}

/// Reads all certificates of a data folder; one that is missing or cannot be read is an error that names its file.
pub fn all(dir: &DataDir) -> Result<Vec<Certificate>> {
    let mut found = Vec::new();
    for name in FILES {
        let path = dir.pki(name);
        let pem = data_dir::read(&path)?.with_context(|| format!("{} is missing", path.display()))?;
        found.push(certificate(&format!("pki/{name}"), &pem)?);
    }
    for name in PASSING {
        if let Some(pem) = data_dir::read(&dir.pki(name))? {
            found.push(certificate(&format!("pki/{name}"), &pem)?);
        }
    }
    for path in [dir.admin_conf(), dir.super_admin_conf()] {
        let text = data_dir::read(&path)?.with_context(|| format!("{} is missing", path.display()))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        found.push(certificate(&name, &kubeconfig::client_certificate(&text))?);
    }
    Ok(found)
}

fn certificate(file: &str, pem: &str) -> Result<Certificate> {
    let validity = pki::validity(pem).with_context(|| format!("the certificate in {file}"))?;
    let addresses = validity.addresses.iter().map(IpAddr::to_string);
    Ok(Certificate {
        file: file.to_owned(),
        common_name: validity.common_name,
        begins: validity.not_before,
        expires: validity.not_after,
        sans: validity.dns_names.iter().cloned().chain(addresses).collect(),
    })
}

fn show(dir: &DataDir, output: Output) -> Result<()> {
    let certificates = all(dir)?;
    match output {
        Output::Json => manual::output::line(serde_json::to_string_pretty(&certificates)?),
        Output::Text => manual::output::text(table(&certificates, Timestamp::now())),
    }
    Ok(())
}

pub fn table(certificates: &[Certificate], now: Timestamp) -> String {
    let mut out = format!("{:<34}{:<32}{:<24}{:<12}FOR\n", "CERTIFICATE", "NAME", "EXPIRES", "LEFT");
    for Certificate { file, common_name, begins, expires, sans } in certificates {
        let left = match expires.duration_since(now) {
            _ if *begins > now => "<not yet>".to_owned(),
            left if left > SignedDuration::ZERO => token::human(left),
            _ => "<expired>".to_owned(),
        };
        // A timestamp does not pad itself.
        let expires = expires.to_string();
        out += &format!("{file:<34}{common_name:<32}{expires:<24}{left:<12}{}\n", sans.join(","));
    }
    out
}

/// Signs all leaves anew. The running master sees the new files by itself.
fn rotate(dir: &DataDir) -> Result<()> {
    let Some(settings) = Settings::load(dir)? else { bail!("there is no cluster in {}", dir.root().display()) };
    let now = Timestamp::now();
    let pki = Pki::rotate(dir, &settings, now)?;
    kubeconfig::rotate(dir, &settings, &pki, now)?;
    manual::output::text(table(&all(dir)?, now));
    manual::output::line(format_args!(
        "A running master presents them within {} seconds.",
        crate::run::RENEWAL_INTERVAL.as_secs()
    ));
    Ok(())
}

/// Makes another key for ServiceAccount tokens, or ends what earlier ones have signed.
fn rotate_service_account_key(options: &RotateSaOptions) -> Result<()> {
    let dir = DataDir::new(&options.location.data_dir);
    if !dir.settings().exists() {
        bail!("there is no cluster in {}", dir.root().display());
    }
    let what = if options.forget {
        service_account::forget(&dir)?;
        "Tokens of earlier keys are valid no longer"
    } else {
        service_account::rotate(&dir)?;
        "New tokens are signed by another key, and those of earlier ones stay valid: `master certs rotate-sa --forget` ends them"
    };
    manual::output::line(format_args!(
        "{what}. A running master follows within {} seconds.",
        crate::run::RENEWAL_INTERVAL.as_secs()
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_shown() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let of = |seconds: i64| Certificate {
            file: "pki/apiserver.crt".into(),
            common_name: "kube-apiserver".into(),
            begins: now - SignedDuration::from_secs(60),
            expires: now + SignedDuration::from_secs(seconds),
            sans: vec!["kubernetes".into(), "10.96.0.1".into()],
        };
        let ahead = Certificate { begins: now + SignedDuration::from_secs(60), ..of(3600) };
        let shown = table(&[of(3600 * 24 * 10), of(-1), ahead], now);
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines[1].contains("Z    240h ") && lines[1].ends_with("kubernetes,10.96.0.1"), "{shown}");
        assert!(lines[2].contains("<expired>") && lines[3].contains("<not yet>"), "{shown}");
    }
}
