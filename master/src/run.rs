//! `master run`: the whole control plane, composed.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use apiserver::ApiServer;
use auth::{
    Authenticator, Authorizers, Facts, NodeAuthorizer, NodeGraph, Observer, Rbac, ServiceAccountTokens,
    TokenIssuerConfig, UserInfo, names,
};
use controllers::{Authorities, SigningCa};
use jiff::Timestamp;
use kube::Client;
use rustls::client::ResolvesClientCert;
use store::Embedded;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};

use crate::data_dir::DataDir;
use crate::pki::{self, Pki};
use crate::settings::Settings;
use crate::tls::Tls;
use crate::{bootstrap, kubeconfig};

/// What tokens name as their issuer; also their audience.
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// By what name managed fields know all controllers.
const CONTROLLERS: &str = "kube-controller-manager";
const NODE_PORTS: std::ops::RangeInclusive<u16> = 30_000..=32_767;
/// How often the certificates are looked at: what is due is renewed, what `master certs` made is presented.
pub const RENEWAL_INTERVAL: Duration = Duration::from_secs(10);

/// Serves until SIGTERM or SIGINT.
pub async fn run(dir: &DataDir) -> Result<()> {
    let settings = Settings::load(dir)?
        .with_context(|| format!("there is no cluster in {}: run `master init` first", dir.root().display()))?;
    settings.begin(dir)?;
    let now = Timestamp::now();
    let pki = Pki::ensure(dir, &settings, now)?;
    kubeconfig::ensure(dir, &settings, &pki, now)?;
    let tls = Tls::new(&pki)?;

    let ending = ending()?;
    let listener =
        streams::listen::bind(settings.bind).with_context(|| format!("cannot listen on {}", settings.bind))?;
    let (server, tokens) = open(dir, &settings, &pki, &tls)?;
    server.bootstrap().await.context("making the namespaces and the kubernetes Service")?;
    bootstrap::run(&privileged(&server), &settings, &pki, dir).await?;

    let (authorities, followed) = watch::channel(authorities(&pki));
    let mut parts = parts(&server, controllers_config(&server, &tokens, &settings, followed)?);
    let server_tls = Arc::clone(&tls.server);
    let renewal =
        Renewal { dir: dir.clone(), settings: settings.clone(), tls, tokens, client: privileged(&server), authorities };
    parts.spawn(renewal.run());

    systemd::notify::ready(&format!("serving on {}", settings.bind));
    tracing::info!(bind = %settings.bind, endpoint = %settings.endpoint(), "control plane is up");
    let ended = tokio::select! {
        // Neither is resumed after this: dropping `serve` closes the listener, dropping `join_next` loses nothing.
        () = server.serve(listener, server_tls, ending) => Ok(()),
        Some(ended) = parts.join_next() => Err(why(ended)),
    };
    tracing::info!("control plane is ending");
    parts.shutdown().await;
    ended
}

/// What runs beside the API server. None of it ends by itself.
fn parts(server: &ApiServer, controllers: controllers::Config) -> JoinSet<Result<()>> {
    let mut parts = JoinSet::new();
    let scheduler =
        scheduler::run(as_user(server, "system:kube-scheduler", "kube-scheduler"), scheduler::Config::default());
    parts.spawn(async move {
        Box::pin(scheduler).await;
        bail!("the scheduler ended")
    });
    let controllers = controllers::run(controllers);
    parts.spawn(async move {
        controllers.await?;
        bail!("the controllers ended")
    });
    parts.spawn(feed_watchdog());
    let server = server.clone();
    parts.spawn(async move {
        server.closed().await;
        bail!("the store takes no more writes")
    });
    parts
}

fn why(ended: Result<Result<()>, JoinError>) -> anyhow::Error {
    match ended {
        Ok(Ok(())) => anyhow!("a part of the control plane ended"),
        Ok(Err(error)) => error,
        Err(panicked) => anyhow::Error::new(panicked).context("a part of the control plane failed"),
    }
}

/// The API server over its store, with everything that identifies and judges requests.
fn open(dir: &DataDir, settings: &Settings, pki: &Pki, tls: &Tls) -> Result<(ApiServer, Arc<ServiceAccountTokens>)> {
    let facts = Arc::new(Facts::new());
    let rbac = Arc::new(Rbac::new());
    let graph = Arc::new(NodeGraph::new());
    let tokens = TokenIssuerConfig {
        issuer: ISSUER.to_owned(),
        audiences: Vec::new(),
        signing_key: pki.service_account.signing()?,
        verifying_keys: pki.service_account.previous()?,
    };
    let tokens = Arc::new(ServiceAccountTokens::new(tokens, Arc::clone(&facts)));
    let security = apiserver::Security {
        authenticator: Arc::new(Authenticator::new(Arc::clone(&facts), Arc::clone(&tokens))),
        authorizer: Arc::new(Authorizers::new(NodeAuthorizer::new(Arc::clone(&graph))?, Arc::clone(&rbac))),
        rbac: Arc::clone(&rbac),
        observers: vec![facts as Arc<dyn Observer>, rbac, graph],
    };
    let path = dir.store();
    let backend = Embedded::open(&path).with_context(|| format!("cannot open the store {}", path.display()))?;
    let config = apiserver::Config {
        backend: Arc::new(backend),
        security,
        network: apiserver::Network {
            advertise: settings.endpoint(),
            services: settings.service_cidr,
            node_ports: NODE_PORTS,
        },
        kubelet_client: Some(Arc::clone(&tls.kubelet_client)),
        proxy_client: Some(Arc::clone(&tls.proxy_client) as Arc<dyn ResolvesClientCert>),
        front_proxies: Some(Arc::clone(&tls.front_proxies)),
    };
    Ok((ApiServer::open(config)?, tokens))
}

fn controllers_config(
    server: &ApiServer,
    tokens: &Arc<ServiceAccountTokens>,
    settings: &Settings,
    authorities: watch::Receiver<Authorities>,
) -> Result<controllers::Config> {
    let (server, asked, tokens) = (server.clone(), server.clone(), Arc::clone(tokens));
    Ok(controllers::Config {
        client_for: Arc::new(move |controller| controller_client(&server, controller)),
        check_api_service: Arc::new(move |name| {
            let server = asked.clone();
            Box::pin(async move { server.check_api_service(&name).await })
        }),
        sign_secret_token: Arc::new(move |of: &controllers::SecretToken<'_>| {
            let signed = tokens.secret_token(of.namespace, of.account, of.account_uid, of.secret);
            signed.map_err(|error| error.to_string())
        }),
        cluster_cidr: Some(settings.cluster_cidr),
        service_cidr: Some(settings.service_cidr),
        node_monitor_grace: Duration::from_secs(settings.node_monitor_grace_seconds),
        authorities,
        api_server: pki::api_server_names(settings)?,
        signing_duration: Duration::from_secs(settings.cluster_signing_duration_seconds),
    })
}

/// What the controllers need to know of the CAs.
fn authorities(pki: &Pki) -> Authorities {
    let signing = &pki.authorities.signing;
    Authorities {
        signing: SigningCa {
            certificate_pem: signing.certificate_pem.clone(),
            key_pem: signing.key_pem.reveal().to_owned(),
        },
        root_ca_pem: pki.authorities.bundle_pem(),
    }
}

/// Each controller is its own ServiceAccount of kube-system with the rights of `system:controller:NAME`; their common
/// watches are upstream's controller manager's.
fn controller_client(server: &ApiServer, controller: &str) -> Client {
    match controller {
        // As upstream's: no role of its own may write Secrets everywhere.
        "shared-informers" | "tokens-controller" => as_user(server, "system:kube-controller-manager", CONTROLLERS),
        // Part of the API server in upstream.
        "apiextensions" | "apiregistration" => privileged(server),
        name => client(server, UserInfo::service_account("kube-system", name, ""), CONTROLLERS),
    }
}

fn as_user(server: &ApiServer, name: &str, agent: &'static str) -> Client {
    client(server, UserInfo::new(name, &[names::ALL_AUTHENTICATED]), agent)
}

/// The API server's own identity, for what nobody else may make: the first roles.
fn privileged(server: &ApiServer) -> Client {
    let user = UserInfo::new("system:apiserver", &[names::PRIVILEGED_GROUP, names::ALL_AUTHENTICATED]);
    client(server, user, "kube-apiserver")
}

fn client(server: &ApiServer, user: UserInfo, agent: &'static str) -> Client {
    Client::new(server.in_process(user, agent), "default")
}

/// Resolves when the process is asked to end.
fn ending() -> Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        // Receiving a signal is cancel-safe.
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        systemd::notify::stopping();
    })
}

/// Tells systemd that the runtime still turns; for ever silent where nobody listens.
async fn feed_watchdog() -> Result<()> {
    let Some(interval) = systemd::notify::watchdog_interval() else { return std::future::pending().await };
    let mut ticks = tokio::time::interval(interval);
    loop {
        ticks.tick().await;
        systemd::notify::watchdog();
    }
}

/// Follows the files below `pki/`.
struct Renewal {
    dir: DataDir,
    settings: Settings,
    tls: Tls,
    tokens: Arc<ServiceAccountTokens>,
    client: Client,
    authorities: watch::Sender<Authorities>,
}

impl Renewal {
    /// Renews what expires within the next months, and presents it and what `master certs` made.
    async fn run(self) -> Result<()> {
        loop {
            tokio::time::sleep(RENEWAL_INTERVAL).await;
            if let Err(error) = self.renew().await {
                tracing::error!(error = format!("{error:#}"), "certificates were not renewed; trying again later");
            }
        }
    }

    async fn renew(&self) -> Result<()> {
        let now = Timestamp::now();
        let (dir, settings) = (self.dir.clone(), self.settings.clone());
        // It may have to wait for a command that has the lock.
        let pki = tokio::task::spawn_blocking(move || Pki::ensure(&dir, &settings, now)).await??;
        kubeconfig::ensure(&self.dir, &self.settings, &pki, now)?;
        self.tls.renew(&pki)?;
        self.tokens.set_keys(pki.service_account.signing()?, pki.service_account.previous()?);
        let authorities = authorities(&pki);
        if *self.authorities.borrow() != authorities {
            tracing::info!(phase = ?pki.authorities.phase(), "the CAs are others now");
            bootstrap::published_authorities(&self.client, &self.settings, &pki).await?;
            self.authorities.send_replace(authorities);
        }
        Ok(())
    }
}
